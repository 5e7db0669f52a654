//! The display without windows: takes the place of the event loop.

use std::sync::{Condvar, Mutex};

use hesper_system::sync::{Lock, Wait};

use crate::DisplayError;
use crate::events::DisplayEvent;
use crate::monitor::{Monitor, Presence};
use crate::request::EventLoopRequest;
use crate::shared::Shared;

/// Carries out requests that need no window. [`run`](Self::run) waits for the last one.
pub(crate) struct Headless {
    quit: Mutex<bool>,
    changed: Condvar,
    /// The size of a monitor that is plugged in.
    size: (u32, u32),
}

impl Headless {
    pub(crate) fn new(size: (u32, u32)) -> Headless {
        Headless {
            quit: Mutex::new(false),
            changed: Condvar::new(),
            size,
        }
    }

    /// Waits for [`EventLoopRequest::Quit`].
    pub(crate) fn run(&self) {
        let mut quit = self.quit.locked();
        while !*quit {
            quit = self.changed.waited(quit);
        }
    }

    /// Carries out a request on the calling thread.
    pub(crate) fn carry_out(
        &self,
        request: &EventLoopRequest,
        shared: &Shared,
    ) -> Result<(), DisplayError> {
        let set_presence = |scanout: usize, presence| {
            let scanout = shared.scanouts.get(scanout);
            scanout.is_some_and(|scanout| scanout.set_presence(presence))
        };
        match *request {
            EventLoopRequest::Quit => {
                *self.quit.locked() = true;
                self.changed.notify_all();
            }
            // A script's resize works the same with and without a window.
            EventLoopRequest::Resize {
                scanout,
                width,
                height,
            } => (shared.events)(Monitor::headless((width, height)).event(scanout)),
            EventLoopRequest::Plug(scanout) => {
                if set_presence(scanout, Presence::Shown) {
                    (shared.events)(Monitor::headless(self.size).event(scanout));
                }
            }
            EventLoopRequest::Unplug(scanout) => {
                if set_presence(scanout, Presence::Unplugged) {
                    (shared.events)(DisplayEvent::Unplugged { scanout });
                }
            }
            EventLoopRequest::Show | EventLoopRequest::Hide => return Err(DisplayError::NoWindows),
            // Without windows there is no title, no pointer, nothing to close and no presenter.
            EventLoopRequest::Retitle
            | EventLoopRequest::GuestChanged
            | EventLoopRequest::Activated
            | EventLoopRequest::SetStatus(_)
            | EventLoopRequest::Cursor(_)
            | EventLoopRequest::PresenterEnded { .. } => {}
        }
        Ok(())
    }
}
