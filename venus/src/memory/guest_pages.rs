//! Guest memory as one range: its scattered pages, mapped a second time side by side.
//!
//! A driver imports memory by one address, and a ring is read by one. The pages of a guest's blob
//! lie anywhere in the files that hold the guest's memory. So each run of pages is mapped where the
//! one before it ends. Nothing is copied.

use std::fs::File;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hesper_system::guest_memory::{self, FileId, Registered};
use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous};

use crate::platform::page_size;

/// Pages of guest memory that follow each other in a file.
#[derive(Clone, Debug)]
pub struct GuestPages {
    /// The file that holds the guest's memory.
    pub file: Arc<File>,
    /// Where they begin in the file, in bytes. A multiple of the page size.
    pub offset: u64,
    /// Their size in bytes. A multiple of the page size.
    pub size: u64,
}

/// How many mappings may be made of guest memory. A process on Linux has 65,530 by default.
#[derive(Debug)]
pub struct Mappings {
    left: AtomicUsize,
}

/// Mappings that were taken; given back on drop.
#[derive(Debug)]
pub(super) struct Taken {
    from: Arc<Mappings>,
    count: usize,
}

impl Mappings {
    /// So many are there.
    #[must_use]
    pub fn new(limit: usize) -> Self {
        Self {
            left: AtomicUsize::new(limit),
        }
    }

    /// Takes `count`. `None` when less is left.
    pub(super) fn take(self: &Arc<Self>, count: usize) -> Option<Taken> {
        let less = |left: usize| left.checked_sub(count);
        self.left
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .ok()?;
        Some(Taken {
            from: Arc::clone(self),
            count,
        })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.from.left.fetch_add(self.count, Ordering::Relaxed);
    }
}

/// Puts Hesper's own memory in the place of a guest's pages, so that the guest has them back. What
/// still reads or writes there finds zeros and does no harm.
pub(super) fn replace(base: NonNull<u8>, total: usize) -> Result<(), Errno> {
    let both = ProtFlags::READ | ProtFlags::WRITE;
    let place = base.as_ptr().cast();
    // SAFETY: replaces the pages of a mapping that `map` made, at once for all threads. The mapping
    // keeps its place and size, and nobody has references into it.
    unsafe { mmap_anonymous(place, total, both, MapFlags::PRIVATE | MapFlags::FIXED) }?;
    Ok(())
}

/// Bytes in all pages. Fails if there are none, if offsets or sizes are not whole pages, and if a
/// file is too small.
pub(super) fn total(pages: &[GuestPages]) -> Result<usize, Errno> {
    let mut total = 0_usize;
    for run in pages {
        let is_whole = |bytes: u64| bytes.is_multiple_of(page_size());
        let end = run.offset.checked_add(run.size).ok_or(Errno::OVERFLOW)?;
        let file_size = rustix::fs::fstat(&run.file)?.st_size;
        // Touching pages behind the end of the file raises SIGBUS.
        let is_there = u64::try_from(file_size).is_ok_and(|file_size| end <= file_size);
        if run.size == 0 || !is_whole(run.offset) || !is_whole(run.size) || !is_there {
            return Err(Errno::INVAL);
        }
        let size = usize::try_from(run.size).map_err(|_| Errno::OVERFLOW)?;
        total = total.checked_add(size).ok_or(Errno::OVERFLOW)?;
    }
    if total == 0 {
        return Err(Errno::INVAL);
    }
    Ok(total)
}

/// Registers a mapping that [`map`] made, since a VM monitor can shrink the files. The pages of one
/// guest belong to one monitor, so the first file stands for all.
pub(super) fn register(
    pages: &[GuestPages],
    base: NonNull<u8>,
    total: usize,
) -> Option<Registered> {
    let file = FileId::of(&pages.first()?.file.metadata().ok()?);
    Some(guest_memory::register(base.as_ptr(), total, file, None))
}

/// Maps all pages side by side. `total` is their size. The caller must unmap as many bytes.
pub(super) fn map(pages: &[GuestPages], total: usize) -> Result<NonNull<u8>, Errno> {
    let anywhere = std::ptr::null_mut();
    // SAFETY: a new mapping at an address of the kernel's choice disturbs no other memory.
    let base = unsafe { mmap_anonymous(anywhere, total, ProtFlags::empty(), MapFlags::PRIVATE) }?;
    let base = NonNull::new(base.cast::<u8>()).ok_or(Errno::FAULT)?;
    let both = ProtFlags::READ | ProtFlags::WRITE;
    let mut at = 0;
    for run in pages {
        // The sum of all sizes fits, so this one does.
        let size = run.size as usize;
        // SAFETY: at most the sum of all sizes, so inside the mapping made above.
        let place = unsafe { base.add(at) }.as_ptr();
        // SAFETY: replaces pages of the mapping made above, which nobody else knows of yet.
        let mapped = unsafe {
            mmap(
                place.cast(),
                size,
                both,
                MapFlags::SHARED | MapFlags::FIXED,
                run.file.as_fd(),
                run.offset,
            )
        };
        if let Err(error) = mapped {
            // SAFETY: made above, and known to nobody.
            let _ = unsafe { rustix::mm::munmap(base.as_ptr().cast(), total) };
            return Err(error);
        }
        at += size;
    }
    hesper_system::keep_out_of_core_dumps(base.as_ptr().addr(), total);
    Ok(base)
}
