//! The display without windows: what stands in for the event loop.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::DisplayError;
use crate::events::DisplayEvent;
use crate::monitor::{Monitor, Presence};
use crate::request::EventLoopRequest;
use crate::shared::Shared;

/// Carries out requests that need no window, and keeps [`run`](Self::run) waiting for the end.
pub(crate) struct Headless {
    quit: Mutex<bool>,
    changed: Condvar,
    /// Of a monitor that is plugged in.
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
        let quit = self.quit.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.changed.wait_while(quit, |quit| !*quit));
    }

    /// Carries out a request, on the thread that makes it.
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
                *self.quit.lock().unwrap_or_else(PoisonError::into_inner) = true;
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
            // There is no title to change, no pointer, nothing to close, and no presenter to end.
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
