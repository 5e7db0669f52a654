//! What all crates of Hesper share: emulating another operating system, locks, limits of log lines.
//!
//! | to find | look in |
//! |---|---|
//! | whose ways are taken (`HESPER_SYSTEM`), the size of a page, core dumps | `platform.rs` |
//! | locks that ignore poison | [`sync`] |
//! | log lines that a guest can cause, limited in their rate | `log_limit.rs` |

mod log_limit;
mod platform;
pub mod sync;

pub use log_limit::{LogLimit, RateLimit};
pub use platform::{
    Played, UnknownSystem, VARIABLE, check, keep_out_of_core_dumps, page_size, played,
};
