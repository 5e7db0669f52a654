//! The guest's cursor, and who shows it: the presenter in the picture, or the window system as its
//! own pointer.
//!
//! The window system shows it while its pointer is over the window and moves the guest's
//! ([`Scanout::set_cursor_on_host`](super::Scanout::set_cursor_on_host)). Then the cursor costs no
//! frame and has no delay.

use std::sync::Arc;

use crate::cursor::Cursor;

/// What the guest's cursor looks like, for the host's pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GuestCursor {
    /// The guest has not shown a cursor so far.
    Unknown,
    /// The guest has shown a cursor and hides it now.
    Hidden,
    /// The guest shows this cursor.
    Image(Arc<Cursor>),
}

/// Who shows the guest's cursor.
#[derive(Default)]
pub(super) struct CursorState {
    /// The guest has shown a cursor since it began to show pictures.
    pub(super) seen: bool,
    /// The host's pointer is over the window and moves the guest's.
    pub(super) pointer_over: bool,
    /// The window system shows the guest's cursor.
    pub(super) on_host: bool,
    /// The event loop has been told that the cursor changed, and has not looked yet. This keeps a
    /// guest that changes it without end from filling the event loop's queue.
    pub(super) change_pending: bool,
}

impl CursorState {
    /// The guest no longer shows a picture.
    pub(super) fn forget(&mut self) {
        self.seen = false;
    }

    /// The window is gone or new.
    pub(super) fn leave(&mut self) {
        self.pointer_over = false;
        self.on_host = false;
        self.change_pending = false;
    }
}
