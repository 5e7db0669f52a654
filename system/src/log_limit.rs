//! Limits for log lines that a guest can cause as often as it likes.
//!
//! A guest that sends nonsense in a loop must not fill the host's disk. At most so many lines per
//! period reach the log. The first line of a period says how many were left out before it.
//!
//! ```
//! static REFUSED: hesper_system::LogLimit = hesper_system::LogLimit::new("hesper_vhost");
//!
//! REFUSED.warn(format_args!("SUBMIT_3D refused"));
//! ```

use std::fmt;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::sync::Lock;

/// Lines per period in a log.
pub const LINES: u32 = 20;
/// Length of a period of a log.
pub const PERIOD: Duration = Duration::from_secs(10);

/// Lets at most so many events per period through, and counts the others.
pub struct RateLimit {
    most: u32,
    length: Duration,
    period: Mutex<Period>,
}

struct Period {
    /// When it began; `None` before the first event.
    start: Option<Instant>,
    admitted: u32,
    left_out: u64,
}

impl RateLimit {
    /// Lets at most `most` events in each `length` through.
    #[must_use]
    pub const fn new(most: u32, length: Duration) -> Self {
        Self {
            most,
            length,
            period: Mutex::new(Period {
                start: None,
                admitted: 0,
                left_out: 0,
            }),
        }
    }

    /// Asks for one event `now`. Returns how many events were left out since the last one that was
    /// let through, or `None` when this one is left out too.
    pub fn admit(&self, now: Instant) -> Option<u64> {
        let mut period = self.period.locked();
        let over = |start| now.saturating_duration_since(start) >= self.length;
        if period.start.is_none_or(over) {
            period.start = Some(now);
            period.admitted = 0;
        }
        if period.admitted < self.most {
            period.admitted += 1;
            Some(std::mem::take(&mut period.left_out))
        } else {
            period.left_out += 1;
            None
        }
    }
}

/// Lets at most 20 log lines in 10 seconds through.
pub struct LogLimit {
    target: &'static str,
    rate: RateLimit,
}

impl LogLimit {
    /// A limit for lines of the log target `target`, the name of a crate.
    #[must_use]
    pub const fn new(target: &'static str) -> Self {
        Self {
            target,
            rate: RateLimit::new(LINES, PERIOD),
        }
    }

    /// Logs a warning, or counts it as left out.
    pub fn warn(&self, text: fmt::Arguments<'_>) {
        let target = self.target;
        match self.rate.admit(Instant::now()) {
            Some(0) => log::warn!(target: target, "{text}"),
            Some(left_out) => {
                log::warn!(target: target, "{text} ({left_out} similar lines left out before)");
            }
            None => {}
        }
    }

    /// Logs a line at `level`. What is over the limit is logged at the level `debug`.
    pub fn log(&self, level: log::Level, text: fmt::Arguments<'_>) {
        let target = self.target;
        match self.rate.admit(Instant::now()) {
            Some(0) => log::log!(target: target, level, "{text}"),
            Some(more) => log::log!(
                target: target,
                level,
                "{text} ({more} more before it: RUST_LOG=debug writes them all)"
            ),
            None => log::debug!(target: target, "{text}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_cut_and_counted() {
        let limit = RateLimit::new(LINES, PERIOD);
        let start = Instant::now();
        let written: Vec<_> = (0..1000).filter_map(|_| limit.admit(start)).collect();
        assert_eq!(written, [0; LINES as usize]);
        assert_eq!(limit.admit(start + PERIOD), Some(1000 - u64::from(LINES)));
        assert_eq!(limit.admit(start + PERIOD), Some(0));
    }
}
