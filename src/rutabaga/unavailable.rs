//! Why a capability set of `rutabaga_gfx` cannot be offered on this host.

/// Why a capability set cannot be offered on this host.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unavailable {
    /// The host is not Linux.
    #[cfg(not(target_os = "linux"))]
    #[error("it needs a Linux host: rutabaga_gfx connects to Wayland compositors only there")]
    System,
    /// The environment names no compositor.
    #[cfg(target_os = "linux")]
    #[error(
        "no Wayland compositor is named; set WAYLAND_DISPLAY, and XDG_RUNTIME_DIR unless it is a path"
    )]
    NoCompositor,
    /// The compositor's socket does not answer.
    #[cfg(target_os = "linux")]
    #[error(
        "the Wayland compositor at {path} cannot be reached: {source}; start it, or set WAYLAND_DISPLAY to one that runs"
    )]
    Unreachable {
        /// The socket.
        path: std::path::PathBuf,
        /// The error of connecting to it.
        source: std::io::Error,
    },
    /// The library does not start.
    #[cfg(target_os = "linux")]
    #[error("rutabaga_gfx does not start: {0}")]
    Library(String),
    /// This program was built without virgl.
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
