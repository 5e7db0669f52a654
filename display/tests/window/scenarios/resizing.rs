//! What happens when a user resizes a window.

use std::thread;
use std::time::Duration;

use hesper_display::{DisplayEvent, DisplayOptions, Renderer, Resize};

use super::{gradient, options, shot_of_size, show};
use crate::harness::{TestDisplay, expect_no_more_than, held, with_display};
use crate::x11::{Server, press};

/// The size of the guest's monitor in an event.
fn reported(event: &DisplayEvent) -> Option<(u32, u32)> {
    match event {
        DisplayEvent::MonitorChanged { width, height, .. } => Some((*width, *height)),
        _ => None,
    }
}

/// Waits until this size is reported.
fn expect_reported(display: &TestDisplay, size: (u32, u32)) {
    display.expect(|event| reported(event) == Some(size));
}

pub(super) fn resize() {
    with_display(options(Renderer::Auto, (640, 400)), |display| {
        let server = Server::connect();
        expect_reported(display, (640, 400));
        show(display, 0, (640, 400), gradient);
        let window = server.window("Hesper — 640×400");
        // By hand, a few pixels at a time.
        for step in 1..=20 {
            server.resize(window, 640 + step * 5, 400 + step);
            thread::sleep(Duration::from_millis(5));
        }
        let events: Vec<_> = display.events_for(Duration::from_millis(600));
        assert_eq!(
            events,
            [DisplayEvent::MonitorChanged {
                scanout: 0,
                width: 740,
                height: 420,
                // The size of a monitor with 96 pixels per inch, which is what Xvfb has.
                millimetres: (196, 111),
                position: Some((0, 0)),
            }]
        );
        server.place(window, 40, 30);
        let moved = display.expect(|event| reported(event).is_some());
        assert!(
            matches!(
                moved,
                DisplayEvent::MonitorChanged {
                    width: 740,
                    position: Some((40, 30)),
                    ..
                }
            ),
            "{moved:?}"
        );
        // By a script.
        display.handle.request_resize(0, 333, 222).unwrap();
        expect_reported(display, (333, 222));
        shot_of_size(display, 0, (333, 222));
    });
}

pub(super) fn scale() {
    let options = DisplayOptions {
        resize: Resize::Scale,
        ..options(Renderer::Auto, (320, 200))
    };
    with_display(options, |display| {
        let server = Server::connect();
        expect_reported(display, (320, 200));
        show(display, 0, (320, 200), gradient);
        let window = server.window("Hesper — 320×200");
        server.resize(window, 960, 600);
        shot_of_size(display, 0, (960, 600)).check(0, |x, y| gradient(x / 3, y / 3));
        let events: Vec<_> = display.events_for(Duration::from_millis(400));
        assert_eq!(events, [], "the guest keeps its mode");
        // A script changes the guest's monitor and not the window.
        display.handle.request_resize(0, 480, 300).unwrap();
        expect_reported(display, (480, 300));
        shot_of_size(display, 0, (960, 600));
    });
}

pub(super) fn fixed() {
    let options = DisplayOptions {
        resize: Resize::Fixed,
        ..options(Renderer::Auto, (320, 200))
    };
    with_display(options, |display| {
        let server = Server::connect();
        expect_reported(display, (320, 200));
        for size in [(500, 300), (200, 150), (320, 200)] {
            show(display, 0, size, gradient);
            shot_of_size(display, 0, size).check(0, gradient);
            let window = server.window(&format!("Hesper — {}×{}", size.0, size.1));
            assert_eq!(
                server.size_limits(window),
                Some((size, size)),
                "a hand cannot resize it"
            );
        }
        display.settle();
        display.handle.request_resize(0, 480, 300).unwrap();
        expect_reported(display, (480, 300));
        shot_of_size(display, 0, (320, 200));
    });
}

pub(super) fn full_screen() {
    with_display(options(Renderer::Auto, (320, 200)), |display| {
        let server = Server::connect();
        expect_reported(display, (320, 200));
        show(display, 0, (320, 200), gradient);
        let window = server.window("Hesper — 320×200");
        server.focus(window);
        // This server has no window manager, so the test does its work.
        for full in [true, false] {
            press("ctrl+alt+f");
            assert_eq!(server.asked_for_full_screen(window), full);
            let size = if full { (1280, 1024) } else { (320, 200) };
            server.resize(window, size.0, size.1);
            expect_reported(display, size);
            shot_of_size(display, 0, size);
        }
        press("f");
        press("alt+f");
        press("ctrl+f");
        press("ctrl+alt+f");
        assert!(
            server.asked_for_full_screen(window),
            "the last chord, and no key before it"
        );
    });
}

pub(super) fn scale_factor() {
    with_display(options(Renderer::Auto, (400, 250)), |display| {
        let server = Server::connect();
        expect_reported(display, (400, 250));
        show(display, 0, (400, 250), gradient);
        let window = server.window("Hesper — 400×250");
        // As a desktop does when the user chooses twice the size for everything.
        server.set_dpi(window, 192);
        expect_reported(display, (800, 500));
        shot_of_size(display, 0, (800, 500)).check(0, |x, y| gradient(x / 2, y / 2));
        server.set_dpi(window, 96);
        expect_reported(display, (400, 250));
        shot_of_size(display, 0, (400, 250)).check(0, gradient);
    });
}

pub(super) fn fifty_sizes(renderer: Renderer) {
    with_display(options(renderer, (640, 400)), |display| {
        let server = Server::connect();
        let canvas = show(display, 0, (320, 200), gradient);
        let window = server.window("Hesper — 320×200");
        let mut random = 12345u32;
        let mut side = |least: u32, most: u32| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            least + (random >> 8) % (most - least)
        };
        let mut before = (0, 0);
        for step in 0..50 {
            let (width, height) = (side(320, 1200), side(200, 900));
            // Flush before the resize: waiting for a flush skips other events.
            display.flush(0, canvas.whole());
            server.resize(window, width, height);
            // Sometimes the user pauses.
            if step % 10 == 0 {
                expect_reported(display, (width, height));
                shot_of_size(display, 0, (width, height));
            }
            if step == 0 {
                before = held();
            }
        }
        server.resize(window, 320, 200);
        expect_reported(display, (320, 200));
        shot_of_size(display, 0, (320, 200)).check(0, gradient);
        expect_no_more_than(before, "after fifty sizes");
    });
}
