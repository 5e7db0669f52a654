//! Tests with real windows: the display server must show what the guest drew.
//!
//! Every scenario runs in a process of its own, because a process can have only one event loop.
//! Build the tests on the machine, and run them where a display server and a Vulkan driver are:
//!
//! ```text
//! cargo test -p hesper-display --test window --no-run
//! tests/env/run xvfb-run -a cargo test -p hesper-display --test window [-- FILTER]
//! ```

// Clippy recognises #[test] functions as tests, but not the functions that they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[cfg(target_os = "linux")]
mod harness;
#[cfg(target_os = "linux")]
mod scenarios;
#[cfg(target_os = "linux")]
mod x11;

#[cfg(target_os = "linux")]
#[path = "../../examples/pages/mod.rs"]
mod pages;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    harness::main(scenarios::ALL)
}

#[cfg(not(target_os = "linux"))]
fn main() -> std::process::ExitCode {
    eprintln!("the window tests drive X11 and Wayland servers, which this system does not have");
    std::process::ExitCode::FAILURE
}
