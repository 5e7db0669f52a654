//! The guest's cursor: a small image over the picture, moved without touching the picture.

use crate::DisplayError;
use crate::picture::PixelFormat;

/// The largest side of a cursor in pixels. virtio-gpu's cursors have 64; the limit leaves room for
/// more.
pub const MAX_CURSOR_SIZE: u32 = 512;

/// A cursor's image.
///
/// Its colours are taken as *premultiplied* with alpha, as Linux guests draw them (the default
/// "pixel blend mode" of a DRM plane). A format without alpha gives an opaque cursor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) hot_x: u32,
    pub(crate) hot_y: u32,
    /// Red, green, blue, alpha; rows without gaps.
    pub(crate) rgba: Vec<u8>,
}

impl Cursor {
    /// A cursor of `width` × `height` pixels whose hot spot is the pixel (`hot_x`, `hot_y`).
    /// `pixels` holds the rows from top to bottom without gaps, in `format`.
    ///
    /// # Errors
    ///
    /// [`DisplayError::BadCursor`] when `pixels` does not have four bytes for every pixel, or a
    /// side is 0 or longer than [`MAX_CURSOR_SIZE`].
    pub fn new(
        (width, height): (u32, u32),
        (hot_x, hot_y): (u32, u32),
        format: PixelFormat,
        pixels: &[u8],
    ) -> Result<Cursor, DisplayError> {
        let sizes = 1..=MAX_CURSOR_SIZE;
        let fits = sizes.contains(&width)
            && sizes.contains(&height)
            && pixels.len() == (width * height * 4) as usize;
        if !fits {
            return Err(DisplayError::BadCursor {
                width,
                height,
                bytes: pixels.len(),
            });
        }
        let channels = format.channels();
        let (pixels, _) = pixels.as_chunks::<4>();
        let rgba = pixels
            .iter()
            .flat_map(|pixel| channels.unpack(*pixel))
            .collect();
        Ok(Cursor {
            width,
            height,
            hot_x,
            hot_y,
            rgba,
        })
    }

    /// The cursor with its sides multiplied by these factors, at most [`MAX_CURSOR_SIZE`] long.
    /// Pixels are repeated where a factor is whole, and mixed where a new pixel covers several old
    /// ones.
    pub(crate) fn scaled(&self, across: f64, down: f64) -> Cursor {
        let side = |side: u32, factor: f64| {
            // The cast saturates.
            ((f64::from(side) * factor).round() as u32).clamp(1, MAX_CURSOR_SIZE)
        };
        let (width, height) = (side(self.width, across), side(self.height, down));
        let columns: Vec<_> = (0..width)
            .map(|at| covered(at, self.width, width))
            .collect();
        let mut rgba = Vec::with_capacity((width * height * 4) as usize);
        for y in 0..height {
            let rows = covered(y, self.height, height);
            for columns in &columns {
                let mut sum = [0.0; 4];
                for (row, tall) in rows.clone() {
                    for (column, wide) in columns.clone() {
                        let pixel = self.pixel(column.into(), row.into());
                        for (sum, channel) in sum.iter_mut().zip(pixel) {
                            *sum += f64::from(channel) * tall * wide;
                        }
                    }
                }
                rgba.extend(sum.map(|channel| channel.round() as u8));
            }
        }
        let hot = |at: u32, from: u32, to: u32| {
            let scaled = u64::from(at) * u64::from(to) / u64::from(from.max(1));
            // It is smaller than a side.
            scaled.min(u64::from(to - 1)) as u32
        };
        Cursor {
            width,
            height,
            hot_x: hot(self.hot_x, self.width, width),
            hot_y: hot(self.hot_y, self.height, height),
            rgba,
        }
    }

    /// The pixel at (`x`, `y`) as red, green, blue, alpha; transparent outside.
    pub(crate) fn pixel(&self, x: i64, y: i64) -> [u8; 4] {
        let inside = |at: i64, size: u32| usize::try_from(at).ok().filter(|at| *at < size as usize);
        let (Some(x), Some(y)) = (inside(x, self.width), inside(y, self.height)) else {
            return [0; 4];
        };
        let (pixels, _) = self.rgba.as_chunks::<4>();
        pixels
            .get(y * self.width as usize + x)
            .copied()
            .unwrap_or_default()
    }
}

/// The pixels that pixel `at` covers when `from` pixels are scaled to `to`, and the share of each.
fn covered(at: u32, from: u32, to: u32) -> impl Iterator<Item = (u32, f64)> + Clone {
    // In units of which a new pixel has `from` and an old one `to`. Sides are short.
    let (start, end) = (at * from, (at + 1) * from);
    (start / to..end.div_ceil(to)).map(move |old| {
        let overlap = end.min((old + 1) * to) - start.max(old * to);
        (old, f64::from(overlap) / f64::from(from))
    })
}

/// Blends a premultiplied colour over an opaque one. Colours brighter than their alpha allows (a
/// mistake of the guest) saturate.
pub(crate) fn blend(over: [u8; 4], under: [u8; 3]) -> [u8; 3] {
    let [red, green, blue, alpha] = over;
    let rest = 255 - u32::from(alpha);
    let [under_red, under_green, under_blue] = under;
    let mix = |over: u8, under: u8| {
        (u32::from(over) + (u32::from(under) * rest + 127) / 255).min(255) as u8
    };
    [
        mix(red, under_red),
        mix(green, under_green),
        mix(blue, under_blue),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blending_covers_shows_through_and_saturates() {
        assert_eq!(blend([1, 2, 3, 255], [9, 9, 9]), [1, 2, 3]);
        assert_eq!(blend([0, 0, 0, 0], [9, 8, 7]), [9, 8, 7]);
        assert_eq!(blend([64, 0, 0, 128], [200, 100, 0]), [164, 50, 0]);
        assert_eq!(blend([255, 255, 255, 10], [250, 250, 250]), [255, 255, 255]);
    }

    #[test]
    fn a_cursor_needs_all_its_pixels_and_a_sane_size() {
        let format = PixelFormat::B8G8R8A8;
        assert!(Cursor::new((2, 2), (0, 0), format, &[0; 16]).is_ok());
        for (size, bytes) in [
            ((2, 2), 15),
            ((0, 2), 0),
            ((513, 1), 513 * 4),
            ((u32::MAX, 1), 4),
        ] {
            assert!(
                Cursor::new(size, (0, 0), format, &vec![0; bytes]).is_err(),
                "{size:?}"
            );
        }
    }

    #[test]
    fn a_scaled_cursor_repeats_pixels_or_mixes_them_and_points_at_the_same() {
        let pixels: Vec<u8> = [[80, 0, 0, 255], [0, 80, 0, 255], [0, 0, 80, 255], [0; 4]].concat();
        let cursor = Cursor::new((2, 2), (1, 1), PixelFormat::R8G8B8A8, &pixels).unwrap();
        let twice = cursor.scaled(2.0, 2.0);
        assert_eq!((twice.width, twice.height), (4, 4));
        assert_eq!((twice.hot_x, twice.hot_y), (2, 2));
        for (x, y) in [(0, 0), (1, 1), (2, 1), (1, 2), (3, 3)] {
            assert_eq!(twice.pixel(x, y), cursor.pixel(x / 2, y / 2), "{x},{y}");
        }
        let wider = cursor.scaled(1.5, 1.0);
        assert_eq!((wider.width, wider.height, wider.hot_x), (3, 2, 1));
        assert_eq!(wider.pixel(0, 0), [80, 0, 0, 255]);
        assert_eq!(wider.pixel(1, 0), [40, 40, 0, 255]);
        assert_eq!(wider.pixel(2, 0), [0, 80, 0, 255]);
        assert_eq!(wider.pixel(1, 1), [0, 0, 40, 128]);
        let point = cursor.scaled(0.1, 0.1);
        assert_eq!((point.width, point.height), (1, 1));
        assert_eq!(point.pixel(0, 0), [20, 20, 20, 191]);
        let largest = cursor.scaled(1e9, f64::NAN);
        assert_eq!((largest.width, largest.height), (MAX_CURSOR_SIZE, 1));
    }

    #[test]
    fn an_x_format_makes_an_opaque_cursor() {
        let cursor = Cursor::new((1, 1), (0, 0), PixelFormat::X8R8G8B8, &[7, 1, 2, 3]).unwrap();
        assert_eq!(cursor.pixel(0, 0), [1, 2, 3, 255]);
        assert_eq!(cursor.pixel(1, 0), [0; 4]);
        assert_eq!(cursor.pixel(0, -1), [0; 4]);
    }
}
