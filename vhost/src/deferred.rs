//! Commands that wait until a renderer has made a blob.
//!
//! A host blob is made on its context's own thread, which may take long. Commands about the blob that come meanwhile
//! are parked, so that the queue goes on with everything else. To keep the order that the guest relies on, a command
//! also waits behind a parked one that touches the same resource, context or scanout; nothing else waits.

use std::collections::VecDeque;

use crate::budget::Charge;
use crate::exchange::Exchange;
use crate::renderer::ResourceId;
use crate::request::{Command, Targets};

/// A command and what it needs to go on.
pub(crate) struct DeferredCommand {
    pub(crate) exchange: Exchange,
    pub(crate) command: Command,
    /// For the bytes that the command carries.
    pub(crate) _charge: Charge,
}

struct Entry {
    serial: u64,
    targets: Targets,
    /// Taken while the command runs; it still holds up others until then.
    work: Option<DeferredCommand>,
}

/// The parked commands, in order of arrival.
#[derive(Default)]
pub(crate) struct DeferredCommands {
    commands: VecDeque<Entry>,
}

impl DeferredCommands {
    /// Whether a parked command has to go first.
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

    /// Takes the first command that waits neither for a resource that `is_pending` nor for a parked one before
    /// it. It stays in line until [`Self::finished`].
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

    /// The command of this serial is done.
    pub(crate) fn finished(&mut self, serial: u64) {
        self.commands.retain(|parked| parked.serial != serial);
    }
}
