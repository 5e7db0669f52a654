//! Linux: memfd.

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
