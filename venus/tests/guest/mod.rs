//! A guest that is a test: its Venus driver calls the renderer.
#![allow(
    dead_code,
    unused_imports,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "each test file uses its own part, and a test ends with a panic"
)]

#[path = "../settled/mod.rs"]
pub mod settled;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

pub use hesper_mock_venus::{
    ALIVE, FATAL, Gpu, IDLE, Memory, PATIENCE, RING, Ring, RingOptions, Shared, VenusGuest, bytes,
    query, read_reply, reply_stream, until,
};
use hesper_venus::{
    Blob, BlobError, BlobRequest, Context, ContextEvents, DisplayServer, Renderer, RendererOptions,
};
use hesper_venus_protocol::runtime::Object;
use hesper_venus_protocol::{command, vk};
use settled::Settled;

/// The resource that holds replies.
const REPLY_RESOURCE: u32 = 1;

/// What a context told.
#[derive(Debug)]
pub enum Event {
    /// A fence retired: ring and fence.
    Fence(u8, u64),
    /// A blob was made.
    Blob(u32, Result<Blob, BlobError>),
    /// The context is lost.
    Lost(String),
}

struct Events(Mutex<Sender<Event>>);

impl ContextEvents for Events {
    fn fence_retired(&self, ring: u8, fence: u64) {
        let _ = self.0.lock().unwrap().send(Event::Fence(ring, fence));
    }
    fn blob_created(&self, resource: u32, result: Result<Blob, BlobError>) {
        let _ = self.0.lock().unwrap().send(Event::Blob(resource, result));
    }
    fn lost(&self, reason: &str) {
        let _ = self.0.lock().unwrap().send(Event::Lost(reason.to_owned()));
    }
}

/// A renderer on the host's driver.
pub fn renderer() -> Settled {
    renderer_with(RendererOptions::default())
}

/// The same with options.
pub fn renderer_with(options: RendererOptions) -> Settled {
    Settled::new(options)
}

/// A blob, as the guest sees its memory.
pub struct SharedBlob(pub Blob);

impl Memory for SharedBlob {
    fn read(&self, offset: usize, bytes: &mut [u8]) {
        self.0.memory.read(offset, bytes).unwrap();
    }

    fn write(&self, offset: usize, bytes: &[u8]) {
        self.0.memory.write(offset, bytes).unwrap();
    }

    fn word(&self, offset: usize) -> u32 {
        self.0.memory.word(offset).unwrap().load(Ordering::SeqCst)
    }

    fn set_word(&self, offset: usize, word: u32) {
        let place = self.0.memory.word(offset).unwrap();
        place.store(word, Ordering::SeqCst);
    }
}

/// A context and what a guest's driver knows of it.
pub struct Guest {
    pub context: Context,
    pub events: Receiver<Event>,
    replies: Shared<SharedBlob>,
    next_id: AtomicU64,
    next_fence: AtomicU64,
    next_resource: AtomicU32,
}

impl Guest {
    /// A context with memory for replies.
    pub fn new(renderer: &Renderer, name: &str) -> Self {
        static CONTEXTS: AtomicU32 = AtomicU32::new(1);
        let (sender, events) = channel();
        let id = CONTEXTS.fetch_add(1, Ordering::Relaxed);
        let context = renderer
            .create_context(
                id,
                name,
                DisplayServer::Unknown,
                Arc::new(Events(Mutex::new(sender))),
            )
            .unwrap();
        let size = Self::REPLIES as u64;
        let replies = blob(&context, &events, REPLY_RESOURCE, 0, size).unwrap();
        let replies = Shared {
            resource: REPLY_RESOURCE,
            memory: SharedBlob(replies),
        };
        Self {
            context,
            events,
            replies,
            next_id: AtomicU64::new(1),
            next_fence: AtomicU64::new(1),
            next_resource: AtomicU32::new(REPLY_RESOURCE + 1),
        }
    }

    /// Drops the context; what it still tells can be read.
    pub fn end(self) -> Receiver<Event> {
        self.events
    }

    /// Makes a blob; 0 asks for fresh memory.
    pub fn blob(&self, blob_id: u64, size: u64) -> Result<(u32, Blob), BlobError> {
        let resource = self.next_resource.fetch_add(1, Ordering::Relaxed);
        blob(&self.context, &self.events, resource, blob_id, size).map(|blob| (resource, blob))
    }

    /// The next event.
    pub fn event(&self) -> Event {
        self.events.recv_timeout(PATIENCE).expect("an event")
    }

    /// Submits bytes that end the context, and gives its reason.
    pub fn dies_of(&self, stream: Vec<u8>) -> String {
        self.context.submit(stream);
        self.dies()
    }

    /// Waits until the context is lost.
    pub fn dies(&self) -> String {
        loop {
            match self.event() {
                Event::Lost(reason) => return reason,
                Event::Fence(..) | Event::Blob(..) => {}
            }
        }
    }
}

impl VenusGuest for Guest {
    type Memory = SharedBlob;
    const REPLIES: usize = 1 << 20;

    fn id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    fn submit_bytes(&self, stream: &[u8]) {
        self.context.submit(stream.to_vec());
    }

    fn wait_fence(&self, ring: u8) {
        let fence = self.next_fence.fetch_add(1, Ordering::Relaxed);
        self.context.fence(ring, fence);
        match self.event() {
            Event::Fence(r, f) => assert_eq!((r, f), (ring, fence)),
            other => panic!("{other:?} instead of fence {fence}"),
        }
    }

    fn share(&self, size: usize) -> Shared<SharedBlob> {
        let (resource, blob) = self.blob(0, size as u64).unwrap();
        let memory = SharedBlob(blob);
        Shared { resource, memory }
    }

    fn replies(&self) -> &Shared<SharedBlob> {
        &self.replies
    }
}

fn blob(
    context: &Context,
    events: &Receiver<Event>,
    resource: u32,
    blob_id: u64,
    size: u64,
) -> Result<Blob, BlobError> {
    context.create_blob(
        resource,
        BlobRequest {
            blob_id,
            size,
            mappable: true,
            shareable: false,
            cross_device: false,
        },
    );
    match events.recv_timeout(PATIENCE).expect("a blob") {
        Event::Blob(made, Ok(blob)) => {
            assert_eq!(made, resource);
            Ok(blob)
        }
        Event::Blob(_, Err(error)) => Err(error),
        other => panic!("{other:?} instead of a blob"),
    }
}

/// Size, budget and usage of a GPU's first heap, as the guest is told.
pub fn heap(guest: &Guest, gpu: &Gpu) -> (u64, u64, u64) {
    let mut budget = vk::PhysicalDeviceMemoryBudgetPropertiesEXT::default();
    let mut told = vk::PhysicalDeviceMemoryProperties2 {
        p_next: (&raw mut budget).cast(),
        ..Default::default()
    };
    guest.call(command::GetPhysicalDeviceMemoryProperties2 {
        physical_device: Object::guest(gpu.physical),
        p_memory_properties: &mut told,
    });
    let size = told.memory_properties.memory_heaps[0].size;
    (size, budget.heap_budget[0], budget.heap_usage[0])
}
