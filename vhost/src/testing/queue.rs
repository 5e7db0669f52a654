//! The driver's side of a virtqueue.

use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use virtio_queue::{DescriptorChain, Queue, QueueT};
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::Request;

/// Descriptors in the table.
const SIZE: u16 = 256;
const FLAG_NEXT: u16 = 1;
const FLAG_WRITE: u16 = 2;
const FLAG_INDIRECT: u16 = 4;

/// A chain to post: bytes for the device to read, room for its answer, and how both are cut.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// What the device reads.
    pub request: Vec<u8>,
    /// Lengths of the pieces that `request` is cut into. The rest is one more piece.
    pub cuts: Vec<u32>,
    /// Lengths of the pieces of room for the answer.
    pub room: Vec<u32>,
    /// Whether the descriptors stand in an indirect table.
    pub indirect: bool,
}

impl Chain {
    /// A request in one piece, with room for every answer in one piece.
    pub fn of(request: &Request) -> Self {
        Self {
            request: request.bytes(),
            cuts: Vec::new(),
            room: vec![4096],
            indirect: false,
        }
    }
}

/// One virtqueue, both ends of it.
pub struct DriverQueue {
    queue: Queue,
    table: u64,
    avail: u64,
    posted: u16,
    free: Vec<u16>,
    /// Descriptors of each posted chain, by head.
    chains: Vec<Vec<u16>>,
    buffers: u64,
    buffers_end: u64,
    next_buffer: u64,
}

impl DriverQueue {
    /// A queue with its rings at `base` and its buffers in `room` bytes from `buffers` on.
    pub fn new(memory: &GuestMemoryMmap, base: u64, buffers: u64, room: u64) -> Self {
        let (table, avail, used) = (base, base + 0x2000, base + 0x4000);
        memory.write_obj(0_u32, GuestAddress(avail)).unwrap();
        memory.write_obj(0_u32, GuestAddress(used)).unwrap();
        let mut queue = Queue::new(SIZE).unwrap();
        queue.set_size(SIZE);
        queue.set_desc_table_address(Some(table as u32), Some(0));
        queue.set_avail_ring_address(Some(avail as u32), Some(0));
        queue.set_used_ring_address(Some(used as u32), Some(0));
        queue.set_ready(true);
        Self {
            queue,
            table,
            avail,
            posted: 0,
            free: (0..SIZE).rev().collect(),
            chains: vec![Vec::new(); SIZE.into()],
            buffers,
            buffers_end: buffers + room,
            next_buffer: buffers,
        }
    }

    fn buffer(&mut self, length: u64) -> u64 {
        let start = self.next_buffer.next_multiple_of(16);
        assert!(
            start + length <= self.buffers_end,
            "the mock driver has no room for {length} more bytes"
        );
        self.next_buffer = start + length;
        start
    }

    /// Puts a chain on the available ring and takes it off as the device does. Also returns the
    /// address and length of each piece of the answer.
    pub fn post<'m>(
        &mut self,
        memory: &'m GuestMemoryMmap,
        chain: &Chain,
    ) -> (DescriptorChain<&'m GuestMemoryMmap>, Vec<(u64, u32)>) {
        if self.free.len() == usize::from(SIZE) {
            self.next_buffer = self.buffers;
        }
        let mut pieces = Vec::new();
        let mut rest = chain.request.as_slice();
        let cuts = chain.cuts.iter().map(|cut| *cut as usize);
        for cut in cuts.chain(std::iter::once(usize::MAX)) {
            let (piece, later) = rest.split_at(cut.min(rest.len()));
            if piece.is_empty() {
                break;
            }
            let address = self.buffer(piece.len() as u64);
            memory.write_slice(piece, GuestAddress(address)).unwrap();
            pieces.push((address, piece.len() as u32, 0));
            rest = later;
        }
        let mut room = Vec::new();
        for length in &chain.room {
            let address = self.buffer(u64::from(*length));
            pieces.push((address, *length, FLAG_WRITE));
            room.push((address, *length));
        }
        if pieces.is_empty() {
            // A chain has at least one descriptor; this one has no bytes.
            pieces.push((self.buffers, 0, 0));
        }
        self.post_pieces(memory, &pieces, chain.indirect);
        let chain = self
            .queue
            .pop_descriptor_chain(memory)
            .expect("a posted chain is available");
        (chain, room)
    }

    /// Posts descriptors (address, length, flags but for `NEXT`) as they are.
    fn post_pieces(
        &mut self,
        memory: &GuestMemoryMmap,
        pieces: &[(u64, u32, u16)],
        indirect: bool,
    ) {
        let last = pieces.len() - 1;
        let own: Vec<u16> = if indirect {
            let table = self.buffer(16 * pieces.len() as u64);
            for (index, &(address, length, flags)) in pieces.iter().enumerate() {
                let flags = if index < last {
                    flags | FLAG_NEXT
                } else {
                    flags
                };
                write_descriptor(
                    memory,
                    table + 16 * index as u64,
                    Descriptor::new(address, length, flags, index as u16 + 1),
                );
            }
            let head = self.free.pop().expect("a free descriptor");
            write_descriptor(
                memory,
                self.table + 16 * u64::from(head),
                Descriptor::new(table, 16 * pieces.len() as u32, FLAG_INDIRECT, 0),
            );
            vec![head]
        } else {
            let own: Vec<u16> = pieces
                .iter()
                .map(|_| self.free.pop().expect("a free descriptor"))
                .collect();
            for (index, &(address, length, flags)) in pieces.iter().enumerate() {
                let next = own.get(index + 1).copied();
                let flags = flags | next.map_or(0, |_| FLAG_NEXT);
                write_descriptor(
                    memory,
                    self.table + 16 * u64::from(own[index]),
                    Descriptor::new(address, length, flags, next.unwrap_or(0)),
                );
            }
            own
        };
        let head = own[0];
        self.chains[usize::from(head)] = own;
        let place = self.avail + 4 + 2 * u64::from(self.posted % SIZE);
        memory.write_obj(head, GuestAddress(place)).unwrap();
        self.posted = self.posted.wrapping_add(1);
        memory
            .write_obj(self.posted, GuestAddress(self.avail + 2))
            .unwrap();
    }

    /// The device gave a chain back.
    pub fn free(&mut self, head: u16) {
        let mut chain = std::mem::take(&mut self.chains[usize::from(head)]);
        assert!(!chain.is_empty(), "chain {head} came back twice");
        self.free.append(&mut chain);
    }
}

fn write_descriptor(memory: &GuestMemoryMmap, address: u64, descriptor: Descriptor) {
    memory
        .write_obj(RawDescriptor::from(descriptor), GuestAddress(address))
        .unwrap();
}
