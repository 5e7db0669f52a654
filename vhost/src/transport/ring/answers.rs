//! The device's side of a ring: it puts answers on the used ring and notifies the guest, from any
//! thread.

use std::sync::atomic::Ordering;

use virtio_queue::QueueT;
use vm_memory::{Bytes, GuestAddress, GuestAddressSpace};

use super::Ring;
use super::events::write_event;
use super::state::{Phase, RingState};

/// Limits the lines that a guest or its VM monitor can cause.
static LINES: hesper_system::LogLimit = hesper_system::LogLimit::new("hesper_vhost");

impl Ring {
    /// Answers a held chain and notifies the guest, if it wants that. While the ring is stopped,
    /// the answer waits until it goes on. Does nothing when the ring was reset since the chain was
    /// taken, in `generation`.
    pub(in crate::transport) fn complete(&self, head: u16, generation: u64, written: u32) {
        let answered = {
            let mut state = self.lock();
            let answered = self.answer_of(&mut state, head, generation, written);
            if state.phase != Phase::Running {
                self.progress.notify_all();
            }
            answered
        };
        if answered {
            self.signal();
        }
    }

    /// [`Self::answer`] for a chain that was taken in `generation`.
    pub(super) fn answer_of(
        &self,
        state: &mut RingState,
        head: u16,
        generation: u64,
        written: u32,
    ) -> bool {
        if generation != state.generation {
            log::debug!(
                "{} queue: the answer for descriptor {head} comes after a reset and is dropped",
                self.name
            );
            return false;
        }
        self.answer(state, head, written)
    }

    pub(super) fn answer(&self, state: &mut RingState, head: u16, written: u32) -> bool {
        if !state.in_device.remove(head) {
            log::debug!(
                "{} queue: late answer for descriptor {head} dropped",
                self.name
            );
            return false;
        }
        match state.phase {
            Phase::Running | Phase::Stopping => {}
            Phase::Stopped => {
                // The chain belongs to the device until it is on the used ring. There are no more
                // than descriptors.
                state.in_device.insert(head);
                if !state.late.iter().any(|(late, _)| *late == head) {
                    state.late.push((head, written));
                }
                return false;
            }
            Phase::Broken => return false,
        }
        let memory = self.memory.memory();
        match state.queue.add_used(&*memory, head, written) {
            Ok(()) => true,
            Err(error) => {
                self.broken(state, &error.to_string());
                false
            }
        }
    }

    /// Notifies the guest of used chains, unless it asked not to be notified of these (EVENT_IDX).
    pub(super) fn signal(&self) {
        let call = {
            let mut state = self.lock();
            if !matches!(state.phase, Phase::Running | Phase::Stopping) {
                return;
            }
            match state.queue.needs_notification(&*self.memory.memory()) {
                Ok(true) => {
                    state.call_missed = state.call.is_none();
                    state.call.clone()
                }
                Ok(false) => None,
                Err(error) => {
                    self.broken(&mut state, &error.to_string());
                    None
                }
            }
        };
        if let Some(call) = call {
            write_event(&call);
        }
    }

    pub(super) fn broken(&self, state: &mut RingState, why: &str) {
        if matches!(state.phase, Phase::Running | Phase::Stopping) {
            LINES.log(
                log::Level::Error,
                format_args!(
                    "{} queue: {why}; the guest's driver must reset the device before the queue works again",
                    self.name
                ),
            );
            state.phase = Phase::Broken;
            if let Some(error) = &state.error {
                write_event(error);
            }
        }
    }

    /// Notifies the guest once more if it has not seen all used chains since the last call, because
    /// the notification may have been lost. A superfluous one does no harm: the driver finds
    /// nothing on the ring.
    pub(in crate::transport) fn repeat_lost_interrupt(&self) {
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

    /// Whether there are used chains that the driver has not seen. With EVENT_IDX the driver writes
    /// how far it has read behind the available ring (virtio-v1.4, 2.7.7). Without EVENT_IDX nobody
    /// knows.
    fn has_unseen(&self, state: &RingState) -> bool {
        if !state.queue.event_idx_enabled() {
            return false;
        }
        let entries = 4 + 2 * u64::from(state.queue.size());
        let place = GuestAddress(state.queue.avail_ring().saturating_add(entries));
        let seen = self.memory.memory().load::<u16>(place, Ordering::Acquire);
        // Unreadable memory breaks the ring when it is used.
        seen.is_ok_and(|seen| u16::from_le(seen) != state.queue.next_used())
    }
}
