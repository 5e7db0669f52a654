//! A connection of our own to the X server.

use std::ptr::{self, NonNull};

use raw_window_handle::{DisplayHandle, XlibDisplayHandle};
use x11_dl::xlib::{Display, Xlib};

/// Another connection to the server that `DISPLAY` names; winit uses that one, too.
pub(super) struct X11 {
    xlib: Xlib,
    display: NonNull<Display>,
    screen: i32,
}

// SAFETY: winit has called XInitThreads before it opened its own connection, and so before any of
// ours: Xlib locks what threads share.
unsafe impl Send for X11 {}
// SAFETY: as above.
unsafe impl Sync for X11 {}

impl X11 {
    pub(super) fn connect() -> Result<X11, String> {
        let xlib = Xlib::open().map_err(|error| error.to_string())?;
        // SAFETY: a null name means $DISPLAY.
        let display = unsafe { (xlib.XOpenDisplay)(ptr::null()) };
        let display = NonNull::new(display).ok_or("a second connection to the X server failed")?;
        // SAFETY: the display was just opened.
        let screen = unsafe { (xlib.XDefaultScreen)(display.as_ptr()) };
        Ok(X11 {
            xlib,
            display,
            screen,
        })
    }

    pub(super) fn handle(&self) -> DisplayHandle<'_> {
        let raw = XlibDisplayHandle::new(Some(self.display.cast()), self.screen);
        // SAFETY: the connection stays open while we are borrowed.
        unsafe { DisplayHandle::borrow_raw(raw.into()) }
    }

    pub(super) fn flush(&self) {
        // SAFETY: the connection is open.
        unsafe { (self.xlib.XFlush)(self.display.as_ptr()) };
    }
}

impl Drop for X11 {
    fn drop(&mut self) {
        // SAFETY: it is ours, and those who used it are gone.
        unsafe { (self.xlib.XCloseDisplay)(self.display.as_ptr()) };
    }
}
