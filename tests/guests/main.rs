//! Real guests in stock QEMU. They need `tests/env/prepare host guest mesa`; `tests/README.md` says
//! how to run one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic"
)]

mod arm64;
mod beside;
mod classic_device;
mod full_device;
mod hard;
mod hostile;
mod input;
mod isolation;
mod kexec;
mod libvirt;
mod mac;
mod on_close;
mod packages;
mod pause;
#[path = "../support/mod.rs"]
mod support;
mod suspend;
mod vulkan;
mod wayland;
mod window;
