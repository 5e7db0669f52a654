//! What the window system's pointer looks like over a window.
//!
//! Over a guest with a tablet it looks like the guest's own cursor, in the size that this has in
//! the picture. The window system draws its pointer without delay, sharp, and without a frame of
//! ours. A cursor that is too large for the window system is drawn into the frame, and the pointer
//! is hidden.

use std::sync::Arc;

use winit::event_loop::ActiveEventLoop;
use winit::window::{Cursor as HostCursor, CursorIcon, CustomCursor, CustomCursorSource, Window};

use crate::cursor::Cursor;
use crate::platform;

/// Limits the lines that a guest or its VM monitor can cause.
static LINES: hesper_system::LogLimit = hesper_system::LogLimit::new("hesper_display");

/// The longest side of a pointer's image that window systems and their hardware can be expected to
/// show.
const MOST: f64 = 256.0;

/// What the pointer looks like over a window.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) enum HostPointer {
    /// The window system's own pointer.
    #[default]
    System,
    /// Invisible.
    Hidden,
    /// The guest's cursor, and the width and height of one of its pixels in pixels of the pointer's
    /// image.
    Guests(Arc<Cursor>, (f64, f64)),
}

impl HostPointer {
    /// The pointer for the guest's cursor. `scale` is the width and height of a pixel of the
    /// picture in pixels of the window.
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

    /// Makes `window` show this pointer. Returns `false` if the window system refuses; then it
    /// shows none.
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
                        LINES.log(
                            log::Level::Warn,
                            format_args!(
                                "the window system refuses the guest's cursor, so frames show it: {error}"
                            ),
                        );
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
    // Sides fit 9 bits.
    let [width, height, hot_x, hot_y] =
        [image.width, image.height, image.hot_x, image.hot_y].map(|side| side as u16);
    CustomCursor::from_rgba(image.rgba, width, height, hot_x, hot_y)
}

/// Turns a premultiplied colour into one that is not.
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
