//! What happens when a user resizes, covers or closes a window.

use std::thread;
use std::time::{Duration, Instant};

use hesper_display::{DisplayEvent, PixelFormat, Renderer};

use super::conditions::cpu_time;
use super::{gradient, options, shot_of_size};
use crate::bench::{Canvas, with_display};
use crate::x11::Server;

pub(super) fn resize() {
    with_display(options(Renderer::Auto, (640, 400)), |bench| {
        let server = Server::connect();
        let canvas = Canvas::new((640, 400), PixelFormat::B8G8R8X8, true);
        bench.handle.set_scanout(0, Some(canvas.picture())).unwrap();
        bench.flush(0, canvas.whole());
        let window = server.window("Hesper — 640×400");
        // By hand, a few pixels at a time.
        for step in 1..=20 {
            server.resize(window, 640 + step * 5, 400 + step);
            thread::sleep(Duration::from_millis(5));
        }
        let told: Vec<_> = bench.events_for(Duration::from_millis(600));
        assert_eq!(
            told,
            [DisplayEvent::Resized {
                scanout: 0,
                width: 740,
                height: 420,
                millimetres: (196, 111)
            }]
        );
        // By a script.
        bench.handle.request_resize(0, 333, 222).unwrap();
        let event = bench.expect(|event| matches!(event, DisplayEvent::Resized { .. }));
        assert!(
            matches!(
                event,
                DisplayEvent::Resized {
                    width: 333,
                    height: 222,
                    ..
                }
            ),
            "{event:?}"
        );
        shot_of_size(bench, 0, (333, 222));
    });
}

pub(super) fn fifty_sizes() {
    with_display(options(Renderer::Vulkan, (640, 400)), |bench| {
        let server = Server::connect();
        let canvas = Canvas::new((320, 200), PixelFormat::B8G8R8X8, true);
        canvas.draw(canvas.whole(), gradient);
        bench.handle.set_scanout(0, Some(canvas.picture())).unwrap();
        bench.flush(0, canvas.whole());
        let window = server.window("Hesper — 320×200");
        let mut random = 12345u32;
        let mut side = |least: u32, most: u32| {
            random = random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            least + (random >> 8) % (most - least)
        };
        for _ in 0..50 {
            server.resize(window, side(320, 1200), side(200, 900));
            bench.flush(0, canvas.whole());
        }
        server.resize(window, 320, 200);
        let last = bench.expect(|event| {
            matches!(
                event,
                DisplayEvent::Resized {
                    width: 320,
                    height: 200,
                    ..
                }
            )
        });
        assert!(matches!(last, DisplayEvent::Resized { scanout: 0, .. }));
        shot_of_size(bench, 0, (320, 200)).check(0, gradient);
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
        let deadline = Instant::now() + Duration::from_secs(10);
        while server.screen_at(window).at(7, 100) != gradient(100, 7) {
            assert!(
                Instant::now() < deadline,
                "the uncovered window shows the old picture"
            );
            thread::sleep(Duration::from_millis(20));
        }
    });
}
