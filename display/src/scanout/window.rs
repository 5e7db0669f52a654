//! The window's side of a scanout: what the main thread hears of the window and shows in it.

use std::sync::Arc;

use super::Scanout;
use super::cursor::GuestCursor;
use super::state::Gate;
use crate::label::Label;
use crate::monitor::Presence;

impl Scanout {
    pub(crate) fn set_size(&self, size: (u32, u32)) {
        let mut state = self.lock();
        if state.size != size {
            state.size = size;
            state.dirty = true;
            drop(state);
            self.changed.notify_one();
        }
    }

    pub(crate) fn set_visible(&self, visible: bool) {
        let mut state = self.lock();
        state.visible = visible;
        state.mapped |= visible;
        state.dirty = true;
        let orphans = if state.is_shown() {
            None
        } else {
            state.orphans()
        };
        drop(state);
        self.changed.notify_one();
        self.answer(orphans);
    }

    /// The window system wants a frame now: its turn has come, or the window was uncovered.
    pub(crate) fn frame_wanted(&self) {
        let mut state = self.lock();
        state.mapped = true;
        match state.gate {
            // Nobody asked: the window's contents were lost.
            Gate::Free => state.dirty = true,
            Gate::Open => {}
            Gate::Closed => {
                state.gate = Gate::Open;
                state.dirty = true;
            }
            Gate::Asked(_) | Gate::Stalled => state.gate = Gate::Open,
        }
        drop(state);
        self.changed.notify_one();
    }

    /// Has the presenter end after its current frame, and any that comes later at once.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.stop = true;
        // Dropping a reply tells its screenshot that there will be none.
        state.image_replies.clear();
        drop(state);
        self.changed.notify_one();
    }

    /// The window goes away, or may come back. Says whether that is news.
    pub(crate) fn set_presence(&self, window: Presence) -> bool {
        let mut state = self.lock();
        let news = state.window != window;
        state.window = window;
        // A window that was hidden when it went comes back in sight.
        (state.visible, state.mapped) = (true, true);
        state.cursor_state.leave();
        if window != Presence::Shown {
            state.image_replies.clear();
        }
        drop(state);
        self.changed.notify_one();
        news
    }

    /// Whether there is a window.
    pub(crate) fn presence(&self) -> Presence {
        self.lock().window
    }

    /// The window system's pointer moves the guest's over the window, or does so no longer. Returns what it should look
    /// like; from now on every change is told.
    pub(crate) fn set_host_pointer_over(&self, here: bool) -> GuestCursor {
        let mut state = self.lock();
        state.cursor_state.pointer_over = here;
        state.cursor_state.change_pending = false;
        match &state.cursor {
            _ if state.picture.is_none() || !state.cursor_state.seen => GuestCursor::Unknown,
            Some(cursor) => GuestCursor::Image(Arc::clone(cursor)),
            None => GuestCursor::Hidden,
        }
    }

    /// Whether [`Self::set_host_pointer_over`] was the last that was said.
    pub(crate) fn host_pointer_is_over(&self) -> bool {
        self.lock().cursor_state.pointer_over
    }

    /// The window system shows the guest's cursor from now on, or no longer.
    pub(crate) fn set_cursor_on_host(&self, shows: bool) {
        let mut state = self.lock();
        if state.cursor_state.on_host != shows {
            state.cursor_state.on_host = shows;
            state.dirty |= state.cursor.is_some();
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Asks this in the middle of the window until it is answered.
    pub(crate) fn set_dialog(&self, dialog: Option<(String, Arc<Label>)>) {
        self.change(|state| {
            state.osd.set_dialog(dialog);
        });
    }

    /// Text is to be as large as on a screen with so many physical pixels in a logical one.
    pub(crate) fn set_scale(&self, scale: f64) {
        self.change(|state| {
            state.osd.set_scale(scale);
        });
    }

    /// What [`Self::set_scale`] has said last. A window of X11 may go on telling an old scale of itself.
    pub(crate) fn scale(&self) -> f64 {
        self.lock().osd.scale()
    }

    /// Turns the overlay on or off.
    pub(crate) fn toggle_overlay(&self) {
        self.change(|state| {
            if !state.osd.remove_overlay() {
                let sizes = state.sizes();
                state.osd.set_overlay(&sizes, "no frames yet");
            }
        });
    }
}
