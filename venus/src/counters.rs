//! Counters of the renderer, for people who watch it and for tests that look for leaks.
//!
//! Counting must cost nothing on hot paths. A decoding thread counts by itself, and adds its sums
//! to the shared counters once a batch.

use std::sync::atomic::{AtomicU64, Ordering};

/// Sums since the renderer was made, and numbers of what is alive. [`Counters::to_json`] is for
/// programs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Contexts that live.
    pub contexts: u64,
    /// Rings that live.
    pub rings: u64,
    /// Vulkan objects that live, of all contexts.
    pub objects: u64,
    /// Bytes of shared memory that contexts made and that are still in use.
    pub shared_bytes: u64,
    /// Commands carried out.
    pub commands: u64,
    /// Objects looked up by the guest's ids for these commands.
    pub lookups: u64,
    /// Bytes of commands.
    pub command_bytes: u64,
    /// Batches of commands.
    pub batches: u64,
    /// Notifications of sleeping rings.
    pub wakes: u64,
    /// Fences retired.
    pub fences: u64,
    /// Contexts that were lost.
    pub lost: u64,
    /// Contexts that cannot end, because the driver does not return. Their threads and memory are
    /// still there.
    pub given_up: u64,
}

impl Counters {
    /// The counters as one JSON object on one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        let Self {
            contexts,
            rings,
            objects,
            shared_bytes,
            commands,
            lookups,
            command_bytes,
            batches,
            wakes,
            fences,
            lost,
            given_up,
        } = self;
        format!(
            "{{\"contexts\":{contexts},\"rings\":{rings},\"objects\":{objects},\"shared_bytes\":{shared_bytes},\
             \"commands\":{commands},\"lookups\":{lookups},\"command_bytes\":{command_bytes},\"batches\":{batches},\"wakes\":{wakes},\
             \"fences\":{fences},\"lost\":{lost},\"given_up\":{given_up}}}"
        )
    }
}

/// The counters themselves, shared by all threads of a renderer.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) contexts: AtomicU64,
    pub(crate) rings: AtomicU64,
    pub(crate) objects: AtomicU64,
    pub(crate) shared_bytes: AtomicU64,
    pub(crate) commands: AtomicU64,
    pub(crate) lookups: AtomicU64,
    pub(crate) command_bytes: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) wakes: AtomicU64,
    pub(crate) fences: AtomicU64,
    pub(crate) lost: AtomicU64,
    pub(crate) given_up: AtomicU64,
}

/// Adds to a counter.
pub(crate) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

/// Takes from a counter of what lives.
pub(crate) fn sub(counter: &AtomicU64, amount: u64) {
    counter.fetch_sub(amount, Ordering::Relaxed);
}

impl Tally {
    /// A copy of all values.
    pub(crate) fn read(&self) -> Counters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counters {
            contexts: read(&self.contexts),
            rings: read(&self.rings),
            objects: read(&self.objects),
            shared_bytes: read(&self.shared_bytes),
            commands: read(&self.commands),
            lookups: read(&self.lookups),
            command_bytes: read(&self.command_bytes),
            batches: read(&self.batches),
            wakes: read(&self.wakes),
            fences: read(&self.fences),
            lost: read(&self.lost),
            given_up: read(&self.given_up),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_names_every_counter_with_its_value() {
        let tally = Tally::default();
        add(&tally.commands, 5);
        add(&tally.rings, 3);
        sub(&tally.rings, 1);
        let json = tally.read().to_json();
        assert!(
            json.starts_with("{\"contexts\":0,\"rings\":2,") && json.ends_with("\"given_up\":0}"),
            "{json}"
        );
        assert!(json.contains("\"commands\":5"), "{json}");
    }
}
