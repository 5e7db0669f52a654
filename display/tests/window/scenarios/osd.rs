//! What Hesper itself shows in a window, and what it counts and records.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use hesper_display::{DisplayOptions, PixelFormat, Renderer};

use super::failures::cpu_time;
use super::{gradient, options, shot_of_size};
use crate::harness::{Bench, Canvas, Color, Shot, with_display};
use crate::x11::{Server, press};

const SIZE: (u32, u32) = (480, 300);
const INK: Color = [255; 3];

/// How many pixels of a part of the window have the colour of text.
fn ink(shot: &Shot, across: std::ops::Range<u32>, down: std::ops::Range<u32>) -> usize {
    down.flat_map(|y| across.clone().map(move |x| (x, y)))
        .filter(|(x, y)| shot.at(*x, *y) == INK)
        .count()
}

/// A picture without white.
fn dark(x: u32, y: u32) -> Color {
    gradient(x, y).map(|channel| channel / 2)
}

fn show(bench: &Bench) -> Canvas {
    let canvas = Canvas::new(SIZE, PixelFormat::B8G8R8X8, true);
    canvas.draw(canvas.whole(), dark);
    bench.handle.set_scanout(0, Some(canvas.picture())).unwrap();
    bench.flush(0, canvas.whole());
    canvas
}

pub(super) fn until(what: &str, right: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !right() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

pub(super) fn messages(renderer: Renderer) {
    with_display(options(renderer, SIZE), |bench| {
        bench.handle.set_message(0, "Waiting for a test").unwrap();
        let shot = shot_of_size(bench, 0, SIZE);
        assert!(ink(&shot, 150..330, 140..160) > 200, "in the middle");
        assert_eq!(ink(&shot, 0..480, 0..120), 0);
        assert_eq!(shot.at(3, 3), [0; 3]);
        // A picture takes its place; a notice lies over that.
        let canvas = show(bench);
        bench.screenshot(0).check(0, dark);
        bench.handle.notice("Something happened");
        let shot = bench.screenshot(0);
        assert!(ink(&shot, 150..330, 140..160) > 200);
        assert_eq!(shot.at(3, 3), dark(3, 3));
        until("the notice goes away by itself", || {
            let shot = bench.screenshot(0);
            (0..SIZE.1).all(|y| (0..SIZE.0).all(|x| shot.at(x, y) == dark(x, y)))
        });
        drop(canvas);
        bench.handle.set_scanout(0, None).unwrap();
        bench.handle.set_message(0, "").unwrap();
        bench.screenshot(0).check(0, |_, _| [0; 3]);
    });
}

pub(super) fn overlay(renderer: Renderer) {
    with_display(options(renderer, SIZE), |bench| {
        let server = Server::connect();
        let canvas = show(bench);
        let window = server.window(&format!("Hesper — {}×{}", SIZE.0, SIZE.1));
        server.focus(window);
        press("ctrl+alt+o");
        let corner = || ink(&bench.screenshot(0), 10..470, 10..90);
        until("the overlay", || corner() > 500);
        // Figures come with frames.
        let before = corner();
        for _ in 0..60 {
            bench.flush(0, canvas.whole());
            thread::sleep(Duration::from_millis(16));
        }
        assert_ne!(corner(), before, "the figures are those of the beginning");
        let shot = bench.screenshot(0);
        assert_eq!(ink(&shot, 0..480, 100..300), 0);
        press("ctrl+alt+o");
        until("no overlay", || corner() == 0);
        bench.screenshot(0).check(0, dark);
    });
}

pub(super) fn key_screenshot() {
    let folder = tempfile::tempdir().unwrap();
    let options = DisplayOptions {
        screenshots: folder.path().to_owned(),
        ..options(Renderer::Auto, SIZE)
    };
    with_display(options, |bench| {
        let server = Server::connect();
        show(bench);
        let window = server.window(&format!("Hesper — {}×{}", SIZE.0, SIZE.1));
        assert!(server.has_icon(window));
        server.focus(window);
        press("ctrl+alt+s");
        let saved = || {
            let mut files = std::fs::read_dir(folder.path()).unwrap();
            files.next().map(|file| file.unwrap().path())
        };
        until("a screenshot", || {
            saved().is_some_and(|file| read(&file).is_some())
        });
        let file = saved().unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("hesper-1-"), "{name}");
        read(&file).unwrap().check(0, dark);
        until("a notice says where", || {
            ink(&bench.screenshot(0), 0..480, 130..170) > 200
        });
    });
}

/// A PNG, if it is whole.
fn read(path: &Path) -> Option<Shot> {
    let mut reader = png::Decoder::new(BufReader::new(File::open(path).ok()?))
        .read_info()
        .ok()?;
    let mut pixels = vec![0; reader.output_buffer_size()?];
    let info = reader.next_frame(&mut pixels).ok()?;
    Some(Shot {
        width: info.width,
        height: info.height,
        pixels: pixels.as_chunks::<3>().0.to_vec(),
    })
}

/// The picture of a step: the gradient moves to the left.
fn moving(step: u32) -> impl Fn(u32, u32) -> Color {
    move |x, y| [(x + step) as u8, (y + 3 * step) as u8, step as u8]
}

pub(super) fn no_torn_frame(renderer: Renderer, vsync: bool) {
    const STEPS: u32 = 90;
    let folder = tempfile::tempdir().unwrap();
    let frames = folder.path().join("frames");
    let options = DisplayOptions {
        record: Some(frames.clone()),
        vsync,
        ..options(renderer, SIZE)
    };
    let mut presented = 0;
    with_display(options, |bench| {
        // Once there is somebody to draw.
        shot_of_size(bench, 0, SIZE);
        // One buffer, the hardest case: the guest draws again as soon as it is told that it may.
        let canvas = Canvas::new(SIZE, PixelFormat::B8G8R8X8, true);
        canvas.draw(canvas.whole(), moving(1));
        bench.handle.set_scanout(0, Some(canvas.picture())).unwrap();
        let mut next = Instant::now();
        for step in 1..=STEPS {
            canvas.draw(canvas.whole(), moving(step));
            next += Duration::from_millis(16);
            thread::sleep(next.saturating_duration_since(Instant::now()));
            bench.flush(0, canvas.whole());
        }
        let counted = bench.handle.frames(0).unwrap();
        assert_eq!(counted.flushes, u64::from(STEPS));
        assert_eq!(counted.unseen, 0);
        assert!(counted.presented >= u64::from(STEPS), "{counted:?}");
        let with_latency: u64 = counted.latency.iter().sum();
        assert!(
            (1..=counted.presented).contains(&with_latency),
            "{counted:?}"
        );
        presented = counted.presented;
    });
    let mut files: Vec<_> = std::fs::read_dir(&frames)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    let mut last = 0;
    for file in &files {
        let shot = read(file).expect("a whole PNG");
        let step = u32::from(shot.at(0, 0)[2]);
        if step == 0 {
            continue; // before the first picture
        }
        assert!(step >= last, "{step} after {last}");
        last = step;
        shot.check(0, moving(step));
    }
    assert_eq!(last, STEPS, "the last frame of {}", files.len());
    // A busy machine may lose some, but then the writer is to blame and not the window.
    let recorded = files.len() as u64;
    // The window goes on until its end, after the frames were counted: the server may ask for the picture once more.
    assert!(
        recorded <= presented + 3 && recorded >= presented / 2,
        "{recorded} of {presented} frames"
    );
}

pub(super) fn minimised() {
    with_display(options(Renderer::Auto, SIZE), |bench| {
        let server = Server::connect();
        let canvas = show(bench);
        let window = server.window(&format!("Hesper — {}×{}", SIZE.0, SIZE.1));
        server.unmap(window);
        // The first frame after it finds out.
        bench.flush(0, canvas.whole());
        bench.settle();
        let (before, frames) = (cpu_time(), bench.handle.frames(0).unwrap());
        canvas.draw(canvas.whole(), |x, y| dark(y, x));
        for _ in 0..2000 {
            bench.flush(0, canvas.whole());
        }
        let used = cpu_time() - before;
        assert!(
            used < Duration::from_millis(500),
            "{used:?} for what nobody sees"
        );
        let now = bench.handle.frames(0).unwrap();
        assert_eq!(now.presented, frames.presented);
        assert_eq!(now.unseen, frames.unseen + 2000);
        // Still, it can be looked at.
        bench.screenshot(0).check(0, |x, y| dark(y, x));
        assert_eq!(bench.handle.frames(0).unwrap().presented, frames.presented);
        server.map(window);
        until("the window shows the picture of now", || {
            server.screen_at(window).at(7, 100) == dark(100, 7)
        });
    });
}
