//! Locks that survive a panic of another thread.
//!
//! What they guard is valid after every statement, so a poisoned lock is as good as any; refusing it would
//! let one context's fault reach another.

use std::sync::{Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// `lock` without the poison.
pub(crate) trait Lock<T> {
    /// Waits for the lock.
    fn locked(&self) -> MutexGuard<'_, T>;
}

impl<T> Lock<T> for Mutex<T> {
    fn locked(&self) -> MutexGuard<'_, T> {
        self.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `read` and `write` without the poison.
pub(crate) trait SharedLock<T> {
    /// Waits for shared access.
    fn reading(&self) -> RwLockReadGuard<'_, T>;
    /// Waits for exclusive access.
    fn writing(&self) -> RwLockWriteGuard<'_, T>;
}

impl<T> SharedLock<T> for RwLock<T> {
    fn reading(&self) -> RwLockReadGuard<'_, T> {
        self.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> RwLockWriteGuard<'_, T> {
        self.write().unwrap_or_else(PoisonError::into_inner)
    }
}
