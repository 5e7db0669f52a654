//! [`Layout`]: where a ring's words and its buffer are in shared memory, checked once.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use crate::fatal::Fatal;
use crate::memory::SharedMemory;

/// `VkRingCreateInfoMESA`, offsets relative to `offset`, which is relative to the resource.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Request {
    /// Start of the ring in the resource.
    pub(crate) offset: usize,
    /// Its size.
    pub(crate) size: usize,
    /// The renderer's position.
    pub(crate) head: usize,
    /// The guest's position.
    pub(crate) tail: usize,
    /// `VkRingStatusFlagsMESA`.
    pub(crate) status: usize,
    /// The commands.
    pub(crate) buffer: usize,
    /// Size of the commands, a power of two.
    pub(crate) buffer_size: usize,
    /// Words that `vkWriteRingExtraMESA` writes.
    pub(crate) extra: usize,
    /// Size of these.
    pub(crate) extra_size: usize,
}

/// A ring's memory. Its offsets are inside, aligned, and do not overlap.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    memory: Arc<SharedMemory>,
    head: usize,
    tail: usize,
    status: usize,
    buffer: usize,
    buffer_size: usize,
    extra: usize,
    extra_size: usize,
}

impl Layout {
    /// Checks a request against the memory it names.
    pub(crate) fn new(memory: Arc<SharedMemory>, request: &Request) -> Result<Self, Fatal> {
        let bad = |reason| Fatal::RingLayout(reason);
        let end = request.offset.checked_add(request.size);
        if end.is_none_or(|end| end > memory.len()) {
            return Err(bad("it is not inside its resource"));
        }
        if !request.buffer_size.is_power_of_two() || request.buffer_size > 1 << 30 {
            return Err(bad("its buffer size is not a power of two below 2^31"));
        }
        let mut parts = [
            (request.head, 4),
            (request.tail, 4),
            (request.status, 4),
            (request.buffer, request.buffer_size),
            (request.extra, request.extra_size),
        ];
        let mut offsets = [0; 5];
        for (absolute, (start, size)) in offsets.iter_mut().zip(parts) {
            let end = start.checked_add(size);
            if end.is_none_or(|end| end > request.size) {
                return Err(bad("a part of it is outside"));
            }
            // `start` is at most `size`, whose sum with `offset` was checked above.
            *absolute = request.offset + start;
            if !absolute.is_multiple_of(4) {
                return Err(bad("a part of it is not aligned to 4 bytes"));
            }
        }
        // Parts without bytes (no extra region) come first, where they cannot hide an overlap.
        parts.sort_unstable_by_key(|(start, size)| (*size > 0, *start));
        let overlaps = |((start, size), (next, _)): (&(usize, usize), &(usize, usize))| {
            *size > 0 && start + size > *next
        };
        if parts.iter().zip(parts.iter().skip(1)).any(overlaps) {
            return Err(bad("parts of it overlap"));
        }
        let [head, tail, status, buffer, extra] = offsets;
        Ok(Self {
            memory,
            head,
            tail,
            status,
            buffer,
            buffer_size: request.buffer_size,
            extra,
            extra_size: request.extra_size,
        })
    }

    /// The renderer's position: bytes consumed. It never resets, and wraps.
    pub(crate) fn head(&self) -> Option<&AtomicU32> {
        self.memory.word(self.head)
    }

    /// The guest's position: bytes written. It never resets, and wraps.
    pub(crate) fn tail(&self) -> Option<&AtomicU32> {
        self.memory.word(self.tail)
    }

    /// The memory, and where [`Layout::status`] is in it.
    pub(crate) fn place_of_status(&self) -> (&Arc<SharedMemory>, usize) {
        (&self.memory, self.status)
    }

    /// `VkRingStatusFlagsMESA`.
    pub(crate) fn status(&self) -> Option<&AtomicU32> {
        self.memory.word(self.status)
    }

    /// The word at `offset` of the extra region.
    pub(crate) fn extra(&self, offset: usize) -> Option<&AtomicU32> {
        let end = offset.checked_add(4)?;
        (end <= self.extra_size).then(|| self.memory.word(self.extra + offset))?
    }

    /// Appends the bytes from position `from` to position `to` to `out`. `None` when that is more
    /// than the buffer holds.
    pub(crate) fn copy(&self, from: u32, to: u32, out: &mut Vec<u8>) -> Option<()> {
        let len = to.wrapping_sub(from) as usize;
        if len > self.buffer_size {
            return None;
        }
        let start = from as usize & (self.buffer_size - 1);
        let before_wrap = len.min(self.buffer_size - start);
        self.memory
            .append_to(self.buffer + start, before_wrap, out)?;
        self.memory.append_to(self.buffer, len - before_wrap, out)
    }

    /// Copies bytes from position `from` into `to`. `None` when that is more than the buffer holds.
    pub(crate) fn read(&self, from: u32, to: &mut [u8]) -> Option<()> {
        let start = from as usize & (self.buffer_size - 1);
        if to.len() > self.buffer_size {
            return None;
        }
        let before_wrap = to.len().min(self.buffer_size - start);
        let (first, second) = to.split_at_mut_checked(before_wrap)?;
        self.memory.read(self.buffer + start, first)?;
        self.memory.read(self.buffer, second)
    }

    /// Bytes in the buffer.
    pub(crate) fn buffer_size(&self) -> usize {
        self.buffer_size
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request {
            offset: 0,
            size: 192 + 256 + 8,
            head: 0,
            tail: 64,
            status: 128,
            buffer: 192,
            buffer_size: 256,
            extra: 448,
            extra_size: 8,
        }
    }

    fn layout(request: &Request) -> Result<Layout, Fatal> {
        Layout::new(Arc::new(SharedMemory::create(4096).unwrap()), request)
    }

    #[test]
    fn bytes_are_copied_across_the_end() {
        let layout = layout(&request()).unwrap();
        layout.memory.write(192 + 254, &[1, 2]).unwrap();
        layout.memory.write(192, &[3, 4]).unwrap();
        let mut out = Vec::new();
        let from = 0u32.wrapping_sub(2);
        layout.copy(from, 2, &mut out).unwrap();
        assert_eq!(out, [1, 2, 3, 4]);
        assert!(layout.copy(0, 257, &mut out).is_none());
    }

    #[test]
    fn hostile_layouts_are_refused() {
        assert!(layout(&request()).is_ok());
        let cases: [fn(&mut Request); 10] = [
            |r| r.size = 4097,
            |r| r.offset = usize::MAX,
            |r| r.buffer_size = 255,
            |r| r.buffer_size = 0,
            |r| r.head = 2,
            |r| r.tail = 0,
            |r| r.status = usize::MAX - 1,
            |r| r.buffer = 100,
            |r| r.extra = 452,
            |r| (r.extra, r.extra_size, r.head) = (200, 0, 300),
        ];
        for (number, case) in cases.iter().enumerate() {
            let mut request = request();
            case(&mut request);
            let refused = layout(&request);
            assert!(
                matches!(refused, Err(Fatal::RingLayout(_))),
                "case {number}"
            );
        }
    }

    #[test]
    fn the_extra_region_has_bounds() {
        let layout = layout(&request()).unwrap();
        assert!(layout.extra(4).is_some());
        assert!(layout.extra(5).is_none());
        assert!(layout.extra(8).is_none());
        assert!(layout.extra(usize::MAX).is_none());
    }
}
