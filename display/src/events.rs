//! What the display tells the program: [`DisplayEvent`], and the tokens of flushes.

use std::sync::Arc;

/// Identifies a flush whose end the caller wants to know. Only the caller gives it a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlushToken(pub u64);

/// What happened at the display.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum DisplayEvent {
    /// A window has settled at a size and a place, for the first time or anew: what the guest should take for its
    /// monitor.
    MonitorChanged {
        /// Whose window.
        scanout: usize,
        /// Width in physical pixels.
        width: u32,
        /// Height in physical pixels.
        height: u32,
        /// Width and height in millimetres, as far as the window system knows its pixels' size.
        millimetres: (u32, u32),
        /// Where the window's upper left pixel is on the desktop, in physical pixels, where the window system tells.
        position: Option<(i32, i32)>,
    },
    /// The user closed the first window, and that ends the display ([`OnClose`](crate::OnClose)); [`Display::run`](crate::Display::run) is about to return.
    CloseRequested {
        /// Whose window.
        scanout: usize,
    },
    /// All windows are hidden. The guest's monitors stay as they are.
    Hidden,
    /// They are shown again.
    Shown,
    /// Another window is gone: the user closed it, or [`DisplayHandle::unplug`](crate::DisplayHandle::unplug) was called. With the next
    /// [`DisplayEvent::MonitorChanged`] it is back.
    Unplugged {
        /// Whose window it was.
        scanout: usize,
    },
    /// The pixels of a flush are no longer being read. Comes exactly once for every token.
    FlushDone(FlushToken),
}

/// Receives the display's events.
pub(crate) type EventCallback = Arc<dyn Fn(DisplayEvent) + Send + Sync>;
