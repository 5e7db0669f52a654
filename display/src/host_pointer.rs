//! How the window system's pointer looks over a window.
//!
//! Over a guest that follows it (a tablet) it looks like the guest's own cursor, made as large as that would be in the
//! picture: drawn by the window system it is where the hand is, sharp, and costs no frame. A cursor that is too large for
//! that is drawn into the frame, and the pointer hidden.

use std::sync::Arc;

use winit::event_loop::ActiveEventLoop;
use winit::window::{Cursor as HostCursor, CursorIcon, CustomCursor, CustomCursorSource, Window};

use crate::cursor::Cursor;
use crate::platform;

/// The longest side that window systems and their hardware are asked to show.
const MOST: f64 = 256.0;

/// What is shown over a window.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum HostPointer {
    /// The window system's own.
    #[default]
    System,
    /// None.
    Hidden,
    /// The guest's, with a pixel so many of the host's pointer image wide and high.
    Guests(Arc<Cursor>, (f64, f64)),
}

impl HostPointer {
    /// The pointer for the guest's cursor in a picture whose pixels are so many of the window's wide and high.
    pub(crate) fn for_cursor(
        cursor: Arc<Cursor>,
        scale: (f64, f64),
        window: &Window,
    ) -> HostPointer {
        let unit = platform::pointer_pixel(window);
        let scale = (scale.0 / unit, scale.1 / unit);
        let fits = |side: u32, scale: f64| f64::from(side) * scale <= MOST;
        if fits(cursor.width, scale.0) && fits(cursor.height, scale.1) {
            HostPointer::Guests(cursor, scale)
        } else {
            HostPointer::Hidden
        }
    }

    /// Makes `window` show it. `false`: the window system refuses, and shows none.
    pub(crate) fn show(&self, window: &Window, event_loop: &ActiveEventLoop) -> bool {
        let image = match self {
            HostPointer::System => HostCursor::Icon(CursorIcon::Default),
            HostPointer::Hidden => {
                window.set_cursor_visible(false);
                return true;
            }
            HostPointer::Guests(cursor, scale) => {
                match source(cursor, *scale, platform::pointer_is_premultiplied(window)) {
                    Ok(source) => HostCursor::Custom(event_loop.create_custom_cursor(source)),
                    Err(error) => {
                        log::warn!("the guest's cursor is drawn into the picture: {error}");
                        window.set_cursor_visible(false);
                        return false;
                    }
                }
            }
        };
        window.set_cursor(image);
        window.set_cursor_visible(true);
        true
    }
}

fn source(
    cursor: &Cursor,
    (across, down): (f64, f64),
    premultiplied: bool,
) -> Result<CustomCursorSource, winit::window::BadImage> {
    let mut image = cursor.scaled(across, down);
    if !premultiplied {
        for pixel in image.rgba.as_chunks_mut::<4>().0 {
            *pixel = straight(*pixel);
        }
    }
    // Sides have 9 bits.
    let [width, height, hot_x, hot_y] =
        [image.width, image.height, image.hot_x, image.hot_y].map(|side| side as u16);
    CustomCursor::from_rgba(image.rgba, width, height, hot_x, hot_y)
}

/// A premultiplied colour as one that is not.
fn straight([red, green, blue, alpha]: [u8; 4]) -> [u8; 4] {
    let divided = |channel: u8| {
        let (channel, alpha) = (u32::from(channel), u32::from(alpha.max(1)));
        ((channel * 255 + alpha / 2) / alpha).min(255) as u8
    };
    [divided(red), divided(green), divided(blue), alpha]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_lose_their_alpha_and_mistakes_saturate() {
        assert_eq!(straight([1, 2, 3, 255]), [1, 2, 3, 255]);
        assert_eq!(straight([64, 0, 128, 128]), [128, 0, 255, 128]);
        assert_eq!(straight([0; 4]), [0; 4]);
        assert_eq!(straight([9, 200, 1, 8]), [255, 255, 32, 8]);
    }
}
