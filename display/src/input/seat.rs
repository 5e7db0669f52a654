//! The user's seat: keys, buttons and fingers that are down, and where pointer movements go.

use std::sync::Arc;

use winit::event::{ElementState, MouseButton, MouseScrollDelta, TouchPhase};
use winit::keyboard::{ModifiersState, PhysicalKey};

use super::evdev::*;
use super::keyboard::{HostSystem, Keyboard, KeyboardOptions};
use super::keys::{AppleKey, KEY_F, KEY_G, KEY_O, KEY_S};
use super::touch::Fingers;
use super::{InputKind, InputSink};

/// A notch of a wheel in units of `REL_WHEEL_HI_RES`.
const NOTCH: f64 = 120.0;
/// How many logical pixels of smooth scrolling make a notch. Toolkits scroll this far for one.
const NOTCH_PIXELS: f64 = 53.0;

/// What the user asks of the window, and not of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WindowAction {
    /// Nothing.
    Nothing,
    /// Grab the pointer, so that only its movements count.
    Grab,
    /// Release the pointer.
    Release,
    /// Switch full screen on or off.
    FullScreen,
    /// Switch the overlay on or off.
    Overlay,
    /// Save a screenshot of the window.
    Screenshot,
}

/// What is held down, and how pointer movements are sent.
pub(crate) struct Seat {
    sink: Arc<dyn InputSink>,
    keyboard: Keyboard,
    /// A window has the keyboard.
    focused: bool,
    buttons: Vec<(InputKind, u16)>,
    fingers: Fingers,
    /// Fractions of a pixel, and of a step of a high resolution wheel, that were not sent yet.
    moved: (f64, f64),
    turned: (f64, f64),
    /// Fractions of a notch that were not sent yet, in high resolution steps.
    notches: (i32, i32),
    grabbed: bool,
}

impl Seat {
    pub(crate) fn new(
        sink: Arc<dyn InputSink>,
        options: KeyboardOptions,
        system: HostSystem,
    ) -> Self {
        Self {
            sink,
            keyboard: Keyboard::new(options, system),
            focused: false,
            buttons: Vec::new(),
            fingers: Fingers::default(),
            moved: (0.0, 0.0),
            turned: (0.0, 0.0),
            notches: (0, 0),
            grabbed: false,
        }
    }

    /// Whether the guest has a tablet, so that it shows its pointer where the host's is.
    pub(crate) fn points(&self) -> bool {
        self.sink.has(InputKind::Tablet)
    }

    pub(crate) fn grabbed(&self) -> bool {
        self.grabbed
    }

    /// The window has grabbed the pointer or released it.
    pub(crate) fn set_grabbed(&mut self, grabbed: bool) {
        if self.grabbed != grabbed {
            self.release_buttons();
            self.grabbed = grabbed;
            self.moved = (0.0, 0.0);
        }
    }

    /// What the user can do about the pointer, for the title.
    pub(crate) fn hint(&self) -> String {
        let keys = self.keyboard.grab_mod();
        match (self.grabbed, self.sink.has(InputKind::Mouse), self.points()) {
            (true, ..) => format!("{keys}+G releases the pointer"),
            (false, true, false) => "click to grab the pointer".to_owned(),
            (false, true, true) => format!("{keys}+G grabs the pointer"),
            (false, false, _) => String::new(),
        }
    }

    /// A key was pressed or released. Repeats are ignored: the guest makes its own. `apple` is the
    /// key as AppKit reports it. `synthetic`: it was already so before the window got the keyboard.
    pub(crate) fn key(
        &mut self,
        key: PhysicalKey,
        apple: Option<AppleKey>,
        state: ElementState,
        repeat: bool,
        synthetic: bool,
    ) -> WindowAction {
        let Some(code) = self.keyboard.code(key, apple) else {
            return WindowAction::Nothing;
        };
        if state == ElementState::Released {
            self.keyboard.release(&*self.sink, code);
        } else if self.keyboard.is_new_press(code, state, repeat, synthetic) {
            let action = self.chord(code);
            if action != WindowAction::Nothing {
                self.keyboard.neutralise_super(&*self.sink);
                return action;
            }
            self.keyboard.press(&*self.sink, code);
        }
        WindowAction::Nothing
    }

    /// What a key asks of the window, if the keys are held that begin the window's own
    /// combinations.
    fn chord(&self, code: u16) -> WindowAction {
        if !self.keyboard.grab_mod_is_held() {
            return WindowAction::Nothing;
        }
        match code {
            KEY_F => WindowAction::FullScreen,
            KEY_O => WindowAction::Overlay,
            KEY_S => WindowAction::Screenshot,
            KEY_G if self.grabbed => WindowAction::Release,
            KEY_G if self.sink.has(InputKind::Mouse) => WindowAction::Grab,
            _ => WindowAction::Nothing,
        }
    }

    /// The window system reports that these modifiers are held.
    pub(crate) fn modifiers(&mut self, held: ModifiersState) {
        self.keyboard.modifiers(&*self.sink, held);
    }

    /// A window got the keyboard. `caps`: whether Caps Lock of a Mac is on. `guests`: whether the
    /// guest's is.
    pub(crate) fn focus(&mut self, caps: Option<bool>, guests: bool) {
        self.focused = true;
        if let Some(on) = caps {
            self.keyboard.caps_lock(&*self.sink, on, Some(guests));
        }
    }

    /// Caps Lock of a Mac is on or off. Only a window that has the keyboard passes it on.
    pub(crate) fn caps_lock(&mut self, on: bool) {
        if self.focused {
            self.keyboard.caps_lock(&*self.sink, on, None);
        }
    }

    /// The pointer is at this position, in steps of the guest's axes.
    pub(crate) fn pointer_at(&mut self, (x, y): (i32, i32)) {
        if !self.grabbed && self.sink.has(InputKind::Tablet) {
            let events = [absolute(ABS_X, x), absolute(ABS_Y, y)];
            self.sink.report(InputKind::Tablet, &events);
        }
    }

    /// The pointer was moved, wherever it is. Only a grabbed pointer's movements are sent.
    pub(crate) fn moved(&mut self, delta: (f64, f64)) {
        if self.grabbed {
            let x = whole(&mut self.moved.0, delta.0);
            let y = whole(&mut self.moved.1, delta.1);
            if (x, y) != (0, 0) {
                let events = [relative(REL_X, x), relative(REL_Y, y)];
                self.sink.report(InputKind::Mouse, &events);
            }
        }
    }

    /// The device to which buttons and wheels belong.
    fn pointer(&self) -> Option<InputKind> {
        let kind = if self.grabbed {
            InputKind::Mouse
        } else {
            InputKind::Tablet
        };
        self.sink.has(kind).then_some(kind)
    }

    pub(crate) fn button(&mut self, button: MouseButton, state: ElementState) -> WindowAction {
        let code = match button {
            MouseButton::Left => BTN_LEFT,
            MouseButton::Right => BTN_RIGHT,
            MouseButton::Middle => BTN_MIDDLE,
            MouseButton::Back => BTN_SIDE,
            MouseButton::Forward => BTN_EXTRA,
            MouseButton::Other(_) => return WindowAction::Nothing,
        };
        match state {
            ElementState::Pressed => match self.pointer() {
                Some(device) if !self.buttons.contains(&(device, code)) => {
                    self.buttons.push((device, code));
                    self.sink.report(device, &[key_event(code, true)]);
                }
                Some(_) => {}
                None if !self.grabbed && self.sink.has(InputKind::Mouse) => {
                    return WindowAction::Grab;
                }
                None => {}
            },
            ElementState::Released => {
                if let Some(index) = self.buttons.iter().position(|(_, held)| *held == code) {
                    let (device, _) = self.buttons.swap_remove(index);
                    self.sink.report(device, &[key_event(code, false)]);
                }
            }
        }
        WindowAction::Nothing
    }

    /// A wheel was turned, or fingers scrolled. `scale`: physical pixels per logical one.
    pub(crate) fn wheel(&mut self, delta: MouseScrollDelta, scale: f64) {
        let Some(device) = self.pointer() else {
            return;
        };
        let (right, up) = match delta {
            MouseScrollDelta::LineDelta(x, y) => (f64::from(x), f64::from(y)),
            MouseScrollDelta::PixelDelta(pixels) => {
                let notch = NOTCH_PIXELS * scale;
                (pixels.x / notch, pixels.y / notch)
            }
        };
        // The window system reports where the contents move, evdev where the view moves: sideways
        // these are opposite.
        let across = whole(&mut self.turned.0, -right * NOTCH);
        let along = whole(&mut self.turned.1, up * NOTCH);
        let mut events = Vec::with_capacity(4);
        for (steps, left, fine, coarse) in [
            (along, &mut self.notches.1, REL_WHEEL_HI_RES, REL_WHEEL),
            (across, &mut self.notches.0, REL_HWHEEL_HI_RES, REL_HWHEEL),
        ] {
            if steps != 0 {
                events.push(relative(fine, steps));
                *left = left.saturating_add(steps);
                let notches = *left / NOTCH as i32;
                if notches != 0 {
                    *left -= notches * NOTCH as i32;
                    events.push(relative(coarse, notches));
                }
            }
        }
        if !events.is_empty() {
            self.sink.report(device, &events);
        }
    }

    /// A finger touches this position, in steps of the guest's axes.
    pub(crate) fn touch(&mut self, finger: u64, phase: TouchPhase, (x, y): (i32, i32)) {
        let events = match phase {
            TouchPhase::Started | TouchPhase::Moved => {
                let new = phase == TouchPhase::Started;
                self.fingers.place(finger, (x, y), new)
            }
            TouchPhase::Ended | TouchPhase::Cancelled => self.fingers.lift(finger),
        };
        if !events.is_empty() {
            self.sink.report(InputKind::Touch, &events);
        }
    }

    /// The window lost the keyboard. Everything is released in the guest: no event will report it
    /// later.
    pub(crate) fn release_all(&mut self) -> WindowAction {
        self.focused = false;
        self.keyboard.release_all(&*self.sink);
        self.release_buttons();
        let lifted = self.fingers.lift_all();
        if !lifted.is_empty() {
            self.sink.report(InputKind::Touch, &lifted);
        }
        if self.grabbed {
            WindowAction::Release
        } else {
            WindowAction::Nothing
        }
    }

    fn release_buttons(&mut self) {
        for (device, code) in std::mem::take(&mut self.buttons) {
            self.sink.report(device, &[key_event(code, false)]);
        }
    }
}

/// Adds `more` to what is left over, and takes out the whole part.
fn whole(left: &mut f64, more: f64) -> i32 {
    *left += more;
    let whole = left.trunc();
    *left -= whole;
    if !left.is_finite() {
        *left = 0.0;
    }
    // The cast saturates.
    whole as i32
}
