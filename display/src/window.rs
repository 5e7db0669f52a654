//! The window of one scanout: its title, the size and position that the guest is told, its
//! presenter.
//!
//! The guest's [`Monitor`] has the size of the window, or a size of its own ([`Resize`]). A change
//! is reported once the window has rested for a while: otherwise a user who drags an edge would
//! make the guest set a hundred modes.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use winit::dpi::{PhysicalPosition, PhysicalSize};
use winit::error::ExternalError;
use winit::event_loop::ActiveEventLoop;
use winit::window::{CursorGrabMode, CursorIcon, Fullscreen, UserAttentionType, Window};

use crate::DisplayError;
use crate::host_pointer::HostPointer;
use crate::icon::icon;
use crate::monitor::{Monitor, USUAL_DPI, millimetres};
use crate::options::{DisplayOptions, Resize};
use crate::picture::MAX_SIZE;
use crate::platform;
use crate::presenter::PresenterThread;
use crate::window_positions::WindowGeometry;

/// The smallest inner size to which a user can drag a window. It is half of VGA's text screen, the
/// smallest that one can still read.
const MIN_SIZE: (u32, u32) = (320, 200);

/// What is needed to open a hidden window again as it was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HiddenWindow {
    /// `None`: the window was never open.
    geometry: Option<WindowGeometry>,
    monitor_size: (u32, u32),
    reported: Option<Monitor>,
}

impl HiddenWindow {
    /// A window that was never open, for a monitor that has been reported to the guest.
    pub(crate) fn new(monitor: Monitor) -> HiddenWindow {
        HiddenWindow {
            geometry: None,
            monitor_size: monitor.size,
            reported: Some(monitor),
        }
    }
}

/// A window that shows a scanout.
pub(crate) struct GuestWindow {
    scanout: usize,
    resize: Resize,
    /// The size of the guest's monitor, where it is not that of the window.
    monitor_size: (u32, u32),
    presenter: Option<PresenterThread>,
    window: Arc<Window>,
    /// What the guest was told last.
    reported: Option<Monitor>,
    /// What the host's pointer looks like over the window.
    pointer: HostPointer,
    /// The grabbed pointer is not locked but led back to the middle of the window.
    pointer_led: bool,
    /// When the window changed last. `None` once that has been reported.
    changed_at: Option<Instant>,
}

impl GuestWindow {
    pub(crate) fn open(
        event_loop: &ActiveEventLoop,
        scanout: usize,
        options: &DisplayOptions,
        before: Option<WindowGeometry>,
    ) -> Result<GuestWindow, DisplayError> {
        // A window that follows the guest takes its size from there.
        let keeps_size = !options.explicit_size && options.resize != Resize::Fixed;
        let (width, height) = match before {
            Some(before) if keeps_size => before.size,
            _ => options.size,
        };
        let full_screen = options.full_screen || before.is_some_and(|before| before.full_screen);
        let position = before.and_then(|before| before.position);
        let on_a_monitor = |at: &(i32, i32)| {
            let mut monitors = event_loop.available_monitors();
            monitors.any(|monitor| {
                is_reachable_on(*at, monitor.position().into(), monitor.size().into())
            })
        };
        let mut attributes = Window::default_attributes()
            .with_title(&options.title)
            .with_inner_size(PhysicalSize::new(width, height))
            // A size that is asked for explicitly may be smaller than the limit for dragging.
            .with_min_inner_size(PhysicalSize::new(
                width.min(MIN_SIZE.0),
                height.min(MIN_SIZE.1),
            ))
            .with_max_inner_size(PhysicalSize::new(MAX_SIZE, MAX_SIZE))
            .with_window_icon(icon())
            .with_resizable(options.resize != Resize::Fixed)
            .with_fullscreen(full_screen.then_some(Fullscreen::Borderless(None)));
        if let Some((x, y)) = position.filter(on_a_monitor) {
            attributes = attributes.with_position(PhysicalPosition::new(x, y));
        }
        let window = event_loop
            .create_window(platform::with_app_id(attributes))
            .map_err(|source| DisplayError::CreateWindow { scanout, source })?;
        Ok(GuestWindow {
            scanout,
            resize: options.resize,
            monitor_size: options.size,
            presenter: None,
            window: Arc::new(window),
            reported: None,
            pointer: HostPointer::System,
            pointer_led: false,
            // A tiling window manager may give another size than was asked for.
            changed_at: Some(Instant::now()),
        })
    }

    /// Opens a hidden window again. `before` is its kept geometry, for what the window itself did
    /// not have.
    pub(crate) fn reopen(
        event_loop: &ActiveEventLoop,
        scanout: usize,
        options: &DisplayOptions,
        hidden: HiddenWindow,
        before: Option<WindowGeometry>,
    ) -> Result<GuestWindow, DisplayError> {
        let mut options = options.clone();
        let geometry = hidden.geometry.map(|geometry| {
            // A window in full screen goes back to the size it had before.
            options.size = match before {
                _ if !geometry.full_screen => geometry.size,
                Some(before) => before.size,
                None => options.size,
            };
            options.full_screen = geometry.full_screen;
            WindowGeometry {
                size: options.size,
                ..geometry
            }
        });
        let mut window = Self::open(event_loop, scanout, &options, geometry.or(before))?;
        window.monitor_size = hidden.monitor_size;
        window.reported = hidden.reported;
        Ok(window)
    }

    /// What [`Self::reopen`] needs.
    pub(crate) fn hidden(&self) -> HiddenWindow {
        HiddenWindow {
            geometry: self.geometry(),
            monitor_size: self.monitor_size,
            reported: self.reported,
        }
    }

    pub(crate) fn winit_window(&self) -> &Arc<Window> {
        &self.window
    }

    pub(crate) fn set_presenter(&mut self, thread: PresenterThread) {
        self.presenter = Some(thread);
    }

    pub(crate) fn take_presenter(&mut self) -> Option<PresenterThread> {
        self.presenter.take()
    }

    /// Takes the presenter if it has this number.
    pub(crate) fn take_presenter_if(&mut self, number: u64) -> Option<PresenterThread> {
        self.presenter.take_if(|thread| thread.number == number)
    }

    /// Shows `title — 1280×800 — status`.
    pub(crate) fn set_title(&self, title: &str, mode: Option<(u32, u32)>, status: &str) {
        self.window
            .set_title(&title_text(title, self.scanout, mode, status));
    }

    /// Whether a position is inside the window.
    pub(crate) fn contains(&self, at: PhysicalPosition<f64>) -> bool {
        let PhysicalSize { width, height } = self.window.inner_size();
        (0.0..width.into()).contains(&at.x) && (0.0..height.into()).contains(&at.y)
    }

    /// Translates a position in this window to one in `other`. `None` where windows do not know
    /// their positions.
    pub(crate) fn translated_to(
        &self,
        other: &GuestWindow,
        at: PhysicalPosition<f64>,
    ) -> Option<PhysicalPosition<f64>> {
        let here = self.window.inner_position().ok()?.cast::<f64>();
        let there = other.window.inner_position().ok()?.cast::<f64>();
        Some(PhysicalPosition::new(
            at.x + here.x - there.x,
            at.y + here.y - there.y,
        ))
    }

    /// Shows `pointer` over the window. Returns `false` if the window system refuses.
    pub(crate) fn show_pointer(
        &mut self,
        pointer: HostPointer,
        event_loop: &ActiveEventLoop,
    ) -> bool {
        if self.pointer == pointer {
            return true;
        }
        let shown = pointer.show(&self.window, event_loop);
        self.pointer = if shown { pointer } else { HostPointer::Hidden };
        shown
    }

    /// Hides the pointer and keeps it in the window.
    pub(crate) fn grab_pointer(&mut self) -> Result<(), ExternalError> {
        // X11 cannot lock the pointer as macOS and Wayland can. It could confine it to the window,
        // but then it reports every movement twice.
        self.pointer_led = self.window.set_cursor_grab(CursorGrabMode::Locked).is_err();
        if self.pointer_led {
            self.centre_pointer()?;
        }
        self.pointer = HostPointer::Hidden;
        self.window.set_cursor_visible(false);
        Ok(())
    }

    /// The grabbed pointer has moved to `at`: leads it back before it leaves the window.
    pub(crate) fn hold_pointer(&self, at: PhysicalPosition<f64>) {
        let PhysicalSize { width, height } = self.window.inner_size();
        let far = |at: f64, size: u32| (at - f64::from(size) / 2.0).abs() > f64::from(size) / 4.0;
        if self.pointer_led
            && (far(at.x, width) || far(at.y, height))
            && let Err(error) = self.centre_pointer()
        {
            log::warn!("cannot move the pointer: {error}");
        }
    }

    fn centre_pointer(&self) -> Result<(), ExternalError> {
        let PhysicalSize { width, height } = self.window.inner_size();
        self.window
            .set_cursor_position(PhysicalPosition::new(width / 2, height / 2))
    }

    /// Undoes [`Self::grab_pointer`].
    pub(crate) fn release_pointer(&mut self) {
        if let Err(error) = self.window.set_cursor_grab(CursorGrabMode::None) {
            log::warn!("cannot release the pointer: {error}");
        }
        // The next movement sets it again.
        self.pointer = HostPointer::System;
        self.window.set_cursor(CursorIcon::Default);
        self.window.set_cursor_visible(true);
    }

    /// The window was resized or moved, or is on another monitor.
    pub(crate) fn changed(&mut self) {
        self.changed_at = Some(Instant::now());
    }

    /// Raises the window and gives it the keyboard, as far as the window system allows it.
    pub(crate) fn raise(&self) {
        if self.window.is_minimized() == Some(true) {
            self.window.set_minimized(false);
        }
        if !self.window.has_focus() {
            self.window.focus_window();
            // Where a window may not take the keyboard, this tells the user that it wants it.
            let kind = UserAttentionType::Informational;
            self.window.request_user_attention(Some(kind));
        }
    }

    /// Gives the guest's monitor another size.
    pub(crate) fn request_size(&mut self, size: (u32, u32)) {
        if self.resize == Resize::Guest {
            self.resize_window(size);
        } else {
            self.monitor_size = size;
            self.changed();
        }
    }

    fn resize_window(&mut self, (width, height): (u32, u32)) {
        let size = PhysicalSize::new(width, height);
        let smallest = PhysicalSize::new(width.min(MIN_SIZE.0), height.min(MIN_SIZE.1));
        self.window.set_min_inner_size(Some(smallest));
        if self.window.request_inner_size(size).is_some() {
            // Some window systems resize at once and send no event.
            self.changed();
        }
    }

    /// The guest's picture has this size. A window that follows the guest takes it over.
    pub(crate) fn follow(&mut self, mode: Option<(u32, u32)>) {
        if let (Resize::Fixed, Some(mode), None) = (self.resize, mode, self.window.fullscreen())
            && mode != self.window.inner_size().into()
        {
            self.resize_window(mode);
        }
    }

    /// Switches full screen on or off.
    pub(crate) fn toggle_full_screen(&self) {
        let full = self.window.fullscreen().is_none();
        self.window
            .set_fullscreen(full.then_some(Fullscreen::Borderless(None)));
    }

    /// When the window will have rested for `rest`. `None` if everything has been reported.
    pub(crate) fn settles_at(&self, rest: Duration) -> Option<Instant> {
        self.changed_at.map(|since| since + rest)
    }

    /// The window's geometry, to be kept. `None` while it has no pixels.
    pub(crate) fn geometry(&self) -> Option<WindowGeometry> {
        let size: (u32, u32) = self.window.inner_size().into();
        (size.0 > 0 && size.1 > 0).then(|| WindowGeometry {
            size,
            position: self.window.outer_position().ok().map(Into::into),
            full_screen: self.window.fullscreen().is_some(),
        })
    }

    /// Reports that the window has come to rest. Returns the monitor if the guest does not know it
    /// yet.
    pub(crate) fn settle(&mut self) -> Option<Monitor> {
        self.changed_at = None;
        let size = match self.resize {
            Resize::Guest => self.window.inner_size().into(),
            Resize::Scale | Resize::Fixed => self.monitor_size,
        };
        let usual = USUAL_DPI * self.window.scale_factor();
        let dpi = platform::dpi(&self.window).unwrap_or((usual, usual));
        let now = Monitor {
            size,
            millimetres: millimetres(size, dpi),
            position: self.window.inner_position().ok().map(Into::into),
        };
        // A window without pixels is minimised. The guest keeps its mode.
        let news = size.0 > 0 && size.1 > 0 && self.reported != Some(now);
        news.then(|| *self.reported.insert(now))
    }
}

/// Whether a user could still grab a window whose frame begins at `at`, on a monitor at `corner`.
fn is_reachable_on(at: (i32, i32), corner: (i32, i32), size: (u32, u32)) -> bool {
    // This much of the title bar must be on the monitor.
    const GRIP: i64 = 32;
    let on = |at: i32, corner: i32, size: u32| {
        let inside = i64::from(at) - i64::from(corner);
        (0..=i64::from(size) - GRIP).contains(&inside)
    };
    on(at.0, corner.0, size.0) && on(at.1, corner.1, size.1)
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
    use super::{is_reachable_on, title_text};

    #[test]
    fn a_place_counts_while_a_hand_can_get_at_the_window() {
        let second = ((1920, 0), (1280, 1024));
        for (at, expected) in [
            ((1920, 0), true),
            ((3168, 992), true),
            ((3169, 992), false),
            ((3168, 993), false),
            ((1919, 0), false),
            ((1920, -1), false),
            ((i32::MIN, i32::MAX), false),
        ] {
            assert_eq!(is_reachable_on(at, second.0, second.1), expected, "{at:?}");
        }
    }

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
