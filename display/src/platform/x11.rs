//! A connection of our own to the X server.

use std::ptr::{self, NonNull};

use raw_window_handle::{DisplayHandle, XlibDisplayHandle};
use x11_dl::xlib::{Display, IsViewable, XWindowAttributes, Xlib};
use x11_dl::xrandr::{RR_Rotate_90, RR_Rotate_270, XRRScreenResources, Xrandr};

/// Another connection to the server that `DISPLAY` names, which winit uses, too.
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

    /// Whether this window and all its parents are mapped.
    pub(super) fn is_mapped(&self, window: std::ffi::c_ulong) -> bool {
        let mut attributes = std::mem::MaybeUninit::<XWindowAttributes>::uninit();
        // SAFETY: the connection is open. The server says whether the window exists; then
        // everything is filled in.
        unsafe {
            let display = self.display.as_ptr();
            (self.xlib.XGetWindowAttributes)(display, window, attributes.as_mut_ptr()) == 0
                || attributes.assume_init().map_state == IsViewable
        }
    }

    /// Pixels per inch of the monitor on this CRTC, horizontally and vertically.
    pub(super) fn dpi(&self, crtc: u32) -> Option<(f64, f64)> {
        let xrandr = Xrandr::open().ok()?;
        let display = self.display.as_ptr();
        // SAFETY: the connection is open; the root window is the screen's.
        let resources = unsafe {
            let root = (self.xlib.XDefaultRootWindow)(display);
            (xrandr.XRRGetScreenResourcesCurrent)(display, root)
        };
        let resources = NonNull::new(resources)?;
        let dpi = self.dpi_among(&xrandr, resources, crtc);
        // SAFETY: it came from the library, and nothing of it is used any more.
        unsafe { (xrandr.XRRFreeScreenResources)(resources.as_ptr()) };
        dpi
    }

    fn dpi_among(
        &self,
        xrandr: &Xrandr,
        resources: NonNull<XRRScreenResources>,
        crtc: u32,
    ) -> Option<(f64, f64)> {
        let (display, resources) = (self.display.as_ptr(), resources.as_ptr());
        // SAFETY: connection and resources live; an unknown CRTC gives null.
        let info = unsafe { (xrandr.XRRGetCrtcInfo)(display, resources, crtc.into()) };
        let info = NonNull::new(info)?;
        // SAFETY: the library filled it; `outputs` has `noutput` entries.
        let (pixels, turned, output) = unsafe {
            let info = info.as_ref();
            let turned = info.rotation & (RR_Rotate_90 | RR_Rotate_270) as u16 != 0;
            let output = (info.noutput > 0).then(|| *info.outputs);
            ((info.width, info.height), turned, output)
        };
        // SAFETY: it came from the library, and nothing of it is used any more.
        unsafe { (xrandr.XRRFreeCrtcInfo)(info.as_ptr()) };
        // SAFETY: as for the CRTC.
        let output = unsafe { (xrandr.XRRGetOutputInfo)(display, resources, output?) };
        let output = NonNull::new(output)?;
        // SAFETY: the library filled it.
        let (across, down) = unsafe { (output.as_ref().mm_width, output.as_ref().mm_height) };
        // SAFETY: it came from the library, and nothing of it is used any more.
        unsafe { (xrandr.XRRFreeOutputInfo)(output.as_ptr()) };
        let (across, down) = if turned {
            (down, across)
        } else {
            (across, down)
        };
        let dpi = |pixels: u32, mm: std::ffi::c_ulong| f64::from(pixels) * 25.4 / mm as f64;
        Some((dpi(pixels.0, across), dpi(pixels.1, down)))
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
