//! Composition on the CPU, for windows without Vulkan and for headless screenshots.
//!
//! A [`Canvas`] keeps the picture as it was last shown. [`Canvas::update`] copies what has changed
//! from the guest's memory. [`Canvas::compose`] draws picture, bars and cursor into a frame. Pixels
//! are `0x00RRGGBB`, the layout of softbuffer. Scaling takes the nearest pixel. Only a change of
//! the picture's size allocates.

use crate::cursor::{self, Cursor};
use crate::damage::Damage;
use crate::layout::{self, Placement, Scaling};
use crate::picture::{BYTES, Picture, Rect};

/// The picture as it was last shown, in one pixel format.
#[derive(Default)]
pub(crate) struct Canvas {
    width: u32,
    height: u32,
    pixels: Vec<u32>,
    /// One row as it lies in the guest's memory.
    row: Vec<u8>,
}

impl Canvas {
    /// Copies what has changed in `picture`: the damaged parts, or all of it when its size is new.
    pub(crate) fn update(&mut self, picture: &Picture, damage: &Damage) {
        let (width, height) = (picture.width(), picture.height());
        if (self.width, self.height) == (width, height) {
            for rect in damage.rects() {
                self.copy(picture, rect.clipped(width, height));
            }
        } else {
            (self.width, self.height) = (width, height);
            self.pixels.clear();
            self.pixels.resize(width as usize * height as usize, 0);
            self.row.resize((width * BYTES) as usize, 0);
            self.copy(picture, picture.whole());
        }
    }

    /// Forgets the picture.
    pub(crate) fn clear(&mut self) {
        *self = Canvas::default();
    }

    fn copy(&mut self, picture: &Picture, rect: Rect) {
        if rect.is_empty() {
            return;
        }
        let channels = picture.layout().format.channels();
        let Some(row) = self.row.get_mut(..(rect.width * BYTES) as usize) else {
            return;
        };
        let rows = self.pixels.chunks_exact_mut(self.width as usize);
        let rows = rows
            .enumerate()
            .skip(rect.y as usize)
            .take(rect.height as usize);
        for (y, pixels) in rows {
            picture.read_row(rect.x, y as u32, row);
            let (bytes, _) = row.as_chunks::<4>();
            for (pixel, bytes) in pixels.iter_mut().skip(rect.x as usize).zip(bytes) {
                let [red, green, blue, _] = channels.unpack(*bytes);
                *pixel = u32::from_be_bytes([0, red, green, blue]);
            }
        }
    }

    /// Draws the picture, black bars around it and the cursor over it into a frame of `size`
    /// pixels.
    pub(crate) fn compose(
        &self,
        frame: &mut [u32],
        size: (u32, u32),
        scaling: Scaling,
        cursor: Option<(&Cursor, (i32, i32))>,
    ) {
        let placement = Placement::new((self.width, self.height), size, scaling);
        let Some(placement) = placement else {
            frame.fill(0);
            return;
        };
        let same_scale = (placement.width, placement.height) == placement.picture;
        for (y, row) in (0u32..).zip(frame.chunks_exact_mut(size.0 as usize)) {
            let inside = y.checked_sub(placement.y).filter(|y| *y < placement.height);
            let Some(y) = inside else {
                row.fill(0);
                continue;
            };
            let source = self.row_at(placement.row_of(y));
            let (left, rest) = row.split_at_mut(placement.x as usize);
            let (shown, right) = rest.split_at_mut(placement.width as usize);
            left.fill(0);
            right.fill(0);
            if same_scale {
                shown.copy_from_slice(source);
            } else {
                for (x, pixel) in (0u32..).zip(shown.iter_mut()) {
                    *pixel = source
                        .get(placement.column_of(x) as usize)
                        .copied()
                        .unwrap_or(0);
                }
            }
            if let Some((cursor, at)) = cursor {
                draw_cursor_row(shown, y, &placement, cursor, at);
            }
        }
    }

    fn row_at(&self, y: u32) -> &[u32] {
        let start = y as usize * self.width as usize;
        self.pixels
            .get(start..start + self.width as usize)
            .unwrap_or_default()
    }
}

/// Draws a label over a frame of `size` pixels.
pub(crate) fn stamp(frame: &mut [u32], size: (u32, u32), label: &Cursor, (left, top): (i32, i32)) {
    let rows = frame.chunks_exact_mut((size.0 as usize).max(1));
    for (y, row) in (0i64..).zip(rows) {
        let down = y - i64::from(top);
        if !(0..i64::from(label.height)).contains(&down) {
            continue;
        }
        for (x, pixel) in (0i64..).zip(row.iter_mut()) {
            let over = label.pixel(x - i64::from(left), down);
            let [_, red, green, blue] = pixel.to_be_bytes();
            let [red, green, blue] = cursor::blend(over, [red, green, blue]);
            *pixel = u32::from_be_bytes([0, red, green, blue]);
        }
    }
}

/// Draws the part of the cursor that lies in one row of the placement.
fn draw_cursor_row(
    shown: &mut [u32],
    y: u32,
    placement: &Placement,
    cursor: &Cursor,
    at: (i32, i32),
) {
    let (left, top) = layout::cursor_corner(cursor, at);
    let down = i64::from(placement.row_of(y)) - top;
    if !(0..i64::from(cursor.height)).contains(&down) {
        return;
    }
    // Only the columns around the cursor: a cursor of 64 pixels must not cost a walk over the row.
    let area = placement.cursor_area(cursor, at);
    let first = (area.left - placement.x as f32 - 1.0).max(0.0) as usize;
    let count = (area.right - area.left).max(0.0) as usize + 3;
    for (x, pixel) in shown.iter_mut().enumerate().skip(first).take(count) {
        let across = i64::from(placement.column_of(x as u32)) - left;
        let over = cursor.pixel(across, down);
        let [_, red, green, blue] = pixel.to_be_bytes();
        let [red, green, blue] = cursor::blend(over, [red, green, blue]);
        *pixel = u32::from_be_bytes([0, red, green, blue]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::{PictureLayout, PixelFormat};
    use crate::testing::{Pixels, allocations};

    const RED: u32 = 0x00ff_0000;
    const BLUE: u32 = 0x0000_00ff;

    fn picture_of(format: PixelFormat, width: u32, colors: &[[u8; 3]]) -> Picture {
        let channels = format.channels();
        let mut bytes = Vec::new();
        for [red, green, blue] in colors {
            let mut pixel = [0xee; 4];
            pixel[channels.red as usize] = *red;
            pixel[channels.green as usize] = *green;
            pixel[channels.blue as usize] = *blue;
            bytes.extend_from_slice(&pixel);
        }
        let height = colors.len() as u32 / width;
        let layout = PictureLayout {
            offset: 0,
            stride: width * 4,
            width,
            height,
            format,
        };
        Picture::new(Pixels::of(bytes), layout).unwrap()
    }

    fn shown(canvas: &Canvas, size: (u32, u32), cursor: Option<(&Cursor, (i32, i32))>) -> Vec<u32> {
        let mut frame = vec![0xdead_beef; (size.0 * size.1) as usize];
        canvas.compose(&mut frame, size, Scaling::Fit, cursor);
        frame
    }

    #[test]
    fn every_format_shows_the_same_colours() {
        for format in PixelFormat::ALL {
            let picture = picture_of(format, 2, &[[255, 0, 0], [1, 2, 3]]);
            let mut canvas = Canvas::default();
            canvas.update(&picture, &Damage::default());
            assert_eq!(
                shown(&canvas, (2, 1), None),
                [RED, 0x0001_0203],
                "{format:?}"
            );
        }
    }

    #[test]
    fn bars_are_black_and_scaling_repeats_pixels() {
        let picture = picture_of(PixelFormat::B8G8R8X8, 2, &[[255, 0, 0], [0, 0, 255]]);
        let mut canvas = Canvas::default();
        canvas.update(&picture, &Damage::default());
        let frame = shown(&canvas, (4, 4), None);
        let bar = [0; 4];
        let row = [RED, RED, BLUE, BLUE];
        assert_eq!(frame, [bar, row, row, bar].concat());
        canvas.clear();
        assert_eq!(shown(&canvas, (2, 2), None), [0; 4]);
    }

    #[test]
    fn only_damaged_pixels_are_read() {
        let memory = Pixels::zeroed(4 * 4 * 4);
        let layout = PictureLayout {
            offset: 0,
            stride: 16,
            width: 4,
            height: 4,
            format: PixelFormat::B8G8R8X8,
        };
        let picture = Picture::new(memory.clone(), layout).unwrap();
        let mut canvas = Canvas::default();
        canvas.update(&picture, &Damage::default());
        memory.fill(0xff);
        let mut damage = Damage::default();
        damage.add(Rect {
            x: 1,
            y: 2,
            width: 2,
            height: 1,
        });
        canvas.update(&picture, &damage);
        let mut expected = [0; 16];
        expected[9..11].fill(0x00ff_ffff);
        assert_eq!(shown(&canvas, (4, 4), None), expected);
    }

    #[test]
    fn the_cursor_lies_over_the_picture_and_is_cut_at_its_edge() {
        let picture = picture_of(PixelFormat::R8G8B8A8, 3, &[[0, 0, 255]; 6]);
        let mut canvas = Canvas::default();
        canvas.update(&picture, &Damage::default());
        let red = [255, 0, 0, 255].repeat(4);
        let cursor = Cursor::new((2, 2), (1, 1), PixelFormat::R8G8B8A8, &red).unwrap();
        let at = |x, y| shown(&canvas, (3, 2), Some((&cursor, (x, y))));
        assert_eq!(at(0, 0), [RED, BLUE, BLUE, BLUE, BLUE, BLUE]);
        assert_eq!(at(2, 1), [BLUE, RED, RED, BLUE, RED, RED]);
        assert_eq!(at(3, 2), [BLUE, BLUE, BLUE, BLUE, BLUE, RED]);
        assert_eq!(at(i32::MAX, i32::MIN), [BLUE; 6]);
        // Twice as large, with a bar above and below: the cursor stays on the picture.
        let large = shown(&canvas, (6, 8), Some((&cursor, (0, 0))));
        let red_pixels: Vec<usize> = (0..48).filter(|at| large[*at] == RED).collect();
        assert_eq!(red_pixels, [12, 13, 18, 19]);
    }

    #[test]
    fn a_frame_allocates_nothing() {
        let picture = picture_of(PixelFormat::A8B8G8R8, 64, &[[9, 8, 7]; 64 * 64]);
        let cursor = Cursor::new((64, 64), (0, 0), PixelFormat::B8G8R8A8, &[99; 16384]).unwrap();
        let mut canvas = Canvas::default();
        let mut frame = vec![0; 100 * 90];
        canvas.update(&picture, &Damage::default());
        let before = allocations();
        for step in 0..100 {
            let mut damage = Damage::default();
            damage.add(Rect {
                x: step % 50,
                y: 3,
                width: 20,
                height: 40,
            });
            canvas.update(&picture, &damage);
            let at = (step as i32, 5);
            canvas.compose(&mut frame, (100, 90), Scaling::Fit, Some((&cursor, at)));
        }
        assert_eq!(allocations() - before, 0);
        assert!(allocations() > 0, "the counter counts");
    }
}
