//! [`Granted`]: the stock of a [`crate::budget::Pool`] that has a [`Source`].
//!
//! The pool begins with nothing. It asks the source when it is short, and gives back what it does
//! not need. What is free is one number. Who takes and who gives back change nothing else, so they
//! need no lock. Only who talks to the source holds one: two threads that are short would ask
//! twice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::sync::Lock;

/// Where a pool gets what it gives out, such as another process that keeps the books. Its calls may
/// take as long as a message and its answer.
pub trait Source: Send + Sync + std::fmt::Debug {
    /// Asks for `amount`. The answer is at least that much, or 0 for nothing. A source that is
    /// expensive to ask grants whole chunks.
    fn ask(&self, amount: u64) -> u64;

    /// Takes back a part of what it granted.
    fn give_back(&self, amount: u64);

    /// How much more it would grant now.
    fn left(&self) -> u64;

    /// How much a pool may keep without need. It gives back what is beyond twice as much.
    fn chunk(&self) -> u64;
}

/// What a source granted. What is still here in the end goes back to the source.
#[derive(Debug)]
pub(crate) struct Granted {
    source: Arc<dyn Source>,
    /// [`Source::chunk`].
    chunk: u64,
    /// What the source granted, without what it has back.
    total: AtomicU64,
    /// What of it nobody has taken.
    free: AtomicU64,
    /// Held while the source is asked, or gets something back.
    asking: Mutex<()>,
}

impl Granted {
    /// Nothing yet.
    pub(crate) fn new(source: Arc<dyn Source>) -> Self {
        Self {
            chunk: source.chunk(),
            source,
            total: AtomicU64::new(0),
            free: AtomicU64::new(0),
            asking: Mutex::new(()),
        }
    }

    /// Takes `amount`. Asks the source if that much is not free. False, and nothing is taken, when
    /// the source refuses.
    pub(crate) fn take(&self, amount: u64) -> bool {
        let order = Ordering::Relaxed;
        let less = |free: u64| free.checked_sub(amount);
        self.free.fetch_update(order, order, less).is_ok() || self.ask(amount)
    }

    /// The same when too little was free a moment ago.
    #[cold]
    fn ask(&self, amount: u64) -> bool {
        let order = Ordering::Relaxed;
        let _alone = self.asking.locked();
        loop {
            // Nobody else can take what is free from here on, so only what is missing is asked for.
            // Others who are short wait for the lock.
            let free = self.free.swap(0, order);
            let Some(missing) = amount.checked_sub(free).filter(|missing| *missing > 0) else {
                // Something was given back, or granted to another thread.
                self.free.fetch_add(free - amount, order);
                return true;
            };
            let granted = self.source.ask(missing);
            self.total.fetch_add(granted, order);
            if let Some(surplus) = granted.checked_sub(missing) {
                self.free.fetch_add(surplus, order);
                self.give_surplus_back();
                return true;
            }
            // A source that grants too little has granted what nobody needs.
            if granted > 0 {
                self.total.fetch_sub(granted, order);
                self.source.give_back(granted);
            }
            if self.free.fetch_add(free, order) == 0 {
                return false;
            }
            // Something was given back meanwhile: it may be enough now.
        }
    }

    /// Gives back a part of what was taken.
    pub(crate) fn give_back(&self, amount: u64) {
        let free = self.free.fetch_add(amount, Ordering::Relaxed);
        if free.saturating_add(amount) > self.chunk.saturating_mul(2) {
            // What is on its way to the source is neither here nor there: who asks must not be
            // refused for it.
            let _alone = self.asking.locked();
            self.give_surplus_back();
        }
    }

    /// Gives back to the source what is beyond one chunk, if more than two are free. Nobody may ask
    /// meanwhile.
    fn give_surplus_back(&self) {
        let order = Ordering::Relaxed;
        let most = self.chunk.saturating_mul(2);
        let fewer = |free: u64| (free > most).then_some(self.chunk);
        if let Ok(free) = self.free.fetch_update(order, order, fewer) {
            let surplus = free - self.chunk;
            self.total.fetch_sub(surplus, order);
            self.source.give_back(surplus);
        }
    }

    /// What the source has granted.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }

    /// What is taken. Too much or too little while other threads take and give back.
    pub(crate) fn used(&self) -> u64 {
        self.total()
            .saturating_sub(self.free.load(Ordering::Relaxed))
    }

    /// How much can be taken now.
    pub(crate) fn left(&self) -> u64 {
        let free = self.free.load(Ordering::Relaxed);
        free.saturating_add(self.source.left())
    }
}

impl Drop for Granted {
    fn drop(&mut self) {
        let total = *self.total.get_mut();
        if total > 0 {
            self.source.give_back(total);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::sync::{OnceLock, Weak};

    use super::*;
    use crate::budget::{Charge, Pool};
    use crate::share::Share;

    /// A source of `limit` that grants whole chunks, or the rest.
    #[derive(Debug)]
    struct Bank {
        limit: u64,
        granted: AtomicU64,
        questions: AtomicU64,
        is_asked: AtomicBool,
        /// Dropped while the bank is asked.
        meanwhile: Mutex<Option<Charge>>,
    }

    impl Bank {
        fn new(limit: u64) -> Arc<Self> {
            Arc::new(Self {
                limit,
                granted: AtomicU64::new(0),
                questions: AtomicU64::new(0),
                is_asked: AtomicBool::new(false),
                meanwhile: Mutex::new(None),
            })
        }

        fn granted(&self) -> u64 {
            self.granted.load(Ordering::Relaxed)
        }

        fn questions(&self) -> u64 {
            self.questions.load(Ordering::Relaxed)
        }
    }

    impl Source for Bank {
        fn ask(&self, amount: u64) -> u64 {
            let is_asked = self.is_asked.swap(true, Ordering::Relaxed);
            assert!(!is_asked, "two threads ask at the same time");
            drop(self.meanwhile.locked().take());
            // As long as a message takes, others go on.
            std::thread::yield_now();
            self.questions.fetch_add(1, Ordering::Relaxed);
            let order = Ordering::Relaxed;
            let chunks = amount.checked_next_multiple_of(self.chunk());
            let granted = [chunks.unwrap_or(amount), amount].into_iter().find(|more| {
                let sum = |granted: u64| {
                    let sum = granted.checked_add(*more)?;
                    (sum <= self.limit).then_some(sum)
                };
                self.granted.fetch_update(order, order, sum).is_ok()
            });
            self.is_asked.store(false, Ordering::Relaxed);
            granted.unwrap_or(0)
        }

        fn give_back(&self, amount: u64) {
            std::thread::yield_now();
            let before = self.granted.fetch_sub(amount, Ordering::Relaxed);
            assert!(before >= amount, "more than was granted");
        }

        fn left(&self) -> u64 {
            self.limit - self.granted()
        }

        fn chunk(&self) -> u64 {
            10
        }
    }

    #[test]
    fn a_source_is_asked_for_what_is_missing_and_gets_the_surplus_back() {
        let bank = Bank::new(100);
        let pool = Pool::from_source(Arc::clone(&bank) as Arc<dyn Source>);
        assert_eq!((pool.limit(), pool.left()), (0, 100));
        let first = pool.charge(3).unwrap();
        assert_eq!((pool.used(), bank.granted(), pool.left()), (3, 10, 97));
        // This is there already.
        let second = pool.charge(7).unwrap();
        assert_eq!(bank.questions(), 1);
        let third = pool.charge(25).unwrap();
        assert_eq!((pool.used(), bank.granted()), (35, 40));
        drop(third);
        assert_eq!((pool.used(), bank.granted()), (10, 20), "one chunk is kept");
        drop(first);
        drop(second);
        assert_eq!(
            (pool.used(), bank.granted()),
            (0, 20),
            "two are not too much"
        );
        drop(pool);
        assert_eq!(bank.granted(), 0);
    }

    #[test]
    fn what_the_source_refuses_changes_nothing() {
        let bank = Bank::new(35);
        let pool = Pool::from_source(Arc::clone(&bank) as Arc<dyn Source>);
        let charge = pool.charge(32).unwrap();
        assert_eq!(bank.granted(), 32, "whole chunks are not there");
        assert!(pool.charge(4).is_none());
        assert!(pool.charge(u64::MAX).is_none());
        assert_eq!((pool.used(), pool.left(), bank.granted()), (32, 3, 32));
        let rest = pool.charge(3).unwrap();
        assert!(pool.charge(1).is_none());
        drop((charge, rest));
        // What is here and what the source has left add up.
        drop(pool.charge(35).unwrap());
    }

    #[test]
    fn what_is_given_back_while_the_source_is_asked_can_be_taken() {
        let bank = Bank::new(20);
        let pool = Pool::from_source(Arc::clone(&bank) as Arc<dyn Source>);
        let first = pool.charge(10).unwrap();
        *bank.meanwhile.locked() = pool.charge(10);
        let second = pool.charge(10).expect("somebody else gives it back");
        assert_eq!((pool.used(), bank.granted()), (20, 20));
        drop((first, second));
    }

    #[test]
    fn a_source_that_grants_too_little_has_it_back() {
        #[derive(Debug, Default)]
        struct Miser(AtomicU64);
        impl Source for Miser {
            fn ask(&self, _amount: u64) -> u64 {
                self.0.fetch_add(1, Ordering::Relaxed);
                1
            }
            fn give_back(&self, amount: u64) {
                self.0.fetch_sub(amount, Ordering::Relaxed);
            }
            fn left(&self) -> u64 {
                u64::MAX
            }
            fn chunk(&self) -> u64 {
                0
            }
        }
        let miser = Arc::new(Miser::default());
        let pool = Pool::from_source(Arc::clone(&miser) as Arc<dyn Source>);
        assert!(pool.charge(2).is_none());
        assert_eq!((pool.used(), miser.0.load(Ordering::Relaxed)), (0, 0));
        assert_eq!(pool.charge(1).map(|charge| charge.amount()), Some(1));
        assert_eq!(pool.left(), u64::MAX);
    }

    #[test]
    fn nobody_asks_while_something_is_on_its_way_back() {
        #[derive(Debug, Default)]
        struct Watcher {
            watched: OnceLock<Weak<Granted>>,
            has_seen: AtomicBool,
        }
        impl Source for Watcher {
            fn ask(&self, amount: u64) -> u64 {
                amount
            }
            fn give_back(&self, _amount: u64) {
                // Who asks now could be refused what was free before.
                if let Some(granted) = self.watched.get().and_then(Weak::upgrade) {
                    assert!(granted.asking.try_lock().is_err());
                    self.has_seen.store(true, Ordering::Relaxed);
                }
            }
            fn left(&self) -> u64 {
                0
            }
            fn chunk(&self) -> u64 {
                1
            }
        }
        let watcher = Arc::new(Watcher::default());
        let granted = Arc::new(Granted::new(Arc::clone(&watcher) as Arc<dyn Source>));
        watcher.watched.set(Arc::downgrade(&granted)).unwrap();
        assert!(granted.take(10));
        granted.give_back(10);
        assert!(watcher.has_seen.load(Ordering::Relaxed));
        assert_eq!((granted.used(), granted.total()), (0, 1));
    }

    #[test]
    fn shares_of_a_source_take_all_that_it_grants() {
        let bank = Bank::new(50);
        let pool = Pool::from_source(Arc::clone(&bank) as Arc<dyn Source>);
        let share = Share::with_own(&pool, 45, 8);
        assert_eq!(share.left(), 45);
        assert!(share.take(45));
        assert!(!share.take(1), "that is more than its limit");
        assert_eq!((share.left(), pool.used()), (0, 45));
        let other = Share::with_own(&pool, u64::MAX, 8);
        assert!(!other.take(6));
        assert!(other.take(5));
        drop(share);
        drop(other);
        assert_eq!(pool.used(), 0);
        drop(pool);
        assert_eq!(bank.granted(), 0);
    }

    #[test]
    fn threads_ask_one_by_one_and_nobody_is_refused_what_is_there() {
        const THREADS: u64 = 4;
        let bank = Bank::new(THREADS * 25);
        let pool = Pool::from_source(Arc::clone(&bank) as Arc<dyn Source>);
        std::thread::scope(|scope| {
            for thread in 0..THREADS {
                let pool = &pool;
                scope.spawn(move || {
                    for round in 0..2_000 {
                        // All fit at the same time, so nobody may be refused. Most need more than
                        // two chunks, some less than one.
                        let amount = match (round + thread) % 4 {
                            0 => 1 + round % 9,
                            _ => 25,
                        };
                        let charge = pool.charge(amount);
                        std::thread::yield_now();
                        assert!(charge.is_some(), "{amount} refused, {pool:?}");
                    }
                });
            }
        });
        assert_eq!(pool.used(), 0);
        assert!(pool.limit() <= 2 * bank.chunk());
        assert_eq!(pool.limit(), bank.granted());
        drop(pool);
        assert_eq!(bank.granted(), 0);
    }
}
