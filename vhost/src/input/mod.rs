//! Input devices (virtio-v1.4 §5.8): keyboards, pointers and touch screens of the guest.
//!
//! ```
//! use hesper_vhost::input::{Event, InputDevice, Kind};
//!
//! let keyboard = InputDevice::new(Kind::Keyboard, Box::new(|leds| println!("{leds:?}")));
//! const KEY_A: u16 = 30;
//! keyboard.report(&[Event::key(KEY_A, true)]);
//! keyboard.report(&[Event::key(KEY_A, false)]);
//! ```
//!
//! Each device is served on a socket of its own ([`crate::transport::Server::serve_input`]). Events
//! are those of Linux's evdev. A *report* is what happened at one moment; its end is `SYN_REPORT`,
//! which the device adds.
//!
//! The hard thing is a guest that is slower than a person's hand. QEMU gives `vhost-user-input-pci`
//! queues of four buffers, and a report of two fingers has more events than that. So reports wait
//! in a backlog (`backlog.rs`), and a report that was begun is finished. When the backlog is full,
//! whole reports are dropped. What they would have changed, such as a released key or the place of
//! the pointer, is reported when the guest has caught up. So no key sticks.
//!
//! | file | what it knows |
//! |---|---|
//! | `description` | what each kind of device has: its keys, axes, LEDs |
//! | `config` | how the driver asks for that: the config space |
//! | `backlog` | which events the guest gets next, and what it was told so far |
//! | `device` | the two queues |

mod backlog;
mod codes;
mod config;
mod description;
mod device;

pub use description::{AXIS_MAX, CONTACTS, Kind};
pub(crate) use device::Waker;
pub use device::{InputDevice, Leds};

use codes::{EV_KEY, EV_SYN};

/// An event of evdev: a type, a code, a value (virtio-v1.4 §5.8.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Event {
    /// `EV_*`.
    pub kind: u16,
    /// Which key, axis or LED.
    pub code: u16,
    /// Pressed or not, a position, or a distance.
    pub value: i32,
}

impl Event {
    /// `SYN_REPORT`: the end of a report.
    pub const SYN: Self = Self {
        kind: EV_SYN,
        code: 0,
        value: 0,
    };

    /// A key or button that was pressed or released.
    #[must_use]
    pub fn key(code: u16, pressed: bool) -> Self {
        Self {
            kind: EV_KEY,
            code,
            value: pressed.into(),
        }
    }

    /// Bytes of an event on the wire.
    pub const BYTES: usize = 8;

    /// The event on the wire (`struct virtio_input_event`).
    #[must_use]
    pub fn to_bytes(self) -> [u8; Self::BYTES] {
        let [k0, k1] = self.kind.to_le_bytes();
        let [c0, c1] = self.code.to_le_bytes();
        let [v0, v1, v2, v3] = self.value.to_le_bytes();
        [k0, k1, c0, c1, v0, v1, v2, v3]
    }

    /// An event from the wire.
    #[must_use]
    pub fn from_bytes([k0, k1, c0, c1, v0, v1, v2, v3]: [u8; Self::BYTES]) -> Self {
        Self {
            kind: u16::from_le_bytes([k0, k1]),
            code: u16::from_le_bytes([c0, c1]),
            value: i32::from_le_bytes([v0, v1, v2, v3]),
        }
    }
}
