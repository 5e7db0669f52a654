//! Commands that wait until a renderer has made a blob.
//!
//! A host blob is made on its context's own thread, which may take long. Commands about the blob
//! that arrive meanwhile are deferred, so that the queue goes on with everything else. To keep the
//! guest's order, a command also waits behind a deferred one that touches the same resource,
//! context or scanout. Nothing else waits.

use std::collections::{HashSet, VecDeque};

use crate::exchange::Exchange;
use crate::renderer::{ContextId, ResourceId};
use crate::request::{Command, Targets};
use crate::screen::ScanoutId;

/// A command that waits, with what is needed to run it.
pub(crate) struct DeferredCommand {
    pub(crate) exchange: Exchange,
    pub(crate) command: Command,
}

struct Entry {
    serial: u64,
    targets: Targets,
    /// `None` while the command runs; until it ends, it still delays others.
    work: Option<DeferredCommand>,
}

/// What some commands touch. A guest can have as many deferred commands as its queue holds, so they
/// are not compared one by one.
#[derive(Default)]
struct Touched {
    resources: HashSet<ResourceId>,
    contexts: HashSet<ContextId>,
    scanouts: HashSet<ScanoutId>,
}

impl Touched {
    fn touches(&self, targets: &Targets) -> bool {
        let in_set = |set: &HashSet<u32>, id: Option<u32>| id.is_some_and(|id| set.contains(&id));
        in_set(&self.resources, targets.resource)
            || in_set(&self.contexts, targets.context)
            || in_set(&self.scanouts, targets.scanout)
    }

    fn add(&mut self, targets: &Targets) {
        self.resources.extend(targets.resource);
        self.contexts.extend(targets.context);
        self.scanouts.extend(targets.scanout);
    }
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
        let mut earlier = Touched::default();
        for parked in &mut self.commands {
            let waits = earlier.touches(&parked.targets)
                || parked.targets.resource.is_some_and(&is_pending);
            if !waits && let Some(work) = parked.work.take() {
                return Some(work);
            }
            earlier.add(&parked.targets);
        }
        None
    }

    /// Removes the command with this serial, which is done.
    pub(crate) fn finished(&mut self, serial: u64) {
        self.commands.retain(|parked| parked.serial != serial);
    }
}
