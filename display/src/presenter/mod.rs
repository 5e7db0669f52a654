//! Presenters: what draws a scanout into its window.
//!
//! There are two, chosen by [`Presenters`]: [`vulkan`], and [`cpu`] where Vulkan cannot present.
//! Each runs on a thread of its own ([`PresenterThread`]), because presenting may block until the next
//! refresh. A presenter lives as long as its surface: when surface or device are lost its thread
//! ends with the reason ([`PresenterEnd`]), and the main thread starts another.

mod cpu;
mod restart_policy;
mod thread;
mod vulkan;

use std::fmt;

pub(crate) use self::thread::{PresenterThread, Presenters};
use crate::frame::{Frame, FrameOutcome};

/// Draws jobs into one window.
trait Presenter: Send {
    /// What draws, for a person.
    fn name(&self) -> String;

    /// Whether the window is there to be seen, and not minimised.
    fn is_mapped(&self) -> bool;

    /// Draws a frame to the window (when the frame says so) and to the frame's screenshots. Calls
    /// `presenting` right before the frame is handed to the window system. The guest's memory is
    /// no longer read when it returns.
    fn draw(
        &mut self,
        frame: &mut Frame,
        presenting: &dyn Fn(),
    ) -> Result<FrameOutcome, PresenterEnd>;
}

/// Why a presenter ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PresenterEnd {
    /// It was told to.
    Stopped,
    /// The window's surface is gone, though the window is not.
    SurfaceLost,
    /// The GPU with this serial number does not answer any more.
    DeviceLost { gpu: u32 },
    /// Anything else.
    Failed(String),
}

impl fmt::Display for PresenterEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("the presenter was stopped"),
            Self::SurfaceLost => f.write_str("the Vulkan surface is lost"),
            Self::DeviceLost { .. } => f.write_str("the Vulkan device is lost"),
            Self::Failed(reason) => write!(f, "the presenter failed: {reason}"),
        }
    }
}
