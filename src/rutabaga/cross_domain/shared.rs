//! What the threads of one cross-domain context share.
//!
//! Three threads report here: the device's, the context's own, and the library's worker, which
//! waits for the compositor. The library does not report that its worker has given up. So
//! [`Shared::watch`] leaves a guard in that thread, which reports when the thread ends.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use hesper_system::sync::Lock;
use hesper_vhost::renderer::{Completions, ContextId, RendererError};
use rutabaga_gfx::{RutabagaFence, RutabagaFenceHandler, RutabagaHandler};

use super::ring::Ring;
use crate::rutabaga::life::{Kind, Life};

/// The ring whose fences retire when the host has a message for the guest.
pub(super) const CHANNEL_RING: u8 = 1;

/// The largest size of all of a context's blobs together, in bytes.
const BLOBS: u64 = 1 << 30;

static KIND: Kind = Kind {
    name: "cross-domain",
    overflow: "more than 64 MiB wait for it; its compositor does not read",
};

/// What the threads of one cross-domain context share.
pub(super) struct Shared {
    /// Its open fences, and whether it still runs.
    pub(super) life: Life,
    /// The ring in which the compositor's messages arrive.
    channel: Mutex<Option<Arc<Ring>>>,
    /// The bytes of its blobs.
    pub(super) blobs: Arc<BlobBytes>,
}

/// Counts the bytes of a context's blobs, up to [`BLOBS`].
#[derive(Default)]
pub(super) struct BlobBytes(AtomicU64);

impl BlobBytes {
    /// Takes `bytes` from the budget.
    pub(super) fn take(&self, bytes: u64) -> Result<(), RendererError> {
        let taken = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| {
                taken.checked_add(bytes).filter(|sum| *sum <= BLOBS)
            });
        taken.map(|_| ()).map_err(|taken| {
            RendererError::OutOfMemory(format!(
                "{bytes} bytes for a blob: {taken} of the {BLOBS} bytes for a context's blobs are in use"
            ))
        })
    }

    /// Returns `bytes` to the budget.
    pub(super) fn give_back(&self, bytes: u64) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

impl Shared {
    /// The shared state of a new context. `slot` is held until all its threads have ended.
    pub(super) fn new(
        id: ContextId,
        name: &str,
        completions: Arc<dyn Completions>,
        slot: Arc<()>,
    ) -> Arc<Self> {
        Arc::new(Self {
            life: Life::new(&KIND, id, name, completions, slot),
            channel: Mutex::default(),
            blobs: Arc::default(),
        })
    }

    fn channel(&self) -> MutexGuard<'_, Option<Arc<Ring>>> {
        self.channel.locked()
    }

    /// Sets the ring in which the compositor's messages arrive.
    pub(super) fn set_channel(&self, ring: Arc<Ring>) {
        *self.channel() = Some(ring);
    }

    /// The handler that the library calls when a fence retires.
    pub(super) fn fence_handler(self: &Arc<Self>) -> RutabagaFenceHandler {
        let shared = Arc::clone(self);
        RutabagaHandler::new(move |fence: RutabagaFence| {
            if fence.ring_idx == CHANNEL_RING {
                shared.watch();
                let ring = shared.channel().clone();
                if let Some(ring) = ring.filter(|_| shared.life.is_running()) {
                    // SAFETY: the library retires a fence of this ring only in its worker thread.
                    // That thread alone writes to the channel ring, and it has finished its write.
                    unsafe { ring.deliver() };
                }
            }
            shared.life.retire(fence.ring_idx, fence.fence_id);
        })
    }

    /// Leaves a guard in this thread, the library's worker, that reports the thread's end.
    fn watch(self: &Arc<Self>) {
        WATCH.with_borrow_mut(|watch| {
            watch.get_or_insert_with(|| Watch(Arc::downgrade(self)));
        });
    }
}

/// The guard in the library's worker thread.
struct Watch(Weak<Shared>);

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(shared) = self.0.upgrade() {
            shared
                .life
                .lose("rutabaga_gfx gave up the connection to the compositor");
        }
    }
}

thread_local! {
    static WATCH: RefCell<Option<Watch>> = const { RefCell::new(None) };
}
