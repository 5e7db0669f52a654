//! What goes where in a window: the rules of composition, the same for GPU and CPU.
//!
//! A picture keeps its shape; the rest of the window is black. The cursor moves in the picture's
//! pixels, and is scaled and clipped with the picture. All of this is pure arithmetic on sizes.

use crate::cursor::Cursor;
use crate::picture::Rect;

/// How a picture is scaled whose size is not the window's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Scaling {
    /// As large as fits, keeping its shape. Smoothed unless each pixel becomes a whole number of
    /// pixels.
    #[default]
    Fit,
    /// The largest whole multiple that fits, so that every pixel stays sharp. A picture larger than
    /// the window is shrunk and smoothed.
    Integer,
    /// Never enlarged: pixel for pixel if it fits, else shrunk.
    Shrink,
}

/// Where the picture lies in the window, in the window's physical pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Placement {
    pub(crate) x: u32,
    pub(crate) y: u32,
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// The picture's own size.
    pub(crate) picture: (u32, u32),
}

/// A rectangle in the window whose edges may lie between pixels or outside.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Area {
    pub(crate) left: f32,
    pub(crate) top: f32,
    pub(crate) right: f32,
    pub(crate) bottom: f32,
}

impl Placement {
    /// Places a picture in the middle of a window. `None` when either has no pixels.
    pub(crate) fn new(
        picture: (u32, u32),
        window: (u32, u32),
        scaling: Scaling,
    ) -> Option<Placement> {
        let (pw, ph) = (u64::from(picture.0), u64::from(picture.1));
        let (ww, wh) = (u64::from(window.0), u64::from(window.1));
        if pw == 0 || ph == 0 || ww == 0 || wh == 0 {
            return None;
        }
        let fits = pw <= ww && ph <= wh;
        let (width, height) = if scaling == Scaling::Shrink && fits {
            (pw, ph)
        } else if scaling == Scaling::Integer && fits {
            let times = (ww / pw).min(wh / ph);
            (pw * times, ph * times)
        } else if ww * ph <= wh * pw {
            (ww, ((ph * ww + pw / 2) / pw).clamp(1, wh))
        } else {
            (((pw * wh + ph / 2) / ph).clamp(1, ww), wh)
        };
        // All four are at most the sides of the window, which are u32.
        Some(Placement {
            x: ((ww - width) / 2) as u32,
            y: ((wh - height) / 2) as u32,
            width: width as u32,
            height: height as u32,
            picture,
        })
    }

    /// Whether each pixel of the picture becomes a whole number of pixels: then it must not be
    /// smoothed.
    pub(crate) fn is_integer(&self) -> bool {
        self.width.is_multiple_of(self.picture.0) && self.height.is_multiple_of(self.picture.1)
    }

    /// The picture's area.
    pub(crate) fn area(&self) -> Area {
        let (left, top) = (self.x as f32, self.y as f32);
        Area {
            left,
            top,
            right: left + self.width as f32,
            bottom: top + self.height as f32,
        }
    }

    /// The width and height of a pixel of the picture, in pixels of the window.
    pub(crate) fn scale(&self) -> (f64, f64) {
        (
            f64::from(self.width) / f64::from(self.picture.0),
            f64::from(self.height) / f64::from(self.picture.1),
        )
    }

    /// The area of a cursor whose hot spot is at (`x`, `y`) in the picture. It is not clipped.
    pub(crate) fn cursor_area(&self, cursor: &Cursor, (x, y): (i32, i32)) -> Area {
        let (left, top) = cursor_corner(cursor, (x, y));
        let (across, down) = self.scale();
        let at_x = |x: i64| (f64::from(self.x) + x as f64 * across) as f32;
        let at_y = |y: i64| (f64::from(self.y) + y as f64 * down) as f32;
        Area {
            left: at_x(left),
            top: at_y(top),
            right: at_x(left + i64::from(cursor.width)),
            bottom: at_y(top + i64::from(cursor.height)),
        }
    }

    /// The position on the guest's desktop of a position in the window.
    ///
    /// The result is in steps of axes that have `steps` from edge to edge of the desktop. `monitor`
    /// is the picture's rectangle on a desktop of `desktop` pixels. A position outside the picture
    /// counts as the nearest one inside. A guest that converts the result back to pixels finds the
    /// pixel that the window shows there ([`Self::column_of`], [`Self::row_of`]).
    pub(crate) fn on_axes(
        &self,
        (x, y): (f64, f64),
        monitor: Rect,
        desktop: (u32, u32),
        steps: u32,
    ) -> (i32, i32) {
        // The cast saturates.
        let inside = |at: f64, start: u32, size: u32| {
            ((at - f64::from(start)).floor() as u32).min(size.saturating_sub(1))
        };
        let (x, y) = (
            inside(x, self.x, self.width),
            inside(y, self.y, self.height),
        );
        let across = Axis {
            shown: self.width,
            size: self.picture.0,
            start: monitor.x,
            whole: desktop.0,
        };
        let down = Axis {
            shown: self.height,
            size: self.picture.1,
            start: monitor.y,
            whole: desktop.1,
        };
        (
            across.step(x, self.column_of(x), steps),
            down.step(y, self.row_of(y), steps),
        )
    }

    /// The column of the picture that the window's column `x` shows when it is not smoothed: the
    /// one under the middle of the pixel. `x` is counted from the placement's left edge.
    pub(crate) fn column_of(&self, x: u32) -> u32 {
        middle(x, self.width, self.picture.0)
    }

    /// The row of the picture that the window's row `y` shows. `y` is counted from the placement's
    /// upper edge.
    pub(crate) fn row_of(&self, y: u32) -> u32 {
        middle(y, self.height, self.picture.1)
    }
}

/// Pixels between the window's corner and a label.
const LABEL_GAP: i32 = 10;

/// The position of a label's upper left pixel: for the middle of the window, or for its upper left
/// corner. A label that is larger than the window begins at the window's edge.
pub(crate) fn label_at(label: &Cursor, window: (u32, u32), in_the_middle: bool) -> (i32, i32) {
    if !in_the_middle {
        return (LABEL_GAP, LABEL_GAP);
    }
    // Half of a side fits into an i32.
    let middle = |window: u32, label: u32| (window.saturating_sub(label) / 2) as i32;
    (
        middle(window.0, label.width),
        middle(window.1, label.height),
    )
}

/// The area of a label.
pub(crate) fn label_area(label: &Cursor, window: (u32, u32), in_the_middle: bool) -> Area {
    let (x, y) = label_at(label, window, in_the_middle);
    Area {
        left: x as f32,
        top: y as f32,
        right: x as f32 + label.width as f32,
        bottom: y as f32 + label.height as f32,
    }
}

/// The position of the cursor's upper left pixel, in the picture's pixels.
pub(crate) fn cursor_corner(cursor: &Cursor, (x, y): (i32, i32)) -> (i64, i64) {
    (
        i64::from(x) - i64::from(cursor.hot_x),
        i64::from(y) - i64::from(cursor.hot_y),
    )
}

fn middle(at: u32, shown: u32, size: u32) -> u32 {
    let (at, shown, size) = (u64::from(at), u64::from(shown), u64::from(size));
    ((2 * at + 1) * size / (2 * shown)) as u32
}

/// One axis of the guest's tablet, over one monitor.
struct Axis {
    /// How many pixels of the window show the picture.
    shown: u32,
    /// How many pixels the picture has.
    size: u32,
    /// Where the picture begins on the desktop, in pixels.
    start: u32,
    /// How many pixels the desktop has.
    whole: u32,
}

impl Axis {
    /// The step for the middle of the window's pixel `at`, limited to the steps of the picture's
    /// pixel `pixel`.
    fn step(&self, at: u32, pixel: u32, steps: u32) -> i32 {
        let [shown, size, start, steps] = [self.shown, self.size, self.start, steps].map(u64::from);
        let whole = u64::from(self.whole.max(1));
        let pixel = start + u64::from(pixel);
        let first = |pixel: u64| (pixel * steps).div_ceil(whole);
        // Nothing overflows: sides have 15 bits, a desktop of 16 monitors 19, the steps 17.
        let middle =
            ((2 * u64::from(at) + 1) * size + 2 * shown * start) * steps / (2 * shown * whole);
        let last = first(pixel + 1).saturating_sub(1).max(first(pixel));
        i32::try_from(middle.clamp(first(pixel), last)).unwrap_or(i32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picture::PixelFormat;

    fn place(picture: (u32, u32), window: (u32, u32), scaling: Scaling) -> [u32; 4] {
        let placement = Placement::new(picture, window, scaling).unwrap();
        [placement.x, placement.y, placement.width, placement.height]
    }

    #[test]
    fn a_picture_of_the_windows_size_fills_it() {
        assert_eq!(
            place((1280, 800), (1280, 800), Scaling::Fit),
            [0, 0, 1280, 800]
        );
        assert_eq!(
            place((1280, 800), (1280, 800), Scaling::Shrink),
            [0, 0, 1280, 800]
        );
    }

    #[test]
    fn other_shapes_get_bars_on_two_sides() {
        assert_eq!(
            place((640, 480), (1280, 800), Scaling::Fit),
            [106, 0, 1067, 800]
        );
        assert_eq!(
            place((1280, 800), (600, 600), Scaling::Fit),
            [0, 112, 600, 375]
        );
        assert_eq!(
            place((640, 480), (1280, 960), Scaling::Fit),
            [0, 0, 1280, 960]
        );
    }

    #[test]
    fn shrink_never_enlarges() {
        assert_eq!(
            place((640, 480), (1280, 800), Scaling::Shrink),
            [320, 160, 640, 480]
        );
        assert_eq!(
            place((1280, 800), (640, 800), Scaling::Shrink),
            [0, 200, 640, 400]
        );
    }

    #[test]
    fn integer_takes_whole_multiples_and_shrinks_when_it_must() {
        for (window, expected) in [
            ((1280, 800), [0, 0, 1280, 800]),
            ((1919, 1199), [319, 199, 1280, 800]),
            ((1920, 1300), [0, 50, 1920, 1200]),
            ((700, 3000), [30, 1300, 640, 400]),
            ((320, 400), [0, 100, 320, 200]),
        ] {
            assert_eq!(place((640, 400), window, Scaling::Integer), expected);
        }
    }

    #[test]
    fn every_shape_stays_inside_the_window_and_keeps_a_pixel() {
        for picture in [(1, 16384), (16384, 1), (3, 7), (1920, 1080)] {
            for window in [(1, 1), (320, 200), (16384, 1), (999, 1001)] {
                for scaling in [Scaling::Fit, Scaling::Integer, Scaling::Shrink] {
                    let [x, y, width, height] = place(picture, window, scaling);
                    assert!(width > 0 && height > 0, "{picture:?} in {window:?}");
                    assert!(x + width <= window.0 && y + height <= window.1);
                }
            }
        }
        assert_eq!(Placement::new((0, 5), (5, 5), Scaling::Fit), None);
        assert_eq!(Placement::new((5, 5), (5, 0), Scaling::Fit), None);
    }

    #[test]
    fn only_whole_multiples_need_no_smoothing() {
        let integer = |picture, window| {
            Placement::new(picture, window, Scaling::Fit)
                .unwrap()
                .is_integer()
        };
        assert!(integer((640, 400), (1280, 800)));
        assert!(integer((640, 400), (640, 400)));
        assert!(!integer((640, 400), (1279, 800)));
        assert!(!integer((1280, 800), (640, 400)));
    }

    #[test]
    fn the_cursors_hot_spot_lands_on_its_position() {
        let cursor = Cursor::new((4, 4), (1, 2), PixelFormat::B8G8R8A8, &[0; 64]).unwrap();
        let twice = Placement::new((100, 50), (200, 120), Scaling::Fit).unwrap();
        assert_eq!((twice.x, twice.y), (0, 10));
        let area = twice.cursor_area(&cursor, (10, 10));
        assert_eq!(
            area,
            Area {
                left: 18.0,
                top: 26.0,
                right: 26.0,
                bottom: 34.0
            }
        );
        let outside = twice.cursor_area(&cursor, (i32::MIN, i32::MAX));
        assert!(outside.right < 0.0 && outside.top > 120.0);
    }

    #[test]
    fn a_guest_finds_the_pixel_that_was_pointed_at() {
        let steps = 0x1_0000;
        for (picture, window) in [
            ((1280, 800), (1280, 800)),
            ((1280, 800), (1920, 1200)),
            ((640, 400), (1280, 1000)),
            ((16384, 9), (16384, 9)),
            ((1920, 1080), (1003, 777)),
        ] {
            let placement = Placement::new(picture, window, Scaling::Fit).unwrap();
            for x in 0..placement.width {
                let at = f64::from(placement.x + x) + 0.3;
                let whole = Rect::whole(picture.0, picture.1);
                let (told, _) = placement.on_axes((at, 0.0), whole, picture, steps);
                // As a guest computes it: from the axis to its pixels.
                let pixel =
                    (u64::from(told as u32) * u64::from(picture.0) / u64::from(steps)) as u32;
                assert_eq!(
                    pixel,
                    placement.column_of(x),
                    "{picture:?} in {window:?} at {x}"
                );
            }
            let whole = Rect::whole(picture.0, picture.1);
            let outside = placement.on_axes((-5.0, 1e19), whole, picture, steps);
            assert!(outside.0 < 0x1_0000 / picture.0 as i32 + 1);
            assert!(outside.1 >= 0xffff - 0x1_0000 / picture.1 as i32);
        }
    }

    #[test]
    fn a_guest_with_several_monitors_finds_the_pixel_of_its_desktop() {
        let steps = 0x1_0000;
        let desktop = (1280 + 1003 + 640, 900);
        let monitor = Rect {
            x: 1280,
            y: 123,
            width: 1003,
            height: 777,
        };
        for window in [(1003, 777), (1504, 1165), (640, 800)] {
            let placement = Placement::new((1003, 777), window, Scaling::Fit).unwrap();
            let pixel = |told: i32, whole: u32| {
                (u64::from(told as u32) * u64::from(whole) / u64::from(steps)) as u32
            };
            for x in 0..placement.width {
                let at = f64::from(placement.x + x) + 0.9;
                let (told, _) = placement.on_axes((at, 0.0), monitor, desktop, steps);
                assert_eq!(
                    pixel(told, desktop.0),
                    1280 + placement.column_of(x),
                    "{window:?}"
                );
            }
            for y in 0..placement.height {
                let at = f64::from(placement.y + y);
                let (_, told) = placement.on_axes((0.0, at), monitor, desktop, steps);
                assert_eq!(
                    pixel(told, desktop.1),
                    123 + placement.row_of(y),
                    "{window:?}"
                );
            }
        }
    }

    #[test]
    fn every_pixel_of_the_picture_is_shown_when_enlarged() {
        let placement = Placement::new((7, 3), (700, 300), Scaling::Fit).unwrap();
        let columns: Vec<u32> = (0..700).map(|x| placement.column_of(x)).collect();
        assert!(
            columns
                .iter()
                .enumerate()
                .all(|(x, column)| *column == x as u32 / 100)
        );
        assert_eq!(placement.row_of(299), 2);
    }
}
