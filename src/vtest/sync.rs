//! Synchronisation objects of one client: 64-bit values that fences and the client raise, and waits
//! for values.
//!
//! [`Syncs`] is locked as a whole, because the client's thread and the renderer's threads, which
//! retire fences, both use it. Fences and waits keep their objects alive after the client has
//! unreferenced them.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::platform::Latch;
use super::wire::Point;

/// The largest number of objects of a client. Mesa makes a few for each `VkFence` or `VkSemaphore`.
const MAX_SYNCS: usize = 1 << 20;
/// The largest number of waits at a time. Each needs a descriptor. A client's thread has one wait,
/// and leaves it behind at a timeout.
const MAX_WAITS: usize = 4096;
/// The largest number of fences that have not retired.
const MAX_FENCES: usize = 1 << 16;

/// An error of a client.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SyncError {
    /// There is no object of that name.
    #[error("there is no sync {0}")]
    NoSync(u32),
    /// One of the limits is exceeded.
    #[error("more than {most} {what}; no Venus driver needs that many")]
    TooMany {
        /// `syncs`, `waits` or `fences`.
        what: &'static str,
        /// How many are allowed.
        most: usize,
    },
    /// The system refused a descriptor.
    #[error("no descriptor for a wait: {0}; raise the limit on descriptors (ulimit -n)")]
    NoDescriptor(#[source] io::Error),
}

/// A synchronisation object and the value that it must reach.
struct Target {
    sync: Arc<AtomicU64>,
    value: u64,
}

impl Target {
    fn reached(&self) -> bool {
        self.sync.load(Ordering::Relaxed) >= self.value
    }
}

struct Wait {
    targets: Vec<Target>,
    any: bool,
    /// When the client's own timeout ends the wait.
    until: Option<Instant>,
    latch: Arc<Latch>,
}

impl Wait {
    fn over(&self) -> bool {
        over(&self.targets, self.any)
    }
}

fn over(targets: &[Target], any: bool) -> bool {
    // A wait for nothing is over, also with `any`.
    match any && !targets.is_empty() {
        true => targets.iter().any(Target::reached),
        false => targets.iter().all(Target::reached),
    }
}

/// All objects, fences and waits of a client.
pub(crate) struct Syncs {
    live: HashMap<u32, Arc<AtomicU64>>,
    next_sync: u32,
    fences: HashMap<u64, Vec<Target>>,
    next_fence: u64,
    waits: Vec<Wait>,
    /// Always readable: the answer to a wait that is already over.
    released: Arc<Latch>,
    /// Never readable: the answer to a wait without time that is not over.
    never: Arc<Latch>,
}

impl Syncs {
    /// The objects of a new client.
    ///
    /// # Errors
    /// The system has no descriptors left.
    pub(crate) fn new() -> io::Result<Self> {
        let released = Latch::new()?;
        released.release();
        Ok(Self {
            live: HashMap::new(),
            next_sync: 1,
            fences: HashMap::new(),
            next_fence: 1,
            waits: Vec::new(),
            released: Arc::new(released),
            never: Arc::new(Latch::new()?),
        })
    }

    /// Creates an object. Returns its name, which is never 0.
    pub(crate) fn create(&mut self, value: u64) -> Result<u32, SyncError> {
        if self.live.len() >= MAX_SYNCS {
            return Err(SyncError::TooMany {
                what: "syncs",
                most: MAX_SYNCS,
            });
        }
        // After 2^32 objects names are reused. Those in use are skipped.
        while self.next_sync == 0 || self.live.contains_key(&self.next_sync) {
            self.next_sync = self.next_sync.wrapping_add(1);
        }
        let name = self.next_sync;
        self.next_sync = name.wrapping_add(1);
        self.live.insert(name, Arc::new(AtomicU64::new(value)));
        Ok(name)
    }

    /// Removes an object's name.
    pub(crate) fn unref(&mut self, sync: u32) -> Result<(), SyncError> {
        self.live
            .remove(&sync)
            .map(drop)
            .ok_or(SyncError::NoSync(sync))
    }

    /// The value of an object.
    pub(crate) fn read(&self, sync: u32) -> Result<u64, SyncError> {
        Ok(self.find(sync)?.load(Ordering::Relaxed))
    }

    /// Sets the value of an object.
    pub(crate) fn write(&mut self, point: Point) -> Result<(), SyncError> {
        self.find(point.sync)?.store(point.value, Ordering::Relaxed);
        self.release_waits();
        Ok(())
    }

    /// Creates a fence that raises objects to values when it retires. Returns its number.
    pub(crate) fn fence(&mut self, points: impl Iterator<Item = Point>) -> Result<u64, SyncError> {
        if self.fences.len() >= MAX_FENCES {
            return Err(SyncError::TooMany {
                what: "fences",
                most: MAX_FENCES,
            });
        }
        let targets = self.targets(points)?;
        let number = self.next_fence;
        self.next_fence += 1;
        self.fences.insert(number, targets);
        Ok(number)
    }

    /// Retires a fence. An unknown fence, or one that has already retired, is ignored.
    pub(crate) fn retire(&mut self, fence: u64) {
        let Some(targets) = self.fences.remove(&fence) else {
            log::debug!("fence {fence} is retired but not open");
            return;
        };
        for Target { sync, value } in targets {
            sync.fetch_max(value, Ordering::Relaxed);
        }
        self.release_waits();
    }

    /// Returns a latch that is released when the points are reached. The wait is removed after
    /// `timeout`, which the client measures itself.
    pub(crate) fn wait(
        &mut self,
        points: impl Iterator<Item = Point>,
        any: bool,
        timeout: Option<u32>,
    ) -> Result<Arc<Latch>, SyncError> {
        let targets = self.targets(points)?;
        if over(&targets, any) {
            return Ok(Arc::clone(&self.released));
        }
        if timeout == Some(0) {
            return Ok(Arc::clone(&self.never));
        }
        let now = Instant::now();
        self.waits
            .retain(|wait| wait.until.is_none_or(|until| until > now));
        if self.waits.len() >= MAX_WAITS {
            return Err(SyncError::TooMany {
                what: "waits",
                most: MAX_WAITS,
            });
        }
        let latch = Arc::new(Latch::new().map_err(SyncError::NoDescriptor)?);
        self.waits.push(Wait {
            targets,
            any,
            until: timeout.map(|timeout| now + Duration::from_millis(timeout.into()) + SLACK),
            latch: Arc::clone(&latch),
        });
        Ok(latch)
    }

    fn find(&self, sync: u32) -> Result<&Arc<AtomicU64>, SyncError> {
        self.live.get(&sync).ok_or(SyncError::NoSync(sync))
    }

    fn targets(&self, points: impl Iterator<Item = Point>) -> Result<Vec<Target>, SyncError> {
        let target = |Point { sync, value }| {
            let sync = Arc::clone(self.find(sync)?);
            Ok(Target { sync, value })
        };
        points.map(target).collect()
    }

    fn release_waits(&mut self) {
        self.waits.retain(|wait| {
            let over = wait.over();
            if over {
                wait.latch.release();
            }
            !over
        });
    }
}

/// Added to a wait's timeout, because the client starts to measure it only when it has the
/// descriptor.
const SLACK: Duration = Duration::from_millis(200);

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn readable(latch: &Latch) -> bool {
        let fd = latch.for_client();
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        poll(
            &mut fds,
            Some(&Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            }),
        )
        .unwrap()
            == 1
    }

    fn point(sync: u32, value: u64) -> Point {
        Point { sync, value }
    }

    #[test]
    fn a_fence_raises_its_syncs_and_never_lowers_them() {
        let mut syncs = Syncs::new().unwrap();
        let [one, other] = [syncs.create(0).unwrap(), syncs.create(1 << 40).unwrap()];
        let fence = syncs
            .fence([point(one, 3), point(other, 5)].into_iter())
            .unwrap();
        assert_eq!(syncs.read(one).unwrap(), 0);
        syncs.retire(fence);
        assert_eq!(syncs.read(one).unwrap(), 3);
        assert_eq!(syncs.read(other).unwrap(), 1 << 40);
        syncs.retire(fence);
        syncs.write(point(one, 0)).unwrap();
        assert_eq!(syncs.read(one).unwrap(), 0, "a write may lower a value");
    }

    #[test]
    fn a_wait_is_released_by_fences_and_writes_when_all_or_any_points_are_reached() {
        let mut syncs = Syncs::new().unwrap();
        let [one, other] = [syncs.create(0).unwrap(), syncs.create(0).unwrap()];
        let points = [point(one, 1), point(other, 2)];
        let all = syncs.wait(points.into_iter(), false, None).unwrap();
        let any = syncs.wait(points.into_iter(), true, Some(60_000)).unwrap();
        assert!(!readable(&all) && !readable(&any));
        let fence = syncs.fence([point(other, 2)].into_iter()).unwrap();
        syncs.retire(fence);
        assert!(!readable(&all) && readable(&any));
        syncs.write(point(one, 7)).unwrap();
        assert!(readable(&all));
        assert!(
            readable(&syncs.wait(points.into_iter(), false, None).unwrap()),
            "over already"
        );
        assert!(
            readable(&syncs.wait([].into_iter(), true, None).unwrap()),
            "for nothing"
        );
        assert!(!readable(
            &syncs
                .wait([point(one, 8)].into_iter(), false, Some(0))
                .unwrap()
        ));
        assert!(syncs.waits.is_empty());
    }

    #[test]
    fn an_object_lives_on_in_the_waits_and_fences_that_name_it() {
        let mut syncs = Syncs::new().unwrap();
        let sync = syncs.create(0).unwrap();
        let fence = syncs.fence([point(sync, 1)].into_iter()).unwrap();
        let wait = syncs
            .wait([point(sync, 1)].into_iter(), false, None)
            .unwrap();
        syncs.unref(sync).unwrap();
        assert!(matches!(syncs.read(sync), Err(SyncError::NoSync(_))));
        assert!(matches!(syncs.unref(sync), Err(SyncError::NoSync(_))));
        syncs.retire(fence);
        assert!(readable(&wait));
    }

    #[test]
    fn waits_and_fences_have_an_upper_limit_and_names_do_not_come_twice() {
        crate::limits::raise_descriptor_limit();
        let mut syncs = Syncs::new().unwrap();
        syncs.next_sync = u32::MAX;
        let [last, first] = [syncs.create(0).unwrap(), syncs.create(0).unwrap()];
        assert_eq!([last, first], [u32::MAX, 1]);
        syncs.next_sync = u32::MAX;
        assert_eq!(syncs.create(0).unwrap(), 2, "names in use are skipped");
        for _ in 0..MAX_WAITS {
            syncs
                .wait([point(first, 1)].into_iter(), false, None)
                .unwrap();
        }
        let more = syncs.wait([point(first, 1)].into_iter(), false, None);
        assert!(matches!(
            more,
            Err(SyncError::TooMany { what: "waits", .. })
        ));
        for _ in 0..MAX_FENCES {
            syncs.fence([].into_iter()).unwrap();
        }
        let more = syncs.fence([].into_iter());
        assert!(matches!(
            more,
            Err(SyncError::TooMany { what: "fences", .. })
        ));
    }
}
