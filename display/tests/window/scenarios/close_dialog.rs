//! The dialog that a window shows when it is closed: its position, and that it is legible.

use std::ops::Range;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use hesper_display::{DisplayEvent, DisplayOptions, FlushToken, Renderer};

use super::{gradient, options, show};
use crate::harness::{Color, EVENT, Shot, TestDisplay, until, with_display};
use crate::x11::{Server, press};

const SIZE: (u32, u32) = (640, 400);
const SHOW_HINT: &str = "hesper ctl /run/user/1000/hesper.sock show";

pub(super) fn asking(renderer: Renderer, size: (u32, u32)) -> DisplayOptions {
    DisplayOptions {
        show_hint: SHOW_HINT.to_owned(),
        ..options(renderer, size)
    }
}

pub(super) fn shown_text(display: &TestDisplay) -> String {
    display.handle.shown_text(0).unwrap().unwrap_or_default()
}

pub(super) fn await_question(display: &TestDisplay) {
    until("the question", || {
        shown_text(display).contains("Esc  Cancel")
    });
}

pub(super) fn await_no_question(display: &TestDisplay) {
    until("no question", || shown_text(display).is_empty());
}

/// The area of the dialog and the positions of its choices, in a window of `size` pixels with
/// letters enlarged by `scale`.
pub(super) struct Layout {
    pub(super) across: Range<u32>,
    pub(super) down: Range<u32>,
    pub(super) rows: Vec<(char, (i16, i16))>,
}

impl Layout {
    pub(super) fn of(text: &str, size: (u32, u32), scale: u32) -> Layout {
        let lines: Vec<&str> = text.lines().collect();
        let longest = lines.iter().map(|line| line.chars().count()).max().unwrap() as u32;
        let (width, height) = (
            (longest * 9 + 18) * scale,
            (lines.len() as u32 * 18 + 18) * scale,
        );
        // A dialog that was laid out for a larger window does not fit.
        let middle = |window: u32, label: u32| window.saturating_sub(label) / 2;
        let (left, top) = (middle(size.0, width), middle(size.1, height));
        let row = |(index, line): (usize, &&str)| {
            let key = line.chars().next().unwrap_or(' ');
            let y = top + (9 + index as u32 * 18 + 9) * scale;
            (key, ((left + width / 2) as i16, y as i16))
        };
        Layout {
            across: left..left + width,
            down: top..top + height,
            rows: lines.iter().enumerate().map(row).collect(),
        }
    }

    /// The position of the choice with this key.
    pub(super) fn choice(&self, key: char) -> (i16, i16) {
        let mut rows = self.rows.iter();
        rows.find(|(first, _)| *first == key).unwrap().1
    }
}

/// The lightest picture that has no pixel in the colour of letters.
fn light(_: u32, _: u32) -> Color {
    [253; 3]
}

/// Says what is wrong with a dialog over a picture. Its background must be dark whatever is behind
/// it, and its letters white.
fn flaw(shot: &Shot, layout: &Layout, behind: impl Fn(u32, u32) -> Color) -> Option<String> {
    let (mut ink, mut paper) = (0, 0);
    for y in 0..shot.height {
        for x in 0..shot.width {
            let seen = shot.at(x, y);
            if !(layout.across.contains(&x) && layout.down.contains(&y)) {
                if seen != behind(x, y) {
                    return Some(format!("{seen:?} beside it, at {x}, {y}"));
                }
            } else if seen == [255; 3] {
                ink += 1;
            } else if seen.iter().all(|channel| *channel < 56) {
                paper += 1;
            } else {
                return Some(format!("{seen:?} at {x}, {y}"));
            }
        }
    }
    // In the highlighted line the letters are dark and the background is white.
    let fair = ink > paper / 10 && paper > ink / 10;
    let framed = shot.at(layout.across.start, layout.down.start) == [255; 3];
    (!fair || !framed).then(|| format!("{ink} of ink, {paper} of paper, frame: {framed}"))
}

/// Waits until the dialog is legible in a window of `size` pixels with letters enlarged by `scale`.
/// The window may have changed just now.
#[track_caller]
fn await_legible(
    display: &TestDisplay,
    size: (u32, u32),
    scale: u32,
    behind: fn(u32, u32) -> Color,
) {
    let deadline = Instant::now() + EVENT;
    loop {
        let layout = Layout::of(&shown_text(display), size, scale);
        let shot = display.screenshot(0);
        let flaw = match (shot.width, shot.height) == size {
            true => flaw(&shot, &layout, behind),
            false => Some(format!("{}x{}", shot.width, shot.height)),
        };
        let Some(flaw) = flaw else { return };
        assert!(Instant::now() < deadline, "{flaw}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Keeps a picture of the dialog for a person to look at, if a folder is named for it.
fn keep(display: &TestDisplay, name: &str) {
    if let Some(folder) = std::env::var_os("HESPER_WINDOW_PICTURES") {
        let file = PathBuf::from(folder).join(format!("{name}.png"));
        display.handle.screenshot(0, &file).unwrap();
    }
}

pub(super) fn legible(renderer: Renderer) {
    let small = (320, 200);
    with_display(asking(renderer, small), |display| {
        let server = Server::connect();
        let canvas = show(display, 0, small, light);
        display.handle.set_guest_connected(true);
        let window = server.window("Hesper — 320×200");
        server.close(window);
        await_question(display);
        let lines = shown_text(display).lines().count();
        await_legible(display, small, 1, light);
        keep(display, &format!("{renderer:?}-small"));
        // Meanwhile the guest shows something else.
        canvas.draw(canvas.whole(), gradient);
        display.flush(0, canvas.whole());
        await_legible(display, small, 1, gradient);
        // Another mode in a larger window.
        let canvas = show(display, 0, SIZE, light);
        server.resize(window, SIZE.0, SIZE.1);
        // The text of the small window may still be there, and legible, too.
        until("it takes the room", || {
            shown_text(display).lines().count() < lines
        });
        await_legible(display, SIZE, 1, light);
        keep(display, &format!("{renderer:?}-usual"));
        drop(canvas);
        // No picture at all.
        display.handle.set_scanout(0, None).unwrap();
        await_legible(display, SIZE, 1, |_, _| [0; 3]);
        // Twice the pixels for everything.
        let double = (SIZE.0 * 2, SIZE.1 * 2);
        let canvas = show(display, 0, double, light);
        server.set_dpi(window, 192);
        await_legible(display, double, 2, light);
        keep(display, &format!("{renderer:?}-double"));
        // Small again, with the same scale: no room for large letters.
        let again = show(display, 0, small, light);
        server.resize(window, small.0, small.1);
        await_legible(display, small, 1, light);
        drop((canvas, again));
        server.focus(window);
        press("Escape");
        await_no_question(display);
        display.screenshot(0).check(0, light);
        server.set_dpi(window, 96);
        // Tokens are still answered.
        let token = FlushToken(77_777);
        let some = hesper_display::Rect::whole(9, 9);
        display.handle.flush(0, some, Some(token)).unwrap();
        display.expect(|event| *event == DisplayEvent::FlushDone(token));
    });
}
