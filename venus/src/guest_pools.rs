//! [`GuestPools`]: what all contexts of a renderer may take of the host together. [`Shares`] are a
//! context's parts of it.

use std::sync::Arc;

use hesper_system::budget::{Charge, Pool};
use hesper_system::share::Share;

use crate::grants::{GrantedResource, Grants, Resource};
use crate::options::{Budget, GuestBudget};

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
    /// Whether another process keeps the budgets.
    are_granted: bool,
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
    /// can have. Everything else is asked of `grants`, if there are any, and limited by `guest`
    /// otherwise.
    pub(crate) fn new(
        guest: &GuestBudget,
        pieces: usize,
        grants: Option<&Arc<dyn Grants>>,
    ) -> Self {
        let pool = |what| match grants {
            Some(grants) if guest.most(what) < u64::MAX => {
                Pool::from_source(GrantedResource::new(grants, what))
            }
            // Nobody counts what has no limit.
            _ => Pool::new(guest.most(what)),
        };
        Self {
            contexts: Pool::new(guest.contexts as u64),
            threads: pool(Resource::Threads),
            objects: pool(Resource::Objects),
            queued: pool(Resource::Calls),
            command_bytes: pool(Resource::CommandBytes),
            shared_bytes: pool(Resource::SharedBytes),
            pieces: Pool::new(pieces as u64),
            device_memory: pool(Resource::DeviceMemory),
            are_granted: grants.is_some(),
        }
    }

    /// Whether another process keeps the budgets: others than this renderer's contexts use them,
    /// too.
    pub(crate) fn are_granted(&self) -> bool {
        self.are_granted
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
        let share = |pool, what: Resource| Share::with_own(pool, budget.most(what), what.own());
        Shares {
            objects: share(&self.objects, Resource::Objects),
            queued: share(&self.queued, Resource::Calls),
            command_bytes: share(&self.command_bytes, Resource::CommandBytes),
            shared_bytes: share(&self.shared_bytes, Resource::SharedBytes),
            pieces: Share::new(&self.pieces, u64::MAX),
            device_memory: share(&self.device_memory, Resource::DeviceMemory),
            threads: share(&self.threads, Resource::Threads),
        }
    }
}
