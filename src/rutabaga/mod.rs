//! Beside Venus: what `rutabaga_gfx` gives a guest: cross-domain, which is Wayland windows of the guest on the host's compositor, and
//! virgl, which is OpenGL by virglrenderer (cargo feature `virgl`).
//!
//! [`cross_domain`] and [`virgl`] find out whether they work on this host and make the device's renderers. The hard thing is
//! to keep a library that waits, and trusts what it is given, from harming anybody else. For virgl see there; for
//! cross-domain:
//!
//! - Every context has an instance of the library on a thread of its own ([`instance`]), so that a compositor that does
//!   not read stalls that context alone, and an error or a panic ends that context alone.
//! - What the guest submits is checked before the library sees it ([`commands`]).
//! - The library never has guest memory: it answers in memory of ours, and what it wrote is copied to the guest when its fence
//!   retires ([`ring`]), unless the guest has its pages back by then.

#[cfg(target_os = "linux")]
mod backlog;
#[cfg(target_os = "linux")]
mod commands;
#[cfg(target_os = "linux")]
mod context;
#[cfg(target_os = "linux")]
mod instance;
#[cfg(target_os = "linux")]
mod memory;
#[cfg(target_os = "linux")]
mod renderer;
#[cfg(target_os = "linux")]
mod ring;
#[cfg(target_os = "linux")]
mod shared;
#[cfg(all(target_os = "linux", feature = "virgl"))]
mod virgl;

use std::sync::Arc;

#[cfg(target_os = "linux")]
use hesper_system::LogLimit;
use hesper_vhost::renderer::Renderer;

/// For contexts that are lost: a guest can lose as many as it likes.
#[cfg(target_os = "linux")]
static LOST_CONTEXTS: LogLimit = LogLimit::new("hesper");

/// Why a capability set cannot be offered on this host.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Missing {
    /// Not this system.
    #[cfg(not(target_os = "linux"))]
    #[error("it needs a Linux host: rutabaga_gfx connects to Wayland compositors only there")]
    System,
    /// The environment names no compositor.
    #[cfg(target_os = "linux")]
    #[error(
        "no Wayland compositor is named; set WAYLAND_DISPLAY, and XDG_RUNTIME_DIR unless it is a path"
    )]
    NoCompositor,
    /// Nobody answers.
    #[cfg(target_os = "linux")]
    #[error(
        "the Wayland compositor at {path} cannot be reached: {source}; start it, or set WAYLAND_DISPLAY to one that runs"
    )]
    Unreachable {
        path: std::path::PathBuf,
        source: std::io::Error,
    },
    /// The library does not start.
    #[cfg(target_os = "linux")]
    #[error("rutabaga_gfx does not start: {0}")]
    Library(String),
    /// Not in this program.
    #[cfg(not(all(target_os = "linux", feature = "virgl")))]
    #[error(
        "built without the feature virgl; build with --features virgl, on Linux, with virglrenderer 1.3 or newer (Debian: \
         libvirglrenderer-dev)"
    )]
    NotBuilt,
    /// virglrenderer does not start.
    #[cfg(all(target_os = "linux", feature = "virgl"))]
    #[error("{0}")]
    Virgl(String),
}

/// The renderer for Wayland windows on the compositor that the environment names.
///
/// # Errors
/// Why it cannot work here.
pub(crate) fn cross_domain() -> Result<Arc<dyn Renderer>, Missing> {
    #[cfg(target_os = "linux")]
    {
        Ok(Arc::new(renderer::CrossDomain::new()?))
    }
    #[cfg(not(target_os = "linux"))]
    {
        Err(Missing::System)
    }
}

/// The renderer for OpenGL by virglrenderer. Once per process.
///
/// # Errors
/// Why it cannot work here.
pub(crate) fn virgl() -> Result<Arc<dyn Renderer>, Missing> {
    #[cfg(all(target_os = "linux", feature = "virgl"))]
    {
        Ok(Arc::new(virgl::Virgl::new()?))
    }
    #[cfg(not(all(target_os = "linux", feature = "virgl")))]
    {
        Err(Missing::NotBuilt)
    }
}
