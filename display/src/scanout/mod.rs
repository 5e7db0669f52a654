//! A scanout: the place where the device thread that changes it meets the presenter that draws it.
//!
//! The device's calls ([`Scanout::flush`] and others) take a short lock, note what has changed, and
//! wake the presenter. They never wait for a frame. The presenter takes everything that was noted
//! since its last frame as one [`Frame`](crate::frame::Frame) ([`Scanout::next`]). So any number of
//! flushes between two frames becomes one frame.
//!
//! The hard part is the [`FlushToken`]s: each must be answered exactly once, whatever happens to
//! the window and the driver. A token waits only while a presenter is there to draw
//! ([`ScanoutState::is_shown`]). Otherwise the flush answers it itself. Whoever takes tokens out of
//! the state must answer them; a `Frame` does so when it is dropped.
//!
//! On Wayland a frame may only be drawn when the compositor asks for one: otherwise the driver
//! would block for as long as the window is hidden. [`Gate`] holds the presenter back until then.
//!
//! `state.rs` is what the lock protects; `osd.rs` and `cursor.rs` are parts of it. Each side has a
//! file with its calls: `device.rs`, `window.rs`, `presenter.rs`.

mod cursor;
mod device;
mod osd;
mod presenter;
mod state;
mod window;

use std::sync::{Condvar, Mutex, MutexGuard};

use hesper_system::sync::Lock;

pub(crate) use self::cursor::GuestCursor;
pub(crate) use self::presenter::Next;
pub(crate) use self::state::Gate;
use self::state::ScanoutState;
use crate::events::{DisplayEvent, EventCallback, FlushToken};

/// One scanout, shared by all sides.
pub(crate) struct Scanout {
    state: Mutex<ScanoutState>,
    changed: Condvar,
    events: EventCallback,
}

impl Scanout {
    /// A scanout whose window will be `size` pixels large.
    pub(crate) fn new(size: (u32, u32), events: EventCallback) -> Scanout {
        Scanout {
            state: Mutex::new(ScanoutState::new(size)),
            changed: Condvar::new(),
            events,
        }
    }

    fn lock(&self) -> MutexGuard<'_, ScanoutState> {
        self.state.locked()
    }

    /// Changes something that the window shows, and has it drawn.
    fn change(&self, change: impl FnOnce(&mut ScanoutState)) {
        let mut state = self.lock();
        change(&mut state);
        state.dirty = true;
        drop(state);
        self.changed.notify_one();
    }

    fn answer(&self, tokens: Option<Vec<FlushToken>>) {
        for token in tokens.into_iter().flatten() {
            (self.events)(DisplayEvent::FlushDone(token));
        }
    }
}

#[cfg(test)]
mod tests;
