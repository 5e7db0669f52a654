//! The display as the program's main thread sees it: [`Display`].

use std::sync::Arc;

use crate::events::{DisplayEvent, EventCallback};
use crate::handle::{Control, DisplayHandle};
use crate::headless::Headless;
use crate::input::InputSink;
use crate::options::DisplayOptions;
use crate::record::{self, Recorder};
use crate::scanout::Scanout;
use crate::shared::Shared;
use crate::{DisplayError, event_loop};

/// The main thread's side of the display: owns the windows.
pub struct Display {
    shared: Arc<Shared>,
    main_thread: MainThread,
}

/// What runs on the main thread.
enum MainThread {
    Windows(Box<event_loop::Windows>),
    Headless(Arc<Headless>),
}

impl Display {
    /// Prepares a display. Windows open when [`run`](Self::run) is called. Call this on the main
    /// thread and, with windows, only once in a process: window systems demand both.
    ///
    /// `events` is called on the display's own threads. One case differs: the
    /// [`DisplayEvent::FlushDone`] of a flush that no frame will show is sent by
    /// [`DisplayHandle::flush`] before it returns. The callback should pass the event on and return
    /// quickly. It may use the handle.
    ///
    /// # Errors
    ///
    /// [`DisplayError::NoDisplayServer`], [`DisplayError::BadOption`], [`DisplayError::Record`].
    pub fn new(
        options: DisplayOptions,
        events: Box<dyn Fn(DisplayEvent) + Send + Sync>,
    ) -> Result<(Display, DisplayHandle), DisplayError> {
        options.check()?;
        let events = EventCallback::from(events);
        let scanout = |_| Scanout::new(options.size, events.clone());
        let scanouts: Vec<Scanout> = (0..options.scanouts).map(scanout).collect();
        for (number, scanout) in scanouts.iter().enumerate() {
            if options.overlay {
                scanout.toggle_overlay();
            }
            if let Some(path) = &options.record {
                let path = record::path_for_window(path, number);
                let recorder = Recorder::start(&path)
                    .map_err(|source| DisplayError::Record { path, source })?;
                scanout.set_recorder(Some(recorder));
            }
        }
        let (main_thread, control) = if options.headless {
            let headless = Arc::new(Headless::new(options.size));
            let control = Control::Headless(headless.clone());
            (MainThread::Headless(headless), control)
        } else {
            let windows = event_loop::Windows::new(options)?;
            let control = Control::Windows(windows.proxy());
            (MainThread::Windows(Box::new(windows)), control)
        };
        let shared = Arc::new(Shared::new(scanouts, events));
        let handle = DisplayHandle::new(shared.clone(), control);
        let display = Display {
            shared,
            main_thread,
        };
        Ok((display, handle))
    }

    /// Sets where keyboard, pointer and touch input in the windows goes. Without this it is
    /// dropped.
    pub fn set_input(&mut self, sink: Arc<dyn InputSink>) {
        if let MainThread::Windows(windows) = &mut self.main_thread {
            windows.set_input(sink);
        }
    }

    /// Shows the windows and runs until the first is closed or [`DisplayHandle::quit`] is called.
    ///
    /// # Errors
    ///
    /// [`DisplayError::CreateWindow`], [`DisplayError::NoPresenter`], [`DisplayError::EventLoop`].
    pub fn run(self) -> Result<(), DisplayError> {
        self.run_then(|| ())
    }

    /// Does the same as [`Self::run`], then calls `ended`, also after an error. Clean up in
    /// `ended`: on macOS the process ends without returning from here when the user quits the
    /// program.
    ///
    /// # Errors
    ///
    /// As for [`Self::run`].
    pub fn run_then(self, ended: impl FnOnce()) -> Result<(), DisplayError> {
        match self.main_thread {
            MainThread::Windows(windows) => windows.run(&self.shared, Box::new(ended)),
            MainThread::Headless(headless) => {
                headless.run();
                ended();
                Ok(())
            }
        }
    }
}
