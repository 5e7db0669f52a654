//! What all crates of Hesper share: emulating another operating system, locks, budgets, limits of
//! log lines.
//!
//! | to find | look in |
//! |---|---|
//! | whose ways are taken (`HESPER_SYSTEM`), the size of a page, core dumps | `platform.rs` |
//! | locks that ignore poison | [`sync`] |
//! | limited amounts of bytes and other things | [`budget`] |
//! | one user's part of such an amount | [`share`] |
//! | amounts that another process grants | `granted.rs` |
//! | memory that a VM monitor can take away, SIGBUS | [`guest_memory`], `fault.rs` |
//! | who is at the other end of a socket | `connections.rs` |
//! | log lines that a guest can cause, limited in their rate | `log_limit.rs` |

pub mod budget;
mod connections;
mod fault;
mod granted;
pub mod guest_memory;
mod log_limit;
mod platform;
pub mod share;
pub mod sync;

pub use connections::{Peer, is_exhausted};
pub use log_limit::{LINES as LOG_LINES, LogLimit, PERIOD as LOG_PERIOD, RateLimit};
pub use platform::{
    Played, UnknownSystem, VARIABLE, check, keep_out_of_core_dumps, page_size, played,
};
