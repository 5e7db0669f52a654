//! Options of the device, in the groups in which `--help` shows them.

use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use hesper_venus::WsiPolicy;

use super::values::within;
use super::{
    BlobAlignment, BudgetOptions, CmdKeyChoice, ConfinementOptions, DriverOption, GpuChoice,
    GrabModChoice, HostMemory, InputSocket, OnCloseChoice, PlacementChoice, RecordPath, ResizeMode,
    ScalingWay, Size, SocketMode, Switch,
};
use crate::cli::capsets::{Capset, CapsetOptions};

/// Headings of `--help`.
pub(super) mod heading {
    pub(in super::super) const CONNECTION: &str = "Connection";
    pub(crate) const GPU: &str = "GPU";
    pub(crate) const SECURITY: &str = "Security";
    pub(in super::super) const WINDOW: &str = "Window";
    pub(in super::super) const INPUT: &str = "Input";
    pub(in super::super) const DIAGNOSTICS: &str = "Diagnostics";
    pub(in super::super) const COMPATIBILITY: &str = "Compatibility";
}
use heading::{COMPATIBILITY, CONNECTION, DIAGNOSTICS, GPU, INPUT, WINDOW};

/// Where guest scanouts are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum DisplayMode {
    /// A window if there is a desktop. With --fd or without a desktop: QEMU's console if its device
    /// has one, else nowhere.
    #[default]
    Auto,
    /// Hesper's own windows.
    Window,
    /// QEMU's console, for its devices vhost-user-gpu-pci and vhost-user-vga.
    Qemu,
    /// No window. Screenshots still work.
    Headless,
}

/// Options of the device.
#[derive(Debug, Args)]
pub(crate) struct ServeOptions {
    #[command(flatten)]
    pub(crate) socket: Socket,

    /// Who may connect to the sockets for the VMM (--socket-path, --input-socket), as an octal mode
    /// with at least 600. libvirt's QEMU runs as another user: give 660, and the file its group.
    #[arg(long, value_name = "OCTAL", default_value_t, help_heading = CONNECTION)]
    pub(crate) socket_mode: SocketMode,

    /// Unix socket to listen on for `hesper ctl`.
    #[arg(long, value_name = "PATH", help_heading = CONNECTION)]
    pub(crate) control: Option<PathBuf>,

    /// GPU that the guest uses: its number or UUID as `hesper gpus` lists it, or a part of its
    /// name. Default: all GPUs of this host.
    #[arg(long, value_name = "GPU", help_heading = GPU, conflicts_with = "render_node")]
    pub(crate) gpu: Option<GpuChoice>,

    /// GPU that the guest uses, by its DRM render node, such as /dev/dri/renderD128.
    #[arg(long, value_name = "PATH", help_heading = GPU)]
    pub(crate) render_node: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) driver: DriverOption,

    #[command(flatten)]
    pub(crate) capsets: CapsetOptions,

    /// How the guest's programs pass pictures to its compositor: software (the CPU copies them;
    /// needs Mesa 25.2 in the guest), dmabuf (shared, which compositors on the GPU and OpenGL
    /// need; works with older Mesa, too), auto (dmabuf with a real GPU, but software while the
    /// guest's desktop draws with its CPU).
    #[arg(long, value_name = "POLICY", default_value_t, help_heading = GPU)]
    pub(crate) wsi: WsiPolicy,

    /// Size of the host-visible window, through which the guest maps GPU memory: a power of two
    /// such as 8G, or 0 for a guest without 3D.
    #[arg(long, value_name = "SIZE", default_value = "8G", help_heading = GPU)]
    pub(crate) hostmem: HostMemory,

    /// Alignment of the GPU memory that the guest maps: a power of two from 4096 to 65536. Default:
    /// the page size of this host. If the guest has larger pages, give its page size; it needs
    /// Linux 7.2 and Mesa 26.2.4 then.
    #[arg(long, value_name = "BYTES", help_heading = GPU)]
    pub(crate) blob_alignment: Option<BlobAlignment>,

    #[command(flatten)]
    pub(crate) budget: BudgetOptions,

    #[command(flatten)]
    pub(crate) confinement: ConfinementOptions,

    /// Where the guest's screens are shown.
    #[arg(long, value_name = "MODE", default_value = "auto", help_heading = WINDOW)]
    pub(crate) display: DisplayMode,

    /// Name of this VM, shown in the titles of its windows.
    #[arg(long, value_name = "NAME", help_heading = WINDOW)]
    pub(crate) name: Option<String>,

    /// Number of monitors, each with its own window: 1 to 16. Closing a window unplugs its monitor;
    /// for the first window see --on-close.
    #[arg(long, value_name = "N", default_value = "1", value_parser = within::<u32>(1..=16), help_heading = WINDOW)]
    pub(crate) scanouts: u32,

    /// Size of each monitor at start, in pixels. Default: the size that its window had last time
    /// (--placement), else 1280x800.
    #[arg(long, value_name = "WxH", help_heading = WINDOW)]
    pub(crate) size: Option<Size>,

    /// How resizing works: guest (the guest follows the window), scale (the picture is scaled),
    /// fixed (the window follows the guest).
    #[arg(long, value_name = "MODE", default_value = "guest", hide_possible_values = true, help_heading = WINDOW)]
    pub(crate) resize: ResizeMode,

    /// How the picture is scaled into the window: smooth (as large as fits), integer (whole
    /// multiples, sharp), none (only if it is too large).
    #[arg(long, value_name = "WAY", default_value = "smooth", hide_possible_values = true, help_heading = WINDOW)]
    pub(crate) scaling: ScalingWay,

    /// Start in full screen.
    #[arg(long, help_heading = WINDOW)]
    pub(crate) full_screen: bool,

    /// What closing the first window does while a VM is connected: ask (the window asks), hide (the
    /// VM runs on; `hesper ctl SOCKET show` or SIGUSR2 shows the windows again), quit (Hesper ends,
    /// the VM loses its GPU). Without a VM, closing it ends Hesper.
    #[arg(long, value_name = "WHAT", default_value = "ask", hide_possible_values = true, help_heading = WINDOW)]
    pub(crate) on_close: OnCloseChoice,

    /// Whether frames wait for the monitor's refresh: on, or off (frames appear sooner and cost
    /// more).
    #[arg(long, value_name = "WHETHER", default_value = "on", hide_possible_values = true, help_heading = WINDOW)]
    pub(crate) vsync: Switch,

    /// Restore this VM's window positions: remember or forget. VMs are told apart by --name, else
    /// by --socket-path.
    #[arg(long, value_name = "WHETHER", default_value = "remember", hide_possible_values = true, help_heading = WINDOW)]
    pub(crate) placement: PlacementChoice,

    /// Unix socket of an input device that gets the window's input, for QEMU's
    /// vhost-user-input-pci. KIND is keyboard, tablet (absolute pointer), mouse (relative pointer)
    /// or touch. Repeat it for each device.
    #[arg(long = "input-socket", value_name = "KIND:PATH", help_heading = INPUT)]
    pub(crate) input_sockets: Vec<InputSocket>,

    /// Modifier of the window's own shortcuts (with F: full screen, G: grab or release the pointer,
    /// O: overlay, S: screenshot): ctrl-alt, lshift-lctrl-lalt, rctrl, cmd (a Mac's Cmd, a PC's
    /// Super).
    #[arg(long, value_name = "KEYS", default_value = "ctrl-alt", hide_possible_values = true, help_heading = INPUT)]
    pub(crate) grab_mod: GrabModChoice,

    /// What a Mac's Cmd key (a PC's Super) is in the guest: super, swap-opt-cmd (Cmd and Option
    /// change places), swap-ctrl-cmd (Cmd and Ctrl change places), host (the left Cmd stays with
    /// the host).
    #[arg(long, value_name = "KEY", default_value = "super", hide_possible_values = true, help_heading = INPUT)]
    pub(crate) cmd_key: CmdKeyChoice,

    /// Record every frame that a window shows: into this .y4m file, or as PNGs into this folder.
    #[arg(long, value_name = "PATH", help_heading = DIAGNOSTICS)]
    pub(crate) record: Option<RecordPath>,

    /// Folder for the screenshots of Ctrl+Alt+S; Hesper may write everywhere in it. Default:
    /// hesper/screenshots in the user's folder for state (~/.local/state).
    #[arg(long, value_name = "FOLDER", help_heading = DIAGNOSTICS)]
    pub(crate) screenshots: Option<PathBuf>,

    /// Show frame statistics from the start: frames per second, frame times, sizes, and who draws.
    #[arg(long, help_heading = DIAGNOSTICS)]
    pub(crate) overlay: bool,

    /// Offer the guest OpenGL by virglrenderer, like --capsets=venus,virgl. libvirt passes it for
    /// accel3d='yes'.
    #[arg(long, help_heading = COMPATIBILITY)]
    pub(crate) virgl: bool,
}

impl ServeOptions {
    /// Width and height of the guest's monitors, in pixels, before a window says otherwise.
    pub(crate) fn first_mode(&self) -> (u32, u32) {
        let Size { width, height } = self.size.unwrap_or(Size::USUAL);
        (width, height)
    }

    /// Whether the guest is offered Vulkan, if it works here.
    ///
    /// A descriptor (`--fd`, as libvirt passes it) means QEMU's classic device: it cannot use
    /// Vulkan, and QEMU's consoles mostly refuse a device with 3D. For another device,
    /// `--capsets=venus` or `--gpu` must say so.
    pub(crate) fn wants_venus(&self) -> bool {
        let is_classic = self.socket.fd.is_some() && self.display == DisplayMode::Auto;
        match is_classic {
            true => self.gpu.is_some() || self.capsets.is_asked(Capset::Venus),
            false => self.capsets.has(Capset::Venus),
        }
    }

    /// The option that asks for `capset` by its name, if one does.
    pub(crate) fn asks_for(&self, capset: Capset) -> Option<String> {
        match capset {
            Capset::Virgl if self.virgl => Some("--virgl".to_owned()),
            _ => self.capsets.is_asked(capset).then(|| {
                let value = capset.to_possible_value();
                let name = value.as_ref().map_or("", |value| value.get_name());
                format!("--capsets={name}")
            }),
        }
    }

    /// The options that choose how the guest gets 3D, as they stand on the command line.
    pub(crate) fn gpu_options(&self) -> Vec<String> {
        let gpu = self.gpu.as_ref().map(|gpu| format!("--gpu={gpu}"));
        let path = |name: &str, path: &Option<PathBuf>| {
            let path = path.as_ref()?;
            Some(format!("--{name}={}", path.display()))
        };
        let node = path("render-node", &self.render_node);
        let driver = path("driver", &self.driver.driver);
        let capsets = self.asks_for(Capset::Venus);
        [gpu, node, driver, capsets].into_iter().flatten().collect()
    }

    /// Checks combinations of options.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.display == DisplayMode::Qemu && !self.input_sockets.is_empty() {
            return Err(
                "--input-socket needs a window of Hesper's own: leave out --display=qemu, or use QEMU's \
                 virtio-keyboard-pci and virtio-tablet-pci"
                    .to_owned(),
            );
        }
        if matches!(self.display, DisplayMode::Headless | DisplayMode::Qemu)
            && self.record.is_some()
        {
            return Err(
                "--record needs --display=window: it writes what a window shows".to_owned(),
            );
        }
        let without_3d = match self.display {
            DisplayMode::Qemu => Some("--display=qemu"),
            _ => (self.hostmem.0 == 0).then_some("--hostmem=0"),
        };
        // The windows use the driver as well.
        let asked = self
            .gpu_options()
            .into_iter()
            .find(|asked| !asked.starts_with("--driver"));
        if let (Some(without), Some(asked)) = (without_3d, asked) {
            return Err(format!(
                "{asked} chooses how the guest gets 3D, and {without} turns 3D off: leave one of them out"
            ));
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

/// The vhost-user socket: exactly one of the two options.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct Socket {
    /// Unix socket to listen on for the VMM, such as QEMU.
    #[arg(long, value_name = "PATH", help_heading = CONNECTION)]
    pub(crate) socket_path: Option<PathBuf>,

    /// Inherited file descriptor to serve: a connected unix stream socket.
    #[arg(long, value_name = "N", value_parser = within::<RawFd>(3..=RawFd::MAX), help_heading = CONNECTION)]
    pub(crate) fd: Option<RawFd>,
}
