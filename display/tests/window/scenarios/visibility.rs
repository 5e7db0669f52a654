//! Windows that nobody can see: they cost little, and catch up when they are seen again.

use std::time::{Duration, Instant};

use hesper_display::{PixelFormat, Renderer};

use super::{dark, gradient, options, show};
use crate::harness::{Canvas, EVENT, cpu_time, until, with_display};
use crate::x11::Server;

const SIZE: (u32, u32) = (480, 300);

pub(super) fn minimised() {
    with_display(options(Renderer::Auto, SIZE), |display| {
        let server = Server::connect();
        let canvas = show(display, 0, SIZE, dark);
        let window = server.window(&format!("Hesper — {}×{}", SIZE.0, SIZE.1));
        server.unmap(window);
        // The first frame after that finds out.
        display.flush(0, canvas.whole());
        display.settle();
        let (before, frames) = (cpu_time(), display.handle.frame_statistics(0).unwrap());
        canvas.draw(canvas.whole(), |x, y| dark(y, x));
        for _ in 0..2000 {
            display.flush(0, canvas.whole());
        }
        let used = cpu_time() - before;
        assert!(
            used < Duration::from_millis(500),
            "{used:?} for what nobody sees"
        );
        let now = display.handle.frame_statistics(0).unwrap();
        assert_eq!(now.presented, frames.presented);
        assert_eq!(now.unseen, frames.unseen + 2000);
        // Screenshots still work.
        display.screenshot(0).check(0, |x, y| dark(y, x));
        assert_eq!(
            display.handle.frame_statistics(0).unwrap().presented,
            frames.presented
        );
        server.map(window);
        until("the window shows the picture of now", || {
            server.screen_at(window).at(7, 100) == dark(100, 7)
        });
    });
}

pub(super) fn covered() {
    let size = (320, 200);
    with_display(options(Renderer::Auto, size), |display| {
        let server = Server::connect();
        let canvas = Canvas::new(size, PixelFormat::B8G8R8X8, true);
        canvas.draw(canvas.whole(), gradient);
        display.show(0, &canvas);
        let window = server.window("Hesper — 320×200");
        let cover = server.cover();
        std::thread::sleep(Duration::from_millis(300));
        // With this renderer each frame would take milliseconds.
        let before = cpu_time();
        canvas.draw(canvas.whole(), |x, y| gradient(y, x));
        for _ in 0..2000 {
            display.flush(0, canvas.whole());
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
            std::thread::sleep(Duration::from_millis(20));
        }
    });
}
