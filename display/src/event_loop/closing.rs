//! Closing windows. Closing the first one ends the display, hides all windows, or asks the user.
//! Closing another one unplugs its monitor.
//!
//! A hidden window does not exist: Wayland knows no other way. What is needed to open it again as
//! it was is kept.

use std::sync::Arc;

use winit::event::{ElementState, MouseButton, TouchPhase, WindowEvent};
use winit::event_loop::ActiveEventLoop;

use super::app::{App, Closing};
use crate::close_dialog::{Choice, CloseDialog};
use crate::events::DisplayEvent;
use crate::monitor::Presence;
use crate::options::OnClose;
use crate::platform;
use crate::window::GuestWindow;

impl App<'_> {
    /// The user closes the first window, or the desktop does.
    pub(super) fn close(&mut self, event_loop: &ActiveEventLoop, index: usize) {
        match self.options.on_close {
            _ if !self.shared.has_guest() => self.end_closed(event_loop, index),
            OnClose::Quit => self.end_closed(event_loop, index),
            OnClose::Hide => self.hide(),
            OnClose::Ask => self.ask(event_loop, index),
        }
    }

    /// Ends the display, because the window of this scanout is closed.
    pub(super) fn end_closed(&self, event_loop: &ActiveEventLoop, scanout: usize) {
        (self.shared.events)(DisplayEvent::CloseRequested { scanout });
        event_loop.exit();
    }

    /// A guest has connected or disconnected.
    pub(super) fn guest_changed(&mut self, event_loop: &ActiveEventLoop) {
        let connected = self.shared.has_guest();
        match self.closing {
            // The guest about which the dialog asks is gone.
            Closing::Asking { scanout, .. } if !connected => self.end_closed(event_loop, scanout),
            Closing::Hidden(_) if connected => self.show(event_loop),
            _ => {}
        }
    }

    /// Asks the user what closing the window means. A second request only raises the dialog again.
    fn ask(&mut self, event_loop: &ActiveEventLoop, index: usize) {
        let several = self.windows.iter().flatten().count() > 1;
        let (Some(window), Some(shown)) = (
            self.windows.get(index).and_then(Option::as_ref),
            self.shared.scanouts.get(index),
        ) else {
            return;
        };
        window.raise();
        let (size, scale) = (window.winit_window().inner_size().into(), shown.scale());
        if self.is_asking(index) {
            return;
        }
        // The guest gets no input until there is an answer.
        self.release_all();
        self.show_pointer(event_loop, index, false);
        self.retitle();
        self.closing = Closing::Asking {
            scanout: index,
            dialog: Box::new(CloseDialog::new(
                &self.options.show_hint,
                several,
                size,
                scale,
            )),
        };
        self.show_dialog();
    }

    /// Whether this window shows the dialog.
    pub(super) fn is_asking(&self, index: usize) -> bool {
        matches!(self.closing, Closing::Asking { scanout, .. } if scanout == index)
    }

    /// The window has another size or scale: the dialog is laid out again.
    pub(super) fn fit_dialog(&mut self, index: usize) {
        let (Some(window), Some(shown)) = (
            self.windows.get(index).and_then(Option::as_ref),
            self.shared.scanouts.get(index),
        ) else {
            return;
        };
        if let Closing::Asking {
            scanout, dialog, ..
        } = &mut self.closing
            && *scanout == index
        {
            let size = window.winit_window().inner_size().into();
            dialog.fit(size, shown.scale());
            self.show_dialog();
        }
    }

    fn show_dialog(&self) {
        if let Closing::Asking {
            scanout, dialog, ..
        } = &self.closing
            && let Some(shown) = self.shared.scanouts.get(*scanout)
        {
            shown.set_dialog(Some((dialog.text(), dialog.label().clone())));
        }
    }

    /// Passes what the user does in the window to its dialog.
    pub(super) fn pass_to_dialog(
        &mut self,
        event_loop: &ActiveEventLoop,
        index: usize,
        event: WindowEvent,
    ) {
        let (held, pointer) = (self.modifiers, self.pointer);
        let Closing::Asking { dialog, .. } = &mut self.closing else {
            return;
        };
        let before = dialog.label().clone();
        let answer = match event {
            WindowEvent::KeyboardInput {
                event,
                is_synthetic: false,
                ..
            } => match event.state {
                ElementState::Pressed if event.repeat => None,
                ElementState::Pressed => {
                    dialog.press_key(&event.logical_key, event.physical_key, held);
                    None
                }
                ElementState::Released => dialog.release_key(event.physical_key),
            },
            WindowEvent::Focused(false) => {
                dialog.release_all();
                None
            }
            WindowEvent::CursorMoved { .. } => {
                dialog.point(pointer);
                None
            }
            WindowEvent::MouseInput {
                state,
                button: MouseButton::Left,
                ..
            } => match state {
                ElementState::Pressed => {
                    dialog.press(pointer);
                    None
                }
                ElementState::Released => dialog.release(pointer),
            },
            WindowEvent::Touch(touch) => {
                let at = touch.location.into();
                match touch.phase {
                    TouchPhase::Started => dialog.press(at),
                    TouchPhase::Moved => dialog.point(at),
                    TouchPhase::Ended | TouchPhase::Cancelled => {}
                }
                match touch.phase {
                    TouchPhase::Ended => dialog.release(at),
                    _ => None,
                }
            }
            _ => None,
        };
        let changed = !Arc::ptr_eq(&before, dialog.label());
        match answer {
            Some(Choice::Hide) => self.hide(),
            Some(Choice::Quit) => self.end_closed(event_loop, index),
            Some(Choice::Cancel) => {
                self.remove_dialog();
                self.resume_input(index);
            }
            None if changed => self.show_dialog(),
            None => {}
        }
    }

    fn remove_dialog(&mut self) {
        if let Closing::Asking { scanout, .. } = self.closing {
            self.closing = Closing::No;
            if let Some(shown) = self.shared.scanouts.get(scanout) {
                shown.set_dialog(None);
            }
        }
    }

    /// Continues where the dialog interrupted.
    fn resume_input(&mut self, index: usize) {
        let window = self.windows.get(index).and_then(Option::as_ref);
        if window.is_some_and(|window| window.winit_window().has_focus()) {
            self.seat
                .focus(platform::caps_lock(), self.shared.leds().caps);
        }
        self.retitle();
    }

    /// Hides all windows.
    pub(super) fn hide(&mut self) {
        self.remove_dialog();
        if matches!(self.closing, Closing::Hidden(_)) {
            return;
        }
        self.release_all();
        // All of them first, so that all presenters end at once.
        for (window, shown) in self.windows.iter().zip(&self.shared.scanouts) {
            if window.is_some() {
                shown.set_presence(Presence::Hidden);
            }
        }
        let mut hidden = Vec::with_capacity(self.windows.len());
        for index in 0..self.windows.len() {
            let window = self.windows.get_mut(index).and_then(Option::take);
            hidden.push(window.as_ref().map(GuestWindow::hidden));
            if let Some(window) = window {
                self.close_window(window);
            }
        }
        self.closing = Closing::Hidden(hidden);
        platform::set_application_hidden(true);
        (self.shared.events)(DisplayEvent::Hidden);
    }

    /// Shows hidden windows again, as they were. If none are hidden, the windows are raised.
    pub(super) fn show(&mut self, event_loop: &ActiveEventLoop) {
        if !matches!(self.closing, Closing::Hidden(_)) {
            for window in self.windows.iter().flatten().rev() {
                window.raise();
            }
            return;
        }
        if let Closing::Hidden(hidden) = std::mem::replace(&mut self.closing, Closing::No) {
            platform::set_application_hidden(false);
            for (scanout, hidden) in hidden.into_iter().enumerate() {
                let opened = match hidden {
                    Some(_) => self.open(event_loop, scanout, hidden),
                    None => Ok(()),
                };
                if let Err(error) = opened {
                    return self.fail(event_loop, error);
                }
            }
            (self.shared.events)(DisplayEvent::Shown);
        }
    }
}
