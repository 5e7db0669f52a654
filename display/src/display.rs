//! The display as the program sees it: [`Display`] on the main thread, [`DisplayHandle`]
//! everywhere else.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use winit::event_loop::EventLoopProxy;

use crate::cursor::Cursor;
use crate::event_loop::{self, Command};
use crate::input::{InputSink, KeyboardLeds};
use crate::options::DisplayOptions;
use crate::picture::{MAX_SIZE, Picture, Rect};
use crate::record::Recorder;
use crate::scanout::{Presence, Scanout};
use crate::statistics::Frames;
use crate::window::Monitor;
use crate::{DisplayError, screenshot};

/// The most scanouts a device may have (`VIRTIO_GPU_MAX_SCANOUTS`).
pub const MAX_SCANOUTS: usize = 16;

/// Identifies a flush whose end the caller wants to know. Only the caller gives it a meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlushToken(pub u64);

/// What happened at the display.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum DisplayEvent {
    /// A window has settled at a size and a place, for the first time or anew: what the guest should take for its
    /// monitor.
    Settled {
        /// Whose window.
        scanout: usize,
        /// Width in physical pixels.
        width: u32,
        /// Height in physical pixels.
        height: u32,
        /// Width and height in millimetres, as far as the window system knows its pixels' size.
        millimetres: (u32, u32),
        /// Where the window's upper left pixel is on the desktop, in physical pixels, where the window system tells.
        position: Option<(i32, i32)>,
    },
    /// The user closed the first window, and that ends the display ([`OnClose`](crate::OnClose)); [`Display::run`] is about to return.
    CloseRequested {
        /// Whose window.
        scanout: usize,
    },
    /// All windows are hidden. The guest's monitors stay as they are.
    Hidden,
    /// They are shown again.
    Shown,
    /// Another window is gone: the user closed it, or [`DisplayHandle::unplug`] was called. With the next
    /// [`DisplayEvent::Settled`] it is back.
    Unplugged {
        /// Whose window it was.
        scanout: usize,
    },
    /// The pixels of a flush are no longer being read. Comes exactly once for every token.
    FlushDone(FlushToken),
}

/// Receives the display's events.
pub(crate) type Events = Arc<dyn Fn(DisplayEvent) + Send + Sync>;

/// The path for the window with this number.
fn numbered(path: &Path, number: usize) -> PathBuf {
    if number == 0 {
        return path.to_owned();
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = format!("{stem}-window{}", number + 1);
    match path.extension() {
        Some(extension) => path.with_file_name(name).with_extension(extension),
        None => path.with_file_name(name),
    }
}

/// What the two sides share.
pub(crate) struct Shared {
    pub(crate) scanouts: Vec<Scanout>,
    pub(crate) events: Events,
    control: Control,
    /// A guest is connected.
    guest: AtomicBool,
    leds: Mutex<KeyboardLeds>,
    /// The event loop has been told that the LEDs changed, and has not looked yet: a guest that turns them on
    /// and off without end must not fill its queue.
    leds_changed: AtomicBool,
}

impl Shared {
    /// Whether a guest is connected.
    pub(crate) fn has_guest(&self) -> bool {
        self.guest.load(Ordering::Acquire)
    }

    /// What the guest's keyboard lights up now.
    pub(crate) fn leds(&self) -> KeyboardLeds {
        self.leds_changed.store(false, Ordering::Release);
        *self.leds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How to reach the thread in [`Display::run`].
enum Control {
    Windows(EventLoopProxy<Command>),
    Headless {
        quit: Mutex<bool>,
        changed: Condvar,
        /// Of a monitor that is plugged in.
        size: (u32, u32),
    },
}

/// The display's main-thread side: owns the windows.
pub struct Display {
    shared: Arc<Shared>,
    /// `None`: headless.
    event_loop: Option<event_loop::Windows>,
}

impl Display {
    /// Prepares a display. Windows appear once [`run`](Self::run) is called. Must be called on the
    /// main thread, and with windows only once in a process (both are rules of window systems).
    ///
    /// `events` is called on the display's own threads; only the [`DisplayEvent::FlushDone`] of a
    /// flush that nobody is going to see is called by [`DisplayHandle::flush`] itself, before it
    /// returns. It should hand the event on and return quickly. It may use the handle.
    ///
    /// # Errors
    ///
    /// [`DisplayError::NoDisplayServer`], [`DisplayError::BadOption`], [`DisplayError::Record`].
    pub fn new(
        options: DisplayOptions,
        events: Box<dyn Fn(DisplayEvent) + Send + Sync>,
    ) -> Result<(Display, DisplayHandle), DisplayError> {
        options.check()?;
        let events = Events::from(events);
        let scanout = |_| Scanout::new(options.size, events.clone());
        let scanouts: Vec<Scanout> = (0..options.scanouts).map(scanout).collect();
        for (number, scanout) in scanouts.iter().enumerate() {
            if options.overlay {
                scanout.toggle_overlay();
            }
            if let Some(path) = &options.record {
                let path = numbered(path, number);
                let recorder = Recorder::start(&path)
                    .map_err(|source| DisplayError::Record { path, source })?;
                scanout.set_recorder(Some(recorder));
            }
        }
        let (event_loop, control) = if options.headless {
            (
                None,
                Control::Headless {
                    quit: Mutex::new(false),
                    changed: Condvar::new(),
                    size: options.size,
                },
            )
        } else {
            let windows = event_loop::Windows::new(options)?;
            let proxy = windows.proxy();
            (Some(windows), Control::Windows(proxy))
        };
        let shared = Arc::new(Shared {
            scanouts,
            events,
            control,
            guest: AtomicBool::new(false),
            leds: Mutex::default(),
            leds_changed: AtomicBool::new(false),
        });
        let handle = DisplayHandle {
            shared: shared.clone(),
        };
        Ok((Display { shared, event_loop }, handle))
    }

    /// Says where what is typed and pointed in the windows goes. Without this, nowhere.
    pub fn set_input(&mut self, sink: Arc<dyn InputSink>) {
        if let Some(windows) = &mut self.event_loop {
            windows.set_input(sink);
        }
    }

    /// Shows the windows and works until the first is closed or [`DisplayHandle::quit`] is called.
    ///
    /// # Errors
    ///
    /// [`DisplayError::CreateWindow`], [`DisplayError::NoPresenter`],
    /// [`DisplayError::EventLoop`].
    pub fn run(self) -> Result<(), DisplayError> {
        self.run_then(|| ())
    }

    /// The same, and then calls `ended`, also when it fails. What must be cleaned up belongs there: on macOS the process ends
    /// without a return from here when the person quits the program.
    ///
    /// # Errors
    ///
    /// As for [`Self::run`].
    pub fn run_then(self, ended: impl FnOnce()) -> Result<(), DisplayError> {
        if let Some(windows) = self.event_loop {
            return windows.run(&self.shared, Box::new(ended));
        }
        if let Control::Headless { quit, changed, .. } = &self.shared.control {
            let quit = quit.lock().unwrap_or_else(PoisonError::into_inner);
            drop(changed.wait_while(quit, |quit| !*quit));
        }
        ended();
        Ok(())
    }
}

/// The display's side for the device: says what the guest shows. Cheap to clone.
///
/// Except for [`screenshot`](Self::screenshot) nothing here waits for the display, and a flush or
/// a cursor movement allocates nothing.
#[derive(Clone)]
pub struct DisplayHandle {
    shared: Arc<Shared>,
}

impl DisplayHandle {
    fn scanout(&self, index: usize) -> Result<&Scanout, DisplayError> {
        let count = self.shared.scanouts.len();
        self.shared
            .scanouts
            .get(index)
            .ok_or(DisplayError::NoSuchScanout { index, count })
    }

    fn send(&self, command: Command) -> Result<(), DisplayError> {
        match &self.shared.control {
            Control::Windows(proxy) => proxy.send_event(command).map_err(|_| DisplayError::Closed),
            Control::Headless {
                quit,
                changed,
                size,
            } => {
                match command {
                    Command::Quit => {
                        *quit.lock().unwrap_or_else(PoisonError::into_inner) = true;
                        changed.notify_all();
                    }
                    // A script's resize works the same with and without a window.
                    Command::Resize {
                        scanout,
                        width,
                        height,
                    } => {
                        (self.shared.events)(event_loop::settled(
                            scanout,
                            &Monitor::headless((width, height)),
                        ));
                    }
                    Command::Plug(scanout) => {
                        if self.scanout(scanout)?.set_presence(Presence::Shown) {
                            let monitor = Monitor::headless(*size);
                            (self.shared.events)(event_loop::settled(scanout, &monitor));
                        }
                    }
                    Command::Unplug(scanout) => {
                        if self.scanout(scanout)?.set_presence(Presence::Unplugged) {
                            (self.shared.events)(DisplayEvent::Unplugged { scanout });
                        }
                    }
                    Command::Show | Command::Hide => return Err(DisplayError::NoWindows),
                    // There is no title to change, no pointer, nothing to close, and no presenter to end.
                    Command::Retitle
                    | Command::GuestChanged
                    | Command::Activated
                    | Command::SetStatus(_)
                    | Command::Cursor(_)
                    | Command::PresenterEnded { .. } => {}
                }
                Ok(())
            }
        }
    }

    /// Shows a picture on a scanout from now on, or nothing. The display keeps the memory of up to
    /// four recent pictures of a scanout alive while others own them too, and that of the current
    /// one in any case.
    ///
    /// # Errors
    ///
    /// [`DisplayError::NoSuchScanout`].
    pub fn set_scanout(&self, index: usize, picture: Option<Picture>) -> Result<(), DisplayError> {
        if self.scanout(index)?.set_picture(picture) {
            // Failing means that the windows are gone, and their titles with them.
            let _ = self.send(Command::Retitle);
        }
        Ok(())
    }

    /// Says that pixels of the picture have changed. When `done` is given,
    /// [`DisplayEvent::FlushDone`] follows once they have been read: after the frame that shows
    /// them, or at once when nothing is going to show them (headless, hidden, no picture,
    /// `damage` outside the picture).
    ///
    /// # Errors
    ///
    /// [`DisplayError::NoSuchScanout`]; `done` is then not answered.
    pub fn flush(
        &self,
        index: usize,
        damage: Rect,
        done: Option<FlushToken>,
    ) -> Result<(), DisplayError> {
        self.scanout(index)?.flush(damage, done);
        Ok(())
    }

    /// Shows a cursor over the picture, or none.
    ///
    /// # Errors
    ///
    /// [`DisplayError::NoSuchScanout`].
    pub fn set_cursor(&self, index: usize, cursor: Option<Cursor>) -> Result<(), DisplayError> {
        if self.scanout(index)?.set_cursor(cursor.map(Arc::new)) {
            // Failing means that the windows are gone.
            let _ = self.send(Command::Cursor(index));
        }
        Ok(())
    }

    /// Moves the cursor's hot spot to a pixel of the picture; it may lie outside.
    ///
    /// # Errors
    ///
    /// [`DisplayError::NoSuchScanout`].
    pub fn move_cursor(&self, index: usize, x: i32, y: i32) -> Result<(), DisplayError> {
        self.scanout(index)?.move_cursor((x, y));
        Ok(())
    }

    /// Says something in the middle of a window while the guest shows no picture there; an empty text is nothing.
    ///
    /// # Errors
    ///
    /// [`DisplayError::NoSuchScanout`].
    pub fn set_message(&self, index: usize, text: &str) -> Result<(), DisplayError> {
        self.scanout(index)?.set_message(text);
        Ok(())
    }

    /// What is said in the middle of a window now, if anything.
    ///
    /// # Errors
    ///
    /// [`DisplayError::NoSuchScanout`].
    pub fn said(&self, index: usize) -> Result<Option<String>, DisplayError> {
        Ok(self.scanout(index)?.said())
    }

    /// Says something over the guest's picture in all windows, for some seconds.
    pub fn notice(&self, text: &str) {
        for scanout in &self.shared.scanouts {
            scanout.notice(text);
        }
    }

    /// How many scanouts there are.
    #[must_use]
    pub fn scanouts(&self) -> usize {
        self.shared.scanouts.len()
    }

    /// How the frames of a scanout have done.
    ///
    /// # Errors
    ///
    /// [`DisplayError::NoSuchScanout`].
    pub fn frames(&self, index: usize) -> Result<Frames, DisplayError> {
        Ok(self.scanout(index)?.frames())
    }

    /// Shows a text at the end of the windows' titles; empty for none.
    ///
    /// # Errors
    ///
    /// [`DisplayError::Closed`].
    pub fn set_status(&self, text: impl Into<String>) -> Result<(), DisplayError> {
        self.send(Command::SetStatus(text.into()))
    }

    /// Says that the guest got input devices, or lost them: the windows' titles tell what can be done with them.
    pub fn input_changed(&self) {
        // Failing means that the windows are gone.
        let _ = self.send(Command::Retitle);
    }

    /// Shows which LEDs the guest turns on: caps lock stands in the windows' titles, since no window system lets
    /// a window turn on those of the keyboard.
    pub fn set_keyboard_leds(&self, leds: KeyboardLeds) {
        *self
            .shared
            .leds
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = leds;
        if !self.shared.leds_changed.swap(true, Ordering::AcqRel) {
            // Failing means that the windows are gone.
            let _ = self.send(Command::Retitle);
        }
    }

    /// Gives the guest's monitor another size, in physical pixels: where the guest follows the window
    /// ([`Resize::Guest`](crate::Resize::Guest)), by asking the window system to resize that; otherwise by telling the guest. What comes
    /// of it arrives as [`DisplayEvent::Settled`]. Sizes are bounded to 1 to [`MAX_SIZE`].
    ///
    /// # Errors
    ///
    /// [`DisplayError::NoSuchScanout`], [`DisplayError::Unplugged`], [`DisplayError::Hidden`], [`DisplayError::Closed`].
    pub fn request_resize(
        &self,
        index: usize,
        width: u32,
        height: u32,
    ) -> Result<(), DisplayError> {
        match self.scanout(index)?.presence() {
            Presence::Shown => {}
            Presence::Hidden => return Err(DisplayError::Hidden(index)),
            Presence::Unplugged => return Err(DisplayError::Unplugged(index)),
        }
        let (width, height) = (width.clamp(1, MAX_SIZE), height.clamp(1, MAX_SIZE));
        self.send(Command::Resize {
            scanout: index,
            width,
            height,
        })
    }

    /// Opens the window of an unplugged monitor again; its [`DisplayEvent::Settled`] follows.
    ///
    /// # Errors
    ///
    /// [`DisplayError::NoSuchScanout`], [`DisplayError::Closed`].
    pub fn plug(&self, index: usize) -> Result<(), DisplayError> {
        self.scanout(index)?;
        self.send(Command::Plug(index))
    }

    /// Closes a window, as a person would; [`DisplayEvent::Unplugged`] follows.
    ///
    /// # Errors
    ///
    /// [`DisplayError::NoSuchScanout`], [`DisplayError::FirstMonitor`], [`DisplayError::Closed`].
    pub fn unplug(&self, index: usize) -> Result<(), DisplayError> {
        self.scanout(index)?;
        if index == 0 {
            return Err(DisplayError::FirstMonitor);
        }
        self.send(Command::Unplug(index))
    }

    /// Says whether there is a guest now: it decides what closing the first window does ([`OnClose`](crate::OnClose)). A guest that comes is
    /// shown, if the windows are hidden.
    pub fn set_guest_connected(&self, connected: bool) {
        self.shared.guest.store(connected, Ordering::Release);
        // Failing means that the windows are gone.
        let _ = self.send(Command::GuestChanged);
    }

    /// Shows hidden windows again, as they were; brings those that are not hidden to the front, as far as the window system
    /// lets it.
    ///
    /// # Errors
    ///
    /// [`DisplayError::NoWindows`], [`DisplayError::Closed`].
    pub fn show(&self) -> Result<(), DisplayError> {
        self.send(Command::Show)
    }

    /// Hides all windows. The guest's monitors stay as they are.
    ///
    /// # Errors
    ///
    /// [`DisplayError::NoWindows`], [`DisplayError::Closed`].
    pub fn hide(&self) -> Result<(), DisplayError> {
        self.send(Command::Hide)
    }

    /// Whether the windows are hidden.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        let mut scanouts = self.shared.scanouts.iter();
        scanouts.any(|scanout| scanout.presence() == Presence::Hidden)
    }

    /// Writes exactly what a window shows (bars and cursor included) to a PNG file; headless or hidden, what
    /// a window of the picture's size would show. Waits for the frame: up to 10 s. Must not be
    /// called on the main thread or from the event callback, which that frame may need.
    ///
    /// # Errors
    ///
    /// [`DisplayError::NoSuchScanout`], [`DisplayError::Unplugged`], [`DisplayError::NothingShown`],
    /// [`DisplayError::ScreenshotTimeout`], [`DisplayError::Screenshot`],
    /// [`DisplayError::WritePng`], [`DisplayError::Closed`].
    pub fn screenshot(&self, index: usize, path: &Path) -> Result<(), DisplayError> {
        let scanout = self.scanout(index)?;
        let windows = matches!(self.shared.control, Control::Windows(_));
        match scanout.presence() {
            Presence::Unplugged => return Err(DisplayError::Unplugged(index)),
            Presence::Shown if windows => match screenshot::of_window(index, scanout, path) {
                // Just now.
                Err(DisplayError::Closed) if scanout.presence() == Presence::Hidden => {}
                done => return done,
            },
            Presence::Shown | Presence::Hidden => {}
        }
        screenshot::of_headless(index, scanout, path)
    }

    /// Ends [`Display::run`], without a [`DisplayEvent::CloseRequested`].
    pub fn quit(&self) {
        // Failing means that it has ended.
        let _ = self.send(Command::Quit);
    }
}
