//! The window system's event loop: opens the windows, passes on what happens to them, and sees to
//! it that each has a presenter.
//!
//! Drawing happens on a presenter thread per window, because presenting may block for a whole
//! refresh. Surfaces are made here, on the main thread, as macOS demands; a presenter that loses
//! its surface or its device ends and is replaced here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use winit::application::ApplicationHandler;
use winit::dpi::{PhysicalPosition, PhysicalSize};
use winit::error::EventLoopError;
use winit::event::{DeviceEvent, DeviceId, WindowEvent};
use winit::event_loop::{ActiveEventLoop, ControlFlow, EventLoop, EventLoopProxy};
use winit::window::WindowId;

use crate::display::{DisplayEvent, DisplayOptions, Shared};
use crate::input::{Asked, INPUT_AXIS_MAX, InputSink, Seat};
use crate::layout::Placement;
use crate::presenter::{End, Presenters};
use crate::window::GuestWindow;
use crate::{DisplayError, presenter};

/// A window's size counts as settled when it has not changed for this long: a user dragging an
/// edge must not have the guest set a hundred modes.
const RESIZE_SETTLES: Duration = Duration::from_millis(100);

/// How many steps the guest's axes have from edge to edge of the picture.
const AXIS_STEPS: u32 = INPUT_AXIS_MAX as u32 + 1;

/// What other threads ask of the event loop.
#[derive(Debug)]
pub(crate) enum Command {
    /// The mode of some scanout has changed, or a LED.
    Retitle,
    SetStatus(String),
    Resize {
        scanout: usize,
        width: u32,
        height: u32,
    },
    /// The presenter of this scanout has ended by itself.
    PresenterEnded(usize),
    Quit,
}

/// The event for a window whose inner size is `size` physical pixels.
pub(crate) fn resized(scanout: usize, size: (u32, u32), scale: f64) -> DisplayEvent {
    // Window systems define a scale of 1 as about 96 pixels an inch, and tell nothing better.
    let length = |pixels: u32| (f64::from(pixels) * 25.4 / (96.0 * scale)).round().max(1.0) as u32;
    DisplayEvent::Resized {
        scanout,
        width: size.0,
        height: size.1,
        millimetres: (length(size.0), length(size.1)),
    }
}

/// The event loop before it runs.
pub(crate) struct Windows {
    event_loop: EventLoop<Command>,
    options: DisplayOptions,
    seat: Option<Seat>,
}

impl Windows {
    pub(crate) fn new(options: DisplayOptions) -> Result<Windows, DisplayError> {
        let variable = |name| {
            std::env::var_os(name).map_or("not set".to_owned(), |value| format!("{value:?}"))
        };
        let event_loop = EventLoop::with_user_event()
            .build()
            .map_err(|error| match error {
                // Everything else is about this process, not about the display server.
                EventLoopError::Os(_) | EventLoopError::NotSupported(_) => {
                    DisplayError::NoDisplayServer {
                        reason: error.to_string(),
                        display: variable("DISPLAY"),
                        wayland_display: variable("WAYLAND_DISPLAY"),
                    }
                }
                error => DisplayError::EventLoop(error),
            })?;
        event_loop.set_control_flow(ControlFlow::Wait);
        Ok(Windows {
            event_loop,
            options,
            seat: None,
        })
    }

    pub(crate) fn set_input(&mut self, sink: Arc<dyn InputSink>) {
        self.seat = Some(Seat::new(sink));
    }

    pub(crate) fn proxy(&self) -> EventLoopProxy<Command> {
        self.event_loop.create_proxy()
    }

    pub(crate) fn run(self, shared: &Arc<Shared>) -> Result<(), DisplayError> {
        let mut app = App {
            shared: shared.clone(),
            presenters: Presenters::new(&self.options, self.event_loop.create_proxy()),
            options: self.options,
            status: String::new(),
            windows: Vec::new(),
            seat: self.seat,
            failed: None,
        };
        let ended = self
            .event_loop
            .run_app(&mut app)
            .map_err(DisplayError::EventLoop);
        // The first failure is the cause of the others.
        app.failed.map_or(ended, Err)
    }
}

struct App {
    shared: Arc<Shared>,
    options: DisplayOptions,
    presenters: Presenters,
    status: String,
    /// One per scanout, in order, once they have been opened.
    windows: Vec<GuestWindow>,
    /// Who works in the windows, when a guest may have keyboards and pointers.
    seat: Option<Seat>,
    failed: Option<DisplayError>,
}

impl App {
    fn fail(&mut self, event_loop: &ActiveEventLoop, error: DisplayError) {
        self.failed.get_or_insert(error);
        event_loop.exit();
    }

    fn open_windows(&mut self, event_loop: &ActiveEventLoop) -> Result<(), DisplayError> {
        for scanout in 0..self.shared.scanouts.len() {
            let window = GuestWindow::open(event_loop, scanout, &self.options)?;
            self.windows.push(window);
            self.start_presenter(scanout)?;
        }
        self.retitle();
        Ok(())
    }

    fn start_presenter(&mut self, scanout: usize) -> Result<(), DisplayError> {
        if let Some(window) = self.windows.get_mut(scanout) {
            let thread = self
                .presenters
                .start(&self.shared, scanout, window.shared())?;
            window.set_presenter(thread);
        }
        Ok(())
    }

    fn retitle(&self) {
        let caps = if self.shared.leds().caps {
            "Caps Lock"
        } else {
            ""
        };
        let hint = self.seat.as_ref().map_or("", Seat::hint);
        let parts = [&self.status, caps, hint];
        let parts: Vec<&str> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let status = parts.join(" — ");
        for (window, scanout) in self.windows.iter().zip(&self.shared.scanouts) {
            window.set_title(&self.options.title, scanout.mode(), &status);
        }
    }

    /// Passes on what a person does in a window.
    fn input(&mut self, index: usize, event: WindowEvent) {
        let (Some(seat), Some(window), Some(scanout)) = (
            &mut self.seat,
            self.windows.get_mut(index),
            self.shared.scanouts.get(index),
        ) else {
            return;
        };
        let place = |at: PhysicalPosition<f64>| {
            let size = window.shared().inner_size().into();
            Placement::new(scanout.mode()?, size, self.options.scaling)
                .map(|placement| placement.on_axes(at.into(), AXIS_STEPS))
        };
        let asked = match event {
            WindowEvent::KeyboardInput {
                event,
                is_synthetic,
                ..
            } => seat.key(event.physical_key, event.state, event.repeat, is_synthetic),
            WindowEvent::CursorMoved { position, .. } => {
                if let Some(place) = place(position) {
                    seat.pointer_at(place);
                }
                let guests = seat.points() && scanout.has_cursor();
                window.show_pointer(!guests && !seat.grabbed());
                if seat.grabbed() {
                    window.hold_pointer(position);
                }
                Asked::Nothing
            }
            WindowEvent::MouseInput { button, state, .. } => seat.button(button, state),
            WindowEvent::MouseWheel { delta, .. } => {
                seat.wheel(delta, window.shared().scale_factor());
                Asked::Nothing
            }
            WindowEvent::Touch(touch) => {
                if let Some(place) = place(touch.location) {
                    seat.touch(touch.id, touch.phase, place);
                }
                Asked::Nothing
            }
            WindowEvent::Focused(false) => seat.let_go(),
            // The guest may have got its devices, or lost them, while nobody looked.
            WindowEvent::Focused(true) => {
                self.retitle();
                return;
            }
            _ => return,
        };
        self.grab(index, asked);
    }

    fn grab(&mut self, index: usize, asked: Asked) {
        let (Some(seat), Some(window)) = (&mut self.seat, self.windows.get_mut(index)) else {
            return;
        };
        match asked {
            Asked::Nothing => return,
            Asked::Grab => match window.grab_pointer() {
                Ok(()) => seat.set_grabbed(true),
                Err(error) => {
                    log::warn!("the window system does not give the pointer away: {error}")
                }
            },
            Asked::Release => {
                window.release_pointer();
                seat.set_grabbed(false);
            }
        }
        self.retitle();
    }

    /// Replaces a presenter that has ended.
    fn presenter_ended(&mut self, scanout: usize) -> Result<(), DisplayError> {
        let Some(window) = self.windows.get_mut(scanout) else {
            return Ok(());
        };
        let Some(end) = window.take_presenter().map(presenter::Thread::join) else {
            return Ok(());
        };
        if end == End::Stopped {
            return Ok(());
        }
        log::warn!("window {scanout}: {end}; starting over");
        self.presenters.note(&end);
        self.start_presenter(scanout)
    }

    /// Reports window sizes that have settled and arranges to be called for the others.
    fn settle_sizes(&mut self, event_loop: &ActiveEventLoop) {
        let now = Instant::now();
        let mut next: Option<Instant> = None;
        for (scanout, window) in self.windows.iter_mut().enumerate() {
            match window.settles_at(RESIZE_SETTLES) {
                Some(at) if at <= now => {
                    if let Some(size) = window.settle() {
                        let scale = window.shared().scale_factor();
                        (self.shared.events)(resized(scanout, size, scale));
                    }
                }
                Some(at) => next = Some(next.map_or(at, |next| next.min(at))),
                None => {}
            }
        }
        event_loop.set_control_flow(next.map_or(ControlFlow::Wait, ControlFlow::WaitUntil));
    }
}

impl ApplicationHandler<Command> for App {
    fn resumed(&mut self, event_loop: &ActiveEventLoop) {
        if self.windows.is_empty()
            && let Err(error) = self.open_windows(event_loop)
        {
            self.fail(event_loop, error);
        }
    }

    fn window_event(&mut self, event_loop: &ActiveEventLoop, id: WindowId, event: WindowEvent) {
        let Some(index) = self
            .windows
            .iter()
            .position(|window| window.shared().id() == id)
        else {
            return;
        };
        let (Some(window), Some(scanout)) =
            (self.windows.get_mut(index), self.shared.scanouts.get(index))
        else {
            return;
        };
        match event {
            // Destroyed: by somebody else, without asking.
            WindowEvent::CloseRequested | WindowEvent::Destroyed => {
                (self.shared.events)(DisplayEvent::CloseRequested { scanout: index });
                event_loop.exit();
            }
            WindowEvent::Resized(PhysicalSize { width, height }) => {
                scanout.set_size((width, height));
                window.resized((width, height));
            }
            WindowEvent::Occluded(hidden) => scanout.set_visible(!hidden),
            WindowEvent::RedrawRequested => scanout.frame_wanted(),
            event => self.input(index, event),
        }
    }

    fn device_event(&mut self, _: &ActiveEventLoop, _: DeviceId, event: DeviceEvent) {
        if let (Some(seat), DeviceEvent::MouseMotion { delta }) = (&mut self.seat, event) {
            seat.moved(delta);
        }
    }

    fn user_event(&mut self, event_loop: &ActiveEventLoop, command: Command) {
        match command {
            Command::Retitle => self.retitle(),
            Command::SetStatus(text) => {
                self.status = text;
                self.retitle();
            }
            Command::Resize {
                scanout,
                width,
                height,
            } => {
                if let Some(window) = self.windows.get_mut(scanout) {
                    window.request_size((width, height));
                }
            }
            Command::PresenterEnded(scanout) => {
                if let Err(error) = self.presenter_ended(scanout) {
                    self.fail(event_loop, error);
                }
            }
            Command::Quit => event_loop.exit(),
        }
    }

    fn about_to_wait(&mut self, event_loop: &ActiveEventLoop) {
        self.settle_sizes(event_loop);
    }

    fn exiting(&mut self, _: &ActiveEventLoop) {
        // Presenters first (they draw into the windows), all of them at once; then the GPU (its
        // driver may hold on to the display connection), then the windows; all while the event
        // loop still lives.
        for scanout in &self.shared.scanouts {
            scanout.stop();
        }
        for window in &mut self.windows {
            if let Some(thread) = window.take_presenter() {
                thread.join();
            }
        }
        self.presenters.close();
        self.windows.clear();
    }
}
