//! Keys: from their position on the keyboard to evdev's codes.
//!
//! winit names keys by their position, in the same way on all systems. On a Mac some names are
//! missing: [`apple_code`] knows those keys by Apple's own codes.

use winit::keyboard::{KeyCode, NativeKeyCode, PhysicalKey};

pub(super) const KEY_LEFTCTRL: u16 = 29;
pub(super) const KEY_O: u16 = 24;
pub(super) const KEY_S: u16 = 31;
pub(super) const KEY_F: u16 = 33;
pub(super) const KEY_G: u16 = 34;
pub(super) const KEY_LEFTSHIFT: u16 = 42;
pub(super) const KEY_RIGHTSHIFT: u16 = 54;
pub(super) const KEY_LEFTALT: u16 = 56;
pub(super) const KEY_CAPSLOCK: u16 = 58;
pub(super) const KEY_RIGHTCTRL: u16 = 97;
pub(super) const KEY_RIGHTALT: u16 = 100;
pub(super) const KEY_LEFTMETA: u16 = 125;
pub(super) const KEY_RIGHTMETA: u16 = 126;

/// The largest code that the guest's keyboard has (`KEY_MICMUTE`).
const KEY_LAST: u32 = 248;

/// A key of a Mac, as AppKit reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AppleKey {
    /// Apple's code of the key (`kVK_…` of Carbon's `HIToolbox/Events.h`).
    pub(crate) code: u16,
    /// The keyboard has the shape of ISO 9995: there is a key between the left Shift and Z.
    pub(crate) iso: bool,
}

/// The code of a key of a Mac.
///
/// `apple` is the key of AppKit's current event, if there is one. winit 0.30 gives one name to both
/// keys that differ on ISO keyboards. It gives the three sound keys the names of their neighbours.
/// It has no names for keys of Japanese keyboards and for a PC's menu key.
pub(super) fn apple_code(key: PhysicalKey, apple: Option<AppleKey>) -> Option<u16> {
    let (number, iso) = match (key, apple) {
        // If winit delayed an event, AppKit's current number belongs to another one.
        (PhysicalKey::Unidentified(NativeKeyCode::MacOS(number)), _) => (Some(number), false),
        (PhysicalKey::Code(KeyCode::Backquote), Some(AppleKey { code, iso }))
            if matches!(code, ISO_SECTION | ANSI_GRAVE) =>
        {
            (Some(code), iso)
        }
        _ => (None, false),
    };
    match number {
        // The key below Escape and the one beside the left Shift: on ISO keyboards their numbers
        // are exchanged.
        Some(ISO_SECTION) => Some(if iso { KEY_GRAVE } else { KEY_102ND }),
        Some(ANSI_GRAVE) => Some(if iso { KEY_102ND } else { KEY_GRAVE }),
        Some(0x48) => Some(KEY_VOLUMEUP),
        Some(0x5e) => named(KeyCode::IntlRo),
        Some(0x5f) => named(KeyCode::NumpadComma),
        Some(0x66) => named(KeyCode::Lang2),
        Some(0x68) => named(KeyCode::Lang1),
        Some(0x6e) => named(KeyCode::ContextMenu),
        Some(_) => None,
        None => match key {
            PhysicalKey::Code(KeyCode::AudioVolumeUp) => Some(KEY_VOLUMEDOWN),
            PhysicalKey::Code(KeyCode::AudioVolumeDown) => Some(KEY_MUTE),
            key => code(key),
        },
    }
}

const ISO_SECTION: u16 = 0x0a;
const ANSI_GRAVE: u16 = 0x32;

const KEY_GRAVE: u16 = 41;
const KEY_102ND: u16 = 86;
const KEY_MUTE: u16 = 113;
const KEY_VOLUMEDOWN: u16 = 114;
const KEY_VOLUMEUP: u16 = 115;

/// The code of a key; `None` for keys that no PC's keyboard has.
pub(super) fn code(key: PhysicalKey) -> Option<u16> {
    match key {
        PhysicalKey::Code(key) => named(key),
        // For keys without a name X11 and Wayland report evdev's own code.
        PhysicalKey::Unidentified(NativeKeyCode::Xkb(code)) => (1..=KEY_LAST)
            .contains(&code)
            .then(|| u16::try_from(code).ok())
            .flatten(),
        PhysicalKey::Unidentified(_) => None,
    }
}

/// `KEY_*` of `input-event-codes.h`, in its order.
#[rustfmt::skip]
fn named(key: KeyCode) -> Option<u16> {
    Some(match key {
        KeyCode::Escape => 1,
        KeyCode::Digit1 => 2,
        KeyCode::Digit2 => 3,
        KeyCode::Digit3 => 4,
        KeyCode::Digit4 => 5,
        KeyCode::Digit5 => 6,
        KeyCode::Digit6 => 7,
        KeyCode::Digit7 => 8,
        KeyCode::Digit8 => 9,
        KeyCode::Digit9 => 10,
        KeyCode::Digit0 => 11,
        KeyCode::Minus => 12,
        KeyCode::Equal => 13,
        KeyCode::Backspace => 14,
        KeyCode::Tab => 15,
        KeyCode::KeyQ => 16,
        KeyCode::KeyW => 17,
        KeyCode::KeyE => 18,
        KeyCode::KeyR => 19,
        KeyCode::KeyT => 20,
        KeyCode::KeyY => 21,
        KeyCode::KeyU => 22,
        KeyCode::KeyI => 23,
        KeyCode::KeyO => 24,
        KeyCode::KeyP => 25,
        KeyCode::BracketLeft => 26,
        KeyCode::BracketRight => 27,
        KeyCode::Enter => 28,
        KeyCode::ControlLeft => 29,
        KeyCode::KeyA => 30,
        KeyCode::KeyS => 31,
        KeyCode::KeyD => 32,
        KeyCode::KeyF => 33,
        KeyCode::KeyG => 34,
        KeyCode::KeyH => 35,
        KeyCode::KeyJ => 36,
        KeyCode::KeyK => 37,
        KeyCode::KeyL => 38,
        KeyCode::Semicolon => 39,
        KeyCode::Quote => 40,
        KeyCode::Backquote => 41,
        KeyCode::ShiftLeft => 42,
        KeyCode::Backslash => 43,
        KeyCode::KeyZ => 44,
        KeyCode::KeyX => 45,
        KeyCode::KeyC => 46,
        KeyCode::KeyV => 47,
        KeyCode::KeyB => 48,
        KeyCode::KeyN => 49,
        KeyCode::KeyM => 50,
        KeyCode::Comma => 51,
        KeyCode::Period => 52,
        KeyCode::Slash => 53,
        KeyCode::ShiftRight => 54,
        KeyCode::NumpadMultiply => 55,
        KeyCode::AltLeft => 56,
        KeyCode::Space => 57,
        KeyCode::CapsLock => 58,
        KeyCode::F1 => 59,
        KeyCode::F2 => 60,
        KeyCode::F3 => 61,
        KeyCode::F4 => 62,
        KeyCode::F5 => 63,
        KeyCode::F6 => 64,
        KeyCode::F7 => 65,
        KeyCode::F8 => 66,
        KeyCode::F9 => 67,
        KeyCode::F10 => 68,
        KeyCode::NumLock => 69,
        KeyCode::ScrollLock => 70,
        KeyCode::Numpad7 => 71,
        KeyCode::Numpad8 => 72,
        KeyCode::Numpad9 => 73,
        KeyCode::NumpadSubtract => 74,
        KeyCode::Numpad4 => 75,
        KeyCode::Numpad5 => 76,
        KeyCode::Numpad6 => 77,
        KeyCode::NumpadAdd => 78,
        KeyCode::Numpad1 => 79,
        KeyCode::Numpad2 => 80,
        KeyCode::Numpad3 => 81,
        KeyCode::Numpad0 => 82,
        KeyCode::NumpadDecimal => 83,
        KeyCode::Lang5 => 85,
        KeyCode::IntlBackslash => 86,
        KeyCode::F11 => 87,
        KeyCode::F12 => 88,
        KeyCode::IntlRo => 89,
        KeyCode::Lang3 => 90,
        KeyCode::Lang4 => 91,
        KeyCode::Convert => 92,
        KeyCode::KanaMode => 93,
        KeyCode::NonConvert => 94,
        KeyCode::NumpadEnter => 96,
        KeyCode::ControlRight => 97,
        KeyCode::NumpadDivide => 98,
        KeyCode::PrintScreen => 99,
        KeyCode::AltRight => 100,
        KeyCode::Home => 102,
        KeyCode::ArrowUp => 103,
        KeyCode::PageUp => 104,
        KeyCode::ArrowLeft => 105,
        KeyCode::ArrowRight => 106,
        KeyCode::End => 107,
        KeyCode::ArrowDown => 108,
        KeyCode::PageDown => 109,
        KeyCode::Insert => 110,
        KeyCode::Delete => 111,
        KeyCode::AudioVolumeMute => 113,
        KeyCode::AudioVolumeDown => 114,
        KeyCode::AudioVolumeUp => 115,
        KeyCode::Power => 116,
        KeyCode::NumpadEqual => 117,
        KeyCode::Pause => 119,
        KeyCode::NumpadComma => 121,
        KeyCode::Lang1 => 122,
        KeyCode::Lang2 => 123,
        KeyCode::IntlYen => 124,
        KeyCode::SuperLeft => 125,
        KeyCode::SuperRight => 126,
        KeyCode::ContextMenu => 127,
        KeyCode::BrowserStop => 128,
        KeyCode::Again => 129,
        KeyCode::Props => 130,
        KeyCode::Undo => 131,
        KeyCode::Copy => 133,
        KeyCode::Open => 134,
        KeyCode::Paste => 135,
        KeyCode::Find => 136,
        KeyCode::Cut => 137,
        KeyCode::Help => 138,
        KeyCode::LaunchApp2 => 140,
        KeyCode::Sleep => 142,
        KeyCode::WakeUp => 143,
        KeyCode::LaunchMail => 155,
        KeyCode::BrowserFavorites => 156,
        KeyCode::LaunchApp1 => 157,
        KeyCode::BrowserBack => 158,
        KeyCode::BrowserForward => 159,
        KeyCode::Eject => 161,
        KeyCode::MediaTrackNext => 163,
        KeyCode::MediaPlayPause => 164,
        KeyCode::MediaTrackPrevious => 165,
        KeyCode::MediaStop => 166,
        KeyCode::BrowserHome => 172,
        KeyCode::BrowserRefresh => 173,
        KeyCode::NumpadParenLeft => 179,
        KeyCode::NumpadParenRight => 180,
        KeyCode::F13 => 183,
        KeyCode::F14 => 184,
        KeyCode::F15 => 185,
        KeyCode::F16 => 186,
        KeyCode::F17 => 187,
        KeyCode::F18 => 188,
        KeyCode::F19 => 189,
        KeyCode::F20 => 190,
        KeyCode::F21 => 191,
        KeyCode::F22 => 192,
        KeyCode::F23 => 193,
        KeyCode::F24 => 194,
        KeyCode::BrowserSearch => 217,
        KeyCode::MediaSelect => 226,
        _ => return None,
    })
}
