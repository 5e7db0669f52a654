//! What the display's threads share.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use hesper_system::sync::Lock;

use crate::events::EventCallback;
use crate::input::KeyboardLeds;
use crate::scanout::Scanout;

/// The state that the device's threads, the presenters and the event loop share.
pub(crate) struct Shared {
    pub(crate) scanouts: Vec<Scanout>,
    pub(crate) events: EventCallback,
    /// A guest is connected.
    guest: AtomicBool,
    leds: Mutex<KeyboardLeds>,
    /// The event loop has been told that the LEDs changed, and has not looked yet. This keeps a
    /// guest that blinks its LEDs without end from filling the event loop's queue.
    leds_changed: AtomicBool,
}

impl Shared {
    pub(crate) fn new(scanouts: Vec<Scanout>, events: EventCallback) -> Shared {
        Shared {
            scanouts,
            events,
            guest: AtomicBool::new(false),
            leds: Mutex::default(),
            leds_changed: AtomicBool::new(false),
        }
    }

    /// Whether a guest is connected.
    pub(crate) fn has_guest(&self) -> bool {
        self.guest.load(Ordering::Acquire)
    }

    pub(crate) fn set_guest(&self, connected: bool) {
        self.guest.store(connected, Ordering::Release);
    }

    /// The LEDs that the guest turns on now.
    pub(crate) fn leds(&self) -> KeyboardLeds {
        self.leds_changed.store(false, Ordering::Release);
        *self.leds.locked()
    }

    /// Notes which LEDs the guest turns on. Returns whether the event loop must be told.
    pub(crate) fn set_leds(&self, leds: KeyboardLeds) -> bool {
        *self.leds.locked() = leds;
        !self.leds_changed.swap(true, Ordering::AcqRel)
    }
}
