//! [`Buffers`]: the memory that a stream is carried out in.

use std::sync::Arc;

use hesper_venus_protocol::runtime::{Arena, Meter};

use crate::command_stream::PrivateCopy;
use crate::context::state::ContextState;

/// The memory that a stream is carried out in.
pub(crate) struct Buffers {
    /// The piece that is being carried out.
    pub(super) window: PrivateCopy,
    /// The decoded commands.
    pub(super) arena: Arena,
}

impl Buffers {
    pub(crate) fn new(state: &ContextState) -> Self {
        let meter = Arc::clone(&state.command_memory) as Arc<dyn Meter>;
        Self {
            window: PrivateCopy::default(),
            arena: Arena::metered(meter),
        }
    }

    /// Gives back what large commands needed.
    #[inline]
    pub(crate) fn settle(&mut self) {
        self.window.settle();
        self.arena.reset();
    }

    /// Gives everything back.
    pub(crate) fn release(&mut self) {
        self.window.release();
        self.arena.release();
    }
}
