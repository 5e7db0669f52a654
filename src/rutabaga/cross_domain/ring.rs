//! A ring of a cross-domain context: Hesper's memory, to which the library writes, and the guest's
//! pages, to which each answer is copied.
//!
//! The library keeps a pointer and writes through it. So it gets memory that lives as long as the
//! library's instance, and not the guest's pages, which can be unmapped at any time. Only one
//! thread accesses a ring at a time: the thread that writes an answer also delivers it.

use std::cell::UnsafeCell;
use std::sync::Arc;

use hesper_vhost::renderer::{GUEST_WRITE, GuestPages};
use rutabaga_gfx::RutabagaIovec;

/// The smallest size of a ring in bytes: the library's longest write fits.
const SHORTEST: u64 = 4096;

/// A ring of a cross-domain context.
pub(super) struct Ring {
    pages: Arc<dyn GuestPages>,
    memory: Box<[UnsafeCell<u8>]>,
}

// SAFETY: `memory` is accessed by one thread at a time, the one that writes the ring's answers, as
// `Self::read` demands.
unsafe impl Send for Ring {}
// SAFETY: as for `Send`.
unsafe impl Sync for Ring {}

impl Ring {
    /// Makes a ring over guest pages. Of a ring larger than any message, only the start is used.
    pub(super) fn new(pages: Arc<dyn GuestPages>) -> Result<Arc<Self>, String> {
        if pages.size() < SHORTEST {
            return Err(format!(
                "a ring has {} bytes; it must have {SHORTEST} at least",
                pages.size()
            ));
        }
        let length =
            usize::try_from(pages.size()).map_or(GUEST_WRITE, |size| size.min(GUEST_WRITE));
        let memory = std::iter::repeat_with(|| UnsafeCell::new(0)).take(length);
        Ok(Arc::new(Self {
            pages,
            memory: memory.collect(),
        }))
    }

    /// The memory for the library. The ring must outlive the library's use of it.
    pub(super) fn as_iovec(&self) -> RutabagaIovec {
        RutabagaIovec {
            base: UnsafeCell::raw_get(self.memory.as_ptr()).cast(),
            len: self.memory.len(),
        }
    }

    /// The memory's present contents.
    ///
    /// # Safety
    /// Nobody may write to the ring meanwhile: only the thread that has the library write to this
    /// ring may call this, and not while the library writes.
    unsafe fn read(&self) -> &[u8] {
        let start = UnsafeCell::raw_get(self.memory.as_ptr());
        // SAFETY: the cells are contiguous, and by the contract nobody writes to them.
        unsafe { std::slice::from_raw_parts(start, self.memory.len()) }
    }

    /// Copies what the library wrote to the guest. Does nothing if the guest has detached its
    /// pages.
    ///
    /// # Safety
    /// The same conditions as for [`Self::read`].
    pub(super) unsafe fn deliver(&self) {
        // SAFETY: the caller keeps the contract of `read`, which is the same.
        let bytes = unsafe { self.read() };
        self.pages.write(0, bytes);
    }
}
