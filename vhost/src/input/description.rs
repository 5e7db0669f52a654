//! What each kind of device has.

use std::ops::RangeInclusive;

use super::Event;
use super::codes::*;

/// Absolute axes go from 0 to this. It is more than any window has pixels, so that a place between
/// two pixels of a scaled picture can be told.
pub const AXIS_MAX: i32 = 0xffff;

/// How many fingers a touch screen can tell apart.
pub const CONTACTS: i32 = 10;

/// A kind of input device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Keys and LEDs.
    Keyboard,
    /// A pointer with absolute positions: `ABS_X` and `ABS_Y` from 0 to [`AXIS_MAX`], buttons,
    /// wheels.
    Tablet,
    /// A pointer with movements: `REL_X` and `REL_Y`, buttons, wheels.
    Mouse,
    /// A touch screen: [`CONTACTS`] slots of `ABS_MT_*` and, for the first finger, `ABS_X`,
    /// `ABS_Y`, `BTN_TOUCH`.
    Touch,
}

/// A range of codes, both ends included.
type Codes = RangeInclusive<u16>;

/// What the driver learns about a device.
pub(super) struct Description {
    pub(super) name: &'static str,
    pub(super) serial: &'static str,
    pub(super) product: u16,
    pub(super) properties: &'static [Codes],
    /// The codes of each event type. An empty list means that the type has no codes.
    pub(super) events: &'static [(u16, &'static [Codes])],
    /// The largest value of each absolute axis; the smallest is 0.
    pub(super) axes: &'static [(u16, i32)],
}

const WHEELS: [Codes; 3] = [
    REL_HWHEEL..=REL_HWHEEL,
    REL_WHEEL..=REL_WHEEL,
    REL_WHEEL_HI_RES..=REL_HWHEEL_HI_RES,
];

static KEYBOARD: Description = Description {
    name: "Hesper Keyboard",
    serial: "hesper-keyboard",
    product: 1,
    properties: &[],
    events: &[
        (EV_KEY, &[KEY_FIRST..=KEY_LAST]),
        (EV_LED, &[LED_NUML..=LED_SCROLLL]),
        // The guest repeats keys that are held, since it knows its user's settings.
        (EV_REP, &[]),
    ],
    axes: &[],
};

static TABLET: Description = Description {
    name: "Hesper Tablet",
    serial: "hesper-tablet",
    product: 2,
    properties: &[],
    events: &[
        (EV_KEY, &[BTN_LEFT..=BTN_TASK]),
        (EV_REL, &WHEELS),
        (EV_ABS, &[ABS_X..=ABS_Y]),
    ],
    axes: &[(ABS_X, AXIS_MAX), (ABS_Y, AXIS_MAX)],
};

static MOUSE: Description = Description {
    name: "Hesper Mouse",
    serial: "hesper-mouse",
    product: 3,
    properties: &[],
    events: &[
        (EV_KEY, &[BTN_LEFT..=BTN_TASK]),
        (
            EV_REL,
            &[
                REL_X..=REL_Y,
                REL_HWHEEL..=REL_HWHEEL,
                REL_WHEEL..=REL_WHEEL,
                REL_WHEEL_HI_RES..=REL_HWHEEL_HI_RES,
            ],
        ),
    ],
    axes: &[],
};

static TOUCH: Description = Description {
    name: "Hesper Touchscreen",
    serial: "hesper-touch",
    product: 4,
    properties: &[INPUT_PROP_DIRECT..=INPUT_PROP_DIRECT],
    events: &[
        (EV_KEY, &[BTN_TOUCH..=BTN_TOUCH]),
        (
            EV_ABS,
            &[
                ABS_X..=ABS_Y,
                ABS_MT_SLOT..=ABS_MT_SLOT,
                ABS_MT_POSITION_X..=ABS_MT_POSITION_Y,
                ABS_MT_TRACKING_ID..=ABS_MT_TRACKING_ID,
            ],
        ),
    ],
    axes: &[
        (ABS_X, AXIS_MAX),
        (ABS_Y, AXIS_MAX),
        (ABS_MT_SLOT, CONTACTS - 1),
        (ABS_MT_POSITION_X, AXIS_MAX),
        (ABS_MT_POSITION_Y, AXIS_MAX),
        (ABS_MT_TRACKING_ID, AXIS_MAX),
    ],
};

impl Kind {
    pub(super) fn description(self) -> &'static Description {
        match self {
            Self::Keyboard => &KEYBOARD,
            Self::Tablet => &TABLET,
            Self::Mouse => &MOUSE,
            Self::Touch => &TOUCH,
        }
    }
}

impl Description {
    fn codes(&self, kind: u16) -> Option<&'static [Codes]> {
        let (_, codes) = self.events.iter().find(|(known, _)| *known == kind)?;
        Some(codes)
    }

    /// The largest value of an absolute axis.
    pub(super) fn axis(&self, code: u16) -> Option<i32> {
        let (_, largest) = self.axes.iter().find(|(known, _)| *known == code)?;
        Some(*largest)
    }

    /// Whether the device may report this.
    pub(super) fn has(&self, event: Event) -> bool {
        let known = self
            .codes(event.kind)
            .is_some_and(|codes| codes.iter().any(|range| range.contains(&event.code)));
        let in_range = match event.kind {
            EV_KEY => (0..=1).contains(&event.value),
            EV_REL => true,
            EV_ABS => {
                // A finger that is lifted has the tracking id -1.
                let smallest = if event.code == ABS_MT_TRACKING_ID {
                    -1
                } else {
                    0
                };
                self.axis(event.code)
                    .is_some_and(|largest| (smallest..=largest).contains(&event.value))
            }
            _ => false,
        };
        known && in_range
    }

    /// The codes of an event type as the config space has them, a bit each. `None` when the device
    /// does not have the type.
    pub(super) fn event_bits(&self, kind: u8) -> Option<Bits> {
        let codes = self.codes(kind.into())?;
        Some(Bits::of(codes))
    }

    /// The properties, a bit each.
    pub(super) fn property_bits(&self) -> Bits {
        Bits::of(self.properties)
    }
}

/// A bitmap of the config space.
pub(super) struct Bits {
    bytes: [u8; 128],
    used: usize,
}

impl Bits {
    fn of(codes: &[Codes]) -> Self {
        // An event type without codes still exists: one byte says so.
        let mut bits = Self {
            bytes: [0; 128],
            used: usize::from(codes.is_empty()),
        };
        for code in codes.iter().cloned().flatten() {
            let byte = usize::from(code / 8);
            if let Some(place) = bits.bytes.get_mut(byte) {
                *place |= 1 << (code % 8);
                bits.used = bits.used.max(byte + 1);
            }
        }
        bits
    }

    /// The bytes up to the last bit that is set.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.used).unwrap_or(&[])
    }
}
