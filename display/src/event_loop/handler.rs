//! Receives what the window system and other threads tell the event loop, and passes it on.

use winit::application::ApplicationHandler;
use winit::dpi::PhysicalSize;
use winit::event::{DeviceEvent, DeviceId, WindowEvent};
use winit::event_loop::ActiveEventLoop;
use winit::window::WindowId;

use super::app::{App, Closing};
use crate::options::Resize;
use crate::platform::{self, Menu};
use crate::request::EventLoopRequest;
use crate::scanout::Scanout;
use crate::window::GuestWindow;

impl ApplicationHandler<EventLoopRequest> for App<'_> {
    fn resumed(&mut self, event_loop: &ActiveEventLoop) {
        if !self.windows.is_empty() {
            return;
        }
        self.menu = Some(Menu::complete(&self.proxy));
        if let Err(error) = self.open_windows(event_loop) {
            self.fail(event_loop, error);
        }
    }

    fn window_event(&mut self, event_loop: &ActiveEventLoop, id: WindowId, event: WindowEvent) {
        let is_it = |window: &GuestWindow| window.winit_window().id() == id;
        let mut windows = self.windows.iter();
        let Some(index) = windows.position(|window| window.as_ref().is_some_and(is_it)) else {
            return;
        };
        let (Some(window), Some(scanout)) = (
            self.windows.get_mut(index).and_then(Option::as_mut),
            self.shared.scanouts.get(index),
        ) else {
            return;
        };
        match event {
            // `Destroyed` means that someone else closed the window, without asking.
            WindowEvent::CloseRequested | WindowEvent::Destroyed if index > 0 => self.unplug(index),
            WindowEvent::CloseRequested => self.close(event_loop, index),
            WindowEvent::Destroyed => self.end_closed(event_loop, index),
            WindowEvent::Resized(PhysicalSize { width, height }) => {
                scanout.set_size((width, height));
                window.changed();
                // A window that follows the guest takes the guest's size again when it leaves full
                // screen.
                window.follow(scanout.mode());
                self.fit_dialog(index);
            }
            WindowEvent::Moved(_) => window.changed(),
            WindowEvent::ScaleFactorChanged {
                mut inner_size_writer,
                scale_factor,
            } => {
                window.changed();
                scanout.set_scale(scale_factor);
                // The number of the guest's pixels stays the same.
                if self.options.resize == Resize::Fixed {
                    let size = window.winit_window().inner_size();
                    // Failing means that the window system has already decided.
                    let _ = inner_size_writer.request_inner_size(size);
                }
                self.fit_dialog(index);
            }
            WindowEvent::Occluded(hidden) => scanout.set_visible(!hidden),
            WindowEvent::RedrawRequested => scanout.frame_wanted(),
            event => self.route_input(event_loop, index, event),
        }
    }

    fn device_event(&mut self, _: &ActiveEventLoop, _: DeviceId, event: DeviceEvent) {
        self.route_device_input(&event);
    }

    fn user_event(&mut self, event_loop: &ActiveEventLoop, request: EventLoopRequest) {
        match request {
            EventLoopRequest::Retitle => self.retitle(),
            EventLoopRequest::SetStatus(text) => {
                self.status = text;
                self.retitle();
            }
            EventLoopRequest::Resize {
                scanout,
                width,
                height,
            } => {
                if let Some(window) = self.window(scanout) {
                    window.request_size((width, height));
                }
                self.note_size(scanout);
            }
            EventLoopRequest::Plug(scanout) => self.plug(event_loop, scanout),
            EventLoopRequest::Unplug(scanout) => self.unplug(scanout),
            EventLoopRequest::Cursor(index) => {
                let scanouts = &self.shared.scanouts;
                if scanouts
                    .get(index)
                    .is_some_and(Scanout::host_pointer_is_over)
                {
                    self.show_pointer(event_loop, index, true);
                }
            }
            EventLoopRequest::PresenterEnded { scanout, number } => {
                if let Err(error) = self.presenter_ended(scanout, number) {
                    self.fail(event_loop, error);
                }
            }
            EventLoopRequest::GuestChanged => self.guest_changed(event_loop),
            EventLoopRequest::Show => self.show(event_loop),
            EventLoopRequest::Hide => self.hide(),
            EventLoopRequest::Activated => {
                if matches!(self.closing, Closing::Hidden(_)) {
                    self.show(event_loop);
                }
            }
            EventLoopRequest::Quit => event_loop.exit(),
        }
    }

    fn about_to_wait(&mut self, event_loop: &ActiveEventLoop) {
        if let Some(on) = platform::caps_lock() {
            self.seat.caps_lock(on);
        }
        self.settle_sizes(event_loop);
    }

    fn exiting(&mut self, _: &ActiveEventLoop) {
        self.close_all();
        // On macOS the process ends after this if the user chose Quit (Cmd-Q): no code after the
        // loop runs.
        self.end();
    }
}
