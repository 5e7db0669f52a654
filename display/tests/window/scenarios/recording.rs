//! Recordings: every frame is complete, and the last one is there.

use std::thread;
use std::time::{Duration, Instant};

use hesper_display::{DisplayOptions, PixelFormat, Renderer};

use super::{options, shot_of_size};
use crate::harness::{Canvas, Color, read_png, with_display};

const SIZE: (u32, u32) = (480, 300);

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
    with_display(options, |display| {
        // Wait until a presenter draws.
        shot_of_size(display, 0, SIZE);
        // One buffer is the hardest case: the guest draws again as soon as it may.
        let canvas = Canvas::new(SIZE, PixelFormat::B8G8R8X8, true);
        canvas.draw(canvas.whole(), moving(1));
        display
            .handle
            .set_scanout(0, Some(canvas.picture()))
            .unwrap();
        let mut next = Instant::now();
        for step in 1..=STEPS {
            canvas.draw(canvas.whole(), moving(step));
            next += Duration::from_millis(16);
            thread::sleep(next.saturating_duration_since(Instant::now()));
            display.flush(0, canvas.whole());
        }
        let counted = display.handle.frame_statistics(0).unwrap();
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
        let shot = read_png(file).expect("a whole PNG");
        let step = u32::from(shot.at(0, 0)[2]);
        if step == 0 {
            continue; // before the first picture
        }
        assert!(step >= last, "{step} after {last}");
        last = step;
        shot.check(0, moving(step));
    }
    assert_eq!(last, STEPS, "the last frame of {}", files.len());
    // A busy machine may lose some frames, but then the writer loses them and not the window.
    let recorded = files.len() as u64;
    // The window goes on after the frames were counted: the server may ask for the picture once
    // more.
    assert!(
        recorded <= presented + 3 && recorded >= presented / 2,
        "{recorded} of {presented} frames"
    );
}
