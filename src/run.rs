//! Wires device, screen, windows and sockets together, runs them and ends them.
//!
//! The main thread runs the windows' event loop, as window systems demand; with `--display=qemu` it
//! runs the server. [`Running`] holds what the threads share.

use std::io;
use std::os::fd::RawFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use hesper_display::{Display, DisplayError, DisplayHandle};
use hesper_vhost::transport::{self, Access, Server, SocketFile, listen};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::cli::ServeOptions;
use crate::cli::capsets::Capset;
use crate::control::{self, Controls};
use crate::counters;
use crate::hidden_windows;
use crate::inherited::inherited;
use crate::input::Inputs;
use crate::isolation::Isolation;
use crate::placement;
use crate::renderers::{self, Renderers, UnmetOption};
use crate::running::Running;
use crate::sandbox::{Needs, Sandbox};
use crate::screen_target::{ScreenTarget, display_options};
use crate::signals;
use crate::venus;
use crate::window_screen::{LostContextNotices, StatusMessages};

/// Why Hesper could not run, or stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// Neither `--socket-path` nor `--fd` is given. The command line's parser refuses that earlier.
    #[error("there is no socket to serve; pass --socket-path=PATH or --fd=N")]
    NoSocket,
    /// `--fd` names no open descriptor.
    #[error("--fd={fd}: {source}; pass one end of a connected unix socket pair")]
    NoDescriptor { fd: RawFd, source: io::Error },
    /// The processes cannot be confined as the options ask.
    #[error("{0}")]
    Confinement(String),
    /// An option cannot be met.
    #[error(transparent)]
    UnmetOption(#[from] UnmetOption),
    /// The control socket cannot be made.
    #[error("--control: {0}")]
    Control(transport::Error),
    /// The socket of an input device cannot be made.
    #[error("--input-socket={socket}: {source}")]
    Input {
        socket: String,
        source: transport::Error,
    },
    /// The system refused a thread or a signal handler.
    #[error("cannot {what}: {source}")]
    System {
        what: &'static str,
        source: io::Error,
    },
    /// The windows failed.
    #[error(transparent)]
    Display(#[from] DisplayError),
    /// The vhost-user socket failed.
    #[error(transparent)]
    Transport(#[from] transport::Error),
    /// A thread panicked, which is a bug.
    #[error("the thread that serves the VM panicked; this is a bug in Hesper, please report it")]
    Panicked,
}

/// Serves VMs until the window is closed, a signal or `quit` arrives, or the connection given by
/// `--fd` ends.
///
/// # Errors
/// Why Hesper cannot start, or stopped.
pub(crate) fn serve(options: &ServeOptions) -> Result<(), RunError> {
    let server = open(options)?;
    let inputs =
        Inputs::open(&options.input_sockets, access(options)).map_err(|(socket, source)| {
            RunError::Input {
                socket: socket.to_string(),
                source,
            }
        })?;
    let mut target = ScreenTarget::choose(options);
    target.check(options)?;
    if options.wants_venus() {
        // The sandbox allows nothing in the home folder.
        hesper_venus::read_cache_key();
    }
    let isolation = match target {
        ScreenTarget::Qemu => Isolation::off(),
        _ => match renderers::venus_options(options)? {
            Some(venus) => {
                Isolation::start(options.confinement, &venus).map_err(RunError::Confinement)?
            }
            None => Isolation::off(),
        },
    };
    let mut sandbox = Sandbox::start(options.confinement.sandbox, &needs(options, target))
        .map_err(RunError::Confinement)?;
    let renderers = match target {
        ScreenTarget::Qemu => {
            log::info!("GPU: none, QEMU's classic device is 2D (--display=qemu)");
            Renderers::default()
        }
        ScreenTarget::Window { .. } => Renderers::make(options, isolation, true)?,
        ScreenTarget::Headless { .. } => Renderers::make(options, isolation, false)?,
    };
    let Renderers {
        vulkan,
        venus,
        renderers,
    } = renderers;
    let state = Arc::new(Running::new(
        options,
        target,
        venus.clone(),
        renderers,
        server.shutdown_handle(),
    ));
    on_signals(&state)?;
    let counted = Arc::clone(&state);
    counters::dump_on_signal(move || counted.counters());
    let shower = Arc::clone(&state);
    hidden_windows::show_on_signal(move || shower.show(true));
    if target == ScreenTarget::Qemu {
        let control = open_control(options)?;
        sandbox.seal();
        let _control = serve_control(control, &state)?;
        log::info!("serving {} for QEMU's console", socket_name(options));
        let mut server = server;
        return Ok(server.serve(&mut || state.session_for_qemu())?);
    }

    let (mut display, handle) = loop {
        let display_options = display_options(options, target, vulkan.as_ref());
        let state = Arc::clone(&state);
        let events = Box::new(move |event| state.on_display(event));
        match (Display::new(display_options, events), target) {
            (
                Err(error @ DisplayError::NoDisplayServer { .. }),
                ScreenTarget::Window { is_asked: false },
            ) => {
                log::warn!("no window, because no display server answers: {error}");
                target = ScreenTarget::Headless { or_qemu: true };
                target.check(options)?;
            }
            (made, _) => break made?,
        }
    };
    state.set_target(target);
    if let Some(sink) = inputs.sink() {
        display.set_input(sink);
    }
    let status = Arc::new(StatusMessages::new(handle.clone(), socket_name(options)));
    state.attach(handle.clone());
    if let Some(renderer) = &venus {
        let losses = LostContextNotices::new(handle.clone());
        renderer.when_lost(move |name, reason| losses.show(name, reason));
    }
    let control = open_control(options)?;
    sandbox.seal();
    let inputs = inputs
        .serve(&handle, sandbox.is_sealed())
        .map_err(|source| RunError::System {
            what: "start the thread of an input device",
            source,
        })?;
    let control = serve_control(control, &state)?;
    log::info!("serving {}, {target}", socket_name(options));
    let serving = serve_on_thread(server, &state, handle, status)?;

    let mut served = Ok(Ok(()));
    let ran = display.run_then(|| {
        state.stop.shutdown();
        drop(inputs);
        served = serving.join();
        if let Some(venus) = venus {
            venus.settle();
        }
        // Dropped here, because some systems' event loops end the process and never return.
        drop(control);
    });
    let served = served.map_err(|_| RunError::Panicked)?;
    ran?;
    Ok(served?)
}

/// Opens the vhost-user socket that the options name.
fn open(options: &ServeOptions) -> Result<Server, RunError> {
    match (&options.socket.socket_path, options.socket.fd) {
        (Some(path), _) => Ok(Server::bind_for(path, access(options))?),
        (None, Some(fd)) => {
            let fd = inherited(fd).map_err(|source| RunError::NoDescriptor { fd, source })?;
            Ok(Server::from_fd(fd)?)
        }
        (None, None) => Err(RunError::NoSocket),
    }
}

/// Who may connect to the VMM's sockets.
fn access(options: &ServeOptions) -> Access {
    Access::Mode(options.socket_mode.0)
}

/// The name of that socket for logs.
fn socket_name(options: &ServeOptions) -> String {
    match (&options.socket.socket_path, options.socket.fd) {
        (Some(path), _) => path.display().to_string(),
        (None, fd) => format!("descriptor {}", fd.unwrap_or_default()),
    }
}

fn on_signals(state: &Arc<Running>) -> Result<(), RunError> {
    let state = Arc::clone(state);
    let end = move |signal| {
        let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
        log::info!("ending on {name}");
        state.quit();
    };
    signals::watch("signals", &[SIGTERM, SIGINT], end).map_err(|source| RunError::System {
        what: "handle signals",
        source,
    })
}

/// Opens the control socket, if there is one.
fn open_control(options: &ServeOptions) -> Result<Option<(UnixListener, SocketFile)>, RunError> {
    let path = options.control.as_ref();
    path.map(|path| listen(path, Access::Private).map_err(RunError::Control))
        .transpose()
}

/// Serves the control socket until the process ends. Returns its file.
fn serve_control(
    control: Option<(UnixListener, SocketFile)>,
    state: &Arc<Running>,
) -> Result<Option<SocketFile>, RunError> {
    let Some((listener, file)) = control else {
        return Ok(None);
    };
    control::serve(listener, Arc::clone(state) as Arc<dyn Controls>).map_err(|source| {
        RunError::System {
            what: "start the thread of the control socket",
            source,
        }
    })?;
    Ok(Some(file))
}

/// The files that these options make necessary.
fn needs(options: &ServeOptions, target: ScreenTarget) -> Needs {
    let windows = matches!(target, ScreenTarget::Window { .. });
    let own = options.socket.socket_path.iter().chain(&options.control);
    let inputs = options.input_sockets.iter().map(|socket| &socket.path);
    let mut written: Vec<PathBuf> = venus::save_streams().into_iter().collect();
    let mut made = Vec::new();
    if windows {
        let positions = placement::file(options);
        made.extend(
            positions
                .as_deref()
                .and_then(Path::parent)
                .map(Path::to_owned),
        );
        made.push(placement::screenshots(options));
        match options.record.as_ref().map(|record| &record.0) {
            // A film has several files when the window's size changes.
            Some(film) if film.extension().is_some() => {
                let film = std::path::absolute(film).unwrap_or_else(|_| film.clone());
                written.extend(film.parent().map(Path::to_owned));
            }
            Some(folder) => made.push(folder.clone()),
            None => {}
        }
    }
    Needs {
        sockets: own.chain(inputs).cloned().collect(),
        written,
        made,
        driver: options.driver.driver.clone(),
        windows,
        cross_domain: options.capsets.has(Capset::CrossDomain),
        is_worker: false,
    }
}

fn serve_on_thread(
    mut server: Server,
    state: &Arc<Running>,
    display: DisplayHandle,
    status: Arc<StatusMessages>,
) -> Result<JoinHandle<Result<(), transport::Error>>, RunError> {
    let state = Arc::clone(state);
    let work = move || {
        // The windows end when the server ends, also by a panic.
        let _end = QuitOnDrop(display.clone());
        server.serve(&mut || state.session_for_window(&display, &status))
    };
    thread::Builder::new()
        .name("vhost-user".to_owned())
        .spawn(work)
        .map_err(|source| RunError::System {
            what: "start the server's thread",
            source,
        })
}

struct QuitOnDrop(DisplayHandle);

impl Drop for QuitOnDrop {
    fn drop(&mut self) {
        self.0.quit();
    }
}
