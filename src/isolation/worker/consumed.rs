//! [`Consumed`]: how many bytes of commands the context has consumed.

use std::sync::{Arc, Mutex};

use hesper_system::budget::{Charge, Told};
use hesper_system::sync::Lock;

use super::super::message::{FromWorker, SMALL_BATCH};
use super::line::Line;

/// So many bytes are reported together while more wait. The main process counts them as taken until
/// then.
const TOGETHER: u64 = 64 << 10;

/// Counts bytes of batches that are not small.
pub(super) struct Consumed {
    line: Arc<Line>,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    /// Bytes that wait to be consumed.
    waiting: u64,
    /// Bytes that are consumed, of which the main process does not know.
    unreported: u64,
}

impl Counts {
    /// So many are consumed. Returns what is to be reported now.
    fn consume(&mut self, bytes: u64) -> Option<u64> {
        self.waiting = self.waiting.saturating_sub(bytes);
        self.unreported = self.unreported.saturating_add(bytes);
        let is_due = self.unreported >= TOGETHER || self.waiting == 0;
        is_due.then(|| std::mem::take(&mut self.unreported))
    }
}

impl Consumed {
    pub(super) fn new(line: Arc<Line>) -> Self {
        Self {
            line,
            counts: Mutex::default(),
        }
    }

    /// A charge for a batch of so many bytes: when it is dropped, they are consumed.
    pub(super) fn charge(self: &Arc<Self>, bytes: usize) -> Charge {
        if bytes < SMALL_BATCH {
            return Charge::default();
        }
        self.counts.locked().waiting += bytes as u64;
        Charge::telling(bytes as u64, Arc::clone(self) as Arc<dyn Told>)
    }
}

impl Told for Consumed {
    fn given_back(&self, amount: u64) {
        let due = self.counts.locked().consume(amount);
        if let Some(bytes) = due {
            self.line.tell(&FromWorker::Consumed { bytes }, &[]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn much_is_reported_together_and_the_last_at_once() {
        let mut counts = Counts {
            waiting: 100_000,
            unreported: 0,
        };
        assert_eq!(counts.consume(30_000), None);
        assert_eq!(counts.consume(30_000), None);
        assert_eq!(counts.consume(6_000), Some(66_000));
        assert_eq!(counts.consume(30_000), None);
        assert_eq!(counts.consume(4_000), Some(34_000));
    }
}
