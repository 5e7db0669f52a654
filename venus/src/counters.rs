//! Counters of the renderer, for people who watch it and for tests that look for leaks.
//!
//! Counting must cost nothing on hot paths. A decoding thread counts by itself, and adds its sums
//! to the shared counters once a batch.

use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;
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
    /// Adds those of another renderer. A sum that is too large stays at the largest number.
    pub fn add(&mut self, other: &Self) {
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
        for (sum, more) in [
            (contexts, other.contexts),
            (rings, other.rings),
            (objects, other.objects),
            (shared_bytes, other.shared_bytes),
            (commands, other.commands),
            (lookups, other.lookups),
            (command_bytes, other.command_bytes),
            (batches, other.batches),
            (wakes, other.wakes),
            (fences, other.fences),
            (lost, other.lost),
            (given_up, other.given_up),
        ] {
            *sum = sum.saturating_add(more);
        }
    }

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

/// The counters themselves, shared by all threads of a renderer, and by another process if they lie
/// in a [`crate::Report`].
#[derive(Debug, Default)]
#[repr(C)]
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

/// A [`Tally`], wherever it lies. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct SharedTally {
    at: NonNull<Tally>,
    /// Owns what `at` points to.
    _owner: Arc<dyn Any + Send + Sync>,
}

// SAFETY: it is a shared reference to a tally, which consists of atomics, and a shared owner.
unsafe impl Send for SharedTally {}
// SAFETY: as above.
unsafe impl Sync for SharedTally {}

impl SharedTally {
    /// The tally at which `find` points in `owner`.
    pub(crate) fn inside<T: Any + Send + Sync>(owner: Arc<T>, find: fn(&T) -> &Tally) -> Self {
        let at = NonNull::from(find(&owner));
        Self { at, _owner: owner }
    }
}

impl Default for SharedTally {
    fn default() -> Self {
        Self::inside(Arc::new(Tally::default()), |tally| tally)
    }
}

impl std::ops::Deref for SharedTally {
    type Target = Tally;
    #[inline]
    fn deref(&self) -> &Tally {
        // SAFETY: `find` borrowed it from the owner, which does not move and lives as long as this.
        // Nobody has the owner exclusively, since it is in an `Arc`.
        unsafe { self.at.as_ref() }
    }
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
    fn sums_of_processes_that_lie_do_not_overflow() {
        let mut sum = Counters {
            commands: 3,
            lost: 1,
            ..Counters::default()
        };
        let other = Counters {
            commands: u64::MAX,
            given_up: 2,
            ..sum
        };
        sum.add(&other);
        assert_eq!((sum.commands, sum.lost, sum.given_up), (u64::MAX, 2, 2));
    }

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
