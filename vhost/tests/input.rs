//! Input devices over mock queues: the driver's questions, whole reports, LEDs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends where it fails"
)]

use hesper_vhost::input::{AXIS_MAX, Event, Kind, Leds};
use hesper_vhost::testing::Chain;
use hesper_vhost::testing::input::{InputGuest, run, seeds};
use proptest::prelude::*;

const NAME: u8 = 0x01;
const SERIAL: u8 = 0x02;
const IDS: u8 = 0x03;
const PROPERTIES: u8 = 0x10;
const EVENTS: u8 = 0x11;
const AXIS: u8 = 0x12;

const KEY: u8 = 1;
const REL: u16 = 2;
const ABS: u16 = 3;
const LED: u16 = 0x11;
const A: u16 = 30;
const B: u16 = 48;
const SHIFT: u16 = 42;
const SLOT: u16 = 0x2f;
const TRACKING_ID: u16 = 0x39;

fn event(kind: u16, code: u16, value: i32) -> Event {
    Event { kind, code, value }
}

fn place(x: i32, y: i32) -> [Event; 2] {
    [event(ABS, 0, x), event(ABS, 1, y)]
}

fn bits(bytes: &[u8]) -> Vec<usize> {
    (0..bytes.len() * 8)
        .filter(|bit| bytes[bit / 8] & 1 << (bit % 8) != 0)
        .collect()
}

#[test]
fn a_driver_learns_what_each_device_is() {
    let keyboard = InputGuest::new(Kind::Keyboard);
    assert_eq!(keyboard.ask(NAME, 0), b"Hesper Keyboard");
    assert_eq!(keyboard.ask(SERIAL, 0), b"hesper-keyboard");
    assert_eq!(keyboard.ask(IDS, 0), [6, 0, 0, 0, 1, 0, 1, 0]);
    assert_eq!(
        bits(&keyboard.ask(EVENTS, KEY)),
        (1..=248).collect::<Vec<_>>()
    );
    assert_eq!(bits(&keyboard.ask(EVENTS, LED as u8)), [0, 1, 2]);
    assert_eq!(keyboard.ask(EVENTS, 0x14), [0], "it repeats");
    assert_eq!(keyboard.ask(EVENTS, REL as u8), []);
    assert_eq!(keyboard.ask(PROPERTIES, 0), []);

    let tablet = InputGuest::new(Kind::Tablet);
    assert_eq!(bits(&tablet.ask(EVENTS, ABS as u8)), [0, 1]);
    assert_eq!(bits(&tablet.ask(EVENTS, REL as u8)), [6, 8, 11, 12]);
    assert_eq!(
        bits(&tablet.ask(EVENTS, KEY)),
        (0x110..=0x117).collect::<Vec<_>>()
    );
    let range: Vec<u8> = [0, AXIS_MAX, 0, 0, 0].map(i32::to_le_bytes).concat();
    assert_eq!(tablet.ask(AXIS, 1), range);

    let mouse = InputGuest::new(Kind::Mouse);
    assert_eq!(bits(&mouse.ask(EVENTS, REL as u8)), [0, 1, 6, 8, 11, 12]);
    assert_eq!(mouse.ask(EVENTS, ABS as u8), []);

    let touch = InputGuest::new(Kind::Touch);
    assert_eq!(bits(&touch.ask(PROPERTIES, 0)), [1], "a screen is touched");
    assert_eq!(
        bits(&touch.ask(EVENTS, ABS as u8)),
        [0, 1, 0x2f, 0x35, 0x36, 0x39]
    );
    assert_eq!(touch.ask(AXIS, 0x2f)[4..8], 9_i32.to_le_bytes());
}

#[test]
fn a_question_that_makes_no_sense_is_answered_with_no_bytes() {
    let tablet = InputGuest::new(Kind::Tablet);
    for (select, subsel) in [
        (0, 0),
        (NAME, 1),
        (SERIAL, 0xff),
        (IDS, 3),
        (4, 0),
        (PROPERTIES, 1),
        (EVENTS, 0),
        (EVENTS, 0x1f),
        (EVENTS, 0xff),
        (AXIS, 2),
        (AXIS, 0xff),
        (0xff, 0xff),
    ] {
        assert_eq!(tablet.ask(select, subsel), [], "{select:#x} {subsel:#x}");
    }
    // Writes and reads past the end do nothing, and the selection stays.
    assert_ne!(tablet.ask(NAME, 0), []);
    tablet.device.write_config(2, &[0xff; 200]);
    tablet.device.write_config(u32::MAX, &[0xff; 4]);
    tablet.device.write_config(0, &[]);
    let mut space = [0xff; 12];
    tablet.device.read_config(130, &mut space);
    assert_eq!(space, [0; 12]);
    tablet.device.read_config(u32::MAX, &mut space);
    tablet.device.read_config(0, &mut space);
    assert_eq!(space[..3], [NAME, 0, 13]);
    // One byte at a time works as well.
    tablet.device.write_config(1, &[1]);
    tablet.device.write_config(0, &[AXIS]);
    tablet.device.read_config(2, &mut space[..1]);
    assert_eq!(space[0], 20);
}

#[test]
fn a_report_arrives_whole_with_its_end_though_buffers_come_one_by_one() {
    let mut keyboard = InputGuest::started(Kind::Keyboard);
    assert!(!keyboard.device.has_event());
    keyboard
        .device
        .report(&[Event::key(SHIFT, true), Event::key(A, true)]);
    keyboard.device.report(&[Event::key(A, false)]);
    let mut events = Vec::new();
    while keyboard.device.has_event() {
        events.extend(keyboard.take(1));
    }
    let expected = [
        Event::key(SHIFT, true),
        Event::key(A, true),
        Event::SYN,
        Event::key(A, false),
        Event::SYN,
    ];
    assert_eq!(events, expected);
}

#[test]
fn an_overrun_drops_whole_reports_and_no_key_sticks() {
    let mut keyboard = InputGuest::started(Kind::Keyboard);
    keyboard.device.report(&[Event::key(SHIFT, true)]);
    // The guest stops reading in the middle of a report.
    assert_eq!(keyboard.take(1), [Event::key(SHIFT, true)]);
    for _ in 0..10_000 {
        keyboard.device.report(&[Event::key(A, true)]);
        keyboard.device.report(&[Event::key(A, false)]);
    }
    keyboard.device.report(&[Event::key(B, true)]);
    keyboard.device.report(&[Event::key(SHIFT, false)]);
    assert_eq!(keyboard.take(1), [Event::SYN]);
    let reports = keyboard.reports();
    assert!((100..1000).contains(&reports.len()), "{}", reports.len());
    let (last, typed) = reports.split_last().unwrap();
    for (index, report) in typed.iter().enumerate() {
        assert_eq!(report[..], [Event::key(A, index % 2 == 0)]);
    }
    // One report has the result of the dropped ones.
    let mut expected = vec![Event::key(SHIFT, false), Event::key(B, true)];
    if typed.len() % 2 == 1 {
        expected.insert(0, Event::key(A, false));
    }
    assert_eq!(last[..], expected);
    keyboard.device.report(&[Event::key(B, false)]);
    assert_eq!(keyboard.reports(), [[Event::key(B, false)]]);
}

#[test]
fn a_slow_guest_sees_the_pointer_where_it_is() {
    let mut tablet = InputGuest::started(Kind::Tablet);
    for x in 0..100 {
        tablet.device.report(&place(x, 7));
    }
    tablet.device.report(&[Event::key(0x110, true)]);
    tablet.device.report(&place(200, 7));
    tablet.device.report(&place(201, 7));
    let click = vec![Event::key(0x110, true)];
    let expected = [place(99, 7).to_vec(), click, place(201, 7).to_vec()];
    assert_eq!(tablet.reports(), expected);
    // A report that the guest has begun to read does not change.
    tablet.device.report(&place(1, 1));
    assert_eq!(tablet.take(1), [event(ABS, 0, 1)]);
    tablet.device.report(&place(2, 2));
    let rest = [
        event(ABS, 1, 1),
        Event::SYN,
        event(ABS, 0, 2),
        event(ABS, 1, 2),
        Event::SYN,
    ];
    assert_eq!(tablet.take(9), rest);

    let mut mouse = InputGuest::started(Kind::Mouse);
    for step in [3, -5, 100] {
        mouse
            .device
            .report(&[event(REL, 0, step), event(REL, 1, 1)]);
    }
    assert_eq!(mouse.reports(), [[event(REL, 0, 98), event(REL, 1, 3)]]);
}

#[test]
fn a_reset_in_the_middle_of_a_report_leaves_nothing_of_it() {
    let mut touch = InputGuest::started(Kind::Touch);
    let down = |slot, id| [event(ABS, SLOT, slot), event(ABS, TRACKING_ID, id)];
    touch.device.report(&down(0, 5));
    assert_eq!(touch.take(1).len(), 1);
    touch.restart();
    // The finger is still down. The new driver is told so; then the finger is lifted.
    assert_eq!(touch.reports(), [down(0, 5)]);
    touch.device.report(&down(0, -1));
    assert_eq!(touch.take(1).len(), 1);
    touch.restart();
    assert_eq!(touch.reports(), [[]; 0]);
    touch.device.report(&down(1, 6));
    assert_eq!(touch.reports(), [down(1, 6)]);
}

#[test]
fn a_guest_without_a_driver_or_paused_gets_no_old_news() {
    let mut keyboard = InputGuest::new(Kind::Keyboard);
    for _ in 0..1000 {
        keyboard.device.report(&[Event::key(A, true)]);
        keyboard.device.report(&[Event::key(A, false)]);
    }
    keyboard.device.set_running(true);
    assert_eq!(keyboard.reports(), [[]; 0]);
    keyboard.device.report(&[Event::key(SHIFT, true)]);
    assert_eq!(keyboard.take(1), [Event::key(SHIFT, true)]);
    // Paused in the middle of a report. Meanwhile the key is released and another one tapped.
    keyboard.device.set_running(false);
    keyboard.device.report(&[Event::key(SHIFT, false)]);
    keyboard.device.report(&[Event::key(A, true)]);
    keyboard.device.report(&[Event::key(A, false)]);
    keyboard.device.set_running(true);
    assert_eq!(
        keyboard.take(9),
        [Event::SYN, Event::key(SHIFT, false), Event::SYN]
    );
}

#[test]
fn a_buffer_that_holds_no_event_comes_back_empty_and_the_event_waits() {
    let mut keyboard = InputGuest::started(Kind::Keyboard);
    keyboard.device.report(&[Event::key(A, true)]);
    let shape = |request: &[u8], room: &[u32]| Chain {
        request: request.to_vec(),
        cuts: Vec::new(),
        room: room.to_vec(),
        indirect: false,
    };
    for useless in [shape(&[], &[]), shape(&[0; 64], &[]), shape(&[], &[3, 4])] {
        assert_eq!(keyboard.buffer(&useless), []);
    }
    // In pieces, behind a readable descriptor, or too large: nothing changes.
    assert_eq!(
        keyboard.buffer(&shape(&[1; 8], &[1, 2, 3, 4])),
        Event::key(A, true).to_bytes()
    );
    assert_eq!(keyboard.buffer(&shape(&[], &[4096])), Event::SYN.to_bytes());
    assert_eq!(keyboard.buffer(&shape(&[], &[8])), [], "nothing waits");
}

#[test]
fn events_that_a_device_does_not_have_are_not_reported() {
    let mut tablet = InputGuest::started(Kind::Tablet);
    for wrong in [
        Event::SYN,
        Event::key(A, true),
        event(1, 0x110, 2),
        event(ABS, 0, AXIS_MAX + 1),
        event(ABS, 0, -1),
        event(LED, 0, 1),
        event(ABS, TRACKING_ID, 1),
    ] {
        tablet.device.report(&[event(ABS, 0, 5), wrong]);
    }
    tablet.device.report(&[]);
    assert!(!tablet.device.has_event());
    tablet.device.report(&place(0, AXIS_MAX));
    assert_eq!(tablet.reports(), [place(0, AXIS_MAX)]);
}

#[test]
fn leds_come_back_from_the_guest() {
    let mut keyboard = InputGuest::started(Kind::Keyboard);
    let tell = |guest: &mut InputGuest, events: &[Event]| {
        let request: Vec<u8> = events.iter().flat_map(|event| event.to_bytes()).collect();
        guest.tell(&Chain {
            cuts: vec![3],
            request,
            room: Vec::new(),
            indirect: true,
        });
    };
    let caps = Leds {
        caps: true,
        ..Leds::default()
    };
    tell(&mut keyboard, &[event(LED, 1, 1)]);
    tell(
        &mut keyboard,
        &[event(LED, 1, 1), Event::SYN, event(0x14, 0, 250)],
    );
    assert_eq!(keyboard.leds(), [caps], "told once");
    tell(
        &mut keyboard,
        &[event(LED, 0, 1), event(LED, 2, 5), event(LED, 77, 1)],
    );
    let all = Leds {
        num: true,
        caps: true,
        scroll: true,
    };
    assert_eq!(keyboard.leds(), [caps, all]);
    keyboard.restart();
    assert_eq!(
        keyboard.leds(),
        [caps, all, Leds::default()],
        "a reset turns them off"
    );

    // Half an event, no event, far too many.
    for request in [
        vec![0x11, 0, 1],
        vec![],
        event(LED, 1, 1).to_bytes().repeat(1000),
    ] {
        let chain = Chain {
            request,
            cuts: Vec::new(),
            room: vec![8],
            indirect: false,
        };
        keyboard.tell(&chain);
    }
    assert_eq!(keyboard.leds().len(), 4);
    let mut tablet = InputGuest::started(Kind::Tablet);
    tell(&mut tablet, &[event(LED, 1, 1)]);
    assert_eq!(tablet.leds(), []);
}

#[test]
fn seeds_of_the_fuzzer_reach_the_guest() {
    for (index, seed) in seeds().iter().enumerate() {
        let got = run(seed);
        assert!(got > 0 || index == 4, "seed {index}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn whatever_happens_the_guest_ends_up_knowing_what_is_held(input in prop::collection::vec(any::<u8>(), 0..600)) {
        run(&input);
    }
}
