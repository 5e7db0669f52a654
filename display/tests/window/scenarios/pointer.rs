//! The pointer. The window system shows the guest's cursor while the pointer is over the window.
//! Its position is one on the guest's desktop, whichever window it is in.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use hesper_display::{
    Cursor, DisplayOptions, INPUT_AXIS_MAX, InputEvent, InputKind, InputSink, PixelFormat, Rect,
    Renderer, Resize,
};

use super::{gradient, options, shot_of_size};
use crate::harness::{Canvas, until, with_input};
use crate::x11::Server;

const SIZE: (u32, u32) = (320, 200);
const SIDE: u32 = 64;

/// A tablet that notes its last position.
#[derive(Default)]
struct Tablet(Mutex<Vec<(i32, i32)>>);

impl InputSink for Tablet {
    fn has(&self, device: InputKind) -> bool {
        device == InputKind::Tablet
    }

    fn report(&self, _: InputKind, events: &[InputEvent]) {
        if let [x, y] = events
            && x.kind == 3
        {
            self.0.lock().unwrap().push((x.value, y.value));
        }
    }
}

impl Tablet {
    /// The last position, as a pixel of a desktop of this size.
    fn pixel(&self, (width, height): (u32, u32)) -> Option<(u32, u32)> {
        let (x, y) = *self.0.lock().unwrap().last()?;
        let pixel = |at: i32, size: u32| {
            let (at, steps) = (u64::try_from(at).unwrap(), INPUT_AXIS_MAX as u64 + 1);
            (at * u64::from(size) / steps) as u32
        };
        Some((pixel(x, width), pixel(y, height)))
    }
}

/// A pixel of the test's cursor, premultiplied: alpha, red, green, blue.
fn pixel(seed: u32, x: u32, y: u32) -> [u8; 4] {
    let alpha = (x * 4) as u8;
    let below = |value: u32| (value % (u32::from(alpha) + 1)) as u8;
    [alpha, below(x * 3 + seed), below(y * 5), below(x + y)]
}

fn cursor(seed: u32) -> Cursor {
    let places = (0..SIDE).flat_map(|y| (0..SIDE).map(move |x| (x, y)));
    let pixels: Vec<u8> = places.flat_map(|(x, y)| pixel(seed, x, y)).collect();
    Cursor::new((SIDE, SIDE), (5, 9), PixelFormat::A8R8G8B8, &pixels).unwrap()
}

/// Waits until the pointer is the test's cursor with its pixels repeated `times` times.
fn await_pointer(server: &Server, seed: u32, times: u32) {
    let side = SIDE * times;
    let places = (0..side).flat_map(|y| (0..side).map(move |x| (x / times, y / times)));
    let expected: Vec<u32> = places
        .map(|(x, y)| u32::from_be_bytes(pixel(seed, x, y)))
        .collect();
    until("the pointer looks like the guest's cursor", || {
        let now = server.pointer();
        now.size == (side, side) && now.hot == (5 * times, 9 * times) && now.pixels == expected
    });
}

pub(super) fn guests_cursor(renderer: Renderer) {
    let options = DisplayOptions {
        resize: Resize::Scale,
        ..options(renderer, SIZE)
    };
    with_input(options, Arc::new(Tablet::default()), |display| {
        let server = Server::connect();
        server.point_at_screen((1200, 1000));
        let canvas = Canvas::new(SIZE, PixelFormat::B8G8R8X8, true);
        canvas.draw(canvas.whole(), gradient);
        display.show(0, &canvas);
        let window = server.window("Hesper — 320×200");
        display.handle.set_cursor(0, Some(cursor(1))).unwrap();
        display.handle.move_cursor(0, 105, 109).unwrap();
        // An opaque pixel of the cursor is at 100 + 63, 100 + 1. Its corner is transparent.
        let drawn = || server.screen_at(window).at(163, 101) != gradient(163, 101);
        until(
            "the guest's cursor is drawn while the pointer is elsewhere",
            drawn,
        );

        server.point(window, (50, 60));
        await_pointer(&server, 1, 1);
        until("the frame is without it", || !drawn());
        // A screenshot of the window shows the cursor where the guest has it.
        let shot = display.screenshot(0);
        assert_ne!(shot.at(163, 101), gradient(163, 101));
        assert_eq!(shot.at(99, 99), gradient(99, 99));

        // It moves without frames, and can change.
        let frames = || display.handle.frame_statistics(0).unwrap().presented;
        display.settle();
        let before = frames();
        for step in 0..50 {
            display.handle.move_cursor(0, step, step).unwrap();
        }
        for seed in 0..2000 {
            display
                .handle
                .set_cursor(0, Some(cursor(seed % 7)))
                .unwrap();
        }
        display.handle.set_cursor(0, Some(cursor(3))).unwrap();
        await_pointer(&server, 3, 1);
        assert_eq!(frames(), before, "a frame for a cursor that is not in it");

        // Each pixel of the picture is two of the window.
        server.resize(window, 640, 400);
        shot_of_size(display, 0, (640, 400));
        server.point(window, (55, 66));
        await_pointer(&server, 3, 2);

        display.handle.set_cursor(0, None).unwrap();
        until("a hidden cursor is no pointer", || {
            server.pointer().pixels.iter().all(|pixel| pixel >> 24 == 0)
        });
        display.handle.set_cursor(0, Some(cursor(4))).unwrap();
        await_pointer(&server, 4, 2);
        display.handle.move_cursor(0, 105, 109).unwrap();
        server.point_at_screen((1200, 1000));
        until("it is drawn again", || {
            server.screen_at(window).at(2 * 163, 2 * 101) != gradient(163, 101)
        });
    });
}

pub(super) fn desktop() {
    let tablet = Arc::new(Tablet::default());
    let options = DisplayOptions {
        scanouts: 2,
        resize: Resize::Scale,
        ..options(Renderer::Auto, SIZE)
    };
    with_input(options, tablet.clone(), |display| {
        let server = Server::connect();
        server.point_at_screen((1200, 1000));
        // One framebuffer. The second monitor is below the first and begins further right.
        let canvas = Canvas::new((400, 500), PixelFormat::B8G8R8X8, true);
        let parts = [(0, 0, 320, 200), (100, 200, 300, 300)].map(|(x, y, width, height)| Rect {
            x,
            y,
            width,
            height,
        });
        for (scanout, part) in parts.into_iter().enumerate() {
            let picture = canvas.part(part);
            display.handle.set_scanout(scanout, Some(picture)).unwrap();
        }
        let first = server.window("Hesper — 320×200");
        let second = server.window("Hesper (2) — 300×300");
        server.place(second, 500, 50);
        server.resize(second, 600, 600);
        shot_of_size(display, 1, (600, 600));
        let told = |what: &str, desktop, expected| {
            until(what, || tablet.pixel(desktop) == Some(expected));
        };
        let whole = (400, 500);
        server.point(first, (10, 20));
        told("in the first window", whole, (10, 20));
        server.point(first, (319, 199));
        told("its last pixel", whole, (319, 199));
        server.point(second, (7, 9));
        told(
            "in the second, twice as large as its picture",
            whole,
            (103, 204),
        );
        server.point(second, (599, 599));
        told("the last of all", whole, (399, 499));

        // Two framebuffers are side by side, wherever their windows are.
        let apart = [(320, 200), (300, 300)];
        for (scanout, size) in apart.into_iter().enumerate() {
            let canvas = Canvas::new(size, PixelFormat::B8G8R8X8, true);
            display
                .handle
                .set_scanout(scanout, Some(canvas.picture()))
                .unwrap();
        }
        let whole = (620, 300);
        server.point(first, (10, 20));
        told("in the first window again", whole, (10, 20));
        // A user who holds a button drags something from one to the other.
        server.press_button(true);
        server.point(second, (20, 40));
        told("in the second, with a button held", whole, (330, 20));
        server.point_at_screen((400, 1000));
        told("between them: the nearest of the first", whole, (319, 199));
        server.press_button(false);
        display.handle.unplug(1).unwrap();
        server.await_gone(second);
        server.point(first, (160, 100));
        told("alone", SIZE, (160, 100));
        std::thread::sleep(Duration::from_millis(100));
    });
}
