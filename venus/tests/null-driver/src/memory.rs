//! Reads what a caller points to, to its end, and keeps the pages of memory objects.

use std::collections::HashMap;
use std::ffi::{c_char, c_void};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use ash::vk;

use crate::limits::within;
use crate::violation;

/// A chain cannot have more structs than there are types of them.
const LONGEST_CHAIN: usize = 2000;

/// Reads `bytes` bytes, which faults if they do not exist.
///
/// # Safety
/// None, except that a caller's broken promise ends the process.
pub(crate) unsafe fn touch<T>(start: *const T, bytes: u64) {
    if bytes == 0 {
        return;
    }
    let start = start.cast::<u8>();
    if start.is_null() {
        violation(&format!("{bytes} bytes behind a null pointer"));
    }
    let Ok(bytes) = usize::try_from(bytes) else {
        violation(&format!("{bytes} bytes cannot be there"))
    };
    for at in (0..bytes).step_by(64).chain([bytes - 1]) {
        // SAFETY: the caller says so, and this function is for finding out.
        unsafe { start.wrapping_add(at).read_volatile() };
    }
}

/// The elements of an array, all of them read.
///
/// # Safety
/// As [`touch`]; the values must be valid for T.
pub(crate) unsafe fn array<'a, T>(start: *const T, count: u32) -> &'a [T] {
    if count == 0 {
        return &[];
    }
    // SAFETY: the caller's promise, for both.
    unsafe {
        touch(start, u64::from(count) * size_of::<T>() as u64);
        std::slice::from_raw_parts(start, count as usize)
    }
}

/// Walks a chain; `visit` gets every struct.
///
/// # Safety
/// As [`touch`].
pub(crate) unsafe fn walk(
    first: *const c_void,
    mut visit: impl FnMut(*const vk::BaseInStructure<'_>),
) {
    let mut next = first.cast::<vk::BaseInStructure<'_>>();
    for _ in 0..LONGEST_CHAIN {
        if next.is_null() {
            return;
        }
        visit(next);
        // SAFETY: the caller's promise.
        next = unsafe { (*next).p_next };
    }
    violation("a chain has no end");
}

/// Reads a create info's chain, including the struct itself, unless it is null.
///
/// # Safety
/// As [`touch`].
pub(crate) unsafe fn touch_info(info: *const c_void) {
    if info.is_null() {
        violation("a create info is null");
    }
    // SAFETY: the caller's promise.
    unsafe { walk(info, |link| touch(link, 16)) };
}

/// Reads a string to its end.
///
/// # Safety
/// As [`touch`].
pub(crate) unsafe fn touch_text(text: *const c_char) {
    if text.is_null() {
        violation("a string is null");
    }
    // SAFETY: the caller's promise.
    std::hint::black_box(unsafe { std::ffi::CStr::from_ptr(text) });
}

/// Imported pages behind memory objects, buffers and images.
#[derive(Default)]
pub(crate) struct Pages {
    /// Address and size by memory object.
    pub(crate) memories: HashMap<u64, (usize, u64)>,
    /// Size by buffer.
    pub(crate) buffers: HashMap<u64, u64>,
    /// Number of queries by pool.
    pub(crate) queries: HashMap<u64, u32>,
    /// Descriptors by set layout and binding number.
    pub(crate) layouts: HashMap<u64, HashMap<u32, u32>>,
    /// Layout by set.
    pub(crate) sets: HashMap<u64, u64>,
    /// Size by memory object.
    pub(crate) sizes: HashMap<u64, u64>,
    /// Size by image.
    pub(crate) images: HashMap<u64, u64>,
    /// Type and size of memory objects that count against a heap.
    pub(crate) taken: HashMap<u64, (u32, u64)>,
    /// Memory object and offset by buffer or image.
    pub(crate) bindings: HashMap<u64, (u64, u64)>,
}

static PAGES: LazyLock<Mutex<Pages>> = LazyLock::new(Mutex::default);

/// All pages.
pub(crate) fn pages() -> MutexGuard<'static, Pages> {
    PAGES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pages {
    /// Ends the process unless a buffer has these bytes.
    pub(crate) fn has_bytes(&self, buffer: u64, offset: u64, size: u64) {
        let known = self.buffers.get(&buffer).copied().unwrap_or(0);
        within("bytes of a buffer", offset, size, known);
    }

    /// Ends the process unless a pool has these queries.
    pub(crate) fn has_queries(&self, pool: u64, first: u32, count: u32) {
        let known = self.queries.get(&pool).copied().unwrap_or(0);
        within("queries", first.into(), count.into(), known.into());
    }

    /// Fills a range of a buffer, as far as it has pages and they reach.
    pub(crate) fn fill(&self, buffer: u64, offset: u64, size: u64, pattern: u32) {
        let (Some((memory, bound)), Some(total)) =
            (self.bindings.get(&buffer), self.buffers.get(&buffer))
        else {
            return;
        };
        let Some((address, room)) = self.memories.get(memory) else {
            return;
        };
        let size = if size == vk::WHOLE_SIZE {
            total.saturating_sub(offset)
        } else {
            size
        };
        let Some(start) = bound.checked_add(offset) else {
            return;
        };
        if start.checked_add(size).is_none_or(|end| end > *room) {
            return;
        }
        for word in 0..size / 4 {
            let at = *address as u64 + start + word * 4;
            // SAFETY: inside the imported pages, which stay until the memory object is freed.
            unsafe { (at as *mut u32).write_unaligned(pattern) };
        }
    }

    /// Address and size of the pages behind a buffer or an image, as far as it has pages and they
    /// reach.
    fn behind(&self, object: u64, total: Option<&u64>) -> Option<(usize, usize)> {
        let (memory, offset) = self.bindings.get(&object)?;
        let (address, room) = self.memories.get(memory)?;
        let total = total?.min(&room.checked_sub(*offset)?).to_owned();
        Some((address + *offset as usize, total as usize))
    }

    /// Fills an image with a texel.
    pub(crate) fn clear(&self, image: u64, texel: [u8; 4]) {
        let Some((start, size)) = self.behind(image, self.images.get(&image)) else {
            return;
        };
        for at in (start..start + size / 4 * 4).step_by(4) {
            // SAFETY: inside the imported pages, which stay until the memory object is freed.
            unsafe { (at as *mut [u8; 4]).write_unaligned(texel) };
        }
    }

    /// Copies as much of an image as fits to the start of a buffer.
    pub(crate) fn copy_image(&self, image: u64, buffer: u64) {
        let from = self.behind(image, self.images.get(&image));
        let to = self.behind(buffer, self.buffers.get(&buffer));
        if let Some(((from, has), (to, room))) = from.zip(to) {
            // SAFETY: inside the imported pages of both, which stay until the memory objects are
            // freed.
            unsafe { std::ptr::copy(from as *const u8, to as *mut u8, has.min(room)) };
        }
    }
}
