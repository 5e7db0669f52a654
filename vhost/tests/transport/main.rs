//! The transport over real sockets, in one process: `hesper-mock-frontend` on one side, a real
//! device on the other.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends where it fails"
)]

mod commands;
mod console;
mod hostile_vmm;
mod input;
mod lifecycle;
mod lives;
mod malformed;
mod pause;
mod queues;
mod served;
mod window;
