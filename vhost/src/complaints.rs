//! Log lines that a guest can cause, limited in their rate.
//!
//! A guest that sends nonsense in a loop must not fill the host's disk: at most `BURST` lines per `PERIOD`
//! reach the log, and the first line of a period says how many were left out before it.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines per period.
const BURST: u32 = 20;
/// Length of a period.
const PERIOD: Duration = Duration::from_secs(10);

struct Period {
    start: Instant,
    lines: u32,
    left_out: u64,
}

/// What was said of one guest, of late.
pub struct Complaints {
    period: Mutex<Period>,
}

impl Default for Complaints {
    fn default() -> Self {
        Self::new()
    }
}

impl Complaints {
    /// Nothing was said yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            period: Mutex::new(Period {
                start: Instant::now(),
                lines: 0,
                left_out: 0,
            }),
        }
    }

    /// Logs a warning, or counts it as left out.
    pub fn warn(&self, text: fmt::Arguments<'_>) {
        match self.admit(Instant::now()) {
            Some(0) => log::warn!("{text}"),
            Some(left_out) => log::warn!("{text} ({left_out} similar lines left out before)"),
            None => {}
        }
    }

    /// How many lines were left out since the last one, when this line may be written.
    fn admit(&self, now: Instant) -> Option<u64> {
        let mut period = self.period.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(period.start) >= PERIOD {
            period.start = now;
            period.lines = 0;
        }
        if period.lines < BURST {
            period.lines += 1;
            Some(std::mem::take(&mut period.left_out))
        } else {
            period.left_out += 1;
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let complaints = Complaints::new();
        let start = Instant::now();
        let written = (0..1000)
            .filter(|_| complaints.admit(start).is_some())
            .count();
        assert_eq!(written, BURST as usize);
        assert_eq!(
            complaints.admit(start + PERIOD),
            Some(1000 - u64::from(BURST))
        );
        assert_eq!(complaints.admit(start + PERIOD), Some(0));
    }
}
