//! How much a guest has sent that nobody has taken yet.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that may wait for a component: more than a guest that works needs, little enough for one that does not care.
pub(super) const MOST: usize = 64 << 20;

/// What waits for one component, in bytes.
#[derive(Debug, Default)]
pub(super) struct Backlog(AtomicUsize);

impl Backlog {
    /// So much more waits. Says whether that is still no more than [`MOST`].
    #[must_use]
    pub(super) fn add(&self, bytes: usize) -> bool {
        let before = self.0.fetch_add(bytes, Ordering::Relaxed);
        before.saturating_add(bytes) <= MOST
    }

    /// So much was taken.
    pub(super) fn remove(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_taken_makes_room() {
        let backlog = Backlog::default();
        assert!(backlog.add(MOST));
        assert!(!backlog.add(1));
        backlog.remove(2);
        assert!(backlog.add(1));
        assert!(!backlog.add(1));
    }
}
