//! A guest's Venus driver, for tests: it speaks to a renderer with the protocol crate's encoders.
//!
//! A [`VenusGuest`] is a context. Its streams reach the renderer by calls (`venus/tests/guest`) or
//! through a whole device (`tests/mock_guest`). This crate has what a driver does with it: commands
//! and replies, an instance, a device and a few objects ([`Gpu`]), and [`Ring`]s.
//!
//! It is test code: it panics when the renderer breaks a promise.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc
)]

mod guest;
#[path = "../../../support/shaders.rs"]
pub mod harmful;
mod ring;
pub mod shader;

use std::time::{Duration, Instant};

pub use guest::{
    Gpu, Memory, RING, Shared, VenusGuest, bytes, query, read_reply, reply_stream, with_wait,
};
pub use ring::{ALIVE, FATAL, IDLE, Ring, RingOptions};

/// How long anything may take on a machine that is busy with other things.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something is so.
#[track_caller]
pub fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "not within {PATIENCE:?}: {what}");
        std::thread::yield_now();
    }
}
