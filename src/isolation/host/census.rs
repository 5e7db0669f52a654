//! [`Census`]: which workers live, and what all of them have counted.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use hesper_system::sync::{Lock, Wait};
use hesper_venus::{Counters, Report};

/// A worker that lives.
struct Live {
    report: Report,
    /// It is a context, not a spare.
    is_context: bool,
}

#[derive(Default)]
struct Inner {
    live: HashMap<u64, Live>,
    /// What those that have ended had counted, and what is counted here.
    past: Counters,
}

/// The workers whose processes have not ended, by their numbers.
#[derive(Default)]
pub(super) struct Census {
    inner: Mutex<Inner>,
    changed: Condvar,
}

impl Census {
    /// A worker starts.
    pub(super) fn enter(&self, number: u64, report: Report) {
        let live = Live {
            report,
            is_context: false,
        };
        self.inner.locked().live.insert(number, live);
    }

    /// The worker is a context from now on.
    pub(super) fn is_context(&self, number: u64) {
        if let Some(live) = self.inner.locked().live.get_mut(&number) {
            live.is_context = true;
        }
    }

    /// The worker's process has ended. Its sums stay; what lived in it does not.
    pub(super) fn leave(&self, number: u64) {
        let mut inner = self.inner.locked();
        if let Some(live) = inner.live.remove(&number) {
            inner.past.add(&sums(live.report.counters()));
        }
        drop(inner);
        self.changed.notify_all();
    }

    /// A context was lost with its process.
    pub(super) fn add_lost(&self) {
        self.add(Counters {
            lost: 1,
            ..Counters::default()
        });
    }

    /// A context did not end in time, so that its process was killed.
    pub(super) fn add_given_up(&self) {
        self.add(Counters {
            given_up: 1,
            ..Counters::default()
        });
    }

    fn add(&self, counters: Counters) {
        self.inner.locked().past.add(&counters);
    }

    /// What was counted in all. Contexts are counted here: a worker may tell anything.
    pub(super) fn counters(&self) -> Counters {
        let inner = self.inner.locked();
        let mut sum = inner.past;
        for live in inner.live.values() {
            sum.add(&live.report.counters());
        }
        let contexts = inner.live.values().filter(|live| live.is_context).count();
        Counters {
            contexts: contexts as u64,
            ..sum
        }
    }

    /// The numbers of all workers.
    pub(super) fn numbers(&self) -> Vec<u64> {
        self.inner.locked().live.keys().copied().collect()
    }

    /// Waits until no worker lives, for at most `patience`. Returns how many still live.
    pub(super) fn wait(&self, patience: Duration) -> usize {
        let inner = self.inner.locked();
        let is_early = |inner: &mut Inner| !inner.live.is_empty();
        let (inner, _) = self.changed.waited_while(inner, patience, is_early);
        inner.live.len()
    }
}

/// The sums among counters.
fn sums(counters: Counters) -> Counters {
    Counters {
        contexts: 0,
        rings: 0,
        objects: 0,
        shared_bytes: 0,
        kept_bytes: 0,
        ..counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_workers_that_ended_stay_and_contexts_are_counted_here() {
        let census = Census::default();
        census.enter(1, Report::create().unwrap());
        census.enter(2, Report::create().unwrap());
        census.is_context(2);
        assert_eq!(census.counters().contexts, 1);
        census.add_lost();
        census.leave(2);
        census.leave(2);
        assert_eq!((census.counters().contexts, census.counters().lost), (0, 1));
        assert_eq!(census.wait(Duration::ZERO), 1);
        assert_eq!(census.numbers(), [1]);
        census.leave(1);
        assert_eq!(census.wait(Duration::from_secs(60)), 0);
        let all = sums(Counters {
            contexts: 1,
            rings: 2,
            objects: 3,
            shared_bytes: 4,
            commands: 5,
            ..Counters::default()
        });
        let commands = Counters {
            commands: 5,
            ..Counters::default()
        };
        assert_eq!(all, commands);
    }
}
