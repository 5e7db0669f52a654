//! Linux: memfd, and glibc's heaps.

use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::Result;

/// Libraries to try when the system's Vulkan loader cannot be found: none, the loader is standard here.
pub(crate) const DRIVER_LIBRARIES: &[&str] = &[];

/// Fresh zeroed memory of `size` bytes, a multiple of the page size.
///
/// Whoever gets the descriptor cannot shrink it: a shrunken file would kill this process with SIGBUS.
pub(crate) fn create_shared_memory(size: u64) -> Result<OwnedFd> {
    let fd = memfd_create(
        "hesper-venus",
        MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
    )?;
    ftruncate(&fd, size)?;
    fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
    Ok(fd)
}

/// Gives the system what the allocator keeps of freed memory.
///
/// glibc has a heap for each thread that is busy at the same time as others, and gives back only what is free at its end: a
/// driver's objects of a few guests would stay as hundreds of megabytes.
pub(crate) fn return_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: no preconditions; it takes the locks that it needs.
    unsafe {
        libc::malloc_trim(0);
    }
}
