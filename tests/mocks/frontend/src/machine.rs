//! A VM that is this test: guest memory, two virtqueues, a host-visible window, connected to a running Hesper by the
//! `vhost` crate's frontend, which is not ours and so a second opinion on the protocol.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use hesper_vhost::device::Queue;
use hesper_vhost::testing::Request;
use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures,
};
use vhost::vhost_user::{Frontend, FrontendReqHandler, VhostUserFrontend};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo, VringConfigData};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::window::Window;

/// How long any answer may take.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What QEMU 11.1 takes of the protocol.
const PROTOCOL: u64 = 0x0044_2629;
/// `VIRTIO_F_VERSION_1`, `VIRTIO_RING_F_INDIRECT_DESC` and the vhost-user bit.
const RING_FEATURES: u64 = 1 << 32 | 1 << 28 | 1 << 30;

/// Guest address of the memory, its size, and its address in the "VMM".
const RAM: u64 = 0x4000_0000;
const RAM_SIZE: usize = 128 << 20;
const RAM_IN_VMM: u64 = 0x7000_0000_0000;

const SIZE: u16 = 256;
const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
/// Distances from the start of a queue's memory.
const TABLE: u64 = 0;
const AVAIL: u64 = 0x2000;
const USED: u64 = 0x3000;
/// A page for the indirect table of each head.
const TABLES: u64 = 0x1_0000;
/// Room for the answer to each head.
const ANSWERS: u64 = 0x20_0000;
const ANSWER_ROOM: u32 = 2048;
const QUEUE_MEMORY: u64 = 0x40_0000;
/// Where requests are written, one after the other and around.
const REQUESTS: u64 = RAM + (16 << 20);
const REQUESTS_END: u64 = RAM + (112 << 20);
/// Free for the tests: pixels.
pub const PIXELS: u64 = REQUESTS_END;

/// A posted command; later ones are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// What the device wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer(pub Vec<u8>);

impl Answer {
    /// Its `RESP_*`.
    pub fn kind(&self) -> u32 {
        self.word(0)
    }

    pub fn word(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.0[offset..offset + 4].try_into().unwrap())
    }
}

/// One virtqueue, the driver's side of it.
struct DriverQueue {
    base: u64,
    posted: u16,
    seen: u16,
    free: Vec<u16>,
    open: HashMap<u16, Ticket>,
    kick: EventFd,
    call: EventFd,
}

impl DriverQueue {
    fn new(index: u64) -> Self {
        let event = || EventFd::new(EFD_NONBLOCK).unwrap();
        Self {
            base: RAM + index * QUEUE_MEMORY,
            posted: 0,
            seen: 0,
            free: (0..SIZE).collect(),
            open: HashMap::new(),
            kick: event(),
            call: event(),
        }
    }
}

/// The VM.
pub struct Machine {
    frontend: Frontend,
    memory: GuestMemoryMmap,
    file: File,
    queues: [DriverQueue; 2],
    features: u64,
    window: Arc<Mutex<Window>>,
    next_ticket: u64,
    next_request: u64,
    next_resource: u32,
    next_offset: u64,
    answers: HashMap<Ticket, Answer>,
    /// Tickets in the order of their answers.
    order: Vec<Ticket>,
}

impl Machine {
    /// Connects to the Hesper that listens on `socket` and starts the device, as QEMU and a driver do.
    pub fn boot(socket: &Path) -> Self {
        Self::boot_with_pages(socket, 4096)
    }

    /// The same on a host with pages of so many bytes. The guest's driver aligns blobs to them.
    pub fn boot_with_pages(socket: &Path, page: u64) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        let mut frontend = Frontend::from_stream(stream, 2);
        frontend.set_owner().unwrap();
        let offered = frontend.get_features().unwrap();
        let protocol = frontend.get_protocol_features().unwrap();
        let wanted = VhostUserProtocolFeatures::from_bits_retain(PROTOCOL);
        frontend.set_protocol_features(protocol & wanted).unwrap();
        if (protocol & wanted).contains(VhostUserProtocolFeatures::SHMEM) {
            frontend.get_shmem_config().unwrap();
        }
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        let file = rustix::fs::memfd_create("mock", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let file = File::from(file);
        file.set_len(RAM_SIZE as u64).unwrap();
        let place = FileOffset::new(file.try_clone().unwrap(), 0);
        let ranges = [(GuestAddress(RAM), RAM_SIZE, Some(place))];
        let mut machine = Self {
            frontend,
            memory: GuestMemoryMmap::from_ranges_with_files(ranges).unwrap(),
            file,
            queues: [DriverQueue::new(0), DriverQueue::new(1)],
            features: offered & (RING_FEATURES | 0xff_ffff),
            window: Arc::new(Mutex::new(Window::with_pages(page))),
            next_ticket: 1,
            next_request: REQUESTS,
            next_resource: 1,
            next_offset: 0,
            answers: HashMap::new(),
            order: Vec::new(),
        };
        machine.serve_window();
        machine.start();
        machine
    }

    /// Answers Hesper's requests on a thread of its own, until Hesper hangs up.
    fn serve_window(&mut self) {
        let mut handler = FrontendReqHandler::new(Arc::clone(&self.window)).unwrap();
        handler.set_reply_ack_flag(true);
        self.frontend
            .set_backend_request_fd(&handler.get_tx_raw_fd())
            .unwrap();
        thread::spawn(move || {
            loop {
                // A refusal, such as the barrier's, is an error of the crate's but not of the channel.
                if let Err(vhost::vhost_user::Error::Disconnected) = handler.handle_request() {
                    break;
                }
            }
        });
    }

    /// Tells the guest's memory, in so many regions: a power of two.
    pub fn tell_memory(&mut self, regions: u64) {
        let size = RAM_SIZE as u64 / regions;
        let regions: Vec<_> = (0..regions)
            .map(|index| VhostUserMemoryRegionInfo {
                guest_phys_addr: RAM + index * size,
                memory_size: size,
                userspace_addr: RAM_IN_VMM + index * size,
                mmap_offset: index * size,
                mmap_handle: self.file.as_raw_fd(),
            })
            .collect();
        self.frontend.set_mem_table(&regions).unwrap();
    }

    fn start(&mut self) {
        self.frontend.set_features(self.features).unwrap();
        self.tell_memory(1);
        for (index, queue) in self.queues.iter().enumerate() {
            let place = |address| queue.base - RAM + RAM_IN_VMM + address;
            for address in [AVAIL, USED] {
                let address = GuestAddress(queue.base + address);
                self.memory.write_obj(0_u32, address).unwrap();
            }
            self.frontend.set_vring_num(index, SIZE).unwrap();
            self.frontend.set_vring_base(index, 0).unwrap();
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
            self.frontend.set_vring_call(index, &queue.call).unwrap();
            self.frontend.set_vring_kick(index, &queue.kick).unwrap();
            self.frontend.set_vring_enable(index, true).unwrap();
        }
    }

    /// Resets the machine as QEMU does: both queues stop, the mappings are dropped, then the driver starts anew.
    pub fn reset(&mut self) {
        for index in 0..2 {
            self.frontend.get_vring_base(index).unwrap();
        }
        let page = self.window().page();
        *self.window() = Window::with_pages(page);
        self.queues = [DriverQueue::new(0), DriverQueue::new(1)];
        self.answers.clear();
        self.order.clear();
        self.start();
    }

    /// The host-visible window.
    pub fn window(&self) -> MutexGuard<'_, Window> {
        self.window.lock().unwrap()
    }

    /// A fresh resource id.
    pub fn resource(&mut self) -> u32 {
        self.next_resource += 1;
        self.next_resource - 1
    }

    /// A fresh place in the window.
    pub fn offset(&mut self, size: u64) -> u64 {
        let size = self.whole_pages(size);
        self.next_offset += size;
        self.next_offset - size
    }

    /// The size of a blob that holds `size` bytes.
    pub fn whole_pages(&self, size: u64) -> u64 {
        size.next_multiple_of(self.window().page())
    }

    /// What the guest's driver reads of the device's config space.
    pub fn config(&mut self, offset: u32, length: usize) -> Vec<u8> {
        let flags = VhostUserConfigFlags::empty();
        let answer = self
            .frontend
            .get_config(offset, length as u32, flags, &vec![0; length]);
        answer.unwrap().1
    }

    /// The features that Hesper offers and the guest's driver takes.
    pub fn features(&self) -> u64 {
        self.features
    }

    /// Writes into guest memory.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.memory
            .write_slice(bytes, GuestAddress(address))
            .unwrap();
    }

    /// Reads guest memory.
    pub fn read(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.memory
            .read_slice(&mut bytes, GuestAddress(address))
            .unwrap();
        bytes
    }

    fn descriptor(&self, table: u64, index: usize, (address, length): (u64, u32), flags: u16) {
        let next = if flags & NEXT == 0 { 0 } else { index + 1 };
        let bytes = [
            &address.to_le_bytes()[..],
            &length.to_le_bytes(),
            &flags.to_le_bytes(),
            &(next as u16).to_le_bytes(),
        ];
        self.write(table + 16 * index as u64, &bytes.concat());
    }

    /// Puts a command on the control queue and kicks.
    pub fn post(&mut self, request: &Request) -> Ticket {
        self.post_cut(Queue::Control, request, usize::MAX)
    }

    /// Puts a command on a queue, cut into pieces of `cut` bytes that lie apart.
    pub fn post_cut(&mut self, queue: Queue, request: &Request, cut: usize) -> Ticket {
        let index = usize::from(queue == Queue::Cursor);
        let until = Instant::now() + PATIENCE;
        while self.queues[index].free.is_empty() {
            assert!(Instant::now() < until, "the queue stays full");
            thread::yield_now();
            self.pump();
        }
        let head = self.queues[index].free.pop().unwrap();
        let base = self.queues[index].base;
        let table = base + TABLES + 0x1000 * u64::from(head);
        let bytes = request.bytes();
        let mut count = 0;
        for piece in bytes.chunks(cut.min(bytes.len())) {
            let end = self.next_request + piece.len() as u64;
            if end > REQUESTS_END {
                self.next_request = REQUESTS;
            }
            let place = (self.next_request, piece.len() as u32);
            self.write(place.0, piece);
            self.next_request += (piece.len() as u64 + 64).next_multiple_of(16);
            self.descriptor(table, count, place, NEXT);
            count += 1;
        }
        assert!(count < 256, "one page of descriptors");
        let answer = base + ANSWERS + u64::from(ANSWER_ROOM) * u64::from(head);
        self.descriptor(table, count, (answer, ANSWER_ROOM), WRITE);
        let indirect = (table, 16 * (count as u32 + 1));
        self.descriptor(base + TABLE, head.into(), indirect, INDIRECT);

        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let queue = &mut self.queues[index];
        queue.open.insert(head, ticket);
        let slot = base + AVAIL + 4 + 2 * u64::from(queue.posted % SIZE);
        queue.posted = queue.posted.wrapping_add(1);
        let posted = queue.posted;
        let memory = &self.memory;
        memory.write_obj(head, GuestAddress(slot)).unwrap();
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
        memory
            .write_obj(posted, GuestAddress(base + AVAIL + 2))
            .unwrap();
        queue.kick.write(1).unwrap();
        ticket
    }

    /// Takes in what the device has answered.
    fn pump(&mut self) {
        for queue in &mut self.queues {
            let base = queue.base;
            let used: u16 = self.memory.read_obj(GuestAddress(base + USED + 2)).unwrap();
            std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
            while queue.seen != used {
                let slot = base + USED + 4 + 8 * u64::from(queue.seen % SIZE);
                queue.seen = queue.seen.wrapping_add(1);
                let head: u32 = self.memory.read_obj(GuestAddress(slot)).unwrap();
                let length: u32 = self.memory.read_obj(GuestAddress(slot + 4)).unwrap();
                assert!(length <= ANSWER_ROOM);
                let head = u16::try_from(head).unwrap();
                let ticket = queue.open.remove(&head);
                let ticket = ticket.expect("the device answered what it does not have");
                let mut answer = vec![0; length as usize];
                let place = base + ANSWERS + u64::from(ANSWER_ROOM) * u64::from(head);
                self.memory
                    .read_slice(&mut answer, GuestAddress(place))
                    .unwrap();
                queue.free.push(head);
                self.answers.insert(ticket, Answer(answer));
                self.order.push(ticket);
            }
        }
    }

    /// Whether a command is answered.
    pub fn is_answered(&mut self, ticket: Ticket) -> bool {
        self.pump();
        self.answers.contains_key(&ticket)
    }

    /// Waits for the answer to a command.
    #[track_caller]
    pub fn answer(&mut self, ticket: Ticket) -> Answer {
        let until = Instant::now() + PATIENCE;
        let mut tries = 0_u32;
        while !self.is_answered(ticket) {
            assert!(Instant::now() < until, "{ticket:?} is not answered");
            tries += 1;
            if tries < 100 {
                thread::yield_now();
            } else {
                thread::sleep(Duration::from_micros(50));
            }
        }
        self.answers[&ticket].clone()
    }

    /// What was answered since the last call, in order.
    pub fn answered(&mut self) -> Vec<Ticket> {
        self.pump();
        std::mem::take(&mut self.order)
    }

    /// Commands without an answer.
    pub fn open(&self) -> usize {
        self.queues.iter().map(|queue| queue.open.len()).sum()
    }

    /// Sends a command and waits for its answer.
    #[track_caller]
    pub fn ask(&mut self, request: &Request) -> Answer {
        let ticket = self.post(request);
        self.answer(ticket)
    }

    /// Sends a command and returns its `RESP_*`.
    #[track_caller]
    pub fn code(&mut self, request: &Request) -> u32 {
        self.ask(request).kind()
    }

    /// Sends a command that must be answered `OK_NODATA`.
    #[track_caller]
    pub fn ok(&mut self, request: &Request) {
        let kind = self.code(request);
        let ok = hesper_vhost::wire::RESP_OK_NODATA;
        assert_eq!(kind, ok, "{request:?}: {kind:#x}");
    }
}
