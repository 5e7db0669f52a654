//! What the threads of one context share.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use hesper_system::LogLimit;
use hesper_system::budget::Charge;
use hesper_system::sync::Lock;
use hesper_venus_protocol::runtime::Stray;
use hesper_venus_protocol::vk::HandleType;

use super::endings::Endings;
use super::events::ContextEvents;
use super::mailbox::{Mailbox, Message};
use super::resources::Resources;
use crate::bells::Bells;
use crate::blob::{Blob, BlobError, BlobRequest, Caching};
use crate::counters::{SharedTally, add, sub};
use crate::error::Error;
use crate::fatal::Fatal;
use crate::guest_pools::{GuestPools, Shares};
use crate::host::{GpuFacts, Host};
use crate::memory::{
    CommandMemory, GuestMemories, GuestPages, HostMappings, Quota, SharedMemory, Short, page_size,
};
use crate::object::Objects;
use crate::object::freed_memory::{KEPT_FOR, Room};
use crate::object::queue::{BoundQueues, FenceListener, GuestFence};
use crate::options::{Budget, WsiPolicy};
use crate::report::Record;
use crate::ring::{Ring, Rings};
use crate::trace::{Lane, Span, Trace, Track};

/// Limits the log lines about lost contexts. All contexts of the process share it.
static LOST_CONTEXTS: LogLimit = LogLimit::new("hesper_venus");

/// Limits the log lines about calls that fail for a reason that their result does not tell.
static REFUSALS: LogLimit = LogLimit::new("hesper_venus");

/// A context's name as it stands in logs: at most 64 characters, without the control characters of
/// a guest, which would garble the log.
#[must_use]
pub fn name_for_logs(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

/// What all contexts of a renderer have in common.
#[derive(Clone)]
pub(crate) struct Shared {
    /// The host's Vulkan.
    pub(crate) host: Arc<Host>,
    /// The GPUs that guests see.
    pub(crate) gpus: Arc<[Arc<GpuFacts>]>,
    /// How pictures are presented.
    pub(crate) wsi: WsiPolicy,
    /// What one context may take.
    pub(crate) budget: Budget,
    /// What all contexts may take together.
    pub(crate) pools: Arc<GuestPools>,
    /// The contexts that end.
    pub(crate) endings: Arc<Endings>,
    /// See [`crate::RendererOptions::blob_alignment`].
    pub(crate) blob_alignment: u64,
    /// See [`crate::RendererOptions::window`].
    pub(crate) window: Option<u64>,
    /// See [`crate::GuestBudget::device_memory`].
    pub(crate) device_memory: Option<u64>,
    /// See [`crate::RendererOptions::save_streams`].
    pub(crate) save_streams: Option<Arc<Path>>,
    /// Where it is written what is counted and done.
    pub(crate) record: Arc<Record>,
    /// What is counted.
    pub(crate) tally: SharedTally,
    /// See [`crate::RendererOptions::trace`].
    pub(crate) trace: Option<Trace>,
    /// Where another process can wake the threads of rings.
    pub(crate) bells: Option<Bells>,
    /// Guest memory that contexts name.
    pub(crate) guest_memories: Arc<GuestMemories>,
    /// Counts all mappings that contexts make, by themselves or through the driver.
    pub(crate) host_mappings: Arc<HostMappings>,
    /// Held by every context and its threads. Must be the last field: it is dropped after
    /// everything that uses the driver.
    pub(crate) presence: Arc<()>,
}

/// What the context's thread, its rings and its front end share.
pub(crate) struct ContextState {
    /// The front end's id.
    pub(crate) id: u32,
    /// The guest's name for it, for logs; untrusted.
    name: String,
    events: Arc<dyn ContextEvents>,
    /// The calls that wait for the context's thread.
    pub(crate) mailbox: Mailbox,
    /// What it may take of the guest's pools.
    pub(crate) shares: Shares,
    quota: Quota,
    /// What large commands may hold.
    pub(crate) command_memory: Arc<CommandMemory>,
    /// The resources that the guest may name.
    pub(crate) resources: Resources,
    /// The guest's Vulkan objects.
    pub(crate) objects: Objects,
    /// The guest's rings.
    pub(crate) rings: Rings,
    /// What its devices keep of freed memory.
    pub(crate) freed_room: Arc<Room>,
    /// The queues behind the guest's ring indices.
    pub(crate) queues: BoundQueues,
    lost: OnceLock<String>,
    warned_of_memory: AtomicBool,
    warned_of_strays: AtomicBool,
    stopping: AtomicBool,
    /// What its own thread records, and what is recorded of its fences.
    pub(crate) lane: Lane,
    /// Its number among [`Endings`].
    number: u64,
    /// One of the guest's contexts, and the context's own thread. Held until the last thread has
    /// ended.
    _place: (Charge, Charge),
    /// Dropped last.
    shared: Shared,
}

impl std::ops::Deref for ContextState {
    type Target = Shared;
    fn deref(&self) -> &Shared {
        &self.shared
    }
}

impl ContextState {
    /// A context that has nothing yet.
    ///
    /// # Errors
    /// [`Error::TooManyContexts`] and [`Error::TooManyThreads`] when the guest may have no more.
    pub(crate) fn new(
        id: u32,
        name: &str,
        events: Arc<dyn ContextEvents>,
        shared: Shared,
    ) -> Result<Self, Error> {
        let budget = shared.budget;
        let tally = shared.tally.clone();
        let place = shared.pools.context();
        let place = place.ok_or(Error::TooManyContexts(shared.pools.most_contexts()))?;
        let shares = shared.pools.shares(&budget);
        let thread = shares.thread().ok_or(Error::TooManyThreads)?;
        add(&tally.contexts, 1);
        let name = name_for_logs(name);
        if let Some(trace) = &shared.trace {
            trace.name(id, &name);
        }
        Ok(Self {
            id,
            name,
            lane: Lane::new(shared.trace.as_ref(), id, Track::Thread),
            rings: Rings::new(Arc::clone(&events)),
            events,
            mailbox: Mailbox::new(Arc::clone(&shares.queued), budget.queued_bytes),
            quota: Quota::new(&shares.shared_bytes, &shares.pieces, tally.clone()),
            command_memory: Arc::new(CommandMemory::new(&shares.command_bytes)),
            resources: Resources::default(),
            freed_room: Arc::new(Room::new(tally.clone())),
            objects: Objects::new(budget.objects, &shares.objects, tally),
            shares,
            queues: BoundQueues::new(),
            lost: OnceLock::new(),
            warned_of_memory: AtomicBool::new(false),
            warned_of_strays: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            number: shared.endings.number(),
            _place: (place, thread),
            shared,
        })
    }

    /// Ends the context for a violation: one log line, one event. Everything after it is refused.
    pub(crate) fn fail(&self, fatal: Fatal) {
        if fatal != Fatal::Ended {
            self.lose(|| fatal.to_string());
        }
    }

    /// As [`Self::fail`], for the command at byte `begin` of its batch.
    pub(crate) fn fail_at(&self, fatal: Fatal, begin: usize) {
        if fatal != Fatal::Ended {
            self.lose(|| format!("{fatal} (the command at byte {begin})"));
        }
    }

    /// Logs why a call failed, for the guest's user: the result that the guest gets does not tell.
    pub(crate) fn complain(&self, what: std::fmt::Arguments<'_>) {
        let (id, name) = (self.id, &self.name);
        REFUSALS.log(
            log::Level::Warn,
            format_args!("context {id} \"{name}\": {what}"),
        );
    }

    /// Logs once that memory is refused. A guest that is out of memory asks again and again.
    pub(crate) fn warn_of_memory(&self, error: &dyn std::fmt::Display) {
        if !self.warned_of_memory.swap(true, Ordering::Relaxed) {
            log::warn!(
                "context {} \"{}\" gets no memory: {error}; logged once",
                self.id,
                self.name
            );
        }
    }

    /// Counts values of enums that Vulkan does not have, and logs the first.
    #[cold]
    pub(crate) fn note_strays(&self, first: Stray, count: u64) {
        add(&self.tally.strays, count);
        if !self.warned_of_strays.swap(true, Ordering::Relaxed) {
            self.complain(format_args!(
                "{first}; this is a fault of the program, and more of the kind are only counted"
            ));
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
            LOST_CONTEXTS.log(
                log::Level::Error,
                format_args!("context {id} \"{name}\" is lost: {reason}"),
            );
            // The guest must see it in its rings before any answer reaches it.
            self.rings.fail();
            self.stopping.store(true, Ordering::Release);
            add(&self.tally.lost, 1);
            self.begins_to_end();
            self.events.lost(reason);
            // The context's thread frees what the guest made.
            self.mailbox.force(Message::Lost);
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
        self.begins_to_end();
        self.mailbox.force(Message::Stop);
    }

    fn begins_to_end(&self) {
        self.endings.begin(self.number, || {
            format!("context {} \"{}\"", self.id, self.name)
        });
    }

    /// Everything that the guest made is destroyed.
    pub(crate) fn has_ended(&self) {
        self.endings.finish(self.number);
    }

    /// Whether the context ends or is lost: nothing more is carried out.
    #[inline]
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Acquire)
    }

    /// Loses the context, and lets its threads carry out commands nevertheless.
    #[cfg(test)]
    pub(crate) fn lose_and_go_on_for_tests(&self) {
        self.fail(Fatal::Panic);
        // Only the first loss ends the threads.
        self.stopping.store(false, Ordering::Release);
    }

    /// Set when the context ends or is lost. Waits look at it.
    pub(crate) fn stop_flag(&self) -> &AtomicBool {
        &self.stopping
    }

    /// Retires all open fences in their order. Later ones retire at once.
    pub(crate) fn close_queues(&self) {
        for device in self.objects.devices() {
            device.close_queues(self);
        }
    }

    /// Destroys everything the guest made. All other threads of the context have ended.
    pub(crate) fn clear(&self) {
        // The driver may not return from destroying one device, and the fences of all must retire.
        self.close_queues();
        self.queues.clear();
        self.objects.clear();
        self.resources.clear();
    }

    /// Wakes a ring, if there is one with this id.
    pub(crate) fn notify_by_id(&self, ring: u64) -> bool {
        let found = self.rings.get(ring);
        found.map(|ring| self.notify(&ring)).is_ok()
    }

    /// Whether a ring has consumed everything up to `seqno`. False when there is no such ring.
    pub(crate) fn has_reached(&self, ring: u64, seqno: u64) -> bool {
        // Positions of a ring are 32 bits wide and wrap; the command has 64 bits.
        self.rings
            .get(ring)
            .is_ok_and(|ring| ring.has_reached(seqno as u32))
    }

    /// Lets a ring pass its waits for the virtqueue up to `seqno`. False when there is no such
    /// ring.
    pub(crate) fn submit_virtqueue(&self, ring: u64, seqno: u64) -> bool {
        let found = self.rings.get(ring);
        found.map(|ring| ring.submit_virtqueue(seqno)).is_ok()
    }

    /// Wakes a ring.
    pub(crate) fn notify(&self, ring: &Ring) {
        add(&self.tally.wakes, 1);
        ring.notify();
    }

    /// Attaches memory of the guest's own.
    pub(crate) fn attach_guest(&self, resource: u32, pages: &[GuestPages]) -> Result<(), Error> {
        if !self.is_stopping() {
            let memory = self.guest_memories.attach(pages)?;
            self.resources.attach_guest(resource, memory);
        }
        Ok(())
    }

    /// Makes a fence that retires when everything before it is done.
    pub(crate) fn fence(self: &Arc<Self>, fence: GuestFence) {
        fence.end_step(&self.lane, fence.sent, Span::FenceQueued);
        let queue = self.queues.get(fence.ring);
        match queue.filter(|_| self.lost().is_none()) {
            Some(queue) => queue.fence(self, fence),
            // Ring index 0, or one without a queue.
            None => self.retire(fence),
        }
    }

    /// Destroys the freed memory that is kept for the next allocations. False when there is none.
    pub(crate) fn release_freed(&self) -> bool {
        self.release_freed_before(None)
    }

    /// The same for memory that nobody has wanted for [`KEPT_FOR`].
    pub(crate) fn release_old_freed(&self) {
        if let Some(until) = Instant::now().checked_sub(KEPT_FOR) {
            self.release_freed_before(Some(until));
        }
    }

    fn release_freed_before(&self, until: Option<Instant>) -> bool {
        if self.freed_room.is_empty() {
            return false;
        }
        let devices = self.objects.devices();
        let released = devices.iter().map(|device| device.release_freed(until));
        released.fold(false, |any, one| any | one)
    }

    /// Bytes of the window through which guests map memory that are taken or will be. Memory that
    /// is kept goes as soon as it is in the way.
    pub(crate) fn taken_of_window(&self) -> u64 {
        let kept = self.freed_room.bytes();
        self.taken_with_kept().saturating_sub(kept)
    }

    fn taken_with_kept(&self) -> u64 {
        match self.window {
            // Other processes have parts of it, too.
            Some(window) if self.pools.are_granted() => {
                window.saturating_sub(self.shares.shared_bytes.left())
            }
            _ => self.tally.shared_bytes.load(Ordering::Relaxed),
        }
    }

    /// Fresh shared memory within the context's budget.
    pub(crate) fn shared_memory(&self, size: u64, alignment: u64) -> Result<SharedMemory, Error> {
        let short = |short| match short {
            Short::Bytes => Error::SharedMemory {
                action: "creation within the context's budget",
                size,
                source: std::io::ErrorKind::QuotaExceeded.into(),
            },
            Short::Pieces => Error::TooManyPieces,
        };
        // Pages are whole.
        let pages = size.max(1).checked_next_multiple_of(page_size());
        let charge = pages
            .ok_or(Short::Bytes)
            .and_then(|size| self.quota.charge(size));
        let charge = charge.map_err(short)?;
        if !self.host_mappings.make(1) {
            return Err(Error::TooManyMappings);
        }
        SharedMemory::create_charged(size, alignment, charge)
    }

    /// Makes a blob and reports it.
    pub(crate) fn create_blob(&self, resource: u32, request: BlobRequest) {
        let result = match self.lost() {
            Some(reason) => Err(BlobError::Lost(reason.to_owned())),
            // The front end has been told that the context is gone.
            None if self.stopping.load(Ordering::Acquire) => {
                Err(BlobError::Lost("it ends".to_owned()))
            }
            None if request.blob_id == 0 => self.plain_blob(request.size),
            None => self.memory_blob(&request),
        };
        match &result {
            // Attach it before anybody hears of it: the guest may use it in a ring at once.
            Ok(blob) => self.resources.attach(resource, blob.clone()),
            // The front end warns, and limits how often a guest can cause that.
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

impl Drop for ContextState {
    fn drop(&mut self) {
        self.has_ended();
        sub(&self.tally.contexts, 1);
        if let Some(trace) = &self.trace {
            trace.has_ended(self.id);
        }
    }
}

impl FenceListener for ContextState {
    fn context_id(&self) -> u32 {
        self.id
    }

    fn thread(&self) -> Option<Charge> {
        self.shares.thread()
    }

    fn lane(&self) -> &Lane {
        &self.lane
    }

    fn retire(&self, fence: GuestFence) {
        add(&self.tally.fences, 1);
        self.events.fence_retired(fence.ring, fence.id);
        fence.end_step(&self.lane, fence.sent, Span::Fence);
    }
}
