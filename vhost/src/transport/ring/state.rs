//! The state of a ring, guarded by its lock.

use std::fs::File;
use std::sync::Arc;
use std::thread::ThreadId;

use virtio_queue::QueueT;

use super::in_flight::InFlight;

/// The phase of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not set up, or stopped: guest memory is not touched.
    Stopped,
    /// Chains are taken and answered.
    Running,
    /// No chain is taken; those in the device may still be answered.
    Stopping,
    /// The guest broke it.
    Broken,
}

/// The position of a ring when it was stopped. It tells a resumed VM from a driver that starts
/// anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) addresses: [u64; 3],
    pub(super) next_avail: u16,
    pub(super) next_used: u16,
}

pub(super) struct RingState {
    pub(super) queue: virtio_queue::Queue,
    pub(super) phase: Phase,
    pub(super) enabled: bool,
    /// The thread that takes chains, once it has taken one.
    pub(super) worker: Option<ThreadId>,
    /// The worker is inside the device with a chain.
    pub(super) busy: bool,
    /// The worker, inside the device, waits for the VMM and does not touch guest memory.
    pub(super) outside: bool,
    /// How often the chains in the device were forgotten. A chain that was taken before is not one
    /// of `in_device`, even if its number is.
    pub(super) generation: u64,
    /// Chains that are in the device or held by it.
    pub(super) in_device: InFlight,
    /// Answers that came while the ring was stopped.
    pub(super) late: Vec<(u16, u32)>,
    pub(super) stopped_at: Option<Position>,
    pub(super) kick: Option<Arc<File>>,
    pub(super) call: Option<Arc<File>>,
    /// The guest should have been notified while there was no call event.
    pub(super) call_missed: bool,
    /// The used index when [`super::Ring::repeat_lost_interrupt`] found that the driver had not
    /// seen all of it.
    pub(super) unseen: Option<u16>,
    pub(super) error: Option<Arc<File>>,
}

impl RingState {
    pub(super) fn position(&self) -> Position {
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

    pub(super) fn forget_held(&mut self) {
        self.generation += 1;
        self.in_device = InFlight::default();
        self.late.clear();
        self.stopped_at = None;
    }

    pub(super) fn runs(&self) -> bool {
        self.phase == Phase::Running && self.enabled
    }
}
