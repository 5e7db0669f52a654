//! Fast copies from scattered guest pages.
//!
//! A guest's framebuffer is thousands of 4 KiB pages in no order. When they are copied one by one,
//! each copy begins with misses in the TLB and the cache that the hardware cannot predict.
//! [`CopyPipeline`] therefore copies a few pages behind. When a copy is added, the start of its
//! source is prefetched. When the copy is made, the misses are over. `benches/transfer_2d.rs`
//! measures it.

use vm_memory::VolatileSlice;

/// How many copies wait between [`CopyPipeline::add`] and the copy itself.
const BEHIND: usize = 2;
/// Bytes to prefetch at the start of a source; the hardware follows from there. With 512 a frame
/// takes a quarter longer, with 4096 a tenth.
const NEAR: usize = 1024;
/// Bytes of a cache line.
const LINE: usize = 64;

/// Copies that were added and not made yet. [`Self::finish`] makes the last ones.
pub(crate) struct CopyPipeline<'a> {
    waiting: [Option<(VolatileSlice<'a>, VolatileSlice<'a>)>; BEHIND],
    oldest: usize,
}

impl<'a> CopyPipeline<'a> {
    pub(crate) fn new() -> Self {
        Self {
            waiting: [const { None }; BEHIND],
            oldest: 0,
        }
    }

    /// Copies `from` to `to` a little later. Both have the same length.
    pub(crate) fn add(&mut self, from: VolatileSlice<'a>, to: VolatileSlice<'a>) {
        prefetch(&from);
        self.push(Some((from, to)));
    }

    /// Makes the copies that are left.
    pub(crate) fn finish(mut self) {
        for _ in 0..BEHIND {
            self.push(None);
        }
    }

    fn push(&mut self, next: Option<(VolatileSlice<'a>, VolatileSlice<'a>)>) {
        if let Some(place) = self.waiting.get_mut(self.oldest) {
            if let Some((from, to)) = std::mem::replace(place, next) {
                from.copy_to_volatile_slice(to);
            }
            self.oldest = (self.oldest + 1) % BEHIND;
        }
    }
}

/// Prefetches the start of `slice`. It is a hint, and does nothing on processors that have no code
/// here.
fn prefetch(slice: &VolatileSlice<'_>) {
    let guard = slice.ptr_guard();
    for offset in (0..slice.len().min(NEAR)).step_by(LINE) {
        // SAFETY: `offset` is inside the slice.
        let line = unsafe { guard.as_ptr().add(offset) };
        prefetch_line(line);
    }
}

#[cfg(target_arch = "x86_64")]
fn prefetch_line(line: *const u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: SSE is part of x86-64; a prefetch reads nothing that the program can see and faults
    // nowhere.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(line.cast()) };
}

#[cfg(target_arch = "aarch64")]
fn prefetch_line(line: *const u8) {
    // SAFETY: a prefetch reads nothing that the program can see and faults nowhere.
    unsafe {
        std::arch::asm!("prfm pldl1keep, [{line}]", line = in(reg) line,
            options(nostack, preserves_flags, readonly));
    }
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn prefetch_line(_line: *const u8) {}
