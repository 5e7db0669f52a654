//! The command line: the conventions of vhost-user backend programs (vhost-user.rst, "Backend
//! program conventions") plus Hesper's own options.
//!
//! [`parse`] turns arguments into an [`Invocation`]. An error is one line that names the value and
//! what is allowed; the program ends with status 2 then. `values.rs` has the types of values.

pub(crate) mod capsets;
mod serve;
mod values;

use std::ffi::OsString;
use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand};
use hesper_venus::{Budget, GuestBudget, WsiPolicy};

use crate::sandbox::SandboxMode;

use self::serve::heading;
pub(crate) use self::serve::{DisplayMode, ServeOptions};
use self::values::within;
pub(crate) use self::values::{
    BlobAlignment, CmdKeyChoice, CommandMemory, GpuChoice, GpuMemory, GrabModChoice, HostMemory,
    InputSocket, OnCloseChoice, PlacementChoice, RecordPath, ResizeMode, ScalingWay, Size,
    SocketMode, Switch,
};

/// What `--print-capabilities` prints: the features of this build, as JSON (vhost-user.rst,
/// "Backend program conventions").
///
/// `has_render_nodes`: whether every DRM render node of this host belongs to a usable GPU. If the
/// feature is offered and a domain names no node, libvirt takes the first one that it finds.
pub(crate) fn capabilities(has_render_nodes: bool) -> String {
    let render_node = has_render_nodes.then_some("render-node");
    let virgl = cfg!(feature = "virgl").then_some("virgl");
    let features: Vec<_> = render_node.into_iter().chain(virgl).collect();
    serde_json::json!({"type": "gpu", "features": features}).to_string()
}

/// A command line to begin with.
const EXAMPLE: &str =
    "such as: hesper --socket-path=\"$XDG_RUNTIME_DIR/gpu.sock\" (README.md has QEMU's part)";

/// What the command line asks the program to do.
#[derive(Debug)]
pub(crate) enum Invocation {
    /// Print [`capabilities`].
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
    Gpus(GpusOptions),
    /// Check the host.
    Doctor(DoctorOptions),
    /// Start and end workers for Hesper.
    Spawner(SpawnerOptions),
    /// Be a context of Hesper.
    Worker(WorkerArguments),
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

    /// Print the features of this backend as JSON, for libvirt. All other options are ignored.
    #[arg(long, help_heading = heading::COMPATIBILITY)]
    print_capabilities: bool,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Send one command to a running Hesper's --control socket and print the answer.
    Ctl(ControlOptions),
    /// Serve Vulkan to Mesa's Venus driver on this machine, without a VM, over the vtest protocol.
    Vtest(VtestOptions),
    /// List the GPUs of this host, as --gpu chooses them.
    Gpus(GpusOptions),
    /// Check what works on this host, and how to mend what does not.
    Doctor(DoctorOptions),
    /// Hesper starts this itself (--isolate): it starts the processes of the guest's programs.
    #[command(hide = true)]
    Spawner(SpawnerOptions),
    /// Hesper starts this itself (--isolate): it is the process of one program of the guest.
    #[command(hide = true)]
    Worker(WorkerArguments),
}

/// Options of `hesper spawner`. Its socket is its standard input.
#[derive(Clone, Debug, Args)]
pub(crate) struct SpawnerOptions {
    /// Options of the workers, as JSON.
    #[arg(long, value_name = "JSON")]
    pub(crate) options: String,
}

/// Options of `hesper worker`.
#[derive(Clone, Debug, Args)]
pub(crate) struct WorkerArguments {
    /// Inherited socket to Hesper.
    #[arg(long, value_name = "N", value_parser = within::<RawFd>(3..=RawFd::MAX))]
    pub(crate) socket_fd: RawFd,

    /// Inherited socket for budgets.
    #[arg(long, value_name = "N", value_parser = within::<RawFd>(3..=RawFd::MAX))]
    pub(crate) budget_fd: RawFd,

    /// What Hesper was started with, as JSON.
    #[arg(long, value_name = "JSON")]
    pub(crate) options: String,
}

/// Options of `hesper gpus`.
#[derive(Clone, Debug, Args)]
pub(crate) struct GpusOptions {
    /// Print the GPUs as JSON, with their memory and render node.
    #[arg(long)]
    pub(crate) json: bool,

    #[command(flatten)]
    pub(crate) driver: DriverOption,
}

/// Options of `hesper doctor`.
#[derive(Clone, Debug, Args)]
pub(crate) struct DoctorOptions {
    /// Print what a bug report needs: versions, limits, drivers, memory types and the checks. User
    /// names are left out.
    #[arg(long, conflicts_with_all = ["json", "verbose"])]
    pub(crate) report: bool,

    /// Print the checks as JSON.
    #[arg(long)]
    pub(crate) json: bool,

    /// List everything by name. Without it, long lists are only counted.
    #[arg(long)]
    pub(crate) verbose: bool,

    /// QEMU program to check. Default: the qemu-system program of this machine's architecture, from
    /// PATH.
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) qemu: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) driver: DriverOption,
}

/// The Vulkan library.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct DriverOption {
    /// Vulkan library to use: a loader, a driver, or a driver's JSON manifest. Default: the
    /// system's loader; without one, the driver that VK_DRIVER_FILES names; on macOS also MoltenVK
    /// and KosmicKrisp.
    #[arg(long, value_name = "PATH", help_heading = heading::GPU)]
    pub(crate) driver: Option<PathBuf>,
}

/// Options of `hesper vtest`.
#[derive(Debug, Args)]
pub(crate) struct VtestOptions {
    /// Unix socket to listen on. Clients find it through VTEST_SOCKET_NAME.
    #[arg(long, value_name = "PATH")]
    pub(crate) socket_path: PathBuf,

    /// GPU that programs use: its number or UUID as `hesper gpus` lists it, or a part of its name.
    /// Default: all GPUs of this host.
    #[arg(long, value_name = "GPU", help_heading = heading::GPU)]
    pub(crate) gpu: Option<GpuChoice>,

    #[command(flatten)]
    pub(crate) driver: DriverOption,

    /// How programs pass pictures to the compositor: software (the CPU copies them; needs Mesa
    /// 25.2), dmabuf (no copy; works with older Mesa, too), auto (software).
    #[arg(long, value_name = "POLICY", default_value_t, help_heading = heading::GPU)]
    pub(crate) wsi: WsiPolicy,

    /// Record from start to end what the programs do, and write it to this file for
    /// ui.perfetto.dev. Default: record nothing.
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,

    #[command(flatten)]
    pub(crate) budget: BudgetOptions,

    #[command(flatten)]
    pub(crate) confinement: ConfinementOptions,
}

/// How the processes are confined.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct ConfinementOptions {
    /// Run each program of the guest in a process of its own: on, or off (they can crash Hesper and
    /// one another). Default: on, or what the variable HESPER_ISOLATE says.
    #[arg(long, value_name = "WHETHER", hide_possible_values = true, help_heading = heading::SECURITY)]
    pub(crate) isolate: Option<Switch>,

    /// Confine Hesper to the files and system calls that it and Vulkan drivers need: on, off, log
    /// (forbid nothing, and log what would be forbidden). Default: on, or what the variable
    /// HESPER_SANDBOX says. Linux only.
    #[arg(long, value_name = "MODE", hide_possible_values = true, help_heading = heading::SECURITY)]
    pub(crate) sandbox: Option<SandboxMode>,

    /// Allow core dumps, which hold the guest's data, as far as the system's limits allow them.
    #[arg(long, help_heading = heading::SECURITY)]
    pub(crate) core_dumps: bool,
}

/// What the guest and its programs may use.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct BudgetOptions {
    /// Memory that the large Vulkan commands of one program may use at a time: 1M to 1T. A command
    /// uses up to twice its size. One that does not fit fails with VK_ERROR_OUT_OF_HOST_MEMORY.
    #[arg(long, value_name = "SIZE", default_value = "4G", help_heading = heading::GPU)]
    command_memory: CommandMemory,

    /// Number of threads of one program that may create Vulkan pipelines at a time: 64 to 65536.
    /// Each one takes a thread of the host.
    #[arg(long, value_name = "N", default_value = "1024", value_parser = within::<u32>(64..=65536), help_heading = heading::GPU)]
    rings: u32,

    /// Memory of the GPU that all programs of the guest may allocate together: 64M to 64T. They see
    /// it as the size of their heaps. One program gets at most seven eighths. Default: what the GPU
    /// has.
    #[arg(long, value_name = "SIZE", help_heading = heading::GPU)]
    gpu_memory: Option<GpuMemory>,
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

    /// The budget of all contexts together.
    pub(crate) fn guest(self) -> GuestBudget {
        GuestBudget {
            device_memory: self.gpu_memory.map(|GpuMemory(size)| size),
            ..GuestBudget::for_contexts(&self.budget())
        }
    }
}

/// Options of `hesper ctl`.
#[derive(Debug, Args)]
pub(crate) struct ControlOptions {
    /// The socket that the running Hesper got as --control.
    #[arg(value_name = "SOCKET")]
    pub(crate) socket: PathBuf,

    /// `screenshot [SCANOUT] FILE.png`, `resize SCANOUT WIDTHxHEIGHT`, `plug SCANOUT`,
    /// `unplug SCANOUT`, `hide`, `show`, `status`, `counters`, `trace start`, `trace stop FILE` or
    /// `quit`.
    #[arg(value_name = "COMMAND", required = true, num_args = 1..)]
    pub(crate) words: Vec<String>,
}

/// Reads the command line. The first argument is the program's name.
///
/// # Errors
/// One line that says which value is wrong and what is allowed.
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Invocation, String> {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if arguments.len() < 2 {
        return Err(format!(
            "a socket is missing: --socket-path=PATH or --fd=N, {EXAMPLE}; `hesper --help` lists what there is"
        ));
    }
    // The convention: all other options are ignored, even wrong ones.
    if arguments
        .iter()
        .any(|argument| argument == "--print-capabilities")
    {
        return Ok(Invocation::PrintCapabilities);
    }
    match Cli::try_parse_from(arguments) {
        Ok(Cli { verb, serve, .. }) => Ok(match verb {
            Some(Verb::Ctl(options)) => Invocation::Control(options),
            Some(Verb::Vtest(options)) => Invocation::Vtest(options),
            Some(Verb::Gpus(options)) => Invocation::Gpus(options),
            Some(Verb::Doctor(options)) => Invocation::Doctor(options),
            Some(Verb::Spawner(options)) => Invocation::Spawner(options),
            Some(Verb::Worker(options)) => Invocation::Worker(options),
            None => {
                serve.check()?;
                Invocation::Serve(Box::new(serve))
            }
        }),
        Err(error) => match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
                Ok(Invocation::Print(error.render().to_string()))
            }
            ErrorKind::MissingRequiredArgument => {
                let text = one_line(&error.render().to_string());
                Err(match text.contains("--socket-path <PATH>|--fd <N>") {
                    true => format!("--socket-path=PATH or --fd=N is missing, {EXAMPLE}"),
                    false => text,
                })
            }
            kind => {
                let mut text = one_line(&error.render().to_string());
                if let Some(similar) = similar(&error) {
                    text.push_str(&format!("; did you mean {similar}?"));
                } else if matches!(
                    kind,
                    ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand
                ) {
                    // Their paragraphs name no remedy.
                    text.push_str("; `hesper --help` lists what there is");
                }
                Err(text)
            }
        },
    }
}

/// The option, value or subcommand that the person may have meant.
fn similar(error: &clap::Error) -> Option<String> {
    let kinds = [
        ContextKind::SuggestedArg,
        ContextKind::SuggestedValue,
        ContextKind::SuggestedSubcommand,
    ];
    kinds.into_iter().find_map(|kind| match error.get(kind)? {
        ContextValue::String(one) => Some(one.clone()),
        ContextValue::Strings(several) => several.first().cloned(),
        _ => None,
    })
}

/// The paragraph of clap's message on one line, as a log needs it. What follows it is the usage.
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
