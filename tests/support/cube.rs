//! Checks that a screen shows vkcube and that the cube turns.

use std::thread::sleep;
use std::time::{Duration, Instant};

use super::picture::Picture;
use super::process::PATIENCE;

/// The colours that vkcube clears its window to: 0.2 in each channel, with eight bits or with five.
/// It takes the first format of the display server that it knows, and weston's Vulkan renderer
/// lists the small ones first.
const CUBE_BACKGROUNDS: [[u8; 3]; 2] = [[51; 3], [49; 3]];
/// Edge of vkcube's window in pixels.
const CUBE_WINDOW: u32 = 500;
/// The cube and its textures have hundreds of colours; a window without them has one.
const CUBE_COLOURS: usize = 100;

/// Fails the test unless the pictures that `shown` returns have vkcube's window with a turning
/// cube.
#[track_caller]
pub fn assert_turning(shown: impl Fn() -> Picture) {
    assert_turning_where(|| Some(shown()));
}

/// The same for a screen that may show nothing at first.
#[track_caller]
pub fn assert_turning_where(shown: impl Fn() -> Option<Picture>) {
    assert_turning_thing(|| {
        let picture = shown()?;
        let cubes = CUBE_BACKGROUNDS.into_iter().filter_map(|background| {
            let bounds = picture.bounds_of(background)?;
            let cube = picture.part(bounds);
            let is_cube = bounds.size() == (CUBE_WINDOW, CUBE_WINDOW)
                && cube.colours(CUBE_COLOURS) == CUBE_COLOURS;
            is_cube.then_some(cube)
        });
        cubes.into_iter().next()
    });
}

/// Fails the test unless `seen` returns a picture, and later another one that differs much from it.
#[track_caller]
pub fn assert_turning_thing(seen: impl Fn() -> Option<Picture>) {
    let until = Instant::now() + PATIENCE;
    let mut first: Option<Picture> = None;
    let mut turned = 0.0;
    while Instant::now() < until {
        match (seen(), &first) {
            (Some(picture), None) => first = Some(picture),
            (Some(picture), Some(first)) => turned = first.changed(&picture),
            (None, _) => {}
        }
        // A cube covers a fifth of its window. When it turns, most of its pixels change.
        if turned > 0.05 {
            return;
        }
        sleep(Duration::from_millis(100));
    }
    match first {
        None => panic!("no cube is seen"),
        Some(_) => panic!("the cube does not turn: {turned:.4} of its picture changed"),
    }
}
