//! The options of a display.

use std::path::PathBuf;

use crate::DisplayError;
use crate::input::KeyboardOptions;
use crate::layout::Scaling;
use crate::picture::MAX_SIZE;

/// The most scanouts a device may have (`VIRTIO_GPU_MAX_SCANOUTS`).
pub const MAX_SCANOUTS: usize = 16;

/// How resizing works: who follows whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Resize {
    /// The guest follows the window.
    #[default]
    Guest,
    /// The guest keeps its mode; its picture is scaled into the window.
    Scale,
    /// The guest keeps its mode; the window follows it and cannot be resized by hand.
    Fixed,
}

/// What closing the first window does while a guest is connected
/// ([`crate::DisplayHandle::set_guest_connected`]). Without a guest it ends the display.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnClose {
    /// A dialog asks the user.
    #[default]
    Ask,
    /// All windows are hidden, until [`crate::DisplayHandle::show`] or until the next guest
    /// connects.
    Hide,
    /// The display ends.
    Quit,
}

/// What draws a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Renderer {
    /// Vulkan, or the CPU where Vulkan cannot.
    #[default]
    Auto,
    /// Vulkan only; an error where it cannot.
    Vulkan,
    /// The CPU only.
    Cpu,
}

/// The options of a display.
#[derive(Clone, Debug)]
pub struct DisplayOptions {
    /// Number of scanouts, 1 to [`MAX_SCANOUTS`]. Each has a window, and all are open at first.
    pub scanouts: usize,
    /// Initial inner size of a window in physical pixels, 1 to [`MAX_SIZE`] each.
    pub size: (u32, u32),
    /// The beginning of the windows' titles.
    pub title: String,
    /// No windows and no display server; the guest's pictures can only be seen in screenshots.
    pub headless: bool,
    /// How a picture is fitted into a window.
    pub scaling: Scaling,
    /// Whether the guest follows the window or the window the guest.
    pub resize: Resize,
    /// Windows start in full screen.
    pub full_screen: bool,
    /// What closing the first window does.
    pub on_close: OnClose,
    /// What the user can do to show hidden windows again. The dialog of [`OnClose::Ask`] shows this
    /// text.
    pub show_hint: String,
    /// How the keyboard works in the windows.
    pub keyboard: KeyboardOptions,
    /// Frames wait for the screen's refresh. Without this they are shown as soon as they are drawn:
    /// earlier, but at a higher cost.
    pub vsync: bool,
    /// Windows start with the overlay of frame statistics.
    pub overlay: bool,
    /// The folder to which the screenshot key saves.
    pub screenshots: PathBuf,
    /// Where all presented frames are recorded: a file that ends in `.y4m`, or a folder. The number
    /// of the window is added for all windows after the first.
    pub record: Option<PathBuf>,
    /// The file in which the windows' positions and sizes are kept for the next start; `None` does
    /// not restore them. Restored windows have their former size, not [`size`](Self::size), unless
    /// [`explicit_size`](Self::explicit_size) is set.
    pub window_positions: Option<PathBuf>,
    /// The user chose [`size`](Self::size) explicitly: it takes precedence over a restored size.
    pub explicit_size: bool,
    /// What draws the windows.
    pub renderer: Renderer,
    /// The GPU to draw with (`VkPhysicalDeviceIDProperties::deviceUUID`), if it can present. Best
    /// is the GPU that renders for the guest: its caches and its memory are near.
    pub gpu: Option<[u8; 16]>,
    /// The open Vulkan library to draw with; `None` opens the system's loader.
    pub vulkan: Option<VulkanEntry>,
}

/// An open Vulkan library: the loader, or a driver.
#[derive(Clone)]
pub struct VulkanEntry(pub ash::Entry);

impl std::fmt::Debug for VulkanEntry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("VulkanEntry")
    }
}

impl Default for DisplayOptions {
    fn default() -> DisplayOptions {
        DisplayOptions {
            scanouts: 1,
            size: (1280, 800),
            title: "Hesper".to_owned(),
            headless: false,
            scaling: Scaling::default(),
            resize: Resize::default(),
            full_screen: false,
            on_close: OnClose::default(),
            show_hint: String::new(),
            keyboard: KeyboardOptions::default(),
            vsync: true,
            overlay: false,
            screenshots: PathBuf::from("."),
            record: None,
            window_positions: None,
            explicit_size: false,
            renderer: Renderer::default(),
            gpu: None,
            vulkan: None,
        }
    }
}

impl DisplayOptions {
    pub(crate) fn check(&self) -> Result<(), DisplayError> {
        let bad = |what, value, allowed| {
            Err(DisplayError::BadOption {
                what,
                value,
                allowed,
            })
        };
        if !(1..=MAX_SCANOUTS).contains(&self.scanouts) {
            return bad("the number of scanouts", self.scanouts as u64, "1 to 16");
        }
        for (what, side) in [("the width", self.size.0), ("the height", self.size.1)] {
            if !(1..=MAX_SIZE).contains(&side) {
                return bad(what, side.into(), "1 to 16384 pixels");
            }
        }
        Ok(())
    }
}
