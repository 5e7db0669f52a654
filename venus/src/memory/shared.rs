//! [`SharedMemory`]: descriptor, size and mapping, with checked access to bytes that others
//! rewrite.
//!
//! The guest may change any byte at any time. So nothing here returns `&[u8]`. Bytes are copied out
//! before they are looked at, and words that both sides use as signals are accessed as atomics.

use std::any::Any;
use std::ffi::c_void;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use hesper_system::guest_memory::Registered;
use rustix::mm::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};

use crate::error::{Error, Result};
use crate::memory::guest_pages::{self, GuestPages, Mappings, Taken};
use crate::memory::quota::Charge;
use crate::platform;

/// The host's page size in bytes (4096, or 16384 on Apple silicon).
#[must_use]
pub fn page_size() -> u64 {
    platform::page_size()
}

/// Shared memory with this process's mapping; unmapped and closed on drop.
#[derive(Debug)]
pub struct SharedMemory {
    /// `None` when the pages come from several places.
    fd: Option<Arc<OwnedFd>>,
    fd_offset: u64,
    base: NonNull<u8>,
    len: usize,
    /// Returns the memory to its budget on drop.
    held: Held,
    /// Somebody may have the descriptor for longer than this value lives.
    is_given_away: AtomicBool,
    /// Who hears when this value is dropped.
    lender: Option<Arc<dyn Lender>>,
}

/// Who is told when memory is no longer used, see [`SharedMemory::set_lender`].
pub trait Lender: std::fmt::Debug + Send + Sync {
    /// The memory is unmapped. `is_given_away`: somebody may still have its descriptor.
    fn returned(&self, is_given_away: bool);
}

/// Reserves addresses for a mapping of `len` bytes that begins at a multiple of `alignment`, a
/// power of two above the system's page size.
fn reserve(len: usize, alignment: u64) -> rustix::io::Result<*mut c_void> {
    let overflow = rustix::io::Errno::OVERFLOW;
    let alignment = usize::try_from(alignment).map_err(|_| overflow)?;
    // Pages are whole: a mapping of less than a page takes a whole one.
    let page = rustix::param::page_size();
    let len = len.checked_next_multiple_of(page).ok_or(overflow)?;
    let total = len.checked_add(alignment).ok_or(overflow)?;
    // SAFETY: a new mapping at an address of the kernel's choice, which nobody can read or write.
    let start = unsafe {
        mmap_anonymous(
            std::ptr::null_mut(),
            total,
            ProtFlags::empty(),
            MapFlags::PRIVATE,
        )
    }?;
    let before = start.addr().next_multiple_of(alignment) - start.addr();
    let base = start.wrapping_byte_add(before);
    let (end, after) = (base.wrapping_byte_add(len), alignment - before);
    for (place, bytes) in [(start, before), (end, after)] {
        if bytes > 0 {
            // SAFETY: a part of the mapping made above, which nobody else knows. If it stays, only
            // addresses are lost, no memory.
            let _ = unsafe { munmap(place, bytes) };
        }
    }
    Ok(base)
}

/// What is given back with the memory.
#[derive(Debug)]
enum Held {
    Nothing,
    Bytes {
        _charge: Charge,
    },
    /// Whatever its user wants to keep as long.
    Other {
        _held: Box<dyn Any + Send + Sync>,
    },
    Mappings {
        _taken: Taken,
        registered: Option<Registered>,
    },
}

// SAFETY: the mapping belongs to this value alone, and all access goes through raw copies and
// atomics that allow other threads (and the guest) to write at the same time.
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// Fresh zeroed memory of at least `size` bytes, rounded up to whole pages.
    ///
    /// # Errors
    /// [`Error::SharedMemory`] when the system has no memory, descriptors or mappings left.
    pub fn create(size: u64) -> Result<Self> {
        Self::create_aligned(size, page_size())
    }

    /// The same, with the descriptor for another process.
    ///
    /// # Errors
    /// [`Error::SharedMemory`] when the system has no memory, descriptors or mappings left.
    pub(crate) fn create_to_share(size: u64) -> Result<(Self, Arc<OwnedFd>)> {
        let memory = Self::create(size)?;
        let fd = memory.shared_fd().ok_or_else(|| Error::SharedMemory {
            action: "sharing",
            size,
            source: std::io::ErrorKind::Unsupported.into(),
        })?;
        Ok((memory, fd))
    }

    /// [`SharedMemory::create`] at an address that is a multiple of `alignment`, a power of two.
    /// Drivers import no other.
    pub(crate) fn create_aligned(size: u64, alignment: u64) -> Result<Self> {
        let failed = |source: rustix::io::Errno| Error::SharedMemory {
            action: "creation",
            size,
            source: source.into(),
        };
        let size = size
            .max(1)
            .checked_next_multiple_of(page_size())
            .ok_or_else(|| failed(rustix::io::Errno::OVERFLOW))?;
        let fd = platform::create_shared_memory(size).map_err(failed)?;
        Self::map(Arc::new(fd), 0, size, alignment)
    }

    /// As [`SharedMemory::create_aligned`]. Keeps `charge` as long as the memory lives.
    pub(crate) fn create_charged(size: u64, alignment: u64, charge: Charge) -> Result<Self> {
        let mut memory = Self::create_aligned(size, alignment)?;
        memory.held = Held::Bytes { _charge: charge };
        Ok(memory)
    }

    /// Maps `size` bytes of `fd` from `fd_offset`, which must be a multiple of the page size.
    ///
    /// # Errors
    /// [`Error::SharedMemory`] when the file is too small or cannot be mapped.
    pub fn from_fd(fd: Arc<OwnedFd>, fd_offset: u64, size: u64) -> Result<Self> {
        let failed = |source: rustix::io::Errno| Error::SharedMemory {
            action: "mapping",
            size,
            source: source.into(),
        };
        let end = fd_offset
            .checked_add(size)
            .ok_or_else(|| failed(rustix::io::Errno::OVERFLOW))?;
        let file_size = rustix::fs::fstat(&fd).map_err(failed)?.st_size;
        // Touching pages behind the end of the file raises SIGBUS. A dma-buf reports 0 and checks
        // itself.
        if file_size != 0 && u64::try_from(file_size).unwrap_or(0) < end {
            return Err(failed(rustix::io::Errno::INVAL));
        }
        Self::map(fd, fd_offset, size, page_size())
    }

    /// Maps `size` bytes of `fd` from `fd_offset`, for a descriptor of somebody who may want to
    /// harm this process. The file must be memory whose size nobody can change: touching what is
    /// gone would raise SIGBUS, and what is charged for it would be too little. `held` is dropped
    /// after the memory is unmapped.
    ///
    /// Systems other than Linux do not seal files. There it must be a POSIX shared memory object,
    /// whose size can be set only once.
    ///
    /// # Errors
    /// [`Error::Untrusted`] when these are not whole pages inside such a file.
    /// [`Error::SharedMemory`] when it cannot be mapped.
    pub fn from_untrusted(
        fd: Arc<OwnedFd>,
        fd_offset: u64,
        size: u64,
        held: Box<dyn Any + Send + Sync>,
    ) -> Result<Self> {
        let refused = |reason| Error::Untrusted { size, reason };
        let file_size = platform::size_of_lasting(fd.as_fd());
        let file_size =
            file_size.map_err(|_| refused("it is no memory whose size nobody can change"))?;
        let is_whole = |bytes: u64| bytes.is_multiple_of(page_size());
        let is_inside = fd_offset
            .checked_add(size)
            .is_some_and(|end| end <= file_size);
        if size == 0 || !is_whole(size) || !is_whole(fd_offset) || !is_inside {
            return Err(refused("it is not whole pages of its file"));
        }
        let mut memory = Self::map(fd, fd_offset, size, page_size())?;
        memory.held = Held::Other { _held: held };
        Ok(memory)
    }

    /// Maps a part of a file at a multiple of `alignment`.
    fn map(fd: Arc<OwnedFd>, fd_offset: u64, size: u64, alignment: u64) -> Result<Self> {
        let failed = |source: rustix::io::Errno| Error::SharedMemory {
            action: "mapping",
            size,
            source: source.into(),
        };
        let len = usize::try_from(size).map_err(|_| failed(rustix::io::Errno::OVERFLOW))?;
        // The system aligns mappings to its own pages by itself.
        let (at, fixed) = match alignment > rustix::param::page_size() as u64 {
            true => (reserve(len, alignment).map_err(failed)?, MapFlags::FIXED),
            false => (std::ptr::null_mut(), MapFlags::empty()),
        };
        // SAFETY: a new mapping at an address of the kernel's choice, or in the place of one that
        // was reserved for it, disturbs no other memory.
        let mapped = unsafe {
            mmap(
                at,
                len,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED | fixed,
                &fd,
                fd_offset,
            )
        };
        let base = mapped.map_err(|error| {
            if !at.is_null() {
                // SAFETY: reserved above, and nobody else knows it.
                let _ = unsafe { munmap(at, len) };
            }
            failed(error)
        })?;
        hesper_system::keep_out_of_core_dumps(base.addr(), len);
        let base = NonNull::new(base.cast()).ok_or_else(|| failed(rustix::io::Errno::FAULT))?;
        Ok(Self {
            fd: Some(fd),
            fd_offset,
            base,
            len,
            held: Held::Nothing,
            is_given_away: AtomicBool::new(false),
            lender: None,
        })
    }

    /// Maps the same memory at another address.
    ///
    /// # Errors
    /// [`Error::SharedMemory`] when the system has no more mappings, or for guest memory, which has
    /// no descriptor.
    pub(crate) fn map_again(&self) -> Result<Self> {
        let fd = self.lent_fd().ok_or_else(|| Error::SharedMemory {
            action: "second mapping",
            size: self.len as u64,
            source: rustix::io::Errno::BADF.into(),
        })?;
        Self::from_fd(fd, self.fd_offset, self.len as u64)
    }

    /// Maps guest memory: all `pages` side by side, in their order, as long as the value lives.
    /// Each run of pages takes one of `mappings`.
    ///
    /// # Errors
    /// [`Error::SharedMemory`] when they are not whole pages of their files, or too few mappings
    /// are left.
    pub fn gather(pages: &[GuestPages], mappings: &Arc<Mappings>) -> Result<Self> {
        let error = |action, source| Error::SharedMemory {
            action,
            size: pages
                .iter()
                .fold(0, |sum, run| run.size.saturating_add(sum)),
            source,
        };
        let failed = |source: rustix::io::Errno| error("mapping of guest memory", source.into());
        let taken = mappings.take(pages.len()).ok_or_else(|| {
            error(
                "mapping within the limit on pieces of guest memory",
                std::io::ErrorKind::OutOfMemory.into(),
            )
        })?;
        let len = guest_pages::total(pages).map_err(failed)?;
        let base = guest_pages::map(pages, len).map_err(failed)?;
        let registered = guest_pages::register(pages, base, len);
        Ok(Self {
            fd: None,
            fd_offset: 0,
            base,
            len,
            held: Held::Mappings {
                _taken: taken,
                registered,
            },
            is_given_away: AtomicBool::new(false),
            lender: None,
        })
    }

    /// Whether it is guest memory.
    #[must_use]
    pub(crate) fn is_of_guest(&self) -> bool {
        self.fd.is_none()
    }

    /// Releases guest memory, for everybody who has this value. Other memory stays as it is.
    pub fn give_back(&self) {
        if self.is_of_guest()
            && let Err(error) = guest_pages::replace(self.base, self.len)
        {
            // The guest uses these pages for something else now, and its GPU may still write to
            // them.
            log::error!(
                "{} bytes of guest memory cannot be released: {error}",
                self.len
            );
        }
    }

    /// Size of the mapping in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes; never true for [`SharedMemory::create`].
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The descriptor, for somebody who may keep it. Guest memory has none, since its pages come
    /// from several places.
    ///
    /// Memory whose descriptor was given away is never used for something else, see
    /// [`SharedMemory::lent_fd`].
    #[must_use]
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.give_away();
        self.fd.as_ref().map(|fd| fd.as_fd())
    }

    /// The same, shared.
    #[must_use]
    pub fn shared_fd(&self) -> Option<Arc<OwnedFd>> {
        self.give_away();
        self.fd.clone()
    }

    /// The descriptor, for somebody who unmaps it and closes it before they drop this value. The
    /// renderer may then use the memory for another allocation of the same context.
    #[must_use]
    pub fn lent_fd(&self) -> Option<Arc<OwnedFd>> {
        self.fd.clone()
    }

    /// Notes that somebody may have the descriptor for longer than this value lives.
    pub fn give_away(&self) {
        self.is_given_away.store(true, Ordering::Release);
    }

    /// Whether somebody may have the descriptor for longer than this value lives.
    #[must_use]
    pub fn is_given_away(&self) -> bool {
        self.is_given_away.load(Ordering::Acquire)
    }

    /// Lets `lender` know when this value is dropped and unmapped.
    pub fn set_lender(&mut self, lender: Arc<dyn Lender>) {
        self.lender = Some(lender);
    }

    /// Where the memory starts in [`SharedMemory::fd`], in bytes.
    #[must_use]
    pub fn fd_offset(&self) -> u64 {
        self.fd_offset
    }

    /// Start of the mapping, for a driver that imports it or a reader that copies rows itself.
    ///
    /// Others write to these bytes at any time.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.base.as_ptr()
    }

    /// The pointer to `len` bytes at `offset`, if they are inside.
    fn range(&self, offset: usize, len: usize) -> Option<NonNull<u8>> {
        let end = offset.checked_add(len)?;
        if end > self.len {
            return None;
        }
        // SAFETY: offset <= end <= self.len, so the pointer stays in the mapping or one past its
        // end.
        Some(unsafe { self.base.add(offset) })
    }

    /// Copies bytes at `offset` into `to`. `None`, and nothing is copied, when they are not all
    /// inside.
    #[must_use]
    pub fn read(&self, offset: usize, to: &mut [u8]) -> Option<()> {
        let from = self.range(offset, to.len())?;
        // SAFETY: `range` checked the source; the target is an exclusive slice that cannot be in
        // the mapping, since no reference into it exists. A concurrent write by the guest gives
        // bytes of either value.
        unsafe { std::ptr::copy_nonoverlapping(from.as_ptr(), to.as_mut_ptr(), to.len()) };
        Some(())
    }

    /// Appends `len` bytes at `offset` to `to`. `None`, and nothing is appended, when they are not
    /// all inside.
    #[must_use]
    pub fn append_to(&self, offset: usize, len: usize, to: &mut Vec<u8>) -> Option<()> {
        let from = self.range(offset, len)?;
        to.reserve(len);
        // SAFETY: `range` checked the source, `reserve` made room for `len` bytes behind the
        // vector's length, and they are initialised by the copy before the length covers them.
        unsafe {
            std::ptr::copy_nonoverlapping(from.as_ptr(), to.as_mut_ptr().add(to.len()), len);
            to.set_len(to.len() + len);
        }
        Some(())
    }

    /// Copies `bytes` to `offset`. `None`, and nothing is written, when they do not fit.
    #[must_use]
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Option<()> {
        let to = self.range(offset, bytes.len())?;
        // SAFETY: `range` checked the target; a shared slice cannot be in the mapping, as for
        // `read`.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), to.as_ptr(), bytes.len()) };
        Some(())
    }

    /// The 32-bit word at `offset` as an atomic. `None` when it is outside or not aligned to 4.
    #[must_use]
    pub fn word(&self, offset: usize) -> Option<&AtomicU32> {
        let word = self.range(offset, 4)?;
        if !offset.is_multiple_of(4) {
            return None;
        }
        // SAFETY: inside the mapping, which lives as long as `self`; aligned, since a mapping
        // starts at a page.
        Some(unsafe { AtomicU32::from_ptr(word.as_ptr().cast()) })
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // Before the addresses can belong to another mapping.
        if let Held::Mappings { registered, .. } = &mut self.held {
            drop(registered.take());
        }
        // SAFETY: this value made the mapping, and every user of it borrows or owns this value.
        if let Err(error) = unsafe { munmap(self.base.as_ptr().cast(), self.len) } {
            log::error!("cannot unmap {} bytes of shared memory: {error}", self.len);
        }
        if let Some(lender) = self.lender.take() {
            lender.returned(self.is_given_away());
        }
    }
}

#[cfg(test)]
#[path = "shared_tests.rs"]
mod tests;
