//! The guest's cursor, and who shows it: the presenter over the picture, or the window system as its own pointer.
//!
//! The window system shows it while its pointer is over the window and moves the guest's ([`Scanout::set_host_shows`]): then
//! it costs no frame, and is where the hand is without delay.

use std::sync::Arc;

use super::Scanout;
use crate::cursor::Cursor;

/// What the guest's cursor is, for the window system's pointer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GuestPointer {
    /// The guest has none of its own, as far as it has shown.
    Unknown,
    /// The guest had one and hides it.
    Hidden,
    /// This one.
    Image(Arc<Cursor>),
}

/// The part of a scanout's state.
#[derive(Default)]
pub(super) struct State {
    /// The guest has had a cursor since it has shown pictures.
    seen: bool,
    /// The window system's pointer is over the window and moves the guest's.
    here: bool,
    /// The window system shows the guest's cursor.
    is_hosts: bool,
    /// The event loop has been told that the cursor changed, and has not looked yet: a guest that changes it without end
    /// must not fill its queue.
    told: bool,
}

impl State {
    pub(super) fn is_hosts(&self) -> bool {
        self.is_hosts
    }

    /// The guest shows nothing any more.
    pub(super) fn forget(&mut self) {
        self.seen = false;
    }

    /// The window is gone, or new.
    pub(super) fn leave(&mut self) {
        self.here = false;
        self.is_hosts = false;
        self.told = false;
    }
}

impl Scanout {
    /// Shows another cursor, or none. Says whether the event loop must be told.
    pub(crate) fn set_cursor(&self, cursor: Option<Arc<Cursor>>) -> bool {
        let mut state = self.lock();
        if state.cursor.is_none() && cursor.is_none() {
            return false;
        }
        state.pointer.seen |= cursor.is_some();
        state.cursor = cursor;
        let tell = state.pointer.here && !state.pointer.told;
        state.pointer.told |= tell;
        self.cursor_changed(state);
        tell
    }

    pub(crate) fn move_cursor(&self, at: (i32, i32)) {
        let mut state = self.lock();
        if state.cursor_at == at {
            return;
        }
        state.cursor_at = at;
        if state.cursor.is_some() {
            self.cursor_changed(state);
        }
    }

    /// Has a frame drawn where that is what shows the cursor, or a recording.
    fn cursor_changed(&self, mut state: std::sync::MutexGuard<'_, super::State>) {
        if !state.pointer.is_hosts || state.recorder.is_some() {
            state.dirty = true;
            drop(state);
            self.changed.notify_one();
        }
    }

    /// The window system's pointer moves the guest's over the window, or does so no longer. Returns what it should look
    /// like; from now on every change is told.
    pub(crate) fn set_pointer_here(&self, here: bool) -> GuestPointer {
        let mut state = self.lock();
        state.pointer.here = here;
        state.pointer.told = false;
        match &state.cursor {
            _ if state.picture.is_none() || !state.pointer.seen => GuestPointer::Unknown,
            Some(cursor) => GuestPointer::Image(Arc::clone(cursor)),
            None => GuestPointer::Hidden,
        }
    }

    /// Whether [`Self::set_pointer_here`] was the last that was said.
    pub(crate) fn has_pointer(&self) -> bool {
        self.lock().pointer.here
    }

    /// The window system shows the guest's cursor from now on, or no longer.
    pub(crate) fn set_host_shows(&self, shows: bool) {
        let mut state = self.lock();
        if state.pointer.is_hosts != shows {
            state.pointer.is_hosts = shows;
            state.dirty |= state.cursor.is_some();
            drop(state);
            self.changed.notify_one();
        }
    }
}
