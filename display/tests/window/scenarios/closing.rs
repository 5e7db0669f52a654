//! What closing the first window does.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use hesper_display::{
    DisplayError, DisplayEvent, DisplayOptions, FlushToken, InputEvent, InputKind, InputSink,
    OnClose, PixelFormat, Renderer,
};

use super::close_dialog::{Layout, asking, await_no_question, await_question, shown_text};
use super::{gradient, options, shot_of_size, show};
use crate::harness::{Canvas, TestDisplay, until, with_display, with_input};
use crate::x11::{Server, press};

const SIZE: (u32, u32) = (640, 400);
const TITLE: &str = "Hesper — 640×400";

const CLOSED: DisplayEvent = DisplayEvent::CloseRequested { scanout: 0 };

/// Devices that note what they are sent.
#[derive(Default)]
struct Devices(Mutex<Vec<(InputKind, InputEvent)>>);

impl Devices {
    fn take(&self) -> Vec<(InputKind, InputEvent)> {
        std::mem::take(&mut self.0.lock().unwrap())
    }

    /// Key and button events: the code, and 1 if it goes down.
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

/// Closes the window and waits until it shows the dialog.
fn close(display: &TestDisplay, server: &Server, title: &str) -> u32 {
    let window = server.window(title);
    server.focus(window);
    server.close(window);
    await_question(display);
    window
}

fn click(server: &Server, window: u32, at: (i16, i16)) {
    server.point(window, at);
    server.press_button(true);
    server.press_button(false);
}

/// How a test answers: with keys, or with a click on the choice with this letter.
#[derive(Clone, Copy)]
pub(super) enum Way {
    Keys(&'static [&'static str]),
    Click(char),
}

impl Way {
    fn answer(self, display: &TestDisplay, server: &Server, window: u32) {
        match self {
            Way::Keys(keys) => keys.iter().for_each(|key| press(key)),
            Way::Click(letter) => {
                let layout = Layout::of(&shown_text(display), SIZE, 1);
                click(server, window, layout.choice(letter));
            }
        }
    }
}

/// Waits until the hidden window has left nothing behind. Then checks that the guest goes on, and
/// shows the window again.
fn hidden_and_back(display: &TestDisplay, server: &Server, window: u32, canvas: &Canvas) {
    display.expect(|event| *event == DisplayEvent::Hidden);
    server.await_gone(window);
    assert!(display.handle.is_hidden());
    assert_eq!(shown_text(display), "", "nothing is asked any more");
    // The guest goes on.
    canvas.draw(canvas.whole(), |x, y| gradient(y, x));
    for _ in 0..100 {
        display.flush(0, canvas.whole());
    }
    display.screenshot(0).check(0, |x, y| gradient(y, x));
    let refused = display.handle.request_resize(0, 333, 222);
    assert!(
        matches!(refused, Err(DisplayError::Hidden(0))),
        "{refused:?}"
    );
    display.handle.show().unwrap();
    display.expect(|event| *event == DisplayEvent::Shown);
    assert!(!display.handle.is_hidden());
    shot_of_size(display, 0, SIZE).check(0, |x, y| gradient(y, x));
    assert_ne!(server.window(TITLE), window, "a window of its own");
    canvas.draw(canvas.whole(), gradient);
    display.flush(0, canvas.whole());
    let server_has = || server.screen_at(server.window(TITLE)).at(7, 100) == gradient(7, 100);
    until("the new window shows the picture of now", server_has);
}

/// Gives both harmless answers in one display.
pub(super) fn hide_and_cancel(hide: Way, cancel: Way) {
    let devices = Arc::new(Devices::default());
    let input = Arc::clone(&devices) as Arc<dyn InputSink>;
    with_input(asking(Renderer::Auto, SIZE), input, |display| {
        let server = Server::connect();
        let canvas = show(display, 0, SIZE, gradient);
        display.handle.set_guest_connected(true);
        let title = format!("{TITLE} — Ctrl+Alt+G grabs the pointer");
        for round in 0..2 {
            let window = close(display, &server, &title);
            assert!(
                shown_text(display).contains("hesper ctl"),
                "{}",
                shown_text(display)
            );
            cancel.answer(display, &server, window);
            await_no_question(display);
            display.screenshot(0).check(0, gradient);
            // A second request to close changes nothing.
            assert_eq!(close(display, &server, &title), window);
            server.close(window);
            thread::sleep(Duration::from_millis(300));
            await_question(display);
            hide.answer(display, &server, window);
            display.expect(|event| *event == DisplayEvent::Hidden);
            server.await_gone(window);
            if round == 0 {
                display.handle.show().unwrap();
                display.expect(|event| *event == DisplayEvent::Shown);
            } else {
                // A new guest makes the windows visible.
                display.handle.set_guest_connected(false);
                display.handle.set_guest_connected(true);
                display.expect(|event| *event == DisplayEvent::Shown);
            }
            let again = server.window(&title);
            shot_of_size(display, 0, SIZE).check(0, gradient);
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
    with_display(options, |display| {
        let server = Server::connect();
        let canvas = show(display, 0, SIZE, gradient);
        display.handle.set_guest_connected(true);
        for round in 0..3 {
            let window = server.window(TITLE);
            let place = (40 + round, 30);
            server.place(window, place.0, place.1);
            let there = |event: &DisplayEvent| matches!(event, DisplayEvent::MonitorChanged { position, .. } if *position == Some(place));
            display.expect(there);
            server.close(window);
            hidden_and_back(display, &server, window, &canvas);
            let events = display.events_for(Duration::from_millis(500));
            let told = events
                .iter()
                .any(|event| !matches!(event, DisplayEvent::FlushDone(_)));
            assert!(!told, "the guest's monitor is what it was: {events:?}");
            // The program can hide the windows, too.
            let window = server.window(TITLE);
            display.handle.hide().unwrap();
            display.handle.hide().unwrap();
            hidden_and_back(display, &server, window, &canvas);
            display.handle.show().unwrap();
        }
        // Without a guest, closing ends the display.
        display.handle.set_guest_connected(false);
        server.close(server.window(TITLE));
        display.expect(|event| *event == CLOSED);
    });
}

pub(super) fn ends_the_display() {
    // That `run` returns proves that the display has ended: nothing here calls `quit` before.
    let (sender, events) = std::sync::mpsc::channel();
    let report = Box::new(move |event| drop(sender.send(event)));
    let (display, handle) =
        hesper_display::Display::new(options(Renderer::Auto, (320, 200)), report).unwrap();
    let user = thread::spawn(|| {
        let server = Server::connect();
        server.close(server.window("Hesper"));
    });
    display.run().unwrap();
    user.join().unwrap();
    assert_eq!(events.try_iter().last(), Some(CLOSED));
    // The device may not know yet.
    let canvas = Canvas::new((64, 64), PixelFormat::B8G8R8X8, true);
    handle.set_scanout(0, Some(canvas.picture())).unwrap();
    let token = FlushToken(5);
    handle.flush(0, canvas.whole(), Some(token)).unwrap();
    assert_eq!(
        events.try_iter().last(),
        Some(DisplayEvent::FlushDone(token))
    );
    let late = handle.screenshot(0, "unused.png".as_ref());
    assert!(matches!(late, Err(DisplayError::Closed)), "{late:?}");
}

/// The program hides and shows the windows, on any window system.
pub(super) fn hidden_and_shown() {
    let options = DisplayOptions {
        scanouts: 2,
        ..asking(Renderer::Auto, SIZE)
    };
    with_display(options, |display| {
        let first = show(display, 0, SIZE, gradient);
        let second = show(display, 1, SIZE, |x, y| gradient(y, x));
        display.handle.set_guest_connected(true);
        shot_of_size(display, 0, SIZE).check(0, gradient);
        for _ in 0..3 {
            display.handle.hide().unwrap();
            display.expect(|event| *event == DisplayEvent::Hidden);
            for _ in 0..50 {
                display.flush(0, first.whole());
                display.flush(1, second.whole());
            }
            display.screenshot(0).check(0, gradient);
            display.handle.show().unwrap();
            display.expect(|event| *event == DisplayEvent::Shown);
            shot_of_size(display, 0, SIZE).check(0, gradient);
            shot_of_size(display, 1, SIZE).check(0, |x, y| gradient(y, x));
            display.flush(0, first.whole());
            display.flush(1, second.whole());
        }
    });
}

/// Answers that end the display.
pub(super) fn quitting(way: Way) {
    with_display(asking(Renderer::Auto, SIZE), |display| {
        let server = Server::connect();
        show(display, 0, SIZE, gradient);
        display.handle.set_guest_connected(true);
        let window = close(display, &server, TITLE);
        display.settle();
        way.answer(display, &server, window);
        display.expect(|event| *event == CLOSED);
    });
}

pub(super) fn quits_at_once() {
    let options = DisplayOptions {
        on_close: OnClose::Quit,
        ..asking(Renderer::Auto, SIZE)
    };
    with_display(options, |display| {
        let server = Server::connect();
        show(display, 0, SIZE, gradient);
        display.handle.set_guest_connected(true);
        server.close(server.window(TITLE));
        display.expect(|event| *event == CLOSED);
        assert_eq!(shown_text(display), "");
    });
}

pub(super) fn guest_gone() {
    with_display(asking(Renderer::Auto, SIZE), |display| {
        let server = Server::connect();
        show(display, 0, SIZE, gradient);
        display.handle.set_guest_connected(true);
        close(display, &server, TITLE);
        display.handle.set_guest_connected(false);
        display.expect(|event| *event == CLOSED);
    });
}

/// Everything that is held in the guest is released when the dialog opens. Nothing reaches the
/// guest until the dialog is answered.
pub(super) fn releases_all() {
    const KEY_A: u16 = 30;
    const KEY_B: u16 = 48;
    let devices = Arc::new(Devices::default());
    let input = Arc::clone(&devices) as Arc<dyn InputSink>;
    let xdotool = |words: &[&str]| {
        let done = std::process::Command::new("xdotool").args(words).status();
        assert!(done.expect("xdotool is installed").success());
    };
    with_input(asking(Renderer::Auto, SIZE), input, |display| {
        let server = Server::connect();
        show(display, 0, SIZE, gradient);
        display.handle.set_guest_connected(true);
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
        await_question(display);
        assert_eq!(server.window(&free), window, "the pointer is free");
        let mut released = devices.keys();
        released.sort_unstable();
        assert_eq!(released, [(KEY_A, 0), (0x110, 0)]);
        xdotool(&["keyup", "a", "mouseup", "1", "key", "x"]);
        for at in [(30, 30), (300, 10), (31, 31)] {
            click(&server, window, at);
        }
        xdotool(&["click", "4"]);
        // All of that has been handled when the next key has been.
        press("Escape");
        await_no_question(display);
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
    with_display(options, |display| {
        let server = Server::connect();
        let first = show(display, 0, SIZE, gradient);
        let second = show(display, 1, SIZE, |x, y| gradient(y, x));
        let other = "Hesper (2) — 640×400";
        display.handle.set_guest_connected(true);
        server.window(other);
        display.settle();
        // Closing the second window unplugs its monitor. Nothing is asked.
        let window = server.window(other);
        server.close(window);
        display.expect(|event| *event == DisplayEvent::Unplugged { scanout: 1 });
        assert_eq!(shown_text(display), "");
        display.handle.plug(1).unwrap();
        display.expect(|event| matches!(event, DisplayEvent::MonitorChanged { scanout: 1, .. }));
        // Closing the first window asks about both.
        let windows = [close(display, &server, TITLE), server.window(other)];
        assert!(
            shown_text(display).contains("Hide the windows."),
            "{}",
            shown_text(display)
        );
        assert_eq!(display.handle.shown_text(1).unwrap(), None);
        press("h");
        display.expect(|event| *event == DisplayEvent::Hidden);
        for window in windows {
            server.await_gone(window);
        }
        for (scanout, canvas) in [(0, &first), (1, &second)] {
            display.flush(scanout, canvas.whole());
        }
        display.screenshot(1).check(0, |x, y| gradient(y, x));
        // Monitors can be plugged and unplugged while the windows are hidden.
        display.handle.unplug(1).unwrap();
        display.expect(|event| *event == DisplayEvent::Unplugged { scanout: 1 });
        display.handle.plug(1).unwrap();
        display.expect(|event| {
            matches!(
                event,
                DisplayEvent::MonitorChanged {
                    scanout: 1,
                    width: 640,
                    ..
                }
            )
        });
        display.handle.unplug(1).unwrap();
        display.expect(|event| *event == DisplayEvent::Unplugged { scanout: 1 });
        display.handle.show().unwrap();
        display.expect(|event| *event == DisplayEvent::Shown);
        shot_of_size(display, 0, SIZE).check(0, gradient);
        let refused = display.handle.screenshot(1, "/dev/null".as_ref());
        assert!(
            matches!(refused, Err(DisplayError::Unplugged(1))),
            "{refused:?}"
        );
        display.handle.hide().unwrap();
        display.expect(|event| *event == DisplayEvent::Hidden);
        display.handle.plug(1).unwrap();
        display.handle.show().unwrap();
        display.expect(|event| *event == DisplayEvent::Shown);
        shot_of_size(display, 0, SIZE).check(0, gradient);
        shot_of_size(display, 1, SIZE).check(0, |x, y| gradient(y, x));
        // In any order, at any speed.
        for _ in 0..10 {
            display.handle.hide().unwrap();
            display.handle.unplug(1).unwrap();
            display.handle.show().unwrap();
            display.handle.plug(1).unwrap();
        }
        display.settle();
        shot_of_size(display, 0, SIZE).check(0, gradient);
        shot_of_size(display, 1, SIZE).check(0, |x, y| gradient(y, x));
    });
}
