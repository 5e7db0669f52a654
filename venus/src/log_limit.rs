//! Log lines that guests can cause as often as they like, limited in their rate: a guest that loses contexts in a loop must
//! not fill the host's disk.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines per period.
const BURST: u32 = 20;
/// Length of a period.
const PERIOD: Duration = Duration::from_secs(10);

/// What may be said, and what was not.
pub(crate) struct LogLimit(Mutex<Period>);

struct Period {
    /// When the period began; `None` before the first line.
    since: Option<Instant>,
    lines: u32,
    left_out: u64,
}

/// Of all contexts of the process: they share its log.
pub(crate) static LOST_CONTEXTS: LogLimit = LogLimit::new();

/// Of calls that fail for a reason which their result does not tell.
pub(crate) static REFUSALS: LogLimit = LogLimit::new();

impl LogLimit {
    const fn new() -> Self {
        Self(Mutex::new(Period {
            since: None,
            lines: 0,
            left_out: 0,
        }))
    }

    /// At which level a line is to be written that deserves `level`, and what it adds about those that were left out.
    pub(crate) fn line(&self, level: log::Level, now: Instant) -> (log::Level, String) {
        match self.admit(now) {
            Some(0) => (level, String::new()),
            Some(more) => {
                let others = format!(" ({more} more before it: RUST_LOG=debug writes them all)");
                (level, others)
            }
            None => (log::Level::Debug, String::new()),
        }
    }

    /// How many lines were left out since the last one, when another may be written; without an answer, the line is for
    /// those who debug.
    fn admit(&self, now: Instant) -> Option<u64> {
        let mut period = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let over = |since| now.saturating_duration_since(since) >= PERIOD;
        if period.since.is_none_or(over) {
            period.since = Some(now);
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
        let limit = LogLimit::new();
        let start = Instant::now();
        let written: Vec<_> = (0..1000).filter_map(|_| limit.admit(start)).collect();
        assert_eq!(written, [0; BURST as usize]);
        assert_eq!(limit.admit(start + PERIOD), Some(1000 - u64::from(BURST)));
        assert_eq!(limit.admit(start + PERIOD), Some(0));
    }
}
