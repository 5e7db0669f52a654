//! The window's side of a scanout: what the main thread learns from the window and shows in it.

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

    /// The window system wants a frame now: it was asked for one, or the window was uncovered.
    pub(crate) fn frame_wanted(&self) {
        let mut state = self.lock();
        state.mapped = true;
        match state.gate {
            // It was not asked: the contents of the window were lost.
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

    /// Ends the presenter after its current frame. A later presenter ends at once.
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.stop = true;
        // Dropping a reply tells the screenshot that there will be no image.
        state.image_replies.clear();
        drop(state);
        self.changed.notify_one();
    }

    /// The window is closed, or may be opened again. Returns whether that is new.
    pub(crate) fn set_presence(&self, window: Presence) -> bool {
        let mut state = self.lock();
        let news = state.window != window;
        state.window = window;
        // A window that was hidden when it closed is visible when it comes back.
        (state.visible, state.mapped) = (true, true);
        state.cursor_state.leave();
        if window != Presence::Shown {
            state.image_replies.clear();
        }
        drop(state);
        self.changed.notify_one();
        news
    }

    /// Whether there is a window, and a monitor.
    pub(crate) fn presence(&self) -> Presence {
        self.lock().window
    }

    /// The host's pointer is over the window and moves the guest's, or no longer. Returns what it
    /// should look like. From now on the event loop is told of every change.
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

    /// Whether the host's pointer is over the window, as last set by
    /// [`Self::set_host_pointer_over`].
    pub(crate) fn host_pointer_is_over(&self) -> bool {
        self.lock().cursor_state.pointer_over
    }

    /// The window system shows the guest's cursor from now on, or no longer does.
    pub(crate) fn set_cursor_on_host(&self, shows: bool) {
        let mut state = self.lock();
        if state.cursor_state.on_host != shows {
            state.cursor_state.on_host = shows;
            state.dirty |= state.cursor.is_some();
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Shows the dialog in the middle of the window, or removes it.
    pub(crate) fn set_dialog(&self, dialog: Option<(String, Arc<Label>)>) {
        self.change(|state| {
            state.osd.set_dialog(dialog);
        });
    }

    /// Draws texts for a screen with this many physical pixels per logical one.
    pub(crate) fn set_scale(&self, scale: f64) {
        self.change(|state| {
            state.osd.set_scale(scale);
        });
    }

    /// The scale that was last set. A window of X11 may keep reporting an old one.
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
