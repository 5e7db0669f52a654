//! Hesper: Vulkan for virtual machines. The program: command line, wiring, control socket.
//!
//! | module | what it does |
//! |---|---|
//! | [`cli`] | reads the command line |
//! | [`run`], [`running`] | wire socket, device and screen together; what the threads share |
//! | [`input`] | connects the windows' keyboard and pointer to the guest's input devices |
//! | [`renderers`] | chooses the guest's renderers |
//! | [`screen_target`] | chooses where the guest is shown, and the windows' options |
//! | [`window_screen`], [`headless_screen`] | show the scanouts in windows, or without |
//! | [`hidden_windows`] | shows hidden windows again |
//! | [`control`] | the control socket, and `hesper ctl` |
//! | [`contexts`] | the Venus renderer as its front ends use it |
//! | [`isolation`] | contexts in processes of their own: `--isolate` |
//! | [`inherited`] | descriptors from the parent process |
//! | [`venus`] | joins the Venus renderer to the device |
//! | [`rutabaga`] | the renderers of rutabaga_gfx: virgl and cross-domain |
//! | [`vtest`] | the Venus renderer without a VM: `hesper vtest` |
//! | [`driver`] | chooses the Vulkan library |
//! | [`gpus`], [`doctor`] | list the GPUs; check the host, and write a bug report |
//! | [`signals`] | calls handlers on signals |
//! | [`counters`] | prints counters of renderer and windows on SIGUSR1 |
//! | [`placement`] | chooses the file for the windows' positions |
//! | [`panics`] | reports a panic |
//! | [`sandbox`] | confines the process |
//! | [`limits`] | raises the limit on file descriptors |
//! | [`platform`] | what differs between operating systems |

mod cli;
mod contexts;
mod control;
mod counters;
mod doctor;
mod driver;
mod gpus;
mod headless_screen;
mod hidden_windows;
mod inherited;
mod input;
mod isolation;
mod limits;
mod panics;
mod placement;
mod platform;
mod renderers;
mod run;
mod running;
mod rutabaga;
mod sandbox;
mod screen_target;
mod signals;
mod venus;
mod vtest;
mod window_screen;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use cli::{DoctorOptions, Invocation, VtestOptions};
use contexts::Contexts;
use hesper_venus::{GpuSelection, Renderer, RendererOptions, WsiPolicy};
use isolation::Isolation;
use sandbox::{Needs, Sandbox};

/// Exit status of a wrong command line.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    driver::prepare();
    panics::report();
    let command = match cli::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(message) => {
            eprintln!("hesper: {message}");
            return ExitCode::from(USAGE);
        }
    };
    let only_prints = matches!(
        command,
        Invocation::PrintCapabilities | Invocation::Print(_)
    );
    if let (false, Err(error)) = (only_prints, hesper_system::check()) {
        eprintln!("hesper: {error}");
        return ExitCode::from(USAGE);
    }
    let result = match command {
        Invocation::PrintCapabilities => {
            println!("{}", cli::capabilities(gpus::have_all_render_nodes()));
            Ok(())
        }
        Invocation::Print(text) => {
            print!("{text}");
            Ok(())
        }
        Invocation::Control(options) => {
            control::ask(&options.socket, &options.words).map(|answer| {
                print!(
                    "{}",
                    if answer.is_empty() {
                        answer
                    } else {
                        answer + "\n"
                    }
                )
            })
        }
        Invocation::Gpus(options) => driver::choose(options.driver.driver.as_deref())
            .and_then(|driver| match options.json {
                true => gpus::json(&driver),
                false => gpus::list(&driver),
            })
            .map(|text| print!("{text}")),
        Invocation::Doctor(options) => examine(&options),
        Invocation::Spawner(options) => return isolation::spawn_workers(options),
        Invocation::Worker(arguments) => {
            platform::limit_heaps();
            limits::raise_descriptor_limit();
            return isolation::work(&arguments);
        }
        Invocation::Vtest(options) => {
            platform::map_upwards();
            log_to_stderr("info");
            platform::limit_heaps();
            limits::raise_descriptor_limit();
            sandbox::harden(options.confinement.core_dumps);
            serve_vtest(options)
        }
        Invocation::Serve(options) => {
            platform::map_upwards();
            log_to_stderr("info");
            platform::limit_heaps();
            limits::raise_descriptor_limit();
            sandbox::harden(options.confinement.core_dumps);
            run::serve(&options).map_err(|error| error.to_string())
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("hesper: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Sends logs of `level` and above to standard error, unless RUST_LOG sets other levels.
fn log_to_stderr(level: &str) {
    let named = std::env::var("RUST_LOG").is_ok_and(|filter| filter.contains("rutabaga_gfx"));
    let level = env_logger::Env::default().default_filter_or(level);
    let mut builder = env_logger::Builder::from_env(level);
    if !named {
        // This target forwards virglrenderer's log, and guests can make virglrenderer log without
        // limit.
        builder.filter_module("rutabaga_gfx::virgl_renderer", log::LevelFilter::Off);
    }
    builder.format_timestamp_millis().init();
}

fn serve_vtest(options: VtestOptions) -> Result<(), String> {
    // Opened now, because the sandbox allows only few folders later.
    let trace = options
        .trace
        .as_deref()
        .map(TraceOutput::open)
        .transpose()?;
    let needs = Needs {
        sockets: vec![options.socket_path.clone()],
        written: venus::save_streams().into_iter().collect(),
        driver: options.driver.driver.clone(),
        ..Needs::default()
    };
    // The sandbox allows nothing in the home folder.
    hesper_venus::read_cache_key();
    let confinement = options.confinement;
    // What a program gets as a dma-buf is no dma-buf of this machine, so that its display server
    // would refuse it.
    let wsi = match options.wsi {
        WsiPolicy::Auto => WsiPolicy::Software,
        chosen => chosen,
    };
    let renderer_options = RendererOptions {
        driver: driver::choose(options.driver.driver.as_deref())?,
        gpu: options.gpu.map(GpuSelection::from).unwrap_or_default(),
        wsi,
        budget: options.budget.budget(),
        guest: options.budget.guest(),
        trace: contexts::trace_memory(),
        save_streams: venus::save_streams(),
        ..RendererOptions::default()
    };
    let isolation = Isolation::start(confinement, &renderer_options)?;
    let mut sandbox = Sandbox::start(confinement.sandbox, &needs)?;
    let renderer = Renderer::new(renderer_options.clone())
        .map_err(|error| format!("{error}; `hesper doctor` says more"))?;
    renderers::log_gpus(renderer.gpus(), wsi);
    let contexts = isolation.contexts(renderer, &renderer_options)?;
    if trace.is_some() {
        contexts.start_trace().map_err(|error| error.to_string())?;
    }
    let counted = Arc::clone(&contexts);
    counters::dump_on_signal(move || counted.counters().to_json());
    let served = vtest::run(&options.socket_path, Arc::clone(&contexts), || {
        sandbox.seal()
    })
    .map_err(|error| error.to_string());
    contexts.settle();
    // Whatever else has failed, the trace may show why.
    let written = trace.map_or(Ok(()), |trace| trace.write(&*contexts));
    served.and(written)
}

/// The file of `--trace`.
struct TraceOutput<'p> {
    path: &'p Path,
    file: File,
}

impl<'p> TraceOutput<'p> {
    fn open(path: &'p Path) -> Result<Self, String> {
        match File::create(path) {
            Ok(file) => Ok(Self { path, file }),
            Err(error) => Err(format!(
                "--trace={}: {error}; check that the folder exists and is writable",
                path.display()
            )),
        }
    }

    /// Ends the recording and writes it.
    fn write(mut self, contexts: &dyn Contexts) -> Result<(), String> {
        let json = contexts.stop_trace().map_err(|error| error.to_string())?;
        self.file.write_all(&json).map_err(|error| {
            format!(
                "--trace={}: {error}; check that the disk has room",
                self.path.display()
            )
        })
    }
}

fn examine(options: &DoctorOptions) -> Result<(), String> {
    log_to_stderr("warn");
    let driver = driver::choose(options.driver.driver.as_deref())?;
    let qemu = options.qemu.as_deref();
    let (text, checked) = match options.report {
        true => doctor::bug_report::write(&driver, qemu),
        false => {
            let checked = doctor::examine(&driver, qemu);
            let text = match options.json {
                true => checked.json(),
                false => checked.text(options.verbose),
            };
            (text, checked)
        }
    };
    print!("{text}");
    let needed: Vec<&str> = checked.needed().collect();
    match needed.as_slice() {
        [] => Ok(()),
        [one] => Err(format!("this host cannot run a VM with Vulkan yet: {one}")),
        [one, more @ ..] => Err(format!(
            "this host cannot run a VM with Vulkan yet: {one}; and {} more",
            more.len()
        )),
    }
}
