//! The state of the event loop and what all its parts need.

use std::sync::Arc;

use winit::event_loop::{ActiveEventLoop, EventLoopProxy};
use winit::keyboard::ModifiersState;

use crate::DisplayError;
use crate::close_dialog::CloseDialog;
use crate::input::{Seat, WindowAction};
use crate::options::DisplayOptions;
use crate::platform::Menu;
use crate::presenter::Presenters;
use crate::request::EventLoopRequest;
use crate::shared::Shared;
use crate::window::{GuestWindow, HiddenWindow};
use crate::window_positions::WindowPositions;

/// The state of the event loop: the windows and everything that belongs to them.
pub(super) struct App<'a> {
    pub(super) shared: Arc<Shared>,
    pub(super) options: DisplayOptions,
    pub(super) presenters: Presenters,
    pub(super) proxy: EventLoopProxy<EventLoopRequest>,
    pub(super) status: String,
    /// The windows' positions and sizes, kept for the next start.
    pub(super) positions: WindowPositions,
    /// One per scanout, in order, as soon as they have been opened. `None` for an unplugged
    /// monitor.
    pub(super) windows: Vec<Option<GuestWindow>>,
    /// Keys, buttons and fingers that are down, and the way to the guest's input devices.
    pub(super) seat: Seat,
    pub(super) closing: Closing,
    /// The modifiers that are held, and the pointer's position in the window that it was last in.
    pub(super) modifiers: ModifiersState,
    pub(super) pointer: (f64, f64),
    /// `None` until the event loop runs.
    pub(super) menu: Option<Menu>,
    pub(super) failed: Option<DisplayError>,
    /// To be called once the windows are gone.
    pub(super) ended: Option<Box<dyn FnOnce() + 'a>>,
}

/// What has become of the request to close the first window.
pub(super) enum Closing {
    /// There was none.
    No,
    /// The window of this scanout shows the dialog.
    Asking {
        scanout: usize,
        dialog: Box<CloseDialog>,
    },
    /// The windows are hidden. One entry per scanout; `None` for an unplugged monitor.
    Hidden(Vec<Option<HiddenWindow>>),
}

impl App<'_> {
    pub(super) fn end(&mut self) {
        if let Some(ended) = self.ended.take() {
            ended();
        }
    }

    pub(super) fn fail(&mut self, event_loop: &ActiveEventLoop, error: DisplayError) {
        self.failed.get_or_insert(error);
        event_loop.exit();
    }

    /// The window of a scanout; `None` if its monitor is unplugged or it is hidden.
    pub(super) fn window(&mut self, scanout: usize) -> Option<&mut GuestWindow> {
        self.windows.get_mut(scanout)?.as_mut()
    }

    /// Releases all that is held in the guest, and the grabbed pointer.
    pub(super) fn release_all(&mut self) {
        if self.seat.release_all() == WindowAction::Release {
            for window in self.windows.iter_mut().flatten() {
                window.release_pointer();
            }
            self.set_grabbed(false);
        }
    }

    /// A window has grabbed the pointer or released it.
    pub(super) fn set_grabbed(&mut self, grabbed: bool) {
        self.seat.set_grabbed(grabbed);
        if let Some(menu) = &mut self.menu {
            menu.set_grabbed(grabbed);
        }
    }

    pub(super) fn retitle(&mut self) {
        let caps = if self.shared.leds().caps {
            "Caps Lock"
        } else {
            ""
        };
        let hint = self.seat.hint();
        let parts = [&self.status, caps, &hint];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let status = parts.join(" — ");
        for (window, scanout) in self.windows.iter_mut().zip(&self.shared.scanouts) {
            let Some(window) = window else { continue };
            window.set_title(&self.options.title, scanout.mode(), &status);
            window.follow(scanout.mode());
        }
        for index in 0..self.windows.len() {
            self.note_size(index);
        }
    }

    /// A window was asked to take another size. On Wayland it has it at once, and no event says so.
    pub(super) fn note_size(&self, index: usize) {
        let window = self.windows.get(index).and_then(Option::as_ref);
        if let (Some(window), Some(scanout)) = (window, self.shared.scanouts.get(index)) {
            scanout.set_size(window.winit_window().inner_size().into());
        }
    }
}
