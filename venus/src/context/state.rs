//! What the threads of one context share.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Instant;

use hesper_venus_protocol::vk::HandleType;

use crate::context::{Blob, BlobError, BlobRequest, Caching, ContextEvents};
use crate::counters::{Tally, add, sub};
use crate::emulate::Policy;
use crate::error::Error;
use crate::fatal::Fatal;
use crate::host::{GpuFacts, Host};
use crate::log_limit::{LOST_CONTEXTS, REFUSALS};
use crate::memory::{
    CommandMemory, GuestPages, HostMappings, Mappings, Quota, SharedMemory, page_size,
};
use crate::object::Objects;
use crate::options::Budget;
use crate::ring::Rings;
use crate::ring::{self, Ring};
use crate::session::{Executor, Handles, Place};
use crate::sync::{Lock, SharedLock};
use crate::timeline::Timelines;

/// What all contexts of a renderer have in common.
#[derive(Clone)]
pub(crate) struct Shared {
    /// The host's Vulkan.
    pub(crate) host: Arc<Host>,
    /// The GPUs that guests see.
    pub(crate) gpus: Arc<[Arc<GpuFacts>]>,
    /// What is emulated.
    pub(crate) policy: Policy,
    /// What one context may take.
    pub(crate) budget: Budget,
    /// See [`crate::RendererOptions::blob_alignment`].
    pub(crate) blob_alignment: u64,
    /// See [`crate::RendererOptions::window`].
    pub(crate) window: Option<u64>,
    /// See [`crate::RendererOptions::save_streams`].
    pub(crate) save_streams: Option<Arc<Path>>,
    /// What is counted.
    pub(crate) tally: Arc<Tally>,
    /// For guest memory that contexts name.
    pub(crate) mappings: Arc<Mappings>,
    /// All mappings that contexts make, by themselves or through the driver.
    pub(crate) host_mappings: Arc<HostMappings>,
    /// Held by every context with its threads. The last field: what it counts has let go of the driver when it goes.
    pub(crate) presence: Arc<()>,
}

/// A resource as it was attached; attaching it again makes another of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Attachment {
    resource: u32,
    serial: u64,
}

/// Shared by the context's thread, its rings and its front end.
pub(crate) struct ContextState {
    /// The front end's id.
    pub(crate) id: u32,
    /// The guest's name for it, for logs; untrusted.
    name: String,
    events: Arc<dyn ContextEvents>,
    shared: Shared,
    quota: Arc<Quota>,
    /// What large commands may hold.
    pub(crate) command_memory: Arc<CommandMemory>,
    resources: RwLock<HashMap<u32, (u64, Blob)>>,
    attachments: AtomicU64,
    /// The guest's Vulkan objects.
    pub(crate) objects: Objects,
    /// The guest's rings.
    pub(crate) rings: Rings,
    /// The queues behind the guest's ring indices.
    pub(crate) timelines: Timelines,
    lost: OnceLock<String>,
    warned_of_memory: AtomicBool,
    stopping: AtomicBool,
}

impl std::ops::Deref for ContextState {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl ContextState {
    /// A context that has nothing yet.
    pub(crate) fn new(id: u32, name: &str, events: Arc<dyn ContextEvents>, shared: Shared) -> Self {
        let budget = shared.budget;
        let tally = Arc::clone(&shared.tally);
        add(&tally.contexts, 1);
        Self {
            id,
            // Control characters of the guest's would garble the log.
            name: name.chars().filter(|c| !c.is_control()).take(64).collect(),
            events,
            shared,
            quota: Arc::new(Quota::new(budget.shared_bytes, Arc::clone(&tally))),
            command_memory: Arc::new(CommandMemory::new(budget.command_bytes)),
            resources: RwLock::default(),
            attachments: AtomicU64::new(0),
            objects: Objects::new(budget.objects, tally),
            rings: Rings::default(),
            timelines: Timelines::new(),
            lost: OnceLock::new(),
            warned_of_memory: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }
    }

    /// Ends the context for a violation: one log line, one event, and everything after it is refused.
    pub(crate) fn fail(&self, fatal: Fatal) {
        self.lose(|| fatal.to_string());
    }

    /// As [`Self::fail`], for the command that begins at that byte of its batch.
    pub(crate) fn fail_at(&self, fatal: Fatal, begin: usize) {
        self.lose(|| format!("{fatal} (the command at byte {begin})"));
    }

    /// Says why a call failed, for a guest's user who asks: the result that the guest gets does not tell.
    pub(crate) fn complain(&self, what: std::fmt::Arguments<'_>) {
        let (id, name) = (self.id, &self.name);
        let (level, others) = REFUSALS.line(log::Level::Warn, Instant::now());
        log::log!(level, "context {id} \"{name}\": {what}{others}");
    }

    /// Says once that memory is refused: a guest that is out of it asks again and again.
    pub(crate) fn warn_of_memory(&self, error: &dyn std::fmt::Display) {
        if !self.warned_of_memory.swap(true, Ordering::Relaxed) {
            log::warn!(
                "context {} \"{}\" gets no memory: {error}; said once",
                self.id,
                self.name
            );
        }
    }

    fn lose(&self, why: impl FnOnce() -> String) {
        let mut is_first = false;
        let reason = self.lost.get_or_init(|| {
            is_first = true;
            why()
        });
        if is_first {
            let (id, name) = (self.id, &self.name);
            let (level, others) = LOST_CONTEXTS.line(log::Level::Error, Instant::now());
            log::log!(level, "context {id} \"{name}\" is lost: {reason}{others}");
            // The guest must see it in its rings before anybody can answer it.
            self.rings.fail();
            add(&self.tally.lost, 1);
            self.events.lost(reason);
        }
    }

    /// Why the context is lost, if it is.
    pub(crate) fn lost(&self) -> Option<&str> {
        self.lost.get().map(String::as_str)
    }

    /// Tells all threads of the context to end.
    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        self.rings.stop();
    }

    /// Whether the context ends.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Set when the context ends; waits look at it.
    pub(crate) fn stop_flag(&self) -> &AtomicBool {
        &self.stopping
    }

    /// Destroys everything the guest made. All other threads of the context have ended.
    pub(crate) fn clear(&self) {
        self.timelines.clear();
        self.objects.clear();
        self.resources.writing().clear();
    }

    /// Wakes a ring, if there is one with this id.
    pub(crate) fn notify_by_id(&self, ring: u64) -> bool {
        let found = self.rings.get(ring);
        found.map(|ring| self.notify(&ring)).is_ok()
    }

    /// Whether a ring has consumed everything up to `seqno`; false when there is no such ring.
    pub(crate) fn has_reached(&self, ring: u64, seqno: u64) -> bool {
        // A ring's positions are 32 bits wide and wrap; the command has room for more.
        self.rings
            .get(ring)
            .is_ok_and(|ring| ring.has_reached(seqno as u32))
    }

    /// Lets a ring pass its waits for the virtqueue up to `seqno`; false when there is no such ring.
    pub(crate) fn submit_virtqueue(&self, ring: u64, seqno: u64) -> bool {
        let found = self.rings.get(ring);
        found.map(|ring| ring.submit_virtqueue(seqno)).is_ok()
    }

    /// Wakes a ring.
    pub(crate) fn notify(&self, ring: &Ring) {
        add(&self.tally.wakes, 1);
        ring.notify();
    }

    /// Starts a ring's thread.
    pub(crate) fn start_ring(self: &Arc<Self>, id: u64, ring: Arc<Ring>) -> Result<(), Fatal> {
        let start = || {
            let (state, ring) = (Arc::clone(self), Arc::clone(&ring));
            std::thread::Builder::new()
                .name(format!("venus-{}-ring", state.id))
                .stack_size(RING_STACK)
                .spawn(move || {
                    run_ring(&state, Arc::clone(&ring));
                    state.rings.thread_ended();
                })
        };
        self.rings
            .insert(id, Arc::clone(&ring), self.budget.rings, start)?;
        if self.rings.needs_monitor() {
            let state = Arc::clone(self);
            let name = format!("venus-{}-alive", self.id);
            let started = std::thread::Builder::new()
                .name(name)
                .spawn(move || state.rings.watch());
            started.map_err(|error| Fatal::NoThread {
                rings: 1,
                kind: error.kind(),
            })?;
        }
        Ok(())
    }

    /// Makes a resource known.
    pub(crate) fn attach(&self, resource: u32, blob: Blob) {
        let mut resources = self.resources.writing();
        let serial = self.attachments.fetch_add(1, Ordering::Release);
        resources.insert(resource, (serial, blob));
    }

    /// Lets the guest name memory of its own.
    pub(crate) fn attach_guest(&self, resource: u32, pages: &[GuestPages]) -> Result<(), Error> {
        if !self.host_mappings.make(pages.len()) {
            return Err(too_many_mappings(0));
        }
        let memory = SharedMemory::gather(pages, &self.mappings)?;
        let blob = Blob {
            memory: Arc::new(memory),
            caching: Caching::Cached,
        };
        self.attach(resource, blob);
        Ok(())
    }

    /// Lets go of the guest memory behind these resources.
    pub(crate) fn give_back(&self, is_meant: impl Fn(u32) -> bool) {
        let resources = self.resources.reading();
        for (_, (_, blob)) in resources
            .iter()
            .filter(|(resource, _)| is_meant(**resource))
        {
            blob.memory.give_back();
        }
    }

    /// Changes whenever a resource is attached or detached.
    pub(crate) fn attachments(&self) -> u64 {
        self.attachments.load(Ordering::Acquire)
    }

    /// A resource as it is attached now.
    pub(crate) fn attachment(&self, resource: u32) -> Option<Attachment> {
        let resources = self.resources.reading();
        resources.get(&resource).map(|(serial, _)| Attachment {
            resource,
            serial: *serial,
        })
    }

    /// Forgets a resource, unless it was attached anew since.
    pub(crate) fn detach(&self, attachment: Attachment) {
        let mut resources = self.resources.writing();
        if let Entry::Occupied(entry) = resources.entry(attachment.resource)
            && entry.get().0 == attachment.serial
        {
            self.attachments.fetch_add(1, Ordering::Release);
            entry.remove();
        }
    }

    /// A resource that the guest names.
    pub(crate) fn resource(&self, resource: u32) -> Result<Blob, Fatal> {
        let resources = self.resources.reading();
        let found = resources.get(&resource).map(|(_, blob)| blob.clone());
        found.ok_or(Fatal::NoResource(resource))
    }

    /// Makes a fence that retires when everything before it is done.
    pub(crate) fn fence(self: &Arc<Self>, ring: u8, fence: u64) {
        match self.timelines.queue(ring).filter(|_| self.lost().is_none()) {
            Some(queue) => queue.fence(self, ring, fence),
            // Ring index 0, or one that no queue stands behind (any more).
            None => self.retire(ring, fence),
        }
    }

    /// Reports a fence as signalled.
    pub(crate) fn retire(&self, ring: u8, fence: u64) {
        add(&self.tally.fences, 1);
        self.events.fence_retired(ring, fence);
    }

    /// Fresh shared memory within the context's budget.
    pub(crate) fn shared_memory(&self, size: u64, alignment: u64) -> Result<SharedMemory, Error> {
        let charge = self.quota.charge(size).ok_or_else(|| Error::SharedMemory {
            action: "creation within the context's budget",
            size,
            source: std::io::ErrorKind::OutOfMemory.into(),
        })?;
        if !self.host_mappings.make(1) {
            return Err(too_many_mappings(size));
        }
        SharedMemory::create_charged(size, alignment, charge)
    }

    /// Makes a blob and reports it.
    pub(crate) fn create_blob(&self, resource: u32, request: BlobRequest) {
        let result = match self.lost() {
            Some(reason) => Err(BlobError::Lost(reason.to_owned())),
            // Whoever asked has been told that the context is gone.
            None if self.stopping.load(Ordering::Acquire) => {
                Err(BlobError::Lost("it ends".to_owned()))
            }
            None if request.blob_id == 0 => self.plain_blob(request.size),
            None => self.memory_blob(&request),
        };
        match &result {
            // Before anyone hears of it: the guest may name it in a ring at once.
            Ok(blob) => self.attach(resource, blob.clone()),
            // The front end warns, and limits how often a guest can make it do so.
            Err(error) => log::debug!("context {}, resource {resource}: {error}", self.id),
        }
        self.events.blob_created(resource, result);
    }

    fn plain_blob(&self, size: u64) -> Result<Blob, BlobError> {
        if size == 0 {
            return Err(BlobError::Invalid("size 0".into()));
        }
        let memory = self
            .shared_memory(size, page_size())
            .map_err(|error| BlobError::OutOfMemory(error.to_string()))?;
        Ok(Blob {
            memory: Arc::new(memory),
            caching: Caching::Cached,
        })
    }

    /// The pages of a memory object.
    fn memory_blob(&self, request: &BlobRequest) -> Result<Blob, BlobError> {
        let id = request.blob_id;
        let invalid = |reason: &str| BlobError::Invalid(format!("memory object {id:#x} {reason}"));
        let entry = self.objects.table.view().get(id);
        let entry = entry.filter(|entry| entry.kind == HandleType::DeviceMemory as u32);
        let entry = entry.ok_or_else(|| invalid("does not exist"))?;
        let device = self.objects.device(entry.owner);
        let device = device.ok_or_else(|| invalid("belongs to no device"))?;
        let shared = device
            .memories
            .locked()
            .get(&entry.host)
            .and_then(|memory| memory.shared.clone());
        let memory = shared.ok_or_else(|| invalid("is not of a HOST_VISIBLE type"))?;
        if memory.is_of_guest() {
            return Err(invalid("is the guest's own memory"));
        }
        if request.size > memory.len() as u64 {
            return Err(invalid("is smaller than the blob"));
        }
        Ok(Blob {
            memory,
            caching: Caching::Cached,
        })
    }
}

/// Stack of a ring's thread. The driver's compilers run on it, which natively have that of a program's thread: 8 MiB by default
/// on Linux. Only what was touched costs memory, and a ring that sleeps gives that back.
const RING_STACK: usize = 8 << 20;

/// This process has as many mappings as it may.
fn too_many_mappings(size: u64) -> Error {
    Error::SharedMemory {
        action: "mapping, beyond the mappings of this process (sysctl vm.max_map_count allows more),",
        size,
        source: std::io::ErrorKind::OutOfMemory.into(),
    }
}

/// The thread of a ring.
fn run_ring(state: &Arc<ContextState>, ring: Arc<Ring>) {
    add(&state.tally.rings, 1);
    let handles = Handles::new(&state.objects);
    let place = Place::Ring {
        ring: Arc::clone(&ring),
        head: 0,
    };
    let mut executor = Executor::new(state, &handles, place);
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        ring::run(&ring, &mut executor)
    }));
    if let Err(fatal) = ended.unwrap_or(Err(Fatal::Panic)) {
        state.fail(fatal);
    }
    sub(&state.tally.rings, 1);
}
