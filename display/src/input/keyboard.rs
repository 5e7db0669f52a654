//! The keyboard: which keys are down, what is sent to the guest, and which combinations are for the
//! window.
//!
//! The hard part is that no key may stay down in the guest. A key is released with the code with
//! which it was pressed, whatever the options say by then. All keys are released when the window
//! loses the keyboard. Macs have rules of their own ([`HostSystem::Mac`]), because AppKit does not
//! report everything that happens to a key.

use winit::event::ElementState;
use winit::keyboard::{ModifiersState, PhysicalKey};

use super::evdev::key_event;
use super::keys::*;
use super::{InputKind, InputSink};

/// The keys that begin the window's own combinations. Held together with a letter they command the
/// window and not the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GrabMod {
    /// Ctrl and Alt (Option on a Mac), on either side.
    #[default]
    CtrlAlt,
    /// The left Shift, the left Ctrl and the left Alt.
    LeftShiftCtrlAlt,
    /// The right Ctrl.
    RightCtrl,
    /// Cmd, on either side. On a PC's keyboard this is the Super (Windows) key.
    Cmd,
}

/// What the Cmd keys of a Mac are in the guest. The Super (Windows) keys of a PC's keyboard are the
/// same keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CmdKey {
    /// Super.
    #[default]
    Super,
    /// Alt, while Option is Super: the order of a PC's keyboard.
    SwapOption,
    /// Ctrl, while Ctrl is Super: Cmd-C then copies in the guest.
    SwapControl,
    /// The left Cmd, and every key that is pressed while it is held, stays on the host. The right
    /// Cmd is Super.
    Host,
}

/// How the user's keyboard works.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyboardOptions {
    /// The keys that begin the window's own combinations.
    pub grab_mod: GrabMod,
    /// What Cmd is in the guest.
    pub cmd_key: CmdKey,
}

/// The system whose keyboard this is. It is a value, so that the rules of a Mac are tested
/// everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostSystem {
    /// X11 and Wayland.
    Pc,
    /// AppKit.
    Mac,
}

impl HostSystem {
    /// The system on which this program runs.
    pub(crate) const HERE: HostSystem = if cfg!(target_os = "macos") {
        HostSystem::Mac
    } else {
        HostSystem::Pc
    };
}

impl GrabMod {
    /// The names that are printed on the keys.
    pub(crate) fn name(self, system: HostSystem) -> &'static str {
        match (self, system) {
            (GrabMod::CtrlAlt, HostSystem::Pc) => "Ctrl+Alt",
            (GrabMod::CtrlAlt, HostSystem::Mac) => "Ctrl+Option",
            (GrabMod::LeftShiftCtrlAlt, HostSystem::Pc) => "left Shift+Ctrl+Alt",
            (GrabMod::LeftShiftCtrlAlt, HostSystem::Mac) => "left Shift+Ctrl+Option",
            (GrabMod::RightCtrl, _) => "right Ctrl",
            (GrabMod::Cmd, HostSystem::Pc) => "Super",
            (GrabMod::Cmd, HostSystem::Mac) => "Cmd",
        }
    }

    /// The keys: one of each pair must be held.
    fn keys(self) -> &'static [[u16; 2]] {
        match self {
            GrabMod::CtrlAlt => &[CTRL, ALT],
            GrabMod::LeftShiftCtrlAlt => &[[KEY_LEFTSHIFT; 2], [KEY_LEFTCTRL; 2], [KEY_LEFTALT; 2]],
            GrabMod::RightCtrl => &[[KEY_RIGHTCTRL; 2]],
            GrabMod::Cmd => &[SUPER],
        }
    }
}

const SHIFT: [u16; 2] = [KEY_LEFTSHIFT, KEY_RIGHTSHIFT];
const CTRL: [u16; 2] = [KEY_LEFTCTRL, KEY_RIGHTCTRL];
const ALT: [u16; 2] = [KEY_LEFTALT, KEY_RIGHTALT];
const SUPER: [u16; 2] = [KEY_LEFTMETA, KEY_RIGHTMETA];

/// The keys of each modifier that window systems report.
const MODIFIERS: [(ModifiersState, [u16; 2]); 4] = [
    (ModifiersState::SHIFT, SHIFT),
    (ModifiersState::CONTROL, CTRL),
    (ModifiersState::ALT, ALT),
    (ModifiersState::SUPER, SUPER),
];

fn is_modifier(key: u16) -> bool {
    MODIFIERS.iter().any(|(_, keys)| keys.contains(&key))
}

/// A key that is down.
#[derive(Clone, Copy)]
struct Held {
    /// The key's code by its position.
    key: u16,
    /// The code that was sent to the guest; `None` if the key stays on the host.
    sent: Option<u16>,
    /// Whether it was pressed while Cmd was held.
    with_cmd: bool,
}

/// The keys that are down, and the options that say what they mean.
pub(super) struct Keyboard {
    system: HostSystem,
    options: KeyboardOptions,
    held: Vec<Held>,
    /// Whether Caps Lock of a Mac was on when it was last checked.
    caps: bool,
}

impl Keyboard {
    pub(super) fn new(options: KeyboardOptions, system: HostSystem) -> Keyboard {
        Keyboard {
            system,
            options,
            held: Vec::new(),
            caps: false,
        }
    }

    /// The names of the keys that begin the window's own combinations.
    pub(super) fn grab_mod(&self) -> &'static str {
        self.options.grab_mod.name(self.system)
    }

    /// The code of a key by its position; `None` if guests know none.
    pub(super) fn code(&self, key: PhysicalKey, apple: Option<AppleKey>) -> Option<u16> {
        let code = match self.system {
            HostSystem::Pc => code(key),
            HostSystem::Mac => apple_code(key, apple),
        };
        if code.is_none() {
            log::debug!("{key:?} ({apple:?}) has no evdev code, so it is not sent");
        }
        code
    }

    /// Whether a key goes down that was up. `synthetic`: it was already down when the window got
    /// the keyboard.
    pub(super) fn is_new_press(
        &self,
        key: u16,
        state: ElementState,
        repeat: bool,
        synthetic: bool,
    ) -> bool {
        // A key that was meant for another window must not act in this one. Shift and Ctrl must
        // apply to the keys that follow.
        let counts = !synthetic || SHIFT.contains(&key) || CTRL.contains(&key);
        state == ElementState::Pressed && !repeat && counts && !self.is_held(key)
    }

    fn is_held(&self, key: u16) -> bool {
        self.held.iter().any(|held| held.key == key)
    }

    fn any_held(&self, keys: [u16; 2]) -> bool {
        keys.into_iter().any(|key| self.is_held(key))
    }

    /// Whether the keys are held that begin the window's own combinations.
    pub(super) fn grab_mod_is_held(&self) -> bool {
        let mut keys = self.options.grab_mod.keys().iter();
        keys.all(|keys| self.any_held(*keys))
    }

    /// Keeps the guest's desktop from taking Super for a key of its own. Super was part of a
    /// combination for the window or the host, but the guest would only see it pressed and
    /// released, which opens the overview of many desktops. Another key in between prevents that.
    pub(super) fn neutralise_super(&self, sink: &dyn InputSink) {
        let sent = |keys: [u16; 2]| {
            let mut sent = self.held.iter().filter_map(|held| held.sent);
            sent.any(|key| keys.contains(&key))
        };
        if sent(SUPER) && !sent(CTRL) {
            tap(sink, KEY_LEFTCTRL);
        }
    }

    /// A key goes down (see [`Self::is_new_press`]).
    pub(super) fn press(&mut self, sink: &dyn InputSink, key: u16) {
        if self.is_from_state(key) {
            return;
        }
        let with_cmd = self.any_held(SUPER);
        let sent = self.guest_key(key);
        self.held.push(Held {
            key,
            sent,
            with_cmd,
        });
        if let Some(code) = sent {
            sink.report(InputKind::Keyboard, &[key_event(code, true)]);
        }
    }

    /// A key goes up. A key that was not passed on is not released either.
    pub(super) fn release(&mut self, sink: &dyn InputSink, key: u16) {
        let Some(index) = self.held.iter().position(|held| held.key == key) else {
            return;
        };
        let held = self.held.swap_remove(index);
        // AppKit does not report keys that are released while Cmd is held. winit reports them as
        // long as a window of the application has the keyboard. Keys that were pressed with Cmd
        // have had their effect when Cmd goes up.
        if self.system == HostSystem::Mac && SUPER.contains(&key) && !self.any_held(SUPER) {
            self.release_keys(sink, |held| held.with_cmd && !is_modifier(held.key));
        }
        if let Some(code) = held.sent {
            sink.report(InputKind::Keyboard, &[key_event(code, false)]);
        }
    }

    /// The code of a key for the guest; `None` if the key stays on the host.
    fn guest_key(&self, key: u16) -> Option<u16> {
        let swapped = |one: [u16; 2], other: [u16; 2]| match key {
            _ if key == one[0] => other[0],
            _ if key == one[1] => other[1],
            _ if key == other[0] => one[0],
            _ if key == other[1] => one[1],
            _ => key,
        };
        match self.options.cmd_key {
            CmdKey::Super => Some(key),
            CmdKey::SwapOption => Some(swapped(SUPER, ALT)),
            CmdKey::SwapControl => Some(swapped(SUPER, CTRL)),
            CmdKey::Host => (key != KEY_LEFTMETA && !self.is_held(KEY_LEFTMETA)).then_some(key),
        }
    }

    /// The window system reports which modifiers are held. On a Mac this is more reliable than the
    /// events of the keys, which are missing while the system shows something of its own. Elsewhere
    /// other keys may act as modifiers (X11's options), so it is ignored.
    pub(super) fn modifiers(&mut self, sink: &dyn InputSink, held: ModifiersState) {
        if self.system != HostSystem::Mac {
            return;
        }
        for (modifier, keys) in MODIFIERS {
            if !held.contains(modifier) && self.any_held(keys) {
                self.neutralise_super(sink);
                for key in keys {
                    self.release(sink, key);
                }
            }
        }
    }

    /// Whether a key is reported as a state: Caps Lock of a Mac. winit has no event of that key; if
    /// it had, the key would count twice.
    fn is_from_state(&self, key: u16) -> bool {
        self.system == HostSystem::Mac && key == KEY_CAPSLOCK
    }

    /// Caps Lock of a Mac is on or off. `guests` is the state in the guest, if the window has just
    /// got the keyboard.
    pub(super) fn caps_lock(&mut self, sink: &dyn InputSink, on: bool, guests: Option<bool>) {
        let before = guests.unwrap_or(self.caps);
        self.caps = on;
        if before != on {
            tap(sink, KEY_CAPSLOCK);
        }
    }

    /// Releases all keys: the window lost the keyboard.
    pub(super) fn release_all(&mut self, sink: &dyn InputSink) {
        self.neutralise_super(sink);
        self.release_keys(sink, |_| true);
    }

    fn release_keys(&mut self, sink: &dyn InputSink, these: impl Fn(&Held) -> bool) {
        let events: Vec<_> = self
            .held
            .iter()
            .filter(|held| these(held))
            .filter_map(|held| held.sent)
            .map(|code| key_event(code, false))
            .collect();
        self.held.retain(|held| !these(held));
        if !events.is_empty() {
            sink.report(InputKind::Keyboard, &events);
        }
    }
}

/// Presses and releases a key.
fn tap(sink: &dyn InputSink, key: u16) {
    for pressed in [true, false] {
        sink.report(InputKind::Keyboard, &[key_event(key, pressed)]);
    }
}
