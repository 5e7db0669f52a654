//! A guest small enough to see through: memory, two virtqueues and the commands of a few tests, connected by
//! the `vhost` crate's frontend, which is not ours and so a second opinion on the protocol.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use vhost::vhost_user::message::{VhostUserHeaderFlag, VhostUserProtocolFeatures};
use vhost::vhost_user::{Frontend, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// How long anything that must come may take: the machine may be busy, or itself be stopped for a while.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Protocol features that a frontend like QEMU accepts.
pub(crate) const PROTOCOL: u64 = 0x0044_a629;
pub(crate) const EVENT_IDX: u64 = 1 << 29;
pub(crate) const INDIRECT: u64 = 1 << 28;

/// Guest address of the memory, its size, and its address in the "VMM".
const RAM: u64 = 0x4000_0000;
const RAM_SIZE: usize = 16 << 20;
const RAM_IN_VMM: u64 = 0x7000_0000_0000;

const SIZE: u16 = 64;
const TABLE: u64 = 0;
const AVAIL: u64 = 0x4000;
const USED: u64 = 0x6000;
/// Where requests and answers lie: 4 KiB and 4 KiB for each head.
const BUFFERS: u64 = 0x10_0000;
/// Free for the tests: the pixels of resources.
pub(crate) const PIXELS: u64 = RAM + (8 << 20);

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const IS_INDIRECT: u16 = 4;

pub(crate) const OK_NODATA: u32 = 0x1100;
pub(crate) const OK_DISPLAY_INFO: u32 = 0x1101;
pub(crate) const ERR_INVALID_RESOURCE_ID: u32 = 0x1203;

/// A command as bytes, field by field.
pub(crate) struct Command(Vec<u8>);

impl Command {
    /// Nothing to read: the chain has room only.
    pub(crate) fn empty() -> Self {
        Self(Vec::new())
    }

    /// Bytes of another device's protocol.
    pub(crate) fn bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    pub(crate) fn new(kind: u32) -> Self {
        Self([&kind.to_le_bytes()[..], &[0; 20]].concat())
    }

    /// Asks for a fence.
    pub(crate) fn fenced(mut self, id: u64) -> Self {
        self.0[4] |= 1;
        self.0[8..16].copy_from_slice(&id.to_le_bytes());
        self
    }

    pub(crate) fn context(mut self, id: u32) -> Self {
        self.0[16..20].copy_from_slice(&id.to_le_bytes());
        self
    }

    pub(crate) fn words(mut self, words: &[u32]) -> Self {
        for word in words {
            self.0.extend(word.to_le_bytes());
        }
        self
    }

    pub(crate) fn long(mut self, word: u64) -> Self {
        self.0.extend(word.to_le_bytes());
        self
    }

    pub(crate) fn display_info() -> Self {
        Self::new(0x100)
    }

    /// A 2D resource of format B8G8R8X8.
    pub(crate) fn create_2d(id: u32, width: u32, height: u32) -> Self {
        Self::new(0x101).words(&[id, 2, width, height])
    }

    pub(crate) fn attach(id: u32, address: u64, length: u32) -> Self {
        Self::new(0x106)
            .words(&[id, 1])
            .long(address)
            .words(&[length, 0])
    }

    pub(crate) fn set_scanout(scanout: u32, id: u32, width: u32, height: u32) -> Self {
        Self::new(0x103).words(&[0, 0, width, height, scanout, id])
    }

    pub(crate) fn transfer(id: u32, width: u32, height: u32) -> Self {
        Self::new(0x105)
            .words(&[0, 0, width, height])
            .long(0)
            .words(&[id, 0])
    }

    pub(crate) fn flush(id: u32, x: u32, y: u32, width: u32, height: u32) -> Self {
        Self::new(0x104).words(&[x, y, width, height, id, 0])
    }

    pub(crate) fn update_cursor(id: u32, x: u32, y: u32, hot_x: u32, hot_y: u32) -> Self {
        Self::new(0x300).words(&[0, x, y, 0, id, hot_x, hot_y, 0])
    }

    pub(crate) fn move_cursor(x: u32, y: u32) -> Self {
        Self::new(0x301).words(&[0, x, y, 0, 0, 0, 0, 0])
    }
}

/// One virtqueue, from the driver's side.
struct Ring {
    base: u64,
    avail: u16,
    seen: u16,
    next_head: u16,
    kick: EventFd,
    call: EventFd,
    lengths: HashMap<u16, usize>,
}

impl Ring {
    fn new(index: u64) -> Self {
        let event = || EventFd::new(EFD_NONBLOCK).unwrap();
        Self {
            base: RAM + index * 0x1_0000,
            avail: 0,
            seen: 0,
            next_head: 0,
            kick: event(),
            call: event(),
            lengths: HashMap::new(),
        }
    }
}

/// A guest and its VMM.
pub(crate) struct Guest {
    pub(crate) frontend: Frontend,
    pub(crate) memory: GuestMemoryMmap,
    file: File,
    rings: [Ring; 2],
    features: u64,
    /// Memory is told region by region, and only what has changed, as QEMU does.
    slots: bool,
    memory_told: bool,
    /// The VMM's end of the backend channel, kept open: nobody answers there.
    _channel: UnixStream,
}

impl Guest {
    /// Connects and sets everything up, as QEMU does when the driver is ready.
    pub(crate) fn boot(path: &Path) -> Self {
        Self::boot_with(
            UnixStream::connect(path).unwrap(),
            1 << 32 | EVENT_IDX | INDIRECT,
        )
    }

    /// … with these features of transport and rings, and all of the device.
    pub(crate) fn boot_with(stream: UnixStream, features: u64) -> Self {
        let mut guest = Self::negotiate(stream, features);
        guest.start();
        guest
    }

    /// Connects and agrees on everything, but sets up no queue.
    pub(crate) fn negotiate(stream: UnixStream, features: u64) -> Self {
        Self::negotiate_protocol(stream, features, PROTOCOL)
    }

    /// … with these protocol features.
    pub(crate) fn negotiate_protocol(stream: UnixStream, features: u64, protocol: u64) -> Self {
        let wanted = VhostUserProtocolFeatures::from_bits_retain(protocol);
        let mut frontend = Frontend::from_stream(stream, 2);
        frontend.set_owner().unwrap();
        let offered = frontend.get_features().unwrap();
        let protocol = frontend.get_protocol_features().unwrap();
        frontend.set_protocol_features(protocol & wanted).unwrap();
        // From here on every request is acknowledged, so that each failure is seen where it happens.
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        assert_eq!(frontend.get_queue_num().unwrap(), 2);
        let (channel, theirs) = UnixStream::pair().unwrap();
        frontend.set_backend_request_fd(&theirs).unwrap();

        let file =
            File::from(rustix::fs::memfd_create("guest", rustix::fs::MemfdFlags::CLOEXEC).unwrap());
        file.set_len(RAM_SIZE as u64).unwrap();
        let offset = FileOffset::new(file.try_clone().unwrap(), 0);
        let memory =
            GuestMemoryMmap::from_ranges_with_files([(GuestAddress(RAM), RAM_SIZE, Some(offset))])
                .unwrap();
        Self {
            frontend,
            memory,
            file,
            rings: [Ring::new(0), Ring::new(1)],
            features: offered & (features | 1 << 30 | 0xff_ffff),
            slots: wanted.contains(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS),
            memory_told: false,
            _channel: channel,
        }
    }

    /// Tells memory and features and starts both queues at index 0, as a driver does after a reset.
    pub(crate) fn start(&mut self) {
        for ring in &mut self.rings {
            (ring.avail, ring.seen, ring.next_head) = (0, 0, 0);
            ring.lengths.clear();
            for address in [AVAIL, USED] {
                self.memory
                    .write_obj(0u32, GuestAddress(ring.base + address))
                    .unwrap();
            }
        }
        self.start_at([0, 0]);
    }

    /// Starts the queues at the given indices, as QEMU does for a resumed VM.
    pub(crate) fn start_at(&mut self, bases: [u16; 2]) {
        self.frontend.set_features(self.features).unwrap();
        let region = VhostUserMemoryRegionInfo {
            guest_phys_addr: RAM,
            memory_size: RAM_SIZE as u64,
            userspace_addr: RAM_IN_VMM,
            mmap_offset: 0,
            mmap_handle: self.file.as_raw_fd(),
        };
        if self.memory_told {
            // QEMU tells nothing of what has not changed.
        } else if self.slots {
            self.frontend.add_mem_region(&region).unwrap();
            self.memory_told = true;
        } else {
            self.frontend.set_mem_table(&[region]).unwrap();
        }
        for (index, base) in bases.into_iter().enumerate() {
            let ring = &self.rings[index];
            let place = |address| ring.base - RAM + RAM_IN_VMM + address;
            self.frontend.set_vring_num(index, SIZE).unwrap();
            self.frontend.set_vring_base(index, base).unwrap();
            let addresses = VringConfigData {
                queue_max_size: SIZE,
                queue_size: SIZE,
                flags: 0,
                desc_table_addr: place(TABLE),
                used_ring_addr: place(USED),
                avail_ring_addr: place(AVAIL),
                log_addr: None,
            };
            self.frontend.set_vring_addr(index, &addresses).unwrap();
            self.frontend.set_vring_call(index, &ring.call).unwrap();
            self.frontend.set_vring_kick(index, &ring.kick).unwrap();
            self.frontend.set_vring_enable(index, true).unwrap();
        }
    }

    /// Stops both queues, as QEMU does on a reset and on a pause; returns where they stood.
    pub(crate) fn stop(&mut self) -> [u16; 2] {
        [0, 1].map(|index| {
            let base = self.frontend.get_vring_base(index).unwrap();
            u16::try_from(base).unwrap()
        })
    }

    fn write_descriptor(&self, table: u64, index: u16, fields: (u64, usize, u16, u16)) {
        let (address, length, flags, next) = fields;
        let bytes = [
            &address.to_le_bytes()[..],
            &(length as u32).to_le_bytes(),
            &flags.to_le_bytes(),
            &next.to_le_bytes(),
        ]
        .concat();
        let place = GuestAddress(table + 16 * u64::from(index));
        self.memory.write_slice(&bytes, place).unwrap();
    }

    /// Puts a command on a queue without kicking; returns its head.
    pub(crate) fn offer(&mut self, queue: usize, command: &Command, room: usize) -> u16 {
        let indirect = self.features & INDIRECT != 0;
        let ring = &mut self.rings[queue];
        let mut head = ring.next_head;
        while ring.lengths.contains_key(&head) {
            head = (head + 2) % SIZE;
        }
        ring.next_head = (head + 2) % SIZE;
        let buffer = BUFFERS + RAM + (queue as u64 * u64::from(SIZE) + u64::from(head)) * 0x2000;
        let (base, avail) = (ring.base, ring.avail);
        ring.avail = avail.wrapping_add(1);
        ring.lengths.insert(head, room);

        self.memory
            .write_slice(&command.0, GuestAddress(buffer))
            .unwrap();
        let answer = vec![0xee; room];
        self.memory
            .write_slice(&answer, GuestAddress(buffer + 0x1000))
            .unwrap();
        let (request, reply) = (
            (buffer, command.0.len(), NEXT),
            (buffer + 0x1000, room, WRITE),
        );
        if indirect {
            let table = buffer + 0x800;
            self.write_descriptor(table, 0, (request.0, request.1, request.2, 1));
            self.write_descriptor(table, 1, (reply.0, reply.1, reply.2, 0));
            self.write_descriptor(base + TABLE, head, (table, 32, IS_INDIRECT, 0));
        } else {
            let table = base + TABLE;
            self.write_descriptor(table, head, (request.0, request.1, request.2, head + 1));
            self.write_descriptor(table, head + 1, (reply.0, reply.1, reply.2, 0));
        }
        let slot = base + AVAIL + 4 + 2 * u64::from(avail % SIZE);
        self.memory.write_obj(head, GuestAddress(slot)).unwrap();
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        self.memory
            .write_obj(avail.wrapping_add(1), GuestAddress(base + AVAIL + 2))
            .unwrap();
        head
    }

    pub(crate) fn kick(&self, queue: usize) {
        self.rings[queue].kick.write(1).unwrap();
    }

    /// Takes an interrupt of a queue, if there is one.
    pub(crate) fn was_interrupted(&self, queue: usize) -> bool {
        self.rings[queue].call.read().is_ok()
    }

    /// Whether the device asked to be kicked for the newest chain (EVENT_IDX).
    pub(crate) fn wants_kick(&self, queue: usize) -> bool {
        let ring = &self.rings[queue];
        let place = ring.base + USED + 4 + 8 * u64::from(SIZE);
        let event: u16 = self.memory.read_obj(GuestAddress(place)).unwrap();
        event == ring.avail.wrapping_sub(1)
    }

    /// Waits for the next answered chain, if need be on the call event; returns its head and answer.
    pub(crate) fn wait(&mut self, queue: usize) -> Option<(u16, Vec<u8>)> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = self.try_next(queue) {
                return Some(answer);
            }
            let ring = &mut self.rings[queue];
            if self.features & EVENT_IDX != 0 {
                // Asks to be told of the next one, and looks again, as drivers do.
                let place = ring.base + AVAIL + 4 + 2 * u64::from(SIZE);
                self.memory
                    .write_obj(ring.seen, GuestAddress(place))
                    .unwrap();
                std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
                if let Some(answer) = self.try_next(queue) {
                    return Some(answer);
                }
            }
            loop {
                if self.rings[queue].call.read().is_ok() {
                    break;
                }
                if Instant::now() > deadline {
                    return None;
                }
                std::thread::sleep(Duration::from_micros(50));
            }
        }
    }

    /// The next answered chain, if there is one.
    pub(crate) fn try_next(&mut self, queue: usize) -> Option<(u16, Vec<u8>)> {
        let ring = &mut self.rings[queue];
        let used: u16 = self
            .memory
            .read_obj(GuestAddress(ring.base + USED + 2))
            .unwrap();
        if used == ring.seen {
            return None;
        }
        let slot = ring.base + USED + 4 + 8 * u64::from(ring.seen % SIZE);
        ring.seen = ring.seen.wrapping_add(1);
        let head: u32 = self.memory.read_obj(GuestAddress(slot)).unwrap();
        let length: u32 = self.memory.read_obj(GuestAddress(slot + 4)).unwrap();
        let head = u16::try_from(head).unwrap();
        let room = ring.lengths.remove(&head).expect("a head that was offered");
        assert!(length as usize <= room);
        let mut answer = vec![0; length as usize];
        let buffer = BUFFERS + RAM + (queue as u64 * u64::from(SIZE) + u64::from(head)) * 0x2000;
        self.memory
            .read_slice(&mut answer, GuestAddress(buffer + 0x1000))
            .unwrap();
        Some((head, answer))
    }

    /// Sends a command on the control queue and returns its whole answer.
    pub(crate) fn ask(&mut self, command: &Command) -> Vec<u8> {
        let head = self.offer(0, command, 1536);
        self.kick(0);
        let (answered, answer) = self.wait(0).expect("an answer within 5 s");
        assert_eq!(answered, head);
        answer
    }

    /// Sends a command on the control queue and returns the type of its answer.
    pub(crate) fn send(&mut self, command: &Command) -> u32 {
        kind(&self.ask(command))
    }

    /// Makes a resource of `width` × `height` pixels with memory and shows it on scanout 0.
    pub(crate) fn show(&mut self, id: u32, width: u32, height: u32) {
        for command in [
            Command::create_2d(id, width, height),
            Command::attach(id, PIXELS, width * height * 4),
            Command::set_scanout(0, id, width, height),
            Command::transfer(id, width, height),
        ] {
            assert_eq!(self.send(&command), OK_NODATA);
        }
    }
}

/// The type of an answer.
pub(crate) fn kind(answer: &[u8]) -> u32 {
    word(answer, 0)
}

/// The 32-bit number at a byte offset of an answer.
pub(crate) fn word(answer: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(answer[offset..offset + 4].try_into().unwrap())
}
