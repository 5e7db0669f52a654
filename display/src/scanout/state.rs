//! What the sides of a scanout share, behind its lock.

use std::sync::Arc;
use std::time::Instant;

use super::cursor::CursorState;
use super::osd::Osd;
use crate::cursor::Cursor;
use crate::damage::Damage;
use crate::events::FlushToken;
use crate::frame_image::ImageReply;
use crate::monitor::Presence;
use crate::picture::Picture;
use crate::record::Recorder;
use crate::statistics::FrameStatistics;

/// How many flushes can wait for one frame before their list must grow. No guest keeps so many in
/// flight.
pub(super) const WAITING: usize = 64;

pub(super) struct ScanoutState {
    pub(super) picture: Option<Picture>,
    /// Parts of the picture that have changed and that no frame has copied yet.
    pub(super) damage: Damage,
    /// Flushes whose pixels have not been copied yet.
    pub(super) waiting: Vec<FlushToken>,
    pub(super) cursor: Option<Arc<Cursor>>,
    pub(super) cursor_at: (i32, i32),
    pub(super) cursor_state: CursorState,
    /// The window's inner size in physical pixels.
    pub(super) size: (u32, u32),
    /// The window can be seen, as far as the window system tells.
    pub(super) visible: bool,
    /// The window is not minimised, as far as its presenter has found out.
    pub(super) mapped: bool,
    pub(super) osd: Osd,
    /// When the first flush arrived that no frame shows yet.
    pub(super) flushed_at: Option<Instant>,
    pub(super) statistics: FrameStatistics,
    pub(super) recorder: Option<Recorder>,
    /// A presenter thread is drawing this scanout.
    pub(super) attached: bool,
    /// The next frame shows something new.
    pub(super) dirty: bool,
    /// When to draw something new that may wait: a page flip that no flush has followed yet, or a
    /// frame that could not be drawn.
    pub(super) due: Option<Instant>,
    pub(super) gate: Gate,
    pub(super) image_replies: Vec<ImageReply>,
    /// The presenter must end.
    pub(super) stop: bool,
    pub(super) window: Presence,
}

/// Whether the window system lets the presenter draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// The window system does not ask for frames: the swapchain alone paces drawing.
    Free,
    /// The window system has asked for a frame.
    Open,
    /// A frame has been presented. The window system must be told when another one is waiting.
    Closed,
    /// The window system was told so at this time.
    Asked(Instant),
    /// The window system was told and does not ask: the window is hidden.
    Stalled,
}

impl ScanoutState {
    /// The state for a window that will be `size` pixels large.
    pub(super) fn new(size: (u32, u32)) -> ScanoutState {
        ScanoutState {
            picture: None,
            damage: Damage::default(),
            waiting: Vec::with_capacity(WAITING),
            cursor: None,
            cursor_at: (0, 0),
            cursor_state: CursorState::default(),
            size,
            visible: true,
            mapped: true,
            osd: Osd::default(),
            flushed_at: None,
            statistics: FrameStatistics::default(),
            recorder: None,
            attached: false,
            dirty: true,
            due: None,
            gate: Gate::Free,
            image_replies: Vec::new(),
            stop: false,
            window: Presence::Shown,
        }
    }

    pub(super) fn is_shown(&self) -> bool {
        self.attached && self.visible && self.mapped && self.gate != Gate::Stalled
    }

    /// Takes out the flushes that no frame is going to answer, if there are any.
    pub(super) fn orphans(&mut self) -> Option<Vec<FlushToken>> {
        // The room is allocated here, rarely, and not by the next flush.
        let room = || Vec::with_capacity(WAITING);
        (!self.waiting.is_empty()).then(|| std::mem::replace(&mut self.waiting, room()))
    }

    /// Damages all of the picture and has it drawn.
    pub(super) fn redraw_all(&mut self) {
        if let Some(picture) = &self.picture {
            self.damage.set(picture.whole());
        }
        self.dirty = true;
    }

    /// The sizes of picture and window, for the overlay.
    pub(super) fn sizes(&self) -> String {
        let (width, height) = self.size;
        match &self.picture {
            Some(picture) => format!(
                "{}×{} in a window of {width}×{height}",
                picture.width(),
                picture.height()
            ),
            None => format!("no picture in a window of {width}×{height}"),
        }
    }
}
