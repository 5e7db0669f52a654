//! What differs between operating systems: anonymous shared memory, and the cost of memory and
//! mappings.
//!
//! Linux makes memfds that cannot shrink. Other systems make a POSIX shm object and unlink it at
//! once. `hesper-system` says which system's way is taken.

#[cfg(target_os = "linux")]
mod linux;
mod posix;

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use hesper_system::played;

pub(crate) use hesper_system::page_size;

#[cfg(target_os = "linux")]
use linux as own;
#[cfg(not(target_os = "linux"))]
use posix as own;

pub(crate) use own::{
    count_mappings, forget, library_of, mappings, release_stack, return_free_memory,
};

/// Whether a thread can sleep on a word that another process changes. Only Linux' way is known to
/// all its versions.
pub(crate) fn has_words() -> bool {
    cfg!(target_os = "linux") && played().is_none()
}

/// Wakes all threads that sleep on a word, of all processes.
pub(crate) fn wake_word(word: &AtomicU32) {
    own::wake_word(word);
}

/// Sleeps while the word has this value, for at most so long. May also end early.
pub(crate) fn wait_on_word(word: &AtomicU32, value: u32, most: Option<Duration>) {
    own::wait_on_word(word, value, most);
}

/// Nanoseconds of a clock that all processes share and nobody sets. Never 0.
pub(crate) fn monotonic() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    // The clock begins at the system's start, so neither part is negative.
    let seconds = now.tv_sec.cast_unsigned();
    let nanoseconds = now.tv_nsec.cast_unsigned();
    seconds
        .wrapping_mul(1_000_000_000)
        .wrapping_add(nanoseconds)
        .max(1)
}

/// How many descriptors this process may have.
pub(crate) fn descriptors() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.map_or(usize::MAX, |limit| {
        usize::try_from(limit).unwrap_or(usize::MAX)
    })
}

/// The size of a file that is memory whose size nobody can change. An error for any other file.
pub(crate) fn size_of_lasting(fd: BorrowedFd<'_>) -> rustix::io::Result<u64> {
    if played().is_some() {
        posix::size_of_lasting(fd)
    } else {
        own::size_of_lasting(fd)
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
