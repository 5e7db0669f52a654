//! What the test program in the guest and the test outside share: the test pictures, and a protocol
//! that both use. And the kernel's interface, for all programs in guests.

pub mod cross_domain;
#[cfg(target_os = "linux")]
pub mod virtgpu;

/// The test picture. Each pixel's colour depends on both coordinates and on `seed`, so that a
/// shifted, stale or cropped picture never looks right.
///
/// Returns blue, green and red, each 0 to 255.
#[must_use]
pub fn pattern(seed: u32, x: u32, y: u32) -> [u8; 3] {
    let mixed = x
        .wrapping_mul(0x9E37_79B1)
        .wrapping_add(y.wrapping_mul(0x85EB_CA77))
        .wrapping_add(seed.wrapping_mul(0xC2B2_AE3D));
    let [_, low, high, top] = (mixed ^ (mixed >> 15)).to_le_bytes();
    [low, high, top]
}

/// The test cursor: opaque where `x + y` is below 64, half transparent on the diagonal, and
/// invisible elsewhere.
///
/// Returns blue, green, red and alpha of a pixel of the 64 by 64 image. The colours are
/// premultiplied, as DRM planes expect.
#[must_use]
pub fn cursor_pattern(seed: u32, x: u32, y: u32) -> [u8; 4] {
    let [blue, green, red] = pattern(seed, x, y);
    match (x + y).cmp(&63) {
        std::cmp::Ordering::Less => [blue, green, red, 255],
        std::cmp::Ordering::Equal => [blue / 2, green / 2, red / 2, 128],
        std::cmp::Ordering::Greater => [0; 4],
    }
}

/// The number of pictures of the moving test picture.
pub const STEPS: u32 = 8;

/// A pixel of picture `number` of the moving test picture, as a grey value. The background's
/// brightness shows the number, and a white bar moves over it. Every row is the same.
pub fn step(number: u32, x: u32, width: u32) -> u8 {
    let bar = number * width / STEPS;
    if (bar..bar + width / STEPS / 2).contains(&x) && x > 0 {
        255
    } else {
        16 + 16 * number as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbouring_pixels_and_seeds_differ() {
        assert_ne!(pattern(1, 10, 10), pattern(1, 11, 10));
        assert_ne!(pattern(1, 10, 10), pattern(1, 10, 11));
        assert_ne!(pattern(1, 10, 10), pattern(2, 10, 10));
    }
}
