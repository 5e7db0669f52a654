//! Event types and codes that describe the devices. They are those of Linux's evdev, which
//! virtio-v1.4 §5.8 uses; `input-event-codes.h` has all of them.

pub(crate) const EV_SYN: u16 = 0x00;
pub(crate) const EV_KEY: u16 = 0x01;
pub(crate) const EV_REL: u16 = 0x02;
pub(crate) const EV_ABS: u16 = 0x03;
pub(crate) const EV_LED: u16 = 0x11;
pub(crate) const EV_REP: u16 = 0x14;

/// Keyboards have the keys from `KEY_ESC` to `KEY_MICMUTE`.
pub(crate) const KEY_FIRST: u16 = 1;
pub(crate) const KEY_LAST: u16 = 248;
/// Mice have the buttons from `BTN_LEFT` to `BTN_TASK`.
pub(crate) const BTN_LEFT: u16 = 0x110;
pub(crate) const BTN_TASK: u16 = 0x117;
pub(crate) const BTN_TOUCH: u16 = 0x14a;

pub(crate) const REL_X: u16 = 0x00;
pub(crate) const REL_Y: u16 = 0x01;
pub(crate) const REL_HWHEEL: u16 = 0x06;
pub(crate) const REL_WHEEL: u16 = 0x08;
pub(crate) const REL_WHEEL_HI_RES: u16 = 0x0b;
pub(crate) const REL_HWHEEL_HI_RES: u16 = 0x0c;

pub(crate) const ABS_X: u16 = 0x00;
pub(crate) const ABS_Y: u16 = 0x01;
pub(crate) const ABS_MT_SLOT: u16 = 0x2f;
pub(crate) const ABS_MT_POSITION_X: u16 = 0x35;
pub(crate) const ABS_MT_POSITION_Y: u16 = 0x36;
pub(crate) const ABS_MT_TRACKING_ID: u16 = 0x39;

pub(crate) const LED_NUML: u16 = 0x00;
pub(crate) const LED_CAPSL: u16 = 0x01;
pub(crate) const LED_SCROLLL: u16 = 0x02;

/// The device shows something where it is touched.
pub(crate) const INPUT_PROP_DIRECT: u16 = 0x01;
/// `BUS_VIRTUAL`.
pub(crate) const BUS_VIRTUAL: u16 = 0x06;
