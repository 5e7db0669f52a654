//! virgl with the real virglrenderer, on EGL without a window system and llvmpipe. [`mock`] is the
//! guest itself and sends commands; [`in_vm`] has an unmodified guest in stock QEMU.
//!
//! Needs the cargo feature `virgl`:
//! `tests/env/with-virgl cargo test --features virgl --test virgl`.
#![cfg(target_os = "linux")]
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic"
)]

#[path = "../mock_guest/guest.rs"]
mod guest;
mod in_vm;
mod mock;
#[path = "../support/mod.rs"]
mod support;
