//! One virtqueue: takes chains from the guest, gives answers back, stops cleanly.
//!
//! Three kinds of threads meet here. The queue's *worker* takes chains and hands them to the device; any
//! thread of the device completes held chains ([`Ring::complete`]); the *connection* thread configures,
//! starts and stops the ring. They share one short lock that is **never** held across a call into the device
//! or the VMM.
//!
//! Stopping: [`Ring::stop`] waits until the worker is out of the device, or waits for the VMM in there ([`Ring::step_out`]). After it
//! neither touches guest memory. Answers that come later are kept until the ring goes on, or dropped when a driver sets it up
//! anew.
//!
//! The guest writes the rings. What it can get wrong breaks this ring alone: it is logged once, the VMM gets
//! the ring's error event, and nothing is taken from it until it is set up anew.

mod events;

use std::fs::File;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::ThreadId;
use std::time::{Duration, Instant};

use hesper_system::sync::{Lock, Wait};
use virtio_queue::{DescriptorChain, QueueOwnedT, QueueT};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryLoadGuard, GuestMemoryMmap};

use self::events::{signalled, write_event};
use super::heads::Heads;
use crate::device::Outcome;

/// Largest queue size on offer. QEMU's classic device uses 256; `vq_size` goes up to 1024.
pub(super) const MAX_SIZE: u16 = 1024;

/// After this many answers the guest is told, even if more chains wait.
const SIGNAL_AFTER: u32 = 64;

/// A chain as the device gets it.
pub(super) type Chain = DescriptorChain<GuestMemoryLoadGuard<GuestMemoryMmap>>;

/// Life of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not set up, or stopped: guest memory is not touched.
    Stopped,
    /// Chains are taken and answered.
    Running,
    /// No chain is taken; those in the device may still be answered.
    Stopping,
    /// The guest broke it.
    Broken,
}

/// Where a ring stood when it was stopped; tells a resumed VM from a driver that starts anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Position {
    addresses: [u64; 3],
    next_avail: u16,
    next_used: u16,
}

struct State {
    queue: virtio_queue::Queue,
    phase: Phase,
    enabled: bool,
    /// The thread that takes chains, once it has taken one.
    worker: Option<ThreadId>,
    /// The worker is inside the device with a chain.
    busy: bool,
    /// The worker, inside the device, waits for the VMM and does not touch guest memory.
    outside: bool,
    /// Chains that are in the device or held by it.
    in_device: Heads,
    /// Answers that came while the ring was stopped.
    late: Vec<(u16, u32)>,
    stopped_at: Option<Position>,
    kick: Option<Arc<File>>,
    call: Option<Arc<File>>,
    /// The guest should have been told of answers while there was no call event.
    call_missed: bool,
    /// How far the used ring was when [`Ring::remind`] found that the driver had not seen all of it.
    unseen: Option<u16>,
    error: Option<Arc<File>>,
}

impl State {
    fn position(&self) -> Position {
        Position {
            addresses: [
                self.queue.desc_table(),
                self.queue.avail_ring(),
                self.queue.used_ring(),
            ],
            next_avail: self.queue.next_avail(),
            next_used: self.queue.next_used(),
        }
    }

    fn forget_held(&mut self) {
        self.in_device = Heads::default();
        self.late.clear();
        self.stopped_at = None;
    }

    fn runs(&self) -> bool {
        self.phase == Phase::Running && self.enabled
    }
}

/// How a ring comes to run; see [`Ring::plan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// It ran already.
    Running,
    /// It goes on where it was stopped: the VM was paused in between.
    Resumed,
    /// The driver set it up anew.
    Fresh,
}

/// One virtqueue; see the module.
pub(super) struct Ring {
    name: &'static str,
    memory: GuestMemoryAtomic<GuestMemoryMmap>,
    state: Mutex<State>,
    /// Signalled when `busy` ends or the worker steps out.
    progress: Condvar,
}

/// Wrong values from the VMM.
#[derive(Debug, thiserror::Error)]
pub(super) enum RingError {
    #[error("queue size {0}: it must be a power of two from 1 to {MAX_SIZE}")]
    Size(u32),
    #[error("ring addresses {0:#x?}: they are misaligned or outside guest memory")]
    Addresses([u64; 3]),
    #[error("ring index {0}: it has 16 bits")]
    Index(u32),
    #[error("the ring runs; it must be stopped before it is set up")]
    Runs,
}

impl Ring {
    pub(super) fn new(
        name: &'static str,
        memory: GuestMemoryAtomic<GuestMemoryMmap>,
    ) -> Result<Self, virtio_queue::Error> {
        Ok(Self {
            name,
            memory,
            state: Mutex::new(State {
                queue: virtio_queue::Queue::new(MAX_SIZE)?,
                phase: Phase::Stopped,
                enabled: false,
                worker: None,
                busy: false,
                outside: false,
                in_device: Heads::default(),
                late: Vec::new(),
                stopped_at: None,
                kick: None,
                call: None,
                call_missed: false,
                unseen: None,
                error: None,
            }),
            progress: Condvar::new(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.locked()
    }

    // For the connection thread.

    pub(super) fn set_size(&self, size: u32) -> Result<(), RingError> {
        let mut state = self.lock();
        if state.phase == Phase::Running {
            return Err(RingError::Runs);
        }
        u16::try_from(size)
            .ok()
            .and_then(|narrow| state.queue.try_set_size(narrow).ok())
            .ok_or(RingError::Size(size))
    }

    /// Sets the guest addresses of descriptor table, available and used ring, and takes the used index
    /// from the guest. A running ring may get them again (QEMU does so to log dirty pages).
    pub(super) fn set_addresses(&self, addresses: [u64; 3]) -> Result<(), RingError> {
        let mut state = self.lock();
        if state.phase == Phase::Running {
            return if state.position().addresses == addresses {
                Ok(())
            } else {
                Err(RingError::Runs)
            };
        }
        let bad = RingError::Addresses(addresses);
        let [table, avail, used] = addresses.map(vm_memory::GuestAddress);
        let queue = &mut state.queue;
        let aligned = queue
            .try_set_desc_table_address(table)
            .and_then(|()| queue.try_set_avail_ring_address(avail))
            .and_then(|()| queue.try_set_used_ring_address(used));
        let used_index = queue.used_idx(&*self.memory.memory(), Ordering::Acquire);
        match (aligned, used_index) {
            (Ok(()), Ok(index)) => {
                queue.set_next_used(index.0);
                Ok(())
            }
            _ => Err(bad),
        }
    }

    pub(super) fn set_base(&self, base: u32) -> Result<(), RingError> {
        let base = u16::try_from(base).map_err(|_| RingError::Index(base))?;
        let mut state = self.lock();
        if state.phase == Phase::Running {
            return Err(RingError::Runs);
        }
        state.queue.set_next_avail(base);
        Ok(())
    }

    pub(super) fn set_event_idx(&self, enabled: bool) {
        self.lock().queue.set_event_idx(enabled);
    }

    pub(super) fn set_enabled(&self, enabled: bool) {
        self.lock().enabled = enabled;
    }

    pub(super) fn set_kick(&self, kick: Option<File>) {
        self.lock().kick = kick.map(Arc::new);
    }

    /// Sets the event that tells the guest of answers, and makes up for what it was not told.
    pub(super) fn set_call(&self, call: Option<File>) {
        let call = call.map(signalled);
        let mut state = self.lock();
        state.call = call;
        if let Some(call) = &state.call
            && state.call_missed
        {
            write_event(call);
            state.call_missed = false;
        }
    }

    pub(super) fn set_error(&self, error: Option<File>) {
        self.lock().error = error.map(signalled);
    }

    /// How the ring would come to run. `is_seen` says whether the guest has looked at the config space since the ring was stopped, as a
    /// driver does before it sets up rings.
    pub(super) fn plan(&self, is_seen: bool) -> Start {
        let state = self.lock();
        if matches!(state.phase, Phase::Running | Phase::Broken) {
            return Start::Running;
        }
        let now = state.position();
        // After a reset a driver begins at index 0; a paused VM goes on where it was. A paused VM may be at index 0, too, after a
        // multiple of 65536 chains.
        if state.stopped_at == Some(now) && (now.next_avail != 0 || !is_seen) {
            Start::Resumed
        } else {
            Start::Fresh
        }
    }

    /// Starts the ring as planned. The caller wakes the worker afterwards.
    ///
    /// Of a driver that starts anew the ring knows nothing that is held: the caller has reset the device in between.
    pub(super) fn start(&self, plan: Start) {
        let mut state = self.lock();
        match plan {
            Start::Running => return,
            Start::Resumed => {}
            Start::Fresh => state.forget_held(),
        }
        state.stopped_at = None;
        state.queue.set_ready(true);
        state.phase = if state.queue.is_valid(&*self.memory.memory()) {
            Phase::Running
        } else {
            log::error!(
                "{} queue: its rings are outside guest memory; it stays off",
                self.name
            );
            Phase::Broken
        };
        let mut answered = false;
        for (head, written) in std::mem::take(&mut state.late) {
            answered |= self.answer(&mut state, head, written);
        }
        drop(state);
        if answered {
            self.signal();
        }
    }

    /// Stops the ring: waits until the worker has left the device or waits for the VMM there, for a bounded time. Returns the
    /// next available index, and whether the worker is out.
    ///
    /// The caller must have interrupted everything in the device that waits for the VMM.
    pub(super) fn stop(&self, patience: Duration) -> (u16, bool) {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        if state.phase == Phase::Stopped {
            return (state.queue.next_avail(), true);
        }
        state.phase = Phase::Stopping;
        while state.busy && !state.outside {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.progress.waited_for(state, left).0;
        }
        let is_out = !state.busy || state.outside;
        state.phase = Phase::Stopped;
        state.queue.set_ready(false);
        state.kick = None;
        let call = state.call.take();
        state.call_missed = false;
        state.stopped_at = Some(state.position());
        let base = state.queue.next_avail();
        drop(state);
        // The worker may not have told the guest of its last answers yet, and cannot any more.
        if let Some(call) = call {
            write_event(&call);
        }
        (base, is_out)
    }

    /// The calling thread waits for the VMM from now on. When it is this ring's worker, a stop need not wait for it.
    pub(super) fn step_out(&self) {
        let mut state = self.lock();
        if state.worker == Some(std::thread::current().id()) && state.busy {
            state.outside = true;
            self.progress.notify_all();
        }
    }

    /// Takes [`Self::step_out`] back. False while the ring is stopped: then the caller has to wait again.
    pub(super) fn step_in(&self) -> bool {
        let mut state = self.lock();
        if state.worker != Some(std::thread::current().id()) || !state.outside {
            return true;
        }
        state.outside = !matches!(state.phase, Phase::Running | Phase::Broken);
        !state.outside
    }

    /// Forgets every chain in the device: after a device reset none of them is answered.
    pub(super) fn forget_held(&self) {
        self.lock().forget_held();
        self.progress.notify_all();
    }

    // For the worker.

    /// The event that the guest kicks, when there is anything to be kicked for.
    pub(super) fn kick(&self) -> Option<Arc<File>> {
        let state = self.lock();
        state.runs().then(|| state.kick.clone()).flatten()
    }

    /// The kick event is of no more use (its other end is closed): stops polling it.
    pub(super) fn drop_kick(&self, seen: &Arc<File>) {
        let mut state = self.lock();
        if state
            .kick
            .as_ref()
            .is_some_and(|kick| Arc::ptr_eq(kick, seen))
        {
            state.kick = None;
        }
    }

    /// Hands available chains to `handle` while they are `wanted`, puts answers on the used ring, and tells the
    /// guest once per batch, if it wants to be told. Returns when the ring is empty or stopped, or nothing is
    /// wanted.
    pub(super) fn process(
        &self,
        mut wanted: impl FnMut() -> bool,
        mut handle: impl FnMut(&GuestMemoryMmap, Chain) -> Outcome,
    ) {
        loop {
            let mut answered = 0;
            self.with_queue(|queue, memory| queue.disable_notification(memory));
            while wanted()
                && let Some(chain) = self.take()
            {
                let head = chain.head_index();
                let memory = self.memory.memory();
                let outcome = handle(&memory, chain);
                drop(memory);
                answered += self.give_back(head, outcome);
                if answered >= SIGNAL_AFTER {
                    self.signal();
                    answered = 0;
                }
            }
            if answered > 0 {
                self.signal();
            }
            if !wanted() {
                // Who comes to want one wakes the worker; until then the guest need not kick.
                return;
            }
            // Asking for kicks again and looking once more is one step: a chain that came in between
            // would otherwise wait for a kick that was never sent.
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

    fn take(&self) -> Option<Chain> {
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
        Some(chain)
    }

    /// The device is done with a chain, for now or for good. Returns how many answers were added.
    fn give_back(&self, head: u16, outcome: Outcome) -> u32 {
        let mut state = self.lock();
        state.busy = false;
        state.outside = false;
        let added = match outcome {
            // It may even be answered already, by a faster thread.
            Outcome::Held => 0,
            Outcome::Done { written } => u32::from(self.answer(&mut state, head, written)),
        };
        if state.phase != Phase::Running {
            self.progress.notify_all();
        }
        added
    }

    // For the device, from any thread.

    /// Answers a held chain and tells the guest, if it wants to be told; when the ring is stopped, as soon as it goes on. Without
    /// effect when the ring was reset since the chain was taken.
    pub(super) fn complete(&self, head: u16, written: u32) {
        let answered = {
            let mut state = self.lock();
            let answered = self.answer(&mut state, head, written);
            if state.phase != Phase::Running {
                self.progress.notify_all();
            }
            answered
        };
        if answered {
            self.signal();
        }
    }

    fn answer(&self, state: &mut State, head: u16, written: u32) -> bool {
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
                // Still the device's until it is on the used ring. No more than there are descriptors.
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

    /// Notifies the guest of used chains, unless it asked not to be told of these (EVENT_IDX).
    fn signal(&self) {
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

    fn broken(&self, state: &mut State, why: &str) {
        if matches!(state.phase, Phase::Running | Phase::Stopping) {
            log::error!(
                "{} queue: {why}; the guest's driver must reset the device before the queue works again",
                self.name
            );
            state.phase = Phase::Broken;
            if let Some(error) = &state.error {
                write_event(error);
            }
        }
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
