//! Held commands, and the order in which their fences may be answered.
//!
//! A driver that sees fence N of a timeline answered also signals every earlier fence of that
//! timeline. So the answers of fenced commands leave in order within a timeline, and in no order
//! between two timelines. [`Timelines`] has a first-in-first-out queue for each.
//!
//! A command enters its queue in the order of arrival, as soon as it is clear that it cannot be
//! answered at once. It leaves when it has its response, its [`Gate`] is open and nothing is before
//! it. Commands without a fence have no order.
//!
//! A timeline is a ring of a context (`VIRTIO_GPU_FLAG_INFO_RING_IDX`), or the one global timeline
//! of all fences without a ring (virtio-v1.4 §5.7.6.7). A context that does not exist has no rings:
//! a fence that names one is ordered with those of the global timeline, and nothing is kept for it.

use std::collections::{HashMap, VecDeque};

use crate::chain::AnswerSpace;
use crate::queue::{Queue, Taken};
use crate::renderer::ContextId;
use crate::response::Response;
use crate::screen::{FlushToken, ScanoutId};
use crate::wire::{FLAG_FENCE, FLAG_INFO_RING_IDX, Header};

/// The timeline that orders an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Timeline {
    /// None: the command has no fence.
    Unordered,
    /// The fences without a ring.
    Global,
    /// The fences of one ring.
    Ring(ContextId, u8),
}

impl Timeline {
    /// The timeline of a command. `is_live` tells whether a context exists.
    pub(crate) fn of(header: &Header, is_live: impl FnOnce(ContextId) -> bool) -> Self {
        let flags = header.flags.get();
        let context = header.context_id.get();
        if flags & FLAG_FENCE == 0 {
            Self::Unordered
        } else if flags & FLAG_INFO_RING_IDX != 0 && is_live(context) {
            Self::Ring(context, header.ring_index)
        } else {
            Self::Global
        }
    }
}

/// Names a command until it is answered. Serials are never used twice, not even over a reset, so
/// that a late report about a forgotten command finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) serial: u64,
    pub(crate) timeline: Timeline,
}

impl Ticket {
    /// The token for the flush of one scanout. There are at most 16 scanouts.
    pub(crate) fn flush_token(self, scanout: ScanoutId) -> FlushToken {
        FlushToken(self.serial << 4 | u64::from(scanout & 15))
    }
}

/// Serial and scanout of a token.
pub(crate) fn split_token(token: FlushToken) -> (u64, ScanoutId) {
    (token.0 >> 4, (token.0 & 15) as ScanoutId)
}

/// What an answer waits for, besides its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// Nothing.
    Open,
    /// The screen still reads for these scanouts, a bit for each.
    Flush(u16),
    /// The renderer's fence on this ring is not retired.
    Fence(ContextId, u8),
}

/// A command that is not answered yet.
pub(crate) struct Held {
    pub(crate) serial: u64,
    pub(crate) queue: Queue,
    pub(crate) head: u16,
    pub(crate) taken: Taken,
    pub(crate) header: Header,
    pub(crate) space: AnswerSpace,
    pub(crate) response: Option<Response>,
    pub(crate) gate: Gate,
}

impl Held {
    fn is_ready(&self) -> bool {
        self.response.is_some() && self.gate == Gate::Open
    }
}

/// All held commands of a device. Those of a queue are in order of their serials.
#[derive(Default)]
pub(crate) struct Timelines {
    unordered: Vec<Held>,
    global: VecDeque<Held>,
    rings: HashMap<(ContextId, u8), VecDeque<Held>>,
    /// The commands that wait for the screen, by their serials.
    flushes: HashMap<u64, Timeline>,
}

impl Timelines {
    /// Whether a command of `timeline` may be answered at once.
    pub(crate) fn is_empty(&self, timeline: Timeline) -> bool {
        match timeline {
            Timeline::Unordered => true,
            Timeline::Global => self.global.is_empty(),
            Timeline::Ring(context, ring) => self
                .rings
                .get(&(context, ring))
                .is_none_or(VecDeque::is_empty),
        }
    }

    /// Number of held commands.
    pub(crate) fn len(&self) -> usize {
        self.unordered.len()
            + self.global.len()
            + self.rings.values().map(VecDeque::len).sum::<usize>()
    }

    /// Number of rings for which something is kept.
    pub(crate) fn rings(&self) -> usize {
        self.rings.len()
    }

    /// Makes a held command wait for `gate`. Returns false when the command is not held.
    pub(crate) fn set_gate(&mut self, ticket: Ticket, gate: Gate) -> bool {
        let Some(held) = self.find(ticket) else {
            return false;
        };
        held.gate = gate;
        self.index_flush(ticket, gate);
        true
    }

    fn index_flush(&mut self, ticket: Ticket, gate: Gate) {
        if matches!(gate, Gate::Flush(_)) {
            self.flushes.insert(ticket.serial, ticket.timeline);
        } else {
            self.flushes.remove(&ticket.serial);
        }
    }

    /// Holds a command.
    pub(crate) fn push(&mut self, timeline: Timeline, held: Held) {
        let serial = held.serial;
        self.index_flush(Ticket { serial, timeline }, held.gate);
        match timeline {
            Timeline::Unordered => self.unordered.push(held),
            Timeline::Global => self.global.push_back(held),
            Timeline::Ring(context, ring) => self
                .rings
                .entry((context, ring))
                .or_default()
                .push_back(held),
        }
    }

    /// The held command of `ticket`.
    pub(crate) fn find(&mut self, ticket: Ticket) -> Option<&mut Held> {
        match ticket.timeline {
            Timeline::Unordered => self
                .unordered
                .iter_mut()
                .find(|held| held.serial == ticket.serial),
            Timeline::Global => find_serial(&mut self.global, ticket.serial),
            Timeline::Ring(context, ring) => {
                find_serial(self.rings.get_mut(&(context, ring))?, ticket.serial)
            }
        }
    }

    /// Notes that the screen has read a scanout for the flush of `token`. Returns the timeline that
    /// may have moved.
    pub(crate) fn flushed(&mut self, token: FlushToken) -> Option<Timeline> {
        let (serial, scanout) = split_token(token);
        let timeline = *self.flushes.get(&serial)?;
        let held = self.find(Ticket { serial, timeline })?;
        if let Gate::Flush(mask) = &mut held.gate {
            *mask &= !(1 << scanout);
            if *mask == 0 {
                held.gate = Gate::Open;
                self.flushes.remove(&serial);
            }
        }
        Some(timeline)
    }

    /// Notes that the renderer retired fence `serial` of a ring, and with it the earlier ones of
    /// that ring. The ring's own timeline and the global one may have moved.
    pub(crate) fn retired(&mut self, context: ContextId, ring: u8, serial: u64) {
        let gate = Gate::Fence(context, ring);
        // A ring of the renderer serves its own timeline and, for fences without a ring, the global
        // one.
        let queues = self.rings.get_mut(&(context, ring)).into_iter();
        for queue in queues.chain(std::iter::once(&mut self.global)) {
            for held in queue.iter_mut() {
                if held.gate == gate && held.serial <= serial {
                    held.gate = Gate::Open;
                }
            }
        }
    }

    /// Opens the gates that wait for a context that is gone.
    pub(crate) fn retire_context(&mut self, gone: ContextId) {
        for held in self.rings.values_mut().flatten().chain(&mut self.global) {
            if matches!(held.gate, Gate::Fence(context, _) if context == gone) {
                held.gate = Gate::Open;
            }
        }
    }

    /// Takes the next answerable command of `timeline`.
    pub(crate) fn pop(&mut self, timeline: Timeline) -> Option<Held> {
        match timeline {
            Timeline::Unordered => {
                let index = self.unordered.iter().position(Held::is_ready)?;
                Some(self.unordered.swap_remove(index))
            }
            Timeline::Global => pop_front_if_ready(&mut self.global),
            Timeline::Ring(context, ring) => {
                let kept = self.rings.len();
                let queue = self.rings.get_mut(&(context, ring))?;
                let held = pop_front_if_ready(queue);
                if queue.is_empty() && (queue.capacity() > RING_KEEPS || kept > RINGS_KEPT) {
                    self.rings.remove(&(context, ring));
                }
                held
            }
        }
    }

    /// Takes the next answerable command of any timeline.
    pub(crate) fn pop_any(&mut self) -> Option<Held> {
        if let Some(held) = self.pop(Timeline::Unordered) {
            return Some(held);
        }
        if let Some(held) = self.pop(Timeline::Global) {
            return Some(held);
        }
        let ready = |queue: &VecDeque<Held>| queue.front().is_some_and(Held::is_ready);
        let (&(context, ring), _) = self.rings.iter().find(|(_, queue)| ready(queue))?;
        self.pop(Timeline::Ring(context, ring))
    }

    /// Frees the empty rings of a context that is gone.
    pub(crate) fn forget_rings(&mut self, gone: ContextId) {
        self.rings
            .retain(|&(context, _), queue| context != gone || !queue.is_empty());
    }
}

/// An empty ring keeps room for this many held commands, so that a steady ring allocates nothing.
const RING_KEEPS: usize = 64;

/// So many rings are kept when they are empty. A guest has one or two for each program that uses
/// the GPU.
const RINGS_KEPT: usize = 256;

fn find_serial(queue: &mut VecDeque<Held>, serial: u64) -> Option<&mut Held> {
    let index = queue
        .binary_search_by_key(&serial, |held| held.serial)
        .ok()?;
    queue.get_mut(index)
}

fn pop_front_if_ready(queue: &mut VecDeque<Held>) -> Option<Held> {
    if queue.front().is_some_and(Held::is_ready) {
        queue.pop_front()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    fn held(serial: u64, gate: Gate) -> Held {
        Held {
            serial,
            queue: Queue::Control,
            head: 0,
            taken: Taken::default(),
            header: Header::new_zeroed(),
            space: crate::chain::no_space(),
            response: Some(Response::ok()),
            gate,
        }
    }

    #[test]
    fn empty_rings_beyond_those_that_are_kept_are_forgotten() {
        let mut timelines = Timelines::default();
        for serial in 0..2000_u32 {
            let timeline = Timeline::Ring(serial / 64 + 1, (serial % 64) as u8);
            timelines.push(timeline, held(u64::from(serial), Gate::Open));
            assert!(timelines.pop(timeline).is_some());
        }
        assert_eq!((timelines.len(), timelines.rings()), (0, RINGS_KEPT));
        timelines.push(Timeline::Ring(1, 0), held(3000, Gate::Open));
        assert!(timelines.pop_any().is_some());
        assert!(timelines.pop_any().is_none());
    }

    #[test]
    fn a_flush_is_found_by_its_serial_on_whatever_timeline() {
        let mut timelines = Timelines::default();
        for (serial, timeline) in [(1, Timeline::Global), (2, Timeline::Ring(7, 3))] {
            timelines.push(timeline, held(serial, Gate::Flush(0b11)));
            let ticket = Ticket { serial, timeline };
            assert_eq!(timelines.flushed(ticket.flush_token(0)), Some(timeline));
            assert!(timelines.pop(timeline).is_none());
            assert_eq!(timelines.flushed(ticket.flush_token(1)), Some(timeline));
            assert_eq!(timelines.flushed(ticket.flush_token(1)), None);
            assert!(timelines.pop(timeline).is_some());
        }
        assert!(timelines.flushes.is_empty());
    }
}
