//! What the code of a command works with.

use std::sync::MutexGuard;

use vm_memory::GuestMemoryMmap;

use super::Engine;
use super::state::GuestState;
use crate::error::CommandError;
use crate::exchange::Exchange;
use crate::fence::{Gate, Held};
use crate::response::Response;

/// Bytes of the longest answer of a command that can be held before it is done: a header and a
/// UUID.
const LATE_ANSWER: u64 = 40;

/// One command being carried out, with what its code needs.
pub(crate) struct Call<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) memory: &'a GuestMemoryMmap,
    pub(crate) exchange: &'a mut Exchange,
}

impl Call<'_> {
    /// The state, unless the device was reset since the command came.
    pub(crate) fn state(&self) -> Result<MutexGuard<'_, GuestState>, CommandError> {
        self.engine.at(self.exchange.epoch)
    }

    /// Keeps the chain for a later answer, which also waits for `gate`. When the chain is kept
    /// already, this only sets the gate.
    pub(crate) fn hold(&mut self, state: &mut GuestState, gate: Gate) {
        if let Some(mut space) = self.exchange.space.take() {
            space.shrink_to(LATE_ANSWER);
            let held = Held {
                serial: self.exchange.ticket.serial,
                queue: self.exchange.queue,
                head: self.exchange.head,
                taken: self.exchange.taken,
                header: self.exchange.header,
                space,
                response: None,
                gate,
            };
            state.timelines.push(self.exchange.ticket.timeline, held);
        } else {
            state.timelines.set_gate(self.exchange.ticket, gate);
        }
    }
}

/// How far a command got.
pub(crate) enum Progress {
    /// It is done.
    Answer(Response),
    /// It is held ([`Call::hold`]), and another thread gives its response.
    Held,
}

impl Progress {
    /// `OK_NODATA`.
    pub(crate) fn ok() -> Self {
        Self::Answer(Response::ok())
    }
}
