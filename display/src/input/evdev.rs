//! Types and codes of evdev events (`input-event-codes.h`), except keys.

pub(super) const EV_KEY: u16 = 0x01;
pub(super) const EV_REL: u16 = 0x02;
pub(super) const EV_ABS: u16 = 0x03;

pub(super) const BTN_LEFT: u16 = 0x110;
pub(super) const BTN_RIGHT: u16 = 0x111;
pub(super) const BTN_MIDDLE: u16 = 0x112;
pub(super) const BTN_SIDE: u16 = 0x113;
pub(super) const BTN_EXTRA: u16 = 0x114;
pub(super) const BTN_TOUCH: u16 = 0x14a;

pub(super) const REL_X: u16 = 0x00;
pub(super) const REL_Y: u16 = 0x01;
pub(super) const REL_HWHEEL: u16 = 0x06;
pub(super) const REL_WHEEL: u16 = 0x08;
pub(super) const REL_WHEEL_HI_RES: u16 = 0x0b;
pub(super) const REL_HWHEEL_HI_RES: u16 = 0x0c;

pub(super) const ABS_X: u16 = 0x00;
pub(super) const ABS_Y: u16 = 0x01;
pub(super) const ABS_MT_SLOT: u16 = 0x2f;
pub(super) const ABS_MT_POSITION_X: u16 = 0x35;
pub(super) const ABS_MT_POSITION_Y: u16 = 0x36;
pub(super) const ABS_MT_TRACKING_ID: u16 = 0x39;

use super::InputEvent;

pub(super) fn key_event(code: u16, pressed: bool) -> InputEvent {
    InputEvent {
        kind: EV_KEY,
        code,
        value: pressed.into(),
    }
}

pub(super) fn relative(code: u16, value: i32) -> InputEvent {
    InputEvent {
        kind: EV_REL,
        code,
        value,
    }
}

pub(super) fn absolute(code: u16, value: i32) -> InputEvent {
    InputEvent {
        kind: EV_ABS,
        code,
        value,
    }
}
