use std::sync::Arc;

use super::*;
use crate::screen::{PixelFormat, PixelMemory};

/// Pixels that count up.
struct Counting(Vec<u8>);

// SAFETY: the vector is never changed, so its buffer stays readable where it is.
unsafe impl PixelMemory for Counting {
    fn host_pages(&self) -> (*const u8, usize) {
        (self.0.as_ptr(), self.0.len())
    }

    fn read(&self, offset: usize, into: &mut [u8]) {
        let rest = self.0.get(offset..).unwrap_or_default();
        for (to, from) in into
            .iter_mut()
            .zip(rest.iter().chain(std::iter::repeat(&0)))
        {
            *to = *from;
        }
    }
}

fn picture(width: u32, height: u32) -> Picture {
    let stride = width * 4 + 8;
    let bytes = (0..stride * height).map(|byte| byte as u8).collect();
    Picture {
        memory: Arc::new(Counting(bytes)),
        offset: 0,
        stride,
        width,
        height,
        format: PixelFormat::B8G8R8X8,
    }
}

fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
    Rect {
        x,
        y,
        width,
        height,
    }
}

/// All jobs there are, in words.
fn jobs(scanouts: &mut Scanouts) -> Vec<String> {
    let (mut staging, mut tokens) = (Vec::new(), Vec::new());
    let mut words = Vec::new();
    while let Some(job) = scanouts.next_job(&mut staging, &mut tokens) {
        words.push(match job {
            Job::Size(size) => format!("size {} {}x{}", size.scanout, size.width, size.height),
            Job::Cursor(update) => format!(
                "cursor {},{} hot {},{} first {}",
                update.position.x, update.position.y, update.hot_x, update.hot_y, staging[0]
            ),
            Job::Move { position, visible } => {
                format!("move {},{} {visible}", position.x, position.y)
            }
            Job::Pixels {
                scanout, damage, ..
            } => {
                let flushed: Vec<u64> = tokens.drain(..).map(|token| token.0).collect();
                format!("pixels {scanout} {damage:?} flushes {flushed:?}")
            }
        });
    }
    if !tokens.is_empty() {
        words.push(format!("only tokens {tokens:?}"));
    }
    words
}

#[test]
fn flushes_melt_into_one_and_keep_their_tokens() {
    let mut scanouts = Scanouts::default();
    scanouts.set_picture(0, Some(&picture(100, 50)));
    assert!(scanouts.add_damage(0, rect(10, 10, 5, 5), Some(FlushToken(1))));
    assert!(scanouts.add_damage(0, rect(90, 40, 50, 50), Some(FlushToken(2))));
    assert_eq!(
        jobs(&mut scanouts),
        [
            "size 0 100x50".to_owned(),
            format!("pixels 0 {:?} flushes [1, 2]", rect(10, 10, 90, 40)),
        ]
    );
    assert_eq!(jobs(&mut scanouts), [] as [&str; 0]);
}

#[test]
fn damage_outside_or_without_a_picture_needs_no_waiting() {
    let mut scanouts = Scanouts::default();
    assert!(!scanouts.add_damage(0, rect(0, 0, 1, 1), Some(FlushToken(1))));
    assert!(!scanouts.add_damage(99, rect(0, 0, 1, 1), None));
    scanouts.set_picture(0, Some(&picture(8, 8)));
    for outside in [
        rect(8, 0, 1, 1),
        rect(0, 0, 0, 5),
        rect(u32::MAX, 0, u32::MAX, 1),
    ] {
        assert!(!scanouts.add_damage(0, outside, None));
    }
}

#[test]
fn a_replaced_picture_gives_its_flushes_back_and_the_size_is_told_once() {
    let mut scanouts = Scanouts::default();
    scanouts.set_picture(2, Some(&picture(8, 8)));
    assert!(scanouts.add_damage(2, rect(0, 0, 8, 8), Some(FlushToken(7))));
    scanouts.set_picture(2, Some(&picture(8, 8)));
    assert_eq!(
        jobs(&mut scanouts),
        ["size 2 8x8", "only tokens [FlushToken(7)]"]
    );
    scanouts.set_picture(2, None);
    assert_eq!(jobs(&mut scanouts), ["size 2 0x0"]);
    scanouts.set_picture(2, None);
    assert_eq!(jobs(&mut scanouts), [] as [&str; 0]);
}

#[test]
fn the_cursor_is_sent_as_an_image_once_and_then_moved() {
    let mut scanouts = Scanouts::default();
    let image = CursorImage {
        pixels: Box::new([9; 64 * 64 * 4]),
        format: PixelFormat::R8G8B8A8,
        hot_x: 3,
        hot_y: 4,
    };
    scanouts.set_cursor(0, Some(&image), 10, 20);
    scanouts.move_cursor(0, 11, 21);
    assert_eq!(jobs(&mut scanouts), ["cursor 11,21 hot 3,4 first 9"]);
    scanouts.move_cursor(0, 12, 22);
    scanouts.move_cursor(0, 13, 23);
    assert_eq!(jobs(&mut scanouts), ["move 13,23 true"]);
    scanouts.set_cursor(0, None, 13, 23);
    assert_eq!(jobs(&mut scanouts), ["move 13,23 false"]);
}

#[test]
fn a_new_connection_is_told_everything() {
    let mut scanouts = Scanouts::default();
    scanouts.set_picture(1, Some(&picture(8, 6)));
    jobs(&mut scanouts);
    scanouts.forget_told();
    assert_eq!(
        jobs(&mut scanouts),
        [
            "size 1 8x6".to_owned(),
            format!("pixels 1 {:?} flushes []", rect(0, 0, 8, 6)),
        ]
    );
}

#[test]
fn a_busy_scanout_does_not_starve_another() {
    let mut scanouts = Scanouts::default();
    for scanout in [0, 1] {
        scanouts.set_picture(scanout, Some(&picture(8, 8)));
    }
    jobs(&mut scanouts);
    let mut seen = Vec::new();
    for _ in 0..4 {
        scanouts.add_damage(0, rect(0, 0, 8, 8), None);
        scanouts.add_damage(1, rect(0, 0, 8, 8), None);
        if let Some(Job::Pixels { scanout, .. }) =
            scanouts.next_job(&mut Vec::new(), &mut Vec::new())
        {
            seen.push(scanout);
        }
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 0, 1, 1]);
}

#[test]
fn copied_pixels_are_the_rows_of_the_rectangle_without_padding() {
    let mut staging = Vec::new();
    let mut shown = picture(4, 4);
    copy_pixels(&shown, rect(1, 2, 2, 2), &mut staging);
    // Stride 24: rows 2 and 3 start at 48 and 72, pixel 1 is 4 further.
    assert_eq!(
        staging,
        [
            52, 53, 54, 55, 56, 57, 58, 59, 76, 77, 78, 79, 80, 81, 82, 83
        ]
    );
    shown.offset = u64::MAX;
    copy_pixels(&shown, rect(0, 0, 4, 4), &mut staging);
    assert_eq!(staging, [0; 64], "past the end there are zeros");
}
