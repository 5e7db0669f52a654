//! The presenter's side of a scanout: what to draw next, and what became of it.

use std::time::{Duration, Instant};

use hesper_system::sync::Wait;

use super::Scanout;
use super::state::{Gate, ScanoutState, WAITING};
use crate::damage::Damage;
use crate::frame::{Frame, FrameOutcome};
use crate::monitor::Presence;
use crate::record::Recorder;
use crate::statistics::FrameStatistics;

/// How long to wait before a frame that could not be drawn is tried again.
pub(super) const RETRY: Duration = Duration::from_millis(100);

/// How long a flush waits for a compositor that does not ask for frames. Longer than any sensible
/// refresh interval, but short enough that a guest behind a hidden window goes on.
pub(super) const GATE_PATIENCE: Duration = Duration::from_millis(100);

/// What the presenter must do now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Draw the frame.
    Draw,
    /// Tell the window system that a frame is waiting.
    AskForFrame,
    /// End.
    Stop,
}

impl Scanout {
    /// A presenter starts to draw. It must copy the whole picture first. Dropping the guard ends
    /// it.
    pub(crate) fn attach(&self, gate: Gate) -> Attached<'_> {
        let mut state = self.lock();
        state.attached = true;
        state.gate = gate;
        state.redraw_all();
        drop(state);
        Attached(self)
    }

    /// The presenter has found the window minimised, or no longer. Not every window system says so.
    /// Some do not say that the window is back either, but then they ask for a frame.
    pub(crate) fn set_mapped(&self, mapped: bool) {
        let mut state = self.lock();
        state.mapped = mapped;
        state.dirty = true;
        let orphans = if mapped { None } else { state.orphans() };
        drop(state);
        self.answer(orphans);
    }

    /// The counts and latencies of the frames so far.
    pub(crate) fn statistics(&self) -> FrameStatistics {
        self.lock().statistics
    }

    /// The recorder to which presented frames are sent, if there is one.
    pub(crate) fn recorder(&self) -> Option<Recorder> {
        self.lock().recorder.clone()
    }

    pub(crate) fn set_recorder(&self, recorder: Option<Recorder>) {
        let old = std::mem::replace(&mut self.lock().recorder, recorder);
        // Dropped after the lock is released: it may be the last one, which waits for its files.
        drop(old);
    }

    /// An empty frame.
    pub(crate) fn new_frame(&self) -> Frame {
        Frame {
            picture: None,
            damage: Damage::default(),
            cursor: None,
            cursor_at: (0, 0),
            cursor_on_host: false,
            size: (0, 0),
            present: false,
            image_replies: Vec::new(),
            centre: None,
            corner: None,
            flushed_at: None,
            tokens: Vec::with_capacity(WAITING),
            events: self.events.clone(),
        }
    }

    /// Waits until there is something to draw, and moves it to `frame`.
    pub(crate) fn next(&self, frame: &mut Frame) -> Next {
        let mut state = self.lock();
        loop {
            if state.stop || state.window != Presence::Shown {
                return Next::Stop;
            }
            let now = Instant::now();
            if state.due.is_some_and(|until| until <= now) {
                state.due = None;
                state.dirty = true;
            }
            if state.osd.expire(now) {
                state.dirty = true;
            }
            let in_sight = state.visible && state.mapped;
            let drawable = in_sight && state.dirty;
            let mut deadline = state.due.filter(|_| in_sight);
            if let Some(expiry) = state.osd.expiry() {
                deadline = Some(deadline.map_or(expiry, |deadline| deadline.min(expiry)));
            }
            if !state.image_replies.is_empty() {
                let present = drawable && matches!(state.gate, Gate::Free | Gate::Open);
                Self::take(&mut state, frame, present);
                return Next::Draw;
            }
            if drawable {
                match state.gate {
                    Gate::Free | Gate::Open => {
                        Self::take(&mut state, frame, true);
                        return Next::Draw;
                    }
                    Gate::Closed => {
                        state.gate = Gate::Asked(now);
                        return Next::AskForFrame;
                    }
                    Gate::Asked(since) if now >= since + GATE_PATIENCE => {
                        state.gate = Gate::Stalled;
                        std::mem::swap(&mut state.waiting, &mut frame.tokens);
                        drop(state);
                        frame.answer();
                        state = self.lock();
                        continue;
                    }
                    Gate::Asked(since) => deadline = Some(since + GATE_PATIENCE),
                    Gate::Stalled => deadline = None,
                }
            }
            state = match deadline {
                Some(until) => {
                    let patience = until.saturating_duration_since(now);
                    self.changed.waited_for(state, patience).0
                }
                None => self.changed.waited(state),
            };
        }
    }

    fn take(state: &mut ScanoutState, frame: &mut Frame, present: bool) {
        frame.picture.clone_from(&state.picture);
        frame.damage = std::mem::take(&mut state.damage);
        frame.cursor.clone_from(&state.cursor);
        frame.cursor_at = state.cursor_at;
        frame.cursor_on_host = state.cursor_state.on_host;
        frame.size = state.size;
        frame.present = present;
        frame.centre = state.osd.in_the_middle(state.picture.is_some());
        frame.corner = state.osd.in_the_corner();
        frame.flushed_at = state.flushed_at.take_if(|_| present);
        std::mem::swap(&mut state.image_replies, &mut frame.image_replies);
        std::mem::swap(&mut state.waiting, &mut frame.tokens);
        state.due = None;
        if present {
            state.dirty = false;
            if state.gate == Gate::Open {
                state.gate = Gate::Closed;
            }
        }
    }

    /// Ends a frame. What it could not do is done again later. Returns the time since the flush
    /// that the frame shows.
    pub(crate) fn finish(
        &self,
        frame: &mut Frame,
        FrameOutcome { copied, presented }: FrameOutcome,
    ) -> Option<Duration> {
        frame.answer();
        for shot in frame.image_replies.drain(..) {
            // Failing means that nobody waits for the image any more.
            let _ = shot.try_send(Err("the window has no pixels now".to_owned()));
        }
        let picture = frame.picture.take();
        let latency = frame.flushed_at.take().map(|at| at.elapsed());
        let latency = latency.filter(|_| presented);
        let mut state = self.lock();
        state.statistics.presented += u64::from(presented);
        if let Some(latency) = latency {
            state.statistics.note_latency(latency);
        }
        if !copied || (frame.present && !presented) {
            if !copied {
                let same = match (&state.picture, &picture) {
                    (Some(now), Some(then)) => now.same_pixels(then),
                    _ => false,
                };
                // Another picture is damaged as a whole anyway.
                if same {
                    let missed = frame.damage;
                    state.damage.merge(&missed);
                }
            }
            state.due = Some(Instant::now() + RETRY);
        }
        drop(state);
        frame.damage = Damage::default();
        latency
    }

    pub(crate) fn has_overlay(&self) -> bool {
        self.lock().osd.has_overlay()
    }

    /// Sets what draws the window, for the overlay.
    pub(crate) fn set_presenter_name(&self, name: &str) {
        self.lock().osd.set_presenter_name(name);
    }

    /// Sets new figures for the overlay. The next frame shows them: they alone cause no frame, so
    /// that an idle screen stays idle.
    pub(crate) fn set_figures(&self, figures: &str) {
        let mut state = self.lock();
        if state.osd.has_overlay() {
            let sizes = state.sizes();
            state.osd.set_overlay(&sizes, figures);
        }
    }
}

/// A presenter draws for as long as this lives. Dropping it answers the flushes that still wait.
pub(crate) struct Attached<'a>(pub(super) &'a Scanout);

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.attached = false;
        let orphans = state.orphans();
        drop(state);
        self.0.answer(orphans);
    }
}
