//! Draws with the framebuffer console's device, `/dev/fb0`.

use std::fs::{File, read_to_string};
use std::io::{self, Write};

use hesper_test_guest::pattern;

/// Fills the whole framebuffer with the test picture and returns its size in pixels.
pub(crate) fn fill(seed: u32) -> io::Result<(u32, u32)> {
    let size = read_to_string("/sys/class/graphics/fb0/virtual_size")?;
    let stride = number(&read_to_string("/sys/class/graphics/fb0/stride")?)?;
    let depth = number(&read_to_string("/sys/class/graphics/fb0/bits_per_pixel")?)?;
    let (width, height) = size
        .trim()
        .split_once(',')
        .ok_or_else(|| io::Error::other(format!("fb0 virtual_size is '{size}'")))?;
    let (width, height) = (number(width)?, number(height)?);
    if depth != 32 || stride < width * 4 {
        return Err(io::Error::other(format!(
            "fb0 has {depth} bits a pixel and stride {stride}"
        )));
    }
    let mut pixels = Vec::with_capacity((stride * height) as usize);
    for y in 0..height {
        for x in 0..width {
            pixels.extend_from_slice(&pattern(seed, x, y));
            pixels.push(0);
        }
        pixels.resize(((y + 1) * stride) as usize, 0);
    }
    File::options()
        .write(true)
        .open("/dev/fb0")?
        .write_all(&pixels)?;
    Ok((width, height))
}

fn number(text: &str) -> io::Result<u32> {
    text.trim()
        .parse()
        .map_err(|error| io::Error::other(format!("'{text}': {error}")))
}
