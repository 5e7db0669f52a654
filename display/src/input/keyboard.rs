//! The keyboard: which keys are down, what the guest is told of them, and which combinations are the window's own.
//!
//! The hard thing is that no key may stay down in the guest. A key is told as let go with the code with which it was told as
//! pressed, whatever the options say meanwhile, and everything is let go when the window loses the keyboard. Macs have
//! rules of their own ([`HostSystem::Mac`]), since AppKit does not tell all that happens to a key.

use winit::event::ElementState;
use winit::keyboard::{ModifiersState, PhysicalKey};

use super::evdev::key_event;
use super::keys::*;
use super::{InputKind, InputSink};

/// Which keys, held together with a letter, ask something of the window and not of the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum GrabMod {
    /// Ctrl and Alt (a Mac's Option), of either side.
    #[default]
    CtrlAlt,
    /// The left Shift, the left Ctrl and the left Alt.
    LeftShiftCtrlAlt,
    /// The right Ctrl.
    RightCtrl,
    /// Cmd, of either side: the Super (Windows) key of a PC's keyboard.
    Cmd,
}

/// What the Cmd keys of a Mac are in the guest; the Super (Windows) keys of a PC's keyboard are the same keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CmdKey {
    /// Super.
    #[default]
    Super,
    /// Alt, and Option is Super: the order of a PC's keyboard.
    SwapOption,
    /// Ctrl, and Ctrl is Super: a Mac's Cmd-C copies in the guest.
    SwapControl,
    /// The left one, and what is pressed while it is held, stays on the host. The right one is Super.
    Host,
}

/// How a person's keyboard acts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyboardOptions {
    /// What the window's own combinations begin with.
    pub grab_mod: GrabMod,
    /// What Cmd is in the guest.
    pub cmd_key: CmdKey,
}

/// Whose keyboard it is. A value, so that a Mac's rules are tested everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostSystem {
    /// X11 and Wayland.
    Pc,
    /// AppKit.
    Mac,
}

impl HostSystem {
    /// The one that runs this program.
    pub(crate) const HERE: HostSystem = if cfg!(target_os = "macos") {
        HostSystem::Mac
    } else {
        HostSystem::Pc
    };
}

impl GrabMod {
    /// What is printed on the keys.
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

    /// The keys: one of each pair.
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

/// What the keys of modifiers are to window systems.
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
    /// By its place.
    key: u16,
    /// What the guest was told; `None`: nothing, it stays on the host.
    sent: Option<u16>,
    /// It was pressed while Cmd was held.
    with_cmd: bool,
}

/// See the module.
pub(super) struct Keyboard {
    system: HostSystem,
    options: KeyboardOptions,
    held: Vec<Held>,
    /// Whether a Mac's Caps Lock was on when it was last looked at.
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

    /// What is printed on the keys of the window's own combinations.
    pub(super) fn grab_mod(&self) -> &'static str {
        self.options.grab_mod.name(self.system)
    }

    /// The code of a key by its place; `None`: it has none that a guest knows.
    pub(super) fn code(&self, key: PhysicalKey, apple: Option<AppleKey>) -> Option<u16> {
        let code = match self.system {
            HostSystem::Pc => code(key),
            HostSystem::Mac => apple_code(key, apple),
        };
        if code.is_none() {
            log::debug!("{key:?} ({apple:?}) has no code that a guest knows");
        }
        code
    }

    /// Whether a key goes down now that was up. `synthetic`: it was down before the window got the keyboard.
    pub(super) fn is_new_press(
        &self,
        key: u16,
        state: ElementState,
        repeat: bool,
        synthetic: bool,
    ) -> bool {
        // A key that was meant for another window must not act in this one; shift and control must hold for what is typed
        // next.
        let counts = !synthetic || SHIFT.contains(&key) || CTRL.contains(&key);
        state == ElementState::Pressed && !repeat && counts && !self.is_held(key)
    }

    fn is_held(&self, key: u16) -> bool {
        self.held.iter().any(|held| held.key == key)
    }

    fn any_held(&self, keys: [u16; 2]) -> bool {
        keys.into_iter().any(|key| self.is_held(key))
    }

    /// Whether what is pressed now asks something of the window.
    pub(super) fn grab_mod_is_held(&self) -> bool {
        let mut keys = self.options.grab_mod.keys().iter();
        keys.all(|keys| self.any_held(*keys))
    }

    /// A combination with keys that are held went to the window or to the host. The guest only sees Super pressed and let go,
    /// for which desktops open their overview: another key in between says that it was for something else.
    pub(super) fn neutralise_super(&self, sink: &dyn InputSink) {
        let sent = |keys: [u16; 2]| {
            let mut sent = self.held.iter().filter_map(|held| held.sent);
            sent.any(|key| keys.contains(&key))
        };
        if sent(SUPER) && !sent(CTRL) {
            tap(sink, KEY_LEFTCTRL);
        }
    }

    /// A key goes down ([`Self::is_new_press`]).
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

    /// A key goes up. One that never was passed on is not let go either.
    pub(super) fn release(&mut self, sink: &dyn InputSink, key: u16) {
        let Some(index) = self.held.iter().position(|held| held.key == key) else {
            return;
        };
        let held = self.held.swap_remove(index);
        // AppKit keeps to itself that a key is let go while Cmd is held; winit passes it on as long as the application has a
        // window with the keyboard. What was pressed with Cmd has done its work when Cmd goes up.
        if self.system == HostSystem::Mac && SUPER.contains(&key) && !self.any_held(SUPER) {
            self.release_keys(sink, |held| held.with_cmd && !is_modifier(held.key));
        }
        if let Some(code) = held.sent {
            sink.report(InputKind::Keyboard, &[key_event(code, false)]);
        }
    }

    /// What the guest is told of a key.
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

    /// Which modifiers the window system says are held. On a Mac it knows better than the keys' own events, which do not come
    /// while the system shows something of its own. Elsewhere they may be other keys' work (X11's options for modifiers).
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

    /// A Mac tells of Caps Lock as a state: winit has no event of the key. Were there one, it would count twice.
    fn is_from_state(&self, key: u16) -> bool {
        self.system == HostSystem::Mac && key == KEY_CAPSLOCK
    }

    /// The Mac's Caps Lock is on, or not. `guests`: whether the guest's is, where the window has just got the keyboard.
    pub(super) fn caps_lock(&mut self, sink: &dyn InputSink, on: bool, guests: Option<bool>) {
        let before = guests.unwrap_or(self.caps);
        self.caps = on;
        if before != on {
            tap(sink, KEY_CAPSLOCK);
        }
    }

    /// The window lost the keyboard.
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

/// A key is pressed and let go.
fn tap(sink: &dyn InputSink, key: u16) {
    for pressed in [true, false] {
        sink.report(InputKind::Keyboard, &[key_event(key, pressed)]);
    }
}
