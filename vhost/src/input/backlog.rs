//! The events that wait for the guest.
//!
//! [`Backlog::push`] takes whole reports. [`Backlog::front`] and [`Backlog::advance`] return their
//! events one by one. Beside the events, the backlog keeps two states: what the device *is* like
//! (keys held, places of fingers), and what the guest *was told*. As long as every report finds
//! room, the two differ only by the reports that wait.
//!
//! When a report finds no room, it is left out, and so is all that follows, until the guest has
//! taken everything that waits. Then one report tells it the difference. In the same way the guest
//! learns what happened while no driver listened.

use std::collections::{BTreeMap, VecDeque};

use super::Event;
use super::codes::*;

/// The most events that wait: some seconds of typing, a second of a fast mouse.
const ROOM: usize = 512;

/// A key, axis or finger, whose value stays until an event changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Control {
    Key(u16),
    Axis(u16),
    /// An `ABS_MT_*` axis of the finger in a slot.
    Contact(i32, u16),
}

impl Control {
    /// The value that a driver assumes before it was told one. It assumes none for an axis.
    fn at_rest(self) -> Option<i32> {
        match self {
            Self::Key(_) => Some(0),
            Self::Contact(_, ABS_MT_TRACKING_ID) => Some(-1),
            Self::Axis(_) | Self::Contact(..) => None,
        }
    }
}

/// What a device is like.
#[derive(Default)]
struct Snapshot {
    places: BTreeMap<Control, i32>,
    /// The slot that `ABS_MT_*` events are about.
    slot: i32,
}

impl Snapshot {
    fn apply(&mut self, event: Event) {
        let place = match (event.kind, event.code) {
            (EV_ABS, ABS_MT_SLOT) => {
                self.slot = event.value;
                return;
            }
            (EV_ABS, ABS_MT_SLOT..) => Control::Contact(self.slot, event.code),
            (EV_ABS, code) => Control::Axis(code),
            (EV_KEY, code) => Control::Key(code),
            _ => return,
        };
        self.places.insert(place, event.value);
    }

    fn get(&self, place: Control) -> Option<i32> {
        self.places.get(&place).copied().or(place.at_rest())
    }

    /// The events that turn `told` into this state.
    fn difference(&self, told: &Self) -> Vec<Event> {
        let mut events = Vec::new();
        let mut slot = None;
        let absolute = |code, value| Event {
            kind: EV_ABS,
            code,
            value,
        };
        for (&place, &value) in &self.places {
            if told.get(place) == Some(value) {
                continue;
            }
            match place {
                Control::Key(code) => events.push(Event {
                    kind: EV_KEY,
                    code,
                    value,
                }),
                Control::Axis(code) => events.push(absolute(code, value)),
                Control::Contact(contact, code) => {
                    if slot.replace(contact) != Some(contact) {
                        events.push(absolute(ABS_MT_SLOT, contact));
                    }
                    events.push(absolute(code, value));
                }
            }
        }
        events
    }
}

/// The events that wait for the guest; see the module.
#[derive(Default)]
pub(super) struct Backlog {
    /// Reports, each with its `SYN_REPORT`. The first one may be there only in part.
    waiting: VecDeque<Event>,
    /// The number of events in the last report.
    last: usize,
    now: Snapshot,
    told: Snapshot,
    /// A driver listens.
    running: bool,
    /// Reports were left out. The guest must be told the difference.
    behind: bool,
}

impl Backlog {
    /// Takes a report without its `SYN_REPORT`. Returns false when a listening guest will not see
    /// it as it is.
    pub(super) fn push(&mut self, report: &[Event]) -> bool {
        self.catch_up();
        for event in report {
            self.now.apply(*event);
        }
        if !self.running {
            self.behind = true;
            return true;
        }
        if report.is_empty() || (!self.behind && self.merge(report)) {
            return true;
        }
        if self.behind || self.waiting.len() + report.len() >= ROOM {
            self.behind = true;
            return false;
        }
        self.queue(report);
        true
    }

    /// The event that the guest gets next.
    pub(super) fn front(&self) -> Option<Event> {
        self.waiting.front().copied()
    }

    /// Notes that the guest has got that event.
    pub(super) fn advance(&mut self) {
        if let Some(event) = self.waiting.pop_front() {
            self.told.apply(event);
        }
        self.catch_up();
    }

    /// Notes whether a driver listens. Events that happen meanwhile are not sent later, but their
    /// result is.
    pub(super) fn set_running(&mut self, running: bool) {
        self.running = running;
        self.catch_up();
    }

    /// Notes that the driver starts anew, and was told nothing.
    pub(super) fn reset(&mut self) {
        self.waiting.clear();
        self.last = 0;
        self.told = Snapshot::default();
        self.behind = true;
        self.catch_up();
    }

    fn catch_up(&mut self) {
        if self.running && self.behind && self.waiting.is_empty() {
            self.behind = false;
            let difference = self.now.difference(&self.told);
            if !difference.is_empty() {
                self.queue(&difference);
            }
        }
    }

    fn queue(&mut self, report: &[Event]) {
        self.waiting.extend(report);
        self.waiting.push_back(Event::SYN);
        self.last = report.len() + 1;
    }

    /// Merges two movements into one, if the guest has taken nothing of the last report. A slow
    /// guest then sees where the pointer is and not where it was.
    fn merge(&mut self, report: &[Event]) -> bool {
        let movement = |event: &Event| {
            event.kind == EV_REL || (event.kind == EV_ABS && event.code < ABS_MT_SLOT)
        };
        let Some(start) = self.waiting.len().checked_sub(self.last) else {
            return false;
        };
        if self.last != report.len() + 1 {
            return false;
        }
        let alike = self
            .waiting
            .iter()
            .skip(start)
            .zip(report)
            .all(|(old, new)| (old.kind, old.code) == (new.kind, new.code) && movement(new));
        if alike {
            for (old, new) in self.waiting.iter_mut().skip(start).zip(report) {
                old.value = match new.kind {
                    EV_REL => old.value.saturating_add(new.value),
                    _ => new.value,
                };
            }
        }
        alike
    }
}
