//! Budgets: what a guest's contexts may take together ([`Pools`]), and what one worker has of it
//! ([`Books`]).
//!
//! A worker asks before it takes anything. The hard thing is what outlives a worker: blobs that the
//! guest or other contexts still use. They are held here, too, so their bytes stay charged until
//! the last user has dropped them. While the worker lives, they are a part of what it was granted.
//! A worker that is granted less than it makes others hold is charged with what they hold.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use hesper_system::budget::{Charge, Pool};
use hesper_system::share::Share;
use hesper_system::sync::Lock;
use hesper_venus::{Budget, GuestBudget, Resource};

/// The pools of a guest.
#[derive(Debug)]
pub(super) struct Pools {
    contexts: Arc<Pool>,
    objects: Arc<Pool>,
    threads: Arc<Pool>,
    calls: Arc<Pool>,
    command_bytes: Arc<Pool>,
    shared_bytes: Arc<Pool>,
    device_memory: Arc<Pool>,
    /// Descriptors and mappings of this process for blobs and rings.
    pieces: Arc<Pool>,
    /// Bytes of blobs whose workers have ended.
    outliving: Arc<AtomicU64>,
    /// Size of the window through which guests map blobs.
    window: Option<u64>,
}

impl Pools {
    /// Pools of which nothing is taken. `pieces` is how many pieces of shared memory this process
    /// can have, `window` the size of the window through which guests map them.
    pub(super) fn new(guest: &GuestBudget, window: Option<u64>, pieces: u64) -> Self {
        let pool = |what| Pool::new(guest.most(what));
        Self {
            contexts: Pool::new(guest.contexts as u64),
            objects: pool(Resource::Objects),
            threads: pool(Resource::Threads),
            calls: pool(Resource::Calls),
            command_bytes: pool(Resource::CommandBytes),
            shared_bytes: pool(Resource::SharedBytes),
            device_memory: pool(Resource::DeviceMemory),
            pieces: Pool::new(pieces),
            outliving: Arc::default(),
            window,
        }
    }

    /// The place of a context, until the value is dropped.
    pub(super) fn context(&self) -> Option<Charge> {
        self.contexts.charge(1)
    }

    /// How many contexts there may be.
    pub(super) fn most_contexts(&self) -> u64 {
        self.contexts.limit()
    }

    /// Whether one more context may be created.
    pub(super) fn has_context(&self) -> bool {
        self.contexts.left() > 0
    }

    /// Bytes of blobs whose workers have ended.
    pub(super) fn outliving(&self) -> u64 {
        self.outliving.load(Ordering::Relaxed)
    }

    /// The books of a new worker.
    pub(super) fn open(&self, budget: &Budget) -> Arc<Books> {
        let account = |pool, what: Resource| Account {
            share: Share::with_own(pool, budget.most(what), what.own()),
            granted: 0,
            held: 0,
        };
        let calls = account(&self.calls, Resource::Calls);
        Arc::new(Books {
            calls: Arc::clone(&calls.share),
            pieces: Share::new(&self.pieces, u64::MAX),
            outliving: Arc::clone(&self.outliving),
            shared_bytes: Arc::clone(&self.shared_bytes),
            window: self.window,
            inner: Mutex::new(Inner {
                objects: account(&self.objects, Resource::Objects),
                threads: account(&self.threads, Resource::Threads),
                calls,
                command_bytes: account(&self.command_bytes, Resource::CommandBytes),
                shared_bytes: account(&self.shared_bytes, Resource::SharedBytes),
                device_memory: account(&self.device_memory, Resource::DeviceMemory),
                is_closed: false,
            }),
        })
    }
}

/// What a worker has of one pool.
#[derive(Debug)]
struct Account {
    share: Arc<Share>,
    /// What the worker was granted and has not given back.
    granted: u64,
    /// What this process and others hold of what the worker has made.
    held: u64,
}

impl Account {
    /// Changes both numbers, and what is charged. False, and nothing changes, when that is too
    /// much.
    fn set(&mut self, granted: u64, held: u64) -> bool {
        let (before, after) = (self.granted.max(self.held), granted.max(held));
        if after > before && !self.share.take(after - before) {
            return false;
        }
        if after < before {
            self.share.give_back(before - after);
        }
        (self.granted, self.held) = (granted, held);
        true
    }

    /// Grants `amount`, if it may be granted.
    fn grant(&mut self, amount: u64) -> bool {
        let granted = self.granted.checked_add(amount);
        granted.is_some_and(|granted| self.set(granted, self.held))
    }
}

#[derive(Debug)]
struct Inner {
    objects: Account,
    threads: Account,
    calls: Account,
    command_bytes: Account,
    shared_bytes: Account,
    device_memory: Account,
    /// The worker has ended.
    is_closed: bool,
}

impl Inner {
    fn account(&mut self, what: Resource) -> &mut Account {
        match what {
            Resource::Objects => &mut self.objects,
            Resource::Threads => &mut self.threads,
            Resource::Calls => &mut self.calls,
            Resource::CommandBytes => &mut self.command_bytes,
            Resource::SharedBytes => &mut self.shared_bytes,
            Resource::DeviceMemory => &mut self.device_memory,
        }
    }
}

/// What one worker has of a guest's pools.
#[derive(Debug)]
pub(super) struct Books {
    inner: Mutex<Inner>,
    /// Calls that wait in this process, too.
    calls: Arc<Share>,
    pieces: Arc<Share>,
    outliving: Arc<AtomicU64>,
    /// The guest's.
    shared_bytes: Arc<Pool>,
    window: Option<u64>,
}

/// The bytes and the piece of a blob of a worker, given back on drop.
#[derive(Debug)]
#[must_use]
pub(super) struct Held {
    books: Arc<Books>,
    bytes: u64,
    _piece: Charge,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut inner = self.books.inner.locked();
        let is_closed = inner.is_closed;
        let account = &mut inner.shared_bytes;
        let left = account.held.saturating_sub(self.bytes);
        // Less can always be charged.
        let _ = account.set(account.granted, left);
        if is_closed {
            self.books
                .outliving
                .fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }
}

impl Books {
    /// Grants `amount`, or nothing (0).
    pub(super) fn ask(&self, what: Resource, amount: u64) -> u64 {
        let mut inner = self.inner.locked();
        if inner.is_closed || amount == 0 {
            return 0;
        }
        match inner.account(what).grant(amount) {
            true => amount,
            false => 0,
        }
    }

    /// Takes back what was granted. False when that is more than was granted.
    #[must_use]
    pub(super) fn give_back(&self, what: Resource, amount: u64) -> bool {
        let mut inner = self.inner.locked();
        let account = inner.account(what);
        let granted = account.granted.checked_sub(amount);
        granted.is_some_and(|granted| account.set(granted, account.held))
    }

    /// How much more could be granted.
    pub(super) fn left(&self, what: Resource) -> u64 {
        let mut inner = self.inner.locked();
        let account = inner.account(what);
        let beyond = account.held.saturating_sub(account.granted);
        let left = account.share.left().saturating_add(beyond);
        match (what, self.window) {
            // Guests map no more.
            (Resource::SharedBytes, Some(window)) => {
                left.min(window.saturating_sub(self.shared_bytes.used()))
            }
            _ => left,
        }
    }

    /// A place for a call that waits for the worker.
    pub(super) fn call(&self) -> Option<Charge> {
        self.calls.charge(1)
    }

    /// A descriptor and a mapping of this process.
    pub(super) fn piece(&self) -> Option<Charge> {
        self.pieces.charge(1)
    }

    /// Holds a blob of `bytes`. `None` when that is more than the worker may have.
    pub(super) fn hold(self: &Arc<Self>, bytes: u64) -> Option<Held> {
        let piece = self.piece()?;
        let mut inner = self.inner.locked();
        let is_closed = inner.is_closed;
        let account = &mut inner.shared_bytes;
        let held = account.held.checked_add(bytes)?;
        if !account.set(account.granted, held) {
            return None;
        }
        if is_closed {
            self.outliving.fetch_add(bytes, Ordering::Relaxed);
        }
        drop(inner);
        Some(Held {
            books: Arc::clone(self),
            bytes,
            _piece: piece,
        })
    }

    /// The worker has ended: what it was granted goes back, except for what others still hold.
    pub(super) fn close(&self) {
        let mut inner = self.inner.locked();
        if inner.is_closed {
            return;
        }
        inner.is_closed = true;
        for what in Resource::ALL {
            let account = inner.account(what);
            // Less can always be charged.
            let _ = account.set(0, account.held);
        }
        self.outliving
            .fetch_add(inner.shared_bytes.held, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn pools(shared_bytes: u64) -> Pools {
        let guest = GuestBudget {
            shared_bytes,
            queued: 1000,
            ..GuestBudget::default()
        };
        Pools::new(&guest, Some(90 * MIB), 100)
    }

    #[test]
    fn what_a_worker_was_granted_goes_back_at_its_end_except_for_blobs_that_others_hold() {
        let pools = pools(100 * MIB);
        let books = pools.open(&Budget::default());
        let granted = books.ask(Resource::SharedBytes, 10 * MIB);
        assert_eq!(granted, 10 * MIB);
        let (large, small) = (books.hold(6 * MIB).unwrap(), books.hold(2 * MIB).unwrap());
        assert_eq!(pools.shared_bytes.used(), granted, "blobs are a part of it");
        books.close();
        books.close();
        assert_eq!(
            (pools.shared_bytes.used(), pools.outliving()),
            (8 * MIB, 8 * MIB)
        );
        assert_eq!(books.ask(Resource::Objects, 1), 0);
        drop(large);
        assert_eq!(
            (pools.shared_bytes.used(), pools.outliving()),
            (2 * MIB, 2 * MIB)
        );
        // A blob that was on its way.
        let late = books.hold(MIB).unwrap();
        assert_eq!(pools.outliving(), 3 * MIB);
        drop((small, late, books));
        assert_eq!((pools.shared_bytes.used(), pools.outliving()), (0, 0));
        assert_eq!(pools.pieces.used(), 0);
    }

    #[test]
    fn a_worker_that_asks_for_nothing_is_charged_with_what_it_makes_others_hold() {
        let pools = pools(100 * MIB);
        let books = pools.open(&Budget::default());
        let held = books.hold(80 * MIB).unwrap();
        assert_eq!(pools.shared_bytes.used(), 80 * MIB);
        assert!(books.hold(80 * MIB).is_none());
        assert!(books.hold(u64::MAX).is_none());
        // It asks for what it has made already.
        assert_eq!(books.ask(Resource::SharedBytes, 85 * MIB), 85 * MIB);
        assert_eq!(pools.shared_bytes.used(), 85 * MIB);
        let granted = 85 * MIB;
        let left = books.left(Resource::SharedBytes);
        assert!(
            left < 90 * MIB - 85 * MIB,
            "{left}: it leaves something for others"
        );
        assert!(books.give_back(Resource::SharedBytes, granted));
        assert_eq!(pools.shared_bytes.used(), 80 * MIB);
        drop(held);
        assert_eq!(pools.shared_bytes.used(), 0);
    }

    #[test]
    fn nothing_beyond_the_limits_is_granted_and_nothing_more_than_was_granted_comes_back() {
        let pools = pools(100 * MIB);
        let budget = Budget {
            shared_bytes: 10 * MIB,
            ..Budget::default()
        };
        let books = pools.open(&budget);
        for what in Resource::ALL {
            assert_eq!(books.ask(what, 0), 0);
            assert!(!books.give_back(what, 1), "{what:?}");
        }
        assert_eq!(books.ask(Resource::SharedBytes, 10 * MIB + 1), 0);
        assert_eq!(books.ask(Resource::SharedBytes, u64::MAX), 0);
        assert_eq!(
            books.ask(Resource::SharedBytes, 10 * MIB),
            10 * MIB,
            "what is left is granted to the last byte"
        );
        assert_eq!(books.left(Resource::SharedBytes), 0);
        assert!(!books.give_back(Resource::SharedBytes, 10 * MIB + 1));
        assert!(books.give_back(Resource::SharedBytes, 10 * MIB));
        assert_eq!(books.ask(Resource::Threads, 4), 4);
        assert_eq!(books.ask(Resource::DeviceMemory, 1 << 40), 1 << 40);
        books.close();
        assert_eq!(pools.threads.used(), 0);
        assert_eq!(pools.device_memory.used(), 0);
    }

    #[test]
    fn calls_that_wait_here_and_in_the_worker_share_one_limit() {
        let pools = pools(0);
        let budget = Budget {
            queued: 300,
            ..Budget::default()
        };
        let books = pools.open(&budget);
        let here: Vec<_> = std::iter::from_fn(|| books.call()).take(200).collect();
        assert_eq!(books.ask(Resource::Calls, 101), 0);
        assert!(books.ask(Resource::Calls, 100) == 100);
        assert!(books.call().is_none());
        drop(here);
        assert!(books.call().is_some());
    }
}
