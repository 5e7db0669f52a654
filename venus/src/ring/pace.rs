//! How a ring's thread waits for its guest: spin, yield, doze, sleep.
//!
//! A guest that makes calls with replies is back within a microsecond or two, so spinning pays.
//! Then the thread yields the processor for a while. Then it may sleep, and a notification wakes
//! it. But the guest notifies only once per idle timeout. For that long after each notification,
//! nobody would wake a sleeping ring, so the thread dozes and looks by itself.
//!
//! To be woken takes some 50 µs, and a doze ends late by as much. A language model makes a dozen
//! such pauses for each token, most of them shorter than 200 µs. So where processors are to spare,
//! the thread yields for longer if that has paid before: if the pauses before ended soon enough.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Looks at the tail without a yield: about two microseconds.
const SPINS: u32 = 60;
/// Looks with a yield in between: some 20 µs when nobody else wants the processor.
const YIELDS: u32 = 40;
/// The first doze. Each further one is twice as long, up to [`LONGEST_DOZE`].
const FIRST_DOZE: Duration = Duration::from_micros(30);
const LONGEST_DOZE: Duration = Duration::from_micros(250);
/// How long a thread yields at least, and at most, if it does so for longer.
const LEAST_PATIENCE: Duration = Duration::from_micros(50);
const MOST_PATIENCE: Duration = Duration::from_micros(500);
/// After so many long pauses in a row it does not yield for longer. A program's frame, or a
/// language model's token, has one or two of them among many short ones.
const LONG_PAUSES: u8 = 4;
/// So many processors for each thread of the process that yields for longer.
const PROCESSORS_EACH: usize = 4;

/// What to do before the next look at the tail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// Look again at once.
    Spin,
    /// Let others run.
    Yield,
    /// Sleep for so long at most.
    Doze(Duration),
    /// Sleep until notified, with the status IDLE set.
    Sleep,
}

/// Places for threads that yield for longer.
#[derive(Debug)]
pub(crate) struct Places {
    taken: AtomicUsize,
    all: usize,
}

impl Places {
    /// Places for a machine with so many processors.
    const fn new(processors: usize) -> Self {
        Self {
            taken: AtomicUsize::new(0),
            all: processors / PROCESSORS_EACH,
        }
    }

    /// Those of this process.
    pub(crate) fn of_process() -> &'static Self {
        static PLACES: OnceLock<Places> = OnceLock::new();
        PLACES.get_or_init(|| {
            let processors = std::thread::available_parallelism();
            Self::new(processors.map_or(1, std::num::NonZero::get))
        })
    }

    fn take(&self) -> Option<Place<'_>> {
        let one_more = |taken: usize| (taken < self.all).then_some(taken + 1);
        let took = self
            .taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        took.ok().map(|_| Place(self))
    }
}

/// One of [`Places`], until it is dropped.
#[derive(Debug)]
struct Place<'p>(&'p Places);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Decides how to wait.
#[derive(Debug)]
pub(crate) struct Pace<'p> {
    idle_timeout: Duration,
    looks: u32,
    doze: Duration,
    notified: Option<Instant>,
    places: &'p Places,
    place: Option<Place<'p>>,
    /// How long to yield before a doze. Zero while that does not pay.
    patience: Duration,
    /// Pauses in a row that were longer than any patience.
    long_pauses: u8,
    /// When the short looks of this pause were over.
    since: Option<Instant>,
}

impl<'p> Pace<'p> {
    /// A pace for a ring whose guest notifies at most once per `idle_timeout`.
    pub(crate) fn new(idle_timeout: Duration, places: &'p Places) -> Self {
        Self {
            // An hour is as good as any longer time, and cannot overflow.
            idle_timeout: idle_timeout.min(Duration::from_secs(3600)),
            looks: 0,
            doze: FIRST_DOZE,
            notified: None,
            places,
            place: None,
            patience: Duration::ZERO,
            long_pauses: 0,
            since: None,
        }
    }

    /// There was work. `now` is called only if the time matters.
    pub(crate) fn worked(&mut self, now: impl FnOnce() -> Instant) {
        self.looks = 0;
        self.doze = FIRST_DOZE;
        self.place = None;
        if let Some(since) = self.since.take() {
            let pause = now().saturating_duration_since(since);
            if pause > MOST_PATIENCE {
                self.long_pauses = self.long_pauses.saturating_add(1);
                if self.long_pauses >= LONG_PAUSES {
                    self.patience = Duration::ZERO;
                }
            } else {
                self.long_pauses = 0;
                if pause > self.patience {
                    self.patience = (self.patience * 2).clamp(LEAST_PATIENCE, MOST_PATIENCE);
                }
            }
        }
    }

    /// The guest notified at `now`.
    pub(crate) fn notified(&mut self, now: Instant) {
        self.notified = Some(now);
    }

    /// There was no work. `now` is called only if the time matters.
    pub(crate) fn next(&mut self, now: impl Fn() -> Instant) -> Pause {
        if self.looks < SPINS {
            self.looks += 1;
            return Pause::Spin;
        }
        if self.looks < SPINS + YIELDS {
            self.looks += 1;
            return Pause::Yield;
        }
        if self.places.all > 0 && self.is_patient(&now) {
            return Pause::Yield;
        }
        let is_deaf = self
            .notified
            .is_some_and(|at| now().saturating_duration_since(at) < self.idle_timeout);
        if !is_deaf {
            return Pause::Sleep;
        }
        let doze = self.doze;
        self.doze = (doze * 2).min(LONGEST_DOZE);
        Pause::Doze(doze)
    }

    /// Whether to yield for longer. Notes when this pause began.
    fn is_patient(&mut self, now: impl Fn() -> Instant) -> bool {
        let Some(since) = self.since else {
            self.since = Some(now());
            if !self.patience.is_zero() {
                self.place = self.places.take();
            }
            return self.place.is_some();
        };
        let is_patient =
            self.place.is_some() && now().saturating_duration_since(since) < self.patience;
        if !is_patient {
            self.place = None;
        }
        is_patient
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    /// The waits of a quiet guest up to the first sleep. Each doze takes its full time.
    fn until_sleep(pace: &mut Pace<'_>, mut now: Instant) -> (u32, Duration) {
        let (mut looks, mut dozed) = (0, Duration::ZERO);
        loop {
            match pace.next(|| now) {
                Pause::Sleep => return (looks, dozed),
                Pause::Doze(time) => {
                    dozed += time;
                    now += time;
                }
                Pause::Spin | Pause::Yield => looks += 1,
            }
        }
    }

    #[test]
    fn a_ring_sleeps_soon_unless_its_guest_cannot_notify_yet() {
        let timeout = Duration::from_millis(1);
        let places = Places::new(2);
        let mut pace = Pace::new(timeout, &places);
        let start = Instant::now();
        assert_eq!(
            until_sleep(&mut pace, start),
            (SPINS + YIELDS, Duration::ZERO)
        );

        pace.worked(|| start);
        pace.notified(start);
        let (looks, dozed) = until_sleep(&mut pace, start);
        assert_eq!(looks, SPINS + YIELDS);
        assert!(dozed >= timeout && dozed < 2 * timeout, "{dozed:?}");

        pace.worked(|| start);
        assert_eq!(until_sleep(&mut pace, start + timeout).1, Duration::ZERO);
    }

    #[test]
    fn an_absurd_timeout_overflows_nothing() {
        let places = Places::new(64);
        let mut pace = Pace::new(Duration::MAX, &places);
        pace.notified(Instant::now());
        for _ in 0..1000 {
            pace.next(Instant::now);
        }
    }

    /// Lets a pause of this length pass. Returns how long the thread yielded after the short looks.
    fn pause(pace: &mut Pace<'_>, clock: &Cell<Instant>, length: Duration) -> Duration {
        let (mut yielded, mut looks) = (Duration::ZERO, 0);
        let end = clock.get() + length;
        while clock.get() < end {
            match pace.next(|| clock.get()) {
                Pause::Spin | Pause::Yield if looks < SPINS + YIELDS => looks += 1,
                Pause::Spin => panic!("no spinning after the short looks"),
                Pause::Yield => {
                    clock.set(clock.get() + TICK);
                    yielded += TICK;
                }
                Pause::Doze(_) | Pause::Sleep => clock.set(end),
            }
        }
        pace.worked(|| clock.get());
        yielded
    }

    const TICK: Duration = Duration::from_micros(1);

    #[test]
    fn a_thread_yields_for_longer_while_that_pays() {
        let clock = Cell::new(Instant::now());
        let places = Places::new(16);
        let mut pace = Pace::new(Duration::from_millis(1), &places);
        let short = Duration::from_micros(160);
        let pauses = |pace: &mut Pace<'_>, length, count| {
            (0..count)
                .map(|_| pause(pace, &clock, length))
                .last()
                .unwrap()
        };
        assert_eq!(pauses(&mut pace, short, 1), Duration::ZERO);
        // It has learned how long the pauses are.
        let learned = pauses(&mut pace, short, 5);
        assert!(learned >= short && learned < 2 * short, "{learned:?}");
        // It gives up after some long ones.
        let long = Duration::from_millis(20);
        assert!(pauses(&mut pace, long, 1) <= MOST_PATIENCE);
        assert_eq!(pauses(&mut pace, long, 5), Duration::ZERO);
    }

    #[test]
    fn a_thread_that_yields_for_longer_has_four_processors() {
        let clock = Cell::new(Instant::now());
        let short = Duration::from_micros(100);
        for (processors, most) in [(1, 0), (3, 0), (4, 1), (7, 1), (8, 2)] {
            let places = Places::new(processors);
            let mut paces: Vec<Pace<'_>> =
                (0..3).map(|_| Pace::new(Duration::ZERO, &places)).collect();
            for pace in &mut paces {
                for _ in 0..4 {
                    pause(pace, &clock, short);
                }
            }
            // All pauses begin at the same time.
            let patient = paces.iter_mut().filter_map(|pace| {
                let is_yield = |_| pace.next(|| clock.get()) == Pause::Yield;
                (0..=SPINS + YIELDS)
                    .map(is_yield)
                    .last()
                    .filter(|last| *last)
            });
            assert_eq!(patient.count(), most, "{processors} processors");
            paces
                .iter_mut()
                .for_each(|pace| pace.worked(|| clock.get()));
            assert_eq!(places.taken.load(Ordering::Relaxed), 0);
        }
    }
}
