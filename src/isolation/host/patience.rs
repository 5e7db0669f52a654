//! [`Patience`]: how long the device waits for workers, so that they cannot stop it.
//!
//! The device waits only for guest memory that must be given back. A worker answers within some 50
//! microseconds; one that is a guest's may never answer. Short waits are free. Longer ones take
//! from what is left, which grows again slowly.

use std::time::{Duration, Instant};

/// This much of each wait is free.
pub(super) const FREE: Duration = Duration::from_millis(2);
/// What is left grows by this part of the time that passes.
const GROWTH: u32 = 10;

/// How much longer somebody may be waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    left: Duration,
    most: Duration,
    since: Instant,
}

impl Patience {
    /// All of it, at most `most`.
    pub(super) fn new(most: Duration, now: Instant) -> Self {
        Self {
            left: most,
            most,
            since: now,
        }
    }

    /// How long one wait may take now.
    pub(super) fn left(&mut self, now: Instant) -> Duration {
        let grown = now.saturating_duration_since(self.since) / GROWTH;
        self.left = self.most.min(self.left + grown);
        self.since = now;
        self.left + FREE
    }

    /// A wait has taken so long until `now`.
    pub(super) fn take(&mut self, waited: Duration, now: Instant) {
        self.left(now);
        self.left = self.left.saturating_sub(waited.saturating_sub(FREE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quick_answers_are_free_and_slow_ones_have_a_limit_that_grows_again() {
        let begin = Instant::now();
        let second = Duration::from_secs(1);
        let mut patience = Patience::new(second, begin);
        for _ in 0..1_000_000 {
            patience.take(Duration::from_micros(500), begin);
        }
        assert_eq!(patience.left(begin), second + FREE);
        patience.take(second * 5, begin);
        assert_eq!(patience.left(begin), FREE);
        let later = begin + Duration::from_secs(3);
        assert_eq!(patience.left(later), second * 3 / 10 + FREE);
        patience.take(FREE + second / 10, later);
        assert_eq!(patience.left(later), second / 5 + FREE);
        assert_eq!(patience.left(later + second * 100), second + FREE);
    }
}
