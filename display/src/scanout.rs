//! The meeting place of a scanout's two sides: the device thread that changes it and the
//! presenter thread that draws it.
//!
//! The device's calls ([`Scanout::flush`] and so on) take a short lock, note what changed and
//! wake the presenter; they never wait for a frame. The presenter takes everything noted since its
//! last frame as one [`Job`] ([`Scanout::next`]), so that any number of flushes between two frames
//! becomes one frame.
//!
//! The one hard thing is [`FlushToken`]s: each must be answered exactly once, whatever happens to
//! window and driver. A token waits only while someone is there to draw ([`State::is_shown`]):
//! otherwise the flush answers it itself. Whoever takes tokens out owes the answer, and a [`Job`]
//! pays when dropped.
//!
//! On Wayland a frame may only be drawn when the compositor asks for one, or the driver would
//! block for as long as the window is hidden; [`Gate`] holds the presenter back until then.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

use crate::cursor::Cursor;
use crate::damage::Damage;
use crate::display::{DisplayEvent, Events, FlushToken};
use crate::picture::{Picture, Rect};
use crate::presenter::Frame;
use crate::screenshot::Shot;

/// How long a page flip waits for the flush that normally follows it at once, so that both become
/// one frame.
const FLIP_GRACE: Duration = Duration::from_millis(20);

/// When a frame that could not be drawn is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// How long a flush waits for a compositor that does not ask for frames. Longer than any sensible
/// refresh interval; short enough that a guest behind a hidden window goes on.
const GATE_PATIENCE: Duration = Duration::from_millis(100);

/// How many flushes can wait for one frame before their list must grow; more than any guest keeps
/// in flight.
const WAITING: usize = 64;

/// Where a screenshot goes; errors are texts of the presenter.
pub(crate) type ShotReply = mpsc::SyncSender<Result<Shot, String>>;

/// One scanout, shared by all sides.
pub(crate) struct Scanout {
    state: Mutex<State>,
    changed: Condvar,
    events: Events,
}

struct State {
    picture: Option<Picture>,
    /// Changed parts of the picture that no frame has copied yet.
    damage: Damage,
    /// Flushes whose pixels are still to be copied.
    waiting: Vec<FlushToken>,
    cursor: Option<Arc<Cursor>>,
    cursor_at: (i32, i32),
    /// The window's inner size in physical pixels.
    size: (u32, u32),
    /// The window can be seen, as far as the window system tells.
    visible: bool,
    /// A presenter thread is drawing this scanout.
    attached: bool,
    /// The next frame shows something new.
    dirty: bool,
    /// Something new that may wait until this moment: a page flip that no flush has followed
    /// yet, or a frame that could not be drawn.
    due: Option<Instant>,
    gate: Gate,
    shots: Vec<ShotReply>,
    /// The presenter shall end.
    stop: bool,
}

/// Whether the window system lets the presenter draw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gate {
    /// It never asks: drawing is paced by the swapchain alone.
    Free,
    /// It has asked for a frame.
    Open,
    /// A frame has been given; it must be told that we would like to draw another.
    Closed,
    /// It has been told, at this moment.
    Asked(Instant),
    /// It has been told and does not ask: the window is hidden.
    Stalled,
}

/// What the presenter shall do now.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Draw the job.
    Draw,
    /// Tell the window system that we would like to draw.
    AskForFrame,
    /// End.
    Stop,
}

/// Everything a frame needs, taken from the scanout at one moment. Reused from frame to frame.
pub(crate) struct Job {
    pub(crate) picture: Option<Picture>,
    pub(crate) damage: Damage,
    pub(crate) cursor: Option<Arc<Cursor>>,
    pub(crate) cursor_at: (i32, i32),
    /// The window's inner size in physical pixels.
    pub(crate) size: (u32, u32),
    /// Whether the frame goes to the window, or only to a screenshot.
    pub(crate) present: bool,
    pub(crate) shots: Vec<ShotReply>,
    tokens: Vec<FlushToken>,
    events: Events,
}

impl Job {
    /// Says that the flushes of this job are no longer being read.
    fn answer(&mut self) {
        for token in self.tokens.drain(..) {
            (self.events)(DisplayEvent::FlushDone(token));
        }
    }

    /// The cursor and where it points.
    pub(crate) fn cursor(&self) -> Option<(&Cursor, (i32, i32))> {
        self.cursor
            .as_deref()
            .map(|cursor| (cursor, self.cursor_at))
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        self.answer();
    }
}

impl State {
    fn is_shown(&self) -> bool {
        self.attached && self.visible && self.gate != Gate::Stalled
    }

    /// Takes out the flushes that no frame is going to answer, if there are any.
    fn orphans(&mut self) -> Option<Vec<FlushToken>> {
        // Room is made here, rarely, and not by the next flush.
        let room = || Vec::with_capacity(WAITING);
        (!self.waiting.is_empty()).then(|| std::mem::replace(&mut self.waiting, room()))
    }

    /// Damages all of the picture and has it drawn.
    fn redraw_all(&mut self) {
        if let Some(picture) = &self.picture {
            self.damage.set(picture.whole());
        }
        self.dirty = true;
    }
}

impl Scanout {
    /// A scanout whose window is going to be `size` pixels large.
    pub(crate) fn new(size: (u32, u32), events: Events) -> Scanout {
        Scanout {
            state: Mutex::new(State {
                picture: None,
                damage: Damage::default(),
                waiting: Vec::with_capacity(WAITING),
                cursor: None,
                cursor_at: (0, 0),
                size,
                visible: true,
                attached: false,
                dirty: true,
                due: None,
                gate: Gate::Free,
                shots: Vec::new(),
                stop: false,
            }),
            changed: Condvar::new(),
            events,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held cannot leave the plain values behind it half-written in
        // a way that matters more than answering the guest.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // The device's side.

    /// Shows another picture, or none. Says whether the mode (size or presence) changed.
    pub(crate) fn set_picture(&self, picture: Option<Picture>) -> bool {
        let mut state = self.lock();
        let mode_set = match (&state.picture, &picture) {
            (Some(old), Some(new)) if old.same_pixels(new) => return false,
            (Some(old), Some(new)) => !old.same_mode(new),
            (None, None) => return false,
            _ => true,
        };
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
        // Dropped without the lock: it may be the last owner of a large mapping.
        drop(old);
        mode_set
    }

    /// Notes that pixels changed; answers `done` when they have been read.
    pub(crate) fn flush(&self, damage: Rect, done: Option<FlushToken>) {
        let mut state = self.lock();
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
                state.waiting.extend(done);
                drop(state);
                self.changed.notify_one();
                return;
            }
        }
        drop(state);
        if let Some(token) = done {
            (self.events)(DisplayEvent::FlushDone(token));
        }
    }

    pub(crate) fn set_cursor(&self, cursor: Option<Arc<Cursor>>) {
        let mut state = self.lock();
        if state.cursor.is_none() && cursor.is_none() {
            return;
        }
        state.cursor = cursor;
        state.dirty = true;
        drop(state);
        self.changed.notify_one();
    }

    pub(crate) fn move_cursor(&self, at: (i32, i32)) {
        let mut state = self.lock();
        if state.cursor_at == at {
            return;
        }
        state.cursor_at = at;
        if state.cursor.is_some() {
            state.dirty = true;
            drop(state);
            self.changed.notify_one();
        }
    }

    /// Size of the picture shown.
    pub(crate) fn mode(&self) -> Option<(u32, u32)> {
        self.lock()
            .picture
            .as_ref()
            .map(|picture| (picture.width(), picture.height()))
    }

    /// Whether the guest draws a pointer over its picture.
    pub(crate) fn has_cursor(&self) -> bool {
        let state = self.lock();
        state.picture.is_some() && state.cursor.is_some()
    }

    /// The scanout as it is now, without a presenter: for headless screenshots.
    pub(crate) fn snapshot(&self) -> Job {
        let mut job = self.job();
        let state = self.lock();
        job.picture.clone_from(&state.picture);
        job.cursor.clone_from(&state.cursor);
        job.cursor_at = state.cursor_at;
        job
    }

    /// Has the next frame copied to `reply`, which may be that of a window still to be opened. The
    /// reply is dropped once the display has ended.
    pub(crate) fn request_shot(&self, reply: ShotReply) {
        let mut state = self.lock();
        if !state.stop {
            state.shots.push(reply);
            drop(state);
            self.changed.notify_one();
        }
    }

    // The window's side.

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
        state.shots.clear();
        drop(state);
        self.changed.notify_one();
    }

    // The presenter's side.

    /// A presenter starts drawing; it has nothing of the picture yet. The guard ends it.
    pub(crate) fn attach(&self, gate: Gate) -> Attached<'_> {
        let mut state = self.lock();
        state.attached = true;
        state.gate = gate;
        state.redraw_all();
        drop(state);
        Attached(self)
    }

    /// An empty job.
    pub(crate) fn job(&self) -> Job {
        Job {
            picture: None,
            damage: Damage::default(),
            cursor: None,
            cursor_at: (0, 0),
            size: (0, 0),
            present: false,
            shots: Vec::new(),
            tokens: Vec::with_capacity(WAITING),
            events: self.events.clone(),
        }
    }

    /// Waits until there is something to draw and moves it to `job`.
    pub(crate) fn next(&self, job: &mut Job) -> Next {
        let mut state = self.lock();
        loop {
            if state.stop {
                return Next::Stop;
            }
            let now = Instant::now();
            if state.due.is_some_and(|until| until <= now) {
                state.due = None;
                state.dirty = true;
            }
            let drawable = state.visible && state.dirty;
            let mut deadline = state.due.filter(|_| state.visible);
            if !state.shots.is_empty() {
                let present = drawable && matches!(state.gate, Gate::Free | Gate::Open);
                Self::take(&mut state, job, present);
                return Next::Draw;
            }
            if drawable {
                match state.gate {
                    Gate::Free | Gate::Open => {
                        Self::take(&mut state, job, true);
                        return Next::Draw;
                    }
                    Gate::Closed => {
                        state.gate = Gate::Asked(now);
                        return Next::AskForFrame;
                    }
                    Gate::Asked(since) if now >= since + GATE_PATIENCE => {
                        state.gate = Gate::Stalled;
                        std::mem::swap(&mut state.waiting, &mut job.tokens);
                        drop(state);
                        job.answer();
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
                    let waited = self.changed.wait_timeout(state, patience);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn take(state: &mut State, job: &mut Job, present: bool) {
        job.picture.clone_from(&state.picture);
        job.damage = std::mem::take(&mut state.damage);
        job.cursor.clone_from(&state.cursor);
        job.cursor_at = state.cursor_at;
        job.size = state.size;
        job.present = present;
        std::mem::swap(&mut state.shots, &mut job.shots);
        std::mem::swap(&mut state.waiting, &mut job.tokens);
        state.due = None;
        if present {
            state.dirty = false;
            if state.gate == Gate::Open {
                state.gate = Gate::Closed;
            }
        }
    }

    /// Ends a job. What the frame could not do is done again later.
    pub(crate) fn finish(&self, job: &mut Job, Frame { copied, presented }: Frame) {
        job.answer();
        for shot in job.shots.drain(..) {
            // Failing means that nobody waits for it any more.
            let _ = shot.try_send(Err("the window has no pixels now".to_owned()));
        }
        let picture = job.picture.take();
        if !copied || (job.present && !presented) {
            let mut state = self.lock();
            if !copied {
                let same = match (&state.picture, &picture) {
                    (Some(now), Some(then)) => now.same_pixels(then),
                    _ => false,
                };
                // Another picture is wholly damaged already.
                if same {
                    let missed = job.damage;
                    state.damage.merge(&missed);
                }
            }
            state.due = Some(Instant::now() + RETRY);
        }
        job.damage = Damage::default();
    }

    fn answer(&self, tokens: Option<Vec<FlushToken>>) {
        for token in tokens.into_iter().flatten() {
            (self.events)(DisplayEvent::FlushDone(token));
        }
    }
}

/// A presenter is drawing for as long as this lives. Ending it answers what still waits.
pub(crate) struct Attached<'a>(&'a Scanout);

impl Drop for Attached<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.attached = false;
        let orphans = state.orphans();
        drop(state);
        self.0.answer(orphans);
    }
}

#[cfg(test)]
mod tests;
