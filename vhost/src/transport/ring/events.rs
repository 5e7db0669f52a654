//! The events between VMM and ring: how they are signalled, and what is done about one that is lost.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use virtio_queue::QueueT;
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace};

use super::{Phase, Ring, RingState};
use crate::system::never_wait;

impl Ring {
    /// Notifies the guest once more if it has not seen all used chains since the last call of this: the notification may have been
    /// lost. One too many does no harm, the driver looks at the ring and finds nothing.
    pub(in super::super) fn repeat_lost_interrupt(&self) {
        let call = {
            let mut state = self.lock();
            let used = state.queue.next_used();
            let is_behind = state.phase == Phase::Running && self.has_unseen(&state);
            let before = std::mem::replace(&mut state.unseen, is_behind.then_some(used));
            let is_lost = is_behind && before == Some(used);
            is_lost.then(|| state.call.clone()).flatten()
        };
        if let Some(call) = call {
            write_event(&call);
        }
    }

    /// Whether there are used chains that the driver has not seen: with EVENT_IDX it writes behind the available ring up to where it
    /// has (virtio-v1.4, 2.7.7). Without, nobody knows.
    fn has_unseen(&self, state: &RingState) -> bool {
        if !state.queue.event_idx_enabled() {
            return false;
        }
        let entries = 4 + 2 * u64::from(state.queue.size());
        let place = GuestAddress(state.queue.avail_ring().saturating_add(entries));
        let seen = self.memory.memory().load::<u16>(place, Ordering::Acquire);
        // What cannot be read breaks the ring when it is used.
        seen.is_ok_and(|seen| u16::from_le(seen) != state.queue.next_used())
    }
}

/// An event of the VMM's that is going to be signalled.
pub(super) fn signalled(event: File) -> Arc<File> {
    if let Err(error) = never_wait(&event) {
        log::warn!("an event of the VMM's may make a queue wait: {error}");
    }
    Arc::new(event)
}

/// Writes to an event descriptor: an eventfd, or a pipe where there are none.
pub(super) fn write_event(event: &File) {
    match rustix::io::write(event, &1u64.to_ne_bytes()) {
        // A full event is as good as a written one.
        Ok(_) | Err(rustix::io::Errno::AGAIN) => {}
        Err(error) => log::debug!("cannot signal the VMM: {error}"),
    }
}
