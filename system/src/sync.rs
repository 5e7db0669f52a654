//! Locks and condition variables that ignore poison.
//!
//! What they guard is valid after every statement. A lock that was held when its thread panicked is
//! therefore as good as any other. Refusing it would carry one context's fault to another.

use std::sync::{
    Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
    WaitTimeoutResult,
};
use std::time::Duration;

/// `lock` without the poison.
pub trait Lock<T: ?Sized> {
    /// Waits for the lock.
    fn locked(&self) -> MutexGuard<'_, T>;
}

impl<T: ?Sized> Lock<T> for Mutex<T> {
    fn locked(&self) -> MutexGuard<'_, T> {
        self.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> RwLockWriteGuard<'_, T> {
        self.write().unwrap_or_else(PoisonError::into_inner)
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
        self.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    fn waited_for<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        patience: Duration,
    ) -> (MutexGuard<'a, T>, WaitTimeoutResult) {
        self.wait_timeout(guard, patience)
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn waited_while<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        patience: Duration,
        is_early: impl FnMut(&mut T) -> bool,
    ) -> (MutexGuard<'a, T>, WaitTimeoutResult) {
        self.wait_timeout_while(guard, patience, is_early)
            .unwrap_or_else(PoisonError::into_inner)
    }
}
