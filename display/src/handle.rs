//! The display as the device sees it: [`DisplayHandle`], for any thread.

use std::path::Path;
use std::sync::Arc;

use winit::event_loop::EventLoopProxy;

use crate::cursor::Cursor;
use crate::events::FlushToken;
use crate::frame_image::FrameImage;
use crate::headless::Headless;
use crate::input::KeyboardLeds;
use crate::monitor::Presence;
use crate::picture::{MAX_SIZE, Picture, Rect};
use crate::request::EventLoopRequest;
use crate::scanout::Scanout;
use crate::shared::Shared;
use crate::statistics::FrameStatistics;
use crate::{DisplayError, screenshot};

/// How to reach the thread in [`Display::run`](crate::Display::run).
pub(crate) enum Control {
    Windows(EventLoopProxy<EventLoopRequest>),
    Headless(Arc<Headless>),
}

/// The device's side of the display: tells it what the guest shows. Cheap to clone.
///
/// Only [`screenshot`](Self::screenshot) waits for the display. A flush or a cursor movement
/// allocates nothing.
#[derive(Clone)]
pub struct DisplayHandle {
    shared: Arc<Shared>,
    control: Arc<Control>,
}

impl DisplayHandle {
    pub(crate) fn new(shared: Arc<Shared>, control: Control) -> DisplayHandle {
        DisplayHandle {
            shared,
            control: Arc::new(control),
        }
    }

    fn scanout(&self, index: usize) -> Result<&Scanout, DisplayError> {
        let count = self.shared.scanouts.len();
        self.shared
            .scanouts
            .get(index)
            .ok_or(DisplayError::NoSuchScanout { index, count })
    }

    fn send(&self, request: EventLoopRequest) -> Result<(), DisplayError> {
        match &*self.control {
            Control::Windows(proxy) => proxy.send_event(request).map_err(|_| DisplayError::Closed),
            Control::Headless(headless) => headless.carry_out(&request, &self.shared),
        }
    }

    /// Shows a picture on a scanout from now on, or nothing. The display always keeps the memory of
    /// the current picture alive. It also keeps that of up to four recent pictures of a scanout,
    /// while others own it too.
    ///
    /// # Errors
    ///
    /// [`DisplayError::NoSuchScanout`].
    pub fn set_scanout(&self, index: usize, picture: Option<Picture>) -> Result<(), DisplayError> {
        if self.scanout(index)?.set_picture(picture) {
            // Failing means that the windows are gone, and their titles with them.
            let _ = self.send(EventLoopRequest::Retitle);
        }
        Ok(())
    }

    /// Says that pixels of the picture have changed. When `done` is given,
    /// [`DisplayEvent::FlushDone`](crate::DisplayEvent::FlushDone) follows once they have been
    /// read: after the frame that shows them, or at once when no frame will show them (headless,
    /// hidden, no picture, `damage` outside the picture).
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
            let _ = self.send(EventLoopRequest::Cursor(index));
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

    /// Shows a text in the middle of a window while the guest shows no picture there. An empty text
    /// removes it.
    ///
    /// # Errors
    ///
    /// [`DisplayError::NoSuchScanout`].
    pub fn set_message(&self, index: usize, text: &str) -> Result<(), DisplayError> {
        self.scanout(index)?.set_message(text);
        Ok(())
    }

    /// The text in the middle of a window now, if there is one.
    ///
    /// # Errors
    ///
    /// [`DisplayError::NoSuchScanout`].
    pub fn shown_text(&self, index: usize) -> Result<Option<String>, DisplayError> {
        Ok(self.scanout(index)?.shown_text())
    }

    /// Shows a text over the guest's picture in all windows for some seconds.
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

    /// Counts and latencies of a scanout's frames.
    ///
    /// # Errors
    ///
    /// [`DisplayError::NoSuchScanout`].
    pub fn frame_statistics(&self, index: usize) -> Result<FrameStatistics, DisplayError> {
        Ok(self.scanout(index)?.statistics())
    }

    /// Shows a text at the end of the windows' titles. An empty text removes it.
    ///
    /// # Errors
    ///
    /// [`DisplayError::Closed`].
    pub fn set_status(&self, text: impl Into<String>) -> Result<(), DisplayError> {
        self.send(EventLoopRequest::SetStatus(text.into()))
    }

    /// Says that the guest got input devices or lost them. The windows' titles tell the user how to
    /// grab the pointer.
    pub fn input_changed(&self) {
        // Failing means that the windows are gone.
        let _ = self.send(EventLoopRequest::Retitle);
    }

    /// Sets which LEDs the guest turns on. Caps lock is shown in the windows' titles, because no
    /// window system lets a window turn on the LEDs of the host's keyboard.
    pub fn set_keyboard_leds(&self, leds: KeyboardLeds) {
        if self.shared.set_leds(leds) {
            // Failing means that the windows are gone.
            let _ = self.send(EventLoopRequest::Retitle);
        }
    }

    /// Gives the guest's monitor another size, in physical pixels. Where the guest follows the
    /// window ([`Resize::Guest`](crate::Resize::Guest)), this asks the window system to resize the
    /// window; otherwise it tells the guest. The result arrives as
    /// [`DisplayEvent::MonitorChanged`](crate::DisplayEvent::MonitorChanged). Sizes are clamped to
    /// 1 to [`MAX_SIZE`].
    ///
    /// # Errors
    ///
    /// [`DisplayError::NoSuchScanout`], [`DisplayError::Unplugged`], [`DisplayError::Hidden`],
    /// [`DisplayError::Closed`].
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
        self.send(EventLoopRequest::Resize {
            scanout: index,
            width,
            height,
        })
    }

    /// Opens the window of an unplugged monitor again.
    /// [`DisplayEvent::MonitorChanged`](crate::DisplayEvent::MonitorChanged) follows.
    ///
    /// # Errors
    ///
    /// [`DisplayError::NoSuchScanout`], [`DisplayError::Closed`].
    pub fn plug(&self, index: usize) -> Result<(), DisplayError> {
        self.scanout(index)?;
        self.send(EventLoopRequest::Plug(index))
    }

    /// Closes a window, as a user would.
    /// [`DisplayEvent::Unplugged`](crate::DisplayEvent::Unplugged) follows.
    ///
    /// # Errors
    ///
    /// [`DisplayError::NoSuchScanout`], [`DisplayError::FirstMonitor`], [`DisplayError::Closed`].
    pub fn unplug(&self, index: usize) -> Result<(), DisplayError> {
        self.scanout(index)?;
        if index == 0 {
            return Err(DisplayError::FirstMonitor);
        }
        self.send(EventLoopRequest::Unplug(index))
    }

    /// Says whether a guest is connected. This decides what closing the first window does
    /// ([`OnClose`](crate::OnClose)). When a guest connects, hidden windows are shown.
    pub fn set_guest_connected(&self, connected: bool) {
        self.shared.set_guest(connected);
        // Failing means that the windows are gone.
        let _ = self.send(EventLoopRequest::GuestChanged);
    }

    /// Shows hidden windows again, as they were. Windows that are not hidden are raised, as far as
    /// the window system allows it.
    ///
    /// # Errors
    ///
    /// [`DisplayError::NoWindows`], [`DisplayError::Closed`].
    pub fn show(&self) -> Result<(), DisplayError> {
        self.send(EventLoopRequest::Show)
    }

    /// Hides all windows. The guest's monitors stay as they are.
    ///
    /// # Errors
    ///
    /// [`DisplayError::NoWindows`], [`DisplayError::Closed`].
    pub fn hide(&self) -> Result<(), DisplayError> {
        self.send(EventLoopRequest::Hide)
    }

    /// Whether the windows are hidden.
    #[must_use]
    pub fn is_hidden(&self) -> bool {
        let mut scanouts = self.shared.scanouts.iter();
        scanouts.any(|scanout| scanout.presence() == Presence::Hidden)
    }

    /// Writes what a window shows, with bars and cursor, to a PNG file. Without a window (headless
    /// or hidden) it writes what a window of the picture's size would show. Waits up to 10 s for
    /// the frame. Do not call this on the main thread or in the event callback: the frame may need
    /// them.
    ///
    /// # Errors
    ///
    /// [`DisplayError::NoSuchScanout`], [`DisplayError::Unplugged`],
    /// [`DisplayError::NothingShown`], [`DisplayError::ScreenshotTimeout`],
    /// [`DisplayError::Screenshot`], [`DisplayError::WritePng`], [`DisplayError::Closed`].
    pub fn screenshot(&self, index: usize, path: &Path) -> Result<(), DisplayError> {
        screenshot::save(&self.image(index)?, path)
    }

    /// Returns what [`screenshot`](Self::screenshot) would write: the bytes of a PNG file.
    ///
    /// # Errors
    ///
    /// Those of [`screenshot`](Self::screenshot), and [`DisplayError::EncodePng`] instead of
    /// [`DisplayError::WritePng`].
    pub fn screenshot_bytes(&self, index: usize) -> Result<Vec<u8>, DisplayError> {
        let mut bytes = Vec::new();
        let encoded = self.image(index)?.encode(&mut bytes);
        encoded.map_err(DisplayError::EncodePng)?;
        Ok(bytes)
    }

    fn image(&self, index: usize) -> Result<FrameImage, DisplayError> {
        let scanout = self.scanout(index)?;
        let windows = matches!(*self.control, Control::Windows(_));
        match scanout.presence() {
            Presence::Unplugged => return Err(DisplayError::Unplugged(index)),
            Presence::Shown if windows => match screenshot::of_window(index, scanout) {
                // It was hidden just now.
                Err(DisplayError::Closed) if scanout.presence() == Presence::Hidden => {}
                done => return done,
            },
            Presence::Shown | Presence::Hidden => {}
        }
        screenshot::of_headless(index, scanout)
    }

    /// Ends [`Display::run`](crate::Display::run) without a
    /// [`DisplayEvent::CloseRequested`](crate::DisplayEvent::CloseRequested).
    pub fn quit(&self) {
        // Failing means that it has already ended.
        let _ = self.send(EventLoopRequest::Quit);
    }
}
