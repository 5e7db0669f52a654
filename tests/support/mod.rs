//! Modules that the tests with real programs share: Hesper's own process, an X server, a guest in
//! QEMU, pictures.
//!
//! Everything runs in the environment of `tests/env/prepare`. Without it, a test fails and says so.
//! Each process ends when its value is dropped.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses its own part"
)]

pub mod cube;
pub mod guest;
pub mod hesper;
pub mod input;
pub mod libvirt;
pub mod picture;
pub mod process;
pub mod programs;
pub mod qmp;
pub mod viewer;
pub mod vulkan_guest;
pub mod weston;
pub mod xserver;

/// A number from the environment.
pub fn number(variable: &str, default: u32) -> u32 {
    std::env::var(variable).map_or(default, |number| {
        let number = number.parse();
        number.unwrap_or_else(|_| panic!("{variable} is a number"))
    })
}
