//! The worker's side of a ring: it takes chains from the guest and passes them to the device.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use virtio_queue::{QueueOwnedT, QueueT};
use vm_memory::{GuestAddressSpace, GuestMemoryMmap};

use super::state::Phase;
use super::{Chain, ChainUser, Ring};
use crate::queue::{Outcome, Taken};

/// After this many answers the guest is notified, even if more chains wait.
const SIGNAL_AFTER: u32 = 64;

impl Ring {
    /// The event that the guest kicks, while the ring runs.
    pub(in crate::transport) fn kick(&self) -> Option<Arc<File>> {
        let state = self.lock();
        state.runs().then(|| state.kick.clone()).flatten()
    }

    /// Stops polling a kick event whose other end is closed.
    pub(in crate::transport) fn drop_kick(&self, seen: &Arc<File>) {
        let mut state = self.lock();
        if state
            .kick
            .as_ref()
            .is_some_and(|kick| Arc::ptr_eq(kick, seen))
        {
            state.kick = None;
        }
    }

    /// Passes available chains to `user` while it wants them, and puts answers on the used ring.
    /// Notifies the guest once per batch, if it wants that. Returns when the ring is empty or
    /// stopped, or when nothing is wanted.
    pub(in crate::transport) fn pass_chains(&self, user: &impl ChainUser) {
        loop {
            let mut answered = 0;
            self.with_queue(|queue, memory| queue.disable_notification(memory));
            while user.wants_chain()
                && let Some((chain, taken)) = self.take(user)
            {
                let head = chain.head_index();
                let memory = self.memory.memory();
                let outcome = user.handle(&memory, chain, taken);
                drop(memory);
                answered += self.give_back(head, taken, outcome);
                if answered >= SIGNAL_AFTER {
                    self.signal();
                    answered = 0;
                }
            }
            if answered > 0 {
                self.signal();
            }
            if !user.wants_chain() {
                // The device wakes the worker when it wants a chain. Until then the guest need not
                // kick.
                return;
            }
            // Asking for kicks again and checking the ring once more is one step. Otherwise a chain
            // that came in between would wait for a kick that was never sent.
            let more = self.with_queue(|queue, memory| queue.enable_notification(memory));
            if more != Some(true) {
                return;
            }
        }
    }

    /// Runs `work` on a running queue; an error breaks the ring.
    fn with_queue<T>(
        &self,
        work: impl FnOnce(&mut virtio_queue::Queue, &GuestMemoryMmap) -> Result<T, virtio_queue::Error>,
    ) -> Option<T> {
        let mut state = self.lock();
        if !state.runs() {
            return None;
        }
        match work(&mut state.queue, &self.memory.memory()) {
            Ok(value) => Some(value),
            Err(error) => {
                self.broken(&mut state, &error.to_string());
                None
            }
        }
    }

    fn take(&self, user: &impl ChainUser) -> Option<(Chain, Taken)> {
        let mut state = self.lock();
        if !state.runs() {
            return None;
        }
        let memory = self.memory.memory();
        let available = match state.queue.avail_idx(&*memory, Ordering::Acquire) {
            Ok(index) => index.0,
            Err(error) => {
                self.broken(&mut state, &error.to_string());
                return None;
            }
        };
        if available == state.queue.next_avail() {
            return None;
        }
        let chain = match state.queue.iter(memory).map(|mut chains| chains.next()) {
            Ok(Some(chain)) => chain,
            Ok(None) => {
                self.broken(&mut state, "the available ring is outside guest memory");
                return None;
            }
            Err(error) => {
                self.broken(&mut state, &error.to_string());
                return None;
            }
        };
        let head = chain.head_index();
        if head >= state.queue.size() {
            self.broken(
                &mut state,
                &format!("descriptor index {head} is not below the queue size"),
            );
            return None;
        }
        if !state.in_device.insert(head) {
            self.broken(
                &mut state,
                &format!("descriptor {head} was offered again before it was answered"),
            );
            return None;
        }
        state.busy = true;
        state.worker = Some(std::thread::current().id());
        let taken = Taken {
            ring: state.generation,
            // The ring runs, and the device is reset only while it does not.
            resets: user.resets(),
        };
        Some((chain, taken))
    }

    /// Takes a chain back from the device, answered or held. Returns how many answers were added.
    fn give_back(&self, head: u16, taken: Taken, outcome: Outcome) -> u32 {
        let mut state = self.lock();
        state.busy = false;
        state.outside = false;
        let added = match outcome {
            // Another thread may even have answered it already.
            Outcome::Held => 0,
            Outcome::Done { written } => {
                u32::from(self.answer_of(&mut state, head, taken.ring, written))
            }
        };
        if state.phase != Phase::Running {
            self.progress.notify_all();
        }
        added
    }
}
