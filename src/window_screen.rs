//! Joins the device's scanouts to Hesper's windows: implements the device's [`ScanoutSink`] with a
//! [`DisplayHandle`].
//!
//! Each side has plain types of its own. Only this module knows both.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use hesper_display as display;
use hesper_display::{DisplayError, DisplayHandle};
use hesper_system::RateLimit;
use hesper_system::sync::Lock;
use hesper_vhost::renderer::GuestRun;
use hesper_vhost::screen::{
    CURSOR_SIZE, CursorImage, FlushState, FlushToken, GuestPixels, Picture, PixelFormat,
    PixelMemory, Rect, ScanoutId, ScanoutSink,
};

use crate::venus;

/// Limits the lines that a guest or its VM monitor can cause.
static LINES: hesper_system::LogLimit = hesper_system::LogLimit::new("hesper");

/// How many runs of guest memory may be mapped for framebuffers: enough for eight of 1280×800 whose
/// pages are all scattered. This is an eighth of the mappings that Linux allows a process by
/// default; contexts may use a quarter.
const GUEST_MAPPINGS: usize = 8192;

/// The windows, as one device sees them.
pub(crate) struct WindowScreen {
    display: DisplayHandle,
    number: DeviceNumber,
    /// The display tells memories apart by their `Arc` and imports each of them into the GPU once.
    /// A guest that flips between pictures must get the same `Arc` again. An entry is removed at
    /// the next picture after the memory's other owners have dropped it.
    known: Mutex<Vec<Arc<Pages>>>,
    guest_mappings: Arc<hesper_venus::Mappings>,
    status: Arc<StatusMessages>,
    /// Which scanouts show a picture.
    shown: Mutex<[bool; display::MAX_SCANOUTS]>,
    /// Whether any scanout has shown a picture since the last reset.
    was_on: AtomicBool,
    /// The hot spot of each scanout's cursor: the device reports the position of the image's
    /// corner, the display takes the position of the hot spot.
    hot_spots: Mutex<[(i32, i32); display::MAX_SCANOUTS]>,
}

/// Numbers the devices of this process, so that a late answer to one device is not given to the
/// next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DeviceNumber(u16);

/// Bits of a display token that hold the device's token. The device's number is in the bits above.
const TOKEN_BITS: u32 = 48;

impl DeviceNumber {
    /// The first device.
    pub(crate) const FIRST: Self = Self(0);

    /// The device after this one.
    pub(crate) fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }

    fn mark(self, token: FlushToken) -> display::FlushToken {
        // A device would need 2^48 flushes to reach the bits of the device's number.
        display::FlushToken(token.0 | (u64::from(self.0) << TOKEN_BITS))
    }

    /// The device's token, if it belongs to this device.
    pub(crate) fn unmark(self, token: display::FlushToken) -> Option<FlushToken> {
        (token.0 >> TOKEN_BITS == u64::from(self.0))
            .then_some(FlushToken(token.0 & ((1 << TOKEN_BITS) - 1)))
    }
}

impl WindowScreen {
    pub(crate) fn new(
        display: DisplayHandle,
        number: DeviceNumber,
        status: Arc<StatusMessages>,
    ) -> Self {
        status.connected(number);
        Self {
            display,
            number,
            status,
            shown: Mutex::default(),
            was_on: AtomicBool::new(false),
            known: Mutex::default(),
            guest_mappings: Arc::new(hesper_venus::Mappings::new(GUEST_MAPPINGS)),
            hot_spots: Mutex::default(),
        }
    }

    fn hot_spots(&self) -> MutexGuard<'_, [(i32, i32); display::MAX_SCANOUTS]> {
        self.hot_spots.locked()
    }

    /// The display's view of `memory`, the same one for the same memory.
    fn pages(&self, memory: &Arc<dyn PixelMemory>) -> Arc<Pages> {
        let mut known = self.known.locked();
        known.retain(|pages| Arc::strong_count(&pages.0) > 1 || Arc::ptr_eq(&pages.0, memory));
        if let Some(pages) = known.iter().find(|pages| Arc::ptr_eq(&pages.0, memory)) {
            return Arc::clone(pages);
        }
        let pages = Arc::new(Pages(Arc::clone(memory)));
        known.push(Arc::clone(&pages));
        pages
    }

    /// Notes whether a scanout shows a picture. Returns whether it did before.
    fn note_shown(&self, scanout: usize, shows: bool) -> bool {
        self.was_on.fetch_or(shows, Ordering::AcqRel);
        let mut shown = self.shown.locked();
        let place = shown.get_mut(scanout);
        place.is_some_and(|place| std::mem::replace(place, shows))
    }

    fn show(&self, scanout: usize, picture: Option<&Picture>) -> Result<(), DisplayError> {
        if self.note_shown(scanout, picture.is_some()) && picture.is_none() {
            self.display
                .set_message(scanout, StatusMessages::TURNED_OFF)?;
        }
        let Some(picture) = picture else {
            self.known.locked().clear();
            return self.display.set_scanout(scanout, None);
        };
        let layout = display::PictureLayout {
            offset: picture.offset,
            stride: picture.stride,
            width: picture.width,
            height: picture.height,
            format: format(picture.format),
        };
        let picture = display::Picture::new(self.pages(&picture.memory), layout)?;
        self.display.set_scanout(scanout, Some(picture))
    }
}

impl ScanoutSink for WindowScreen {
    fn map_guest(&self, runs: Vec<GuestRun>) -> Option<Arc<dyn GuestPixels>> {
        venus::guest_pixels(runs, &self.guest_mappings)
    }

    fn set_scanout(&self, scanout: ScanoutId, picture: Option<&Picture>) {
        report(self.show(scanout as usize, picture));
    }

    fn flush(&self, scanout: ScanoutId, damage: Rect, done: Option<FlushToken>) -> FlushState {
        let Rect {
            x,
            y,
            width,
            height,
        } = damage;
        let damage = display::Rect {
            x,
            y,
            width,
            height,
        };
        let token = done.map(|token| self.number.mark(token));
        match self.display.flush(scanout as usize, damage, token) {
            Ok(()) if done.is_some() => FlushState::Pending,
            result => {
                report(result);
                FlushState::Done
            }
        }
    }

    fn set_cursor(&self, scanout: ScanoutId, cursor: Option<&CursorImage>, x: u32, y: u32) {
        let image = cursor.map(|cursor| {
            // The guest may send any 32 bits. They are limited to a position inside the image.
            let hot = (
                cursor.hot_x.min(CURSOR_SIZE - 1),
                cursor.hot_y.min(CURSOR_SIZE - 1),
            );
            if let Some(known) = self.hot_spots().get_mut(scanout as usize) {
                *known = (hot.0.cast_signed(), hot.1.cast_signed());
            }
            let size = (CURSOR_SIZE, CURSOR_SIZE);
            display::Cursor::new(size, hot, format(cursor.format), &*cursor.pixels)
        });
        match image.transpose() {
            Ok(image) => report(self.display.set_cursor(scanout as usize, image)),
            Err(error) => report(Err(error)),
        }
        self.move_cursor(scanout, x, y);
    }

    fn reset(&self) {
        // Drivers also reset the device before they first use it.
        if self.was_on.swap(false, Ordering::AcqRel) {
            self.status.everywhere(StatusMessages::RESET);
        }
    }

    fn move_cursor(&self, scanout: ScanoutId, x: u32, y: u32) {
        let hot = self.hot_spots().get(scanout as usize).copied();
        let (hot_x, hot_y) = hot.unwrap_or_default();
        let x = x.cast_signed().saturating_add(hot_x);
        let y = y.cast_signed().saturating_add(hot_y);
        report(self.display.move_cursor(scanout as usize, x, y));
    }
}

impl Drop for WindowScreen {
    fn drop(&mut self) {
        self.status.gone(self.number);
    }
}

/// The messages in the windows while the guest shows nothing.
pub(crate) struct StatusMessages {
    display: DisplayHandle,
    /// Where a VM can connect.
    socket: String,
    /// The number of the latest device. Stays locked while the messages change, because the next VM
    /// may connect before the last one's device is gone.
    latest: Mutex<DeviceNumber>,
}

impl StatusMessages {
    const STARTING: &str = "The guest is starting.\nIts driver has not shown anything yet.";
    const RESET: &str = "The guest was reset.\nIts driver has not shown anything since.";
    const TURNED_OFF: &str = "The guest has turned this monitor off.";

    /// Messages for windows that wait for a VM on `socket`.
    pub(crate) fn new(display: DisplayHandle, socket: String) -> Self {
        let status = Self {
            display,
            socket,
            latest: Mutex::new(DeviceNumber::FIRST),
        };
        status.waiting();
        status
    }

    fn latest(&self) -> MutexGuard<'_, DeviceNumber> {
        self.latest.locked()
    }

    /// A VM has connected.
    fn connected(&self, number: DeviceNumber) {
        let mut latest = self.latest();
        *latest = number;
        self.everywhere(Self::STARTING);
        self.display.set_guest_connected(true);
    }

    /// The device with this number is gone.
    fn gone(&self, number: DeviceNumber) {
        let latest = self.latest();
        if *latest == number {
            self.waiting();
            self.display.set_guest_connected(false);
        }
    }

    fn waiting(&self) {
        self.everywhere(&format!("Waiting for QEMU to connect to\n{}", self.socket));
    }

    fn everywhere(&self, text: &str) {
        for scanout in 0..self.display.scanouts() {
            report(self.display.set_message(scanout, text));
        }
    }
}

/// Shows in the windows that a context was lost. At most one notice a second, because a guest may
/// lose thousands.
pub(crate) struct LostContextNotices {
    display: DisplayHandle,
    limit: RateLimit,
}

impl LostContextNotices {
    pub(crate) fn new(display: DisplayHandle) -> Self {
        Self {
            display,
            limit: RateLimit::new(1, Duration::from_secs(1)),
        }
    }

    /// Shows that this program's context was lost.
    pub(crate) fn show(&self, name: &str, reason: &str) {
        let Some(skipped) = self.limit.admit(Instant::now()) else {
            return;
        };
        let others = match skipped {
            0 => String::new(),
            _ => format!("\n({skipped} others before it)"),
        };
        self.display.notice(&format!(
            "A program of the guest lost Vulkan: {name}\n{reason}{others}"
        ));
    }
}

/// A device's memory in the display's type.
struct Pages(Arc<dyn PixelMemory>);

// SAFETY: the device's `PixelMemory` guarantees what the display's demands: the mapping stays
// readable at its address as long as the value lives, and this value keeps it alive.
unsafe impl display::PixelMemory for Pages {
    fn size(&self) -> usize {
        self.0.host_pages().1
    }

    fn host_pages(&self) -> Option<NonNull<[u8]>> {
        let (address, size) = self.0.host_pages();
        let address = NonNull::new(address.cast_mut())?;
        Some(NonNull::slice_from_raw_parts(address, size))
    }

    fn read(&self, offset: usize, into: &mut [u8]) {
        self.0.read(offset, into);
    }
}

fn format(format: PixelFormat) -> display::PixelFormat {
    match format {
        PixelFormat::B8G8R8A8 => display::PixelFormat::B8G8R8A8,
        PixelFormat::B8G8R8X8 => display::PixelFormat::B8G8R8X8,
        PixelFormat::A8R8G8B8 => display::PixelFormat::A8R8G8B8,
        PixelFormat::X8R8G8B8 => display::PixelFormat::X8R8G8B8,
        PixelFormat::R8G8B8A8 => display::PixelFormat::R8G8B8A8,
        PixelFormat::X8B8G8R8 => display::PixelFormat::X8B8G8R8,
        PixelFormat::A8B8G8R8 => display::PixelFormat::A8B8G8R8,
        PixelFormat::R8G8B8X8 => display::PixelFormat::R8G8B8X8,
    }
}

// What the device accepts, the display shows.
const _: () = assert!(hesper_vhost::screen::MAX_SIDE <= display::MAX_SIZE);

/// Logs an error. The device has checked the guest's values, so an error is a bug or a display that
/// is closing.
fn report(result: Result<(), DisplayError>) {
    match result {
        Ok(()) | Err(DisplayError::Closed) => {}
        Err(error) => LINES.log(
            log::Level::Warn,
            format_args!("cannot show a picture or cursor of the guest: {error}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_of_another_device_is_ignored() {
        let (old, new) = (DeviceNumber::FIRST, DeviceNumber::FIRST.next());
        let token = old.mark(FlushToken(7));
        assert_eq!(old.unmark(token), Some(FlushToken(7)));
        assert_eq!(new.unmark(token), None);
        assert_eq!(DeviceNumber(u16::MAX).next(), DeviceNumber::FIRST);
    }
}
