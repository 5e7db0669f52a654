//! Helpers of the unit tests: pixels in plain memory, and an allocator that counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex};

use crate::picture::PixelMemory;

/// Pixels in a vector, not importable.
pub(crate) struct Pixels(Mutex<Vec<u8>>);

impl Pixels {
    pub(crate) fn of(bytes: Vec<u8>) -> Arc<Pixels> {
        Arc::new(Pixels(Mutex::new(bytes)))
    }

    pub(crate) fn zeroed(size: usize) -> Arc<Pixels> {
        Pixels::of(vec![0; size])
    }

    pub(crate) fn fill(&self, byte: u8) {
        self.0.lock().unwrap().fill(byte);
    }
}

// SAFETY: no pages are ever handed out.
unsafe impl PixelMemory for Pixels {
    fn size(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    fn host_pages(&self) -> Option<NonNull<[u8]>> {
        None
    }

    fn read(&self, offset: usize, into: &mut [u8]) {
        let bytes = self.0.lock().unwrap();
        into.copy_from_slice(&bytes[offset..offset + into.len()]);
    }
}

struct Counting;

thread_local! {
    // Const-initialised and without a destructor: touching it never allocates.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

/// How often this thread has allocated.
pub(crate) fn allocations() -> u64 {
    ALLOCATIONS.get()
}

// SAFETY: every call goes on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are the system allocator's.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;
