//! A frame: what it is drawn from, and what became of it.

use std::sync::Arc;
use std::time::Instant;

use crate::cursor::Cursor;
use crate::damage::Damage;
use crate::events::{DisplayEvent, EventCallback, FlushToken};
use crate::frame_image::ImageReply;
use crate::label::Label;
use crate::picture::Picture;

/// Everything that is needed to draw a frame, taken from the scanout at one moment. Reused from
/// frame to frame.
pub(crate) struct Frame {
    pub(crate) picture: Option<Picture>,
    pub(crate) damage: Damage,
    pub(crate) cursor: Option<Arc<Cursor>>,
    pub(crate) cursor_at: (i32, i32),
    /// The window system shows the cursor as its pointer, so the frame for the window is drawn
    /// without it. Screenshots have it.
    pub(crate) cursor_on_host: bool,
    /// The window's inner size in physical pixels.
    pub(crate) size: (u32, u32),
    /// Whether the frame goes to the window, or only to screenshots.
    pub(crate) present: bool,
    pub(crate) image_replies: Vec<ImageReply>,
    /// The text in the middle of the window.
    pub(crate) centre: Option<Arc<Label>>,
    /// The text in the upper left corner.
    pub(crate) corner: Option<Arc<Label>>,
    /// When the first flush arrived that this frame is the first to show.
    pub(crate) flushed_at: Option<Instant>,
    pub(crate) tokens: Vec<FlushToken>,
    pub(crate) events: EventCallback,
}

impl Frame {
    /// Answers the flushes of this frame: their pixels are no longer being read.
    pub(crate) fn answer(&mut self) {
        for token in self.tokens.drain(..) {
            (self.events)(DisplayEvent::FlushDone(token));
        }
    }

    /// The cursor, and the pixel of the picture at which it points.
    pub(crate) fn cursor(&self) -> Option<(&Cursor, (i32, i32))> {
        self.cursor
            .as_deref()
            .map(|cursor| (cursor, self.cursor_at))
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        self.answer();
    }
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameOutcome {
    /// The damage has been copied from the guest's memory.
    pub(crate) copied: bool,
    /// The window system has taken the frame.
    pub(crate) presented: bool,
}

impl FrameOutcome {
    /// Nothing was drawn: the window has no pixels now.
    pub(crate) const NONE: FrameOutcome = FrameOutcome {
        copied: false,
        presented: false,
    };
}
