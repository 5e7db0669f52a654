//! The guest's monitors: what the guest is told of one, and whether there is one.

use crate::events::DisplayEvent;

/// Pixels an inch where nothing better is known: what window systems mean by a scale of 1.
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

    /// The event that tells the program of it.
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

/// How large `size` pixels are.
pub(crate) fn millimetres(size: (u32, u32), dpi: (f64, f64)) -> (u32, u32) {
    let length = |pixels: u32, dpi: f64| (f64::from(pixels) * 25.4 / dpi).round().max(1.0) as u32;
    (length(size.0, dpi.0), length(size.1, dpi.1))
}

/// Whether a scanout has a window, and a monitor for the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// There is a window, or is going to be. Only now do presenters draw.
    Shown,
    /// There is none, and the guest's monitor is still plugged in.
    Hidden,
    /// Neither.
    Unplugged,
}
