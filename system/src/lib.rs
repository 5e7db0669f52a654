//! What all crates of Hesper share.

mod platform;

pub use platform::{Played, UnknownSystem, VARIABLE, check, page_size, played};
