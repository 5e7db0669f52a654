//! What happens when a user resizes, covers or closes a window.

use std::thread;
use std::time::{Duration, Instant};

use hesper_display::{DisplayError, DisplayEvent, DisplayOptions, PixelFormat, Renderer, Resize};

use super::failures::cpu_time;
use super::{gradient, options, shot_of_size};
use crate::harness::{Bench, Canvas, EVENT, with_display};
use crate::x11::{Server, press};

/// The size of the guest's monitor that an event tells.
fn told(event: &DisplayEvent) -> Option<(u32, u32)> {
    match event {
        DisplayEvent::Settled { width, height, .. } => Some((*width, *height)),
        _ => None,
    }
}

/// What is going to be told, until it is `size`.
fn expect_told(bench: &Bench, size: (u32, u32)) {
    bench.expect(|event| told(event) == Some(size));
}

fn show(bench: &Bench, size: (u32, u32)) -> Canvas {
    let canvas = Canvas::new(size, PixelFormat::B8G8R8X8, true);
    canvas.draw(canvas.whole(), gradient);
    bench.handle.set_scanout(0, Some(canvas.picture())).unwrap();
    bench.flush(0, canvas.whole());
    canvas
}

pub(super) fn resize() {
    with_display(options(Renderer::Auto, (640, 400)), |bench| {
        let server = Server::connect();
        expect_told(bench, (640, 400));
        show(bench, (640, 400));
        let window = server.window("Hesper — 640×400");
        // By hand, a few pixels at a time.
        for step in 1..=20 {
            server.resize(window, 640 + step * 5, 400 + step);
            thread::sleep(Duration::from_millis(5));
        }
        let events: Vec<_> = bench.events_for(Duration::from_millis(600));
        assert_eq!(
            events,
            [DisplayEvent::Settled {
                scanout: 0,
                width: 740,
                height: 420,
                // Of a monitor with 96 pixels an inch, Xvfb's.
                millimetres: (196, 111),
                position: Some((0, 0)),
            }]
        );
        server.place(window, 40, 30);
        let moved = bench.expect(|event| told(event).is_some());
        assert!(
            matches!(
                moved,
                DisplayEvent::Settled {
                    width: 740,
                    position: Some((40, 30)),
                    ..
                }
            ),
            "{moved:?}"
        );
        // By a script.
        bench.handle.request_resize(0, 333, 222).unwrap();
        expect_told(bench, (333, 222));
        shot_of_size(bench, 0, (333, 222));
    });
}

pub(super) fn scale() {
    let options = DisplayOptions {
        resize: Resize::Scale,
        ..options(Renderer::Auto, (320, 200))
    };
    with_display(options, |bench| {
        let server = Server::connect();
        expect_told(bench, (320, 200));
        show(bench, (320, 200));
        let window = server.window("Hesper — 320×200");
        server.resize(window, 960, 600);
        shot_of_size(bench, 0, (960, 600)).check(0, |x, y| gradient(x / 3, y / 3));
        let events: Vec<_> = bench.events_for(Duration::from_millis(400));
        assert_eq!(events, [], "the guest keeps its mode");
        // Asked for by a script, the guest's monitor changes, and the window does not.
        bench.handle.request_resize(0, 480, 300).unwrap();
        expect_told(bench, (480, 300));
        shot_of_size(bench, 0, (960, 600));
    });
}

pub(super) fn fixed() {
    let options = DisplayOptions {
        resize: Resize::Fixed,
        ..options(Renderer::Auto, (320, 200))
    };
    with_display(options, |bench| {
        let server = Server::connect();
        expect_told(bench, (320, 200));
        for size in [(500, 300), (200, 150), (320, 200)] {
            show(bench, size);
            shot_of_size(bench, 0, size).check(0, gradient);
            let window = server.window(&format!("Hesper — {}×{}", size.0, size.1));
            assert_eq!(
                server.size_limits(window),
                Some((size, size)),
                "a hand cannot resize it"
            );
        }
        bench.settle();
        bench.handle.request_resize(0, 480, 300).unwrap();
        expect_told(bench, (480, 300));
        shot_of_size(bench, 0, (320, 200));
    });
}

pub(super) fn full_screen() {
    with_display(options(Renderer::Auto, (320, 200)), |bench| {
        let server = Server::connect();
        expect_told(bench, (320, 200));
        show(bench, (320, 200));
        let window = server.window("Hesper — 320×200");
        server.focus(window);
        // This server has no window manager: the test does what one would.
        for full in [true, false] {
            press("ctrl+alt+f");
            assert_eq!(server.asked_for_full_screen(window), full);
            let size = if full { (1280, 1024) } else { (320, 200) };
            server.resize(window, size.0, size.1);
            expect_told(bench, size);
            shot_of_size(bench, 0, size);
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
    with_display(options(Renderer::Auto, (400, 250)), |bench| {
        let server = Server::connect();
        expect_told(bench, (400, 250));
        show(bench, (400, 250));
        let window = server.window("Hesper — 400×250");
        // As a desktop does when a person chooses twice the size for everything.
        server.set_dpi(window, 192);
        expect_told(bench, (800, 500));
        shot_of_size(bench, 0, (800, 500)).check(0, |x, y| gradient(x / 2, y / 2));
        server.set_dpi(window, 96);
        expect_told(bench, (400, 250));
        shot_of_size(bench, 0, (400, 250)).check(0, gradient);
    });
}

/// Threads and open descriptors of this process.
fn held() -> (usize, usize) {
    let count = |folder| std::fs::read_dir(folder).unwrap().count();
    (count("/proc/self/task"), count("/proc/self/fd"))
}

/// Waits until no more threads and descriptors are held than `before`; some of them may be on their way out.
fn expect_no_more_than(before: (usize, usize), when: &str) {
    let deadline = Instant::now() + EVENT;
    loop {
        let now = held();
        if now.0 <= before.0 && now.1 <= before.1 {
            return;
        }
        assert!(
            Instant::now() < deadline,
            "{when}: {now:?} threads and descriptors, {before:?} before"
        );
        thread::sleep(Duration::from_millis(1));
    }
}

pub(super) fn fifty_sizes(renderer: Renderer) {
    with_display(options(renderer, (640, 400)), |bench| {
        let server = Server::connect();
        let canvas = show(bench, (320, 200));
        let window = server.window("Hesper — 320×200");
        let mut random = 12345u32;
        let mut side = |least: u32, most: u32| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            least + (random >> 8) % (most - least)
        };
        let mut before = (0, 0);
        for step in 0..50 {
            let (width, height) = (side(320, 1200), side(200, 900));
            // Before the resize: waiting for a flush passes over what else is told.
            bench.flush(0, canvas.whole());
            server.resize(window, width, height);
            // Now and then the hand rests.
            if step % 10 == 0 {
                expect_told(bench, (width, height));
                shot_of_size(bench, 0, (width, height));
            }
            if step == 0 {
                before = held();
            }
        }
        server.resize(window, 320, 200);
        expect_told(bench, (320, 200));
        shot_of_size(bench, 0, (320, 200)).check(0, gradient);
        expect_no_more_than(before, "after fifty sizes");
    });
}

pub(super) fn close() {
    // Returning at all is the proof that the display has ended: nothing here calls quit first.
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
    assert_eq!(
        events.try_iter().last(),
        Some(DisplayEvent::CloseRequested { scanout: 0 })
    );
    // The device need not know yet.
    let canvas = Canvas::new((64, 64), PixelFormat::B8G8R8X8, true);
    handle.set_scanout(0, Some(canvas.picture())).unwrap();
    let token = hesper_display::FlushToken(5);
    handle.flush(0, canvas.whole(), Some(token)).unwrap();
    assert_eq!(
        events.try_iter().last(),
        Some(DisplayEvent::FlushDone(token))
    );
    let late = handle.screenshot(0, std::path::Path::new("unused.png"));
    assert!(
        matches!(late, Err(hesper_display::DisplayError::Closed)),
        "{late:?}"
    );
}

pub(super) fn unplugged() {
    let size = (320, 200);
    let options = DisplayOptions {
        scanouts: 2,
        ..options(Renderer::Auto, size)
    };
    with_display(options, |bench| {
        let server = Server::connect();
        show(bench, size);
        let second = Canvas::new(size, PixelFormat::B8G8R8X8, true);
        second.draw(second.whole(), |x, y| gradient(y, x));
        bench.handle.set_scanout(1, Some(second.picture())).unwrap();
        bench.flush(1, second.whole());
        bench.settle();
        let mut before = None;
        for round in 0..5 {
            let window = server.window("Hesper (2) — 320×200");
            if round % 2 == 0 {
                server.close(window);
            } else {
                bench.handle.unplug(1).unwrap();
            }
            bench.expect(|event| *event == DisplayEvent::Unplugged { scanout: 1 });
            server.await_gone(window);
            expect_no_more_than(*before.get_or_insert_with(held), &format!("round {round}"));
            let refused = bench
                .handle
                .screenshot(1, std::path::Path::new("/dev/null"));
            assert!(
                matches!(refused, Err(DisplayError::Unplugged(1))),
                "{refused:?}"
            );
            // The guest may not know yet, and draws; nobody sees it.
            second.draw(second.whole(), |x, y| gradient(y, x + round));
            bench.flush(1, second.whole());
            shot_of_size(bench, 0, size).check(0, gradient);
            bench.handle.plug(1).unwrap();
            bench.expect(|event| matches!(event, DisplayEvent::Settled { scanout: 1, .. }));
            shot_of_size(bench, 1, size).check(0, |x, y| gradient(y, x + round));
        }
        // In any order, at any speed.
        for _ in 0..10 {
            bench.handle.unplug(1).unwrap();
            bench.handle.plug(1).unwrap();
        }
        bench.settle();
        shot_of_size(bench, 1, size).check(0, |x, y| gradient(y, x + 4));
        assert!(matches!(
            bench.handle.unplug(0),
            Err(DisplayError::FirstMonitor)
        ));
        shot_of_size(bench, 0, size).check(0, gradient);
    });
}

pub(super) fn plugged_back() {
    let size = (320, 200);
    let options = DisplayOptions {
        scanouts: 2,
        ..options(Renderer::Auto, size)
    };
    with_display(options, |bench| {
        let second = Canvas::new(size, PixelFormat::B8G8R8X8, true);
        second.draw(second.whole(), gradient);
        bench.handle.set_scanout(1, Some(second.picture())).unwrap();
        bench.flush(1, second.whole());
        shot_of_size(bench, 1, size).check(0, gradient);
        bench.settle();
        for _ in 0..3 {
            bench.handle.unplug(1).unwrap();
            bench.expect(|event| *event == DisplayEvent::Unplugged { scanout: 1 });
            bench.flush(1, second.whole());
            bench.handle.plug(1).unwrap();
            bench.expect(|event| matches!(event, DisplayEvent::Settled { scanout: 1, .. }));
            shot_of_size(bench, 1, size).check(0, gradient);
        }
    });
}

pub(super) fn covered() {
    let size = (320, 200);
    with_display(options(Renderer::Auto, size), |bench| {
        let server = Server::connect();
        let canvas = Canvas::new(size, PixelFormat::B8G8R8X8, true);
        canvas.draw(canvas.whole(), gradient);
        bench.handle.set_scanout(0, Some(canvas.picture())).unwrap();
        bench.flush(0, canvas.whole());
        let window = server.window("Hesper — 320×200");
        let cover = server.cover();
        thread::sleep(Duration::from_millis(300));
        // Drawing would take milliseconds each, on this renderer.
        let before = cpu_time();
        canvas.draw(canvas.whole(), |x, y| gradient(y, x));
        for _ in 0..2000 {
            bench.flush(0, canvas.whole());
        }
        let used = cpu_time() - before;
        assert!(
            used < Duration::from_millis(500),
            "{used:?} for what nobody sees"
        );
        server.uncover(cover);
        let deadline = Instant::now() + EVENT;
        while server.screen_at(window).at(7, 100) != gradient(100, 7) {
            assert!(
                Instant::now() < deadline,
                "the uncovered window shows the old picture"
            );
            thread::sleep(Duration::from_millis(20));
        }
    });
}
