//! Fingers: which slot of the guest's touch screen each has.

use super::INPUT_CONTACTS;
use super::InputEvent;
use super::evdev::*;

/// Tracking ids are below this; then they start again at 0.
const IDS: i32 = 0x1_0000;

/// The fingers on the screen.
#[derive(Default)]
pub(super) struct Fingers {
    /// The window system's id of the finger in each slot.
    slots: [Option<u64>; INPUT_CONTACTS],
    /// The slot of the first finger while it is there. Old programs take it for the pointer.
    first: Option<usize>,
    next_id: i32,
}

impl Fingers {
    /// A finger came or moved. The result is empty if there are more fingers than slots.
    pub(super) fn place(&mut self, finger: u64, (x, y): (i32, i32), new: bool) -> Vec<InputEvent> {
        let known = self.slots.iter().position(|slot| *slot == Some(finger));
        let (slot, new) = match (known, new) {
            (Some(slot), _) => (slot, false),
            (None, true) => match self.slots.iter().position(Option::is_none) {
                Some(slot) => (slot, true),
                None => return Vec::new(),
            },
            (None, false) => return Vec::new(),
        };
        let alone = self.slots.iter().all(Option::is_none);
        let mut events = vec![absolute(ABS_MT_SLOT, number(slot))];
        if new {
            if let Some(place) = self.slots.get_mut(slot) {
                *place = Some(finger);
            }
            events.push(absolute(ABS_MT_TRACKING_ID, self.next_id));
            self.next_id = (self.next_id + 1) % IDS;
        }
        events.push(absolute(ABS_MT_POSITION_X, x));
        events.push(absolute(ABS_MT_POSITION_Y, y));
        if alone {
            self.first = Some(slot);
            events.push(key_event(BTN_TOUCH, true));
        }
        if self.first == Some(slot) {
            events.push(absolute(ABS_X, x));
            events.push(absolute(ABS_Y, y));
        }
        events
    }

    /// A finger was lifted.
    pub(super) fn lift(&mut self, finger: u64) -> Vec<InputEvent> {
        let Some(slot) = self.slots.iter().position(|slot| *slot == Some(finger)) else {
            return Vec::new();
        };
        if let Some(place) = self.slots.get_mut(slot) {
            *place = None;
        }
        if self.first == Some(slot) {
            self.first = None;
        }
        let mut events = vec![
            absolute(ABS_MT_SLOT, number(slot)),
            absolute(ABS_MT_TRACKING_ID, -1),
        ];
        if self.slots.iter().all(Option::is_none) {
            events.push(key_event(BTN_TOUCH, false));
        }
        events
    }

    /// All fingers were lifted.
    pub(super) fn lift_all(&mut self) -> Vec<InputEvent> {
        let fingers = self.slots;
        let lifted = fingers.into_iter().flatten();
        lifted.flat_map(|finger| self.lift(finger)).collect()
    }
}

fn number(slot: usize) -> i32 {
    i32::try_from(slot).unwrap_or_default()
}
