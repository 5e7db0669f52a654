//! Hesper's device and renderer together. Guest and VMM are this test: real sockets, real
//! virtqueues, real Venus commands (the protocol crate's encoders), no QEMU. The host's driver is
//! lavapipe.
//!
//! What these tests show of order, stalls and faults are the invariants that keep a guest's
//! `vkWaitForFences` from timing out (docs/guests.md).
#![cfg(target_os = "linux")]
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic"
)]

mod blobs;
mod cost;
mod guest;
mod hostmem;
mod isolation;
mod limits;
mod mac;
mod malformed;
mod model;
mod order;
mod process_cost;
mod scanout;
#[path = "../support/mod.rs"]
mod support;
mod trace;
mod wayland;

use std::path::Path;

use guest::Vm;
use hesper_mock_frontend::{Machine, eventually};
use support::hesper::Hesper;
use support::process::Usage;
use support::xserver::XServer;

/// A Hesper without windows, and a VM on it.
struct Served {
    hesper: Hesper,
    /// What Hesper holds while no VM is connected.
    idle: Usage,
    folder: tempfile::TempDir,
}

impl Served {
    fn start() -> Self {
        Self::start_with(&["--display=headless", "--size=640x480"], None)
    }

    fn start_with(arguments: &[&str], screen: Option<&XServer>) -> Self {
        Self::start_in(arguments, screen, &[])
    }

    /// The same with more in its environment.
    fn start_in(arguments: &[&str], screen: Option<&XServer>, variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hesper = Hesper::start_in(folder.path(), arguments, screen, None, variables);
        let idle = hesper.idle_usage();
        Self {
            hesper,
            idle,
            folder,
        }
    }

    /// With cross-domain contexts on a compositor, which need not exist.
    fn start_near(compositor: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let arguments = [
            "--display=headless",
            "--size=640x480",
            "--capsets=venus,cross-domain",
        ];
        let hesper = Hesper::start_near(folder.path(), &arguments, None, Some(compositor));
        let idle = hesper.idle_usage();
        Self {
            hesper,
            idle,
            folder,
        }
    }

    fn boot(&self) -> Vm {
        Vm::new(Machine::boot_with_window(&self.hesper.socket(), 4096))
    }

    /// Waits until Hesper's log has `words`.
    #[track_caller]
    fn says(&self, words: &str) {
        eventually(&format!("Hesper says '{words}'"), || {
            self.hesper.process.errors().contains(words)
        });
    }

    /// Ends the VM and waits until nothing of it is left in Hesper.
    #[track_caller]
    fn leaves_nothing(self, vm: Vm) {
        drop(vm);
        eventually("nothing of the VM is left", || {
            self.hesper.process.usage() == self.idle
        });
    }
}
