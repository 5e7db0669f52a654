//! What the threads of one cross-domain context share: its open fences, and whether it still lives.
//!
//! Three threads report here: the device's, the instance's own, and the library's worker, which waits for the compositor. The
//! library does not say when its worker gives up, so [`Shared::watch`] leaves something in that thread which says so when the
//! thread ends.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use hesper_vhost::renderer::{Blob, Completions, ContextId, RendererError, ResourceId};
use rutabaga_gfx::{RutabagaFence, RutabagaFenceHandler, RutabagaHandler};

use super::ring::Ring;
use crate::rutabaga::LOST_CONTEXTS;
use crate::rutabaga::backlog::Backlog;

/// The ring whose fences retire when the host has a message for the guest.
pub(super) const CHANNEL_RING: u8 = 1;

/// Bytes of all blobs that a context has made.
const BLOBS: u64 = 1 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Something went wrong.
    Lost,
    /// The guest is done with it.
    Ended,
}

struct State {
    phase: Phase,
    /// The fences of each ring, oldest first.
    open: BTreeMap<u8, VecDeque<u64>>,
    channel: Option<Arc<Ring>>,
}

/// See the module.
pub(super) struct Shared {
    pub(super) id: ContextId,
    name: String,
    completions: Arc<dyn Completions>,
    state: Mutex<State>,
    /// What waits for a compositor that does not read.
    pub(super) backlog: Backlog,
    blobs: AtomicU64,
}

impl Shared {
    pub(super) fn new(id: ContextId, name: &str, completions: Arc<dyn Completions>) -> Arc<Self> {
        Arc::new(Self {
            id,
            name: name.to_owned(),
            completions,
            state: Mutex::new(State {
                phase: Phase::Running,
                open: BTreeMap::new(),
                channel: None,
            }),
            backlog: Backlog::default(),
            blobs: AtomicU64::new(0),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_running(&self) -> bool {
        self.state().phase == Phase::Running
    }

    /// Notes a new fence. Says whether the context will retire it; else it is retired.
    pub(super) fn open(&self, ring: u8, fence: u64) -> bool {
        {
            let mut state = self.state();
            if state.phase == Phase::Running {
                state.open.entry(ring).or_default().push_back(fence);
                return true;
            }
        }
        self.completions.fence_retired(self.id, ring, fence);
        false
    }

    /// Retires a fence and those before it on its ring, unless that is done.
    pub(super) fn retire(&self, ring: u8, fence: u64) {
        let found = {
            let mut state = self.state();
            let open = state.open.get_mut(&ring);
            open.is_some_and(|open| {
                let index = open.iter().position(|one| *one == fence);
                index.is_some_and(|index| open.drain(..=index).count() > 0)
            })
        };
        if found {
            self.completions.fence_retired(self.id, ring, fence);
        }
    }

    /// The context breaks; what waits for it waits no more.
    pub(super) fn lose(&self, reason: &str) {
        if self.stop(Phase::Lost) {
            LOST_CONTEXTS.warn(format_args!(
                "cross-domain context {} ({:?}) is lost: {reason}",
                self.id, self.name
            ));
        }
    }

    /// The guest does not want the context any more.
    pub(super) fn end(&self) {
        self.stop(Phase::Ended);
    }

    fn stop(&self, phase: Phase) -> bool {
        let open = {
            let mut state = self.state();
            if state.phase != Phase::Running {
                return false;
            }
            state.phase = phase;
            state.channel = None;
            std::mem::take(&mut state.open)
        };
        for (ring, fences) in open {
            for fence in fences {
                self.completions.fence_retired(self.id, ring, fence);
            }
        }
        true
    }

    pub(super) fn answer_blob(&self, resource: ResourceId, result: Result<Blob, RendererError>) {
        self.completions.blob_created(self.id, resource, result);
    }

    pub(super) fn lost_error(&self) -> RendererError {
        RendererError::ContextLost(format!("cross-domain context {}", self.id))
    }

    /// Takes room for a message; the context is lost when there is none.
    pub(super) fn take_room(&self, bytes: usize) {
        if !self.backlog.add(bytes) {
            self.lose("more than 64 MiB wait for it; its compositor does not read");
        }
    }

    /// Takes `bytes` of the blobs' budget.
    pub(super) fn take_memory(&self, bytes: u64) -> Result<(), RendererError> {
        let taken = self
            .blobs
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                taken.checked_add(bytes).filter(|sum| *sum <= BLOBS)
            });
        taken.map(|_| ()).map_err(|taken| {
            RendererError::OutOfMemory(format!(
                "{bytes} bytes for a blob, of {BLOBS} for a context's blobs {taken} are taken"
            ))
        })
    }

    pub(super) fn give_memory(&self, bytes: u64) {
        self.blobs.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The ring in which the compositor's messages arrive.
    pub(super) fn set_channel(&self, ring: Arc<Ring>) {
        self.state().channel = Some(ring);
    }

    /// What the library calls when a fence retires.
    pub(super) fn fence_handler(self: &Arc<Self>) -> RutabagaFenceHandler {
        let shared = Arc::clone(self);
        RutabagaHandler::new(move |fence: RutabagaFence| {
            if fence.ring_idx == CHANNEL_RING {
                shared.watch();
                let ring = shared.state().channel.clone();
                if let Some(ring) = ring {
                    // SAFETY: the library retires a fence of this ring only in its worker's thread, the one that writes
                    // into the channel's ring, when it has written.
                    unsafe { ring.deliver() };
                }
            }
            shared.retire(fence.ring_idx, fence.fence_id);
        })
    }

    /// Notices the end of this thread, the library's worker.
    fn watch(self: &Arc<Self>) {
        WATCH.with_borrow_mut(|watch| {
            watch.get_or_insert_with(|| Watch(Arc::downgrade(self)));
        });
    }
}

/// Left in the library's worker.
struct Watch(Weak<Shared>);

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared.lose("rutabaga_gfx gave up the connection to the compositor");
        }
    }
}

thread_local! {
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}
