//! [`Pools`]: the descriptor and command pools of a device, and what was allocated from them.
//!
//! Vulkan allows one user of a pool at a time, and drivers rely on it. So a pool is locked while
//! its driver is called, together with the table of objects: what the driver has freed has no id,
//! and what has an id is not freed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use hesper_system::sync::Lock;

/// The pools of a device, by the driver's handles. A pool without an entry has no children yet.
#[derive(Default)]
pub(crate) struct Pools(Mutex<HashMap<u64, Arc<Mutex<Pool>>>>);

/// A pool.
#[derive(Default)]
pub(crate) struct Pool {
    /// The guest's ids of what was allocated from it.
    pub(crate) children: HashSet<u64>,
    /// Who may use it.
    pub(crate) state: PoolState,
}

/// Who may use a pool.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum PoolState {
    /// Whoever locks it.
    #[default]
    Free,
    /// A thread that waits until others do not use its children any more.
    Busy,
    /// Nobody: it is about to be destroyed.
    Destroyed,
}

impl Pools {
    /// The pool with this handle.
    pub(crate) fn get(&self, pool: u64) -> Arc<Mutex<Pool>> {
        Arc::clone(self.0.locked().entry(pool).or_default())
    }

    /// Forgets a pool that is about to be destroyed.
    pub(crate) fn remove(&self, pool: u64) {
        self.0.locked().remove(&pool);
    }
}
