//! What a guest can make this process say, limited in its rate.
//!
//! A guest that sends nonsense in a loop must not fill the host's disk: at most so many lines per period reach the log, and
//! the first line of a period says how many were left out before it.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines per period in a log.
const BURST: u32 = 20;
/// Length of a period of a log.
const PERIOD: Duration = Duration::from_secs(10);

struct Period {
    /// When it began; `None` before the first line.
    start: Option<Instant>,
    lines: u32,
    left_out: u64,
}

/// What was said of one guest, of late.
pub struct Complaints {
    burst: u32,
    length: Duration,
    period: Mutex<Period>,
}

impl Default for Complaints {
    fn default() -> Self {
        Self::new()
    }
}

impl Complaints {
    /// Nothing was said yet; 20 lines in 10 seconds may be.
    #[must_use]
    pub const fn new() -> Self {
        Self::limited(BURST, PERIOD)
    }

    /// Nothing was said yet; at most `lines` in each `period` may be.
    #[must_use]
    pub const fn limited(lines: u32, period: Duration) -> Self {
        Self {
            burst: lines,
            length: period,
            period: Mutex::new(Period {
                start: None,
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

    /// How many lines were left out since the last one, when a line may be written `now`; otherwise it counts as left out.
    pub fn admit(&self, now: Instant) -> Option<u64> {
        let mut period = self.period.lock().unwrap_or_else(PoisonError::into_inner);
        let over = |start| now.saturating_duration_since(start) >= self.length;
        if period.start.is_none_or(over) {
            period.start = Some(now);
            period.lines = 0;
        }
        if period.lines < self.burst {
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
