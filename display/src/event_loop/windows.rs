//! Opens windows, gives each a presenter, and reports their sizes to the guest.

use std::time::{Duration, Instant};

use winit::event_loop::{ActiveEventLoop, ControlFlow};

use super::app::{App, Closing};
use crate::DisplayError;
use crate::events::DisplayEvent;
use crate::monitor::{Monitor, Presence};
use crate::presenter::{PresenterEnd, PresenterThread};
use crate::window::{GuestWindow, HiddenWindow};

/// A window has settled when its size and position have not changed for this long.
const RESIZE_SETTLES: Duration = Duration::from_millis(100);

impl App<'_> {
    pub(super) fn open_windows(
        &mut self,
        event_loop: &ActiveEventLoop,
    ) -> Result<(), DisplayError> {
        let count = self.shared.scanouts.len();
        self.windows.resize_with(count, || None);
        (0..count).try_for_each(|scanout| self.open(event_loop, scanout, None))
    }

    /// Opens the window of a scanout that has none. A hidden window is opened as it was.
    pub(super) fn open(
        &mut self,
        event_loop: &ActiveEventLoop,
        scanout: usize,
        hidden: Option<HiddenWindow>,
    ) -> Result<(), DisplayError> {
        let (Some(slot), Some(shown)) = (
            self.windows.get_mut(scanout),
            self.shared.scanouts.get(scanout),
        ) else {
            return Ok(());
        };
        if slot.is_some() {
            return Ok(());
        }
        let (options, before) = (&self.options, self.positions.geometry(scanout));
        let window = match hidden {
            None => GuestWindow::open(event_loop, scanout, options, before),
            Some(hidden) => GuestWindow::reopen(event_loop, scanout, options, hidden, before),
        }?;
        let window = slot.insert(window);
        shown.set_size(window.winit_window().inner_size().into());
        shown.set_scale(window.winit_window().scale_factor());
        shown.set_presence(Presence::Shown);
        self.start_presenter(scanout)?;
        self.retitle();
        Ok(())
    }

    /// Opens the window of an unplugged monitor.
    pub(super) fn plug(&mut self, event_loop: &ActiveEventLoop, scanout: usize) {
        if let Closing::Hidden(hidden) = &mut self.closing {
            // The windows are hidden: its window is opened with the others.
            if let (Some(slot @ None), Some(shown)) =
                (hidden.get_mut(scanout), self.shared.scanouts.get(scanout))
            {
                let before = self.positions.geometry(scanout);
                let size = before.map_or(self.options.size, |before| before.size);
                let monitor = Monitor::headless(size);
                *slot = Some(HiddenWindow::new(monitor));
                shown.set_presence(Presence::Hidden);
                (self.shared.events)(monitor.event(scanout));
            }
        } else if let Err(error) = self.open(event_loop, scanout, None) {
            self.fail(event_loop, error);
        }
    }

    /// Closes a window and unplugs its monitor.
    pub(super) fn unplug(&mut self, scanout: usize) {
        let hidden = match &mut self.closing {
            Closing::Hidden(hidden) => hidden.get_mut(scanout).and_then(Option::take),
            Closing::No | Closing::Asking { .. } => None,
        };
        let window = self.windows.get_mut(scanout).and_then(Option::take);
        let Some(shown) = self.shared.scanouts.get(scanout) else {
            return;
        };
        if hidden.is_none() && window.is_none() {
            return;
        }
        shown.set_presence(Presence::Unplugged);
        if let Some(window) = window {
            self.close_window(window);
        }
        (self.shared.events)(DisplayEvent::Unplugged { scanout });
    }

    /// Closes a window that its scanout no longer needs.
    pub(super) fn close_window(&mut self, mut window: GuestWindow) {
        if let Some(thread) = window.take_presenter() {
            thread.join();
        }
        // Keys that were held in it would not be released otherwise.
        self.release_all();
    }

    pub(super) fn start_presenter(&mut self, scanout: usize) -> Result<(), DisplayError> {
        if let Some(window) = self.windows.get_mut(scanout).and_then(Option::as_mut) {
            let thread = self
                .presenters
                .start(&self.shared, scanout, window.winit_window())?;
            window.set_presenter(thread);
        }
        Ok(())
    }

    /// Replaces a presenter that has ended.
    pub(super) fn presenter_ended(
        &mut self,
        scanout: usize,
        number: u64,
    ) -> Result<(), DisplayError> {
        let thread = self
            .window(scanout)
            .and_then(|window| window.take_presenter_if(number));
        let Some(end) = thread.map(PresenterThread::join) else {
            return Ok(());
        };
        if end == PresenterEnd::Stopped {
            return Ok(());
        }
        log::warn!("window {scanout}: {end}; starting another presenter");
        self.presenters.note(&end);
        self.start_presenter(scanout)
    }

    /// Reports the sizes of windows that have settled. For the others it sets the time of the next
    /// call.
    pub(super) fn settle_sizes(&mut self, event_loop: &ActiveEventLoop) {
        if event_loop.exiting() {
            return;
        }
        let now = Instant::now();
        let mut next: Option<Instant> = None;
        for (scanout, window) in self.windows.iter_mut().enumerate() {
            let Some(window) = window else { continue };
            match window.settles_at(RESIZE_SETTLES) {
                Some(at) if at <= now => {
                    // A receiver of the event may move the window at once. The geometry that
                    // belongs to the event is this one.
                    if let Some(geometry) = window.geometry() {
                        self.positions.note(scanout, geometry);
                    }
                    if let Some(monitor) = window.settle() {
                        (self.shared.events)(monitor.event(scanout));
                    }
                }
                Some(at) => next = Some(next.map_or(at, |next| next.min(at))),
                None => {}
            }
        }
        event_loop.set_control_flow(next.map_or(ControlFlow::Wait, ControlFlow::WaitUntil));
    }

    /// Closes everything, before the event loop ends.
    pub(super) fn close_all(&mut self) {
        // First the presenters, which draw into the windows, all at once. Then the GPU, whose
        // driver may use the display connection. Then the windows. All of that must happen while
        // the event loop still exists.
        for scanout in &self.shared.scanouts {
            scanout.stop();
        }
        for window in self.windows.iter_mut().flatten() {
            if let Some(thread) = window.take_presenter() {
                thread.join();
            }
        }
        // The recordings end with the last frame.
        for scanout in &self.shared.scanouts {
            scanout.set_recorder(None);
        }
        self.presenters.close();
        self.windows.clear();
    }
}
