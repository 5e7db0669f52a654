//! The guest's monitors: what the guest is told of a monitor, and whether it is plugged in.

use crate::events::DisplayEvent;

/// Pixels per inch where the window system does not tell: what a scale factor of 1 means.
pub(crate) const USUAL_DPI: f64 = 96.0;

/// What the guest is told of its monitor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Monitor {
    pub(crate) size: (u32, u32),
    pub(crate) millimetres: (u32, u32),
    pub(crate) position: Option<(i32, i32)>,
}

impl Monitor {
    /// A monitor without a window.
    pub(crate) fn headless(size: (u32, u32)) -> Monitor {
        Monitor {
            size,
            millimetres: millimetres(size, (USUAL_DPI, USUAL_DPI)),
            position: None,
        }
    }

    /// The event that tells the program about it.
    pub(crate) fn event(&self, scanout: usize) -> DisplayEvent {
        DisplayEvent::MonitorChanged {
            scanout,
            width: self.size.0,
            height: self.size.1,
            millimetres: self.millimetres,
            position: self.position,
        }
    }
}

/// The size of `size` pixels in millimetres.
pub(crate) fn millimetres(size: (u32, u32), dpi: (f64, f64)) -> (u32, u32) {
    let length = |pixels: u32, dpi: f64| (f64::from(pixels) * 25.4 / dpi).round().max(1.0) as u32;
    (length(size.0, dpi.0), length(size.1, dpi.1))
}

/// Whether a scanout has a window, and whether its monitor is plugged in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// There is a window, or it is about to open. Presenters draw only now.
    Shown,
    /// There is no window, but the monitor is still plugged in.
    Hidden,
    /// There is no window, and the monitor is unplugged.
    Unplugged,
}
