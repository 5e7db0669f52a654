use winit::event::ElementState;
use winit::keyboard::{KeyCode, ModifiersState, NativeKeyCode, PhysicalKey};

use super::evdev::key_event;
use super::keys::*;
use super::tests::Guest;
use super::*;

const KEYS: &[InputKind] = &[InputKind::Keyboard];

fn options(grab_mod: GrabMod, cmd_key: CmdKey) -> KeyboardOptions {
    KeyboardOptions { grab_mod, cmd_key }
}

/// What the guest was sent, in short: the code of a key that goes down, and minus the code of one
/// that goes up.
#[track_caller]
fn received(guest: &Guest) -> Vec<i32> {
    let events = guest.received_by(InputKind::Keyboard).concat();
    let sign = |event: &InputEvent| if event.value == 1 { 1 } else { -1 };
    events
        .iter()
        .map(|event| sign(event) * i32::from(event.code))
        .collect()
}

const LEFTCTRL: i32 = KEY_LEFTCTRL as i32;
const LEFTALT: i32 = KEY_LEFTALT as i32;
const RIGHTCTRL: i32 = KEY_RIGHTCTRL as i32;
const LEFTMETA: i32 = KEY_LEFTMETA as i32;
const RIGHTMETA: i32 = KEY_RIGHTMETA as i32;
const CAPSLOCK: i32 = KEY_CAPSLOCK as i32;
const A: i32 = 30;
const C: i32 = 46;

/// Every key that winit 0.30's AppKit backend can report (its `scancode_to_physicalkey` and
/// `extra_function_key_to_code`): Apple's code, winit's name, the guest's code. The volume keys
/// follow Apple's `Events.h`; winit's names for them are wrong.
#[rustfmt::skip]
const APPLE: &[(u16, KeyCode, u16)] = &[
    (0x00, KeyCode::KeyA, 30), (0x01, KeyCode::KeyS, 31), (0x02, KeyCode::KeyD, 32), (0x03, KeyCode::KeyF, 33),
    (0x04, KeyCode::KeyH, 35), (0x05, KeyCode::KeyG, 34), (0x06, KeyCode::KeyZ, 44), (0x07, KeyCode::KeyX, 45),
    (0x08, KeyCode::KeyC, 46), (0x09, KeyCode::KeyV, 47), (0x0b, KeyCode::KeyB, 48), (0x0c, KeyCode::KeyQ, 16),
    (0x0d, KeyCode::KeyW, 17), (0x0e, KeyCode::KeyE, 18), (0x0f, KeyCode::KeyR, 19), (0x10, KeyCode::KeyY, 21),
    (0x11, KeyCode::KeyT, 20), (0x12, KeyCode::Digit1, 2), (0x13, KeyCode::Digit2, 3), (0x14, KeyCode::Digit3, 4),
    (0x15, KeyCode::Digit4, 5), (0x16, KeyCode::Digit6, 7), (0x17, KeyCode::Digit5, 6), (0x18, KeyCode::Equal, 13),
    (0x19, KeyCode::Digit9, 10), (0x1a, KeyCode::Digit7, 8), (0x1b, KeyCode::Minus, 12), (0x1c, KeyCode::Digit8, 9),
    (0x1d, KeyCode::Digit0, 11), (0x1e, KeyCode::BracketRight, 27), (0x1f, KeyCode::KeyO, 24),
    (0x20, KeyCode::KeyU, 22), (0x21, KeyCode::BracketLeft, 26), (0x22, KeyCode::KeyI, 23), (0x23, KeyCode::KeyP, 25),
    (0x24, KeyCode::Enter, 28), (0x25, KeyCode::KeyL, 38), (0x26, KeyCode::KeyJ, 36), (0x27, KeyCode::Quote, 40),
    (0x28, KeyCode::KeyK, 37), (0x29, KeyCode::Semicolon, 39), (0x2a, KeyCode::Backslash, 43),
    (0x2b, KeyCode::Comma, 51), (0x2c, KeyCode::Slash, 53), (0x2d, KeyCode::KeyN, 49), (0x2e, KeyCode::KeyM, 50),
    (0x2f, KeyCode::Period, 52), (0x30, KeyCode::Tab, 15), (0x31, KeyCode::Space, 57), (0x32, KeyCode::Backquote, 41),
    (0x33, KeyCode::Backspace, 14), (0x35, KeyCode::Escape, 1), (0x36, KeyCode::SuperRight, 126),
    (0x37, KeyCode::SuperLeft, 125), (0x38, KeyCode::ShiftLeft, 42), (0x39, KeyCode::CapsLock, 58),
    (0x3a, KeyCode::AltLeft, 56), (0x3b, KeyCode::ControlLeft, 29), (0x3c, KeyCode::ShiftRight, 54),
    (0x3d, KeyCode::AltRight, 100), (0x3e, KeyCode::ControlRight, 97), (0x40, KeyCode::F17, 187),
    (0x41, KeyCode::NumpadDecimal, 83), (0x43, KeyCode::NumpadMultiply, 55), (0x45, KeyCode::NumpadAdd, 78),
    (0x47, KeyCode::NumLock, 69), (0x49, KeyCode::AudioVolumeUp, 114), (0x4a, KeyCode::AudioVolumeDown, 113),
    (0x4b, KeyCode::NumpadDivide, 98), (0x4c, KeyCode::NumpadEnter, 96), (0x4e, KeyCode::NumpadSubtract, 74),
    (0x4f, KeyCode::F18, 188), (0x50, KeyCode::F19, 189), (0x51, KeyCode::NumpadEqual, 117),
    (0x52, KeyCode::Numpad0, 82), (0x53, KeyCode::Numpad1, 79), (0x54, KeyCode::Numpad2, 80),
    (0x55, KeyCode::Numpad3, 81), (0x56, KeyCode::Numpad4, 75), (0x57, KeyCode::Numpad5, 76),
    (0x58, KeyCode::Numpad6, 77), (0x59, KeyCode::Numpad7, 71), (0x5a, KeyCode::F20, 190),
    (0x5b, KeyCode::Numpad8, 72), (0x5c, KeyCode::Numpad9, 73), (0x5d, KeyCode::IntlYen, 124),
    (0x60, KeyCode::F5, 63), (0x61, KeyCode::F6, 64), (0x62, KeyCode::F7, 65), (0x63, KeyCode::F3, 61),
    (0x64, KeyCode::F8, 66), (0x65, KeyCode::F9, 67), (0x67, KeyCode::F11, 87), (0x69, KeyCode::F13, 183),
    (0x6a, KeyCode::F16, 186), (0x6b, KeyCode::F14, 184), (0x6d, KeyCode::F10, 68), (0x6f, KeyCode::F12, 88),
    (0x71, KeyCode::F15, 185), (0x72, KeyCode::Insert, 110), (0x73, KeyCode::Home, 102), (0x74, KeyCode::PageUp, 104),
    (0x75, KeyCode::Delete, 111), (0x76, KeyCode::F4, 62), (0x77, KeyCode::End, 107), (0x78, KeyCode::F2, 60),
    (0x79, KeyCode::PageDown, 109), (0x7a, KeyCode::F1, 59), (0x7b, KeyCode::ArrowLeft, 105),
    (0x7c, KeyCode::ArrowRight, 106), (0x7d, KeyCode::ArrowDown, 108), (0x7e, KeyCode::ArrowUp, 103),
    (0xff, KeyCode::F21, 191), (0xff, KeyCode::F22, 192), (0xff, KeyCode::F23, 193), (0xff, KeyCode::F24, 194),
];

/// Keys for which winit has no name: Apple's code, the guest's code.
const APPLE_UNNAMED: &[(u16, u16)] = &[
    (0x48, 115), // volume up
    (0x5e, 89),  // Japanese: ろ
    (0x5f, 121), // Japanese: the keypad's comma
    (0x66, 123), // Japanese: 英数
    (0x68, 122), // Japanese: かな
    (0x6e, 127), // a PC's menu key
];

#[test]
fn every_key_of_a_mac_that_winit_tells_has_a_code_and_no_two_have_the_same() {
    let named = APPLE.iter().map(|(apple, key, code)| {
        let iso = false;
        let apple = AppleKey { code: *apple, iso };
        (PhysicalKey::Code(*key), Some(apple), *code)
    });
    let unnamed = APPLE_UNNAMED.iter().map(|(apple, code)| {
        let key = PhysicalKey::Unidentified(NativeKeyCode::MacOS(*apple));
        (key, None, *code)
    });
    let mut codes = Vec::new();
    for (key, apple, code) in named.chain(unnamed) {
        assert_eq!(apple_code(key, apple), Some(code), "{key:?} {apple:?}");
        assert!(!codes.contains(&code), "{key:?} {apple:?}");
        codes.push(code);
    }
    assert_eq!(codes.len(), APPLE.len() + APPLE_UNNAMED.len());
    // Fn alone has no code in guests. winit 0.30 has no event for it either.
    assert_eq!(apple_code(PhysicalKey::Code(KeyCode::Fn), None), None);
    for unknown in [0x34, 0x42, 0x7f, 0xffff] {
        let key = PhysicalKey::Unidentified(NativeKeyCode::MacOS(unknown));
        assert_eq!(apple_code(key, None), None, "{unknown:#x}");
    }
}

#[test]
fn on_an_iso_keyboard_of_a_mac_the_keys_below_escape_and_beside_shift_are_two() {
    let key = PhysicalKey::Code(KeyCode::Backquote);
    for (code, iso, expected) in [
        (0x0a, true, 41),
        (0x32, true, 86),
        (0x32, false, 41),
        (0x0a, false, 86),
        // AppKit is already at another event.
        (0x24, true, 41),
    ] {
        let apple = Some(AppleKey { code, iso });
        assert_eq!(apple_code(key, apple), Some(expected), "{code:#x} {iso}");
    }
    assert_eq!(apple_code(key, None), Some(41));
}

#[test]
fn the_windows_combinations_begin_as_the_option_says() {
    use KeyCode::*;
    const ALL: &[InputKind] = &[InputKind::Keyboard, InputKind::Tablet, InputKind::Mouse];
    for (grab_mod, system, keys, name) in [
        (
            GrabMod::CtrlAlt,
            HostSystem::Pc,
            &[ControlRight, AltLeft][..],
            "Ctrl+Alt",
        ),
        (
            GrabMod::CtrlAlt,
            HostSystem::Mac,
            &[ControlLeft, AltRight],
            "Ctrl+Option",
        ),
        (
            GrabMod::LeftShiftCtrlAlt,
            HostSystem::Pc,
            &[ShiftLeft, ControlLeft, AltLeft],
            "left Shift+Ctrl+Alt",
        ),
        (
            GrabMod::RightCtrl,
            HostSystem::Pc,
            &[ControlRight],
            "right Ctrl",
        ),
        (GrabMod::Cmd, HostSystem::Mac, &[SuperRight], "Cmd"),
        (GrabMod::Cmd, HostSystem::Pc, &[SuperLeft], "Super"),
    ] {
        for (cmd_key, letter, asked) in [
            (CmdKey::Super, KeyG, WindowAction::Grab),
            (CmdKey::SwapControl, KeyF, WindowAction::FullScreen),
            (CmdKey::Host, KeyS, WindowAction::Screenshot),
        ] {
            let (guest, mut seat) = Guest::at(ALL, options(grab_mod, cmd_key), system);
            assert_eq!(seat.hint(), format!("{name}+G grabs the pointer"));
            for (number, key) in keys.iter().enumerate() {
                assert_eq!(
                    seat.press(letter),
                    WindowAction::Nothing,
                    "{grab_mod:?}: {number} keys"
                );
                seat.release_key(letter);
                seat.press(*key);
            }
            guest.received();
            assert_eq!(seat.press(letter), asked, "{grab_mod:?}");
            seat.release_key(letter);
            for key in keys {
                seat.release_key(*key);
            }
            let letter =
                received(&guest).contains(&i32::from(code(PhysicalKey::Code(letter)).unwrap()));
            assert!(!letter, "{grab_mod:?}: the letter is ours");
        }
    }
    // One of the three is of the wrong side: nothing is meant for the window.
    let (_, mut seat) = Guest::at(
        ALL,
        options(GrabMod::LeftShiftCtrlAlt, CmdKey::Super),
        HostSystem::Pc,
    );
    for key in [ShiftRight, ControlLeft, AltLeft] {
        seat.press(key);
    }
    assert_eq!(seat.press(KeyG), WindowAction::Nothing);
}

#[test]
fn cmd_is_what_the_option_says() {
    use KeyCode::*;
    let keys = [
        SuperLeft,
        SuperRight,
        AltLeft,
        AltRight,
        ControlLeft,
        ControlRight,
    ];
    for (cmd_key, expected) in [
        (CmdKey::Super, [125, 126, 56, 100, 29, 97]),
        (CmdKey::SwapOption, [56, 100, 125, 126, 29, 97]),
        (CmdKey::SwapControl, [29, 97, 56, 100, 125, 126]),
    ] {
        for system in [HostSystem::Pc, HostSystem::Mac] {
            let (guest, mut seat) = Guest::at(KEYS, options(GrabMod::CtrlAlt, cmd_key), system);
            for (key, code) in keys.into_iter().zip(expected) {
                seat.press(key);
                seat.release_key(key);
                assert_eq!(received(&guest), [code, -code], "{cmd_key:?} {key:?}");
            }
        }
    }
    // Cmd-C of a Mac copies.
    let (guest, mut seat) = Guest::at(
        KEYS,
        options(GrabMod::CtrlAlt, CmdKey::SwapControl),
        HostSystem::Mac,
    );
    seat.press(SuperLeft);
    seat.press(KeyC);
    seat.release_key(KeyC);
    seat.release_key(SuperLeft);
    assert_eq!(received(&guest), [LEFTCTRL, C, -C, -LEFTCTRL]);
}

#[test]
fn what_is_pressed_with_the_hosts_cmd_stays_on_the_host() {
    let (guest, mut seat) = Guest::at(
        KEYS,
        options(GrabMod::CtrlAlt, CmdKey::Host),
        HostSystem::Mac,
    );
    seat.press(KeyCode::KeyA);
    seat.press(KeyCode::SuperLeft);
    seat.press(KeyCode::KeyC);
    seat.release_key(KeyCode::KeyA);
    assert_eq!(received(&guest), [A, -A], "A was the guest's before");
    seat.release_key(KeyCode::SuperLeft);
    seat.release_key(KeyCode::KeyC);
    assert_eq!(guest.received(), []);
    seat.press(KeyCode::SuperRight);
    seat.press(KeyCode::KeyC);
    assert_eq!(received(&guest), [RIGHTMETA, C]);
    seat.release_all();
    received(&guest);
    // Nothing of the host's keys is left behind.
    seat.press(KeyCode::KeyC);
    assert_eq!(received(&guest), [C]);
}

#[test]
fn on_a_mac_what_was_pressed_with_cmd_is_up_when_cmd_is() {
    let press = [
        KeyCode::KeyA,
        KeyCode::SuperLeft,
        KeyCode::ShiftLeft,
        KeyCode::KeyC,
    ];
    let (guest, mut seat) = Guest::at(KEYS, KeyboardOptions::default(), HostSystem::Mac);
    for key in press {
        seat.press(key);
    }
    seat.press(KeyCode::SuperRight);
    assert_eq!(received(&guest), [A, LEFTMETA, 42, C, RIGHTMETA]);
    seat.release_key(KeyCode::SuperLeft);
    assert_eq!(received(&guest), [-LEFTMETA], "the other Cmd is held");
    seat.release_key(KeyCode::SuperRight);
    assert_eq!(
        received(&guest),
        [-C, -RIGHTMETA],
        "A began without Cmd, Shift is sent by itself"
    );
    seat.release_key(KeyCode::KeyC);
    assert_eq!(guest.received(), []);

    let (guest, mut seat) = Guest::with(KEYS);
    for key in press {
        seat.press(key);
    }
    received(&guest);
    seat.release_key(KeyCode::SuperLeft);
    assert_eq!(received(&guest), [-LEFTMETA], "elsewhere every key is sent");
}

#[test]
fn on_a_mac_modifiers_that_are_not_held_are_released() {
    let press = [
        KeyCode::ShiftLeft,
        KeyCode::ControlRight,
        KeyCode::AltLeft,
        KeyCode::KeyA,
    ];
    let (guest, mut seat) = Guest::at(KEYS, KeyboardOptions::default(), HostSystem::Mac);
    for key in press {
        seat.press(key);
    }
    received(&guest);
    seat.modifiers(ModifiersState::SHIFT | ModifiersState::CONTROL | ModifiersState::ALT);
    assert_eq!(guest.received(), []);
    seat.modifiers(ModifiersState::SHIFT | ModifiersState::SUPER);
    assert_eq!(received(&guest), [-RIGHTCTRL, -LEFTALT]);
    seat.modifiers(ModifiersState::empty());
    assert_eq!(received(&guest), [-42]);
    assert_eq!(seat.release_all(), WindowAction::Nothing);
    assert_eq!(received(&guest), [-A]);

    // X11's options may have turned these keys into other modifiers.
    let (guest, mut seat) = Guest::with(KEYS);
    for key in press {
        seat.press(key);
    }
    received(&guest);
    seat.modifiers(ModifiersState::empty());
    assert_eq!(guest.received(), []);
}

#[test]
fn super_that_was_for_something_else_opens_no_overview_in_the_guest() {
    let ctrl = [LEFTCTRL, -LEFTCTRL];
    // The window lost the keyboard by Cmd-Tab.
    for system in [HostSystem::Pc, HostSystem::Mac] {
        let (guest, mut seat) = Guest::at(KEYS, KeyboardOptions::default(), system);
        seat.press(KeyCode::SuperLeft);
        seat.release_all();
        assert_eq!(received(&guest), [LEFTMETA, ctrl[0], ctrl[1], -LEFTMETA]);
    }
    // AppKit first reports that nothing is held.
    let (guest, mut seat) = Guest::at(KEYS, KeyboardOptions::default(), HostSystem::Mac);
    seat.press(KeyCode::SuperLeft);
    seat.modifiers(ModifiersState::empty());
    seat.release_all();
    assert_eq!(received(&guest), [LEFTMETA, ctrl[0], ctrl[1], -LEFTMETA]);
    // The window took the letter.
    let (guest, mut seat) = Guest::at(KEYS, options(GrabMod::Cmd, CmdKey::Super), HostSystem::Mac);
    seat.press(KeyCode::SuperLeft);
    assert_eq!(seat.press(KeyCode::KeyO), WindowAction::Overlay);
    seat.release_key(KeyCode::KeyO);
    seat.release_key(KeyCode::SuperLeft);
    assert_eq!(received(&guest), [LEFTMETA, ctrl[0], ctrl[1], -LEFTMETA]);
    // Super that is pressed alone goes to the guest.
    seat.press(KeyCode::SuperLeft);
    seat.release_key(KeyCode::SuperLeft);
    assert_eq!(received(&guest), [LEFTMETA, -LEFTMETA]);
}

#[test]
fn a_macs_caps_lock_is_a_state_that_the_guest_follows() {
    let (guest, mut seat) = Guest::at(KEYS, KeyboardOptions::default(), HostSystem::Mac);
    let tap = [CAPSLOCK, -CAPSLOCK];
    seat.caps_lock(true);
    assert_eq!(guest.received(), [], "another window has the keyboard");
    seat.focus(Some(true), false);
    assert_eq!(received(&guest), tap);
    seat.caps_lock(true);
    assert_eq!(guest.received(), []);
    seat.caps_lock(false);
    assert_eq!(received(&guest), tap);
    // Turned on in another window, while the guest's was turned on by itself.
    seat.release_all();
    seat.caps_lock(true);
    seat.focus(Some(true), true);
    assert_eq!(guest.received(), []);
    seat.caps_lock(false);
    assert_eq!(received(&guest), tap);
    // Events of the key itself would count twice.
    seat.press(KeyCode::CapsLock);
    seat.release_key(KeyCode::CapsLock);
    assert_eq!(guest.received(), []);

    // Elsewhere Caps Lock is a key.
    let (guest, mut seat) = Guest::with(KEYS);
    seat.focus(None, true);
    seat.press(KeyCode::CapsLock);
    seat.release_key(KeyCode::CapsLock);
    assert_eq!(received(&guest), tap);
}

#[test]
fn a_key_is_released_as_what_it_was_pressed() {
    // The left Cmd affects keys that are pressed later, not those that are down.
    let (guest, mut seat) = Guest::at(
        KEYS,
        options(GrabMod::CtrlAlt, CmdKey::Host),
        HostSystem::Pc,
    );
    let key = PhysicalKey::Code(KeyCode::KeyA);
    seat.key(key, None, ElementState::Pressed, false, false);
    seat.press(KeyCode::SuperLeft);
    seat.key(key, None, ElementState::Pressed, true, false);
    seat.key(key, None, ElementState::Released, false, false);
    let expected = [[key_event(30, true)], [key_event(30, false)]];
    assert_eq!(guest.received_by(InputKind::Keyboard), expected);
}
