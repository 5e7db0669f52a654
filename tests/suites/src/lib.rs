//! Other people's test suites, run natively and over `hesper vtest` in one go, and compared case by
//! case.
//!
//! The tests under `tests/` choose what runs; `README.md` tells how. Here is what they share: the
//! environment with the suites and Hesper in it ([`environment`]), piglit ([`piglit`]), ggml's
//! operations ([`ggml`]), the comparison ([`differences`]) and what the validation layer says
//! ([`validation`]).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic"
)]

pub mod differences;
pub mod environment;
pub mod ggml;
pub mod piglit;
pub mod validation;
