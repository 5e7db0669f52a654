//! The window system's event loop: opens the windows, handles their events, and gives each a
//! presenter.
//!
//! Each window is drawn on a presenter thread, because presenting may block for a whole refresh.
//! Surfaces are made here, on the main thread, as macOS demands. A presenter that loses its surface
//! or its device ends and is replaced here.
//!
//! `handler.rs` receives all events and passes them on: `windows.rs` opens windows and gives them
//! presenters, `input.rs` routes keys and pointers, `closing.rs` closes or hides windows. All of
//! them work on the state in `app.rs`.

mod app;
mod closing;
mod handler;
mod input;
mod windows;

use std::sync::Arc;

use winit::error::EventLoopError;
use winit::event_loop::{ControlFlow, EventLoop, EventLoopProxy};
use winit::keyboard::ModifiersState;

use self::app::{App, Closing};
use crate::DisplayError;
use crate::input::{HostSystem, InputSink, NoDevices, Seat};
use crate::options::DisplayOptions;
use crate::presenter::Presenters;
use crate::request::EventLoopRequest;
use crate::shared::Shared;
use crate::window_positions::WindowPositions;

/// The event loop before it runs.
pub(crate) struct Windows {
    event_loop: EventLoop<EventLoopRequest>,
    options: DisplayOptions,
    seat: Seat,
}

impl Windows {
    pub(crate) fn new(options: DisplayOptions) -> Result<Windows, DisplayError> {
        let variable = |name| {
            std::env::var_os(name).map_or("not set".to_owned(), |value| format!("{value:?}"))
        };
        let event_loop = EventLoop::with_user_event()
            .build()
            .map_err(|error| match error {
                // All other errors are about this process and not about the display server.
                EventLoopError::Os(_) | EventLoopError::NotSupported(_) => {
                    DisplayError::NoDisplayServer {
                        reason: crate::error::without_source_path(&error),
                        display: variable("DISPLAY"),
                        wayland_display: variable("WAYLAND_DISPLAY"),
                    }
                }
                error => DisplayError::EventLoop(error),
            })?;
        event_loop.set_control_flow(ControlFlow::Wait);
        let seat = Seat::new(Arc::new(NoDevices), options.keyboard, HostSystem::HERE);
        Ok(Windows {
            event_loop,
            options,
            seat,
        })
    }

    pub(crate) fn set_input(&mut self, sink: Arc<dyn InputSink>) {
        self.seat = Seat::new(sink, self.options.keyboard, HostSystem::HERE);
    }

    pub(crate) fn proxy(&self) -> EventLoopProxy<EventLoopRequest> {
        self.event_loop.create_proxy()
    }

    pub(crate) fn run(
        self,
        shared: &Arc<Shared>,
        ended: Box<dyn FnOnce() + '_>,
    ) -> Result<(), DisplayError> {
        let positions = WindowPositions::load(self.options.window_positions.as_deref());
        let mut app = App {
            shared: shared.clone(),
            presenters: Presenters::new(&self.options, self.event_loop.create_proxy()),
            proxy: self.event_loop.create_proxy(),
            options: self.options,
            status: String::new(),
            positions,
            windows: Vec::new(),
            seat: self.seat,
            closing: Closing::No,
            modifiers: ModifiersState::empty(),
            pointer: (0.0, 0.0),
            menu: None,
            failed: None,
            ended: Some(ended),
        };
        let result = self
            .event_loop
            .run_app(&mut app)
            .map_err(DisplayError::EventLoop);
        // A loop that could not start has not called `ended` either.
        app.end();
        // The first failure is the cause of the others.
        app.failed.map_or(result, Err)
    }
}
