use std::sync::{Arc, Mutex};

use winit::dpi::PhysicalPosition;
use winit::event::{ElementState, MouseButton, MouseScrollDelta, TouchPhase};
use winit::keyboard::{KeyCode, NativeKeyCode, PhysicalKey};

use super::evdev::*;
use super::*;

const A: u16 = 30;

/// A guest with some devices, which notes what it is sent.
pub(super) struct Guest {
    devices: Mutex<Vec<InputKind>>,
    received: Mutex<Vec<(InputKind, Vec<InputEvent>)>>,
}

impl InputSink for Guest {
    fn has(&self, device: InputKind) -> bool {
        self.devices.lock().unwrap().contains(&device)
    }

    fn report(&self, device: InputKind, events: &[InputEvent]) {
        self.received
            .lock()
            .unwrap()
            .push((device, events.to_vec()));
    }
}

impl Guest {
    pub(super) fn with(devices: &[InputKind]) -> (Arc<Guest>, Seat) {
        Guest::at(devices, KeyboardOptions::default(), HostSystem::Pc)
    }

    /// A guest with another keyboard.
    pub(super) fn at(
        devices: &[InputKind],
        options: KeyboardOptions,
        system: HostSystem,
    ) -> (Arc<Guest>, Seat) {
        let guest = Arc::new(Guest {
            devices: Mutex::new(devices.to_vec()),
            received: Mutex::default(),
        });
        (guest.clone(), Seat::new(guest, options, system))
    }

    pub(super) fn received(&self) -> Vec<(InputKind, Vec<InputEvent>)> {
        std::mem::take(&mut self.received.lock().unwrap())
    }

    /// What was sent, if it all was sent to one device.
    #[track_caller]
    pub(super) fn received_by(&self, device: InputKind) -> Vec<Vec<InputEvent>> {
        let received = self.received().into_iter();
        received
            .map(|(to, events)| {
                assert_eq!(to, device);
                events
            })
            .collect()
    }
}

impl Seat {
    pub(super) fn press(&mut self, key: KeyCode) -> WindowAction {
        let key = PhysicalKey::Code(key);
        self.key(key, None, ElementState::Pressed, false, false)
    }

    pub(super) fn release_key(&mut self, key: KeyCode) -> WindowAction {
        let key = PhysicalKey::Code(key);
        self.key(key, None, ElementState::Released, false, false)
    }
}

#[test]
fn keys_are_sent_by_their_position_and_repeats_are_not() {
    let (guest, mut seat) = Guest::with(&[InputKind::Keyboard]);
    seat.press(KeyCode::KeyA);
    for _ in 0..5 {
        seat.key(
            PhysicalKey::Code(KeyCode::KeyA),
            None,
            ElementState::Pressed,
            true,
            false,
        );
        seat.press(KeyCode::KeyA);
    }
    seat.release_key(KeyCode::KeyA);
    seat.release_key(KeyCode::KeyA);
    let tap = [[key_event(A, true)], [key_event(A, false)]];
    assert_eq!(guest.received_by(InputKind::Keyboard), tap);
    // Keys without a name, as X11 and Wayland report them: KEY_MACRO, and codes that no keyboard
    // has.
    for (code, sent) in [(112, 1), (0, 0), (249, 0), (u32::MAX, 0)] {
        let key = PhysicalKey::Unidentified(NativeKeyCode::Xkb(code));
        seat.key(key, None, ElementState::Pressed, false, false);
        assert_eq!(guest.received().len(), sent, "{code}");
    }
}

#[test]
fn when_the_keyboard_goes_nothing_stays_down() {
    let (guest, mut seat) =
        Guest::with(&[InputKind::Keyboard, InputKind::Tablet, InputKind::Touch]);
    seat.press(KeyCode::ShiftLeft);
    seat.press(KeyCode::KeyA);
    seat.button(MouseButton::Left, ElementState::Pressed);
    seat.touch(9, TouchPhase::Started, (0x8000, 0x8000));
    guest.received();
    assert_eq!(seat.release_all(), WindowAction::Nothing);
    let expected = [
        (
            InputKind::Keyboard,
            vec![key_event(42, false), key_event(A, false)],
        ),
        (InputKind::Tablet, vec![key_event(BTN_LEFT, false)]),
        (
            InputKind::Touch,
            vec![
                absolute(ABS_MT_SLOT, 0),
                absolute(ABS_MT_TRACKING_ID, -1),
                key_event(BTN_TOUCH, false),
            ],
        ),
    ];
    assert_eq!(guest.received(), expected);
    // Releasing it later has no effect: it was already released.
    seat.release_key(KeyCode::KeyA);
    seat.button(MouseButton::Left, ElementState::Released);
    seat.touch(9, TouchPhase::Ended, (0x8000, 0x8000));
    assert_eq!(seat.release_all(), WindowAction::Nothing);
    assert_eq!(guest.received(), []);
}

#[test]
fn of_keys_held_when_the_window_gets_the_keyboard_only_shift_and_control_count() {
    let (guest, mut seat) = Guest::with(&[InputKind::Keyboard]);
    for key in [
        KeyCode::Tab,
        KeyCode::AltLeft,
        KeyCode::ShiftRight,
        KeyCode::Enter,
    ] {
        let key = PhysicalKey::Code(key);
        seat.key(key, None, ElementState::Pressed, false, true);
    }
    assert_eq!(
        guest.received_by(InputKind::Keyboard),
        [[key_event(54, true)]]
    );
    seat.release_key(KeyCode::Tab);
    assert_eq!(guest.received(), []);
    seat.release_key(KeyCode::ShiftRight);
    assert_eq!(
        guest.received_by(InputKind::Keyboard),
        [[key_event(54, false)]]
    );
}

#[test]
fn the_pointer_is_a_tablet_until_it_is_grabbed_and_a_mouse_until_released() {
    let (guest, mut seat) =
        Guest::with(&[InputKind::Keyboard, InputKind::Tablet, InputKind::Mouse]);
    seat.moved((5.0, 5.0));
    seat.pointer_at((0, INPUT_AXIS_MAX));
    let corner = [absolute(ABS_X, 0), absolute(ABS_Y, INPUT_AXIS_MAX)];
    assert_eq!(guest.received_by(InputKind::Tablet), [corner]);
    seat.button(MouseButton::Right, ElementState::Pressed);
    guest.received();

    seat.press(KeyCode::ControlRight);
    seat.press(KeyCode::AltLeft);
    guest.received();
    assert_eq!(seat.press(KeyCode::KeyG), WindowAction::Grab);
    seat.release_key(KeyCode::KeyG);
    assert_eq!(guest.received(), [], "the G is ours");
    seat.set_grabbed(true);
    assert_eq!(
        guest.received_by(InputKind::Tablet),
        [[key_event(BTN_RIGHT, false)]]
    );
    assert!(seat.hint().contains("releases"));
    seat.pointer_at((0x8000, 0x8000));
    seat.moved((2.5, -1.0));
    seat.moved((0.25, 0.0));
    seat.moved((0.25, 0.25));
    seat.button(MouseButton::Back, ElementState::Pressed);
    let steps = |x, y| vec![relative(REL_X, x), relative(REL_Y, y)];
    let expected = [steps(2, -1), steps(1, 0), vec![key_event(BTN_SIDE, true)]];
    assert_eq!(guest.received_by(InputKind::Mouse), expected);

    assert_eq!(seat.press(KeyCode::KeyG), WindowAction::Release);
    seat.set_grabbed(false);
    assert_eq!(
        guest.received_by(InputKind::Mouse),
        [[key_event(BTN_SIDE, false)]]
    );
    seat.set_grabbed(true);
    assert_eq!(seat.release_all(), WindowAction::Release);
}

#[test]
fn without_a_tablet_a_click_grabs_and_without_a_mouse_nothing_does() {
    let (guest, mut seat) = Guest::with(&[InputKind::Mouse]);
    assert_eq!(
        seat.button(MouseButton::Left, ElementState::Pressed),
        WindowAction::Grab
    );
    seat.button(MouseButton::Left, ElementState::Released);
    assert_eq!(guest.received(), []);
    assert!(seat.hint().contains("click"));

    let (guest, mut seat) = Guest::with(&[InputKind::Keyboard]);
    assert_eq!(
        seat.button(MouseButton::Left, ElementState::Pressed),
        WindowAction::Nothing
    );
    seat.press(KeyCode::ControlLeft);
    seat.press(KeyCode::AltRight);
    guest.received();
    assert_eq!(seat.press(KeyCode::KeyG), WindowAction::Nothing);
    assert_eq!(
        guest.received_by(InputKind::Keyboard),
        [[key_event(34, true)]]
    );
    assert_eq!(seat.hint(), "");
}

#[test]
fn wheels_turn_in_notches_and_in_parts_of_one() {
    let (guest, mut seat) = Guest::with(&[InputKind::Tablet]);
    seat.wheel(MouseScrollDelta::LineDelta(0.0, 1.0), 1.0);
    seat.wheel(MouseScrollDelta::LineDelta(1.0, -2.0), 1.0);
    let expected = [
        vec![relative(REL_WHEEL_HI_RES, 120), relative(REL_WHEEL, 1)],
        vec![
            relative(REL_WHEEL_HI_RES, -240),
            relative(REL_WHEEL, -2),
            relative(REL_HWHEEL_HI_RES, -120),
            relative(REL_HWHEEL, -1),
        ],
    ];
    assert_eq!(guest.received_by(InputKind::Tablet), expected);
    // A touch pad sends many small steps, which add up to as many notches.
    for _ in 0..106 {
        let pixels = PhysicalPosition::new(0.0, 2.0);
        seat.wheel(MouseScrollDelta::PixelDelta(pixels), 2.0);
    }
    let sent: Vec<_> = guest.received_by(InputKind::Tablet).concat();
    let sum = |code| -> i32 {
        sent.iter()
            .filter(|event| event.code == code)
            .map(|event| event.value)
            .sum()
    };
    // Floating point may keep a part of the last step back.
    assert!(
        (239..=240).contains(&sum(REL_WHEEL_HI_RES)),
        "{}",
        sum(REL_WHEEL_HI_RES)
    );
    assert_eq!(sum(REL_WHEEL), sum(REL_WHEEL_HI_RES) / 120);
    seat.wheel(MouseScrollDelta::LineDelta(f32::NAN, f32::INFINITY), 1.0);
    seat.wheel(MouseScrollDelta::LineDelta(0.0, 1.0), 1.0);
    assert!(!guest.received().is_empty());
}

#[test]
fn every_finger_has_a_slot_and_the_first_is_the_pointer() {
    let (guest, mut seat) = Guest::with(&[InputKind::Touch]);
    seat.touch(70, TouchPhase::Started, (0, 0x8000));
    seat.touch(71, TouchPhase::Started, (0x8000, 0));
    seat.touch(70, TouchPhase::Moved, (0x4000, 0x8000));
    seat.touch(70, TouchPhase::Ended, (0x4000, 0x8000));
    seat.touch(72, TouchPhase::Started, (INPUT_AXIS_MAX, INPUT_AXIS_MAX));
    seat.touch(71, TouchPhase::Cancelled, (0, 0));
    seat.touch(72, TouchPhase::Ended, (0, 0));
    let at = |x, y| {
        [
            absolute(ABS_MT_POSITION_X, x),
            absolute(ABS_MT_POSITION_Y, y),
        ]
    };
    let one = |x, y| [absolute(ABS_X, x), absolute(ABS_Y, y)];
    let slot = |slot, id| {
        [
            absolute(ABS_MT_SLOT, slot),
            absolute(ABS_MT_TRACKING_ID, id),
        ]
    };
    let down = [key_event(BTN_TOUCH, true)];
    let expected: [Vec<InputEvent>; 7] = [
        [&slot(0, 0)[..], &at(0, 0x8000), &down, &one(0, 0x8000)].concat(),
        [&slot(1, 1)[..], &at(0x8000, 0)].concat(),
        [&slot(0, 0)[..1], &at(0x4000, 0x8000), &one(0x4000, 0x8000)].concat(),
        slot(0, -1).to_vec(),
        [&slot(0, 2)[..], &at(INPUT_AXIS_MAX, INPUT_AXIS_MAX)].concat(),
        slot(1, -1).to_vec(),
        [&slot(0, -1)[..], &[key_event(BTN_TOUCH, false)]].concat(),
    ];
    assert_eq!(guest.received_by(InputKind::Touch), expected);
    for finger in 0..20 {
        seat.touch(finger, TouchPhase::Started, (0, 0));
    }
    assert_eq!(
        guest.received().len(),
        INPUT_CONTACTS,
        "more fingers than slots"
    );
}
