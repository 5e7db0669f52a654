//! The display without a display server.

// Clippy recognises #[test] functions as tests, but not the functions that they call.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../examples/pages/mod.rs"]
mod pages;

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::mpsc;

use hesper_display::{
    Cursor, Display, DisplayError, DisplayEvent, DisplayHandle, DisplayOptions, FlushToken,
    Picture, PictureLayout, PixelFormat, Rect,
};

use self::pages::Pages;

fn headless() -> (Display, DisplayHandle, mpsc::Receiver<DisplayEvent>) {
    let (sender, events) = mpsc::channel();
    let options = DisplayOptions {
        headless: true,
        scanouts: 2,
        ..DisplayOptions::default()
    };
    let report = Box::new(move |event| sender.send(event).unwrap());
    let (display, handle) = Display::new(options, report).unwrap();
    (display, handle, events)
}

/// A picture of `width` × `height` whose pixel (x, y) is red x, green y, blue 7.
fn gradient(width: u32, height: u32) -> Picture {
    let (offset, stride) = (128, width * 4 + 16);
    let pages = Pages::new((offset + stride * height) as usize, true);
    for y in 0..height {
        for x in 0..width {
            pages.set(
                (offset + y * stride + x * 4) as usize,
                [0, x as u8, y as u8, 7],
            );
        }
    }
    let format = PixelFormat::X8R8G8B8;
    let layout = PictureLayout {
        offset: offset.into(),
        stride,
        width,
        height,
        format,
    };
    Picture::new(pages, layout).unwrap()
}

fn decode(path: &Path) -> (u32, u32, Vec<u8>) {
    let decoder = png::Decoder::new(BufReader::new(File::open(path).unwrap()));
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!(info.color_type, png::ColorType::Rgb);
    (info.width, info.height, pixels)
}

#[test]
fn a_screenshot_is_the_guests_picture_with_its_cursor() {
    let (_display, handle, _events) = headless();
    handle.set_scanout(1, Some(gradient(200, 100))).unwrap();
    let white = [255; 4 * 4];
    let cursor = Cursor::new((2, 2), (0, 0), PixelFormat::B8G8R8A8, &white).unwrap();
    handle.set_cursor(1, Some(cursor)).unwrap();
    handle.move_cursor(1, 199, 50).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shot.png");
    handle.screenshot(1, &path).unwrap();
    let (width, height, pixels) = decode(&path);
    assert_eq!((width, height), (200, 100));
    for (at, pixel) in (0u32..).zip(pixels.as_chunks::<3>().0) {
        let (x, y) = (at % 200, at / 200);
        let covered = x == 199 && (y == 50 || y == 51);
        let expected = if covered {
            [255; 3]
        } else {
            [x as u8, y as u8, 7]
        };
        assert_eq!(*pixel, expected, "at {x}, {y}");
    }
}

#[test]
fn a_flush_is_answered_before_it_returns() {
    let (_display, handle, events) = headless();
    handle.set_scanout(0, Some(gradient(10, 10))).unwrap();
    handle
        .flush(0, Rect::whole(10, 10), Some(FlushToken(7)))
        .unwrap();
    assert_eq!(
        events.try_recv(),
        Ok(DisplayEvent::FlushDone(FlushToken(7)))
    );
    handle.flush(0, Rect::whole(10, 10), None).unwrap();
    assert!(events.try_recv().is_err());
}

#[test]
fn what_does_not_exist_is_an_error_that_says_so() {
    let (_display, handle, events) = headless();
    let missing = handle
        .flush(2, Rect::whole(1, 1), Some(FlushToken(1)))
        .unwrap_err();
    assert_eq!(
        missing.to_string(),
        "scanout 2 does not exist: there are 2 (see --scanouts)"
    );
    assert!(events.try_recv().is_err(), "an error is the answer");
    let dark = handle.screenshot(0, Path::new("unused.png"));
    assert!(matches!(dark, Err(DisplayError::NothingShown(0))));
    handle.set_scanout(0, Some(gradient(1, 1))).unwrap();
    let nowhere = handle
        .screenshot(0, Path::new("/nonexistent/shot.png"))
        .unwrap_err();
    assert!(
        nowhere.to_string().contains("/nonexistent/shot.png"),
        "{nowhere}"
    );
}

#[test]
fn options_that_cannot_work_are_refused() {
    let refused = |options: DisplayOptions| {
        let options = DisplayOptions {
            headless: true,
            ..options
        };
        Display::new(options, Box::new(|_| ()))
            .map(|_| ())
            .unwrap_err()
            .to_string()
    };
    let none = DisplayOptions {
        scanouts: 0,
        ..DisplayOptions::default()
    };
    assert_eq!(
        refused(none),
        "the number of scanouts is 0, but must be 1 to 16"
    );
    let flat = DisplayOptions {
        size: (800, 0),
        ..DisplayOptions::default()
    };
    assert_eq!(
        refused(flat),
        "the height is 0, but must be 1 to 16384 pixels"
    );
}

#[test]
fn a_resize_reaches_the_guest_without_a_window_and_quit_ends_it() {
    let (display, handle, events) = headless();
    std::thread::spawn(move || {
        handle.request_resize(0, 1920, 1080).unwrap();
        handle.quit();
    });
    display.run().unwrap();
    let millimetres = (508, 286);
    let resized = DisplayEvent::MonitorChanged {
        scanout: 0,
        width: 1920,
        height: 1080,
        millimetres,
        position: None,
    };
    assert_eq!(events.try_recv(), Ok(resized));
}
