//! Monitors that are unplugged, by the user or by the program, and plugged in again.

use hesper_display::{DisplayError, DisplayEvent, DisplayOptions, PixelFormat, Renderer};

use super::{gradient, options, shot_of_size, show};
use crate::harness::{Canvas, expect_no_more_than, held, with_display};
use crate::x11::Server;

pub(super) fn unplugged() {
    let size = (320, 200);
    let options = DisplayOptions {
        scanouts: 2,
        ..options(Renderer::Auto, size)
    };
    with_display(options, |display| {
        let server = Server::connect();
        show(display, 0, size, gradient);
        let second = Canvas::new(size, PixelFormat::B8G8R8X8, true);
        second.draw(second.whole(), |x, y| gradient(y, x));
        display.show(1, &second);
        display.settle();
        let mut before = None;
        for round in 0..5 {
            let window = server.window("Hesper (2) — 320×200");
            if round % 2 == 0 {
                server.close(window);
            } else {
                display.handle.unplug(1).unwrap();
            }
            display.expect(|event| *event == DisplayEvent::Unplugged { scanout: 1 });
            server.await_gone(window);
            expect_no_more_than(*before.get_or_insert_with(held), &format!("round {round}"));
            let refused = display
                .handle
                .screenshot(1, std::path::Path::new("/dev/null"));
            assert!(
                matches!(refused, Err(DisplayError::Unplugged(1))),
                "{refused:?}"
            );
            // The guest may not know yet, and draws. Nobody sees it.
            second.draw(second.whole(), |x, y| gradient(y, x + round));
            display.flush(1, second.whole());
            shot_of_size(display, 0, size).check(0, gradient);
            display.handle.plug(1).unwrap();
            display
                .expect(|event| matches!(event, DisplayEvent::MonitorChanged { scanout: 1, .. }));
            shot_of_size(display, 1, size).check(0, |x, y| gradient(y, x + round));
        }
        // In any order, at any speed.
        for _ in 0..10 {
            display.handle.unplug(1).unwrap();
            display.handle.plug(1).unwrap();
        }
        display.settle();
        shot_of_size(display, 1, size).check(0, |x, y| gradient(y, x + 4));
        assert!(matches!(
            display.handle.unplug(0),
            Err(DisplayError::FirstMonitor)
        ));
        shot_of_size(display, 0, size).check(0, gradient);
    });
}

pub(super) fn plugged_back() {
    let size = (320, 200);
    let options = DisplayOptions {
        scanouts: 2,
        ..options(Renderer::Auto, size)
    };
    with_display(options, |display| {
        let second = Canvas::new(size, PixelFormat::B8G8R8X8, true);
        second.draw(second.whole(), gradient);
        display.show(1, &second);
        shot_of_size(display, 1, size).check(0, gradient);
        display.settle();
        for _ in 0..3 {
            display.handle.unplug(1).unwrap();
            display.expect(|event| *event == DisplayEvent::Unplugged { scanout: 1 });
            display.flush(1, second.whole());
            display.handle.plug(1).unwrap();
            display
                .expect(|event| matches!(event, DisplayEvent::MonitorChanged { scanout: 1, .. }));
            shot_of_size(display, 1, size).check(0, gradient);
        }
    });
}
