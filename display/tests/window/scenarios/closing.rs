//! What closing the first window does while a guest is connected.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use hesper_display::{
    DisplayError, DisplayEvent, DisplayOptions, FlushToken, InputEvent, InputKind, InputSink,
    OnClose, PixelFormat, Renderer,
};

use super::osd::until;
use super::{gradient, options, shot_of_size};
use crate::harness::{Bench, Canvas, Color, EVENT, Shot, with_display, with_input};
use crate::x11::{Server, press};

const SIZE: (u32, u32) = (640, 400);
const TITLE: &str = "Hesper — 640×400";
const COME_BACK: &str = "hesper ctl /run/user/1000/hesper.sock show";
const CLOSED: DisplayEvent = DisplayEvent::CloseRequested { scanout: 0 };

/// Devices that note what they are told.
#[derive(Default)]
struct Devices(Mutex<Vec<(InputKind, InputEvent)>>);

impl Devices {
    fn take(&self) -> Vec<(InputKind, InputEvent)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// Key and button events: code, and whether it goes down.
    fn keys(&self) -> Vec<(u16, i32)> {
        let events = self.take();
        let keys = events.iter().filter(|(_, event)| event.kind == 1);
        keys.map(|(_, event)| (event.code, event.value)).collect()
    }
}

impl InputSink for Devices {
    fn has(&self, _: InputKind) -> bool {
        true
    }

    fn report(&self, device: InputKind, events: &[InputEvent]) {
        let mut noted = self.0.lock().unwrap();
        noted.extend(events.iter().map(|event| (device, *event)));
    }
}

fn asking(renderer: Renderer, size: (u32, u32)) -> DisplayOptions {
    DisplayOptions {
        come_back: COME_BACK.to_owned(),
        ..options(renderer, size)
    }
}

fn show(bench: &Bench, scanout: usize, size: (u32, u32), color: fn(u32, u32) -> Color) -> Canvas {
    let canvas = Canvas::new(size, PixelFormat::B8G8R8X8, true);
    canvas.draw(canvas.whole(), color);
    let picture = canvas.picture();
    bench.handle.set_scanout(scanout, Some(picture)).unwrap();
    bench.flush(scanout, canvas.whole());
    canvas
}

fn said(bench: &Bench) -> String {
    bench.handle.said(0).unwrap().unwrap_or_default()
}

fn await_question(bench: &Bench) {
    until("the question", || said(bench).contains("Esc  Cancel"));
}

fn await_no_question(bench: &Bench) {
    until("no question", || said(bench).is_empty());
}

/// Closes the window and waits until it asks.
fn close(bench: &Bench, server: &Server, title: &str) -> u32 {
    let window = server.window(title);
    server.focus(window);
    server.close(window);
    await_question(bench);
    window
}

/// The area of the question, and where its choices are, for a window of `size` pixels with letters enlarged so often.
struct Layout {
    across: Range<u32>,
    down: Range<u32>,
    rows: Vec<(char, (i16, i16))>,
}

impl Layout {
    fn of(text: &str, size: (u32, u32), scale: u32) -> Layout {
        let lines: Vec<&str> = text.lines().collect();
        let longest = lines.iter().map(|line| line.chars().count()).max().unwrap() as u32;
        let (width, height) = (
            (longest * 9 + 18) * scale,
            (lines.len() as u32 * 18 + 18) * scale,
        );
        // One that is still that of a larger window does not fit.
        let middle = |window: u32, label: u32| window.saturating_sub(label) / 2;
        let (left, top) = (middle(size.0, width), middle(size.1, height));
        let row = |(index, line): (usize, &&str)| {
            let key = line.chars().next().unwrap_or(' ');
            let y = top + (9 + index as u32 * 18 + 9) * scale;
            (key, ((left + width / 2) as i16, y as i16))
        };
        Layout {
            across: left..left + width,
            down: top..top + height,
            rows: lines.iter().enumerate().map(row).collect(),
        }
    }

    /// Where the choice with this key is.
    fn choice(&self, key: char) -> (i16, i16) {
        let mut rows = self.rows.iter();
        rows.find(|(first, _)| *first == key).unwrap().1
    }
}

fn click(server: &Server, window: u32, at: (i16, i16)) {
    server.point(window, at);
    server.press_button(true);
    server.press_button(false);
}

/// How a test answers: with keys, or by a click at the choice with this letter.
#[derive(Clone, Copy)]
pub(super) enum Way {
    Keys(&'static [&'static str]),
    Click(char),
}

impl Way {
    fn answer(self, bench: &Bench, server: &Server, window: u32) {
        match self {
            Way::Keys(keys) => keys.iter().for_each(|key| press(key)),
            Way::Click(letter) => {
                let layout = Layout::of(&said(bench), SIZE, 1);
                click(server, window, layout.choice(letter));
            }
        }
    }
}

/// Waits until the hidden window has left nothing behind, looks at the guest meanwhile, and shows it again.
fn hidden_and_back(bench: &Bench, server: &Server, window: u32, canvas: &Canvas) {
    bench.expect(|event| *event == DisplayEvent::Hidden);
    server.await_gone(window);
    assert!(bench.handle.is_hidden());
    assert_eq!(said(bench), "", "nothing is asked any more");
    // The guest goes on.
    canvas.draw(canvas.whole(), |x, y| gradient(y, x));
    for _ in 0..100 {
        bench.flush(0, canvas.whole());
    }
    bench.screenshot(0).check(0, |x, y| gradient(y, x));
    let refused = bench.handle.request_resize(0, 333, 222);
    assert!(
        matches!(refused, Err(DisplayError::Hidden(0))),
        "{refused:?}"
    );
    bench.handle.show().unwrap();
    bench.expect(|event| *event == DisplayEvent::Shown);
    assert!(!bench.handle.is_hidden());
    shot_of_size(bench, 0, SIZE).check(0, |x, y| gradient(y, x));
    assert_ne!(server.window(TITLE), window, "a window of its own");
    canvas.draw(canvas.whole(), gradient);
    bench.flush(0, canvas.whole());
    let server_has = || server.screen_at(server.window(TITLE)).at(7, 100) == gradient(7, 100);
    until("the new window shows the picture of now", server_has);
}

/// Both harmless answers, in one display.
pub(super) fn hide_and_cancel(hide: Way, cancel: Way) {
    let devices = Arc::new(Devices::default());
    let input = Arc::clone(&devices) as Arc<dyn InputSink>;
    with_input(asking(Renderer::Auto, SIZE), input, |bench| {
        let server = Server::connect();
        let canvas = show(bench, 0, SIZE, gradient);
        bench.handle.set_guest_connected(true);
        let title = format!("{TITLE} — Ctrl+Alt+G grabs the pointer");
        for round in 0..2 {
            let window = close(bench, &server, &title);
            assert!(said(bench).contains("hesper ctl"), "{}", said(bench));
            cancel.answer(bench, &server, window);
            await_no_question(bench);
            bench.screenshot(0).check(0, gradient);
            // A second close while it asks changes nothing.
            assert_eq!(close(bench, &server, &title), window);
            server.close(window);
            thread::sleep(Duration::from_millis(300));
            await_question(bench);
            hide.answer(bench, &server, window);
            bench.expect(|event| *event == DisplayEvent::Hidden);
            server.await_gone(window);
            if round == 0 {
                bench.handle.show().unwrap();
                bench.expect(|event| *event == DisplayEvent::Shown);
            } else {
                // A new guest is shown.
                bench.handle.set_guest_connected(false);
                bench.handle.set_guest_connected(true);
                bench.expect(|event| *event == DisplayEvent::Shown);
            }
            let again = server.window(&title);
            shot_of_size(bench, 0, SIZE).check(0, gradient);
            assert_ne!(again, window);
        }
        let keys = devices.keys();
        assert_eq!(keys, [], "none of that is for the guest");
        drop(canvas);
    });
}

pub(super) fn hiding() {
    let options = DisplayOptions {
        on_close: OnClose::Hide,
        ..asking(Renderer::Auto, SIZE)
    };
    with_display(options, |bench| {
        let server = Server::connect();
        let canvas = show(bench, 0, SIZE, gradient);
        bench.handle.set_guest_connected(true);
        for round in 0..3 {
            let window = server.window(TITLE);
            let place = (40 + round, 30);
            server.place(window, place.0, place.1);
            let there = |event: &DisplayEvent| matches!(event, DisplayEvent::Settled { position, .. } if *position == Some(place));
            bench.expect(there);
            server.close(window);
            hidden_and_back(bench, &server, window, &canvas);
            let events = bench.events_for(Duration::from_millis(500));
            let told = events
                .iter()
                .any(|event| !matches!(event, DisplayEvent::FlushDone(_)));
            assert!(!told, "the guest's monitor is what it was: {events:?}");
            // From here, too.
            let window = server.window(TITLE);
            bench.handle.hide().unwrap();
            bench.handle.hide().unwrap();
            hidden_and_back(bench, &server, window, &canvas);
            bench.handle.show().unwrap();
        }
        // Nobody's window is closed for good.
        bench.handle.set_guest_connected(false);
        server.close(server.window(TITLE));
        bench.expect(|event| *event == CLOSED);
    });
}

/// From the program, on any window system.
pub(super) fn hidden_and_shown() {
    let options = DisplayOptions {
        scanouts: 2,
        ..asking(Renderer::Auto, SIZE)
    };
    with_display(options, |bench| {
        let first = show(bench, 0, SIZE, gradient);
        let second = show(bench, 1, SIZE, |x, y| gradient(y, x));
        bench.handle.set_guest_connected(true);
        shot_of_size(bench, 0, SIZE).check(0, gradient);
        for _ in 0..3 {
            bench.handle.hide().unwrap();
            bench.expect(|event| *event == DisplayEvent::Hidden);
            for _ in 0..50 {
                bench.flush(0, first.whole());
                bench.flush(1, second.whole());
            }
            bench.screenshot(0).check(0, gradient);
            bench.handle.show().unwrap();
            bench.expect(|event| *event == DisplayEvent::Shown);
            shot_of_size(bench, 0, SIZE).check(0, gradient);
            shot_of_size(bench, 1, SIZE).check(0, |x, y| gradient(y, x));
            bench.flush(0, first.whole());
            bench.flush(1, second.whole());
        }
    });
}

/// Answers that end the display.
pub(super) fn quitting(way: Way) {
    with_display(asking(Renderer::Auto, SIZE), |bench| {
        let server = Server::connect();
        show(bench, 0, SIZE, gradient);
        bench.handle.set_guest_connected(true);
        let window = close(bench, &server, TITLE);
        bench.settle();
        way.answer(bench, &server, window);
        bench.expect(|event| *event == CLOSED);
    });
}

pub(super) fn quits_at_once() {
    let options = DisplayOptions {
        on_close: OnClose::Quit,
        ..asking(Renderer::Auto, SIZE)
    };
    with_display(options, |bench| {
        let server = Server::connect();
        show(bench, 0, SIZE, gradient);
        bench.handle.set_guest_connected(true);
        server.close(server.window(TITLE));
        bench.expect(|event| *event == CLOSED);
        assert_eq!(said(bench), "");
    });
}

pub(super) fn guest_gone() {
    with_display(asking(Renderer::Auto, SIZE), |bench| {
        let server = Server::connect();
        show(bench, 0, SIZE, gradient);
        bench.handle.set_guest_connected(true);
        close(bench, &server, TITLE);
        bench.handle.set_guest_connected(false);
        bench.expect(|event| *event == CLOSED);
    });
}

/// What is held in the guest is let go when the question comes, and nothing arrives until it is answered.
pub(super) fn lets_go() {
    const KEY_A: u16 = 30;
    const KEY_B: u16 = 48;
    let devices = Arc::new(Devices::default());
    let input = Arc::clone(&devices) as Arc<dyn InputSink>;
    let xdotool = |words: &[&str]| {
        let done = std::process::Command::new("xdotool").args(words).status();
        assert!(done.expect("xdotool is installed").success());
    };
    with_input(asking(Renderer::Auto, SIZE), input, |bench| {
        let server = Server::connect();
        show(bench, 0, SIZE, gradient);
        bench.handle.set_guest_connected(true);
        let free = format!("{TITLE} — Ctrl+Alt+G grabs the pointer");
        let window = server.window(&free);
        server.focus(window);
        server.point(window, (20, 20));
        press("ctrl+alt+g");
        let grabbed = format!("{TITLE} — Ctrl+Alt+G releases the pointer");
        assert_eq!(server.window(&grabbed), window);
        devices.take();
        xdotool(&["keydown", "a", "mousedown", "1"]);
        let down = || {
            devices
                .0
                .lock()
                .unwrap()
                .iter()
                .filter(|(_, event)| event.kind == 1)
                .count()
        };
        until("key and button are down", || down() == 2);
        devices.take();
        server.close(window);
        await_question(bench);
        assert_eq!(server.window(&free), window, "the pointer is free");
        let mut released = devices.keys();
        released.sort_unstable();
        assert_eq!(released, [(KEY_A, 0), (0x110, 0)]);
        xdotool(&["keyup", "a", "mouseup", "1", "key", "x"]);
        for at in [(30, 30), (300, 10), (31, 31)] {
            click(&server, window, at);
        }
        xdotool(&["click", "4"]);
        // All of that has been seen when the next key is.
        press("Escape");
        await_no_question(bench);
        assert_eq!(devices.take(), [], "not for the guest");
        press("b");
        until("the guest has the keyboard again", || down() == 2);
        assert_eq!(devices.keys(), [(KEY_B, 1), (KEY_B, 0)]);
        server.point(window, (50, 60));
        until("and the pointer", || !devices.take().is_empty());
    });
}

pub(super) fn two_windows() {
    let options = DisplayOptions {
        scanouts: 2,
        ..asking(Renderer::Auto, SIZE)
    };
    with_display(options, |bench| {
        let server = Server::connect();
        let first = show(bench, 0, SIZE, gradient);
        let second = show(bench, 1, SIZE, |x, y| gradient(y, x));
        let other = "Hesper (2) — 640×400";
        bench.handle.set_guest_connected(true);
        server.window(other);
        bench.settle();
        // The second is a monitor that is unplugged: nothing is asked.
        let window = server.window(other);
        server.close(window);
        bench.expect(|event| *event == DisplayEvent::Unplugged { scanout: 1 });
        assert_eq!(said(bench), "");
        bench.handle.plug(1).unwrap();
        bench.expect(|event| matches!(event, DisplayEvent::Settled { scanout: 1, .. }));
        // The first asks for both.
        let windows = [close(bench, &server, TITLE), server.window(other)];
        assert!(said(bench).contains("Hide the windows."), "{}", said(bench));
        assert_eq!(bench.handle.said(1).unwrap(), None);
        press("h");
        bench.expect(|event| *event == DisplayEvent::Hidden);
        for window in windows {
            server.await_gone(window);
        }
        for (scanout, canvas) in [(0, &first), (1, &second)] {
            bench.flush(scanout, canvas.whole());
        }
        bench.screenshot(1).check(0, |x, y| gradient(y, x));
        // Monitors come and go all the same.
        bench.handle.unplug(1).unwrap();
        bench.expect(|event| *event == DisplayEvent::Unplugged { scanout: 1 });
        bench.handle.plug(1).unwrap();
        bench.expect(|event| {
            matches!(
                event,
                DisplayEvent::Settled {
                    scanout: 1,
                    width: 640,
                    ..
                }
            )
        });
        bench.handle.unplug(1).unwrap();
        bench.expect(|event| *event == DisplayEvent::Unplugged { scanout: 1 });
        bench.handle.show().unwrap();
        bench.expect(|event| *event == DisplayEvent::Shown);
        shot_of_size(bench, 0, SIZE).check(0, gradient);
        let refused = bench.handle.screenshot(1, "/dev/null".as_ref());
        assert!(
            matches!(refused, Err(DisplayError::Unplugged(1))),
            "{refused:?}"
        );
        bench.handle.hide().unwrap();
        bench.expect(|event| *event == DisplayEvent::Hidden);
        bench.handle.plug(1).unwrap();
        bench.handle.show().unwrap();
        bench.expect(|event| *event == DisplayEvent::Shown);
        shot_of_size(bench, 0, SIZE).check(0, gradient);
        shot_of_size(bench, 1, SIZE).check(0, |x, y| gradient(y, x));
        // In any order, at any speed.
        for _ in 0..10 {
            bench.handle.hide().unwrap();
            bench.handle.unplug(1).unwrap();
            bench.handle.show().unwrap();
            bench.handle.plug(1).unwrap();
        }
        bench.settle();
        shot_of_size(bench, 0, SIZE).check(0, gradient);
        shot_of_size(bench, 1, SIZE).check(0, |x, y| gradient(y, x));
    });
}

/// As light as a picture gets that has no colour of letters.
fn light(_: u32, _: u32) -> Color {
    [253; 3]
}

/// What is wrong with a question over a picture: its paper must be dark whatever is behind, and the letters white.
fn flaw(shot: &Shot, layout: &Layout, behind: impl Fn(u32, u32) -> Color) -> Option<String> {
    let (mut ink, mut paper) = (0, 0);
    for y in 0..shot.height {
        for x in 0..shot.width {
            let seen = shot.at(x, y);
            if !(layout.across.contains(&x) && layout.down.contains(&y)) {
                if seen != behind(x, y) {
                    return Some(format!("{seen:?} beside it, at {x}, {y}"));
                }
            } else if seen == [255; 3] {
                ink += 1;
            } else if seen.iter().all(|channel| *channel < 56) {
                paper += 1;
            } else {
                return Some(format!("{seen:?} at {x}, {y}"));
            }
        }
    }
    // Of the highlighted line the letters are dark and the paper is white.
    let fair = ink > paper / 10 && paper > ink / 10;
    let framed = shot.at(layout.across.start, layout.down.start) == [255; 3];
    (!fair || !framed).then(|| format!("{ink} of ink, {paper} of paper, frame: {framed}"))
}

/// Waits until the question is legible in a window of `size` pixels with letters enlarged so often: the window may have just
/// changed.
#[track_caller]
fn await_legible(bench: &Bench, size: (u32, u32), scale: u32, behind: fn(u32, u32) -> Color) {
    let deadline = Instant::now() + EVENT;
    loop {
        let layout = Layout::of(&said(bench), size, scale);
        let shot = bench.screenshot(0);
        let flaw = match (shot.width, shot.height) == size {
            true => flaw(&shot, &layout, behind),
            false => Some(format!("{}x{}", shot.width, shot.height)),
        };
        let Some(flaw) = flaw else { return };
        assert!(Instant::now() < deadline, "{flaw}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Where to keep pictures of the questions, for a person to look at.
fn keep(bench: &Bench, name: &str) {
    if let Some(folder) = std::env::var_os("HESPER_WINDOW_PICTURES") {
        let file = PathBuf::from(folder).join(format!("{name}.png"));
        bench.handle.screenshot(0, &file).unwrap();
    }
}

pub(super) fn legible(renderer: Renderer) {
    let small = (320, 200);
    with_display(asking(renderer, small), |bench| {
        let server = Server::connect();
        let canvas = show(bench, 0, small, light);
        bench.handle.set_guest_connected(true);
        let window = server.window("Hesper — 320×200");
        server.close(window);
        await_question(bench);
        let lines = said(bench).lines().count();
        await_legible(bench, small, 1, light);
        keep(bench, &format!("{renderer:?}-small"));
        // The guest shows something else meanwhile.
        canvas.draw(canvas.whole(), gradient);
        bench.flush(0, canvas.whole());
        await_legible(bench, small, 1, gradient);
        // Another mode in a larger window.
        let canvas = show(bench, 0, SIZE, light);
        server.resize(window, SIZE.0, SIZE.1);
        await_legible(bench, SIZE, 1, light);
        assert!(said(bench).lines().count() < lines, "it takes the room");
        keep(bench, &format!("{renderer:?}-usual"));
        drop(canvas);
        // No picture at all.
        bench.handle.set_scanout(0, None).unwrap();
        await_legible(bench, SIZE, 1, |_, _| [0; 3]);
        // Twice the pixels for everything.
        let double = (SIZE.0 * 2, SIZE.1 * 2);
        let canvas = show(bench, 0, double, light);
        server.set_dpi(window, 192);
        await_legible(bench, double, 2, light);
        keep(bench, &format!("{renderer:?}-double"));
        // Small again, with the same scale: no room for large letters.
        let again = show(bench, 0, small, light);
        server.resize(window, small.0, small.1);
        await_legible(bench, small, 1, light);
        drop((canvas, again));
        server.focus(window);
        press("Escape");
        await_no_question(bench);
        bench.screenshot(0).check(0, light);
        server.set_dpi(window, 96);
        // Tokens are answered as ever.
        let token = FlushToken(77_777);
        let some = hesper_display::Rect::whole(9, 9);
        bench.handle.flush(0, some, Some(token)).unwrap();
        bench.expect(|event| *event == DisplayEvent::FlushDone(token));
    });
}
