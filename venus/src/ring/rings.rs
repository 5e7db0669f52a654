//! [`Rings`]: the rings of a context. It finds, stops and watches them.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use hesper_system::sync::{Lock, Wait};

use crate::context::events::ContextEvents;
use crate::fatal::Fatal;
use crate::ring::Ring;

/// ALIVE is set at least this often, whatever the guest asks for.
const SHORTEST_PERIOD: Duration = Duration::from_millis(10);

#[derive(Default)]
struct Inner {
    rings: HashMap<u64, Arc<Ring>>,
    /// Rings that [`Rings::insert`] adds: they have no thread yet, and nobody finds them.
    starting: HashSet<u64>,
    threads: Vec<JoinHandle<()>>,
    /// Running threads, those of destroyed rings included.
    running: usize,
    has_monitor: bool,
    is_stopped: bool,
    is_lost: bool,
}

/// All rings of a context, by the guest's ids.
pub(crate) struct Rings {
    /// Hears of rings, one after the other. The lock keeps the reports in the order in which ids
    /// are taken and given back. It is held while the listener is called. That is safe: only who
    /// adds or removes a ring takes it, nobody waits for another thread with it, and the listener
    /// may do anything that the context's front end may do.
    listener: Mutex<Arc<dyn ContextEvents>>,
    inner: Mutex<Inner>,
    /// Wakes the monitor when a ring is added or all end.
    changed: Condvar,
    /// Wakes whoever waits for a thread to end.
    ended: Condvar,
}

impl Rings {
    /// No rings. `listener` hears of those that come and go.
    pub(crate) fn new(listener: Arc<dyn ContextEvents>) -> Self {
        Self {
            listener: Mutex::new(listener),
            inner: Mutex::default(),
            changed: Condvar::new(),
            ended: Condvar::new(),
        }
    }

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
        let listener = self.listener.locked();
        let mut inner = self.inner.locked();
        if inner.rings.contains_key(&id) || inner.starting.contains(&id) {
            return Err(Fatal::RingTaken(id));
        }
        if inner.rings.len() + inner.starting.len() >= limit {
            return Err(Fatal::TooManyRings(limit));
        }
        inner.starting.insert(id);
        drop(inner);
        let (memory, status) = ring.layout.place_of_status();
        listener.ring_created(id, memory, status);
        drop(listener);
        let started = self.start(id, ring, limit, start);
        if started.is_err() {
            let listener = self.listener.locked();
            self.inner.locked().starting.remove(&id);
            listener.ring_destroyed(id);
        }
        started
    }

    /// Starts the thread of a ring whose id is taken.
    fn start(
        &self,
        id: u64,
        ring: Arc<Ring>,
        limit: usize,
        start: impl Fn() -> std::io::Result<JoinHandle<()>>,
    ) -> Result<(), Fatal> {
        let mut inner = self.inner.locked();
        let thread = loop {
            if inner.is_stopped {
                // The context ends, and nobody waits for this ring. A guest whose context is lost
                // must know.
                match inner.is_lost {
                    true => ring.fail(),
                    false => ring.stop(),
                }
                inner.starting.remove(&id);
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
        inner.starting.remove(&id);
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
        let listener = self.listener.locked();
        let ring = self.inner.locked().rings.remove(&id);
        ring.ok_or(Fatal::NoRing(id))?.stop();
        listener.ring_destroyed(id);
        Ok(())
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
        let listener = self.listener.locked();
        let rings = std::mem::take(&mut self.inner.locked().rings);
        for id in rings.into_keys() {
            listener.ring_destroyed(id);
        }
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
    use crate::blob::{Blob, BlobError};
    use crate::memory::SharedMemory;
    use crate::ring::{ALIVE, Bell, Layout, Request};
    use crate::trace::Lane;

    /// What a front end hears of rings.
    #[derive(Default)]
    struct Heard(Mutex<Vec<(u64, bool)>>);

    impl ContextEvents for Heard {
        fn fence_retired(&self, _ring: u8, _fence: u64) {}
        fn blob_created(&self, _resource: u32, _result: Result<Blob, BlobError>) {}
        fn lost(&self, _reason: &str) {}
        fn ring_created(&self, ring: u64, memory: &Arc<SharedMemory>, status: usize) {
            assert_eq!(memory.word(status).unwrap().load(Ordering::Relaxed), ALIVE);
            self.0.locked().push((ring, true));
        }
        fn ring_destroyed(&self, ring: u64) {
            self.0.locked().push((ring, false));
        }
    }

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
        let bell = Bell::new(None, 1);
        let ring = Ring::new(layout, Duration::ZERO, None, bell, Lane::default());
        Arc::new(ring)
    }

    #[test]
    fn each_ring_is_reported_before_its_thread_starts_and_when_it_is_gone() {
        let heard = Arc::new(Heard::default());
        let said = || std::mem::take(&mut *heard.0.locked());
        let rings = Rings::new(Arc::clone(&heard) as Arc<dyn ContextEvents>);
        let start = || {
            assert!(!heard.0.locked().is_empty());
            Ok(std::thread::spawn(|| {}))
        };
        rings.insert(1, ring(), 2, start).unwrap();
        assert_eq!(said(), [(1, true)]);
        // Nobody hears of what never was.
        assert_eq!(rings.insert(1, ring(), 2, start), Err(Fatal::RingTaken(1)));
        assert_eq!(rings.remove(2), Err(Fatal::NoRing(2)));
        assert!(said().is_empty());
        let none = || Err(ErrorKind::QuotaExceeded.into());
        rings.thread_ended();
        assert!(rings.insert(2, ring(), 2, none).is_err());
        assert_eq!(said(), [(2, true), (2, false)]);
        rings.insert(2, ring(), 2, start).unwrap();
        let many = Err(Fatal::TooManyRings(2));
        assert_eq!(rings.insert(3, ring(), 2, start), many);
        rings.remove(1).unwrap();
        assert_eq!(said(), [(2, true), (1, false)]);
        // A ring of a context that ends has no thread.
        rings.fail();
        rings.insert(4, ring(), 2, none).unwrap();
        assert_eq!(said(), [(4, true)]);
        rings.join();
        let mut last = said();
        last.sort_unstable();
        assert_eq!(last, [(2, false), (4, false)]);
    }

    #[test]
    fn a_system_without_threads_says_so_once_no_ring_is_about_to_end() {
        let rings = Rings::new(Arc::new(Heard::default()));
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
