//! [`Fences`]: the fences of a context that have not retired.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;

use hesper_system::sync::Lock;
use hesper_venus::trace::Started;

/// A fence that has not retired.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fence {
    /// The front end's id.
    pub(super) id: u64,
    /// When the front end asked for it.
    pub(super) sent: Started,
}

#[derive(Debug, Default)]
struct Inner {
    /// For each timeline, the oldest first.
    rings: BTreeMap<u8, VecDeque<Fence>>,
    is_closed: bool,
}

/// The outstanding fences, for each timeline in the order of their creation. The front ends limit
/// how many there are: a fence of a VM holds a descriptor of its queue.
///
/// Only the worker's thread takes fences out, and it reports each of them without the lock.
#[derive(Debug, Default)]
pub(super) struct Fences(Mutex<Inner>);

impl Fences {
    /// Notes a new fence. False when the context has ended: nobody will retire it.
    #[must_use]
    pub(super) fn push(&self, ring: u8, fence: u64, sent: Started) -> bool {
        let fence = Fence { id: fence, sent };
        let mut inner = self.0.locked();
        if !inner.is_closed {
            inner.rings.entry(ring).or_default().push_back(fence);
        }
        !inner.is_closed
    }

    /// How many fences retire with this one: itself and the earlier ones of its timeline. `None`
    /// when it is not outstanding.
    pub(super) fn count_up_to(&self, ring: u8, fence: u64) -> Option<usize> {
        let inner = self.0.locked();
        let outstanding = inner.rings.get(&ring)?;
        let place = outstanding.iter().position(|one| one.id == fence)?;
        Some(place + 1)
    }

    /// Takes the oldest fence of a timeline.
    pub(super) fn pop(&self, ring: u8) -> Option<Fence> {
        self.0.locked().rings.get_mut(&ring)?.pop_front()
    }

    /// Takes any fence that is the oldest of its timeline. When there is none, no fence can be
    /// pushed any more.
    pub(super) fn pop_or_close(&self) -> Option<(u8, Fence)> {
        let mut inner = self.0.locked();
        let next = inner
            .rings
            .iter_mut()
            .find_map(|(ring, fences)| Some((*ring, fences.pop_front()?)));
        if next.is_none() {
            inner.rings.clear();
            inner.is_closed = true;
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retiring_a_fence_retires_the_earlier_ones_of_its_timeline_only() {
        let fences = Fences::default();
        for (ring, fence) in [(1, 10), (2, 20), (1, 11), (1, 12)] {
            assert!(fences.push(ring, fence, Started::NOT));
        }
        assert_eq!(fences.count_up_to(1, 11), Some(2));
        assert_eq!(fences.count_up_to(1, 20), None, "it is of another timeline");
        assert_eq!(fences.count_up_to(3, 10), None);
        let pop = |ring| fences.pop(ring).map(|fence| fence.id);
        assert_eq!((pop(1), pop(1)), (Some(10), Some(11)));
        assert_eq!(fences.count_up_to(1, 10), None, "it has retired");
        assert_eq!(pop(7), None);
        let pop_or_close = || {
            let popped = fences.pop_or_close();
            popped.map(|(ring, fence)| (ring, fence.id))
        };
        assert_eq!(pop_or_close(), Some((1, 12)));
        assert!(fences.push(1, 13, Started::NOT), "not all are out yet");
        assert_eq!(pop_or_close(), Some((1, 13)));
        assert_eq!(pop_or_close(), Some((2, 20)));
        assert_eq!(pop_or_close(), None);
        assert!(!fences.push(1, 14, Started::NOT));
    }
}
