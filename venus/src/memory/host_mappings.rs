//! Whether this process may make more mappings, asked before they are made.
//!
//! Linux gives a process 65,530 unless its administrator says otherwise (`sysctl vm.max_map_count`). A driver that gets none may
//! not look: lavapipe 26.1 maps a page for each descriptor set and crashes when it cannot, which would end every context at once.
//!
//! The kernel makes one mapping of several that lie side by side, so what was asked for is only the most that there can be.
//! It is added up, and the mappings are counted when the sum reaches the limit.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::platform;

/// Mappings of this process, all contexts together.
#[derive(Debug)]
pub(crate) struct HostMappings {
    limit: usize,
    /// No fewer than there are, but for what is made while they are counted.
    used: AtomicUsize,
}

impl HostMappings {
    /// The process may have `allowed`. An eighth is left to what nobody asks for here: threads, heaps, compiled code.
    pub(crate) fn new(allowed: usize) -> Self {
        let limit = allowed - allowed / 8;
        Self {
            limit,
            // They are counted the first time.
            used: AtomicUsize::new(limit),
        }
    }

    /// Whether `count` more may be made; they count from then on.
    pub(crate) fn make(&self, count: usize) -> bool {
        let fits = |used: usize| used.checked_add(count).filter(|sum| *sum <= self.limit);
        let order = Ordering::Relaxed;
        if self.used.fetch_update(order, order, fits).is_ok() {
            return true;
        }
        let Some(counted) = platform::count_mappings() else {
            return true;
        };
        let sum = fits(counted);
        self.used.store(sum.unwrap_or(counted), order);
        sum.is_some()
    }
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_back_is_there_again_and_the_limit_holds() {
        let now = platform::count_mappings().unwrap();
        // Other tests of this process make and drop some meanwhile.
        let mappings = HostMappings::new((now + 10_000) / 7 * 8);
        for _ in 0..100 {
            assert!(mappings.make(1000), "nobody has made what was asked for");
        }
        assert!(!mappings.make(20_000));
        assert!(!mappings.make(usize::MAX));
        assert!(mappings.make(1));
    }
}
