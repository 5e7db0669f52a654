//! The driver's side of a split virtqueue.

use std::sync::atomic::{Ordering, fence};

use vhost::VringConfigData;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// `VIRTIO_RING_F_INDIRECT_DESC`.
pub const INDIRECT: u64 = 1 << 28;
/// `VIRTIO_RING_F_EVENT_IDX`.
pub const EVENT_IDX: u64 = 1 << 29;

/// The queue of commands.
pub const CONTROL: usize = 0;
/// The queue of cursor commands.
pub const CURSOR: usize = 1;

/// Entries of a queue.
pub const QUEUE_SIZE: u16 = 256;
const SIZE: u64 = QUEUE_SIZE as u64;

const FLAG_NEXT: u16 = 1;
const FLAG_WRITE: u16 = 2;
const FLAG_INDIRECT: u16 = 4;

/// Bytes of guest memory that a queue takes.
pub(crate) const QUEUE_MEMORY: u64 = 0x40_0000;
// Offsets from the start of that memory.
const TABLE: u64 = 0;
const AVAIL: u64 = 0x2000;
const USED: u64 = 0x3000;
/// A page for each head's indirect table.
const TABLES: u64 = 0x1_0000;
/// Room for each head's answer.
const ANSWERS: u64 = 0x20_0000;
/// Bytes of that room.
pub(crate) const ANSWER_ROOM: usize = 2048;

/// One virtqueue.
pub(crate) struct DriverQueue {
    /// Guest address of its memory.
    base: u64,
    features: u64,
    posted: u16,
    seen: u16,
    free: Vec<u16>,
    /// Bytes of room for the answer, by head, of the chains that the device holds.
    rooms: Vec<Option<usize>>,
    pub(crate) kick: EventFd,
    pub(crate) call: EventFd,
}

impl DriverQueue {
    pub(crate) fn new(base: u64, features: u64) -> Self {
        let event = || EventFd::new(EFD_NONBLOCK).unwrap();
        let mut queue = Self {
            base,
            features,
            posted: 0,
            seen: 0,
            free: Vec::new(),
            rooms: Vec::new(),
            kick: event(),
            call: event(),
        };
        queue.forget();
        queue
    }

    /// Starts empty, as a driver does after a reset.
    pub(crate) fn reset(&mut self, memory: &GuestMemoryMmap) {
        self.forget();
        for address in [AVAIL, USED] {
            self.set(memory, address, 0_u32);
        }
    }

    fn forget(&mut self) {
        (self.posted, self.seen) = (0, 0);
        // Without indirect tables a chain has two entries of the queue's own table.
        let step = if self.features & INDIRECT != 0 { 1 } else { 2 };
        self.free = (0..QUEUE_SIZE).step_by(step).rev().collect();
        self.rooms = vec![None; QUEUE_SIZE.into()];
    }

    /// The addresses of the rings in the VMM, which has the guest memory that starts at `memory` at
    /// `memory_in_vmm`.
    pub(crate) fn addresses(&self, memory: u64, memory_in_vmm: u64) -> VringConfigData {
        let place = |address| self.base - memory + memory_in_vmm + address;
        VringConfigData {
            queue_max_size: QUEUE_SIZE,
            queue_size: QUEUE_SIZE,
            flags: 0,
            desc_table_addr: place(TABLE),
            used_ring_addr: place(USED),
            avail_ring_addr: place(AVAIL),
            log_addr: None,
        }
    }

    fn get<T: vm_memory::ByteValued>(&self, memory: &GuestMemoryMmap, address: u64) -> T {
        memory.read_obj(GuestAddress(self.base + address)).unwrap()
    }

    fn set<T: vm_memory::ByteValued>(&self, memory: &GuestMemoryMmap, address: u64, value: T) {
        let address = GuestAddress(self.base + address);
        memory.write_obj(value, address).unwrap();
    }

    /// How many chains can be offered before one must be answered.
    pub(crate) fn room(&self) -> usize {
        self.free.len()
    }

    /// How many chains the device holds.
    pub(crate) fn open(&self) -> usize {
        self.rooms.iter().flatten().count()
    }

    /// Makes a chain available without a kick. Its pieces (address, length) are for the device to
    /// read; it has `room` bytes for the answer. Returns its head.
    pub(crate) fn offer(
        &mut self,
        memory: &GuestMemoryMmap,
        pieces: &[(u64, usize)],
        room: usize,
    ) -> u16 {
        assert!(room <= ANSWER_ROOM);
        let head = self.free.pop().expect("a free entry of the queue");
        let answer = self.base + self.answer_of(head);
        memory
            .write_slice(&vec![0xee; room], GuestAddress(answer))
            .unwrap();
        let mut entries: Vec<_> = pieces
            .iter()
            .map(|(address, length)| (*address, *length, 0))
            .collect();
        if room > 0 || entries.is_empty() {
            entries.push((answer, room, FLAG_WRITE));
        }
        if self.features & INDIRECT != 0 {
            assert!(entries.len() <= 256, "one page of descriptors");
            let table = TABLES + 0x1000 * u64::from(head);
            self.write_chain(memory, table, 0, &entries);
            let indirect = (self.base + table, 16 * entries.len(), FLAG_INDIRECT);
            self.write_chain(memory, TABLE, head, &[indirect]);
        } else {
            assert!(entries.len() <= 2, "two descriptors");
            self.write_chain(memory, TABLE, head, &entries);
        }
        self.rooms[usize::from(head)] = Some(room);
        let slot = AVAIL + 4 + 2 * (u64::from(self.posted) % SIZE);
        self.set(memory, slot, head);
        self.posted = self.posted.wrapping_add(1);
        fence(Ordering::SeqCst);
        self.set(memory, AVAIL + 2, self.posted);
        head
    }

    fn answer_of(&self, head: u16) -> u64 {
        ANSWERS + ANSWER_ROOM as u64 * u64::from(head)
    }

    /// Writes descriptors (address, length, flags but for `NEXT`) from entry `first` of a table on.
    fn write_chain(
        &self,
        memory: &GuestMemoryMmap,
        table: u64,
        first: u16,
        entries: &[(u64, usize, u16)],
    ) {
        for ((address, length, flags), index) in entries.iter().zip(first..) {
            let is_last = usize::from(index - first) + 1 == entries.len();
            let (next_flag, next) = if is_last {
                (0, 0)
            } else {
                (FLAG_NEXT, index + 1)
            };
            let bytes = [
                &address.to_le_bytes()[..],
                &(*length as u32).to_le_bytes(),
                &(flags | next_flag).to_le_bytes(),
                &next.to_le_bytes(),
            ];
            let place = GuestAddress(self.base + table + 16 * u64::from(index));
            memory.write_slice(&bytes.concat(), place).unwrap();
        }
    }

    /// Takes the next answered chain: its head and its answer.
    pub(crate) fn take(&mut self, memory: &GuestMemoryMmap) -> Option<(u16, Vec<u8>)> {
        let used: u16 = self.get(memory, USED + 2);
        if used == self.seen {
            return None;
        }
        fence(Ordering::SeqCst);
        let slot = USED + 4 + 8 * (u64::from(self.seen) % SIZE);
        self.seen = self.seen.wrapping_add(1);
        let [head, length]: [u32; 2] = [0, 4].map(|offset| self.get(memory, slot + offset));
        let head = u16::try_from(head).unwrap();
        let room = self.rooms[usize::from(head)].take();
        let room = room.expect("the device answered a chain that it does not have");
        assert!(length as usize <= room, "more was written than fits");
        let mut answer = vec![0; length as usize];
        let place = GuestAddress(self.base + self.answer_of(head));
        memory.read_slice(&mut answer, place).unwrap();
        self.free.push(head);
        Some((head, answer))
    }

    /// Asks for an interrupt at the next answer (`EVENT_IDX`).
    pub(crate) fn ask_for_interrupt(&self, memory: &GuestMemoryMmap) {
        if self.features & EVENT_IDX != 0 {
            self.set(memory, AVAIL + 4 + 2 * SIZE, self.seen);
            fence(Ordering::SeqCst);
        }
    }

    /// Whether the device asked to be kicked for the newest chain (`EVENT_IDX`).
    pub(crate) fn wants_kick(&self, memory: &GuestMemoryMmap) -> bool {
        let event: u16 = self.get(memory, USED + 4 + 8 * SIZE);
        event == self.posted.wrapping_sub(1)
    }
}
