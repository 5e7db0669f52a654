//! [`SharedObjects`]: which buffers and images of a device are in memory that the guest shares.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use hesper_system::sync::Lock;

/// Objects of a device whose memory is shared, by the driver's handles.
#[derive(Default)]
pub(crate) struct SharedObjects {
    /// Buffers.
    pub(crate) buffers: HandleSet,
    /// Images.
    pub(crate) images: HandleSet,
    /// Images with linear tiling, on a GPU whose other images must not be in imported memory.
    pub(crate) linear: HandleSet,
}

/// HandleSet of one type: mostly none.
#[derive(Default)]
pub(crate) struct HandleSet {
    known: Mutex<HashSet<u64>>,
    /// How many, readable without the lock. A handle was inserted before the guest could ask about
    /// it.
    count: AtomicUsize,
}

impl HandleSet {
    /// Adds a handle.
    pub(crate) fn insert(&self, handle: u64) {
        let mut known = self.known.locked();
        known.insert(handle);
        self.count.store(known.len(), Ordering::Release);
    }

    /// Whether the handle is among them.
    pub(crate) fn contains(&self, handle: u64) -> bool {
        self.count.load(Ordering::Acquire) > 0 && self.known.locked().contains(&handle)
    }

    /// Takes a handle out, if it is among them.
    pub(crate) fn remove(&self, handle: u64) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut known = self.known.locked();
        known.remove(&handle);
        self.count.store(known.len(), Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_known_until_it_is_removed() {
        let handles = HandleSet::default();
        assert!(!handles.contains(7));
        handles.insert(7);
        assert!(handles.contains(7) && !handles.contains(8));
        handles.remove(7);
        assert!(!handles.contains(7));
    }
}
