//! A driver's side of an input device, and the fuzzer's input for it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

use super::{Chain, DriverQueue};
use crate::device::Outcome;
use crate::input::{AXIS_MAX, CONTACTS, Event, InputDevice, Kind, Leds};

const EV_KEY: u16 = 1;
const EV_REL: u16 = 2;
const EV_ABS: u16 = 3;
const ABS_MT_SLOT: u16 = 0x2f;
const ABS_MT_TRACKING_ID: u16 = 0x39;

/// A guest with an input device.
pub struct InputGuest {
    /// The device under test.
    pub device: Arc<InputDevice>,
    memory: GuestMemoryMmap,
    events: DriverQueue,
    status: DriverQueue,
    leds: Arc<Mutex<Vec<Leds>>>,
}

impl InputGuest {
    /// A guest whose driver has not started yet.
    pub fn new(kind: Kind) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 1 << 20)]).unwrap();
        let leds = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&leds);
        let on_leds = Box::new(move |leds| seen.lock().unwrap().push(leds));
        Self {
            device: Arc::new(InputDevice::new(kind, on_leds)),
            events: DriverQueue::new(&memory, 0, 0x1_0000, 0x1_0000),
            status: DriverQueue::new(&memory, 0x2_0000, 0x3_0000, 0x1_0000),
            memory,
            leds,
        }
    }

    /// The same after the driver has started.
    pub fn started(kind: Kind) -> Self {
        let guest = Self::new(kind);
        guest.device.set_running(true);
        guest
    }

    /// The driver starts anew, as after a reset.
    pub fn restart(&self) {
        self.device.set_running(false);
        self.device.reset();
        self.device.set_running(true);
    }

    /// Gives the device one buffer and returns what it wrote there.
    pub fn buffer(&mut self, chain: &Chain) -> Vec<u8> {
        let (chain, room) = self.events.post(&self.memory, chain);
        let head = chain.head_index();
        let Outcome::Done { written } = self.device.send_event(&self.memory, chain) else {
            panic!("an input device holds no buffer");
        };
        self.events.free(head);
        let mut left = written as usize;
        let mut bytes = Vec::new();
        for (address, length) in room {
            let mut piece = vec![0; left.min(length as usize)];
            left -= piece.len();
            self.memory
                .read_slice(&mut piece, GuestAddress(address))
                .unwrap();
            bytes.append(&mut piece);
        }
        assert_eq!(left, 0, "the device wrote more than there was room for");
        bytes
    }

    /// Gives the device up to `count` buffers, as long as it wants one. Returns the events.
    pub fn take(&mut self, count: usize) -> Vec<Event> {
        let chain = Chain {
            request: Vec::new(),
            cuts: Vec::new(),
            room: vec![8],
            indirect: false,
        };
        let mut events = Vec::new();
        while events.len() < count && self.device.has_event() {
            let bytes = self.buffer(&chain);
            events.push(Event::from_bytes(bytes.try_into().expect("8 bytes")));
        }
        events
    }

    /// Everything that waits, as reports without their `SYN_REPORT`. Panics on half a report.
    pub fn reports(&mut self) -> Vec<Vec<Event>> {
        let events = self.take(usize::MAX);
        assert!(events.last().is_none_or(|last| *last == Event::SYN));
        let reports = events.split(|event| *event == Event::SYN);
        let mut reports: Vec<_> = reports.map(<[Event]>::to_vec).collect();
        reports.pop();
        reports
    }

    /// Puts a buffer on the status queue.
    pub fn tell(&mut self, chain: &Chain) {
        let (chain, _) = self.status.post(&self.memory, chain);
        let head = chain.head_index();
        let outcome = self.device.take_status(&self.memory, chain);
        assert_eq!(outcome, Outcome::Done { written: 0 });
        self.status.free(head);
    }

    /// Every change of the LEDs that the device passed on.
    pub fn leds(&self) -> Vec<Leds> {
        self.leds.lock().unwrap().clone()
    }

    /// Asks the config space as QEMU does: it writes the whole space for each byte.
    pub fn ask(&self, select: u8, subsel: u8) -> Vec<u8> {
        let mut space = [0xaa; 136];
        self.device.read_config(0, &mut space);
        space[0] = select;
        self.device.write_config(0, &space);
        self.device.read_config(0, &mut space);
        space[1] = subsel;
        self.device.write_config(0, &space);
        self.device.read_config(0, &mut space);
        assert_eq!(space[..2], [select, subsel]);
        let size = usize::from(space[2]);
        assert!(space[3..8].iter().all(|byte| *byte == 0));
        assert!(space[8 + size..].iter().all(|byte| *byte == 0));
        space[8..8 + size].to_vec()
    }
}

/// What a guest's kernel knows of a device.
#[derive(Default)]
struct Kernel {
    report: Vec<Event>,
    state: KeysAndAxes,
}

/// Keys, axes and fingers by slot and code.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct KeysAndAxes {
    places: BTreeMap<(i32, u16, u16), i32>,
    slot: i32,
}

impl KeysAndAxes {
    fn apply(&mut self, event: Event) {
        match (event.kind, event.code) {
            (EV_ABS, ABS_MT_SLOT) => self.slot = event.value,
            (EV_ABS, code) => {
                let slot = if code > ABS_MT_SLOT { self.slot } else { -1 };
                self.places.insert((slot, EV_ABS, code), event.value);
            }
            (EV_KEY, code) => {
                self.places.insert((-1, EV_KEY, code), event.value);
            }
            _ => {}
        }
    }

    /// What must be equal on both sides. Lifted fingers have no place, and keys are up unless they
    /// are down.
    fn essence(&self) -> BTreeMap<(i32, u16, u16), i32> {
        let mut places = self.places.clone();
        places.retain(|(slot, kind, _), value| {
            let lifted = (*slot, EV_ABS, ABS_MT_TRACKING_ID);
            let there = self.places.get(&lifted).is_some_and(|id| *id != -1);
            match *kind {
                EV_KEY => *value != 0,
                _ => *slot < 0 || there,
            }
        });
        places
    }
}

impl Kernel {
    fn take(&mut self, event: Event) {
        self.report.push(event);
        if event == Event::SYN {
            for event in self.report.drain(..) {
                self.state.apply(event);
            }
        }
    }
}

struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn byte(&mut self) -> u8 {
        match self.0 {
            [first, rest @ ..] => {
                self.0 = rest;
                *first
            }
            [] => 0,
        }
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.byte()).collect()
    }

    fn chain(&mut self) -> Chain {
        let shape = self.byte();
        Chain {
            request: self.bytes(usize::from(shape % 33)),
            cuts: vec![u32::from(shape % 5); usize::from(shape % 4)],
            room: (0..shape % 4).map(|_| u32::from(self.byte())).collect(),
            indirect: shape & 0x80 != 0,
        }
    }
}

fn event(kind: Kind, input: &mut Bytes<'_>) -> Event {
    let (code, value) = (input.byte(), input.byte());
    let absolute = |code, value| Event {
        kind: EV_ABS,
        code,
        value,
    };
    let place = i32::from(value) * (AXIS_MAX / 255);
    match (kind, code % 8) {
        (Kind::Keyboard, 0..7) => Event::key(u16::from(code), value & 1 != 0),
        (Kind::Tablet | Kind::Mouse, 0..3) => {
            Event::key(0x110 + u16::from(code % 8), value & 1 != 0)
        }
        (Kind::Tablet, 3..7) => absolute(u16::from(code & 1), place),
        (Kind::Mouse, 3..7) => Event {
            kind: EV_REL,
            code: u16::from(code % 13),
            value: i32::from(value) - 128,
        },
        (Kind::Touch, 0..3) => absolute(ABS_MT_SLOT, i32::from(value) % CONTACTS),
        (Kind::Touch, 3) => absolute(ABS_MT_TRACKING_ID, i32::from(value) % 9 - 1),
        (Kind::Touch, 4..7) => absolute(0x35 + u16::from(code & 1), place),
        // Any event.
        _ => {
            let bytes = input.bytes(8);
            Event::from_bytes(bytes.try_into().unwrap_or_default())
        }
    }
}

/// Runs one input: reports, buffers, questions, resets in any order. Panics when a guest gets half
/// a report, or when it has caught up and its state is not the reported one. Returns how many
/// events the guest got.
pub fn run(input: &[u8]) -> usize {
    let mut input = Bytes(input);
    let kinds = [Kind::Keyboard, Kind::Tablet, Kind::Mouse, Kind::Touch];
    let kind = kinds[usize::from(input.byte() % 4)];
    let mut guest = InputGuest::started(kind);
    let mut kernel = Kernel::default();
    let mut truth = KeysAndAxes::default();
    let mut got = 0;
    while !input.0.is_empty() {
        match input.byte() % 16 {
            0..=5 => {
                let count = input.byte() % 12;
                let mut report: Vec<_> = (0..count).map(|_| event(kind, &mut input)).collect();
                if kind == Kind::Touch {
                    let first = Event {
                        kind: EV_ABS,
                        code: ABS_MT_SLOT,
                        value: i32::from(count) % CONTACTS,
                    };
                    report.insert(0, first);
                }
                let known = |event: &Event| guest.device.has(*event);
                // The same report many times, to overrun the queue.
                for _ in 0..=input.byte() % 64 {
                    guest.device.report(&report);
                }
                if report.iter().all(known) {
                    report.iter().for_each(|event| truth.apply(*event));
                }
            }
            6..=8 => {
                let events = guest.take(usize::from(input.byte()));
                got += events.len();
                events.into_iter().for_each(|event| kernel.take(event));
            }
            9 => {
                let written = guest.buffer(&input.chain());
                if let Ok(bytes) = <[u8; 8]>::try_from(written) {
                    kernel.take(Event::from_bytes(bytes));
                }
            }
            10 => guest.tell(&input.chain()),
            11 => {
                let _ = guest.ask(input.byte(), input.byte());
            }
            12 => {
                let offset = u32::from(input.byte()) << (input.byte() % 25);
                let length = usize::from(input.byte());
                let bytes = input.bytes(length);
                guest.device.write_config(offset, &bytes);
                guest.device.read_config(offset, &mut vec![0; length]);
            }
            13..=14 => guest.device.set_running(input.byte() & 1 != 0),
            // The driver starts anew, perhaps in the middle of a report.
            _ => {
                guest.restart();
                kernel = Kernel::default();
            }
        }
    }
    guest.device.set_running(true);
    for event in guest.take(usize::MAX) {
        kernel.take(event);
        got += 1;
    }
    assert!(
        kernel.report.is_empty(),
        "half a report: {:?}",
        kernel.report
    );
    assert_eq!(kernel.state.essence(), truth.essence());
    got
}

/// Inputs with high coverage: each uses a device as people and drivers do.
pub fn seeds() -> Vec<Vec<u8>> {
    vec![
        // A key is pressed and released, in a guest that takes each event.
        vec![0, 0, 1, 30, 1, 0, 6, 1, 6, 1, 0, 1, 30, 0, 0, 6, 9],
        // A tablet moves and clicks while nobody takes events, until it overruns.
        vec![
            1, 0, 3, 3, 50, 4, 60, 0, 1, 63, 0, 2, 0, 1, 3, 9, 63, 0, 2, 0, 0, 1, 1, 63, 6, 255, 6,
            255,
        ],
        vec![
            2, 0, 2, 13, 200, 14, 1, 40, 7, 3, 14, 0, 0, 1, 21, 3, 9, 14, 1,
        ],
        // Two fingers, with a reset between their events.
        vec![
            3, 0, 3, 3, 5, 4, 7, 5, 8, 0, 0, 3, 3, 6, 4, 1, 5, 2, 0, 6, 5, 15, 6, 9, 0, 1, 3, 0, 0,
        ],
        vec![
            0, 11, 0x11, 1, 11, 0x12, 0, 12, 0, 0, 2, 1, 2, 10, 8, 0x11, 0, 1, 0, 1, 0, 0, 0, 9, 2,
            0, 0, 4, 4,
        ],
    ]
}
