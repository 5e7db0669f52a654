//! Text in a window: labels over the guest's picture or instead of it.
//!
//! A label is drawn once, when its text changes, as a small image of premultiplied pixels. It is
//! then shown in the same way as the guest's cursor. The font is a bitmap font with the characters
//! of Latin-1. Where the window's pixels are small, it is enlarged by whole numbers.

use std::convert::Infallible;
use std::ops::Range;

use embedded_graphics::Drawable;
use embedded_graphics::Pixel;
use embedded_graphics::draw_target::DrawTarget;
use embedded_graphics::geometry::{OriginDimensions, Point, Size};
use embedded_graphics::mono_font::MonoTextStyle;
use embedded_graphics::mono_font::iso_8859_1::FONT_9X18_BOLD as FONT;
use embedded_graphics::pixelcolor::BinaryColor;
use embedded_graphics::text::{Baseline, Text};

use crate::cursor::Cursor;

/// The image of a text; its hot spot has no meaning.
pub(crate) type Label = Cursor;

/// Width and height of a character, in pixels of the font.
pub(crate) const CHARACTER: (u32, u32) = (FONT.character_size.width, FONT.character_size.height);
/// Empty pixels around the text.
pub(crate) const MARGIN: u32 = 9;
/// The longest line, and the most lines. A context's name comes from the guest and can be longer.
const MAX_LINE: usize = 64;
const MAX_LINES: usize = 8;
/// Colours of the text and of its background: premultiplied red, green, blue, alpha.
const INK: [u8; 4] = [255; 4];
const PAPER: [u8; 4] = [10, 14, 28, 208];
/// The background of a text that must be legible on any picture.
const THICK_PAPER: [u8; 4] = [12, 17, 34, 244];

/// Draws `text`. Each pixel of the font becomes `scale` pixels wide and high.
pub(crate) fn draw(text: &str, scale: f64) -> Label {
    let lines: Vec<String> = text
        .lines()
        .take(MAX_LINES)
        .flat_map(|line| wrapped(line, MAX_LINE))
        .take(MAX_LINES)
        .collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    Page::with(&lines).enlarged(integer_scale(scale), PAPER)
}

/// Draws lines in a frame, on a background that hides what is behind. Marked lines have the colours
/// of text and background exchanged. Lines are not wrapped: the caller knows how much room there
/// is.
pub(crate) fn draw_framed(lines: &[(&str, bool)], scale: u32) -> Label {
    let texts: Vec<&str> = lines.iter().map(|(text, _)| *text).collect();
    let mut page = Page::with(&texts);
    let rows = (0u32..).zip(lines).filter(|(_, (_, marked))| *marked);
    for (row, _) in rows {
        let top = MARGIN + row * CHARACTER.1;
        let (left, right) = (MARGIN / 2, page.width - MARGIN / 2);
        page.change(left..right, top..top + CHARACTER.1, |ink| !ink);
    }
    let (width, height) = (page.width, page.height);
    for (across, down) in [
        (0..width, 0..1),
        (0..width, height - 1..height),
        (0..1, 0..height),
        (width - 1..width, 0..height),
    ] {
        page.change(across, down, |_| true);
    }
    page.enlarged(scale, THICK_PAPER)
}

/// The width and height of a pixel of the font, in pixels of the window.
pub(crate) fn integer_scale(scale: f64) -> u32 {
    // The cast saturates; screens have scales from 1 to 4.
    (scale.round() as u32).clamp(1, 4)
}

/// Wraps a line at `longest` characters, between words where possible.
pub(crate) fn wrapped(line: &str, longest: usize) -> Vec<String> {
    let longest = longest.clamp(1, MAX_LINE);
    let mut lines = vec![String::new()];
    let letters: Vec<char> = line.chars().take(MAX_LINE * MAX_LINES).collect();
    for word in letters.split_inclusive(|letter| *letter == ' ') {
        for part in word.chunks(longest) {
            let used = lines.last().map_or(0, |line| line.chars().count());
            let needed = part.len() - usize::from(part.last() == Some(&' '));
            if used + needed > longest {
                lines.push(String::new());
            }
            if let Some(line) = lines.last_mut() {
                line.extend(part);
            }
        }
    }
    // A space at the end of a full line needs no room.
    for line in &mut lines {
        line.truncate(line.trim_end().len());
    }
    lines
}

/// A text as one bit per pixel.
struct Page {
    width: u32,
    height: u32,
    ink: Vec<bool>,
}

impl Page {
    /// A page with these lines and a margin around them.
    fn with(lines: &[&str]) -> Page {
        let longest = lines.iter().map(|line| line.chars().count()).max();
        // Lines are short and few, so nothing overflows.
        let width = longest.unwrap_or(0) as u32 * CHARACTER.0 + 2 * MARGIN;
        let height = lines.len() as u32 * CHARACTER.1 + 2 * MARGIN;
        let mut page = Page {
            width,
            height,
            ink: vec![false; (width * height) as usize],
        };
        let (style, start) = (
            MonoTextStyle::new(&FONT, BinaryColor::On),
            Point::new(MARGIN as i32, MARGIN as i32),
        );
        let text = lines.join("\n");
        // Drawing on a page cannot fail.
        let _ = Text::with_baseline(&text, start, style, Baseline::Top).draw(&mut page);
        page
    }

    /// Changes the pixels of a rectangle.
    fn change(&mut self, across: Range<u32>, down: Range<u32>, to: impl Fn(bool) -> bool) {
        let rows = self.ink.chunks_exact_mut(self.width as usize);
        let rows = rows.skip(down.start as usize).take(down.len());
        for row in rows {
            for ink in row
                .iter_mut()
                .skip(across.start as usize)
                .take(across.len())
            {
                *ink = to(*ink);
            }
        }
    }

    fn enlarged(&self, scale: u32, paper: [u8; 4]) -> Label {
        let rows = self.ink.chunks_exact(self.width as usize);
        let repeated = |count| std::iter::repeat_n((), count as usize);
        let rgba = rows.flat_map(|row| {
            repeated(scale).flat_map(move |()| {
                row.iter().flat_map(move |ink| {
                    repeated(scale).flat_map(move |()| if *ink { INK } else { paper })
                })
            })
        });
        Label {
            width: self.width * scale,
            height: self.height * scale,
            hot_x: 0,
            hot_y: 0,
            rgba: rgba.collect(),
        }
    }
}

impl OriginDimensions for Page {
    fn size(&self) -> Size {
        Size::new(self.width, self.height)
    }
}

impl DrawTarget for Page {
    type Color = BinaryColor;
    type Error = Infallible;

    fn draw_iter<I>(&mut self, pixels: I) -> Result<(), Infallible>
    where
        I: IntoIterator<Item = Pixel<BinaryColor>>,
    {
        for Pixel(Point { x, y }, color) in pixels {
            let (Ok(x), Ok(y)) = (u32::try_from(x), u32::try_from(y)) else {
                continue;
            };
            let inside = x < self.width && y < self.height;
            if let (true, Some(ink)) = (inside, self.ink.get_mut((y * self.width + x) as usize)) {
                *ink = color.is_on();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_has_room_for_its_text_and_ink_for_every_character() {
        let label = draw("A×é\nB", 1.0);
        assert_eq!((label.width, label.height), (3 * 9 + 18, 2 * 18 + 18));
        let ink = |from: u32, to: u32, down: std::ops::Range<u32>| {
            down.flat_map(|y| (from..to).map(move |x| (x, y)))
                .filter(|(x, y)| label.pixel((*x).into(), (*y).into()) == INK)
                .count()
        };
        for column in 0..3 {
            assert!(ink(9 + column * 9, 18 + column * 9, 9..27) > 5, "{column}");
        }
        assert!(ink(9, 18, 27..45) > 5);
        assert_eq!(ink(18, 45, 27..45), 0);
        assert_eq!(label.pixel(0, 0), PAPER);
    }

    #[test]
    fn long_lines_are_broken_between_words_and_long_words_anywhere() {
        let words = "word ".repeat(13);
        assert_eq!(
            wrapped(&words, 64),
            ["word ".repeat(13).trim_end()],
            "64 letters and a space"
        );
        let lines = wrapped(&format!("{words}and more"), 64);
        assert_eq!(lines, [words.trim_end(), "and more"]);
        let lines = wrapped(&"x".repeat(100), 64);
        assert_eq!(lines, ["x".repeat(64), "x".repeat(36)]);
        assert_eq!(wrapped("", 64), [""]);
        assert_eq!(wrapped("no room", 0).len(), 6, "a letter a line");
    }

    #[test]
    fn small_pixels_get_larger_letters_and_endless_text_ends() {
        let (once, twice) = (draw("x", 1.2), draw("x", 1.9));
        assert_eq!(
            (twice.width, twice.height),
            (2 * once.width, 2 * once.height)
        );
        assert_eq!(twice.rgba.len() as u32, twice.width * twice.height * 4);
        let endless = draw(
            &"long line\n".repeat(1000).replace('e', &"e".repeat(999)),
            9.0,
        );
        assert!(endless.width <= (64 * 9 + 18) * 4 && endless.height <= (8 * 18 + 18) * 4);
        let empty = draw("", f64::NAN);
        assert_eq!((empty.width, empty.height), (18, 18));
    }
}
