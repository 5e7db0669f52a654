//! Presenters: what draws a scanout into its window.
//!
//! There are two kinds, chosen by [`Presenters`]: [`vulkan`], and [`cpu`] where Vulkan cannot
//! present. Each presenter runs on a thread of its own ([`PresenterThread`]), because presenting
//! may block until the next refresh. A presenter lives as long as its surface. When surface or
//! device are lost, its thread ends with the reason ([`PresenterEnd`]), and the main thread starts
//! another.

mod cpu;
mod restart_policy;
mod thread;
mod vulkan;

use std::fmt;

pub(crate) use self::thread::{PresenterThread, Presenters};
use crate::frame::{Frame, FrameOutcome};

/// Draws frames into one window.
trait Presenter: Send {
    /// A name for the user.
    fn name(&self) -> String;

    /// Whether the window is shown and not minimised.
    fn is_mapped(&self) -> bool;

    /// Draws a frame to the window, if the frame says so, and for the frame's screenshots. Calls
    /// `presenting` right before the frame is passed to the window system. When this returns, the
    /// guest's memory is no longer read.
    fn draw(
        &mut self,
        frame: &mut Frame,
        presenting: &dyn Fn(),
    ) -> Result<FrameOutcome, PresenterEnd>;
}

/// Why a presenter ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PresenterEnd {
    /// It was told to stop.
    Stopped,
    /// The surface of the window is gone, but the window is still there.
    SurfaceLost,
    /// The GPU with this serial number no longer answers.
    DeviceLost { gpu: u32 },
    /// Any other reason.
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
