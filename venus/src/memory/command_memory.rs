//! [`CommandMemory`]: how much of the host's memory the large commands of a context may hold at one
//! time.
//!
//! Each thread of a context may hold a little without a charge: a piece of a stream, and an arena
//! of the usual size. What a command needs beyond that is its private copy and what it decodes to.
//! It is charged before it is taken, and given back when the command is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use hesper_venus_protocol::runtime::Meter;

/// A limit in bytes, and what is used of it.
#[derive(Debug)]
pub(crate) struct CommandMemory {
    limit: u64,
    used: AtomicU64,
}

/// Bytes taken, given back on drop.
#[derive(Debug)]
pub(crate) struct CommandCharge {
    memory: Arc<CommandMemory>,
    bytes: u64,
}

impl CommandMemory {
    /// A limit of which nothing is used.
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            limit,
            used: AtomicU64::new(0),
        }
    }

    /// Takes `bytes`. `None` when less is left.
    pub(crate) fn charge(self: &Arc<Self>, bytes: u64) -> Option<CommandCharge> {
        self.take(bytes).then(|| CommandCharge {
            memory: Arc::clone(self),
            bytes,
        })
    }
}

impl Meter for CommandMemory {
    fn take(&self, bytes: u64) -> bool {
        let take = |used: u64| used.checked_add(bytes).filter(|sum| *sum <= self.limit);
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn limit(&self) -> u64 {
        self.limit
    }
}

impl Drop for CommandCharge {
    fn drop(&mut self) {
        self.memory.give_back(self.bytes);
    }
}
