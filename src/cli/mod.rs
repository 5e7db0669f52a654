//! The command line: the conventions of vhost-user backend programs (vhost-user.rst, "Backend program
//! conventions") plus Hesper's own options.
//!
//! [`parse`] turns arguments into a [`Command`]; what is wrong comes back as one line that names the value
//! and what is allowed, for exit status 2. What a value may be stands in `values.rs`.

mod values;

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::{Args, Parser, Subcommand, ValueEnum};
use hesper_venus::{Budget, WsiPolicy};

use self::values::within;
pub(crate) use self::values::{
    BlobAlignment, CmdKeyChoice, CommandMemory, GpuChoice, GrabModChoice, HostMemory, InputSocket,
    OnCloseChoice, PlacementChoice, ResizeMode, ScalingWay, Size, Switch,
};

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
    Serve(Box<ServeOptions>),
    /// Send a command to a running Hesper.
    Control(ControlOptions),
    /// Serve Vulkan to programs on this machine.
    Vtest(VtestOptions),
    /// List the host's GPUs.
    Gpus(DriverOption),
    /// Check the host.
    Doctor(DoctorOptions),
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
    Gpus(DriverOption),
    /// Check what works on this host, and say what to do about what does not.
    Doctor(DoctorOptions),
}

/// Options of `hesper doctor`.
#[derive(Clone, Debug, Args)]
pub(crate) struct DoctorOptions {
    /// Print all that a bug report needs: versions, limits, drivers, memory types and the checks, without names of users.
    #[arg(long)]
    pub(crate) report: bool,

    #[command(flatten)]
    pub(crate) driver: DriverOption,
}

/// Where Vulkan comes from.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct DriverOption {
    /// Vulkan library to use: a loader, a driver, or a driver's JSON manifest. Default: the system's loader; without one, what
    /// VK_DRIVER_FILES names; on macOS then MoltenVK and KosmicKrisp.
    #[arg(long, value_name = "PATH")]
    pub(crate) driver: Option<PathBuf>,
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

    #[command(flatten)]
    pub(crate) driver: DriverOption,

    /// How swapchains of the guest's programs work: software (Mesa 25.2 or newer), dmabuf (older ones too), or auto.
    #[arg(long, value_name = "POLICY", default_value_t)]
    pub(crate) wsi: WsiPolicy,

    #[command(flatten)]
    pub(crate) budget: BudgetOptions,
}

/// What one program of a guest may take of the host.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct BudgetOptions {
    /// Memory that the large Vulkan commands of one program may hold at a time: 1M to 1T, with K, M, G or T. A command takes up
    /// to twice its size; one that does not fit fails with VK_ERROR_OUT_OF_HOST_MEMORY.
    #[arg(long, value_name = "SIZE", default_value = "4G")]
    command_memory: CommandMemory,

    /// How many threads of one program may make Vulkan pipelines at a time: 64 to 65536. Each takes a thread here.
    #[arg(long, value_name = "N", default_value = "1024", value_parser = within::<u32>(64..=65536))]
    rings: u32,
}

impl BudgetOptions {
    /// The budget of a context.
    pub(crate) fn budget(self) -> Budget {
        Budget {
            command_bytes: self.command_memory.0,
            rings: self.rings as usize,
            ..Budget::default()
        }
    }
}

/// Options of `hesper ctl`.
#[derive(Debug, Args)]
pub(crate) struct ControlOptions {
    /// The --control socket of the running Hesper.
    #[arg(value_name = "SOCKET")]
    pub(crate) socket: PathBuf,

    /// `screenshot SCANOUT FILE.png`, `resize SCANOUT WIDTHxHEIGHT`, `plug SCANOUT`, `unplug SCANOUT`, `hide`, `show`, `status`,
    /// `counters` or `quit`.
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

    /// How many monitors the guest has, with a window each: 1 to 16. Closing a window unplugs its monitor; `hesper ctl
    /// SOCKET plug N` brings it back. Closing the first: --on-close.
    #[arg(long, value_name = "N", default_value = "1", value_parser = within::<u32>(1..=16))]
    pub(crate) scanouts: u32,

    /// Size of a monitor in pixels at start. Default: what its window had last (--placement), else 1280x800.
    #[arg(long, value_name = "WxH")]
    pub(crate) size: Option<Size>,

    /// What this VM is called, in the titles of its windows.
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// Whether windows are where they were the last time for this VM, which is known by its --name, else by its
    /// --socket-path: remember or forget.
    #[arg(
        long,
        value_name = "WHETHER",
        default_value = "remember",
        hide_possible_values = true
    )]
    pub(crate) placement: PlacementChoice,

    /// What follows what: guest (the guest's mode the window's size), scale (neither: the picture is scaled), or fixed (the
    /// window the guest's mode).
    #[arg(
        long,
        value_name = "MODE",
        default_value = "guest",
        hide_possible_values = true
    )]
    pub(crate) resize: ResizeMode,

    /// How a picture that is not of the window's size fills it: smooth (as large as fits), integer (whole multiples, sharp) or
    /// none (pixel for pixel while it fits).
    #[arg(
        long,
        value_name = "WAY",
        default_value = "smooth",
        hide_possible_values = true
    )]
    pub(crate) scaling: ScalingWay,

    /// Keys that, held with a letter, ask something of the window instead of the guest (F: full screen, G: grab or release the
    /// pointer, O: overlay, S: screenshot): ctrl-alt (a Mac's Ctrl and Option), lshift-lctrl-lalt, rctrl, or cmd (a Mac's
    /// Cmd, a PC's Super).
    #[arg(
        long,
        value_name = "KEYS",
        default_value = "ctrl-alt",
        hide_possible_values = true
    )]
    pub(crate) grab_mod: GrabModChoice,

    /// What a Mac's Cmd (a PC's Super) is in the guest: super, swap-opt-cmd (it changes places with Option, as on a PC's
    /// keyboard), swap-ctrl-cmd (with Ctrl: Cmd-C copies), or host (the left one, and keys with it, stay on the host).
    #[arg(
        long,
        value_name = "KEY",
        default_value = "super",
        hide_possible_values = true
    )]
    pub(crate) cmd_key: CmdKeyChoice,

    /// Begin full screen. Ctrl+Alt+F in a window changes it (--grab-mod).
    #[arg(long)]
    pub(crate) full_screen: bool,

    /// What closing the first window does while a VM is connected: ask, hide (the VM goes on; `hesper ctl SOCKET show` or
    /// SIGUSR2 shows the windows again), or quit (the VM loses its GPU). Without a VM closing it ends Hesper.
    #[arg(
        long,
        value_name = "WHAT",
        default_value = "ask",
        hide_possible_values = true
    )]
    pub(crate) on_close: OnCloseChoice,

    /// Whether frames wait for the screen's refresh: on, or off (sooner, with more work).
    #[arg(
        long,
        value_name = "WHETHER",
        default_value = "on",
        hide_possible_values = true
    )]
    pub(crate) vsync: Switch,

    /// Begin with the overlay: frames a second, their times, sizes, and who draws. Ctrl+Alt+O in a window changes it.
    #[arg(long)]
    pub(crate) overlay: bool,

    /// Folder for the screenshots of Ctrl+Alt+S.
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub(crate) screenshots: PathBuf,

    /// Write every frame that a window shows to a .y4m file, or as PNGs into a folder.
    #[arg(long, value_name = "PATH")]
    pub(crate) record: Option<PathBuf>,

    /// GPU that renders for the guest: its number or UUID as `hesper gpus` lists it, or a part of its name.
    #[arg(long, value_name = "GPU")]
    pub(crate) gpu: Option<GpuChoice>,

    #[command(flatten)]
    pub(crate) driver: DriverOption,

    /// Size of the window through which the guest maps the GPU's memory: a power of two, with K, M, G or T, or
    /// 0 for a guest without 3D.
    #[arg(long, value_name = "SIZE", default_value = "8G")]
    pub(crate) hostmem: HostMemory,

    /// Bytes to which the guest must align the GPU's memory that it maps: a power of two from 4096 to 65536. Default: this
    /// host's page size. More than 4096 wants Mesa 26.2.4 in a guest with Linux 7.2 or newer, and fails with older kernels unless
    /// their pages have that size. With 4096 the guest is not asked: right for guests whose pages are as large as this host's.
    #[arg(long, value_name = "BYTES")]
    pub(crate) blob_alignment: Option<BlobAlignment>,

    #[command(flatten)]
    pub(crate) budget: BudgetOptions,

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
    /// Width and height of the guest's monitors, in pixels, before a window says otherwise.
    pub(crate) fn first_mode(&self) -> (u32, u32) {
        let Size { width, height } = self.size.unwrap_or(Size::USUAL);
        (width, height)
    }

    /// What no option says alone.
    fn check(&self) -> Result<(), String> {
        if self.display == DisplayMode::Qemu && !self.input_sockets.is_empty() {
            return Err(
                "--input-socket needs a window of Hesper's own: leave out --display=qemu, or use QEMU's \
                 virtio-keyboard-pci and virtio-tablet-pci"
                    .to_owned(),
            );
        }
        if self.display != DisplayMode::Window && self.record.is_some() {
            return Err(
                "--record needs --display=window: it writes what a window shows".to_owned(),
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
            Some(Verb::Gpus(options)) => Command::Gpus(options),
            Some(Verb::Doctor(options)) => Command::Doctor(options),
            None => {
                serve.check()?;
                Command::Serve(Box::new(serve))
            }
        }),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                Ok(Command::Print(error.render().to_string()))
            }
            // Their paragraphs name no remedy.
            ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand => {
                let text = one_line(&error.render().to_string());
                Err(format!("{text}; `hesper --help` lists what there is"))
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
mod tests;
