//! The meeting place of a scanout's two sides: the device thread that changes it and the
//! presenter thread that draws it.
//!
//! The device's calls ([`Scanout::flush`] and so on) take a short lock, note what changed and
//! wake the presenter; they never wait for a frame. The presenter takes everything noted since its
//! last frame as one [`Frame`](crate::frame::Frame) ([`Scanout::next`]), so that any number of flushes between two frames
//! becomes one frame.
//!
//! The one hard thing is [`FlushToken`]s: each must be answered exactly once, whatever happens to
//! window and driver. A token waits only while someone is there to draw ([`ScanoutState::is_shown`]):
//! otherwise the flush answers it itself. Whoever takes tokens out owes the answer, and a `Frame`
//! pays when dropped.
//!
//! On Wayland a frame may only be drawn when the compositor asks for one, or the driver would
//! block for as long as the window is hidden; [`Gate`] holds the presenter back until then.
//!
//! `state.rs` is what lies behind the lock, with `osd.rs` and `cursor.rs` as parts of it. Each side
//! has a file with its calls: `device.rs`, `window.rs`, `presenter.rs`.

mod cursor;
mod device;
mod osd;
mod presenter;
mod state;
mod window;

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

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
    /// A scanout whose window is going to be `size` pixels large.
    pub(crate) fn new(size: (u32, u32), events: EventCallback) -> Scanout {
        Scanout {
            state: Mutex::new(ScanoutState::new(size)),
            changed: Condvar::new(),
            events,
        }
    }

    fn lock(&self) -> MutexGuard<'_, ScanoutState> {
        // A panic while the lock was held cannot leave the plain values behind it half-written in
        // a way that matters more than answering the guest.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something that is shown, and has it drawn.
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
