//! Memory for decoded arguments, freed all at once.
//!
//! One arena serves one stream. After each command, [`Arena::reset`] frees its memory for reuse
//! without returning it to the system, so a steady stream allocates nothing. Either a budget limits
//! how much one command may allocate, or a [`Meter`] limits how much all arenas together hold
//! beyond a small free amount.

use std::alloc::{Layout, alloc, dealloc};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

use super::error::Reason;
use super::value::Zeroed;

/// The size of the first chunk: enough for nearly every command.
const FIRST: usize = 16 << 10;
/// The largest chunk that is kept after a command.
const KEEP: usize = 1 << 20;
/// Zero memory above this size is fresh pages of the system, which it clears when they are touched.
/// A guest asks for outputs of any size by a few bytes, and a driver may fill a small part of them.
/// Fresh pages cost as much as clearing about so many bytes.
const CLEARED: usize = 64 << 10;
const ALIGN: usize = 16;

/// A budget that several arenas share. It allows them to hold more than the free amount.
pub trait Meter: fmt::Debug + Send + Sync {
    /// Takes `bytes` from the budget. Returns false and takes nothing if less is left.
    fn take(&self, bytes: u64) -> bool;
    /// Returns bytes to the budget.
    fn give_back(&self, bytes: u64);
    /// The whole budget, for messages.
    fn limit(&self) -> u64;
}

/// A bump allocator with a budget.
#[derive(Debug)]
pub struct Arena {
    /// The start of the chunk in use.
    start: Cell<*mut u8>,
    cursor: Cell<*mut u8>,
    end: Cell<*mut u8>,
    /// Whether there is more than one chunk, or a large one.
    grown: Cell<bool>,
    chunks: RefCell<Vec<Chunk>>,
    budget: usize,
    /// Decides whether more than [`Arena::FREE`] bytes may be held.
    meter: Option<Arc<dyn Meter>>,
    /// Bytes taken from the meter.
    charged: Cell<u64>,
}

#[derive(Debug)]
struct Chunk {
    start: NonNull<u8>,
    size: usize,
    /// Whether it is pages of the system. It does not come from the allocator then, which would
    /// keep them, and clear them as a whole the next time.
    is_pages: bool,
}

// SAFETY: the arena owns its chunks, and without `Sync` only one thread uses the cells.
unsafe impl Send for Arena {}

impl Arena {
    /// How much one command may allocate by default: enough for the largest blobs that guests read
    /// back at once (pipeline caches, query results).
    pub const DEFAULT_BUDGET: usize = 256 << 20;
    /// How much an arena with a meter may hold without asking it.
    pub const FREE: usize = 2 * KEEP;
    /// The largest budget: sizes must stay below `isize::MAX`.
    const MOST: usize = 1 << 40;

    /// An empty arena that holds at most `budget` bytes.
    pub fn new(budget: usize) -> Self {
        Self {
            start: Cell::new(ptr::null_mut()),
            cursor: Cell::new(ptr::null_mut()),
            end: Cell::new(ptr::null_mut()),
            grown: Cell::new(false),
            chunks: RefCell::new(Vec::new()),
            budget: budget.min(Self::MOST),
            meter: None,
            charged: Cell::new(0),
        }
    }

    /// An empty arena that asks `meter` before it holds more than [`Arena::FREE`] bytes.
    pub fn metered(meter: Arc<dyn Meter>) -> Self {
        let mut arena = Self::new(Self::MOST);
        arena.meter = Some(meter);
        arena
    }

    /// Returns all memory to the system. The borrow checker ensures that none of it is in use.
    pub fn release(&mut self) {
        self.chunks.get_mut().clear();
        for end in [&self.start, &self.cursor, &self.end] {
            end.set(ptr::null_mut());
        }
        self.grown.set(false);
        self.give_back();
    }

    fn give_back(&self) {
        if let Some(meter) = &self.meter {
            meter.give_back(self.charged.take());
        }
    }

    /// Frees all allocations for reuse. The borrow checker ensures that none of them is in use.
    #[inline]
    pub fn reset(&mut self) {
        if self.grown.get() {
            self.shrink();
        }
        self.cursor.set(self.start.get());
    }

    /// Keeps one chunk, unless all are large.
    #[cold]
    fn shrink(&mut self) {
        let chunks = self.chunks.get_mut();
        let is_kept = |chunk: &Chunk| chunk.size <= KEEP && !chunk.is_pages;
        let last = chunks.iter().rposition(is_kept);
        let kept = last.map(|index| chunks.swap_remove(index));
        chunks.clear();
        let (start, end) = match &kept {
            // SAFETY: one past the chunk's end.
            Some(c) => (c.start.as_ptr(), unsafe { c.start.as_ptr().add(c.size) }),
            None => (ptr::null_mut(), ptr::null_mut()),
        };
        chunks.extend(kept);
        self.start.set(start);
        self.end.set(end);
        self.grown.set(false);
        self.give_back();
    }

    /// Bytes held from the system.
    pub fn held(&self) -> usize {
        self.chunks.borrow().iter().map(|c| c.size).sum()
    }

    /// Allocates `n` values, all zero.
    #[expect(clippy::mut_from_ref, reason = "every call returns memory of its own")]
    pub(crate) fn zeroed<T: Zeroed>(&self, n: usize) -> Result<&mut [T], Reason> {
        const { assert!(align_of::<T>() <= ALIGN) };
        let start = self.zeroed_bytes(self.bytes(n as u64, size_of::<T>())?)?;
        // SAFETY: the memory has this many bytes, is aligned, and belongs to this call alone; T may
        // be zero.
        Ok(unsafe { std::slice::from_raw_parts_mut(start.as_ptr().cast(), n) })
    }

    /// Allocates one value of zeros.
    #[inline]
    #[expect(clippy::mut_from_ref, reason = "every call returns memory of its own")]
    pub(crate) fn zeroed_one<T: Zeroed>(&self) -> Result<&mut T, Reason> {
        const { assert!(align_of::<T>() <= ALIGN) };
        let mut start = self.take(size_of::<T>())?.cast::<T>();
        // SAFETY: the memory has this many bytes, is aligned, and belongs to this call alone; T may
        // be zero. The size is known here, so the compiler writes the zeros itself.
        unsafe {
            start.write_bytes(0, 1);
            Ok(start.as_mut())
        }
    }

    /// Allocates `size` zero bytes for a struct of which only the size is known.
    #[inline]
    pub(crate) fn zeroed_bytes(&self, size: usize) -> Result<NonNull<u8>, Reason> {
        if size > CLEARED {
            return self.take_zero(size);
        }
        let start = self.take(size)?;
        // SAFETY: `take` returned this many bytes.
        unsafe { ptr::write_bytes(start.as_ptr(), 0, size) };
        Ok(start)
    }

    /// Allocates a copy of `bytes`, as `n` values of T.
    ///
    /// # Safety
    /// `bytes` must hold `n` valid values of T, aligned or not.
    #[inline]
    #[expect(clippy::mut_from_ref, reason = "every call returns memory of its own")]
    pub(crate) unsafe fn copied<T: Copy>(
        &self,
        bytes: &[u8],
        n: usize,
    ) -> Result<&mut [T], Reason> {
        const { assert!(align_of::<T>() <= ALIGN) };
        let start = self.take(bytes.len())?;
        // SAFETY: `take` returned this many bytes for this call alone; the caller ensures that the
        // values are valid.
        unsafe {
            ptr::copy_nonoverlapping(bytes.as_ptr(), start.as_ptr(), bytes.len());
            Ok(std::slice::from_raw_parts_mut(start.as_ptr().cast(), n))
        }
    }

    /// Allocates memory for `n` values that the caller must write.
    #[inline]
    #[expect(clippy::mut_from_ref, reason = "every call returns memory of its own")]
    pub(crate) fn room<T>(&self, n: usize) -> Result<&mut [MaybeUninit<T>], Reason> {
        const { assert!(align_of::<T>() <= ALIGN) };
        let start = self.take(self.bytes(n as u64, size_of::<T>())?)?;
        // SAFETY: `take` returned this many bytes, aligned, for this call alone.
        Ok(unsafe { std::slice::from_raw_parts_mut(start.as_ptr().cast(), n) })
    }

    fn bytes(&self, n: u64, size: usize) -> Result<usize, Reason> {
        let total = n
            .checked_mul(size as u64)
            .and_then(|b| usize::try_from(b).ok());
        total.ok_or(Reason::Budget {
            wanted: u64::MAX,
            budget: self.budget as u64,
        })
    }

    #[inline]
    fn take(&self, bytes: usize) -> Result<NonNull<u8>, Reason> {
        let cursor = self.cursor.get();
        let left = self.end.get() as usize - cursor as usize;
        // A multiple of the alignment, so that the cursor stays aligned. `left` is such a multiple,
        // too.
        let rounded = bytes.wrapping_add(ALIGN - 1) & !(ALIGN - 1);
        if let Some(start) = NonNull::new(cursor)
            && bytes <= left
        {
            // SAFETY: `bytes <= left` and both round up within the chunk.
            self.cursor.set(unsafe { cursor.add(rounded) });
            return Ok(start);
        }
        self.take_new(bytes)
    }

    /// Allocates memory for `bytes` bytes, at least one, that the caller must write. `None` when
    /// that would need a new chunk.
    #[inline(always)]
    pub(super) fn room_at_hand(&self, bytes: usize) -> Option<*mut u8> {
        let start = self.cursor.get();
        // Without a chunk, nothing is left.
        if bytes > self.end.get() as usize - start as usize {
            return None;
        }
        let rounded = bytes.wrapping_add(ALIGN - 1) & !(ALIGN - 1);
        // SAFETY: as in `take`.
        self.cursor.set(unsafe { start.add(rounded) });
        Some(start)
    }

    /// Makes sure that a few allocations need no new chunk, if the budget allows it.
    #[inline]
    pub(super) fn make_room(&self) {
        const FEW: usize = 512;
        if (self.end.get() as usize - self.cursor.get() as usize) < FEW
            && let Ok(start) = self.take_new(FEW)
        {
            self.cursor.set(start.as_ptr());
        }
    }

    #[cold]
    fn take_new(&self, bytes: usize) -> Result<NonNull<u8>, Reason> {
        let last = self.chunks.borrow().last().map_or(FIRST / 2, |c| c.size);
        // Twice the last chunk. A large command takes only a little more than it needs.
        let next = (last * 2).min(KEEP);
        let (start, size) = self.add_chunk(bytes, next, false)?;
        // SAFETY: both are within the new chunk or one past its end.
        unsafe {
            self.cursor
                .set(start.as_ptr().add(bytes.next_multiple_of(ALIGN)));
            self.end.set(start.as_ptr().add(size));
        }
        self.start.set(start.as_ptr());
        Ok(start)
    }

    /// Allocates a chunk of its own for much zero memory.
    #[cold]
    fn take_zero(&self, bytes: usize) -> Result<NonNull<u8>, Reason> {
        let (start, _) = self.add_chunk(bytes, 0, true)?;
        Ok(start)
    }

    /// Adds a chunk for `bytes`. The chunk has at least `usual` bytes if the budget has so many
    /// left.
    fn add_chunk(
        &self,
        bytes: usize,
        usual: usize,
        is_zero: bool,
    ) -> Result<(NonNull<u8>, usize), Reason> {
        let mut chunks = self.chunks.borrow_mut();
        let held: usize = chunks.iter().map(|c| c.size).sum();
        let left = self.budget.saturating_sub(held) & !(ALIGN - 1);
        if bytes > left {
            return Err(self.refusal(bytes));
        }
        let size = bytes.next_multiple_of(ALIGN).max(usual).min(left);
        let size = size.max(ALIGN);
        let mut charge = 0;
        if let Some(meter) = &self.meter
            && held + size > Self::FREE
        {
            charge = size as u64;
            if !meter.take(charge) {
                return Err(self.refusal(bytes));
            }
        }
        let Some(chunk) = Chunk::new(size, is_zero) else {
            if let Some(meter) = &self.meter {
                meter.give_back(charge);
            }
            return Err(self.refusal(bytes));
        };
        let start = chunk.start;
        self.charged.set(self.charged.get() + charge);
        self.grown.set(!chunks.is_empty() || size > KEEP || is_zero);
        chunks.push(chunk);
        Ok((start, size))
    }

    #[cold]
    fn refusal(&self, bytes: usize) -> Reason {
        let limit = self.meter.as_ref().map(|meter| meter.limit());
        Reason::Budget {
            wanted: bytes as u64,
            budget: limit.unwrap_or(self.budget as u64),
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        self.release();
    }
}

impl Default for Arena {
    fn default() -> Self {
        Self::new(Self::DEFAULT_BUDGET)
    }
}

impl Chunk {
    /// `size` must be a positive multiple of the alignment. `None` when the system has no memory
    /// left.
    fn new(size: usize, is_zero: bool) -> Option<Self> {
        let start = match is_zero {
            true => {
                let (anywhere, both) = (ptr::null_mut(), ProtFlags::READ | ProtFlags::WRITE);
                // SAFETY: a new mapping at an address of the kernel's choice disturbs no other
                // memory.
                let pages = unsafe { mmap_anonymous(anywhere, size, both, MapFlags::PRIVATE) };
                pages.ok()?.cast()
            }
            // SAFETY: the size is not zero.
            false => unsafe { alloc(Self::layout(size)) },
        };
        NonNull::new(start).map(|start| Self {
            start,
            size,
            is_pages: is_zero,
        })
    }

    fn layout(size: usize) -> Layout {
        // SAFETY: the alignment is a power of two; budgets keep sizes below isize::MAX.
        unsafe { Layout::from_size_align_unchecked(size, ALIGN) }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        let start = self.start.as_ptr();
        // SAFETY: the memory was allocated in `new` in this way, with this size.
        unsafe {
            match self.is_pages {
                // If it stays, only addresses are lost.
                true => drop(munmap(start.cast(), self.size)),
                false => dealloc(start, Self::layout(self.size)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_reused_after_reset() {
        let mut arena = Arena::new(1 << 20);
        let first = arena.zeroed::<u64>(8).unwrap().as_ptr();
        arena.reset();
        let held = arena.held();
        assert_eq!(arena.zeroed::<u64>(8).unwrap().as_ptr(), first);
        assert_eq!(arena.held(), held);
    }

    #[test]
    fn pieces_are_zero_aligned_and_apart() {
        let arena = Arena::new(1 << 20);
        let a = arena.zeroed::<u8>(3).unwrap();
        a.fill(0xff);
        let b = arena.zeroed::<u64>(2).unwrap();
        assert_eq!(b, [0, 0]);
        assert_eq!(b.as_ptr() as usize % 8, 0);
        b.fill(u64::MAX);
        assert_eq!(a, [0xff; 3]);
    }

    #[test]
    fn the_budget_is_never_exceeded() {
        let arena = Arena::new(64 << 10);
        let mut taken = 0;
        while arena.zeroed::<u8>(1000).is_ok() {
            taken += 1000;
            assert!(arena.held() <= 64 << 10);
        }
        assert!(taken > 48 << 10);
        assert!(arena.zeroed::<u64>(usize::MAX / 4).is_err());
        assert!(arena.zeroed::<u64>(usize::MAX).is_err());
    }

    /// How many bytes of this memory the system has backed.
    #[cfg(target_os = "linux")]
    fn touched(memory: &[u8]) -> usize {
        let page = rustix::param::page_size();
        let mut states = vec![0; memory.len().div_ceil(page)];
        // Bit 63 of an entry says that the page is there.
        let map = std::fs::File::open("/proc/self/pagemap").unwrap();
        let first = memory.as_ptr() as usize / page;
        for (index, state) in states.iter_mut().enumerate() {
            let mut entry = [0; 8];
            let at = (first + index) as u64 * 8;
            std::os::unix::fs::FileExt::read_exact_at(&map, &mut entry, at).unwrap();
            *state = entry[7] >> 7;
        }
        states.iter().map(|state| usize::from(*state) * page).sum()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn room_for_outputs_is_not_touched_before_it_is_used() {
        let mut arena = Arena::new(64 << 20);
        for size in [
            65 << 10,
            1 << 20,
            4 << 20,
            31 << 20,
            40 << 20,
            31 << 20,
            1 << 20,
        ] {
            let room = arena.zeroed::<u8>(size).unwrap();
            assert_eq!(touched(room), 0, "{size}");
            room[..40].fill(7);
            assert!(touched(room) <= 64 << 10, "{size}");
            assert!(room[40..].iter().all(|byte| *byte == 0));
            arena.reset();
            // Later commands have the usual memory.
            arena.zeroed::<u8>(1000).unwrap();
            assert!(arena.held() <= KEEP, "{size}");
        }
    }

    #[test]
    fn a_large_chunk_is_not_kept() {
        let mut arena = Arena::new(64 << 20);
        arena.zeroed::<u8>(8 << 20).unwrap();
        arena.reset();
        assert_eq!(arena.held(), 0);
    }

    /// A meter with this budget.
    #[derive(Debug)]
    struct Bytes(u64, std::sync::atomic::AtomicU64);

    impl Meter for Bytes {
        fn take(&self, bytes: u64) -> bool {
            use std::sync::atomic::Ordering::Relaxed;
            let take = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.0);
            self.1.fetch_update(Relaxed, Relaxed, take).is_ok()
        }
        fn give_back(&self, bytes: u64) {
            self.1
                .fetch_sub(bytes, std::sync::atomic::Ordering::Relaxed);
        }
        fn limit(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn a_meter_limits_large_allocations_and_gets_all_bytes_back() {
        let meter = Arc::new(Bytes(64 << 20, 0.into()));
        let used = || meter.1.load(std::sync::atomic::Ordering::Relaxed);
        let mut arena = Arena::metered(Arc::clone(&meter) as Arc<dyn Meter>);
        while arena.held() + (2 << 20) <= Arena::FREE {
            arena.zeroed::<u8>(4000).unwrap();
        }
        assert_eq!(used(), 0, "a little is free");
        assert_eq!(arena.zeroed::<u8>(60 << 20).unwrap(), &[0; 60 << 20][..]);
        assert!(used() >= 60 << 20);
        let refused = arena.zeroed::<u8>(60 << 20);
        assert!(matches!(refused, Err(Reason::Budget { budget, .. }) if budget == 64 << 20));
        arena.reset();
        assert_eq!(used(), 0);
        assert!(arena.zeroed::<u8>(usize::MAX / 2).is_err());
        assert_eq!(used(), 0);
        arena.zeroed::<u8>(60 << 20).unwrap();
        drop(arena);
        assert_eq!(used(), 0);
    }

    #[test]
    fn a_command_of_many_small_pieces_takes_little_more_than_they_are() {
        let arena = Arena::new(64 << 20);
        for _ in 0..10 << 10 {
            arena.zeroed::<u8>(1024).unwrap();
        }
        assert!(arena.held() <= 13 << 20, "{}", arena.held());
    }
}
