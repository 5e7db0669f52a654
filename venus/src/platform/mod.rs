//! What differs between operating systems: anonymous shared memory, pages, what memory and mappings cost.
//!
//! Linux makes memfds that cannot shrink; other systems make a POSIX shm object and unlink it at once. With
//! `HESPER_SYSTEM=posix` in the environment a Hesper on Linux does so, too, and with `HESPER_SYSTEM=macos` it also counts in pages
//! of 16 KiB: so the tests show the ways of macOS to work.

#[cfg(target_os = "linux")]
mod linux;
mod posix;

use std::os::fd::OwnedFd;
use std::sync::OnceLock;

#[cfg(target_os = "linux")]
use linux as own;
#[cfg(not(target_os = "linux"))]
use posix as own;

pub(crate) use own::{count_mappings, mappings, release_stack, return_free_memory};

/// A page of Apple silicon, in bytes.
const APPLE_PAGE: u64 = 16 << 10;

/// The system whose ways are taken, where it is not this one.
fn played() -> Option<&'static str> {
    static PLAYED: OnceLock<Option<&'static str>> = OnceLock::new();
    *PLAYED.get_or_init(|| {
        let wanted = std::env::var_os("HESPER_SYSTEM")?;
        ["posix", "macos"].into_iter().find(|name| wanted == *name)
    })
}

/// The host's page size in bytes.
pub(crate) fn page_size() -> u64 {
    let own = rustix::param::page_size() as u64;
    if played() == Some("macos") {
        own.max(APPLE_PAGE)
    } else {
        own
    }
}

/// Fresh zeroed memory of `size` bytes, a multiple of the page size.
pub(crate) fn create_shared_memory(size: u64) -> rustix::io::Result<OwnedFd> {
    if played().is_some() {
        posix::create_shared_memory(size)
    } else {
        own::create_shared_memory(size)
    }
}
