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

/// Gives the unused part of this thread's stack back to the system: a driver's compiler touches much of one, and a thread that
/// then sleeps would keep it.
pub(crate) fn release_stack() {
    /// What the calls below need at most.
    const MARGIN: usize = 16 << 10;
    let mut attributes = std::mem::MaybeUninit::<libc::pthread_attr_t>::uninit();
    let (mut start, mut size) = (std::ptr::null_mut(), 0);
    // SAFETY: the attributes are read and destroyed only if the first call has made them.
    let is_known = unsafe {
        libc::pthread_getattr_np(libc::pthread_self(), attributes.as_mut_ptr()) == 0 && {
            let got = libc::pthread_attr_getstack(attributes.as_ptr(), &mut start, &mut size);
            libc::pthread_attr_destroy(attributes.as_mut_ptr());
            got == 0
        }
    };
    // Stacks grow down on all of Linux' processors that this runs on: what is in use is above here.
    let here = (&raw const size).addr();
    let page = rustix::param::page_size();
    let end = here.saturating_sub(MARGIN) / page * page;
    let unused = end.saturating_sub(start.addr());
    if !is_known || unused == 0 || unused > size {
        return;
    }
    // SAFETY: these pages are this thread's stack below everything that is in use: nobody reads them before writing.
    unsafe { libc::madvise(start, unused, libc::MADV_DONTNEED) };
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
