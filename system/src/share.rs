//! [`Share`]: one user's part of a [`Pool`], so that no user takes everything.
//!
//! A user may hold up to seven times what is left for others. One greedy user gets seven
//! eighths of the pool. Two get seven fifteenths each, and so on. There is always something left
//! for the next, but it gets little. So a user may have an amount of its own besides, which nobody
//! else can take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::budget::{Charge, Pool};

/// How many times as much as is left one user may hold.
const FACTOR: u64 = 7;

/// What one user holds of a pool. What it still holds in the end goes back to the pool.
#[derive(Debug)]
pub struct Share {
    pool: Arc<Pool>,
    limit: u64,
    /// What it may hold without the pool.
    own: u64,
    used: AtomicU64,
}

impl Share {
    /// A share of `pool` that holds nothing yet, and never more than `limit`.
    #[must_use]
    pub fn new(pool: &Arc<Pool>, limit: u64) -> Arc<Self> {
        Self::with_own(pool, limit, 0)
    }

    /// The same, but the first `own` do not count as the pool's. A pool that has a source leaves
    /// that to the source.
    #[must_use]
    pub fn with_own(pool: &Arc<Pool>, limit: u64, own: u64) -> Arc<Self> {
        Arc::new(Self {
            pool: Arc::clone(pool),
            limit,
            own: if pool.has_source() { 0 } else { own },
            used: AtomicU64::new(0),
        })
    }

    /// What is the pool's when so much is held.
    fn of_pool(&self, held: u64) -> u64 {
        held.saturating_sub(self.own)
    }

    /// Takes `amount`. False, and nothing is taken, when that is more than this user may hold now.
    #[must_use]
    pub fn take(&self, amount: u64) -> bool {
        let within = |used: u64| used.checked_add(amount).filter(|sum| *sum <= self.limit);
        let order = Ordering::Relaxed;
        let Ok(before) = self.used.fetch_update(order, order, within) else {
            return false;
        };
        let held = self.of_pool(before + amount);
        let more = held - self.of_pool(before);
        let is_fair = |left: u64| held <= left.saturating_mul(FACTOR);
        let is_taken = more == 0 || self.pool.take_if(more, is_fair);
        if !is_taken && self.own == 0 {
            self.used.fetch_sub(amount, order);
        } else if !is_taken {
            // Others may have given something back meanwhile, so that another part of this amount
            // would be the pool's now.
            self.pool.force(more);
            self.give_back(amount);
        }
        is_taken
    }

    /// Gives back a part of what was taken.
    pub fn give_back(&self, amount: u64) {
        let before = self.used.fetch_sub(amount, Ordering::Relaxed);
        let less = self.of_pool(before) - self.of_pool(before - amount);
        self.pool.give_back(less);
    }

    /// Takes `amount` until the value is dropped. `None` when that is more than this user may hold
    /// now.
    pub fn charge(self: &Arc<Self>, amount: u64) -> Option<Charge> {
        self.take(amount).then(|| Charge::of_share(self, amount))
    }

    /// The most that this share ever holds.
    #[must_use]
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// How much it holds.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// How much more it may take now, if nobody else takes anything.
    #[must_use]
    pub fn left(&self) -> u64 {
        let (used, free) = (self.used(), self.pool.left());
        if self.pool.has_source() {
            return free.min(self.limit.saturating_sub(used));
        }
        // The largest x with held + x <= FACTOR * (free - x).
        let held = self.of_pool(used);
        let fair = free.saturating_mul(FACTOR).saturating_sub(held) / (FACTOR + 1);
        let fair = fair.saturating_add(self.own.saturating_sub(used));
        fair.min(self.limit.saturating_sub(used))
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let used = *self.used.get_mut();
        self.pool.give_back(self.of_pool(used));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greedy_users_leave_something_for_the_next() {
        let pool = Pool::new(800);
        let shares: Vec<Arc<Share>> = (0..4).map(|_| Share::new(&pool, u64::MAX)).collect();
        for (share, most) in shares.iter().zip([700, 87, 11, 1]) {
            assert!(share.left() >= most, "{share:?}");
            while share.take(1) {}
            assert!(share.used() >= most, "{share:?}");
            assert_eq!(share.left(), 0);
        }
        drop(shares);
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn what_is_a_users_own_cannot_be_taken_by_others() {
        let pool = Pool::new(80);
        let shares: Vec<Arc<Share>> = (0..20)
            .map(|_| Share::with_own(&pool, u64::MAX, 3))
            .collect();
        while shares.iter().take(19).any(|share| share.take(1)) {}
        let last = &shares[19];
        assert!(last.take(1) && last.take(2));
        assert_eq!(last.left(), 0);
        assert!(!last.take(1), "the pool is empty");
        assert!(last.used() == 3 && pool.used() <= 80);
        last.give_back(2);
        assert!(last.take(2));
        // Many threads take and give back at the boundary.
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for round in 0..20_000 {
                        if last.take(1 + round % 4) {
                            last.give_back(1 + round % 4);
                        }
                    }
                });
            }
        });
        drop(shares);
        assert_eq!(pool.used(), 0);
    }

    #[test]
    fn a_share_has_a_limit_of_its_own_and_gives_back_what_it_took() {
        let pool = Pool::new(1000);
        let share = Share::new(&pool, 10);
        let six = share.charge(6).unwrap();
        assert!(share.charge(5).is_none());
        assert!(share.charge(u64::MAX).is_none());
        assert_eq!((share.used(), share.left(), pool.used()), (6, 4, 6));
        drop(six);
        assert!(share.take(10));
        assert!(!share.take(1));
        share.give_back(3);
        assert_eq!(pool.used(), 7);
        // A charge outlives its user, as shared memory outlives its context.
        let charge = share.charge(1).unwrap();
        drop(share);
        assert_eq!(pool.used(), 8);
        drop(charge);
        assert_eq!(pool.used(), 0);
    }
}
