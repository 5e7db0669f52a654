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
    /// What the guest gets.
    pub(crate) kind: Kind,
    /// Where QEMU finds it.
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

/// Yes or no.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Switch {
    /// Yes.
    On,
    /// No.
    Off,
}

impl Size {
    /// Of a monitor about which nobody says anything.
    pub(crate) const USUAL: Self = Self {
        width: 1280,
        height: 800,
    };
}

/// What becomes of the windows' places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlacementChoice {
    /// They are kept for the next time.
    Remember,
    /// They are forgotten.
    Forget,
}

/// How a window's size and the guest's mode go together.
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

/// How a picture that is not of the window's size fills it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ScalingWay {
    /// As large as fits, smoothed.
    Smooth,
    /// Whole multiples.
    Integer,
    /// Pixel for pixel while it fits.
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

/// Which keys, with a letter, are meant for the window. The names are QEMU's where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum GrabModChoice {
    /// Ctrl and Alt.
    CtrlAlt,
    /// The left three.
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

/// What Cmd is in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum CmdKeyChoice {
    /// Super.
    Super,
    /// It changes places with Option.
    SwapOptCmd,
    /// It changes places with Ctrl.
    SwapCtrlCmd,
    /// The left one is the host's.
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
            .ok_or_else(|| "0, or a power of two from 1M to 64T is allowed".to_owned())
    }
}

/// A number of bytes, with K, M, G or T.
fn bytes(text: &str) -> Option<u64> {
    let (end, unit) = text.char_indices().next_back()?;
    let (digits, shift) = match unit.to_ascii_uppercase() {
        'K' => (text.get(..end)?, 10),
        'M' => (text.get(..end)?, 20),
        'G' => (text.get(..end)?, 30),
        'T' => (text.get(..end)?, 40),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

/// Bytes that large commands may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CommandMemory(pub(crate) u64);

impl FromStr for CommandMemory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        bytes(text)
            .filter(|size| (1 << 20..=1 << 40).contains(size))
            .map(Self)
            .ok_or_else(|| "1M to 1T is allowed".to_owned())
    }
}

/// Alignment in bytes of blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlobAlignment(pub(crate) u32);

impl FromStr for BlobAlignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.parse()
            .ok()
            .filter(|bytes: &u32| bytes.is_power_of_two() && (4096..=65536).contains(bytes))
            .map(Self)
            .ok_or_else(|| "a power of two from 4096 to 65536 is allowed".to_owned())
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

impl From<GpuChoice> for hesper_venus::GpuSelection {
    fn from(choice: GpuChoice) -> Self {
        match choice {
            GpuChoice::Index(index) => Self::Index(index),
            GpuChoice::Uuid(uuid) => Self::Uuid(uuid),
            GpuChoice::Name(name) => Self::Name(name),
        }
    }
}

/// A parser of whole numbers that names the range when the text is none of it.
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
