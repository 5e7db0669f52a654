//! What differs between window systems and is not hidden by winit.

#[cfg(target_os = "macos")]
pub(crate) mod macos;
#[cfg(target_os = "linux")]
mod x11;

use std::sync::Arc;

use raw_window_handle::{DisplayHandle, HandleError, HasDisplayHandle, RawDisplayHandle};
#[cfg(target_os = "linux")]
use raw_window_handle::{HasWindowHandle, RawWindowHandle};
use winit::window::{Window, WindowAttributes};

use crate::input::AppleKey;

#[cfg(target_os = "macos")]
pub(crate) use macos::Menu;

/// A menu bar that the program must fill. Only macOS has one.
#[cfg(not(target_os = "macos"))]
pub(crate) struct Menu;

#[cfg(not(target_os = "macos"))]
impl Menu {
    /// The menu bar, complete.
    pub(crate) fn complete(
        _: &winit::event_loop::EventLoopProxy<crate::request::EventLoopRequest>,
    ) -> Menu {
        Menu
    }

    /// Says whether the guest gets all keys.
    pub(crate) fn set_grabbed(&mut self, _: bool) {}
}

/// Tells the system whether the application is hidden. On macOS a hidden application is activated
/// by a click on its icon in the Dock, and [`crate::request::EventLoopRequest::Activated`] is sent.
pub(crate) fn set_application_hidden(hidden: bool) {
    #[cfg(target_os = "macos")]
    macos::set_application_hidden(hidden);
    #[cfg(not(target_os = "macos"))]
    let _ = hidden;
}

/// The key of the current event, where the system tells more about it than winit: on macOS.
pub(crate) fn apple_key() -> Option<AppleKey> {
    #[cfg(target_os = "macos")]
    return macos::key();
    #[cfg(not(target_os = "macos"))]
    None
}

/// Whether Caps Lock is on, where it is a state and not a key: on macOS.
pub(crate) fn caps_lock() -> Option<bool> {
    #[cfg(target_os = "macos")]
    return Some(macos::caps_lock());
    #[cfg(not(target_os = "macos"))]
    None
}

/// Sets the name by which desktops know our windows: the app id on Wayland, the class on X11.
#[cfg(target_os = "linux")]
pub(crate) fn with_app_id(attributes: WindowAttributes) -> WindowAttributes {
    use winit::platform::{wayland::WindowAttributesExtWayland, x11::WindowAttributesExtX11};
    const APP_ID: &str = "hesper";
    let attributes = WindowAttributesExtX11::with_name(attributes, APP_ID, APP_ID);
    WindowAttributesExtWayland::with_name(attributes, APP_ID, APP_ID)
}

/// Does nothing: elsewhere desktops know our windows by the program's bundle.
#[cfg(not(target_os = "linux"))]
pub(crate) fn with_app_id(attributes: WindowAttributes) -> WindowAttributes {
    attributes
}

/// Pixels per inch of the window's monitor, horizontally and vertically, where the window system
/// tells more than a scale.
#[cfg(target_os = "linux")]
pub(crate) fn dpi(window: &Window) -> Option<(f64, f64)> {
    use winit::platform::x11::MonitorHandleExtX11;
    let display = window.display_handle().ok()?.as_raw();
    if !matches!(display, RawDisplayHandle::Xlib(_)) {
        return None;
    }
    let crtc = window.current_monitor()?.native_id();
    believed(x11::X11::connect().ok()?.dpi(crtc)?)
}

/// Pixels per inch of the window's monitor.
#[cfg(target_os = "macos")]
pub(crate) fn dpi(window: &Window) -> Option<(f64, f64)> {
    use winit::platform::macos::MonitorHandleExtMacOS;
    let monitor = window.current_monitor()?;
    let pixels = monitor.size().cast::<f64>();
    let millimetres = objc2_core_graphics::CGDisplayScreenSize(monitor.native_id());
    let dpi = |pixels: f64, millimetres: f64| pixels * 25.4 / millimetres;
    believed((
        dpi(pixels.width, millimetres.width),
        dpi(pixels.height, millimetres.height),
    ))
}

/// Rejects sizes that cannot be true. Projectors, televisions and virtual monitors report a size of
/// 0 or just their aspect ratio.
#[cfg(any(target_os = "linux", target_os = "macos"))]
fn believed(told: (f64, f64)) -> Option<(f64, f64)> {
    let believed = |dpi: f64| (40.0..=800.0).contains(&dpi);
    (believed(told.0) && believed(told.1)).then_some(told)
}

/// Pixels per inch of the window's monitor: unknown here, so that the scale is used.
#[cfg(not(any(target_os = "linux", target_os = "macos")))]
pub(crate) fn dpi(_: &Window) -> Option<(f64, f64)> {
    None
}

/// Whether the window system draws with Xlib.
fn is_x11(window: &Window) -> bool {
    let display = window.display_handle().map(|display| display.as_raw());
    matches!(display, Ok(RawDisplayHandle::Xlib(_)))
}

/// How many pixels of the window one pixel of a pointer's image covers. X11 takes images in pixels,
/// other systems scale them.
pub(crate) fn pointer_pixel(window: &Window) -> f64 {
    if is_x11(window) {
        1.0
    } else {
        window.scale_factor()
    }
}

/// Whether the colours of a pointer's image must be premultiplied with alpha. X11 takes them so and
/// winit passes them on unchanged; elsewhere winit multiplies them.
pub(crate) fn pointer_is_premultiplied(window: &Window) -> bool {
    is_x11(window)
}

/// What a presenter's thread may ask of its window: when to draw the next frame.
///
/// Only a Wayland compositor has a say in that. It asks visible windows only, and presenting to a
/// hidden one would block.
///
/// The thread does not get the window itself. On macOS winit runs most functions of a window on the
/// main thread and waits for them, while the main thread may be waiting for the presenter to end.
pub(crate) struct FrameClock {
    #[cfg(target_os = "linux")]
    window: Option<Arc<Window>>,
}

impl FrameClock {
    /// The clock of `window`. Call this on the main thread.
    pub(crate) fn new(window: &Arc<Window>) -> Result<FrameClock, HandleError> {
        let display = window.display_handle()?.as_raw();
        let asks = matches!(display, RawDisplayHandle::Wayland(_));
        #[cfg(not(target_os = "linux"))]
        debug_assert!(!asks, "Wayland is for Linux alone");
        Ok(FrameClock {
            #[cfg(target_os = "linux")]
            window: asks.then(|| window.clone()),
        })
    }

    /// Whether frames wait for the window system to ask for them.
    pub(crate) fn is_asked_for_frames(&self) -> bool {
        #[cfg(target_os = "linux")]
        return self.window.is_some();
        #[cfg(not(target_os = "linux"))]
        false
    }

    /// Asks the window system to ask for the next frame.
    pub(crate) fn ask(&self) {
        #[cfg(target_os = "linux")]
        if let Some(window) = &self.window {
            window.request_redraw();
        }
    }

    /// Call this right before a frame is presented.
    pub(crate) fn about_to_present(&self) {
        #[cfg(target_os = "linux")]
        if let Some(window) = &self.window {
            window.pre_present_notify();
        }
    }
}

/// A presenter's connection to the display server.
///
/// On X11 it must not be winit's. Whoever waits for a reply on a connection also reads the events
/// that arrive before it. winit sleeps until the socket has something to read, so it would not
/// notice the user's click until the next one. Elsewhere there is one connection, which is made for
/// several threads.
pub(crate) struct Connection {
    #[cfg(target_os = "linux")]
    own: Option<x11::X11>,
    window: Arc<Window>,
}

impl Connection {
    /// A connection to present to `window` with. The server must already know the window; asking
    /// for the window's size ensures that.
    pub(crate) fn new(window: &Arc<Window>) -> Result<Connection, String> {
        #[cfg(target_os = "linux")]
        let own = {
            let display = window
                .display_handle()
                .map_err(|error| error.to_string())?
                .as_raw();
            matches!(display, RawDisplayHandle::Xlib(_))
                .then(x11::X11::connect)
                .transpose()?
        };
        Ok(Connection {
            #[cfg(target_os = "linux")]
            own,
            window: window.clone(),
        })
    }

    /// Whether the window is shown and not minimised, where the window system tells. A covered
    /// window counts as shown.
    pub(crate) fn is_mapped(&self) -> bool {
        #[cfg(target_os = "linux")]
        if let (Some(own), Ok(handle)) = (&self.own, self.window.window_handle())
            && let RawWindowHandle::Xlib(handle) = handle.as_raw()
        {
            return own.is_mapped(handle.window);
        }
        true
    }

    /// Sends the requests that Xlib has collected.
    pub(crate) fn flush(&self) {
        #[cfg(target_os = "linux")]
        if let Some(own) = &self.own {
            own.flush();
        }
    }
}

impl HasDisplayHandle for Connection {
    fn display_handle(&self) -> Result<DisplayHandle<'_>, HandleError> {
        #[cfg(target_os = "linux")]
        if let Some(own) = &self.own {
            return Ok(own.handle());
        }
        self.window.display_handle()
    }
}
