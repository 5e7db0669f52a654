//! Copies from scattered guest pages, made fast.
//!
//! A guest's framebuffer is thousands of 4 KiB pages in no order. Copied one by one, each begins with misses in the
//! TLB and the cache that no hardware foresees. [`CopyPipeline`] therefore runs a few pages behind: when a copy is added,
//! the start of its source is prefetched, and by the time that it is made, the misses are over.
//! `benches/transfer_2d.rs` measures it.

use vm_memory::VolatileSlice;

/// How many copies are under way between [`CopyPipeline::add`] and the copy itself.
const BEHIND: usize = 2;
/// Bytes at the start of a source to prefetch; the hardware follows from there. With 512 a frame is a quarter slower, with
/// 4096 a tenth.
const NEAR: usize = 1024;
/// Bytes of a cache line.
const LINE: usize = 64;

/// Copies under way. [`Self::finish`] makes the last ones.
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

    /// Copies `from` to `to`, which has the same length, a little later.
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

/// Asks the processor for the start of `slice`. A hint: without one for this processor nothing happens.
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
    // SAFETY: SSE is part of x86-64; a prefetch reads nothing that the program can see and faults nowhere.
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
