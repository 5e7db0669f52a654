//! Values of options: how each is written, and what is allowed.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueEnum;
use hesper_display::{CmdKey, GrabMod, OnClose, Resize, Scaling};
use hesper_vhost::input::Kind;

use crate::input;

/// An input device and its socket, written `KIND:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InputSocket {
    /// The kind of device.
    pub(crate) kind: Kind,
    /// The socket's path.
    pub(crate) path: PathBuf,
}

impl FromStr for InputSocket {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let kinds = [Kind::Keyboard, Kind::Tablet, Kind::Mouse, Kind::Touch];
        let (word, path) = text.split_once(':').unwrap_or((text, ""));
        let kind = kinds.into_iter().find(|kind| input::name(*kind) == word);
        match kind {
            Some(kind) if !path.is_empty() => Ok(Self {
                kind,
                path: path.into(),
            }),
            _ => Err(format!(
                "KIND:PATH with one of the kinds {} is allowed, such as keyboard:/tmp/keyboard.sock",
                kinds.map(input::name).join(", ")
            )),
        }
    }
}

impl Display for InputSocket {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}:{}", input::name(self.kind), self.path.display())
    }
}

/// The permissions of a socket's file, written as an octal number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SocketMode(pub(crate) u32);

impl Default for SocketMode {
    /// Its owner alone may connect.
    fn default() -> Self {
        Self(0o600)
    }
}

impl FromStr for SocketMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match u32::from_str_radix(text, 8) {
            Ok(mode) if mode & 0o600 == 0o600 && mode <= 0o777 => Ok(Self(mode)),
            _ => Err("an octal mode from 600 to 777 is allowed, such as 660".to_owned()),
        }
    }
}

impl Display for SocketMode {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{:o}", self.0)
    }
}

/// A size in pixels, written `WIDTHxHEIGHT`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Size {
    /// Pixels in a row.
    pub(crate) width: u32,
    /// Rows.
    pub(crate) height: u32,
}

/// Smallest and largest monitor edge in pixels that Hesper offers a guest.
pub(crate) const SIZE_RANGE: RangeInclusive<u32> = 64..=16384;

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let allowed = || {
            let (low, high) = (SIZE_RANGE.start(), SIZE_RANGE.end());
            format!("WIDTHxHEIGHT with both from {low} to {high}, such as 1280x800, is allowed")
        };
        let (width, height) = text.split_once(['x', 'X']).ok_or_else(allowed)?;
        let edge = |digits: &str| {
            digits
                .parse()
                .ok()
                .filter(|edge| SIZE_RANGE.contains(edge))
                .ok_or_else(allowed)
        };
        Ok(Self {
            width: edge(width)?,
            height: edge(height)?,
        })
    }
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    /// On.
    On,
    /// Off.
    Off,
}

impl Size {
    /// The size of a monitor if no option gives one.
    pub(crate) const USUAL: Self = Self {
        width: 1280,
        height: 800,
    };
}

/// Whether window positions are restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlacementChoice {
    /// They are stored and restored.
    Remember,
    /// They are not.
    Forget,
}

/// How resizing works.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ResizeMode {
    /// The guest follows the window.
    Guest,
    /// The picture is scaled.
    Scale,
    /// The window follows the guest.
    Fixed,
}

impl From<ResizeMode> for Resize {
    fn from(mode: ResizeMode) -> Self {
        match mode {
            ResizeMode::Guest => Self::Guest,
            ResizeMode::Scale => Self::Scale,
            ResizeMode::Fixed => Self::Fixed,
        }
    }
}

/// What closing a window does while a VM is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnCloseChoice {
    /// The window asks.
    Ask,
    /// The windows are hidden.
    Hide,
    /// Hesper ends.
    Quit,
}

impl From<OnCloseChoice> for OnClose {
    fn from(choice: OnCloseChoice) -> Self {
        match choice {
            OnCloseChoice::Ask => Self::Ask,
            OnCloseChoice::Hide => Self::Hide,
            OnCloseChoice::Quit => Self::Quit,
        }
    }
}

/// How a picture is scaled into a window of another size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScalingWay {
    /// As large as fits, smoothed.
    Smooth,
    /// Whole multiples.
    Integer,
    /// Pixel for pixel. It is scaled down only if it does not fit.
    None,
}

impl From<ScalingWay> for Scaling {
    fn from(way: ScalingWay) -> Self {
        match way {
            ScalingWay::Smooth => Self::Fit,
            ScalingWay::Integer => Self::Integer,
            ScalingWay::None => Self::Shrink,
        }
    }
}

/// The modifier of the window's shortcuts. Names are QEMU's where QEMU has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GrabModChoice {
    /// Ctrl and Alt.
    CtrlAlt,
    /// The left Shift, Ctrl and Alt.
    LshiftLctrlLalt,
    /// The right Ctrl.
    Rctrl,
    /// Cmd.
    Cmd,
}

impl From<GrabModChoice> for GrabMod {
    fn from(choice: GrabModChoice) -> Self {
        match choice {
            GrabModChoice::CtrlAlt => Self::CtrlAlt,
            GrabModChoice::LshiftLctrlLalt => Self::LeftShiftCtrlAlt,
            GrabModChoice::Rctrl => Self::RightCtrl,
            GrabModChoice::Cmd => Self::Cmd,
        }
    }
}

/// What the Cmd key is in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CmdKeyChoice {
    /// Super.
    Super,
    /// Cmd and Option change places.
    SwapOptCmd,
    /// Cmd and Ctrl change places.
    SwapCtrlCmd,
    /// The left Cmd stays with the host.
    Host,
}

impl From<CmdKeyChoice> for CmdKey {
    fn from(choice: CmdKeyChoice) -> Self {
        match choice {
            CmdKeyChoice::Super => Self::Super,
            CmdKeyChoice::SwapOptCmd => Self::SwapOption,
            CmdKeyChoice::SwapCtrlCmd => Self::SwapControl,
            CmdKeyChoice::Host => Self::Host,
        }
    }
}

/// Size in bytes of the host-visible window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostMemory(pub(crate) u64);

impl FromStr for HostMemory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // QEMU aborts on a window that is no power of two, and below 1M no ring fits.
        bytes(text)
            .filter(|size| {
                *size == 0 || size.is_power_of_two() && (1 << 20..=1 << 46).contains(size)
            })
            .map(Self)
            .ok_or_else(|| {
                "0, or a power of two from 1M to 64T such as 8G or 8GiB, is allowed".to_owned()
            })
    }
}

/// A number of bytes: `4096`, or with a unit of 1024 such as `16K` or `16KiB`.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(end)?;
    let shift = match unit.to_ascii_uppercase().as_str() {
        "" | "B" => 0,
        "K" | "KIB" => 10,
        "M" | "MIB" => 20,
        "G" | "GIB" => 30,
        "T" | "TIB" => 40,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Memory in bytes that the large commands of a context may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommandMemory(pub(crate) u64);

impl FromStr for CommandMemory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        bytes(text)
            .filter(|size| (1 << 20..=1 << 40).contains(size))
            .map(Self)
            .ok_or_else(|| "1M to 1T, such as 4G or 4GiB, is allowed".to_owned())
    }
}

/// Memory of the GPU that a guest may have, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GpuMemory(pub(crate) u64);

impl FromStr for GpuMemory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // Less is of no use to any program.
        bytes(text)
            .filter(|size| (64 << 20..=64 << 40).contains(size))
            .map(Self)
            .ok_or_else(|| "64M to 64T, such as 4G or 4GiB, is allowed".to_owned())
    }
}

/// Where frames are recorded: a `.y4m` file or a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RecordPath(pub(crate) PathBuf);

impl FromStr for RecordPath {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let path = PathBuf::from(text);
        let ending = path.extension().map(|ending| ending.to_ascii_lowercase());
        // A folder may have any name, but someone who writes film.mp4 wants a film.
        match ending {
            Some(ending) if ending != "y4m" && !path.is_dir() => Err(
                "a film that ends in .y4m, or a folder for PNGs, is allowed; `ffmpeg -i film.y4m film.mp4` makes other films of it"
                    .to_owned(),
            ),
            _ if text.is_empty() => Err("a .y4m file or a folder is allowed".to_owned()),
            _ => Ok(Self(path)),
        }
    }
}

/// Alignment of blobs, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlobAlignment(pub(crate) u32);

impl FromStr for BlobAlignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        bytes(text)
            .and_then(|bytes| u32::try_from(bytes).ok())
            .filter(|bytes| bytes.is_power_of_two() && (4096..=65536).contains(bytes))
            .map(Self)
            .ok_or_else(|| "a power of two from 4096 (4K) to 65536 (64K) is allowed".to_owned())
    }
}

/// Which GPU renders for the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum GpuChoice {
    /// Its number.
    Index(usize),
    /// Its `deviceUUID`.
    Uuid([u8; 16]),
    /// A part of its name.
    Name(String),
}

impl FromStr for GpuChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("a number, a UUID or a part of a name is allowed".to_owned());
        }
        if let Ok(index) = text.parse() {
            return Ok(Self::Index(index));
        }
        let digits = text.replace('-', "");
        let uuid = u128::from_str_radix(&digits, 16)
            .ok()
            .filter(|_| digits.len() == 32);
        Ok(uuid.map_or_else(
            || Self::Name(text.to_owned()),
            |uuid| Self::Uuid(uuid.to_be_bytes()),
        ))
    }
}

impl Display for GpuChoice {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Index(index) => write!(out, "{index}"),
            Self::Uuid(uuid) => out.write_str(&crate::gpus::uuid(uuid)),
            Self::Name(name) => out.write_str(name),
        }
    }
}

impl From<GpuChoice> for hesper_venus::GpuSelection {
    fn from(choice: GpuChoice) -> Self {
        match choice {
            GpuChoice::Index(index) => Self::Index(index),
            GpuChoice::Uuid(uuid) => Self::Uuid(uuid),
            GpuChoice::Name(name) => Self::Name(name),
        }
    }
}

/// A parser of whole numbers in `range`. Its error names the range.
pub(super) fn within<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String> + Clone
where
    T: FromStr + PartialOrd + Display + Clone,
{
    move |text| {
        text.parse()
            .ok()
            .filter(|number| range.contains(number))
            .ok_or_else(|| {
                format!(
                    "a whole number from {} to {} is allowed",
                    range.start(),
                    range.end()
                )
            })
    }
}
