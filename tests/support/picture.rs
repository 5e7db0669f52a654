//! Pictures that tests compare.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use hesper_test_guest::{cursor_pattern, pattern};

/// An opaque picture.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    pub width: u32,
    pub height: u32,
    /// Blue, green, red for each pixel, rows from top to bottom.
    pixels: Vec<[u8; 3]>,
}

/// A part of a picture. All four edges belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rectangle {
    pub left: u32,
    pub top: u32,
    pub right: u32,
    pub bottom: u32,
}

impl Rectangle {
    /// Width and height.
    pub fn size(self) -> (u32, u32) {
        (self.right - self.left + 1, self.bottom - self.top + 1)
    }
}

impl Picture {
    /// The test picture of the guest program.
    pub fn pattern(seed: u32, width: u32, height: u32) -> Self {
        let pixels = (0..height)
            .flat_map(|y| (0..width).map(move |x| pattern(seed, x, y)))
            .collect();
        Self {
            width,
            height,
            pixels,
        }
    }

    /// The picture, enlarged by this factor.
    #[must_use]
    pub fn enlarged(&self, times: u32) -> Self {
        let (width, height) = (self.width * times, self.height * times);
        let at = |x: u32, y: u32| self.pixels[(y / times * self.width + x / times) as usize];
        let pixels = (0..height)
            .flat_map(|y| (0..width).map(move |x| (x, y)))
            .map(|(x, y)| at(x, y))
            .collect();
        Self {
            width,
            height,
            pixels,
        }
    }

    /// Replaces a rectangle by the same part of another test picture.
    #[must_use]
    pub fn with_update(mut self, seed: u32, x: u32, y: u32, width: u32, height: u32) -> Self {
        for row in y..y + height {
            for column in x..x + width {
                self.pixels[(row * self.width + column) as usize] = pattern(seed, column, row);
            }
        }
        self
    }

    /// Blends the test cursor over the picture, with its upper left corner at `x`, `y`.
    #[must_use]
    pub fn with_cursor(mut self, seed: u32, x: u32, y: u32) -> Self {
        for row in 0..64.min(self.height.saturating_sub(y)) {
            for column in 0..64.min(self.width.saturating_sub(x)) {
                let [blue, green, red, alpha] = cursor_pattern(seed, column, row);
                let under = &mut self.pixels[((y + row) * self.width + x + column) as usize];
                for (under, over) in under.iter_mut().zip([blue, green, red]) {
                    let rest = (u32::from(*under) * (255 - u32::from(alpha)) + 127) / 255;
                    *under = (u32::from(over) + rest) as u8;
                }
            }
        }
        self
    }

    /// Reads a PNG.
    pub fn read(path: &Path) -> Self {
        let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut decoder = png::Decoder::new(BufReader::new(file));
        decoder.set_transformations(png::Transformations::normalize_to_color8());
        let mut reader = decoder.read_info().expect("a PNG");
        let mut bytes = vec![0; reader.output_buffer_size().expect("a PNG of sane size")];
        let info = reader.next_frame(&mut bytes).expect("a whole PNG");
        let size = info.color_type.samples();
        assert!(size >= 3, "{}: not a colour picture", path.display());
        let pixels = bytes[..info.buffer_size()]
            .chunks_exact(size)
            .map(|pixel| [pixel[2], pixel[1], pixel[0]])
            .collect();
        Self {
            width: info.width,
            height: info.height,
            pixels,
        }
    }

    /// How many colours the picture has, counted up to `limit`.
    pub fn colours(&self, limit: usize) -> usize {
        let mut seen = std::collections::HashSet::new();
        for pixel in &self.pixels {
            seen.insert(*pixel);
            if seen.len() >= limit {
                break;
            }
        }
        seen.len()
    }

    /// The share of pixels that are not black.
    pub fn lit(&self) -> f64 {
        let lit = self.pixels.iter().filter(|pixel| **pixel != [0; 3]).count();
        lit as f64 / self.pixels.len() as f64
    }

    /// The smallest rectangle that holds all pixels of this colour (blue, green, red), if there are
    /// any.
    pub fn bounds_of(&self, colour: [u8; 3]) -> Option<Rectangle> {
        let found = (0_u32..)
            .zip(&self.pixels)
            .filter(|(_, pixel)| **pixel == colour);
        let place = |(index, _): (u32, _)| (index % self.width, index / self.width);
        found.map(place).fold(None, |bounds, (x, y)| {
            let Rectangle {
                left,
                top,
                right,
                bottom,
            } = bounds.unwrap_or(Rectangle {
                left: x,
                top: y,
                right: x,
                bottom: y,
            });
            Some(Rectangle {
                left: left.min(x),
                top: top.min(y),
                right: right.max(x),
                bottom: bottom.max(y),
            })
        })
    }

    /// The blue, green and red of a pixel.
    pub fn pixel(&self, x: u32, y: u32) -> [u8; 3] {
        self.pixels[(y * self.width + x) as usize]
    }

    /// The part of the picture inside a rectangle.
    #[must_use]
    pub fn part(&self, part: Rectangle) -> Self {
        let pixels = (part.top..=part.bottom)
            .flat_map(|y| (part.left..=part.right).map(move |x| (x, y)))
            .map(|(x, y)| self.pixels[(y * self.width + x) as usize])
            .collect();
        let (width, height) = part.size();
        Self {
            width,
            height,
            pixels,
        }
    }

    /// The share of pixels that differ from those of a picture of the same size.
    pub fn changed(&self, other: &Self) -> f64 {
        assert_eq!(
            (self.width, self.height),
            (other.width, other.height),
            "the size"
        );
        let pairs = self.pixels.iter().zip(&other.pixels);
        pairs.filter(|(a, b)| a != b).count() as f64 / self.pixels.len() as f64
    }

    /// Fails the test, and names the first difference, unless the sizes are equal and no colour
    /// differs by more than `tolerance`.
    #[track_caller]
    pub fn assert_equals(&self, expected: &Self, tolerance: u8) {
        assert_eq!(
            (self.width, self.height),
            (expected.width, expected.height),
            "the size"
        );
        let pairs = self.pixels.iter().zip(&expected.pixels).enumerate();
        let mut wrong = pairs.filter(|(_, (a, b))| differs(a, b, tolerance));
        if let Some((index, (found, wanted))) = wrong.next() {
            let (x, y) = (index as u32 % self.width, index as u32 / self.width);
            let more = wrong.count();
            panic!("pixel {x},{y} is {found:?}, not {wanted:?}; {more} more differ");
        }
    }

    /// Whether the sizes are equal and no colour differs by more than `tolerance`.
    pub fn is_within(&self, other: &Self, tolerance: u8) -> bool {
        let mut pairs = self.pixels.iter().zip(&other.pixels);
        (self.width, self.height) == (other.width, other.height)
            && pairs.all(|(a, b)| !differs(a, b, tolerance))
    }

    /// Whether both are equal to the bit.
    pub fn equals(&self, other: &Self) -> bool {
        self == other
    }
}

fn differs(a: &[u8; 3], b: &[u8; 3], tolerance: u8) -> bool {
    a.iter().zip(b).any(|(a, b)| a.abs_diff(*b) > tolerance)
}
