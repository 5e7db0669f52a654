//! [`CommandMemory`]: how much of the host's memory the large commands of a context may hold at one
//! time.
//!
//! Each thread of a context may hold a little without a charge: a piece of a stream, and an arena
//! of the usual size. What a command needs beyond that is its private copy and what it decodes to.
//! It is charged before it is taken, and given back when the command is done.

use std::sync::Arc;

use hesper_system::budget::Charge;
use hesper_system::share::Share;
use hesper_venus_protocol::runtime::Meter;

/// A context's share of the bytes for large commands.
#[derive(Clone, Debug)]
pub(crate) struct CommandMemory(Arc<Share>);

impl CommandMemory {
    /// The memory within this share.
    pub(crate) fn new(share: &Arc<Share>) -> Self {
        Self(Arc::clone(share))
    }

    /// Takes `bytes` until the value is dropped. `None` when less is left.
    pub(crate) fn charge(&self, bytes: u64) -> Option<Charge> {
        self.0.charge(bytes)
    }
}

impl Meter for CommandMemory {
    fn take(&self, bytes: u64) -> bool {
        self.0.take(bytes)
    }

    fn give_back(&self, bytes: u64) {
        self.0.give_back(bytes);
    }

    fn limit(&self) -> u64 {
        self.0.limit()
    }
}
