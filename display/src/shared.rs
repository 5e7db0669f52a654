//! What the display's threads share.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

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
    /// The event loop has been told that the LEDs changed, and has not looked yet: a guest that turns them on
    /// and off without end must not fill its queue.
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

    /// What the guest's keyboard lights up now.
    pub(crate) fn leds(&self) -> KeyboardLeds {
        self.leds_changed.store(false, Ordering::Release);
        *self.leds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what the guest's keyboard lights up. Returns whether the event loop must be told.
    pub(crate) fn set_leds(&self, leds: KeyboardLeds) -> bool {
        *self.leds.lock().unwrap_or_else(PoisonError::into_inner) = leds;
        !self.leds_changed.swap(true, Ordering::AcqRel)
    }
}
