//! Pixel memory for the example and the window tests. It consists of whole pages of this process,
//! so that a GPU can import them. One thread writes it while others read.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use hesper_display::PixelMemory;

/// The largest page size of known hosts, and the largest import alignment of their drivers.
const PAGE: usize = 65536;

/// Zeroed pages.
pub(crate) struct Pages {
    words: NonNull<AtomicU32>,
    layout: Layout,
    importable: bool,
}

// SAFETY: the memory is reached as atomics only.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    /// At least `size` bytes. The GPU can import them only if `importable` is set.
    pub(crate) fn new(size: usize, importable: bool) -> Arc<Pages> {
        let size = size.max(1).next_multiple_of(PAGE);
        let Ok(layout) = Layout::from_size_align(size, PAGE) else {
            panic!("{size} bytes are more than an address space holds")
        };
        // SAFETY: the size is not zero.
        let words = unsafe { alloc_zeroed(layout) }.cast();
        let Some(words) = NonNull::new(words) else {
            handle_alloc_error(layout)
        };
        Arc::new(Pages {
            words,
            layout,
            importable,
        })
    }

    fn words(&self) -> &[AtomicU32] {
        // SAFETY: this much was allocated and zeroed, and it lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.layout.size() / 4) }
    }

    /// Writes a pixel's four bytes.
    pub(crate) fn set(&self, offset: usize, bytes: [u8; 4]) {
        if let Some(word) = self.words().get(offset / 4) {
            word.store(u32::from_ne_bytes(bytes), Ordering::Relaxed);
        }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: allocated by us with this layout.
        unsafe { dealloc(self.words.as_ptr().cast(), self.layout) };
    }
}

// SAFETY: the pages live as long as the value, at one address.
unsafe impl PixelMemory for Pages {
    fn size(&self) -> usize {
        self.layout.size()
    }

    fn host_pages(&self) -> Option<NonNull<[u8]>> {
        let pages = NonNull::slice_from_raw_parts(self.words.cast(), self.layout.size());
        self.importable.then_some(pages)
    }

    fn read(&self, offset: usize, into: &mut [u8]) {
        for (at, byte) in (offset..).zip(into) {
            let word = self
                .words()
                .get(at / 4)
                .map_or(0, |word| word.load(Ordering::Relaxed));
            let [first, second, third, fourth] = word.to_ne_bytes();
            *byte = match at % 4 {
                0 => first,
                1 => second,
                2 => third,
                _ => fourth,
            };
        }
    }
}
