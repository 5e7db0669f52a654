//! Input: what a person does in a window, as events of Linux's evdev.
//!
//! The program gives [`crate::Display::set_input`] an [`InputSink`], which passes the events on to the guest's
//! devices. The event loop's [`Seat`] translates: it knows which keys (`keyboard.rs`), buttons and fingers are down, so
//! that nothing stays down in the guest when the window loses the keyboard, and it knows whether the pointer is
//! grabbed, that is, whether it moves the guest's tablet or the guest's mouse.
//!
//! Keys are told by their place on the keyboard (`keys.rs`): the guest has its own idea of the layout, and of
//! how held keys repeat.

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

/// Absolute axes go from 0 to this, from one edge of the picture to the other.
pub const INPUT_AXIS_MAX: i32 = 0xffff;

/// Fingers that are told apart.
pub const INPUT_CONTACTS: usize = 10;

/// A device of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InputKind {
    /// Keys.
    Keyboard,
    /// A pointer that is told where it is.
    Tablet,
    /// A pointer that is told how far it moves.
    Mouse,
    /// A touch screen.
    Touch,
}

/// An event of evdev.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct InputEvent {
    /// `EV_KEY`, `EV_REL` or `EV_ABS`.
    pub kind: u16,
    /// Which key or axis.
    pub code: u16,
    /// Pressed or not, a place, a distance.
    pub value: i32,
}

/// Where input goes. Called on the event loop's thread; must not wait.
pub trait InputSink: Send + Sync {
    /// Whether a guest has this device now.
    fn has(&self, device: InputKind) -> bool;

    /// What happened at one moment; without `SYN_REPORT`.
    fn report(&self, device: InputKind, events: &[InputEvent]);
}

/// A guest without devices.
pub(crate) struct NoDevices;

impl InputSink for NoDevices {
    fn has(&self, _: InputKind) -> bool {
        false
    }

    fn report(&self, _: InputKind, _: &[InputEvent]) {}
}

/// What a keyboard of the guest lights up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeyboardLeds {
    /// Num lock.
    pub num: bool,
    /// Caps lock.
    pub caps: bool,
    /// Scroll lock.
    pub scroll: bool,
}
