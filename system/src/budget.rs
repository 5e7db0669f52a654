//! Budgets: limited amounts of bytes or other things, shared by many threads.
//!
//! A [`Charge`] is taken from a [`Pool`] before the memory is allocated, lives beside it, and gives
//! the amount back when it is dropped.
//!
//! ```
//! let pool = hesper_system::budget::Pool::new(100);
//! let charge = pool.charge(60).expect("there is enough");
//! assert!(pool.charge(60).is_none());
//! drop(charge);
//! assert_eq!(pool.used(), 0);
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A limited amount of something.
#[derive(Debug)]
pub struct Pool {
    limit: u64,
    used: AtomicU64,
}

impl Pool {
    /// A pool with `limit` of it.
    #[must_use]
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicU64::new(0),
        })
    }

    /// Takes `amount`, or nothing when that much is not left.
    pub fn charge(self: &Arc<Self>, amount: u64) -> Option<Charge> {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(amount).filter(|sum| *sum <= self.limit)
            })
            .ok()?;
        Some(Charge {
            pool: Some(Arc::clone(self)),
            amount,
        })
    }

    /// How much is in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// A part of a [`Pool`], given back on drop. The default is nothing of no pool.
#[derive(Debug, Default)]
#[must_use]
pub struct Charge {
    pool: Option<Arc<Pool>>,
    amount: u64,
}

impl Charge {
    /// How much it is.
    #[must_use]
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// Gives back all but `amount`. Does nothing when less was taken.
    pub fn shrink_to(&mut self, amount: u64) {
        let surplus = self.amount.saturating_sub(amount);
        if let Some(pool) = &self.pool {
            pool.used.fetch_sub(surplus, Ordering::Relaxed);
        }
        self.amount -= surplus;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.used.fetch_sub(self.amount, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_gives_out_its_limit_and_takes_it_back() {
        let pool = Pool::new(10);
        let mut first = pool.charge(6).unwrap();
        assert!(pool.charge(5).is_none());
        assert!(pool.charge(u64::MAX).is_none());
        let second = pool.charge(4).unwrap();
        first.shrink_to(1);
        assert_eq!(pool.used(), 5);
        drop((first, second));
        assert_eq!(pool.used(), 0);
        assert_eq!(Charge::default().amount(), 0);
    }
}
