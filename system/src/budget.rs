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

use crate::share::Share;

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
            of: Some(Of::Pool(Arc::clone(self))),
            amount,
        })
    }

    /// Takes `amount` if that much is there and `is_fair` agrees with what is left then.
    pub(crate) fn take_if(&self, amount: u64, is_fair: impl Fn(u64) -> bool) -> bool {
        let order = Ordering::Relaxed;
        let sum = |used: u64| {
            let sum = used.checked_add(amount)?;
            let left = self.limit.checked_sub(sum)?;
            is_fair(left).then_some(sum)
        };
        self.used.fetch_update(order, order, sum).is_ok()
    }

    /// Takes `amount` even if that much is not there.
    pub(crate) fn force(&self, amount: u64) {
        self.used.fetch_add(amount, Ordering::Relaxed);
    }

    /// Gives back a part of what was taken.
    pub(crate) fn give_back(&self, amount: u64) {
        self.used.fetch_sub(amount, Ordering::Relaxed);
    }

    /// How much there is in all.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// How much is left.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.limit.saturating_sub(self.used())
    }

    /// How much is in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// A part of a [`Pool`] or of a [`Share`] of one, given back on drop. The default is nothing of no
/// pool.
#[derive(Debug, Default)]
#[must_use]
pub struct Charge {
    of: Option<Of>,
    amount: u64,
}

/// Where a charge is given back.
#[derive(Debug)]
enum Of {
    Pool(Arc<Pool>),
    Share(Arc<Share>),
}

impl Of {
    fn give_back(&self, amount: u64) {
        match self {
            Self::Pool(pool) => pool.give_back(amount),
            Self::Share(share) => share.give_back(amount),
        }
    }
}

impl Charge {
    /// What was taken of a share.
    pub(crate) fn of_share(share: &Arc<Share>, amount: u64) -> Self {
        Self {
            of: Some(Of::Share(Arc::clone(share))),
            amount,
        }
    }

    /// How much it is.
    #[must_use]
    pub fn amount(&self) -> u64 {
        self.amount
    }

    /// Gives back all but `amount`. Does nothing when less was taken.
    pub fn shrink_to(&mut self, amount: u64) {
        let surplus = self.amount.saturating_sub(amount);
        if let Some(of) = &self.of {
            of.give_back(surplus);
        }
        self.amount -= surplus;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(of) = &self.of {
            of.give_back(self.amount);
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
