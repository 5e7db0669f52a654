//! A ring of a cross-domain context: memory of ours in which the library answers, and the guest's pages to which each answer is
//! copied.
//!
//! The library writes through a pointer that it keeps; so it is given memory that lives as long as the library's instance does, and
//! not the guest's, which can go at any time. Only one thread touches a ring at a time: its writer, which writes an answer,
//! and then, in the same thread, has it delivered.

use std::cell::UnsafeCell;
use std::sync::Arc;

use hesper_vhost::renderer::{GUEST_WRITE, GuestPages};
use rutabaga_gfx::RutabagaIovec;

/// Bytes of the shortest ring: what the library writes at a time fits.
const SHORTEST: u64 = 4096;

/// See the module.
pub(super) struct Ring {
    pages: Arc<dyn GuestPages>,
    memory: Box<[UnsafeCell<u8>]>,
}

// SAFETY: `memory` is accessed by one thread at a time, the one that writes a ring's answers, as `Self::read` demands.
unsafe impl Send for Ring {}
// SAFETY: as above.
unsafe impl Sync for Ring {}

impl Ring {
    /// A ring over guest pages; of larger ones than a message ever needs, the start is used.
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

    /// The memory, for the library. The ring must outlive its use.
    pub(super) fn as_iovec(&self) -> RutabagaIovec {
        RutabagaIovec {
            base: UnsafeCell::raw_get(self.memory.as_ptr()).cast(),
            len: self.memory.len(),
        }
    }

    /// The memory as it is.
    ///
    /// # Safety
    /// Nobody may write to the ring meanwhile: only the thread that has the library write to this ring calls this, and not while
    /// the library does so.
    unsafe fn read(&self) -> &[u8] {
        let start = UnsafeCell::raw_get(self.memory.as_ptr());
        // SAFETY: the cells lie one after the other; by the contract nobody writes.
        unsafe { std::slice::from_raw_parts(start, self.memory.len()) }
    }

    /// Copies what the library wrote to the guest. When the guest has its pages back, nothing happens.
    ///
    /// # Safety
    /// As for [`Self::read`].
    pub(super) unsafe fn deliver(&self) {
        // SAFETY: the caller's promise.
        let bytes = unsafe { self.read() };
        self.pages.write(0, bytes);
    }
}
