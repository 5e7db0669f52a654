//! What frames cost: no allocation, and no CPU time while nothing changes.

use std::thread;
use std::time::Duration;

use hesper_display::{Cursor, DisplayOptions, PixelFormat, Rect, Renderer};

use super::options;
use crate::harness::{Canvas, allocations, cpu_time, with_display};

pub(super) fn frames_allocate_nothing() {
    let size = (320, 200);
    with_display(options(Renderer::Vulkan, size), |display| {
        let cursor = Cursor::new((64, 64), (0, 0), PixelFormat::B8G8R8A8, &[9; 16384]).unwrap();
        display.handle.set_cursor(0, Some(cursor)).unwrap();
        for importable in [true, false] {
            let buffers = [(); 2].map(|()| Canvas::new(size, PixelFormat::A8R8G8B8, importable));
            let pictures = buffers.each_ref().map(Canvas::picture);
            let frame = |step: i32| {
                let next = pictures[step as usize % 2].clone();
                display.handle.set_scanout(0, Some(next)).unwrap();
                display.handle.move_cursor(0, step, step).unwrap();
                display.flush(
                    0,
                    Rect {
                        x: step as u32,
                        y: 5,
                        width: 30,
                        height: 40,
                    },
                );
            };
            // The first frames allocate buffers, and a channel allocates at its first wait.
            (0..10).for_each(frame);
            display.settle();
            // An event of the window system may allocate, and a loaded machine delivers one late.
            // What frames allocate comes in every round.
            let mut counts = Vec::new();
            let is_free = (0..5).any(|_| {
                let before = allocations();
                (0..200).for_each(frame);
                let count = allocations() - before;
                counts.push(count);
                count == 0
            });
            assert!(is_free, "allocations in rounds of 200 frames: {counts:?}");
        }
    });
}

pub(super) fn idle() {
    let options = DisplayOptions {
        overlay: true,
        ..options(Renderer::Auto, (640, 400))
    };
    with_display(options, |display| {
        let canvas = Canvas::new((640, 400), PixelFormat::B8G8R8X8, true);
        display.show(0, &canvas);
        // The first frames may keep a busy machine occupied for a moment.
        let mut used = Duration::MAX;
        for _ in 0..5 {
            thread::sleep(Duration::from_millis(500));
            let before = cpu_time();
            thread::sleep(Duration::from_secs(3));
            used = cpu_time() - before;
            if used <= Duration::from_millis(20) {
                return;
            }
        }
        panic!("{used:?} of CPU in 3 s of nothing");
    });
}
