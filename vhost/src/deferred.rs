//! Commands that wait until a renderer has made a blob.
//!
//! A host blob is made on its context's own thread, which may take long. Commands about the blob
//! that arrive meanwhile are deferred, so that the queue goes on with everything else. To keep the
//! guest's order, a command also waits behind a deferred one that touches the same resource,
//! context or scanout. Nothing else waits.

use std::collections::VecDeque;

use crate::budget::Charge;
use crate::exchange::Exchange;
use crate::renderer::ResourceId;
use crate::request::{Command, Targets};

/// A command that waits, with what is needed to run it.
pub(crate) struct DeferredCommand {
    pub(crate) exchange: Exchange,
    pub(crate) command: Command,
    /// Counts the bytes that the command carries.
    pub(crate) _charge: Charge,
}

struct Entry {
    serial: u64,
    targets: Targets,
    /// `None` while the command runs; until it ends, it still delays others.
    work: Option<DeferredCommand>,
}

/// The deferred commands, in order of arrival.
#[derive(Default)]
pub(crate) struct DeferredCommands {
    commands: VecDeque<Entry>,
}

impl DeferredCommands {
    /// Whether a deferred command has to go first.
    pub(crate) fn must_wait(&self, targets: &Targets) -> bool {
        self.commands
            .iter()
            .any(|parked| parked.targets.overlaps(targets))
    }

    pub(crate) fn push(&mut self, targets: Targets, work: DeferredCommand) {
        self.commands.push_back(Entry {
            serial: work.exchange.ticket.serial,
            targets,
            work: Some(work),
        });
    }

    /// Takes the first command that waits neither for a resource that `is_pending` nor for a
    /// deferred command before it. It stays in the list until [`Self::finished`].
    pub(crate) fn take(
        &mut self,
        is_pending: impl Fn(ResourceId) -> bool,
    ) -> Option<DeferredCommand> {
        for index in 0..self.commands.len() {
            let parked = self.commands.get(index)?;
            let waits = parked.targets.resource.is_some_and(&is_pending)
                || self
                    .commands
                    .iter()
                    .take(index)
                    .any(|earlier| earlier.targets.overlaps(&parked.targets));
            if !waits && let Some(work) = self.commands.get_mut(index)?.work.take() {
                return Some(work);
            }
        }
        None
    }

    /// Removes the command with this serial, which is done.
    pub(crate) fn finished(&mut self, serial: u64) {
        self.commands.retain(|parked| parked.serial != serial);
    }
}
