//! Everything that can go wrong between a scanout and a window, with a remedy where there is one.

use std::path::PathBuf;

/// The text of a winit error without the path in winit's sources with which it begins: that path
/// belongs to whoever built the program.
pub(crate) fn without_source_path(error: &dyn std::fmt::Display) -> String {
    let text = error.to_string();
    let without = text.strip_prefix("os error at ").and_then(|rest| {
        let (_, rest) = rest.split_once(".rs:")?;
        let (line, rest) = rest.split_once(": ")?;
        line.bytes()
            .all(|digit| digit.is_ascii_digit())
            .then(|| rest.to_owned())
    });
    without.unwrap_or(text)
}

/// An error of the display.
#[derive(Debug, thiserror::Error)]
pub enum DisplayError {
    /// There is no display server to open a window on.
    #[error(
        "cannot open a window ({reason}); DISPLAY is {display}, WAYLAND_DISPLAY is \
         {wayland_display}: start from a desktop session, set one of them, or use --display=headless"
    )]
    NoDisplayServer {
        /// The error of the window system.
        reason: String,
        /// The value of `DISPLAY`, or "not set".
        display: String,
        /// The value of `WAYLAND_DISPLAY`, or "not set".
        wayland_display: String,
    },
    /// The event loop ended with an error.
    #[error("the window system's event loop failed: {reason}; --display=headless works without one", reason = without_source_path(.0))]
    EventLoop(#[source] winit::error::EventLoopError),
    /// The display server refused a window.
    #[error("cannot create window {scanout}: {reason}; --display=headless works without a window", reason = without_source_path(.source))]
    CreateWindow {
        /// The scanout whose window it is.
        scanout: usize,
        /// The window system's error.
        source: winit::error::OsError,
    },
    /// Neither Vulkan nor the CPU path can draw into a window.
    #[error(
        "nothing can draw into window {scanout}: {reason}; install a Vulkan driver for this \
         display (Mesa: mesa-vulkan-drivers), or use --display=headless"
    )]
    NoPresenter {
        /// The scanout whose window it is.
        scanout: usize,
        /// Why neither could.
        reason: String,
    },
    /// An option has a value that it cannot have.
    #[error("{what} is {value}, but must be {allowed}")]
    BadOption {
        /// Which option.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The values it may have.
        allowed: &'static str,
    },
    /// A scanout index beyond the number of scanouts.
    #[error("scanout {index} does not exist: there are {count} (see --scanouts)")]
    NoSuchScanout {
        /// The index asked for.
        index: usize,
        /// How many scanouts there are.
        count: usize,
    },
    /// A picture does not lie inside its memory.
    #[error(
        "a picture of {width}x{height} pixels with stride {stride} at offset {offset} does not fit \
         its memory of {memory} bytes (sizes must be 1..=16384, a row must fit its stride)"
    )]
    BadPicture {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Bytes from one row to the next.
        stride: u32,
        /// Byte of the first pixel.
        offset: u64,
        /// Size of the memory in bytes.
        memory: usize,
    },
    /// A cursor's pixels do not match its size.
    #[error(
        "a cursor of {width}x{height} pixels with {bytes} bytes: sizes must be 1..=512 and there \
         must be 4 bytes a pixel"
    )]
    BadCursor {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// How many bytes were given.
        bytes: usize,
    },
    /// A screenshot was asked of a scanout that shows nothing.
    #[error("scanout {0} shows nothing: the guest has not set a mode yet")]
    NothingShown(usize),
    /// The scanout's monitor is unplugged.
    #[error("monitor {0} is unplugged; plug it in first (`hesper ctl … plug {0}`)")]
    Unplugged(usize),
    /// The scanout's window is hidden.
    #[error("window {0} is hidden; show it first (`hesper ctl … show`)")]
    Hidden(usize),
    /// The display has no windows.
    #[error("there are no windows; start Hesper with --display=window for some")]
    NoWindows,
    /// The first monitor cannot be unplugged.
    #[error("monitor 0 stays plugged in, a guest has at least one; `quit` ends Hesper")]
    FirstMonitor,
    /// The window did not draw a frame for a screenshot in time.
    #[error("window {scanout} drew no frame within {seconds} s, no screenshot was made")]
    ScreenshotTimeout {
        /// The scanout asked for.
        scanout: usize,
        /// How long the caller waited.
        seconds: u64,
    },
    /// The screenshot could not be drawn.
    #[error("cannot draw the screenshot of window {scanout}: {reason}")]
    Screenshot {
        /// The scanout asked for.
        scanout: usize,
        /// The presenter's error.
        reason: String,
    },
    /// The screenshot could not be encoded.
    #[error("cannot encode the screenshot: {0}")]
    EncodePng(#[source] png::EncodingError),
    /// The screenshot's file could not be written.
    #[error("cannot write the screenshot to {}: {source}; check that the folder exists and is writable", path.display())]
    WritePng {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: png::EncodingError,
    },
    /// Frames cannot be recorded to this path.
    #[error("cannot record to {}: {source}; check that the folder exists and is writable", path.display())]
    Record {
        /// The file or folder.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The display has been closed.
    #[error("the display is closed")]
    Closed,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_error_names_a_source_file() {
        for (text, expected) in [
            (
                "os error at /home/ann/winit-0.30/src/linux/mod.rs:765: neither of both",
                "neither of both",
            ),
            ("no such thing: at all", "no such thing: at all"),
            ("os error at nothing", "os error at nothing"),
        ] {
            assert_eq!(without_source_path(&text), expected);
        }
    }
}
