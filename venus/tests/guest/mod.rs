//! A guest that is a test: speaks Venus to the renderer with the protocol crate's encoders.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "each test file uses its own part, and a test ends with a panic"
)]

#[path = "../../../tests/mocks/venus/src/guest.rs"]
pub mod gpu;
#[path = "../settled/mod.rs"]
pub mod settled;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hesper_venus::{
    Blob, BlobError, BlobRequest, Context, ContextEvents, Renderer, RendererOptions,
};
use hesper_venus_protocol::runtime::Command;
use hesper_venus_protocol::{command, guest, vk};
use settled::Settled;

/// How long anything may take.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Size of the memory for replies.
const REPLIES: usize = 1 << 20;
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

/// A context and what a guest's driver knows of it.
pub struct Guest {
    pub context: Context,
    pub events: Receiver<Event>,
    pub replies: Blob,
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
            .create_context(id, name, Arc::new(Events(Mutex::new(sender))))
            .unwrap();
        let replies = blob(&context, &events, REPLY_RESOURCE, 0, REPLIES as u64).unwrap();
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

    /// A fresh object id.
    pub fn id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
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

    /// Makes a fence and waits for it; panics when the context is lost first.
    pub fn wait_fence(&self, ring: u8) {
        let fence = self.next_fence.fetch_add(1, Ordering::Relaxed);
        self.context.fence(ring, fence);
        match self.event() {
            Event::Fence(r, f) => assert_eq!((r, f), (ring, fence)),
            other => panic!("{other:?} instead of fence {fence}"),
        }
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

    /// Sends a command without a reply.
    pub fn send<'a, C: Command<'a>>(&self, command: &C) {
        self.context.submit(bytes(command));
    }

    /// Sends a command, waits for it and decodes its reply. Gives back the return value's bits.
    pub fn call<'a, C: Command<'a>>(&self, mut command: C) -> u64 {
        let mut stream = bytes(&command::SetReplyCommandStreamMESA {
            p_stream: &mut vk::CommandStreamDescriptionMESA {
                resource_id: REPLY_RESOURCE,
                offset: 0,
                size: REPLIES,
            },
        });
        // SAFETY: the tests' arguments point to live values.
        unsafe { guest::encode(&command, true, &mut stream) };
        self.context.submit(stream);
        self.wait_fence(0);
        let mut reply = vec![0; REPLIES];
        self.replies.memory.read(0, &mut reply).unwrap();
        // SAFETY: as above.
        let (value, _) = unsafe { guest::decode_reply(&mut command, &reply) }.unwrap();
        value
    }
}

/// The bytes of a command without a reply.
pub fn bytes<'a, C: Command<'a>>(command: &C) -> Vec<u8> {
    let mut stream = Vec::new();
    // SAFETY: the tests' arguments point to live values.
    unsafe { guest::encode(command, false, &mut stream) };
    stream
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
