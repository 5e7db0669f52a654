//! Input: turns what the user does in a window into evdev events.
//!
//! The program passes an [`InputSink`] to [`crate::Display::set_input`], which sends the events to
//! the guest's devices. The event loop's [`Seat`] translates. It knows which keys (`keyboard.rs`),
//! buttons and fingers are down, so that nothing stays down in the guest when the window loses the
//! keyboard. It also knows whether the pointer is grabbed: a grabbed pointer moves the guest's
//! mouse, others move its tablet.
//!
//! Keys are reported by their position on the keyboard (`keys.rs`). Layout and key repeat are up to
//! the guest.

mod evdev;
mod keyboard;
#[cfg(test)]
mod keyboard_tests;
mod keys;
mod seat;
#[cfg(test)]
mod tests;
mod touch;

pub(crate) use keyboard::HostSystem;
pub use keyboard::{CmdKey, GrabMod, KeyboardOptions};
pub(crate) use keys::AppleKey;
pub(crate) use seat::{Seat, WindowAction};

/// Absolute axes go from 0 to this value.
pub const INPUT_AXIS_MAX: i32 = 0xffff;

/// How many fingers can be told apart.
pub const INPUT_CONTACTS: usize = 10;

/// A device of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InputKind {
    /// A keyboard.
    Keyboard,
    /// A pointer with absolute positions.
    Tablet,
    /// A pointer with relative movements.
    Mouse,
    /// A touch screen.
    Touch,
}

/// An event of evdev.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InputEvent {
    /// Type of the event: `EV_KEY`, `EV_REL` or `EV_ABS`.
    pub kind: u16,
    /// The key or the axis.
    pub code: u16,
    /// Pressed (1) or released (0), a position, or a distance.
    pub value: i32,
}

/// Receives input. Called on the event loop's thread; must not block.
pub trait InputSink: Send + Sync {
    /// Whether a guest has this device now.
    fn has(&self, device: InputKind) -> bool;

    /// Reports events that happened at the same time, without `SYN_REPORT`.
    fn report(&self, device: InputKind, events: &[InputEvent]);
}

/// An input sink without devices.
pub(crate) struct NoDevices;

impl InputSink for NoDevices {
    fn has(&self, _: InputKind) -> bool {
        false
    }

    fn report(&self, _: InputKind, _: &[InputEvent]) {}
}

/// The LEDs that a guest turns on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeyboardLeds {
    /// Num lock.
    pub num: bool,
    /// Caps lock.
    pub caps: bool,
    /// Scroll lock.
    pub scroll: bool,
}
