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

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use crate::granted::Source;

use crate::granted::Granted;
use crate::share::Share;

/// A limited amount of something.
#[derive(Debug)]
pub struct Pool(Stock);

/// What a pool gives out.
#[derive(Debug)]
enum Stock {
    /// An amount of its own.
    Own { limit: u64, used: AtomicU64 },
    /// What somebody else grants.
    Granted(Granted),
}

impl Pool {
    /// A pool with `limit` of it.
    #[must_use]
    pub fn new(limit: u64) -> Arc<Self> {
        let used = AtomicU64::new(0);
        Arc::new(Self(Stock::Own { limit, used }))
    }

    /// A pool that has nothing of its own. It asks `source` when it is short, and gives back what
    /// it does not need. The source decides what is fair: shares of this pool have no part of their
    /// own, and take whatever the source grants.
    #[must_use]
    pub fn from_source(source: Arc<dyn Source>) -> Arc<Self> {
        Arc::new(Self(Stock::Granted(Granted::new(source))))
    }

    /// Takes `amount`, or nothing when that much is not left.
    pub fn charge(self: &Arc<Self>, amount: u64) -> Option<Charge> {
        self.take_if(amount, |_| true).then(|| Charge {
            of: Some(Of::Pool(Arc::clone(self))),
            amount,
        })
    }

    /// Takes `amount` if that much is there and `is_fair` agrees with what is left then. A source
    /// knows by itself what is fair.
    pub(crate) fn take_if(&self, amount: u64, is_fair: impl Fn(u64) -> bool) -> bool {
        let (limit, used) = match &self.0 {
            Stock::Own { limit, used } => (limit, used),
            Stock::Granted(granted) => return granted.take(amount),
        };
        let order = Ordering::Relaxed;
        let sum = |used: u64| {
            let sum = used.checked_add(amount)?;
            let left = limit.checked_sub(sum)?;
            is_fair(left).then_some(sum)
        };
        used.fetch_update(order, order, sum).is_ok()
    }

    /// Takes `amount` even if that much is not there.
    pub(crate) fn force(&self, amount: u64) {
        match &self.0 {
            Stock::Own { used, .. } => {
                used.fetch_add(amount, Ordering::Relaxed);
            }
            // Only shares with a part of their own force, and those of a source have none.
            Stock::Granted(_) => debug_assert!(false, "{amount} cannot be forced from a source"),
        }
    }

    /// Gives back a part of what was taken.
    pub(crate) fn give_back(&self, amount: u64) {
        match &self.0 {
            Stock::Own { used, .. } => {
                used.fetch_sub(amount, Ordering::Relaxed);
            }
            Stock::Granted(granted) => granted.give_back(amount),
        }
    }

    /// Whether somebody else decides what it gives out.
    pub(crate) fn has_source(&self) -> bool {
        matches!(self.0, Stock::Granted(_))
    }

    /// How much there is in all: with a source, what it has granted until now.
    #[must_use]
    pub fn limit(&self) -> u64 {
        match &self.0 {
            Stock::Own { limit, .. } => *limit,
            Stock::Granted(granted) => granted.total(),
        }
    }

    /// How much is left. Asks the source, if there is one.
    #[must_use]
    pub fn left(&self) -> u64 {
        match &self.0 {
            Stock::Own { limit, .. } => limit.saturating_sub(self.used()),
            Stock::Granted(granted) => granted.left(),
        }
    }

    /// How much is in use.
    #[must_use]
    pub fn used(&self) -> u64 {
        match &self.0 {
            Stock::Own { used, .. } => used.load(Ordering::Relaxed),
            Stock::Granted(granted) => granted.used(),
        }
    }
}

/// Who is told what a [`Charge::telling`] gives back.
pub trait Told: Send + Sync {
    /// This much is given back. Called by whoever drops or shrinks the charge, so it must not block
    /// for long.
    fn given_back(&self, amount: u64);
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
enum Of {
    Pool(Arc<Pool>),
    Share(Arc<Share>),
    Told(Arc<dyn Told>),
}

impl fmt::Debug for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pool(pool) => pool.fmt(f),
            Self::Share(share) => share.fmt(f),
            Self::Told(_) => f.write_str("Told"),
        }
    }
}

impl Of {
    fn give_back(&self, amount: u64) {
        match self {
            Self::Pool(pool) => pool.give_back(amount),
            Self::Share(share) => share.give_back(amount),
            Self::Told(whom) => whom.given_back(amount),
        }
    }
}

impl Charge {
    /// An amount that was taken elsewhere. `whom` is told when it is given back.
    pub fn telling(amount: u64, whom: Arc<dyn Told>) -> Self {
        Self {
            of: Some(Of::Told(whom)),
            amount,
        }
    }

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
        if let Some(of) = self.of.as_ref().filter(|_| surplus > 0) {
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
    use std::sync::Mutex;

    use super::*;
    use crate::sync::Lock;

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

    #[test]
    fn who_lent_a_charge_is_told_what_is_given_back() {
        #[derive(Default)]
        struct Lender(Mutex<Vec<u64>>);
        impl Told for Lender {
            fn given_back(&self, amount: u64) {
                self.0.locked().push(amount);
            }
        }
        let lender = Arc::new(Lender::default());
        let mut charge = Charge::telling(10, Arc::clone(&lender) as Arc<dyn Told>);
        charge.shrink_to(20);
        assert!(lender.0.locked().is_empty());
        charge.shrink_to(4);
        assert_eq!(charge.amount(), 4);
        drop(charge);
        assert_eq!(*lender.0.locked(), [6, 4]);
    }
}
