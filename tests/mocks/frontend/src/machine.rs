//! A VM whose VMM and guest are the test: guest memory, two virtqueues, optionally a host-visible
//! window.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use vhost::vhost_user::message::{
    VhostUserConfigFlags, VhostUserHeaderFlag, VhostUserProtocolFeatures,
};
use vhost::vhost_user::{
    Frontend, FrontendReqHandler, VhostUserFrontend, VhostUserFrontendReqHandlerMut,
};
use vhost::{VhostBackend, VhostUserMemoryRegionInfo};
use vm_memory::{Bytes, FileOffset, GuestAddress, GuestMemoryMmap};

use crate::PATIENCE;
use crate::queue::{ANSWER_ROOM, CONTROL, CURSOR, DriverQueue, EVENT_IDX, INDIRECT, QUEUE_MEMORY};
use crate::window::Window;

/// Protocol features that QEMU 11.1 takes.
pub const PROTOCOL: u64 = 0x0044_a629;
/// `VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS`: the VMM sends memory region by region.
const MEMORY_SLOTS: u64 = 1 << 15;
/// `VIRTIO_F_VERSION_1`.
const VERSION_1: u64 = 1 << 32;
/// `VHOST_USER_F_PROTOCOL_FEATURES`, and all features that are specific to a device type.
const ALWAYS: u64 = 1 << 30 | 0xff_ffff;

/// Guest address of the memory, its size, and its address in the "VMM".
const RAM: u64 = 0x4000_0000;
const RAM_SIZE: usize = 128 << 20;
const RAM_IN_VMM: u64 = 0x7000_0000_0000;
/// Where requests are written, one behind the other; at the end it starts again.
const REQUESTS: u64 = RAM + (16 << 20);
const REQUESTS_END: u64 = RAM + (112 << 20);
/// Free guest memory for the tests, up to its end: pixels.
pub const PIXELS: u64 = REQUESTS_END;

/// A posted command. Later tickets are greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// What the device wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer(pub Vec<u8>);

impl Answer {
    /// Its type: a `RESP_*`.
    pub fn kind(&self) -> u32 {
        self.word(0)
    }

    /// The 32-bit number at a byte offset.
    pub fn word(&self, offset: usize) -> u32 {
        word(&self.0, offset)
    }
}

/// The 32-bit number at a byte offset.
pub fn word(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes(bytes[offset..offset + 4].try_into().unwrap())
}

/// The VM.
pub struct Machine {
    /// The connection, for requests that this type does not make.
    pub frontend: Frontend,
    memory: GuestMemoryMmap,
    file: File,
    queues: [DriverQueue; 2],
    features: u64,
    /// The VMM sends memory region by region, and only what has changed, as QEMU does.
    slots: bool,
    memory_told: bool,
    window: Arc<Mutex<Window>>,
    /// The VMM's end of a back-end channel without anybody behind it, kept open.
    _channel: UnixStream,
    next_ticket: u64,
    next_request: u64,
    next_resource: u32,
    next_offset: u64,
    /// Tickets of the chains that the device has, by queue and head.
    open: HashMap<(usize, u16), Ticket>,
    answers: HashMap<Ticket, Answer>,
    /// Tickets in the order of their answers.
    order: Vec<Ticket>,
}

impl Machine {
    /// Connects and sets everything up, as QEMU does when the driver is ready. Nobody answers on
    /// the back-end channel.
    pub fn boot(path: &Path) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        Self::boot_with(stream, VERSION_1 | EVENT_IDX | INDIRECT)
    }

    /// The same, with these features of transport and rings, and all of the device.
    pub fn boot_with(stream: UnixStream, features: u64) -> Self {
        let mut machine = Self::negotiate(stream, features);
        machine.start();
        machine
    }

    /// The same, with a host-visible window, on a host with this page size. The guest's driver
    /// aligns blobs to it.
    pub fn boot_with_window(path: &Path, page: u64) -> Self {
        let stream = UnixStream::connect(path).unwrap();
        let protocol = PROTOCOL & !MEMORY_SLOTS;
        let mut machine = Self::connect(stream, VERSION_1 | INDIRECT, protocol, true);
        *machine.window() = Window::with_pages(page);
        let window = Arc::clone(&machine.window);
        machine.serve(window);
        machine.start();
        machine
    }

    /// Connects and negotiates, but sets up no queue.
    pub fn negotiate(stream: UnixStream, features: u64) -> Self {
        Self::negotiate_protocol(stream, features, PROTOCOL)
    }

    /// The same, with these protocol features.
    pub fn negotiate_protocol(stream: UnixStream, features: u64, protocol: u64) -> Self {
        Self::connect(stream, features, protocol, false)
    }

    fn connect(stream: UnixStream, features: u64, protocol: u64, has_window: bool) -> Self {
        let wanted = VhostUserProtocolFeatures::from_bits_retain(protocol);
        let mut frontend = Frontend::from_stream(stream, 2);
        frontend.set_owner().unwrap();
        let offered = frontend.get_features().unwrap();
        let agreed = frontend.get_protocol_features().unwrap() & wanted;
        frontend.set_protocol_features(agreed).unwrap();
        if has_window && agreed.contains(VhostUserProtocolFeatures::SHMEM) {
            frontend.get_shmem_config().unwrap();
        }
        // From here on every request is acknowledged, so that each failure shows where it happens.
        frontend.set_hdr_flags(VhostUserHeaderFlag::NEED_REPLY);
        assert_eq!(frontend.get_queue_num().unwrap(), 2);
        let (channel, theirs) = UnixStream::pair().unwrap();
        if !has_window {
            frontend.set_backend_request_fd(&theirs).unwrap();
        }

        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let file = File::from(rustix::fs::memfd_create("guest", flags).unwrap());
        file.set_len(RAM_SIZE as u64).unwrap();
        let place = FileOffset::new(file.try_clone().unwrap(), 0);
        let ranges = [(GuestAddress(RAM), RAM_SIZE, Some(place))];
        let features = offered & (features | ALWAYS);
        Self {
            frontend,
            memory: GuestMemoryMmap::from_ranges_with_files(ranges).unwrap(),
            file,
            queues: [0, 1].map(|index| DriverQueue::new(RAM + index * QUEUE_MEMORY, features)),
            features,
            slots: wanted.contains(VhostUserProtocolFeatures::CONFIGURE_MEM_SLOTS),
            memory_told: false,
            window: Arc::new(Mutex::new(Window::with_pages(4096))),
            _channel: channel,
            next_ticket: 1,
            next_request: REQUESTS,
            next_resource: 1,
            next_offset: 0,
            open: HashMap::new(),
            answers: HashMap::new(),
            order: Vec::new(),
        }
    }

    /// Answers the back end's requests on a thread of its own, until it hangs up.
    pub fn serve<H>(&mut self, vmm: Arc<Mutex<H>>)
    where
        H: VhostUserFrontendReqHandlerMut + Send + 'static,
    {
        let mut handler = FrontendReqHandler::new(vmm).unwrap();
        handler.set_reply_ack_flag(true);
        self.frontend
            .set_backend_request_fd(&handler.get_tx_raw_fd())
            .unwrap();
        thread::spawn(move || {
            loop {
                // A refusal, such as the barrier's, is an error for the crate, but does not end the
                // channel.
                if let Err(vhost::vhost_user::Error::Disconnected) = handler.handle_request() {
                    break;
                }
            }
        });
    }

    /// The region that starts `offset` bytes into the memory.
    fn region(&self, offset: u64, size: u64) -> VhostUserMemoryRegionInfo {
        VhostUserMemoryRegionInfo {
            guest_phys_addr: RAM + offset,
            memory_size: size,
            userspace_addr: RAM_IN_VMM + offset,
            mmap_offset: offset,
            mmap_handle: self.file.as_raw_fd(),
        }
    }

    /// Sends a memory table with this number of regions: a power of two.
    pub fn tell_memory(&mut self, regions: u64) {
        let size = RAM_SIZE as u64 / regions;
        let regions: Vec<_> = (0..regions)
            .map(|index| self.region(index * size, size))
            .collect();
        self.frontend.set_mem_table(&regions).unwrap();
    }

    /// Sends memory and features and starts both queues at index 0, as a driver does after a reset.
    pub fn start(&mut self) {
        for queue in &mut self.queues {
            queue.reset(&self.memory);
        }
        self.open.clear();
        self.start_at([0, 0]);
    }

    /// Starts the queues at the given indices, as QEMU does for a resumed VM.
    pub fn start_at(&mut self, bases: [u16; 2]) {
        self.frontend.set_features(self.features).unwrap();
        if self.memory_told {
            // QEMU does not repeat what has not changed.
        } else if self.slots {
            let region = self.region(0, RAM_SIZE as u64);
            self.frontend.add_mem_region(&region).unwrap();
            self.memory_told = true;
        } else {
            self.tell_memory(1);
        }
        for ((index, queue), base) in self.queues.iter().enumerate().zip(bases) {
            let addresses = queue.addresses(RAM, RAM_IN_VMM);
            let frontend = &mut self.frontend;
            frontend.set_vring_num(index, addresses.queue_size).unwrap();
            frontend.set_vring_base(index, base).unwrap();
            frontend.set_vring_addr(index, &addresses).unwrap();
            frontend.set_vring_call(index, &queue.call).unwrap();
            frontend.set_vring_kick(index, &queue.kick).unwrap();
            frontend.set_vring_enable(index, true).unwrap();
        }
    }

    /// Stops both queues, as QEMU does on a reset and on a pause. Returns their indices.
    pub fn stop(&mut self) -> [u16; 2] {
        [0, 1].map(|index| {
            let base = self.frontend.get_vring_base(index).unwrap();
            u16::try_from(base).unwrap()
        })
    }

    /// Resets the machine as QEMU does: both queues stop, the mappings are dropped, then the driver
    /// starts anew.
    pub fn reset(&mut self) {
        self.stop();
        let page = self.window().page();
        *self.window() = Window::with_pages(page);
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

    /// A free offset in the window.
    pub fn offset(&mut self, size: u64) -> u64 {
        let size = self.whole_pages(size);
        self.next_offset += size;
        self.next_offset - size
    }

    /// The size of a blob that holds `size` bytes.
    pub fn whole_pages(&self, size: u64) -> u64 {
        size.next_multiple_of(self.window().page())
    }

    /// Reads the device's config space as the guest's driver does.
    pub fn config(&mut self, offset: u32, length: usize) -> Vec<u8> {
        let flags = VhostUserConfigFlags::empty();
        let answer = self
            .frontend
            .get_config(offset, length as u32, flags, &vec![0; length]);
        answer.unwrap().1
    }

    /// The features that the device offers and the guest's driver takes.
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

    /// Puts a command on a queue without kicking; returns its head.
    pub fn offer(&mut self, queue: usize, command: impl Into<Vec<u8>>, room: usize) -> u16 {
        self.offer_cut(queue, &command.into(), usize::MAX, room)
    }

    /// The same, cut into pieces of `cut` bytes that lie apart.
    fn offer_cut(&mut self, queue: usize, command: &[u8], cut: usize, room: usize) -> u16 {
        let mut pieces = Vec::new();
        for piece in command.chunks(cut.min(command.len()).max(1)) {
            if self.next_request + piece.len() as u64 > REQUESTS_END {
                self.next_request = REQUESTS;
            }
            self.write(self.next_request, piece);
            pieces.push((self.next_request, piece.len()));
            self.next_request += (piece.len() as u64 + 64).next_multiple_of(16);
        }
        self.queues[queue].offer(&self.memory, &pieces, room)
    }

    /// Tells the device of what was offered.
    pub fn kick(&self, queue: usize) {
        self.queues[queue].kick.write(1).unwrap();
    }

    /// Takes an interrupt of a queue, if there is one.
    pub fn was_interrupted(&self, queue: usize) -> bool {
        self.queues[queue].call.read().is_ok()
    }

    /// Whether the device asked to be kicked for the newest chain (`EVENT_IDX`).
    pub fn wants_kick(&self, queue: usize) -> bool {
        self.queues[queue].wants_kick(&self.memory)
    }

    /// The next answered chain, if there is one: its head and its answer.
    pub fn try_next(&mut self, queue: usize) -> Option<(u16, Answer)> {
        let (head, answer) = self.queues[queue].take(&self.memory)?;
        Some((head, Answer(answer)))
    }

    /// Waits for the next answered chain, by its interrupt.
    pub fn wait(&mut self, queue: usize) -> Option<(u16, Answer)> {
        self.wait_for(&[queue], |machine| machine.try_next(queue))
    }

    /// Waits until `find` finds something, which can only come with an answer on these queues.
    fn wait_for<T>(
        &mut self,
        queues: &[usize],
        mut find: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = find(self) {
                return Some(found);
            }
            // Asks for an interrupt and looks again, as drivers do.
            for queue in queues {
                self.queues[*queue].ask_for_interrupt(&self.memory);
            }
            if let Some(found) = find(self) {
                return Some(found);
            }
            while !queues.iter().any(|queue| self.was_interrupted(*queue)) {
                if Instant::now() > deadline {
                    return None;
                }
                thread::sleep(Duration::from_micros(50));
            }
        }
    }

    /// Takes all memory away from the guest. Nothing may touch it from then on.
    pub fn shrink(&self) {
        self.file.set_len(0).unwrap();
    }

    /// Puts a command on the control queue and kicks.
    pub fn post(&mut self, command: impl Into<Vec<u8>>) -> Ticket {
        self.post_cut(CONTROL, command, usize::MAX)
    }

    /// Puts a command on a queue, cut into pieces of `cut` bytes that lie apart.
    pub fn post_cut(&mut self, queue: usize, command: impl Into<Vec<u8>>, cut: usize) -> Ticket {
        let until = Instant::now() + PATIENCE;
        while self.queues[queue].room() == 0 {
            assert!(Instant::now() < until, "the queue stays full");
            thread::yield_now();
            self.take_answers();
        }
        let head = self.offer_cut(queue, &command.into(), cut, ANSWER_ROOM);
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.open.insert((queue, head), ticket);
        self.kick(queue);
        ticket
    }

    /// Takes the answered chains off the queues.
    fn take_answers(&mut self) {
        for (index, queue) in self.queues.iter_mut().enumerate() {
            while let Some((head, answer)) = queue.take(&self.memory) {
                let ticket = self.open.remove(&(index, head));
                let ticket = ticket.expect("a chain that was posted");
                self.answers.insert(ticket, Answer(answer));
                self.order.push(ticket);
            }
        }
    }

    /// Whether a command is answered.
    pub fn is_answered(&mut self, ticket: Ticket) -> bool {
        self.take_answers();
        self.answers.contains_key(&ticket)
    }

    /// Waits for the answer to a command.
    #[track_caller]
    pub fn answer(&mut self, ticket: Ticket) -> Answer {
        let answer = self.wait_for(&[CONTROL, CURSOR], |machine| {
            machine.take_answers();
            machine.answers.get(&ticket).cloned()
        });
        answer.unwrap_or_else(|| panic!("{ticket:?} is not answered"))
    }

    /// The tickets that were answered since the last call, in order.
    pub fn answered(&mut self) -> Vec<Ticket> {
        self.take_answers();
        std::mem::take(&mut self.order)
    }

    /// Commands without an answer.
    pub fn open(&self) -> usize {
        self.queues.iter().map(DriverQueue::open).sum()
    }

    /// Sends a command and waits for its answer.
    #[track_caller]
    pub fn ask(&mut self, command: impl Into<Vec<u8>>) -> Answer {
        let ticket = self.post(command);
        self.answer(ticket)
    }

    /// Sends a command and returns its `RESP_*`.
    #[track_caller]
    pub fn code(&mut self, command: impl Into<Vec<u8>>) -> u32 {
        self.ask(command).kind()
    }

    /// Sends a command that must be answered `OK_NODATA`.
    #[track_caller]
    pub fn ok(&mut self, command: impl Into<Vec<u8>>) {
        const OK_NODATA: u32 = 0x1100;
        let command = command.into();
        let kind = self.code(command.as_slice());
        let start = &command[..command.len().min(64)];
        assert_eq!(kind, OK_NODATA, "{kind:#x} to {start:x?}");
    }
}
