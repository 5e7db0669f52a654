//! A driver's side of the device, for tests, benchmarks and fuzzers (cargo feature `testing`).
//!
//! A [`Guest`] has memory, two virtqueues and a [`Device`] on the other end of them. Its chains go
//! through the real `virtio-queue` code. [`Request`] builds commands. [`Recorder`] is a screen that
//! records its calls. [`FakeRenderer`] is a renderer that the test controls. [`stream`] runs the
//! fuzzer's input, [`input`] does the same for input devices, and [`vmm`] for messages.
//!
//! ```
//! use hesper_vhost::testing::{Guest, Request};
//! use hesper_vhost::wire;
//!
//! let mut guest = Guest::new();
//! let reply = guest.ask(&Request::create_2d(1, wire::FORMAT_B8G8R8X8, 64, 64));
//! assert_eq!(reply.kind(), wire::RESP_OK_NODATA);
//! ```
//!
//! This is test code: it panics when the device breaks a promise.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::missing_panics_doc
)]

pub mod input;
mod queue;
mod render;
mod renderer;
mod request;
mod screen;
pub mod stream;
pub mod vmm;

use std::collections::{BTreeMap, HashMap};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use vm_memory::{Bytes, GuestAddress, GuestMemoryAtomic, GuestMemoryMmap};
use zerocopy::FromBytes;

pub use queue::{Chain, DriverQueue};
pub use render::{FakeCall3d, FakeResources3d};
pub use renderer::{FakeContext, FakeRenderer};
pub use request::Request;
pub use screen::{Recorder, ScreenCall};

use crate::device::{Device, DeviceOptions, Outcome, Queue, Taken, Transport};
use crate::renderer::Renderer;
use crate::screen::{Monitor, ScanoutSink};
use crate::wire::Header;

/// Bytes of a guest page.
pub const PAGE: u64 = 4096;

/// Where the pages of [`Guest::pages`] start. Queues and command buffers are below.
const PAGES_START: u64 = 128 << 20;

/// A transport that records its calls.
#[derive(Default)]
pub struct RecordingTransport {
    completed: Mutex<Vec<(Queue, u16, u32)>>,
    mappings: Mutex<BTreeMap<u64, u64>>,
    config_changes: AtomicUsize,
    refuse_maps: AtomicBool,
}

impl RecordingTransport {
    /// Number of configuration change notifications.
    pub fn config_changes(&self) -> usize {
        self.config_changes.load(Ordering::Relaxed)
    }

    /// Offset and length of everything in the window.
    pub fn mappings(&self) -> Vec<(u64, u64)> {
        let mappings = self.mappings.lock().unwrap();
        mappings.iter().map(|(at, length)| (*at, *length)).collect()
    }

    /// Forgets the mappings, as a VMM does at a reset.
    pub fn forget_mappings(&self) {
        self.mappings.lock().unwrap().clear();
    }

    /// Makes every map fail from now on, or no more.
    pub fn refuse_maps(&self, refuse: bool) {
        self.refuse_maps.store(refuse, Ordering::Relaxed);
    }
}

impl Transport for RecordingTransport {
    fn complete(&self, queue: Queue, head: u16, _taken: Taken, written: u32) {
        self.completed.lock().unwrap().push((queue, head, written));
    }

    fn config_changed(&self) {
        self.config_changes.fetch_add(1, Ordering::Relaxed);
    }

    fn map(
        &self,
        window_offset: u64,
        _fd: BorrowedFd<'_>,
        _fd_offset: u64,
        len: u64,
    ) -> std::io::Result<()> {
        if self.refuse_maps.load(Ordering::Relaxed) {
            return Err(std::io::ErrorKind::PermissionDenied.into());
        }
        let last = self.mappings.lock().unwrap().insert(window_offset, len);
        assert_eq!(last, None, "the device mapped twice at {window_offset:#x}");
        Ok(())
    }

    fn unmap(&self, window_offset: u64, len: u64) -> std::io::Result<()> {
        let last = self.mappings.lock().unwrap().remove(&window_offset);
        assert_eq!(last, Some(len), "unmap of what was not mapped");
        Ok(())
    }
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    /// Bytes that the device said it wrote.
    pub written: u32,
    /// Those bytes.
    pub bytes: Vec<u8>,
}

impl Reply {
    /// The answer's header; panics when there is none.
    pub fn header(&self) -> Header {
        Header::read_from_prefix(&self.bytes).expect("a header").0
    }

    /// The answer's `RESP_*`.
    pub fn kind(&self) -> u32 {
        self.header().kind.get()
    }

    /// What follows the header.
    pub fn body(&self) -> &[u8] {
        &self.bytes[size_of::<Header>()..]
    }
}

/// A chain that was posted.
#[derive(Debug)]
pub enum Posted {
    /// The device answered at once.
    Answered(Reply),
    /// It answers later. The number is the chain's head.
    Held(u16),
}

/// A guest and its device.
pub struct Guest {
    /// The device under test.
    pub device: Arc<Device>,
    /// Guest memory: two regions that touch, from address 0 on.
    pub memory: GuestMemoryMmap,
    /// The transport.
    pub host: Arc<RecordingTransport>,
    control: DriverQueue,
    cursor: DriverQueue,
    /// Answer pieces of the chains that are not answered.
    open: HashMap<(Queue, u16), Vec<(u64, u32)>>,
    answered: HashMap<(Queue, u16), Reply>,
    next_page: u64,
}

/// One connected 1024 × 768 monitor at 60 Hz of unknown size.
pub fn monitor() -> Monitor {
    Monitor {
        connected: true,
        width: 1024,
        height: 768,
        refresh_mhz: 60_000,
        width_mm: 0,
        height_mm: 0,
        place: 0,
    }
}

/// Two monitors, a window of 1 GiB, 4096-byte alignment.
pub fn options() -> DeviceOptions {
    DeviceOptions {
        monitors: vec![monitor(); 2],
        host_visible_size: 1 << 30,
        blob_alignment: 4096,
    }
}

impl Default for Guest {
    fn default() -> Self {
        Self::new()
    }
}

impl Guest {
    /// A guest with 256 MiB, no screen and no renderer.
    pub fn new() -> Self {
        Self::with(options(), Arc::new(crate::screen::NoScreen), Vec::new())
    }

    /// A guest with 256 MiB and the given screen and renderers.
    pub fn with(
        options: DeviceOptions,
        screen: Arc<dyn ScanoutSink>,
        renderers: Vec<Arc<dyn Renderer>>,
    ) -> Self {
        let half = 128 << 20;
        let memory = GuestMemoryMmap::from_ranges(&[
            (GuestAddress(0), half),
            (GuestAddress(128 << 20), half),
        ])
        .unwrap();
        let device = Arc::new(Device::new(options, screen, renderers));
        let host = Arc::new(RecordingTransport::default());
        device.set_transport(Arc::clone(&host) as _);
        device.set_memory(GuestMemoryAtomic::new(memory.clone()));
        device.set_acked_features(device.features());
        Self {
            device,
            host,
            control: DriverQueue::new(&memory, 0x1000, 1 << 20, 100 << 20),
            cursor: DriverQueue::new(&memory, 0x9000, 110 << 20, 1 << 20),
            memory,
            open: HashMap::new(),
            answered: HashMap::new(),
            next_page: PAGES_START,
        }
    }

    /// Fresh guest memory in whole pages. After 128 MiB the same pages come again.
    pub fn pages(&mut self, bytes: u64) -> u64 {
        let bytes = bytes.next_multiple_of(PAGE);
        if self.next_page + bytes > 256 << 20 {
            self.next_page = PAGES_START;
        }
        let start = self.next_page;
        self.next_page += bytes;
        start
    }

    /// Writes into guest memory.
    pub fn write(&self, address: u64, bytes: &[u8]) {
        self.memory
            .write_slice(bytes, GuestAddress(address))
            .unwrap();
    }

    /// Posts a chain.
    pub fn post(&mut self, queue: Queue, chain: &Chain) -> Posted {
        let driver = match queue {
            Queue::Control => &mut self.control,
            Queue::Cursor => &mut self.cursor,
        };
        let (chain, pieces) = driver.post(&self.memory, chain);
        let head = chain.head_index();
        self.open.insert((queue, head), pieces);
        let outcome = match queue {
            Queue::Control => self.device.control(&self.memory, chain),
            Queue::Cursor => self.device.cursor(&self.memory, chain),
        };
        match outcome {
            Outcome::Done { written } => Posted::Answered(self.close(queue, head, written)),
            Outcome::Held => Posted::Held(head),
        }
    }

    fn close(&mut self, queue: Queue, head: u16, written: u32) -> Reply {
        let pieces = self
            .open
            .remove(&(queue, head))
            .expect("the device answered a chain that it does not have");
        let mut bytes = Vec::new();
        for (address, length) in pieces {
            let count = (written as usize - bytes.len()).min(length as usize);
            let mut piece = vec![0; count];
            self.memory
                .read_slice(&mut piece, GuestAddress(address))
                .unwrap();
            bytes.append(&mut piece);
        }
        assert_eq!(bytes.len(), written as usize, "more was written than fits");
        match queue {
            Queue::Control => self.control.free(head),
            Queue::Cursor => self.cursor.free(head),
        }
        Reply { written, bytes }
    }

    /// Posts a command that must be answered at once.
    pub fn ask(&mut self, request: &Request) -> Reply {
        match self.post(Queue::Control, &Chain::of(request)) {
            Posted::Answered(reply) => reply,
            Posted::Held(_) => panic!("{request:?} was held"),
        }
    }

    /// Posts a command that must be answered at once, and returns its `RESP_*`.
    pub fn code(&mut self, request: &Request) -> u32 {
        self.ask(request).kind()
    }

    /// Posts a command that must be answered `OK_NODATA` at once.
    pub fn ok(&mut self, request: &Request) {
        let kind = self.code(request);
        assert_eq!(kind, crate::wire::RESP_OK_NODATA, "{request:?}: {kind:#x}");
    }

    /// Posts a command that must be held, and returns its head.
    pub fn held(&mut self, request: &Request) -> u16 {
        match self.post(Queue::Control, &Chain::of(request)) {
            Posted::Held(head) => head,
            Posted::Answered(reply) => panic!("{request:?} was answered {:#x}", reply.kind()),
        }
    }

    /// Posts a command that is held and answered `OK_NODATA` before the call returns.
    pub fn held_ok(&mut self, request: &Request) {
        if let Posted::Held(head) = self.post(Queue::Control, &Chain::of(request)) {
            assert_eq!(self.late(), [head], "{request:?}");
            let kind = self.reply(head).kind();
            assert_eq!(kind, crate::wire::RESP_OK_NODATA, "{request:?}: {kind:#x}");
        } else {
            panic!("{request:?} was answered at once");
        }
    }

    /// Posts a cursor command without room for an answer, as Linux does.
    pub fn cursor(&mut self, request: &Request) {
        let chain = Chain {
            room: Vec::new(),
            ..Chain::of(request)
        };
        match self.post(Queue::Cursor, &chain) {
            Posted::Answered(reply) => assert_eq!(reply.written, 0),
            Posted::Held(_) => panic!("a cursor command was held"),
        }
    }

    /// Heads of the control queue's chains that were answered late since the last call, in order.
    pub fn late(&mut self) -> Vec<u16> {
        let completed = std::mem::take(&mut *self.host.completed.lock().unwrap());
        completed
            .into_iter()
            .map(|(queue, head, written)| {
                let reply = self.close(queue, head, written);
                self.answered.insert((queue, head), reply);
                head
            })
            .collect()
    }

    /// The late answer of a control chain that [`Self::late`] returned.
    pub fn reply(&mut self, head: u16) -> Reply {
        self.answered
            .remove(&(Queue::Control, head))
            .expect("not answered late")
    }

    /// Number of chains that the device has.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// Resets the device and forgets the open chains, like a driver that starts again.
    pub fn reset(&mut self) {
        self.device.reset();
        self.late();
        self.open.clear();
        self.answered.clear();
        self.control = DriverQueue::new(&self.memory, 0x1000, 1 << 20, 100 << 20);
        self.cursor = DriverQueue::new(&self.memory, 0x9000, 110 << 20, 1 << 20);
        self.device.set_acked_features(self.device.features());
    }

    /// Makes a 2D resource with a backing in one piece. Returns the address of its pixels.
    pub fn image(&mut self, id: u32, format: u32, width: u32, height: u32) -> u64 {
        self.ok(&Request::create_2d(id, format, width, height));
        let bytes = u64::from(width) * u64::from(height) * 4;
        let address = self.pages(bytes);
        self.ok(&Request::attach_backing(id, &[(address, bytes as u32)]));
        address
    }
}
