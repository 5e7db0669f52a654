//! Counts the bytes that a guest has sent and that the library has not taken yet.

use std::sync::atomic::{AtomicUsize, Ordering};

/// How many bytes may wait. A correct guest needs less, and the host can afford that much.
pub(super) const MOST: usize = 64 << 20;

/// The bytes that wait for one context.
#[derive(Debug, Default)]
pub(super) struct Backlog(AtomicUsize);

impl Backlog {
    /// Adds bytes that wait. Returns whether the sum is still at most [`MOST`].
    #[must_use]
    pub(super) fn add(&self, bytes: usize) -> bool {
        let before = self.0.fetch_add(bytes, Ordering::Relaxed);
        before.saturating_add(bytes) <= MOST
    }

    /// Removes bytes that were taken.
    pub(super) fn remove(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_bytes_make_room() {
        let backlog = Backlog::default();
        assert!(backlog.add(MOST));
        assert!(!backlog.add(1));
        backlog.remove(2);
        assert!(backlog.add(1));
        assert!(!backlog.add(1));
    }
}
