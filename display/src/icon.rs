//! The icon: the evening star, Hesperus, over the night's horizon.

use winit::window::Icon;

/// Pixels of a side.
const SIZE: u32 = 64;

/// The icon of every window.
pub(crate) fn icon() -> Option<Icon> {
    let pixels = (0..SIZE).flat_map(|y| (0..SIZE).flat_map(move |x| pixel(x, y)));
    Icon::from_rgba(pixels.collect(), SIZE, SIZE).ok()
}

/// The pixel as red, green, blue, alpha.
fn pixel(x: u32, y: u32) -> [u8; 4] {
    let middle = f64::from(SIZE) / 2.0;
    let (across, down) = (f64::from(x) + 0.5 - middle, f64::from(y) + 0.5 - middle);
    // A square with round corners.
    let corner = |at: f64| (at.abs() - (middle - 12.0)).max(0.0);
    let outside = corner(across).hypot(corner(down)) - 12.0;
    let alpha = (0.5 - outside).clamp(0.0, 1.0);
    // From deep blue to the last light.
    let dusk = f64::from(y) / f64::from(SIZE);
    let sky = [12.0 + 70.0 * dusk, 18.0 + 30.0 * dusk, 58.0 + 50.0 * dusk];
    // In a star of four rays the product of the distances from its axes is small.
    let (across, down) = (across.abs(), (down + 4.0).abs());
    let ray = (across * down).sqrt() * 2.2 + across.hypot(down) * 0.55;
    let light = ((15.0 - ray) / 5.0).clamp(0.0, 1.0);
    let color = |sky: f64, star: f64| (sky + (star - sky) * light).round() as u8;
    let [red, green, blue] = sky;
    [
        color(red, 255.0),
        color(green, 240.0),
        color(blue, 200.0),
        (alpha * 255.0).round() as u8,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_icon_has_a_bright_star_and_clear_corners() {
        assert!(icon().is_some());
        assert_eq!(pixel(0, 0)[3], 0);
        assert_eq!(pixel(32, 28), [255, 240, 200, 255]);
        let [red, _, blue, alpha] = pixel(32, 60);
        assert!(alpha == 255 && red < 100 && blue > red);
    }
}
