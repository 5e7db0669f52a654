//! Command streams in shared memory: [`Stream`] is where the bytes come from, [`PrivateCopy`] is a
//! private copy of some of them.
//!
//! The guest can change a stream at any time, so commands are decoded from a private copy only. A
//! stream is copied piece by piece. `Session::run_pieces` copies a piece, carries out the commands
//! that are whole in it, and continues with the first that is not. A command that is larger than a
//! piece is copied alone, at its own length.

use std::sync::Arc;

use hesper_system::budget::Charge;
use hesper_venus_protocol::extent;

use crate::memory::{CommandMemory, SharedMemory};
use crate::ring::Layout;

/// Bytes that the guest can change.
pub(crate) trait Stream {
    /// How many there are.
    fn len(&self) -> usize;

    /// Appends `count` bytes from byte `from` to `to`. `None` when they are not all inside.
    fn append_to(&self, from: usize, count: usize, to: &mut Vec<u8>) -> Option<()>;

    /// The same, into a slice.
    fn read(&self, from: usize, to: &mut [u8]) -> Option<()>;
}

/// A part of a resource.
pub(crate) struct ResourceStream {
    memory: Arc<SharedMemory>,
    offset: usize,
    size: usize,
}

impl ResourceStream {
    /// Takes `size` bytes at `offset`. `None` when they are not inside the resource.
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

/// What a guest has written into its ring from position `head` on.
pub(crate) struct RingStream<'r> {
    layout: &'r Layout,
    /// The first position. Positions wrap.
    pub(crate) head: u32,
    size: usize,
}

impl<'r> RingStream<'r> {
    /// Takes positions `head` to `tail`. `None` when that is more than the ring's buffer holds.
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

/// A stream as the source for measuring how long a command is.
pub(crate) struct Walked<'s, S: Stream>(pub(crate) &'s S);

impl<S: Stream> extent::Source for Walked<'_, S> {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read(&self, offset: u64, into: &mut [u8]) {
        // Only bytes of the stream are asked for, and what is read here decides nothing.
        let _ = self.0.read(offset as usize, into);
    }
}

/// The private copy of a part of a stream.
#[derive(Default)]
pub(crate) struct PrivateCopy {
    bytes: Vec<u8>,
    charge: Option<Charge>,
}

impl PrivateCopy {
    /// Copies `count` bytes of the stream from byte `from`. What is larger than a `piece` is
    /// charged first. False when `memory` or the system refuses it; nothing is held then.
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
        // The stream's bounds were checked when it was made, so all its bytes are there.
        stream.append_to(from, count, &mut self.bytes).is_some()
    }

    #[cold]
    fn grow(&mut self, count: usize, piece: usize, memory: &Arc<CommandMemory>) -> bool {
        // The old content is not needed any more.
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
