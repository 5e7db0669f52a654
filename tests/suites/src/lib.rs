//! Runs other people's test suites natively and over `hesper vtest`, and compares them case by
//! case.
//!
//! The tests under `tests/` choose what runs; `README.md` says how to start them. This library is
//! what they share: the environment with the suites and Hesper in it ([`environment`]), piglit
//! ([`piglit`]), ggml's operations ([`ggml`]), the comparison ([`differences`]) and the reports of
//! the validation layer ([`validation`]).
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
