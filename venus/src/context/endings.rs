//! [`Endings`]: watches contexts that end, and counts those that do not.
//!
//! A driver may never return: from waiting for a GPU that waits for a signal that nobody sends, or
//! from compiling. The thread that called it cannot be ended. It is *given up*: counted, and told
//! to the log. The context's place and what it holds stay taken, and nobody waits for it any more.
//! If the driver returns after all, the context ends as usual.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use hesper_system::LogLimit;
use hesper_system::sync::{Lock, Wait};

use crate::counters::{SharedTally, add, sub};

/// How long a context may take to end. A GPU that is busy with its last work needs less.
const GRACE: Duration = Duration::from_secs(5);

/// Limits the log lines about contexts that do not end.
static GIVEN_UP: LogLimit = LogLimit::new("hesper_venus");

/// A context that ends.
struct Ending {
    /// Its id and name, for the log.
    who: String,
    due: Instant,
    is_given_up: bool,
}

#[derive(Default)]
struct Inner {
    /// By a number of their own, since a guest may use the id again meanwhile.
    open: HashMap<u64, Ending>,
    last: u64,
    has_watcher: bool,
}

/// The contexts of a renderer that end.
pub(crate) struct Endings {
    inner: Mutex<Inner>,
    changed: Condvar,
    tally: SharedTally,
}

impl Endings {
    /// Nothing ends yet. `tally` counts contexts that were given up.
    pub(crate) fn new(tally: SharedTally) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            changed: Condvar::new(),
            tally,
        })
    }

    /// A number for a new context.
    pub(crate) fn number(&self) -> u64 {
        let mut inner = self.inner.locked();
        inner.last += 1;
        inner.last
    }

    /// The context with this number ends from now on. `who` is its name for the log.
    pub(crate) fn begin(self: &Arc<Self>, number: u64, who: impl FnOnce() -> String) {
        let mut inner = self.inner.locked();
        inner.open.entry(number).or_insert_with(|| Ending {
            who: who(),
            due: Instant::now() + GRACE,
            is_given_up: false,
        });
        if inner.has_watcher {
            // All have the same time, so the watcher wakes for an earlier one first.
            return;
        }
        let endings = Arc::clone(self);
        let started = std::thread::Builder::new()
            .name("venus-endings".to_owned())
            .spawn(move || endings.watch());
        match started {
            Ok(_) => inner.has_watcher = true,
            // The next context that ends tries again.
            Err(error) => log::debug!("nobody watches whether contexts end: {error}"),
        }
    }

    /// The context with this number has ended.
    pub(crate) fn finish(&self, number: u64) {
        let mut inner = self.inner.locked();
        let ended = inner.open.remove(&number);
        let is_empty = inner.open.is_empty();
        drop(inner);
        if let Some(ended) = ended.filter(|ended| ended.is_given_up) {
            sub(&self.tally.given_up, 1);
            let what = format_args!("{} has ended after all", ended.who);
            GIVEN_UP.log(log::Level::Warn, what);
        }
        if is_empty {
            self.changed.notify_all();
        }
    }

    /// How many were given up.
    pub(crate) fn given_up(&self) -> usize {
        let inner = self.inner.locked();
        inner.open.values().filter(|one| one.is_given_up).count()
    }

    /// The thread: gives up contexts whose time is over, until none is left that may still end.
    fn watch(&self) {
        let mut inner = self.inner.locked();
        loop {
            let now = Instant::now();
            let mut next = None;
            for ending in inner.open.values_mut().filter(|one| !one.is_given_up) {
                if ending.due <= now {
                    ending.is_given_up = true;
                    add(&self.tally.given_up, 1);
                    let who = &ending.who;
                    GIVEN_UP.log(
                        log::Level::Error,
                        format_args!(
                            "{who} cannot end: the GPU's driver has not returned for {GRACE:?}. Its threads and memory stay until it does, or \
                             until Hesper ends"
                        ),
                    );
                } else {
                    next = Some(next.map_or(ending.due, |next: Instant| next.min(ending.due)));
                }
            }
            let Some(next) = next else {
                inner.has_watcher = false;
                return;
            };
            inner = self.changed.waited_for(inner, next - now).0;
        }
    }
}
