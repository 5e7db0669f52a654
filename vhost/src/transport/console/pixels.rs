//! Pixels as QEMU takes them: 32-bit numbers of alpha, red, green and blue. On little-endian hosts
//! these are the bytes B, G, R, A in memory.

use crate::screen::PixelFormat;

/// The positions of blue, green, red and alpha (or nothing) among the four bytes of a pixel.
const fn order(format: PixelFormat) -> [usize; 4] {
    match format {
        PixelFormat::B8G8R8A8 | PixelFormat::B8G8R8X8 => [0, 1, 2, 3],
        PixelFormat::A8R8G8B8 | PixelFormat::X8R8G8B8 => [3, 2, 1, 0],
        PixelFormat::R8G8B8A8 | PixelFormat::R8G8B8X8 => [2, 1, 0, 3],
        PixelFormat::X8B8G8R8 | PixelFormat::A8B8G8R8 => [1, 2, 3, 0],
    }
}

/// Rewrites whole pixels of `format` in place as B, G, R, A.
pub(super) fn to_bgra(format: PixelFormat, pixels: &mut [u8]) {
    let (pixels, _) = pixels.as_chunks_mut::<4>();
    // One loop per order, so that each compiles to a shuffle.
    match order(format) {
        [0, 1, 2, 3] => {}
        [3, 2, 1, 0] => pixels.iter_mut().for_each(|p| p.reverse()),
        [2, 1, 0, 3] => pixels.iter_mut().for_each(|p| p.swap(0, 2)),
        _ => pixels.iter_mut().for_each(|p| p.rotate_left(1)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_comes_out_as_blue_green_red_alpha() {
        for (format, mut pixel) in [
            (PixelFormat::B8G8R8A8, *b"BGRA"),
            (PixelFormat::B8G8R8X8, *b"BGRA"),
            (PixelFormat::A8R8G8B8, *b"ARGB"),
            (PixelFormat::X8R8G8B8, *b"ARGB"),
            (PixelFormat::R8G8B8A8, *b"RGBA"),
            (PixelFormat::X8B8G8R8, *b"ABGR"),
            (PixelFormat::A8B8G8R8, *b"ABGR"),
            (PixelFormat::R8G8B8X8, *b"RGBA"),
        ] {
            to_bgra(format, &mut pixel);
            assert_eq!(&pixel, b"BGRA", "{format:?}");
        }
    }
}
