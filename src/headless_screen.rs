//! The screen of a Hesper without windows.
//!
//! QEMU's classic device has a console and sends a socket for it before the guest's driver starts:
//! QEMU then shows the guest. Without that socket, pictures are kept for screenshots only.

use std::sync::Arc;

use hesper_vhost::renderer::GuestRun;
use hesper_vhost::screen::{
    CursorImage, FlushState, FlushToken, GuestPixels, Monitor, Picture, Rect, ScanoutId,
    ScanoutSink,
};
use hesper_vhost::transport::GpuSocketScreen;

use crate::window_screen::WindowScreen;

/// Sends pictures to QEMU's console if it is connected, else keeps them for screenshots.
pub(crate) struct HeadlessScreen {
    kept: WindowScreen,
    console: Arc<GpuSocketScreen>,
}

impl HeadlessScreen {
    /// Pictures go to `kept` until QEMU connects `console`, and to `console` from then on.
    pub(crate) fn new(kept: WindowScreen, console: Arc<GpuSocketScreen>) -> Self {
        Self { kept, console }
    }

    fn shown(&self) -> &dyn ScanoutSink {
        if self.console.is_used() {
            &*self.console
        } else {
            &self.kept
        }
    }
}

impl ScanoutSink for HeadlessScreen {
    fn set_scanout(&self, scanout: ScanoutId, picture: Option<&Picture>) {
        self.shown().set_scanout(scanout, picture);
    }

    fn flush(&self, scanout: ScanoutId, damage: Rect, done: Option<FlushToken>) -> FlushState {
        self.shown().flush(scanout, damage, done)
    }

    fn set_cursor(&self, scanout: ScanoutId, cursor: Option<&CursorImage>, x: u32, y: u32) {
        self.shown().set_cursor(scanout, cursor, x, y);
    }

    fn move_cursor(&self, scanout: ScanoutId, x: u32, y: u32) {
        self.shown().move_cursor(scanout, x, y);
    }

    fn map_guest(&self, runs: Vec<GuestRun>) -> Option<Arc<dyn GuestPixels>> {
        self.shown().map_guest(runs)
    }

    fn reset(&self) {
        self.shown().reset();
    }

    fn monitors(&self) -> Option<Vec<Monitor>> {
        self.shown().monitors()
    }

    fn edid(&self, scanout: ScanoutId) -> Option<Vec<u8>> {
        self.shown().edid(scanout)
    }
}
