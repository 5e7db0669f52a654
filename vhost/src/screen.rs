//! How a screen plugs into the device: the [`ScanoutSink`] trait and the plain types it takes.
//!
//! The device calls a sink from its queue threads and never waits for it. A sink must not block: it
//! notes what changed and lets its own thread show it. Pixels are not copied on the way. A
//! [`Picture`] names memory that the sink reads when it composes a frame.
//!
//! The hard thing is when the guest may touch the pixels again. A flush that carries a
//! [`FlushToken`] is answered to the guest only after the sink has reported that it has read them.
//! It does so at once ([`FlushState::Done`]) or later through
//! [`crate::device::Device::flush_done`], even when nothing is visible.

use std::sync::Arc;

use crate::guest_pages::GuestRun;

pub use crate::pixels::{
    BYTES_PER_PIXEL, PixelFormat, PixelMemory, Rect, ScanoutId, WritablePixels,
};

/// Guest memory that a screen reads in place.
pub trait GuestPixels: PixelMemory {
    /// Gives the pages back to the guest before it returns. Later reads find zeros.
    fn give_back(&self);
}

/// What a scanout shows: a rectangle of linear pixels inside some [`PixelMemory`].
#[derive(Clone)]
pub struct Picture {
    /// Where the pixels are.
    pub memory: Arc<dyn PixelMemory>,
    /// Byte offset of the upper left pixel in `memory`.
    pub offset: u64,
    /// Bytes from one row to the next.
    pub stride: u32,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// How a pixel is laid out.
    pub format: PixelFormat,
}

/// The most pixels of a side of a picture. All known GPUs hold that in one image, and it is twice
/// an 8K screen. The device refuses larger pictures, so that a driver hears of it.
pub const MAX_SIDE: u32 = 16384;

/// Edge length of a cursor image in pixels: virtio-gpu has this one size (virtio-v1.4 §5.7.6.10).
pub const CURSOR_SIZE: u32 = 64;

/// A cursor image of [`CURSOR_SIZE`]² pixels.
#[derive(Clone)]
pub struct CursorImage {
    /// Rows from top to bottom, 4 bytes a pixel in `format`, without padding.
    pub pixels: Box<[u8; (CURSOR_SIZE * CURSOR_SIZE * BYTES_PER_PIXEL) as usize]>,
    /// How a pixel is laid out. Colours are premultiplied with alpha, as a DRM
    /// plane has them.
    pub format: PixelFormat,
    /// Horizontal position of the hot spot inside the image.
    pub hot_x: u32,
    /// Vertical position of the hot spot inside the image.
    pub hot_y: u32,
}

/// Names one flush whose completion the guest waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlushToken(pub u64);

/// Whether the sink still needs the pixels of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum FlushState {
    /// The guest may change the pixels, and the token is void.
    Done,
    /// The sink returns the token later.
    Pending,
}

/// A monitor as the guest sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Monitor {
    /// False when nothing is plugged into this scanout.
    pub connected: bool,
    /// Preferred width in pixels.
    pub width: u32,
    /// Preferred height in pixels.
    pub height: u32,
    /// Refresh rate in millihertz.
    pub refresh_mhz: u32,
    /// Width of the picture in millimetres; 0 = not known.
    pub width_mm: u32,
    /// Height of the picture in millimetres; 0 = not known.
    pub height_mm: u32,
    /// Its place on the desktop. The guest places its monitors side by side from left to right in
    /// this order, and by their numbers where it is equal.
    pub place: i32,
}

/// A screen that shows scanouts.
///
/// Calls come in the order of the guest's commands. None of them may block.
pub trait ScanoutSink: Send + Sync {
    /// From now on `scanout` shows `picture`; `None` turns it off. The first frame follows with a
    /// flush.
    fn set_scanout(&self, scanout: ScanoutId, picture: Option<&Picture>);

    /// Pixels inside `damage` (in coordinates of the picture, already clipped to it) changed.
    ///
    /// When `done` is given, the guest waits for this flush. The sink returns [`FlushState::Done`]
    /// if it does not need the pixels any more. Otherwise it returns [`FlushState::Pending`] and
    /// calls [`crate::device::Device::flush_done`] with the token as soon as it has read them,
    /// exactly once.
    fn flush(&self, scanout: ScanoutId, damage: Rect, done: Option<FlushToken>) -> FlushState;

    /// Sets the cursor's image and position; `None` hides it. The position is that of the image's
    /// upper left corner, wherever its hot spot is. The specification does not say so, but drivers
    /// send that (Linux: the plane's `crtc_x`, `crtc_y`). It may be negative: the field is
    /// unsigned, its value signed.
    fn set_cursor(&self, scanout: ScanoutId, cursor: Option<&CursorImage>, x: u32, y: u32);

    /// Moves the cursor. The position is as in [`Self::set_cursor`].
    fn move_cursor(&self, scanout: ScanoutId, x: u32, y: u32);

    /// Maps the pages of a guest's framebuffer side by side, to show them without a copy. `None`
    /// when the screen cannot do so or does not want to. Then the device copies what each flush
    /// says has changed, and shows the copy. The device calls [`GuestPixels::give_back`] before the
    /// guest uses the pages for something else.
    fn map_guest(&self, _runs: Vec<GuestRun>) -> Option<Arc<dyn GuestPixels>> {
        None
    }

    /// Shows nothing any more: the guest was reset, or its driver was loaded anew or is gone.
    fn reset(&self) {}

    /// The monitors, when the screen and not the device decides about them, as QEMU's console does.
    /// Called without any lock of the device. May wait for the screen's owner for a bounded time.
    fn monitors(&self) -> Option<Vec<Monitor>> {
        None
    }

    /// The EDID of a scanout, when the screen and not the device makes it. Called like
    /// [`Self::monitors`].
    fn edid(&self, _scanout: ScanoutId) -> Option<Vec<u8>> {
        None
    }
}

/// A screen that shows nothing: every flush is done at once.
pub struct NoScreen;

impl ScanoutSink for NoScreen {
    fn set_scanout(&self, _scanout: ScanoutId, _picture: Option<&Picture>) {}

    fn flush(&self, _scanout: ScanoutId, _damage: Rect, _done: Option<FlushToken>) -> FlushState {
        FlushState::Done
    }

    fn set_cursor(&self, _scanout: ScanoutId, _cursor: Option<&CursorImage>, _x: u32, _y: u32) {}

    fn move_cursor(&self, _scanout: ScanoutId, _x: u32, _y: u32) {}
}
