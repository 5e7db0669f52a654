//! The other end of vhost-user, for tests: a VMM and the driver's side of a guest's two virtqueues.
//!
//! A [`Machine`] connects to a back end by the front end of the crate `vhost`. That crate is not
//! ours, so it is a second opinion on the protocol. Commands are bytes here: this crate knows
//! nothing of virtio-gpu.
//!
//! ```text
//! let mut machine = Machine::boot(socket);
//! let answer = machine.ask(&Request::bare(CMD_GET_DISPLAY_INFO));
//! ```
//!
//! It is test code: it panics when the back end breaks a promise.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc
)]

mod machine;
mod queue;
mod window;

use std::time::{Duration, Instant};

pub use machine::{Answer, Machine, PIXELS, PROTOCOL, Ticket, word};
pub use queue::{CONTROL, CURSOR, EVENT_IDX, INDIRECT, QUEUE_SIZE};
pub use window::Window;

/// How long to wait for anything that must come. The machine may be busy, or paused.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is so.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
