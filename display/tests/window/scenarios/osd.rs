//! The texts that Hesper shows in a window, and the screenshot key.

use std::thread;
use std::time::Duration;

use hesper_display::{DisplayOptions, Renderer};

use super::{dark, options, shot_of_size, show};
use crate::harness::{Color, Shot, read_png, until, with_display};
use crate::x11::{Server, press};

const SIZE: (u32, u32) = (480, 300);
const INK: Color = [255; 3];

/// How many pixels in a part of the window have the colour of text.
fn ink(shot: &Shot, across: std::ops::Range<u32>, down: std::ops::Range<u32>) -> usize {
    down.flat_map(|y| across.clone().map(move |x| (x, y)))
        .filter(|(x, y)| shot.at(*x, *y) == INK)
        .count()
}

pub(super) fn messages(renderer: Renderer) {
    with_display(options(renderer, SIZE), |display| {
        display.handle.set_message(0, "Waiting for a test").unwrap();
        let shot = shot_of_size(display, 0, SIZE);
        assert!(ink(&shot, 150..330, 140..160) > 200, "in the middle");
        assert_eq!(ink(&shot, 0..480, 0..120), 0);
        assert_eq!(shot.at(3, 3), [0; 3]);
        // A picture replaces the message. A notice is shown over the picture.
        let canvas = show(display, 0, SIZE, dark);
        display.screenshot(0).check(0, dark);
        display.handle.notice("Something happened");
        let shot = display.screenshot(0);
        assert!(ink(&shot, 150..330, 140..160) > 200);
        assert_eq!(shot.at(3, 3), dark(3, 3));
        until("the notice goes away by itself", || {
            let shot = display.screenshot(0);
            (0..SIZE.1).all(|y| (0..SIZE.0).all(|x| shot.at(x, y) == dark(x, y)))
        });
        drop(canvas);
        display.handle.set_scanout(0, None).unwrap();
        display.handle.set_message(0, "").unwrap();
        display.screenshot(0).check(0, |_, _| [0; 3]);
    });
}

pub(super) fn overlay(renderer: Renderer) {
    with_display(options(renderer, SIZE), |display| {
        let server = Server::connect();
        let canvas = show(display, 0, SIZE, dark);
        let window = server.window(&format!("Hesper — {}×{}", SIZE.0, SIZE.1));
        server.focus(window);
        press("ctrl+alt+o");
        let corner = || ink(&display.screenshot(0), 10..470, 10..90);
        until("the overlay", || corner() > 500);
        // New figures appear only with frames.
        let before = corner();
        for _ in 0..60 {
            display.flush(0, canvas.whole());
            thread::sleep(Duration::from_millis(16));
        }
        assert_ne!(corner(), before, "the figures are those of the beginning");
        let shot = display.screenshot(0);
        assert_eq!(ink(&shot, 0..480, 100..300), 0);
        press("ctrl+alt+o");
        until("no overlay", || corner() == 0);
        display.screenshot(0).check(0, dark);
    });
}

pub(super) fn key_screenshot() {
    let folder = tempfile::tempdir().unwrap();
    let options = DisplayOptions {
        screenshots: folder.path().to_owned(),
        ..options(Renderer::Auto, SIZE)
    };
    with_display(options, |display| {
        let server = Server::connect();
        show(display, 0, SIZE, dark);
        let window = server.window(&format!("Hesper — {}×{}", SIZE.0, SIZE.1));
        assert!(server.has_icon(window));
        server.focus(window);
        press("ctrl+alt+s");
        let saved = || {
            let mut files = std::fs::read_dir(folder.path()).unwrap();
            files.next().map(|file| file.unwrap().path())
        };
        until("a screenshot", || {
            saved().is_some_and(|file| read_png(&file).is_some())
        });
        let file = saved().unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("hesper-1-"), "{name}");
        read_png(&file).unwrap().check(0, dark);
        until("a notice says where", || {
            ink(&display.screenshot(0), 0..480, 130..170) > 200
        });
    });
}
