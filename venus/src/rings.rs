//! The rings of a context: finding, stopping and watching over them.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::fatal::Fatal;
use crate::ring::Ring;
use crate::sync::Lock;

/// ALIVE is set at least this often, whatever the guest asks for.
const SHORTEST_PERIOD: Duration = Duration::from_millis(10);

#[derive(Default)]
struct Inner {
    rings: HashMap<u64, Arc<Ring>>,
    threads: Vec<JoinHandle<()>>,
    has_monitor: bool,
    is_stopped: bool,
}

/// All rings of a context, by the guest's ids.
#[derive(Default)]
pub(crate) struct Rings {
    inner: Mutex<Inner>,
    /// Wakes the monitor when a ring comes or all end.
    changed: Condvar,
}

impl Rings {
    /// The ring with this id.
    pub(crate) fn get(&self, id: u64) -> Result<Arc<Ring>, Fatal> {
        self.inner
            .locked()
            .rings
            .get(&id)
            .cloned()
            .ok_or(Fatal::NoRing(id))
    }

    /// Makes a ring known, and `start`s its thread.
    pub(crate) fn insert(
        &self,
        id: u64,
        ring: Arc<Ring>,
        limit: usize,
        start: impl FnOnce() -> std::io::Result<JoinHandle<()>>,
    ) -> Result<(), Fatal> {
        let mut inner = self.inner.locked();
        if inner.rings.contains_key(&id) {
            return Err(Fatal::RingTaken(id));
        }
        inner.threads.retain(|thread| !thread.is_finished());
        if inner.is_stopped || inner.threads.len() >= limit {
            return Err(Fatal::TooManyRings);
        }
        inner
            .threads
            .push(start().map_err(|_| Fatal::TooManyRings)?);
        inner.rings.insert(id, ring);
        drop(inner);
        self.changed.notify_all();
        Ok(())
    }

    /// Ends a ring.
    pub(crate) fn remove(&self, id: u64) -> Result<(), Fatal> {
        let ring = self.inner.locked().rings.remove(&id);
        ring.map(|ring| ring.stop()).ok_or(Fatal::NoRing(id))
    }

    /// Tells the guest, through every ring, that its context is lost.
    pub(crate) fn fail(&self) {
        self.inner
            .locked()
            .rings
            .values()
            .for_each(|ring| ring.fail());
    }

    /// Ends all rings, and admits no new ones.
    pub(crate) fn stop(&self) {
        let mut inner = self.inner.locked();
        inner.is_stopped = true;
        inner.rings.values().for_each(|ring| ring.stop());
        drop(inner);
        self.changed.notify_all();
    }

    /// Waits for the threads of ended rings.
    pub(crate) fn join(&self) {
        let threads = std::mem::take(&mut self.inner.locked().threads);
        for thread in threads {
            if thread.join().is_err() {
                log::error!("a ring's thread panicked");
            }
        }
        self.inner.locked().rings.clear();
    }

    /// Whether a ring wants to be watched over and nobody does; the caller must start [`Rings::watch`] then.
    pub(crate) fn needs_monitor(&self) -> bool {
        let mut inner = self.inner.locked();
        let is_wanted = inner
            .rings
            .values()
            .any(|ring| ring.monitor_period.is_some());
        let is_missing = is_wanted && !inner.has_monitor && !inner.is_stopped;
        inner.has_monitor |= is_missing;
        is_missing
    }

    /// The monitor's thread: sets ALIVE on the rings that ask for it, until they all end. It is a thread of its own
    /// so that a ring which waits for the driver is not taken for dead.
    pub(crate) fn watch(&self) {
        let mut inner = self.inner.locked();
        while !inner.is_stopped {
            let watched = inner
                .rings
                .values()
                .filter_map(|ring| Some((ring, ring.monitor_period?)));
            let shortest = watched
                .inspect(|(ring, _)| ring.set_alive())
                .map(|(_, period)| period)
                .min();
            inner = match shortest {
                // Twice within the period, so that no look of the guest's comes too early.
                Some(period) => {
                    let pause = (period / 2).max(SHORTEST_PERIOD);
                    self.changed
                        .wait_timeout(inner, pause)
                        .unwrap_or_else(PoisonError::into_inner)
                        .0
                }
                None => self
                    .changed
                    .wait(inner)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}
