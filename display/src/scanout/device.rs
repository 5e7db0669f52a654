//! The device's side of a scanout: the guest's picture and cursor, and the texts of the program.

use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use super::Scanout;
use super::state::ScanoutState;
use crate::cursor::Cursor;
use crate::damage::Damage;
use crate::desktop::MonitorContent;
use crate::events::{DisplayEvent, FlushToken};
use crate::frame::Frame;
use crate::frame_image::ImageReply;
use crate::monitor::Presence;
use crate::picture::{Picture, Rect};

/// How long a page flip waits for its flush, which normally follows at once. Then both become one
/// frame.
pub(super) const FLIP_GRACE: Duration = Duration::from_millis(20);

impl Scanout {
    /// Shows another picture, or none. Returns whether the mode (size or presence) changed.
    pub(crate) fn set_picture(&self, picture: Option<Picture>) -> bool {
        let mut state = self.lock();
        let mode_set = match (&state.picture, &picture) {
            (Some(old), Some(new)) if old.same_pixels(new) => return false,
            (Some(old), Some(new)) => !old.same_mode(new),
            (None, None) => return false,
            _ => true,
        };
        if picture.is_none() {
            state.cursor_state.forget();
        }
        let old = std::mem::replace(&mut state.picture, picture);
        let was_dirty = state.dirty;
        state.damage = Damage::default();
        state.redraw_all();
        if !mode_set && !was_dirty {
            state.dirty = false;
            state.due.get_or_insert(Instant::now() + FLIP_GRACE);
        }
        drop(state);
        self.changed.notify_one();
        // Dropped after the lock is released: it may be the last owner of a large mapping.
        drop(old);
        mode_set
    }

    /// Notes that pixels have changed. `done` is answered when they have been read.
    pub(crate) fn flush(&self, damage: Rect, done: Option<FlushToken>) {
        let mut state = self.lock();
        state.statistics.flushes += 1;
        let damage = state
            .picture
            .as_ref()
            .map(|picture| damage.clipped(picture.width(), picture.height()))
            .filter(|damage| !damage.is_empty());
        if let Some(damage) = damage {
            state.damage.add(damage);
            state.dirty = true;
            state.due = None;
            if state.is_shown() {
                state.flushed_at.get_or_insert_with(Instant::now);
                state.waiting.extend(done);
                drop(state);
                self.changed.notify_one();
                return;
            }
        }
        state.statistics.unseen += 1;
        drop(state);
        if let Some(token) = done {
            (self.events)(DisplayEvent::FlushDone(token));
        }
    }

    /// The size of the picture.
    pub(crate) fn mode(&self) -> Option<(u32, u32)> {
        self.lock()
            .picture
            .as_ref()
            .map(|picture| (picture.width(), picture.height()))
    }

    /// What the guest's monitor shows.
    pub(crate) fn monitor_content(&self) -> MonitorContent {
        let state = self.lock();
        match &state.picture {
            _ if state.window == Presence::Unplugged => MonitorContent::Unplugged,
            Some(picture) => MonitorContent::Picture(picture.clone()),
            None => MonitorContent::Blank(state.size),
        }
    }

    /// The frame of this moment, without a presenter: for headless screenshots.
    pub(crate) fn snapshot(&self) -> Frame {
        let mut frame = self.new_frame();
        let state = self.lock();
        frame.picture.clone_from(&state.picture);
        frame.cursor.clone_from(&state.cursor);
        frame.cursor_at = state.cursor_at;
        frame
    }

    /// Sends the image of the next frame to `reply`. The frame may be that of a window that is
    /// about to open. If the display ends first, `reply` is dropped.
    pub(crate) fn request_image(&self, reply: ImageReply) {
        let mut state = self.lock();
        if !state.stop && state.window == Presence::Shown {
            state.image_replies.push(reply);
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Shows another cursor, or none. Returns whether the event loop must be told.
    pub(crate) fn set_cursor(&self, cursor: Option<Arc<Cursor>>) -> bool {
        let mut state = self.lock();
        if state.cursor.is_none() && cursor.is_none() {
            return false;
        }
        state.cursor_state.seen |= cursor.is_some();
        state.cursor = cursor;
        let tell = state.cursor_state.pointer_over && !state.cursor_state.change_pending;
        state.cursor_state.change_pending |= tell;
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

    /// Draws a frame if a frame shows the cursor: in the window or in a recording.
    fn cursor_changed(&self, mut state: MutexGuard<'_, ScanoutState>) {
        if !state.cursor_state.on_host || state.recorder.is_some() {
            state.dirty = true;
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Shows this text in the middle of the window while the guest shows no picture. An empty text
    /// removes it.
    pub(crate) fn set_message(&self, text: &str) {
        self.change(|state| {
            state.osd.set_message(text);
        });
    }

    /// The text in the middle of the window now.
    pub(crate) fn shown_text(&self) -> Option<String> {
        let mut state = self.lock();
        // Without a presenter nobody else removes old notices.
        state.osd.expire(Instant::now());
        let text = state.osd.text(state.picture.is_some());
        text.map(str::to_owned)
    }

    /// Shows this text over the guest's picture for a while.
    pub(crate) fn notice(&self, text: &str) {
        self.change(|state| {
            state.osd.set_notice(text, Instant::now());
        });
    }
}
