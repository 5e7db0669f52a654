//! Systems without memfd: POSIX shared memory objects, unlinked as soon as they are open.
#![cfg_attr(
    target_os = "linux",
    allow(
        dead_code,
        reason = "Linux takes only the shared memory from here, in tests"
    )
)]

use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::fs::{FileType, fstat, ftruncate};
use rustix::io::{Errno, Result};
use rustix::shm::{self, Mode, OFlags};

/// No word is slept on: there is no portable way ([`super::has_words`]).
pub(crate) fn wake_word(_word: &AtomicU32) {}

/// As above.
pub(crate) fn wait_on_word(_word: &AtomicU32, _value: u32, _most: Option<Duration>) {}

/// Returns memory that the allocator keeps to the system, if there is a way to do that.
pub(crate) fn return_free_memory() {}

/// The shared library that has the code at this address. Only Linux is asked, where drivers have a
/// loader and many are installed at once.
pub(crate) fn library_of(_code: *const std::ffi::c_void) -> Option<std::path::PathBuf> {
    None
}

/// The unused part of a stack stays: there is no portable way to return it.
pub(crate) fn release_stack() {}

/// Pages of a shared memory object stay: there is no portable way to return them.
pub(crate) fn forget(_fd: BorrowedFd<'_>, _size: u64) {}

/// How many mappings a process may have: no limit is known here.
pub(crate) fn mappings() -> usize {
    1 << 24
}

/// How many mappings this process has: not known here.
pub(crate) fn count_mappings() -> Option<usize> {
    None
}

/// The size of a shared memory object. An error for any other file.
///
/// macOS sets the size of such an object once. What `fstat` tells of it has no file type. Linux
/// shows it as a file whose size can change; this is for tests only.
pub(crate) fn size_of_lasting(fd: BorrowedFd<'_>) -> Result<u64> {
    let status = fstat(fd)?;
    let object = match cfg!(target_os = "linux") {
        true => FileType::RegularFile,
        false => FileType::Unknown,
    };
    if FileType::from_raw_mode(status.st_mode) != object {
        return Err(Errno::PERM);
    }
    u64::try_from(status.st_size).map_err(|_| Errno::INVAL)
}

/// Fresh zeroed memory of `size` bytes, a multiple of the page size.
///
/// The name must stay below 32 characters, and the size can be set only once, before the unlink.
pub(crate) fn create_shared_memory(size: u64) -> Result<OwnedFd> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    // A name that was left behind by a dead process is skipped, not reused.
    for _ in 0..1024 {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("/hesper-{:x}-{number:x}", std::process::id());
        let fd = match shm::open(
            name.as_str(),
            OFlags::CREATE | OFlags::EXCL | OFlags::RDWR,
            Mode::RUSR | Mode::WUSR,
        ) {
            Err(Errno::EXIST) => continue,
            opened => opened?,
        };
        let sized = ftruncate(&fd, size);
        shm::unlink(name.as_str())?;
        sized?;
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
        return Ok(fd);
    }
    Err(Errno::EXIST)
}
