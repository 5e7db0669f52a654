//! Where drivers for tests are.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses its own part, and a test ends with a panic"
)]

#[path = "../../../tests/support/library.rs"]
mod library;

use std::path::PathBuf;

pub use library::built;

/// The null driver's shared library.
pub fn library() -> PathBuf {
    built("hesper_null_driver")
}
