//! What the display tells the program: [`DisplayEvent`], and the tokens of flushes.

use std::sync::Arc;

/// Identifies a flush whose end the caller wants to know. Only the caller gives it a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlushToken(pub u64);

/// What happened at the display.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum DisplayEvent {
    /// A monitor's size or position has changed or is known for the first time: its window was
    /// opened, resized or moved, and has rested since. The guest should take it over.
    MonitorChanged {
        /// Whose window it is.
        scanout: usize,
        /// Width in physical pixels.
        width: u32,
        /// Height in physical pixels.
        height: u32,
        /// Width and height in millimetres, as far as the window system knows the size of its
        /// pixels.
        millimetres: (u32, u32),
        /// The window's upper left pixel on the desktop, in physical pixels; `None` where the
        /// window system does not tell.
        position: Option<(i32, i32)>,
    },
    /// The user closed the first window, and that ends the display ([`OnClose`](crate::OnClose)).
    /// [`Display::run`](crate::Display::run) is about to return.
    CloseRequested {
        /// Whose window it is.
        scanout: usize,
    },
    /// All windows are hidden. The guest's monitors stay as they are.
    Hidden,
    /// Hidden windows are shown again.
    Shown,
    /// Another window than the first is gone: the user closed it, or
    /// [`DisplayHandle::unplug`](crate::DisplayHandle::unplug) was called. The next
    /// [`DisplayEvent::MonitorChanged`] says that it is back.
    Unplugged {
        /// Whose window it was.
        scanout: usize,
    },
    /// The pixels of a flush are no longer being read. Sent exactly once for every token.
    FlushDone(FlushToken),
}

/// Receives the display's events.
pub(crate) type EventCallback = Arc<dyn Fn(DisplayEvent) + Send + Sync>;
