//! One scanout's window: its title, its size on the way to the guest, its presenter.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use winit::dpi::{PhysicalPosition, PhysicalSize};
use winit::error::ExternalError;
use winit::event_loop::ActiveEventLoop;
use winit::window::{CursorGrabMode, Window};

use crate::DisplayError;
use crate::display::DisplayOptions;
use crate::picture::MAX_SIZE;
use crate::platform;
use crate::presenter::Thread;

/// The smallest inner size a user can drag a window to: VGA's text screen at half its size is the
/// smallest thing one can still read.
const MIN_SIZE: (u32, u32) = (320, 200);

/// A window that shows a scanout.
pub(crate) struct GuestWindow {
    scanout: usize,
    presenter: Option<Thread>,
    window: Arc<Window>,
    /// The size the guest has been told.
    told: (u32, u32),
    /// The window system draws its pointer over the window.
    pointer_shown: bool,
    /// The grabbed pointer is not held in place: it is led back to the middle of the window.
    pointer_led: bool,
    /// A size that the guest has not been told, and since when.
    unsettled: Option<((u32, u32), Instant)>,
}

impl GuestWindow {
    pub(crate) fn open(
        event_loop: &ActiveEventLoop,
        scanout: usize,
        options: &DisplayOptions,
    ) -> Result<GuestWindow, DisplayError> {
        let (width, height) = options.size;
        let attributes = Window::default_attributes()
            .with_title(&options.title)
            .with_inner_size(PhysicalSize::new(width, height))
            // A size asked for by name may be smaller than what a hand may drag.
            .with_min_inner_size(PhysicalSize::new(
                width.min(MIN_SIZE.0),
                height.min(MIN_SIZE.1),
            ))
            .with_max_inner_size(PhysicalSize::new(MAX_SIZE, MAX_SIZE));
        let window = event_loop
            .create_window(platform::with_app_id(attributes))
            .map_err(|source| DisplayError::CreateWindow { scanout, source })?;
        let mut window = GuestWindow {
            scanout,
            presenter: None,
            window: Arc::new(window),
            told: options.size,
            pointer_shown: true,
            pointer_led: false,
            unsettled: None,
        };
        // A tiling window manager gives what it has, not what was asked for.
        window.resized(window.window.inner_size().into());
        Ok(window)
    }

    pub(crate) fn shared(&self) -> &Arc<Window> {
        &self.window
    }

    pub(crate) fn set_presenter(&mut self, thread: Thread) {
        self.presenter = Some(thread);
    }

    pub(crate) fn take_presenter(&mut self) -> Option<Thread> {
        self.presenter.take()
    }

    /// Shows `title — 1280×800 — status`.
    pub(crate) fn set_title(&self, title: &str, mode: Option<(u32, u32)>, status: &str) {
        self.window
            .set_title(&title_text(title, self.scanout, mode, status));
    }

    /// Whether the window system shows its pointer over the window.
    pub(crate) fn show_pointer(&mut self, shown: bool) {
        if self.pointer_shown != shown {
            self.pointer_shown = shown;
            self.window.set_cursor_visible(shown);
        }
    }

    /// Keeps the pointer in the window and hides it.
    pub(crate) fn grab_pointer(&mut self) -> Result<(), ExternalError> {
        // X11 cannot hold it in place as macOS and Wayland can. It could confine it to the window, but reports
        // every movement twice while it does.
        self.pointer_led = self.window.set_cursor_grab(CursorGrabMode::Locked).is_err();
        if self.pointer_led {
            self.centre_pointer()?;
        }
        self.show_pointer(false);
        Ok(())
    }

    /// The grabbed pointer has come to `at`: leads it back before it leaves the window.
    pub(crate) fn hold_pointer(&self, at: PhysicalPosition<f64>) {
        let PhysicalSize { width, height } = self.window.inner_size();
        let far = |at: f64, size: u32| (at - f64::from(size) / 2.0).abs() > f64::from(size) / 4.0;
        if self.pointer_led
            && (far(at.x, width) || far(at.y, height))
            && let Err(error) = self.centre_pointer()
        {
            log::warn!("the window system does not move the pointer: {error}");
        }
    }

    fn centre_pointer(&self) -> Result<(), ExternalError> {
        let PhysicalSize { width, height } = self.window.inner_size();
        self.window
            .set_cursor_position(PhysicalPosition::new(width / 2, height / 2))
    }

    /// Takes [`Self::grab_pointer`] back.
    pub(crate) fn release_pointer(&mut self) {
        if let Err(error) = self.window.set_cursor_grab(CursorGrabMode::None) {
            log::warn!("the window system does not take the pointer back: {error}");
        }
        self.show_pointer(true);
    }

    /// Notes the window's new size.
    pub(crate) fn resized(&mut self, size: (u32, u32)) {
        // A window without pixels is minimised; the guest keeps its mode.
        let worth_telling = size != self.told && size.0 > 0 && size.1 > 0;
        self.unsettled = worth_telling.then(|| (size, Instant::now()));
    }

    /// Asks the window system for another size.
    pub(crate) fn request_size(&mut self, (width, height): (u32, u32)) {
        let size = PhysicalSize::new(width, height);
        let smallest = PhysicalSize::new(width.min(MIN_SIZE.0), height.min(MIN_SIZE.1));
        self.window.set_min_inner_size(Some(smallest));
        if let Some(done) = self.window.request_inner_size(size) {
            // Some window systems do it at once and send no event.
            self.resized(done.into());
        }
    }

    /// When the size that the guest has not been told will have been the same for `rest`.
    pub(crate) fn settles_at(&self, rest: Duration) -> Option<Instant> {
        self.unsettled.map(|(_, since)| since + rest)
    }

    /// The size to tell the guest now.
    pub(crate) fn settle(&mut self) -> Option<(u32, u32)> {
        let (size, _) = self.unsettled.take()?;
        self.told = size;
        Some(size)
    }
}

fn title_text(title: &str, scanout: usize, mode: Option<(u32, u32)>, status: &str) -> String {
    let mut text = title.to_owned();
    // Writing to a String cannot fail.
    if scanout > 0 {
        let _ = write!(text, " ({})", scanout + 1);
    }
    if let Some((width, height)) = mode {
        let _ = write!(text, " — {width}×{height}");
    }
    if !status.is_empty() {
        let _ = write!(text, " — {status}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::title_text;

    #[test]
    fn the_title_names_screen_mode_and_status_as_far_as_there_are_any() {
        assert_eq!(title_text("Hesper", 0, None, ""), "Hesper");
        assert_eq!(
            title_text("Hesper", 0, Some((1280, 800)), ""),
            "Hesper — 1280×800"
        );
        assert_eq!(
            title_text("Hesper", 1, Some((1, 2)), "x"),
            "Hesper (2) — 1×2 — x"
        );
        assert_eq!(title_text("Hesper", 0, None, "waiting"), "Hesper — waiting");
    }
}
