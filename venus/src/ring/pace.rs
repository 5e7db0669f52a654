//! How a ring's thread waits for its guest: spin, doze, sleep.
//!
//! A guest that makes calls with replies is back within a microsecond or two, so spinning pays.
//! Then the thread yields the processor for a while. Then it may sleep, and a notification wakes
//! it. But the guest notifies only once per idle timeout. For that long after each notification,
//! nobody would wake a sleeping ring, so the thread dozes and looks by itself.

use std::time::{Duration, Instant};

/// Looks at the tail without a yield: about two microseconds.
const SPINS: u32 = 60;
/// Looks with a yield in between: some 20 µs when nobody else wants the processor.
const YIELDS: u32 = 40;
/// The first doze. Each further one is twice as long, up to [`LONGEST_DOZE`].
const FIRST_DOZE: Duration = Duration::from_micros(30);
const LONGEST_DOZE: Duration = Duration::from_micros(250);

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

/// Decides how to wait.
#[derive(Debug)]
pub(crate) struct Pace {
    idle_timeout: Duration,
    looks: u32,
    doze: Duration,
    notified: Option<Instant>,
}

impl Pace {
    /// A pace for a ring whose guest notifies at most once per `idle_timeout`.
    pub(crate) fn new(idle_timeout: Duration) -> Self {
        Self {
            // An hour is as good as any longer time, and cannot overflow.
            idle_timeout: idle_timeout.min(Duration::from_secs(3600)),
            looks: 0,
            doze: FIRST_DOZE,
            notified: None,
        }
    }

    /// There was work.
    pub(crate) fn worked(&mut self) {
        self.looks = 0;
        self.doze = FIRST_DOZE;
    }

    /// The guest notified at `now`.
    pub(crate) fn notified(&mut self, now: Instant) {
        self.notified = Some(now);
    }

    /// There was no work. `now` is called only if the time matters.
    pub(crate) fn next(&mut self, now: impl FnOnce() -> Instant) -> Pause {
        if self.looks < SPINS {
            self.looks += 1;
            return Pause::Spin;
        }
        if self.looks < SPINS + YIELDS {
            self.looks += 1;
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
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The waits of a quiet guest up to the first sleep. Each doze takes its full time.
    fn until_sleep(pace: &mut Pace, mut now: Instant) -> (u32, Duration) {
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
        let mut pace = Pace::new(timeout);
        let start = Instant::now();
        assert_eq!(
            until_sleep(&mut pace, start),
            (SPINS + YIELDS, Duration::ZERO)
        );

        pace.worked();
        pace.notified(start);
        let (looks, dozed) = until_sleep(&mut pace, start);
        assert_eq!(looks, SPINS + YIELDS);
        assert!(dozed >= timeout && dozed < 2 * timeout, "{dozed:?}");

        pace.worked();
        assert_eq!(until_sleep(&mut pace, start + timeout).1, Duration::ZERO);
    }

    #[test]
    fn an_absurd_timeout_overflows_nothing() {
        let mut pace = Pace::new(Duration::MAX);
        pace.notified(Instant::now());
        for _ in 0..1000 {
            pace.next(Instant::now);
        }
    }
}
