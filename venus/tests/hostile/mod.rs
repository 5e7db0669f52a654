//! A test bench for hostile streams: each gets a context of its own on a renderer that must survive
//! it.
//!
//! [`Bench::run`] is the one entry, for tests and fuzzers. It demands of every stream that
//! - the context answers, or ends when it is dropped if it rightly waits for something;
//! - a lost context is reported once, in one line of the log, and not because of a panic;
//! - another context of the same renderer continues to work;
//! - nothing of the context is left afterwards.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "each user takes its part, and a test ends with a panic"
)]

pub mod decode;
pub mod ids;
pub mod mutate;
#[path = "../null/mod.rs"]
mod null;
pub mod numbers;
pub mod recorded;
pub mod session;
#[path = "../settled/mod.rs"]
pub mod settled;

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use hesper_venus::{
    Blob, BlobError, BlobRequest, Context, ContextEvents, DisplayServer, Driver, Renderer,
    RendererOptions,
};

use session::Session;
use settled::Settled;

/// How long anything may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How long a stream may wait for something before its context is dropped.
const WAITING: Duration = Duration::from_secs(2);
/// The resource that holds replies.
pub const REPLY_RESOURCE: u32 = 1;
/// Its size.
pub const REPLIES: usize = 64 << 10;
/// The resource that holds a ring, and streams to be executed.
pub const RING_RESOURCE: u32 = 2;
/// Where the ring's commands lie in it.
pub const RING_BUFFER: usize = 4096;
/// Their size.
pub const RING_SIZE: usize = 64 << 10;

/// What a context told.
#[derive(Debug)]
enum Event {
    Fence(u8, u64),
    Blob(Result<Blob, BlobError>),
    Lost(String),
}

struct Events(Mutex<Sender<Event>>);

impl Events {
    fn tell(&self, event: Event) {
        // Nobody listens to a context that has ended.
        let _ = self.0.lock().unwrap().send(event);
    }
}

impl ContextEvents for Events {
    fn fence_retired(&self, ring: u8, fence: u64) {
        self.tell(Event::Fence(ring, fence));
    }
    fn blob_created(&self, _resource: u32, result: Result<Blob, BlobError>) {
        self.tell(Event::Blob(result));
    }
    fn lost(&self, reason: &str) {
        self.tell(Event::Lost(reason.to_owned()));
    }
}

/// The lines of the log about lost contexts.
struct LostLines(Mutex<Vec<String>>);

static LINES: LostLines = LostLines(Mutex::new(Vec::new()));

impl log::Log for LostLines {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Debug
    }
    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            let line = record.args().to_string();
            // A name that the guest has chosen may hold these words, in lines of other targets.
            if record.target() == "hesper_venus" && line.contains(" is lost: ") {
                self.0.lock().unwrap().push(line);
            }
        }
    }
    fn flush(&self) {}
}

impl LostLines {
    /// Takes out the lines about a context.
    fn take(&self, context: u32) -> Vec<String> {
        let about = format!("context {context} ");
        self.0
            .lock()
            .unwrap()
            .extract_if(.., |line| line.starts_with(&about))
            .collect()
    }
}

/// How a stream reaches the renderer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// As one batch of the context.
    Virtqueue,
    /// Through a ring.
    Ring,
    /// Through both at the same time: two threads of the renderer use the same objects.
    Both,
}

/// How a stream ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of it was carried out, and the context lives.
    Fine,
    /// The context was lost; why.
    Lost(String),
    /// It waited for something that did not come.
    Waits,
}

impl Outcome {
    /// Why the context was lost. Panics if it was not.
    #[track_caller]
    pub fn reason(&self) -> &str {
        match self {
            Self::Lost(reason) => reason,
            other => panic!("the context is not lost: {other:?}"),
        }
    }
}

/// A guest's context with the two resources.
pub struct Guest {
    pub context: Context,
    events: Receiver<Event>,
    pub replies: Blob,
    pub ring: Blob,
    next_fence: AtomicU64,
}

impl Guest {
    pub fn new(renderer: &Renderer, name: &str) -> Self {
        static CONTEXTS: AtomicU32 = AtomicU32::new(1);
        let (sender, events) = channel();
        let id = CONTEXTS.fetch_add(1, Ordering::Relaxed);
        let events_of = Arc::new(Events(Mutex::new(sender)));
        let context = renderer
            .create_context(id, name, DisplayServer::Unknown, events_of)
            .unwrap();
        let resource = |resource, size| {
            let request = BlobRequest {
                blob_id: 0,
                size,
                mappable: true,
                shareable: false,
                cross_device: false,
            };
            context.create_blob(resource, request);
            match events.recv_timeout(PATIENCE) {
                Ok(Event::Blob(Ok(blob))) => blob,
                other => panic!("{other:?} instead of a blob"),
            }
        };
        let replies = resource(REPLY_RESOURCE, REPLIES as u64);
        let ring = resource(RING_RESOURCE, (RING_BUFFER + RING_SIZE) as u64);
        Self {
            context,
            events,
            replies,
            ring,
            next_fence: AtomicU64::new(1),
        }
    }

    /// Makes a fence, and waits for it or for the loss of the context.
    pub fn settle(&self, ring: u8, patience: Duration) -> Outcome {
        let fence = self.next_fence.fetch_add(1, Ordering::Relaxed);
        self.context.fence(ring, fence);
        let mut outcome = Outcome::Fine;
        loop {
            match self.events.recv_timeout(patience) {
                Ok(Event::Fence(r, f)) if (r, f) == (ring, fence) => return outcome,
                Ok(Event::Lost(reason)) => {
                    assert!(
                        outcome == Outcome::Fine,
                        "lost twice: {outcome:?}, {reason}"
                    );
                    outcome = Outcome::Lost(reason);
                }
                Ok(_) => {}
                Err(RecvTimeoutError::Timeout) => return Outcome::Waits,
                Err(RecvTimeoutError::Disconnected) => panic!("a live context lost its events"),
            }
        }
    }

    /// Writes commands into the ring and makes it, so the renderer starts at once.
    pub fn ring(&self, stream: &[u8]) {
        use hesper_venus_protocol::{command, vk};
        let stream = &stream[..stream.len().min(RING_SIZE)];
        self.ring.memory.write(RING_BUFFER, stream).unwrap();
        let tail = stream.len() as u32;
        self.ring.memory.write(64, &tail.to_le_bytes()).unwrap();
        let mut info = vk::RingCreateInfoMESA {
            resource_id: RING_RESOURCE,
            size: RING_BUFFER + RING_SIZE,
            idle_timeout: 1_000_000,
            head_offset: 0,
            tail_offset: 64,
            status_offset: 128,
            buffer_offset: RING_BUFFER,
            buffer_size: RING_SIZE,
            extra_offset: 256,
            extra_size: 64,
            ..Default::default()
        };
        let mut session = Session::default();
        session.push(
            &command::CreateRingMESA {
                ring: 1,
                p_create_info: &mut info,
            },
            false,
        );
        self.context.submit(session.stream);
    }

    /// Waits until the ring has consumed `length` bytes or failed. False when it does neither.
    pub fn ring_settles(&self, length: usize) -> bool {
        let word = |offset| {
            self.ring
                .memory
                .word(offset)
                .unwrap()
                .load(Ordering::Acquire)
        };
        let end = Instant::now() + WAITING;
        let goal = length.min(RING_SIZE) as u32;
        while word(0) != goal && word(128) & 2 == 0 {
            if Instant::now() > end {
                return false;
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        true
    }
}

/// A renderer, and a witness context on it that must see nothing of what others do.
pub struct Bench {
    // Dropped before the renderer that waits for it.
    witness: Guest,
    renderer: Settled,
    at_rest: hesper_venus::Counters,
}

impl Bench {
    pub fn new(driver: Driver) -> Self {
        static LOGGER: Once = Once::new();
        LOGGER.call_once(|| {
            // A program that embeds this may have a logger of its own.
            if log::set_logger(&LINES).is_ok() {
                log::set_max_level(log::LevelFilter::Debug);
            }
        });
        let options = RendererOptions {
            driver,
            budget: hesper_venus::Budget {
                // Mutated sizes ask for much memory. What is beyond this is refused, which is a
                // case, too.
                shared_bytes: 256 << 20,
                ..Default::default()
            },
            ..Default::default()
        };
        let renderer = Settled::new(options);
        let witness = Guest::new(&renderer, "witness");
        witness.context.submit(Session::whole().stream);
        assert_eq!(witness.settle(1, PATIENCE), Outcome::Fine);
        let at_rest = renderer.counters();
        assert!(at_rest.objects > 15, "{at_rest:?}");
        Self {
            witness,
            renderer,
            at_rest,
        }
    }

    /// A new context. The caller drops it and calls [`Bench::rests`].
    pub fn guest(&self) -> Guest {
        Guest::new(&self.renderer, "hostile")
    }

    /// Feeds a stream to a new context.
    pub fn run(&self, stream: &[u8], way: Way) -> Outcome {
        let guest = self.guest();
        if way != Way::Virtqueue {
            guest.ring(stream);
        }
        let is_done = if way == Way::Ring {
            // The ring is made before the context ends.
            let made = guest.settle(0, PATIENCE);
            if made != Outcome::Fine {
                return self.ended(guest, made);
            }
            guest.ring_settles(stream.len())
        } else {
            guest.context.submit(stream.to_vec());
            way == Way::Virtqueue || guest.ring_settles(stream.len())
        };
        let mut outcome = guest.settle(0, WAITING);
        if outcome == Outcome::Fine && !is_done {
            outcome = Outcome::Waits;
        }
        self.ended(guest, outcome)
    }

    /// Drops the guest, and checks everything that must hold then.
    pub fn ended(&self, guest: Guest, outcome: Outcome) -> Outcome {
        let id = guest.context.id();
        let Guest {
            context,
            events,
            replies,
            ring,
            ..
        } = guest;
        drop((context, replies, ring));
        // Another thread may have lost it meanwhile, or what it still had to do.
        let mut reasons: Vec<String> = match &outcome {
            Outcome::Lost(reason) => vec![reason.clone()],
            _ => Vec::new(),
        };
        let end = Instant::now() + PATIENCE;
        loop {
            match events.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(Event::Lost(reason)) => reasons.push(reason),
                Ok(_) => {}
                // The context is gone, and its events with it.
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => panic!("a dropped context does not end"),
            }
        }
        self.rests();
        assert!(reasons.len() <= 1, "lost more than once: {reasons:?}");
        for reason in &reasons {
            assert!(!reason.contains("panicked"), "{reason}");
        }
        let lines = LINES.take(id);
        assert_eq!(lines.len(), reasons.len(), "{lines:?} for {reasons:?}");
        assert_eq!(self.witness.settle(1, PATIENCE), Outcome::Fine);
        reasons.pop().map_or(outcome, Outcome::Lost)
    }

    /// Waits until nothing is left but the witness.
    pub fn rests(&self) {
        let end = Instant::now() + PATIENCE;
        loop {
            let now = self.renderer.counters();
            let rest = &self.at_rest;
            if (now.contexts, now.rings, now.objects) == (1, 0, rest.objects)
                && now.shared_bytes == rest.shared_bytes
            {
                return;
            }
            assert!(Instant::now() < end, "left behind: {now:?}, not {rest:?}");
            std::thread::yield_now();
        }
    }
}

/// The null driver, which is built with the tests as one of their dependencies.
pub fn null_driver() -> Driver {
    Driver::Library(null::library())
}
