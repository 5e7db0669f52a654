//! [`Rings`]: the rings of a context. It finds, stops and watches them.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use hesper_system::sync::{Lock, Wait};

use crate::fatal::Fatal;
use crate::ring::Ring;

/// ALIVE is set at least this often, whatever the guest asks for.
const SHORTEST_PERIOD: Duration = Duration::from_millis(10);

#[derive(Default)]
struct Inner {
    rings: HashMap<u64, Arc<Ring>>,
    threads: Vec<JoinHandle<()>>,
    /// Running threads, those of destroyed rings included.
    running: usize,
    has_monitor: bool,
    is_stopped: bool,
    is_lost: bool,
}

/// All rings of a context, by the guest's ids.
#[derive(Default)]
pub(crate) struct Rings {
    inner: Mutex<Inner>,
    /// Wakes the monitor when a ring is added or all end.
    changed: Condvar,
    /// Wakes whoever waits for a thread to end.
    ended: Condvar,
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

    /// Adds a ring and `start`s its thread, which must call [`Rings::thread_ended`] at its end. The
    /// error for a guest that has all threads it may have is `QuotaExceeded`.
    ///
    /// Only rings that live count against the limit. A ring may be destroyed while its thread is
    /// still in the driver's compiler. There may be as many of such threads again. Beyond that, a
    /// new ring waits for one to end.
    pub(crate) fn insert(
        &self,
        id: u64,
        ring: Arc<Ring>,
        limit: usize,
        start: impl Fn() -> std::io::Result<JoinHandle<()>>,
    ) -> Result<(), Fatal> {
        let mut inner = self.inner.locked();
        if inner.rings.contains_key(&id) {
            return Err(Fatal::RingTaken(id));
        }
        if inner.rings.len() >= limit {
            return Err(Fatal::TooManyRings(limit));
        }
        let thread = loop {
            if inner.is_stopped {
                // The context ends, and nobody waits for this ring. A guest whose context is lost
                // must know.
                match inner.is_lost {
                    true => ring.fail(),
                    false => ring.stop(),
                }
                inner.rings.insert(id, ring);
                return Ok(());
            }
            let live = inner.rings.len();
            let is_crowded = inner.running >= live.saturating_add(limit);
            let error = match is_crowded {
                true => None,
                false => match start() {
                    Ok(thread) => break thread,
                    Err(error) => Some(error),
                },
            };
            if inner.running <= live {
                let kind = error.map_or(std::io::ErrorKind::OutOfMemory, |error| error.kind());
                return Err(match kind {
                    std::io::ErrorKind::QuotaExceeded => Fatal::NoGuestThread(live),
                    kind => Fatal::NoThread { rings: live, kind },
                });
            }
            inner = self.ended.waited(inner);
        };
        inner.threads.retain(|thread| !thread.is_finished());
        inner.threads.push(thread);
        inner.running += 1;
        inner.rings.insert(id, ring);
        drop(inner);
        self.changed.notify_all();
        Ok(())
    }

    /// Called by a ring's thread at its very end.
    pub(crate) fn thread_ended(&self) {
        self.inner.locked().running -= 1;
        self.ended.notify_all();
    }

    /// Ends a ring.
    pub(crate) fn remove(&self, id: u64) -> Result<(), Fatal> {
        let ring = self.inner.locked().rings.remove(&id);
        ring.map(|ring| ring.stop()).ok_or(Fatal::NoRing(id))
    }

    /// Tells the guest, through every ring, that its context is lost. Ends all rings.
    pub(crate) fn fail(&self) {
        let mut inner = self.inner.locked();
        inner.is_lost = true;
        inner.rings.values().for_each(|ring| ring.fail());
        drop(inner);
        self.stop();
    }

    /// Ends all rings, and admits no new ones.
    pub(crate) fn stop(&self) {
        let mut inner = self.inner.locked();
        inner.is_stopped = true;
        inner.rings.values().for_each(|ring| ring.stop());
        drop(inner);
        self.changed.notify_all();
        self.ended.notify_all();
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

    /// Whether a ring wants to be watched and nobody does. The caller must then start
    /// [`Rings::watch`].
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

    /// The monitor's thread: sets ALIVE on the rings that ask for it, until they all end. It is a
    /// separate thread, so that a ring that waits for the driver is not taken for dead.
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
                // Twice within the period, so that the guest never looks too early.
                Some(period) => {
                    let pause = (period / 2).max(SHORTEST_PERIOD);
                    self.changed.waited_for(inner, pause).0
                }
                None => self.changed.waited(inner),
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::memory::SharedMemory;
    use crate::ring::{Layout, Request};

    fn ring() -> Arc<Ring> {
        let request = Request {
            size: 1024,
            tail: 64,
            status: 128,
            buffer: 192,
            buffer_size: 512,
            ..Request::default()
        };
        let memory = Arc::new(SharedMemory::create(4096).unwrap());
        let layout = Layout::new(memory, &request).unwrap();
        Arc::new(Ring::new(layout, Duration::ZERO, None))
    }

    #[test]
    fn a_system_without_threads_says_so_once_no_ring_is_about_to_end() {
        let rings = Rings::default();
        let none = || Err(ErrorKind::WouldBlock.into());
        let refused = rings.insert(1, ring(), 10, none);
        let kind = ErrorKind::WouldBlock;
        assert_eq!(refused, Err(Fatal::NoThread { rings: 0, kind }));
        assert_eq!(rings.get(1).err(), Some(Fatal::NoRing(1)));

        // A thread that has not ended may leave its place to the next.
        let tries = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            let rings = &rings;
            let (end, waits) = std::sync::mpsc::channel::<()>();
            let (started, first) = std::sync::mpsc::channel();
            scope.spawn(move || {
                first.recv().unwrap();
                // Until the other end is dropped.
                let _ = waits.recv();
                rings.thread_ended();
            });
            let start = || Ok(std::thread::spawn(|| {}));
            rings.insert(1, ring(), 10, start).unwrap();
            rings.remove(1).unwrap();
            started.send(()).unwrap();
            let sender = Mutex::new(Some(end));
            let start = || match tries.fetch_add(1, Ordering::Relaxed) {
                0 => {
                    drop(sender.locked().take());
                    Err(ErrorKind::WouldBlock.into())
                }
                _ => Ok(std::thread::spawn(|| {})),
            };
            rings.insert(2, ring(), 10, start).unwrap();
        });
        assert_eq!(tries.into_inner(), 2);
        assert!(rings.get(2).is_ok());
    }
}
