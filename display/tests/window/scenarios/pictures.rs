//! What a window shows, pixel for pixel.

use std::collections::HashSet;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use hesper_display::{
    Cursor, DisplayOptions, Picture, PictureLayout, PixelFormat, PixelMemory, Rect, Renderer,
    Scaling,
};

use super::{gradient, options, shot_of_size};
use crate::harness::{Canvas, Color, EVENT, with_display};
use crate::pages::Pages;
use crate::x11::Server;

pub(super) fn every_format(renderer: Renderer) {
    let size = (160, 90);
    with_display(options(renderer, size), |display| {
        // Premultiplied: half transparent orange, with one opaque and one transparent corner.
        let mut pixels = [0, 64, 128, 128].repeat(64 * 64);
        pixels[..4].copy_from_slice(&[10, 20, 30, 255]);
        pixels[4..8].fill(0);
        let cursor = Cursor::new((64, 64), (3, 5), PixelFormat::B8G8R8A8, &pixels).unwrap();
        display.handle.set_cursor(0, Some(cursor)).unwrap();
        display.handle.move_cursor(0, 103, 65).unwrap();
        for format in PixelFormat::ALL {
            for importable in [true, false] {
                let canvas = Canvas::new(size, format, importable);
                canvas.draw(canvas.whole(), gradient);
                display.show(0, &canvas);
                let shot = shot_of_size(display, 0, size);
                let covered = |x, y| x >= 100 && y >= 60;
                // Drivers may round where colours are mixed, and only there.
                shot.check(1, |x, y| match (x, y) {
                    (100, 60) => [30, 20, 10],
                    (101, 60) => gradient(x, y),
                    _ if covered(x, y) => {
                        let [red, green, blue] = gradient(x, y).map(|c| u32::from(c) * 127 / 255);
                        [(red + 128) as u8, (green + 64) as u8, blue as u8]
                    }
                    _ => gradient(x, y),
                });
                shot.check(0, |x, y| {
                    if covered(x, y) {
                        shot.at(x, y)
                    } else {
                        gradient(x, y)
                    }
                });
            }
        }
    });
}

/// Memory that counts how often the CPU reads it.
struct Counted {
    pages: Arc<Pages>,
    reads: AtomicU64,
}

// SAFETY: the pages are those of another implementor.
unsafe impl PixelMemory for Counted {
    fn size(&self) -> usize {
        self.pages.size()
    }

    fn host_pages(&self) -> Option<NonNull<[u8]>> {
        self.pages.host_pages()
    }

    fn read(&self, offset: usize, into: &mut [u8]) {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.pages.read(offset, into);
    }
}

pub(super) fn imports() {
    let (width, height) = (160, 100);
    with_display(options(Renderer::Vulkan, (width, height)), |display| {
        let format = PixelFormat::B8G8R8X8;
        // The picture starts inside a page and ends with the last one.
        let pages = Pages::new((width * height * 4) as usize, true);
        let offset = pages.size() as u64 - u64::from(width * height * 4);
        let layout = PictureLayout {
            offset,
            stride: width * 4,
            width,
            height,
            format,
        };
        for at in 0..u64::from(width * height) {
            let [red, green, blue] = gradient(at as u32 % width, at as u32 / width);
            pages.set((offset + at * 4) as usize, [blue, green, red, 0]);
        }
        let memory = Arc::new(Counted {
            pages,
            reads: AtomicU64::new(0),
        });
        display
            .handle
            .set_scanout(0, Some(Picture::new(memory.clone(), layout).unwrap()))
            .unwrap();
        display.flush(0, Rect::whole(width, height));
        shot_of_size(display, 0, (width, height)).check(0, gradient);
        let reads = memory.reads.load(Ordering::Relaxed);
        assert_eq!(
            reads, 0,
            "the driver lacks VK_EXT_external_memory_host (lavapipe has it)"
        );
        let held = Arc::downgrade(&memory);
        drop(memory);
        display.handle.set_scanout(0, None).unwrap();
        let deadline = Instant::now() + EVENT;
        while held.strong_count() > 0 {
            assert!(
                Instant::now() < deadline,
                "the memory of a picture gone is still held"
            );
            thread::sleep(Duration::from_millis(5));
        }
    });
}

pub(super) fn damage_only(renderer: Renderer) {
    let size = (200, 120);
    with_display(options(renderer, size), |display| {
        for importable in [true, false] {
            let canvas = Canvas::new(size, PixelFormat::B8G8R8X8, importable);
            canvas.draw(canvas.whole(), gradient);
            display.show(0, &canvas);
            shot_of_size(display, 0, size).check(0, gradient);
            canvas.draw(canvas.whole(), |_, _| [255, 0, 255]);
            let (first, second) = (
                Rect {
                    x: 10,
                    y: 20,
                    width: 30,
                    height: 5,
                },
                Rect {
                    x: 190,
                    y: 110,
                    width: 500,
                    height: 500,
                },
            );
            display.handle.flush(0, first, None).unwrap();
            display.flush(0, second);
            display.screenshot(0).check(0, |x, y| {
                let in_first = (10..40).contains(&x) && (20..25).contains(&y);
                let in_second = x >= 190 && y >= 110;
                if in_first || in_second {
                    [255, 0, 255]
                } else {
                    gradient(x, y)
                }
            });
        }
    });
}

pub(super) fn bars(renderer: Renderer) {
    let size = (400, 200);
    with_display(options(renderer, size), |display| {
        // Twice as large: nearest pixels, and bars of 100 pixels on the left and on the right.
        let canvas = Canvas::new((100, 100), PixelFormat::R8G8B8A8, true);
        canvas.draw(canvas.whole(), gradient);
        display.show(0, &canvas);
        shot_of_size(display, 0, size).check(0, |x, y| match x {
            100..300 => gradient((x - 100) / 2, y / 2),
            _ => [0; 3],
        });
        // Smaller: only bars and plain areas are the same for every way of smoothing.
        let canvas = Canvas::new((1000, 1000), PixelFormat::B8G8R8X8, true);
        let halves = |x: u32| if x < 500 { [255, 0, 0] } else { [0, 0, 255] };
        canvas.draw(canvas.whole(), |x, _| halves(x));
        display.show(0, &canvas);
        let shot = display.screenshot(0);
        shot.check(0, |x, y| match x {
            0..100 | 300.. => [0; 3],
            199..=200 => shot.at(x, y),
            _ => halves((x - 100) * 5),
        });
        display.handle.set_scanout(0, None).unwrap();
        let deadline = Instant::now() + EVENT;
        while display
            .screenshot(0)
            .pixels
            .iter()
            .any(|pixel| *pixel != [0; 3])
        {
            assert!(Instant::now() < deadline, "a disabled scanout is black");
        }
    });
}

pub(super) fn shrink() {
    let size = (400, 200);
    let options = DisplayOptions {
        scaling: Scaling::Shrink,
        ..options(Renderer::Auto, size)
    };
    with_display(options, |display| {
        let canvas = Canvas::new((100, 100), PixelFormat::B8G8R8X8, true);
        canvas.draw(canvas.whole(), gradient);
        display.show(0, &canvas);
        shot_of_size(display, 0, size).check(0, |x, y| match (x, y) {
            (150..250, 50..150) => gradient(x - 150, y - 50),
            _ => [0; 3],
        });
    });
}

pub(super) fn whole_numbers(renderer: Renderer) {
    let size = (430, 340);
    let options = DisplayOptions {
        scaling: Scaling::Integer,
        ..options(renderer, size)
    };
    with_display(options, |display| {
        let canvas = Canvas::new((100, 100), PixelFormat::B8G8R8X8, true);
        canvas.draw(canvas.whole(), gradient);
        display.show(0, &canvas);
        shot_of_size(display, 0, size).check(0, |x, y| match (x, y) {
            (65..365, 20..320) => gradient((x - 65) / 3, (y - 20) / 3),
            _ => [0; 3],
        });
    });
}

pub(super) fn flips() {
    let size = (160, 100);
    with_display(options(Renderer::Vulkan, size), |display| {
        // These are more buffers than stay imported.
        let canvases: Vec<Canvas> = (0..6)
            .map(|_| Canvas::new(size, PixelFormat::B8G8R8X8, true))
            .collect();
        for step in 0..60u32 {
            let canvas = &canvases[step as usize % canvases.len()];
            let color = move |x, y| gradient(x + step, y);
            canvas.draw(canvas.whole(), color);
            display.show(0, &canvas);
            if step % 7 == 0 {
                shot_of_size(display, 0, size).check(0, color);
            }
        }
    });
}

pub(super) fn two_windows() {
    let size = (160, 100);
    let options = DisplayOptions {
        scanouts: 2,
        ..options(Renderer::Auto, size)
    };
    with_display(options, |display| {
        let colors: [fn(u32, u32) -> Color; 2] = [gradient, |x, y| gradient(y, x)];
        for (scanout, color) in colors.into_iter().enumerate() {
            let canvas = Canvas::new(size, PixelFormat::B8G8R8X8, true);
            canvas.draw(canvas.whole(), color);
            display.show(scanout, &canvas);
        }
        for (scanout, color) in colors.into_iter().enumerate() {
            shot_of_size(display, scanout, size).check(0, color);
        }
    });
}

pub(super) fn screen(renderer: Renderer) {
    let size = (300, 200);
    with_display(options(renderer, size), |display| {
        let server = Server::connect();
        let canvas = Canvas::new((100, 100), PixelFormat::B8G8R8X8, true);
        canvas.draw(canvas.whole(), gradient);
        let cursor = Cursor::new((64, 64), (0, 0), PixelFormat::B8G8R8A8, &[99; 16384]).unwrap();
        display.handle.set_cursor(0, Some(cursor)).unwrap();
        display.handle.move_cursor(0, 70, 70).unwrap();
        display
            .handle
            .set_scanout(0, Some(canvas.picture()))
            .unwrap();
        display.handle.set_status("a test").unwrap();
        display.flush(0, canvas.whole());
        let window = server.window("Hesper — 100×100 — a test");
        assert_eq!(server.class(window), "hesper\0hesper\0");
        let shot = shot_of_size(display, 0, size);
        assert!(
            shot.pixels.iter().collect::<HashSet<_>>().len() > 1000,
            "a picture to compare"
        );
        // The server may show a presented frame a moment later.
        let deadline = Instant::now() + EVENT;
        while server.screen_at(window) != shot {
            assert!(Instant::now() < deadline, "the screen shows something else");
            thread::sleep(Duration::from_millis(20));
        }
    });
}
