//! Linux: memfd.

use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::Result;

/// Libraries to try when the system's Vulkan loader cannot be found: none, the loader is standard here.
pub(crate) const DRIVER_LIBRARIES: &[&str] = &[];

/// Gives memory that the allocator keeps back to the system: a driver frees much of it when its devices go, in pieces that
/// the allocator would hold for ever. Takes about a millisecond.
pub(crate) fn return_free_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: may be called by any thread at any time.
    unsafe {
        libc::malloc_trim(0)
    };
}

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
