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

mod cursor;
mod osd;

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

pub(crate) use self::cursor::GuestPointer;
use self::osd::Said;
use crate::cursor::Cursor;
use crate::damage::Damage;
use crate::desktop::Shown;
use crate::display::{DisplayEvent, Events, FlushToken};
pub(crate) use crate::frame::Job;
use crate::picture::{Picture, Rect};
use crate::presenter::Frame;
use crate::record::Recorder;
use crate::screenshot::Shot;
use crate::statistics::Frames;

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
    pointer: cursor::State,
    /// The window's inner size in physical pixels.
    size: (u32, u32),
    /// The window can be seen, as far as the window system tells.
    visible: bool,
    /// The window is not minimised, as far as its presenter has found out.
    mapped: bool,
    /// What Hesper itself says in the window.
    said: Said,
    /// When the first flush came that no frame shows yet.
    flushed_at: Option<Instant>,
    frames: Frames,
    recorder: Option<Recorder>,
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
    window: Presence,
}

/// Whether a scanout has a window, and a monitor for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// There is a window, or is going to be. Only now do presenters draw.
    Shown,
    /// There is none, and the guest's monitor is still plugged in.
    Hidden,
    /// Neither.
    Unplugged,
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

impl State {
    fn is_shown(&self) -> bool {
        self.attached && self.visible && self.mapped && self.gate != Gate::Stalled
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
                pointer: cursor::State::default(),
                size,
                visible: true,
                mapped: true,
                said: Said::default(),
                flushed_at: None,
                frames: Frames::default(),
                recorder: None,
                attached: false,
                dirty: true,
                due: None,
                gate: Gate::Free,
                shots: Vec::new(),
                stop: false,
                window: Presence::Shown,
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
        if picture.is_none() {
            state.pointer.forget();
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
        // Dropped without the lock: it may be the last owner of a large mapping.
        drop(old);
        mode_set
    }

    /// Notes that pixels changed; answers `done` when they have been read.
    pub(crate) fn flush(&self, damage: Rect, done: Option<FlushToken>) {
        let mut state = self.lock();
        state.frames.flushes += 1;
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
        state.frames.unseen += 1;
        drop(state);
        if let Some(token) = done {
            (self.events)(DisplayEvent::FlushDone(token));
        }
    }

    /// Size of the picture shown.
    pub(crate) fn mode(&self) -> Option<(u32, u32)> {
        self.lock()
            .picture
            .as_ref()
            .map(|picture| (picture.width(), picture.height()))
    }

    /// What the guest's monitor is now.
    pub(crate) fn shown(&self) -> Shown {
        let state = self.lock();
        match &state.picture {
            _ if state.window == Presence::Unplugged => Shown::Absent,
            Some(picture) => Shown::Lit(picture.clone()),
            None => Shown::Dark(state.size),
        }
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
        if !state.stop && state.window == Presence::Shown {
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
        state.shots.clear();
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
        state.pointer.leave();
        if window != Presence::Shown {
            state.shots.clear();
        }
        drop(state);
        self.changed.notify_one();
        news
    }

    /// Whether there is a window.
    pub(crate) fn presence(&self) -> Presence {
        self.lock().window
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

    /// The window was found minimised, or not. Not every window system says so, nor that it is over; but then it
    /// wants a frame.
    pub(crate) fn set_mapped(&self, mapped: bool) {
        let mut state = self.lock();
        state.mapped = mapped;
        state.dirty = true;
        let orphans = if mapped { None } else { state.orphans() };
        drop(state);
        self.answer(orphans);
    }

    /// How frames have done.
    pub(crate) fn frames(&self) -> Frames {
        self.lock().frames
    }

    /// Where presented frames are written to, besides the window.
    pub(crate) fn recorder(&self) -> Option<Recorder> {
        self.lock().recorder.clone()
    }

    pub(crate) fn set_recorder(&self, recorder: Option<Recorder>) {
        let old = std::mem::replace(&mut self.lock().recorder, recorder);
        // Without the lock: it may be the last, and wait for its files.
        drop(old);
    }

    /// An empty job.
    pub(crate) fn job(&self) -> Job {
        Job {
            picture: None,
            damage: Damage::default(),
            cursor: None,
            cursor_at: (0, 0),
            cursor_is_hosts: false,
            size: (0, 0),
            present: false,
            shots: Vec::new(),
            centre: None,
            corner: None,
            flushed_at: None,
            tokens: Vec::with_capacity(WAITING),
            events: self.events.clone(),
        }
    }

    /// Waits until there is something to draw and moves it to `job`.
    pub(crate) fn next(&self, job: &mut Job) -> Next {
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
            if state.said.expire(now) {
                state.dirty = true;
            }
            let in_sight = state.visible && state.mapped;
            let drawable = in_sight && state.dirty;
            let mut deadline = state.due.filter(|_| in_sight);
            if let Some(expiry) = state.said.expiry() {
                deadline = Some(deadline.map_or(expiry, |deadline| deadline.min(expiry)));
            }
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
        job.cursor_is_hosts = state.pointer.is_hosts();
        job.size = state.size;
        job.present = present;
        job.centre = state.said.in_the_middle(state.picture.is_some());
        job.corner = state.said.in_the_corner();
        job.flushed_at = state.flushed_at.take_if(|_| present);
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

    /// Ends a job. What the frame could not do is done again later. Returns how long ago the flush was that the frame
    /// shows.
    pub(crate) fn finish(
        &self,
        job: &mut Job,
        Frame { copied, presented }: Frame,
    ) -> Option<Duration> {
        job.answer();
        for shot in job.shots.drain(..) {
            // Failing means that nobody waits for it any more.
            let _ = shot.try_send(Err("the window has no pixels now".to_owned()));
        }
        let picture = job.picture.take();
        let latency = job.flushed_at.take().map(|at| at.elapsed());
        let latency = latency.filter(|_| presented);
        let mut state = self.lock();
        state.frames.presented += u64::from(presented);
        if let Some(latency) = latency {
            state.frames.note_latency(latency);
        }
        if !copied || (job.present && !presented) {
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
        drop(state);
        job.damage = Damage::default();
        latency
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
