//! The command line: the conventions of vhost-user backend programs (vhost-user.rst, "Backend program
//! conventions") plus Hesper's own options.
//!
//! [`parse`] turns arguments into a [`Command`]; what is wrong comes back as one line that names the value
//! and what is allowed, for exit status 2.

use std::ffi::OsString;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::str::FromStr;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use hesper_venus::WsiPolicy;
use hesper_vhost::input::Kind;

use crate::input;

/// What `--print-capabilities` prints (vhost-user.rst, "Backend program conventions").
pub(crate) const CAPABILITIES: &str = r#"{"type":"gpu","features":["render-node","virgl"]}"#;

/// What the program was asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Print [`CAPABILITIES`].
    PrintCapabilities,
    /// Print this text (help, version) on standard output.
    Print(String),
    /// Serve a device.
    Serve(ServeOptions),
    /// Send a command to a running Hesper.
    Control(ControlOptions),
    /// Serve Vulkan to programs on this machine.
    Vtest(VtestOptions),
    /// List the host's GPUs.
    Gpus,
    /// Check the host.
    Doctor,
}

/// Hesper: Vulkan for virtual machines. A vhost-user-gpu backend with its own window.
#[derive(Debug, Parser)]
#[command(name = "hesper", version)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "Log level: RUST_LOG=error|warn|info|debug|trace (default: info).")]
struct Cli {
    #[command(subcommand)]
    verb: Option<Verb>,

    #[command(flatten)]
    serve: ServeOptions,

    /// Print this backend's capabilities as JSON and exit; all other options are ignored.
    #[arg(long)]
    print_capabilities: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Send one command to a running Hesper's --control socket and print the answer.
    Ctl(ControlOptions),
    /// Serve Vulkan to Mesa's Venus driver on this machine, without a VM, over the vtest protocol.
    Vtest(VtestOptions),
    /// List the GPUs that can render for guests, as --gpu chooses them.
    Gpus,
    /// Check what works on this host, and say what to do about what does not.
    Doctor,
}

/// Options of `hesper vtest`.
#[derive(Debug, Args)]
pub(crate) struct VtestOptions {
    /// Listen on this unix socket; clients name it in VTEST_SOCKET_NAME.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket_path: PathBuf,

    /// GPU that renders: its number or UUID as `hesper gpus` lists it, or a part of its name.
    #[arg(long, value_name = "GPU")]
    pub(crate) gpu: Option<GpuChoice>,

    /// How swapchains of the guest's programs work: software (Mesa 25.2 or newer), dmabuf (older ones too), or auto.
    #[arg(long, value_name = "POLICY", default_value_t)]
    pub(crate) wsi: WsiPolicy,
}

/// Options of `hesper ctl`.
#[derive(Debug, Args)]
pub(crate) struct ControlOptions {
    /// The --control socket of the running Hesper.
    #[arg(value_name = "SOCKET")]
    pub(crate) socket: PathBuf,

    /// `screenshot SCANOUT FILE.png`, `resize SCANOUT WIDTHxHEIGHT`, `status` or `quit`.
    #[arg(value_name = "COMMAND", required = true, num_args = 1..)]
    pub(crate) words: Vec<String>,
}

/// Where guest scanouts are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum DisplayMode {
    /// In a window of Hesper's own.
    #[default]
    Window,
    /// In QEMU's console, over the socket of QEMU's vhost-user-gpu-pci or vhost-user-vga device.
    Qemu,
    /// Nowhere; screenshots still work.
    Headless,
}

/// Options of the device.
#[derive(Debug, Args)]
pub(crate) struct ServeOptions {
    #[command(flatten)]
    pub(crate) socket: Socket,

    /// Where scanouts are shown.
    #[arg(long, value_name = "MODE", default_value = "window")]
    pub(crate) display: DisplayMode,

    /// How many monitors the guest has at most: 1 to 16. The first is plugged in.
    #[arg(long, value_name = "N", default_value = "1", value_parser = within::<u32>(1..=16))]
    pub(crate) scanouts: u32,

    /// Size of the first monitor in pixels at start.
    #[arg(long, value_name = "WxH", default_value = "1280x800")]
    pub(crate) size: Size,

    /// GPU that renders for the guest: its number or UUID as `hesper gpus` lists it, or a part of its name.
    #[arg(long, value_name = "GPU")]
    pub(crate) gpu: Option<GpuChoice>,

    /// Size of the window through which the guest maps the GPU's memory: a power of two, with K, M, G or T, or
    /// 0 for a guest without 3D.
    #[arg(long, value_name = "SIZE", default_value = "8G")]
    pub(crate) hostmem: HostMemory,

    /// Bytes to which the guest must align the GPU's memory that it maps: a power of two from 4096 to 65536. Default: this
    /// host's page size. More than 4096 wants Linux 7.2 and Mesa 26.2.4 in the guest, or guest pages of that size.
    #[arg(long, value_name = "BYTES")]
    pub(crate) blob_alignment: Option<BlobAlignment>,

    /// How swapchains of the guest's programs work: software (Mesa 25.2 or newer), dmabuf (older ones too), or auto.
    #[arg(long, value_name = "POLICY", default_value_t)]
    pub(crate) wsi: WsiPolicy,

    #[command(flatten)]
    pub(crate) offer: crate::capsets::Offer,

    /// DRM render node of the GPU to render with. Accepted for libvirt; --gpu chooses the GPU.
    #[arg(long, value_name = "PATH")]
    pub(crate) render_node: Option<PathBuf>,

    /// Turn 3D on. Accepted for libvirt; 3D is on wherever it works.
    #[arg(long)]
    pub(crate) virgl: bool,

    /// Listen on this unix socket for `hesper ctl` and scripts.
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Option<PathBuf>,

    /// Give the guest an input device that follows the window, on a unix socket for QEMU's vhost-user-input-pci.
    /// KIND is keyboard, tablet (absolute pointer), mouse (relative pointer) or touch. Once for each device.
    #[arg(long = "input-socket", value_name = "KIND:PATH")]
    pub(crate) input_sockets: Vec<InputSocket>,
}

impl ServeOptions {
    /// What no option says alone.
    fn check(&self) -> Result<(), String> {
        if self.display == DisplayMode::Qemu && !self.input_sockets.is_empty() {
            return Err(
                "--input-socket needs a window of Hesper's own: leave out --display=qemu, or use QEMU's \
                 virtio-keyboard-pci and virtio-tablet-pci"
                    .to_owned(),
            );
        }
        for (index, socket) in self.input_sockets.iter().enumerate() {
            let mut before = self.input_sockets.iter().take(index);
            if before.any(|other| other.kind == socket.kind || other.path == socket.path) {
                return Err(format!(
                    "--input-socket={socket}: one of each kind is allowed, each with a path of its own"
                ));
            }
        }
        Ok(())
    }
}

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

/// The vhost-user socket: exactly one of both.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Socket {
    /// Listen on this unix socket for the VM monitor.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket_path: Option<PathBuf>,

    /// Use this inherited file descriptor, a connected unix stream socket.
    #[arg(long, value_name = "N", value_parser = within::<RawFd>(3..=RawFd::MAX))]
    pub(crate) fd: Option<RawFd>,
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

/// Size in bytes of the host-visible window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HostMemory(pub(crate) u64);

impl FromStr for HostMemory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (digits, shift) = match text.char_indices().next_back() {
            Some((end, unit)) => match unit.to_ascii_uppercase() {
                'K' => (text.get(..end), 10),
                'M' => (text.get(..end), 20),
                'G' => (text.get(..end), 30),
                'T' => (text.get(..end), 40),
                _ => (Some(text), 0),
            },
            None => (None, 0),
        };
        // QEMU aborts on a window that is no power of two, and below 1M no ring fits.
        digits
            .and_then(|digits| digits.parse::<u64>().ok())
            .and_then(|number| number.checked_mul(1 << shift))
            .filter(|size| {
                *size == 0 || size.is_power_of_two() && (1 << 20..=1 << 46).contains(size)
            })
            .map(Self)
            .ok_or_else(|| "0, or a power of two from 1M to 64T is allowed".to_owned())
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
fn within<T>(range: RangeInclusive<T>) -> impl Fn(&str) -> Result<T, String> + Clone
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

/// Reads the command line, program name first.
///
/// # Errors
/// One line that says which value is wrong and what is allowed.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, String> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    // The convention: whatever else stands there, even what makes no sense, is ignored.
    if arguments
        .iter()
        .any(|argument| argument == "--print-capabilities")
    {
        return Ok(Command::PrintCapabilities);
    }
    match Cli::try_parse_from(arguments) {
        Ok(Cli { verb, serve, .. }) => Ok(match verb {
            Some(Verb::Ctl(options)) => Command::Control(options),
            Some(Verb::Vtest(options)) => Command::Vtest(options),
            Some(Verb::Gpus) => Command::Gpus,
            Some(Verb::Doctor) => Command::Doctor,
            None => {
                serve.check()?;
                Command::Serve(serve)
            }
        }),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                Ok(Command::Print(error.render().to_string()))
            }
            _ => Err(one_line(&error.render().to_string())),
        },
    }
}

/// Clap's message is a paragraph, then usage: the paragraph on one line is what a log wants.
fn one_line(message: &str) -> String {
    let paragraph: Vec<&str> = message
        .lines()
        .map(str::trim)
        .take_while(|line| !line.is_empty())
        .collect();
    let text = paragraph.join(" ");
    text.strip_prefix("error: ").unwrap_or(&text).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, String> {
        parse(
            std::iter::once("hesper")
                .chain(line.split_whitespace())
                .map(OsString::from),
        )
    }

    fn served(line: &str) -> ServeOptions {
        match parsed(line) {
            Ok(Command::Serve(options)) => options,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn defaults_are_a_window_of_one_monitor() {
        let options = served("--socket-path=/tmp/gpu.sock");
        assert_eq!(options.display, DisplayMode::Window);
        assert_eq!(options.scanouts, 1);
        assert_eq!(
            options.size,
            Size {
                width: 1280,
                height: 800
            }
        );
        assert_eq!(options.socket.socket_path, Some("/tmp/gpu.sock".into()));
    }

    #[test]
    fn every_input_device_has_a_socket() {
        let options = served("--fd=3 --input-socket keyboard:/a:b --input-socket=tablet:t.sock");
        let socket = |kind, path: &str| InputSocket {
            kind,
            path: path.into(),
        };
        let expected = [
            socket(Kind::Keyboard, "/a:b"),
            socket(Kind::Tablet, "t.sock"),
        ];
        assert_eq!(options.input_sockets, expected);
    }

    #[test]
    fn libvirt_passes_a_descriptor_virgl_and_a_render_node() {
        let options = served("--fd=7 --virgl --render-node /dev/dri/renderD128");
        assert_eq!(options.socket.fd, Some(7));
        assert!(options.virgl);
        assert_eq!(options.render_node, Some("/dev/dri/renderD128".into()));
    }

    #[test]
    fn print_capabilities_ignores_everything_else() {
        assert!(matches!(
            parsed("--nonsense --fd=x --print-capabilities --size 1"),
            Ok(Command::PrintCapabilities)
        ));
        let json: serde_json::Value = serde_json::from_str(CAPABILITIES).unwrap();
        assert_eq!(json["type"], "gpu");
    }

    #[test]
    fn a_wrong_value_gives_one_line_with_the_value_and_what_is_allowed() {
        for (line, value, allowed) in [
            (
                "--socket-path=s --display=tv",
                "tv",
                "window, qemu, headless",
            ),
            ("--socket-path=s --size=0x0", "0x0", "64 to 16384"),
            ("--socket-path=s --size=1280", "1280", "WIDTHxHEIGHT"),
            (
                "--socket-path=s --size=1280x99999999999",
                "1280x99999999999",
                "64 to 16384",
            ),
            ("--socket-path=s --scanouts=17", "17", "1 to 16"),
            ("--socket-path=s --scanouts=two", "two", "1 to 16"),
            ("--fd=1", "1", "from 3 to"),
            ("--socket-path=s --hostmem=3G", "3G", "power of two"),
            ("--socket-path=s --hostmem=1K", "1K", "from 1M to 64T"),
            (
                "--socket-path=s --blob-alignment=12288",
                "12288",
                "power of two",
            ),
            ("--socket-path=s --blob-alignment=2048", "2048", "from 4096"),
            ("--socket-path=s --wsi=dri", "dri", "software or dmabuf"),
            (
                "--socket-path=s --hostmem=99999999999999999999G",
                "99999",
                "power of two",
            ),
            ("--socket-path=s --fd=5", "--fd", "--socket-path"),
            ("", "--socket-path", "--fd"),
            ("--display=headless", "--socket-path", "--fd"),
            ("--socket-path=s --bogus", "--bogus", "unexpected"),
            (
                "--socket-path=s --input-socket=lever:/l",
                "lever:/l",
                "keyboard, tablet, mouse, touch",
            ),
            ("--socket-path=s --input-socket=mouse", "mouse", "KIND:PATH"),
            (
                "--socket-path=s --input-socket=touch:",
                "touch:",
                "KIND:PATH",
            ),
            (
                "--socket-path=s --input-socket=mouse:/a --input-socket=mouse:/b",
                "mouse:/b",
                "one of each kind",
            ),
            (
                "--socket-path=s --input-socket=mouse:/a --input-socket=tablet:/a",
                "tablet:/a",
                "path of its own",
            ),
            (
                "--socket-path=s --display=qemu --input-socket=mouse:/a",
                "--input-socket",
                "virtio-tablet-pci",
            ),
        ] {
            let message = parsed(line).expect_err(line);
            assert!(!message.contains('\n'), "{message}");
            assert!(message.contains(value), "{line}: {message}");
            assert!(message.contains(allowed), "{line}: {message}");
        }
    }

    #[test]
    fn a_gpu_is_a_number_a_uuid_or_a_name() {
        assert_eq!("1".parse(), Ok(GpuChoice::Index(1)));
        assert_eq!(
            "llvmpipe".parse(),
            Ok(GpuChoice::Name("llvmpipe".to_owned()))
        );
        let uuid = "00010203-0405-0607-0809-0a0b0c0d0e0f".parse();
        assert_eq!(
            uuid,
            Ok(GpuChoice::Uuid([
                0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
            ]))
        );
    }

    #[test]
    fn a_window_size_has_a_unit() {
        assert_eq!("8G".parse(), Ok(HostMemory(8 << 30)));
        assert_eq!("256m".parse(), Ok(HostMemory(256 << 20)));
        assert_eq!("0".parse(), Ok(HostMemory(0)));
        assert_eq!("1073741824".parse(), Ok(HostMemory(1 << 30)));
    }

    #[test]
    fn help_names_every_option() {
        let Ok(Command::Print(text)) = parsed("--help") else {
            panic!("no help")
        };
        for option in [
            "--socket-path",
            "--fd",
            "--print-capabilities",
            "--render-node",
            "--virgl",
        ] {
            assert!(text.contains(option), "{option} is not in:\n{text}");
        }
    }
}
