//! The guest's cursor, and who shows it: the presenter over the picture, or the window system as its own pointer.
//!
//! The window system shows it while its pointer is over the window and moves the guest's ([`Scanout::set_cursor_on_host`](super::Scanout::set_cursor_on_host)): then
//! it costs no frame, and is where the hand is without delay.

use std::sync::Arc;

use crate::cursor::Cursor;

/// What the guest's cursor is, for the window system's pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GuestCursor {
    /// The guest has none of its own, as far as it has shown.
    Unknown,
    /// The guest had one and hides it.
    Hidden,
    /// This one.
    Image(Arc<Cursor>),
}

/// The part of a scanout's state.
#[derive(Default)]
pub(super) struct CursorState {
    /// The guest has had a cursor since it has shown pictures.
    pub(super) seen: bool,
    /// The window system's pointer is over the window and moves the guest's.
    pub(super) pointer_over: bool,
    /// The window system shows the guest's cursor.
    pub(super) on_host: bool,
    /// The event loop has been told that the cursor changed, and has not looked yet: a guest that changes it without end
    /// must not fill its queue.
    pub(super) change_pending: bool,
}

impl CursorState {
    /// The guest shows nothing any more.
    pub(super) fn forget(&mut self) {
        self.seen = false;
    }

    /// The window is gone, or new.
    pub(super) fn leave(&mut self) {
        self.pointer_over = false;
        self.on_host = false;
        self.change_pending = false;
    }
}
