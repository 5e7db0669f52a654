//! [`HostMappings`]: whether this process may make more mappings, asked before they are made.
//!
//! Linux gives a process 65,530 by default (`sysctl vm.max_map_count`). A driver may not check
//! whether it gets one: lavapipe 26.1 maps a page for each descriptor set, and crashes when it
//! cannot. That would end every context at once.
//!
//! The kernel merges mappings that lie side by side, so the sum of what was asked for is only an
//! upper bound. When the sum reaches the limit, the mappings are counted.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::platform;

/// Mappings of this process, all contexts together.
#[derive(Debug)]
pub(crate) struct HostMappings {
    limit: usize,
    /// At least as many as there are, except for those made while they are counted.
    used: AtomicUsize,
}

impl HostMappings {
    /// A process that may have `allowed` mappings. An eighth is left for what does not ask here:
    /// threads, heaps, compiled code.
    pub(crate) fn new(allowed: usize) -> Self {
        let limit = allowed - allowed / 8;
        Self {
            limit,
            // They are counted the first time.
            used: AtomicUsize::new(limit),
        }
    }

    /// Whether `count` more may be made. If so, they count from then on.
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
