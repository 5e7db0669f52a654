//! What a display is made from.

use std::path::PathBuf;

use crate::DisplayError;
use crate::input::KeyboardOptions;
use crate::layout::Scaling;
use crate::picture::MAX_SIZE;

/// The most scanouts a device may have (`VIRTIO_GPU_MAX_SCANOUTS`).
pub const MAX_SCANOUTS: usize = 16;

/// How a window's size and the guest's mode go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Resize {
    /// The guest is told to follow the window.
    #[default]
    Guest,
    /// The guest keeps its mode, and its picture is scaled into the window.
    Scale,
    /// The guest keeps its mode, and the window follows the guest; a hand cannot resize it.
    Fixed,
}

/// What happens when the first window is closed while a guest is connected ([`crate::DisplayHandle::set_guest_connected`]). Without
/// a guest the display ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnClose {
    /// The window asks.
    #[default]
    Ask,
    /// All windows are hidden, until [`crate::DisplayHandle::show`] or the next guest.
    Hide,
    /// The display ends.
    Quit,
}

/// Which way a window is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Renderer {
    /// Vulkan, and the CPU where Vulkan cannot.
    #[default]
    Auto,
    /// Vulkan or nothing.
    Vulkan,
    /// The CPU.
    Cpu,
}

/// What a display is made from.
#[derive(Clone, Debug)]
pub struct DisplayOptions {
    /// Number of scanouts; a window each, all open at first. 1 to [`MAX_SCANOUTS`].
    pub scanouts: usize,
    /// First inner size of a window in physical pixels. 1 to [`MAX_SIZE`] each.
    pub size: (u32, u32),
    /// What window titles begin with.
    pub title: String,
    /// No windows, no display server: scanouts are kept for screenshots only.
    pub headless: bool,
    /// How a picture is fitted into a window.
    pub scaling: Scaling,
    /// Whether guest or window follows the other.
    pub resize: Resize,
    /// Windows begin full screen.
    pub full_screen: bool,
    /// What closing the first window does.
    pub on_close: OnClose,
    /// What a person can do to see hidden windows again; the question names it.
    pub show_hint: String,
    /// How the keyboard acts in windows.
    pub keyboard: KeyboardOptions,
    /// Frames wait for the screen's refresh. Otherwise they are shown as soon as they are drawn: sooner, and with more
    /// work.
    pub vsync: bool,
    /// Windows begin with the overlay: how frames do.
    pub overlay: bool,
    /// Where the screenshot key saves to.
    pub screenshots: PathBuf,
    /// Where all presented frames are written to: a file that ends in `.y4m`, or a folder. For the windows after the
    /// first their number is added.
    pub record: Option<PathBuf>,
    /// The file that keeps where the windows are, from one time to the next; `None` forgets it. Windows that are where they
    /// were have the size they had, not [`size`](Self::size), unless [`explicit_size`](Self::explicit_size).
    pub window_positions: Option<PathBuf>,
    /// A person wants this [`size`](Self::size).
    pub explicit_size: bool,
    /// Which way windows are drawn.
    pub renderer: Renderer,
    /// The GPU to draw with (`VkPhysicalDeviceIDProperties::deviceUUID`), when it can present.
    /// Drawing on the GPU that renders for the guest keeps its caches and its memory near.
    pub gpu: Option<[u8; 16]>,
    /// The open Vulkan library to draw with; `None` is the system's loader.
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
