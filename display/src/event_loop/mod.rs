//! The window system's event loop: opens the windows, passes on what happens to them, and sees to
//! it that each has a presenter.
//!
//! Drawing happens on a presenter thread per window, because presenting may block for a whole
//! refresh. Surfaces are made here, on the main thread, as macOS demands; a presenter that loses
//! its surface or its device ends and is replaced here.
//!
//! `input.rs` passes on what a person does in a window; `closing.rs` closes windows, or hides them.

mod closing;
mod input;

use std::sync::Arc;
use std::time::{Duration, Instant};

use winit::application::ApplicationHandler;
use winit::dpi::PhysicalSize;
use winit::error::EventLoopError;
use winit::event::{DeviceEvent, DeviceId, WindowEvent};
use winit::event_loop::{ActiveEventLoop, ControlFlow, EventLoop, EventLoopProxy};
use winit::keyboard::ModifiersState;
use winit::window::WindowId;

use self::closing::Closing;
use crate::display::{DisplayEvent, Shared};
use crate::input::{Asked, InputSink, Nobody, Seat, System};
use crate::options::{DisplayOptions, Resize};
use crate::platform::{self, Menu};
use crate::presenter::{End, Presenters};
use crate::scanout::{Presence, Scanout};
use crate::window::{GuestWindow, HiddenWindow, Monitor};
use crate::window_positions::Remembered;
use crate::{DisplayError, presenter};

/// A window's size and place count as settled when they have not changed for this long.
const RESIZE_SETTLES: Duration = Duration::from_millis(100);

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
    /// Open the window of this scanout, if it is closed.
    Plug(usize),
    /// Close it, if it is open.
    Unplug(usize),
    /// The guest has changed the cursor of this scanout, over which the pointer is.
    Cursor(usize),
    /// A presenter of this scanout has ended.
    PresenterEnded {
        scanout: usize,
        number: u64,
    },
    /// A guest is there from now on, or is gone.
    GuestChanged,
    /// Show the windows, if they are hidden.
    Show,
    /// Hide them.
    Hide,
    /// A Mac's person wants to see the application.
    #[cfg_attr(
        not(target_os = "macos"),
        expect(dead_code, reason = "only Macs say so")
    )]
    Activated,
    Quit,
}

/// The event for a monitor that has come to rest.
pub(crate) fn settled(scanout: usize, monitor: &Monitor) -> DisplayEvent {
    DisplayEvent::Settled {
        scanout,
        width: monitor.size.0,
        height: monitor.size.1,
        millimetres: monitor.millimetres,
        position: monitor.position,
    }
}

/// The event loop before it runs.
pub(crate) struct Windows {
    event_loop: EventLoop<Command>,
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
                // Everything else is about this process, not about the display server.
                EventLoopError::Os(_) | EventLoopError::NotSupported(_) => {
                    DisplayError::NoDisplayServer {
                        reason: crate::error::plain(&error),
                        display: variable("DISPLAY"),
                        wayland_display: variable("WAYLAND_DISPLAY"),
                    }
                }
                error => DisplayError::EventLoop(error),
            })?;
        event_loop.set_control_flow(ControlFlow::Wait);
        let seat = Seat::new(Arc::new(Nobody), options.keyboard, System::HERE);
        Ok(Windows {
            event_loop,
            options,
            seat,
        })
    }

    pub(crate) fn set_input(&mut self, sink: Arc<dyn InputSink>) {
        self.seat = Seat::new(sink, self.options.keyboard, System::HERE);
    }

    pub(crate) fn proxy(&self) -> EventLoopProxy<Command> {
        self.event_loop.create_proxy()
    }

    pub(crate) fn run(
        self,
        shared: &Arc<Shared>,
        ended: Box<dyn FnOnce() + '_>,
    ) -> Result<(), DisplayError> {
        let remembered = Remembered::load(self.options.places.as_deref());
        let mut app = App {
            shared: shared.clone(),
            presenters: Presenters::new(&self.options, self.event_loop.create_proxy()),
            proxy: self.event_loop.create_proxy(),
            options: self.options,
            status: String::new(),
            remembered,
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
        // A loop that could not start has not ended either.
        app.end();
        // The first failure is the cause of the others.
        app.failed.map_or(result, Err)
    }
}

struct App<'a> {
    shared: Arc<Shared>,
    options: DisplayOptions,
    presenters: Presenters,
    proxy: EventLoopProxy<Command>,
    status: String,
    /// Where windows were, and are.
    remembered: Remembered,
    /// One per scanout, in order, once they have been opened; `None` for an unplugged monitor.
    windows: Vec<Option<GuestWindow>>,
    /// Who works in the windows.
    seat: Seat,
    closing: Closing,
    /// Modifiers that are held, and the pointer's place in the window that heard of it last.
    modifiers: ModifiersState,
    pointer: (f64, f64),
    /// Once the event loop runs.
    menu: Option<Menu>,
    failed: Option<DisplayError>,
    /// What remains to be done once the windows are gone.
    ended: Option<Box<dyn FnOnce() + 'a>>,
}

impl App<'_> {
    fn end(&mut self) {
        if let Some(ended) = self.ended.take() {
            ended();
        }
    }

    fn fail(&mut self, event_loop: &ActiveEventLoop, error: DisplayError) {
        self.failed.get_or_insert(error);
        event_loop.exit();
    }

    fn open_windows(&mut self, event_loop: &ActiveEventLoop) -> Result<(), DisplayError> {
        let count = self.shared.scanouts.len();
        self.windows.resize_with(count, || None);
        (0..count).try_for_each(|scanout| self.open(event_loop, scanout, None))
    }

    /// The window of a scanout, unless its monitor is unplugged.
    fn window(&mut self, scanout: usize) -> Option<&mut GuestWindow> {
        self.windows.get_mut(scanout)?.as_mut()
    }

    /// Opens the window of a scanout that has none; `hidden`: as it was.
    fn open(
        &mut self,
        event_loop: &ActiveEventLoop,
        scanout: usize,
        hidden: Option<HiddenWindow>,
    ) -> Result<(), DisplayError> {
        let (Some(place), Some(shown)) = (
            self.windows.get_mut(scanout),
            self.shared.scanouts.get(scanout),
        ) else {
            return Ok(());
        };
        if place.is_some() {
            return Ok(());
        }
        let (options, before) = (&self.options, self.remembered.place(scanout));
        let window = match hidden {
            None => GuestWindow::open(event_loop, scanout, options, before),
            Some(hidden) => GuestWindow::reopen(event_loop, scanout, options, hidden, before),
        }?;
        let window = place.insert(window);
        shown.set_size(window.shared().inner_size().into());
        shown.set_scale(window.shared().scale_factor());
        shown.set_presence(Presence::Shown);
        self.start_presenter(scanout)?;
        self.retitle();
        Ok(())
    }

    /// Lets go of all that is held in the guest, and of the pointer.
    fn let_go(&mut self) {
        if self.seat.let_go() == Asked::Release {
            for window in self.windows.iter_mut().flatten() {
                window.release_pointer();
            }
            self.set_grabbed(false);
        }
    }

    /// A window has taken the pointer, or given it back.
    fn set_grabbed(&mut self, grabbed: bool) {
        self.seat.set_grabbed(grabbed);
        if let Some(menu) = &mut self.menu {
            menu.set_grabbed(grabbed);
        }
    }

    fn start_presenter(&mut self, scanout: usize) -> Result<(), DisplayError> {
        if let Some(window) = self.windows.get_mut(scanout).and_then(Option::as_mut) {
            let thread = self
                .presenters
                .start(&self.shared, scanout, window.shared())?;
            window.set_presenter(thread);
        }
        Ok(())
    }

    fn retitle(&mut self) {
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

    /// A window has been asked for another size: on Wayland it has it at once, and no event says so.
    fn note_size(&self, index: usize) {
        let window = self.windows.get(index).and_then(Option::as_ref);
        if let (Some(window), Some(scanout)) = (window, self.shared.scanouts.get(index)) {
            scanout.set_size(window.shared().inner_size().into());
        }
    }

    /// Replaces a presenter that has ended.
    fn presenter_ended(&mut self, scanout: usize, number: u64) -> Result<(), DisplayError> {
        let thread = self
            .window(scanout)
            .and_then(|window| window.take_presenter_if(number));
        let Some(end) = thread.map(presenter::Thread::join) else {
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
        if event_loop.exiting() {
            return;
        }
        let now = Instant::now();
        let mut next: Option<Instant> = None;
        for (scanout, window) in self.windows.iter_mut().enumerate() {
            let Some(window) = window else { continue };
            match window.settles_at(RESIZE_SETTLES) {
                Some(at) if at <= now => {
                    // Who hears of the size may move the window at once: its place is the one that goes with the event.
                    if let Some(place) = window.place() {
                        self.remembered.note(scanout, place);
                    }
                    if let Some(monitor) = window.settle() {
                        (self.shared.events)(settled(scanout, &monitor));
                    }
                }
                Some(at) => next = Some(next.map_or(at, |next| next.min(at))),
                None => {}
            }
        }
        event_loop.set_control_flow(next.map_or(ControlFlow::Wait, ControlFlow::WaitUntil));
    }
}

impl ApplicationHandler<Command> for App<'_> {
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
        let is_it = |window: &GuestWindow| window.shared().id() == id;
        let mut windows = self.windows.iter();
        let Some(index) = windows.position(|window| window.as_ref().is_some_and(is_it)) else {
            return;
        };
        match &event {
            WindowEvent::CursorMoved { position, .. } => self.pointer = (*position).into(),
            WindowEvent::ModifiersChanged(held) => self.modifiers = held.state(),
            _ => {}
        }
        let (Some(window), Some(scanout)) = (
            self.windows.get_mut(index).and_then(Option::as_mut),
            self.shared.scanouts.get(index),
        ) else {
            return;
        };
        match event {
            // Destroyed: by somebody else, without asking.
            WindowEvent::CloseRequested | WindowEvent::Destroyed if index > 0 => self.unplug(index),
            WindowEvent::CloseRequested => self.close(event_loop, index),
            WindowEvent::Destroyed => self.end_closed(event_loop, index),
            WindowEvent::Resized(PhysicalSize { width, height }) => {
                scanout.set_size((width, height));
                window.changed();
                // Back from full screen, a window that follows the guest takes its size again.
                window.follow(scanout.mode());
                self.fit_question(index);
            }
            WindowEvent::Moved(_) => window.changed(),
            WindowEvent::ScaleFactorChanged {
                mut inner_size_writer,
                scale_factor,
            } => {
                window.changed();
                scanout.set_scale(scale_factor);
                // The guest's pixels stay what they are.
                if self.options.resize == Resize::Fixed {
                    let size = window.shared().inner_size();
                    // Failing means that the window system has decided.
                    let _ = inner_size_writer.request_inner_size(size);
                }
                self.fit_question(index);
            }
            WindowEvent::Occluded(hidden) => scanout.set_visible(!hidden),
            WindowEvent::RedrawRequested => scanout.frame_wanted(),
            event if self.asks(index) => self.answer_by(event_loop, index, event),
            event => self.input(event_loop, index, event),
        }
    }

    fn device_event(&mut self, _: &ActiveEventLoop, _: DeviceId, event: DeviceEvent) {
        if let DeviceEvent::MouseMotion { delta } = event {
            self.seat.moved(delta);
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
                if let Some(window) = self.window(scanout) {
                    window.request_size((width, height));
                }
                self.note_size(scanout);
            }
            Command::Plug(scanout) => self.plug(event_loop, scanout),
            Command::Unplug(scanout) => self.unplug(scanout),
            Command::Cursor(index) => {
                let scanouts = &self.shared.scanouts;
                if scanouts.get(index).is_some_and(Scanout::has_pointer) {
                    self.show_pointer(event_loop, index, true);
                }
            }
            Command::PresenterEnded { scanout, number } => {
                if let Err(error) = self.presenter_ended(scanout, number) {
                    self.fail(event_loop, error);
                }
            }
            Command::GuestChanged => self.guest_changed(event_loop),
            Command::Show => self.show(event_loop),
            Command::Hide => self.hide(),
            Command::Activated => {
                if matches!(self.closing, Closing::Hidden(_)) {
                    self.show(event_loop);
                }
            }
            Command::Quit => event_loop.exit(),
        }
    }

    fn about_to_wait(&mut self, event_loop: &ActiveEventLoop) {
        if let Some(on) = platform::caps_lock() {
            self.seat.caps_lock(on);
        }
        self.settle_sizes(event_loop);
    }

    fn exiting(&mut self, _: &ActiveEventLoop) {
        // Presenters first (they draw into the windows), all of them at once; then the GPU (its
        // driver may hold on to the display connection), then the windows; all while the event
        // loop still lives.
        for scanout in &self.shared.scanouts {
            scanout.stop();
        }
        for window in self.windows.iter_mut().flatten() {
            if let Some(thread) = window.take_presenter() {
                thread.join();
            }
        }
        // Recordings end with the last frame.
        for scanout in &self.shared.scanouts {
            scanout.set_recorder(None);
        }
        self.presenters.close();
        self.windows.clear();
        // On macOS the process ends after this, when the person has chosen Quit (Cmd-Q): nothing behind the loop runs.
        self.end();
    }
}
