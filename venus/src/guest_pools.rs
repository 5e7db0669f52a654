//! [`GuestPools`]: what all contexts of a renderer may take of the host together. [`Shares`] are a
//! context's parts of it.

use std::sync::Arc;

use hesper_system::budget::{Charge, Pool};
use hesper_system::share::Share;

use crate::options::{Budget, GuestBudget};

/// Calls that a context may always have waiting, whatever others do. One whose calls find no place
/// is lost.
const OWN_CALLS: u64 = 256;

/// Threads that a context may always have: its own, a ring's, and those that watch it and a queue.
const OWN_THREADS: u64 = 4;

/// The pools of a guest.
#[derive(Debug)]
pub(crate) struct GuestPools {
    contexts: Arc<Pool>,
    threads: Arc<Pool>,
    objects: Arc<Pool>,
    queued: Arc<Pool>,
    command_bytes: Arc<Pool>,
    shared_bytes: Arc<Pool>,
    /// Pieces of shared memory: each takes a descriptor and a mapping of this process.
    pieces: Arc<Pool>,
    device_memory: Arc<Pool>,
}

/// What one context has of each pool.
#[derive(Debug)]
pub(crate) struct Shares {
    /// Places of objects.
    pub(crate) objects: Arc<Share>,
    /// Calls that wait for the context's thread.
    pub(crate) queued: Arc<Share>,
    /// Bytes for large commands.
    pub(crate) command_bytes: Arc<Share>,
    /// Bytes of shared memory.
    pub(crate) shared_bytes: Arc<Share>,
    /// Pieces of shared memory.
    pub(crate) pieces: Arc<Share>,
    /// Bytes of device memory.
    pub(crate) device_memory: Arc<Share>,
    threads: Arc<Share>,
}

impl Shares {
    /// Takes a thread, until the value is dropped.
    pub(crate) fn thread(&self) -> Option<Charge> {
        self.threads.charge(1)
    }
}

impl GuestPools {
    /// Pools of which nothing is taken. `pieces` is how many pieces of shared memory this process
    /// can have.
    pub(crate) fn new(guest: &GuestBudget, pieces: usize) -> Self {
        Self {
            contexts: Pool::new(guest.contexts as u64),
            threads: Pool::new(guest.threads as u64),
            objects: Pool::new(guest.objects as u64),
            queued: Pool::new(guest.queued as u64),
            command_bytes: Pool::new(guest.command_bytes),
            shared_bytes: Pool::new(guest.shared_bytes),
            pieces: Pool::new(pieces as u64),
            device_memory: Pool::new(guest.device_memory.unwrap_or(u64::MAX)),
        }
    }

    /// Takes a context's place, until the value is dropped.
    pub(crate) fn context(&self) -> Option<Charge> {
        self.contexts.charge(1)
    }

    /// How many contexts there may be.
    pub(crate) fn most_contexts(&self) -> usize {
        self.contexts.limit() as usize
    }

    /// The shares of a new context with this `budget`.
    pub(crate) fn shares(&self, budget: &Budget) -> Shares {
        let unlimited = |pool| Share::new(pool, u64::MAX);
        Shares {
            objects: unlimited(&self.objects),
            queued: Share::with_own(&self.queued, budget.queued as u64, OWN_CALLS),
            command_bytes: Share::new(&self.command_bytes, budget.command_bytes),
            shared_bytes: Share::new(&self.shared_bytes, budget.shared_bytes),
            pieces: unlimited(&self.pieces),
            device_memory: unlimited(&self.device_memory),
            threads: Share::with_own(&self.threads, u64::MAX, OWN_THREADS),
        }
    }
}
