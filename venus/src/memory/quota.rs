//! [`Quota`]: how much shared memory a context may make.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::counters::{Tally, add, sub};

/// A limit in bytes, and what is used of it.
#[derive(Debug)]
pub(crate) struct Quota {
    limit: u64,
    used: AtomicU64,
    tally: Arc<Tally>,
}

/// Bytes taken of a quota, given back on drop.
#[derive(Debug)]
pub(crate) struct Charge {
    quota: Arc<Quota>,
    bytes: u64,
}

impl Quota {
    /// A quota of which nothing is used. `tally` counts what is used, too.
    pub(crate) fn new(limit: u64, tally: Arc<Tally>) -> Self {
        Self {
            limit,
            used: AtomicU64::new(0),
            tally,
        }
    }

    /// Takes `bytes`. `None` when less is left.
    pub(crate) fn charge(self: &Arc<Self>, bytes: u64) -> Option<Charge> {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(bytes).filter(|sum| *sum <= self.limit)
            })
            .ok()?;
        add(&self.tally.shared_bytes, bytes);
        Some(Charge {
            quota: Arc::clone(self),
            bytes,
        })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.quota.used.fetch_sub(self.bytes, Ordering::Relaxed);
        sub(&self.quota.tally.shared_bytes, self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_can_be_taken_again() {
        let quota = Arc::new(Quota::new(10, Arc::default()));
        let six = quota.charge(6).unwrap();
        assert!(quota.charge(5).is_none());
        assert!(quota.charge(u64::MAX).is_none());
        let _four = quota.charge(4).unwrap();
        drop(six);
        assert!(quota.charge(6).is_some());
    }
}
