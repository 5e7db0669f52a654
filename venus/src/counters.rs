//! Counters of the renderer, for people who watch it and for tests that look for leaks.
//!
//! Counting must cost nothing on hot paths. A decoding thread counts by itself, and adds its sums
//! to the shared counters once a batch.

use std::any::Any;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::Serialize;

/// Makes [`Counters`] and [`Tally`] of one list of names.
macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Sums since the renderer was made, and numbers of what is alive. [`Counters::to_json`] is
        /// for programs.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
        pub struct Counters {
            $($(#[$doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Adds those of another renderer. A sum that is too large stays at the largest number.
            pub fn add(&mut self, other: &Self) {
                $(self.$name = self.$name.saturating_add(other.$name);)*
            }
        }

        /// The counters themselves, shared by all threads of a renderer, and by another process if
        /// they lie in a [`crate::Report`].
        #[derive(Debug, Default)]
        #[repr(C)]
        pub(crate) struct Tally {
            $(pub(crate) $name: AtomicU64,)*
        }

        impl Tally {
            /// A copy of all values.
            pub(crate) fn read(&self) -> Counters {
                Counters {
                    $($name: self.$name.load(Ordering::Relaxed),)*
                }
            }
        }
    };
}

counters! {
    /// Contexts that live.
    contexts,
    /// Rings that live.
    rings,
    /// Vulkan objects that live, of all contexts.
    objects,
    /// Bytes of shared memory that contexts made and that are still in use.
    shared_bytes,
    /// Bytes of them that programs have freed and that are kept for their next allocations.
    kept_bytes,
    /// Commands carried out.
    commands,
    /// Objects looked up by the guest's ids for these commands.
    lookups,
    /// Values of enums that Vulkan does not have, and that drivers did not get.
    strays,
    /// Bytes of commands.
    command_bytes,
    /// Batches of commands.
    batches,
    /// Notifications of sleeping rings.
    wakes,
    /// Fences retired.
    fences,
    /// Allocations that took memory which their program had freed before.
    reused,
    /// Contexts that were lost.
    lost,
    /// Contexts that cannot end, because the driver does not return. Their threads and memory are
    /// still there.
    given_up,
}

impl Counters {
    /// The counters as one JSON object on one line.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Such a value has nothing that cannot be written.
        serde_json::to_string(self).unwrap_or_default()
    }
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
