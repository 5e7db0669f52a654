//! Streams in shared memory, taken in pieces: [`Stream`] is where bytes come from, [`PrivateCopy`] the private copy of some of
//! them.
//!
//! The guest can change a stream at any time, so a command is decoded from a private copy only. A stream of many small
//! commands is never copied whole: `Session::run_pieces` copies a piece, carries out the
//! commands that are whole in it, and goes on where the first begins that is not. When that one is larger than a piece, it is
//! copied alone, at its own length.

use std::sync::Arc;

use hesper_venus_protocol::extent;

use crate::memory::{CommandCharge, CommandMemory, SharedMemory};
use crate::ring::Layout;

/// Bytes that the guest can change.
pub(crate) trait Stream {
    /// How many there are.
    fn len(&self) -> usize;

    /// Appends `count` bytes from byte `from` on to `to`; `None` when they are not all inside.
    fn append_to(&self, from: usize, count: usize, to: &mut Vec<u8>) -> Option<()>;

    /// The same into a slice.
    fn read(&self, from: usize, to: &mut [u8]) -> Option<()>;
}

/// A part of a resource.
pub(crate) struct ResourceStream {
    memory: Arc<SharedMemory>,
    offset: usize,
    size: usize,
}

impl ResourceStream {
    /// `size` bytes at `offset`; `None` when they are not inside.
    pub(crate) fn new(memory: Arc<SharedMemory>, offset: usize, size: usize) -> Option<Self> {
        let end = offset.checked_add(size)?;
        (end <= memory.len()).then_some(Self {
            memory,
            offset,
            size,
        })
    }
}

impl Stream for ResourceStream {
    fn len(&self) -> usize {
        self.size
    }

    fn append_to(&self, from: usize, count: usize, to: &mut Vec<u8>) -> Option<()> {
        let offset = self.offset.checked_add(from)?;
        self.memory.append_to(offset, count, to)
    }

    fn read(&self, from: usize, to: &mut [u8]) -> Option<()> {
        self.memory.read(self.offset.checked_add(from)?, to)
    }
}

/// What a guest has written into its ring, from position `head` on.
pub(crate) struct RingStream<'r> {
    layout: &'r Layout,
    /// Where it begins: a position of the ring, which wraps.
    pub(crate) head: u32,
    size: usize,
}

impl<'r> RingStream<'r> {
    /// Positions `head` to `tail`; `None` when that is more than the ring's buffer holds.
    pub(crate) fn new(layout: &'r Layout, head: u32, tail: u32) -> Option<Self> {
        let size = tail.wrapping_sub(head) as usize;
        (size <= layout.buffer_size()).then_some(Self { layout, head, size })
    }

    /// Position of byte `from`. Streams of rings are shorter than 2^31.
    fn position(&self, from: usize) -> u32 {
        self.head.wrapping_add(from as u32)
    }
}

impl Stream for RingStream<'_> {
    fn len(&self) -> usize {
        self.size
    }

    #[inline]
    fn append_to(&self, from: usize, count: usize, to: &mut Vec<u8>) -> Option<()> {
        let start = self.position(from);
        self.layout
            .copy(start, start.wrapping_add(count as u32), to)
    }

    fn read(&self, from: usize, to: &mut [u8]) -> Option<()> {
        self.layout.read(self.position(from), to)
    }
}

/// A stream to be walked over.
pub(crate) struct Walked<'s, S: Stream>(pub(crate) &'s S);

impl<S: Stream> extent::Source for Walked<'_, S> {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, offset: u64, into: &mut [u8]) {
        // The walker asks for what there is only; and what it reads decides nothing.
        let _ = self.0.read(offset as usize, into);
    }
}

/// The private copy of a part of a stream.
#[derive(Default)]
pub(crate) struct PrivateCopy {
    bytes: Vec<u8>,
    charge: Option<CommandCharge>,
}

impl PrivateCopy {
    /// Copies `count` bytes of the stream from byte `from` on. What is more than a `piece` is charged first; false, and nothing
    /// is held, when `memory` or the system refuses it.
    #[inline]
    pub(crate) fn fill(
        &mut self,
        stream: &impl Stream,
        (from, count): (usize, usize),
        piece: usize,
        memory: &Arc<CommandMemory>,
    ) -> bool {
        self.bytes.clear();
        if count > self.bytes.capacity() && !self.grow(count, piece, memory) {
            return false;
        }
        // A stream's bytes are all there: its bounds were checked when it was made.
        stream.append_to(from, count, &mut self.bytes).is_some()
    }

    #[cold]
    fn grow(&mut self, count: usize, piece: usize, memory: &Arc<CommandMemory>) -> bool {
        // What is here is copied anew, so it need not be there at the same time.
        self.release();
        if count <= piece {
            let room = count.next_power_of_two().min(piece).max(count);
            return self.bytes.try_reserve_exact(room).is_ok();
        }
        self.charge = memory.charge(count as u64);
        let is_held = self.charge.is_some() && self.bytes.try_reserve_exact(count).is_ok();
        if !is_held {
            self.release();
        }
        is_held
    }

    /// What was copied.
    #[inline]
    pub(crate) fn bytes(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Gives back what a large command needed.
    #[inline]
    pub(crate) fn settle(&mut self) {
        if self.charge.is_some() {
            self.release();
        }
    }

    /// Gives everything back.
    pub(crate) fn release(&mut self) {
        self.bytes = Vec::new();
        self.charge = None;
    }
}
