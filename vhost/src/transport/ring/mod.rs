//! One virtqueue: it takes chains from the guest, returns answers, and stops cleanly.
//!
//! Three kinds of threads use a ring. The queue's *worker* takes chains and passes them to the
//! device (`chains.rs`). Any thread of the device completes held chains ([`Ring::complete`],
//! `answers.rs`). The *connection* thread configures, starts and stops the ring (this file). They
//! share one short lock that is **never** held across a call into the device or the VMM.
//!
//! [`Ring::stop`] waits until the worker is out of the device, or waits for the VMM in there
//! ([`Ring::step_out`]). After that neither touches guest memory. Answers that come later are kept
//! until the ring goes on, or dropped when a driver sets it up anew.
//!
//! The guest writes the rings. Its mistakes break this ring alone: each is logged once, the VMM
//! gets the ring's error event, and nothing is taken from the ring until it is set up anew.

mod answers;
mod chains;
mod events;
mod in_flight;
mod state;

use std::fs::File;
use std::sync::atomic::Ordering;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use hesper_system::sync::{Lock, Wait};
use virtio_queue::{DescriptorChain, QueueT};
use vm_memory::{GuestAddressSpace, GuestMemoryAtomic, GuestMemoryLoadGuard, GuestMemoryMmap};

use self::events::{never_blocks, write_event};
use self::in_flight::{InFlight, MAX_SIZE};
use self::state::{Phase, RingState};
use crate::queue::{Outcome, Taken};

/// Limits the lines that a guest or its VM monitor can cause.
static LINES: hesper_system::LogLimit = hesper_system::LogLimit::new("hesper_vhost");

/// A chain as the device gets it.
pub(super) type Chain = DescriptorChain<GuestMemoryLoadGuard<GuestMemoryMmap>>;

/// Whom a ring passes its chains to.
pub(super) trait ChainUser {
    /// Whether a chain is of use now.
    fn wants_chain(&self) -> bool;

    /// How often the device was reset. Read under the ring's lock, so it may take none.
    fn resets(&self) -> u64;

    /// Carries a chain out.
    fn handle(&self, memory: &GuestMemoryMmap, chain: Chain, taken: Taken) -> Outcome;
}

/// How a ring starts; see [`Ring::plan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// It ran already.
    Running,
    /// It goes on where it was stopped, because the VM was only paused.
    Resumed,
    /// The driver set it up anew.
    Fresh,
}

/// One virtqueue; see the module.
pub(super) struct Ring {
    name: &'static str,
    memory: GuestMemoryAtomic<GuestMemoryMmap>,
    state: Mutex<RingState>,
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
            state: Mutex::new(RingState {
                queue: virtio_queue::Queue::new(MAX_SIZE)?,
                phase: Phase::Stopped,
                enabled: false,
                worker: None,
                busy: false,
                outside: false,
                in_device: InFlight::default(),
                generation: 0,
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

    fn lock(&self) -> MutexGuard<'_, RingState> {
        self.state.locked()
    }

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

    /// Sets the guest addresses of descriptor table, available and used ring, and reads the used
    /// index from the guest. A running ring may get the same addresses again; QEMU does so to log
    /// dirty pages.
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
        self.lock().kick = kick.map(never_blocks);
    }

    /// Sets the event that notifies the guest of answers. Sends a notification that was missed.
    pub(super) fn set_call(&self, call: Option<File>) {
        let call = call.map(never_blocks);
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
        self.lock().error = error.map(never_blocks);
    }

    /// How the ring would start. `is_seen` says whether the guest has read the config space since
    /// the ring was stopped, as a driver does before it sets up rings.
    pub(super) fn plan(&self, is_seen: bool) -> Start {
        let state = self.lock();
        if matches!(state.phase, Phase::Running | Phase::Broken) {
            return Start::Running;
        }
        let now = state.position();
        // After a reset a driver begins at index 0. A paused VM goes on where it was, which may be
        // index 0, too, after a multiple of 65536 chains.
        if state.stopped_at == Some(now) && (now.next_avail != 0 || !is_seen) {
            Start::Resumed
        } else {
            Start::Fresh
        }
    }

    /// Starts the ring as planned. The caller wakes the worker afterwards.
    ///
    /// When a driver starts anew, the ring forgets what is held. The caller has reset the device in
    /// between.
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
            LINES.log(
                log::Level::Error,
                format_args!(
                    "{} queue: its rings are outside guest memory; it stays off",
                    self.name
                ),
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

    /// Stops the ring. Waits for at most `patience` until the worker has left the device, or waits
    /// for the VMM there. Returns the next available index, and whether the worker is out.
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
        // The worker may not have notified the guest of its last answers yet, and no longer can.
        if let Some(call) = call {
            write_event(&call);
        }
        (base, is_out)
    }

    /// Notes that the calling thread waits for the VMM from now on. When it is this ring's worker,
    /// a stop does not wait for it.
    pub(super) fn step_out(&self) {
        let mut state = self.lock();
        if state.worker == Some(std::thread::current().id()) && state.busy {
            state.outside = true;
            self.progress.notify_all();
        }
    }

    /// Undoes [`Self::step_out`]. Returns false while the ring is stopped: then the caller has to
    /// wait again.
    pub(super) fn step_in(&self) -> bool {
        let mut state = self.lock();
        if state.worker != Some(std::thread::current().id()) || !state.outside {
            return true;
        }
        state.outside = !matches!(state.phase, Phase::Running | Phase::Broken);
        !state.outside
    }

    /// Forgets every chain in the device. After a device reset none of them is answered.
    pub(super) fn forget_held(&self) {
        self.lock().forget_held();
        self.progress.notify_all();
    }
}

#[cfg(test)]
mod tests;
