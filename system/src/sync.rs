//! Locks and condition variables that ignore poison.
//!
//! What they guard is valid after every statement. A lock that was held when its thread panicked is
//! therefore as good as any other. Refusing it would carry one context's fault to another.

use std::sync::{
    Condvar, LockResult, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
    WaitTimeoutResult,
};
use std::time::Duration;

/// What a lock returned, without the poison: for locks that are not the standard library's.
pub fn unpoisoned<G>(result: LockResult<G>) -> G {
    result.unwrap_or_else(PoisonError::into_inner)
}

/// `lock` without the poison.
pub trait Lock<T: ?Sized> {
    /// Waits for the lock.
    fn locked(&self) -> MutexGuard<'_, T>;
}

impl<T: ?Sized> Lock<T> for Mutex<T> {
    fn locked(&self) -> MutexGuard<'_, T> {
        unpoisoned(self.lock())
    }
}

/// `read` and `write` without the poison.
pub trait SharedLock<T: ?Sized> {
    /// Waits for shared access.
    fn reading(&self) -> RwLockReadGuard<'_, T>;
    /// Waits for exclusive access.
    fn writing(&self) -> RwLockWriteGuard<'_, T>;
}

impl<T: ?Sized> SharedLock<T> for RwLock<T> {
    fn reading(&self) -> RwLockReadGuard<'_, T> {
        unpoisoned(self.read())
    }

    fn writing(&self) -> RwLockWriteGuard<'_, T> {
        unpoisoned(self.write())
    }
}

/// `wait` and its relatives without the poison.
pub trait Wait {
    /// Waits for a notification. It may also return without one.
    fn waited<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T>;

    /// The same, for at most `patience`.
    fn waited_for<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        patience: Duration,
    ) -> (MutexGuard<'a, T>, WaitTimeoutResult);

    /// Waits until `is_early` says no, for at most `patience`.
    fn waited_while<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        patience: Duration,
        is_early: impl FnMut(&mut T) -> bool,
    ) -> (MutexGuard<'a, T>, WaitTimeoutResult);
}

impl Wait for Condvar {
    fn waited<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        unpoisoned(self.wait(guard))
    }

    fn waited_for<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        patience: Duration,
    ) -> (MutexGuard<'a, T>, WaitTimeoutResult) {
        unpoisoned(self.wait_timeout(guard, patience))
    }

    fn waited_while<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        patience: Duration,
        is_early: impl FnMut(&mut T) -> bool,
    ) -> (MutexGuard<'a, T>, WaitTimeoutResult) {
        unpoisoned(self.wait_timeout_while(guard, patience, is_early))
    }
}
