//! Wiring: which device, screen, window and socket make up a running Hesper, and how it ends.
//!
//! The main thread belongs to the windows (window systems demand it), or to the server where there is none.
//! [`State`] is what the threads share: which device serves the VM of the moment, and what its monitors are
//! like. A device lives as long as its connection; monitors and windows outlive it.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use hesper_display::{Display, DisplayError, DisplayEvent, DisplayHandle};
use hesper_vhost::device::{Device, DeviceOptions};
use hesper_vhost::renderer::Renderer;
use hesper_vhost::screen::{Monitor, ScanoutSink};
use hesper_vhost::transport::{
    self, Access, GpuSocketScreen, Server, ShutdownHandle, SocketFile, listen,
};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::cli::{ServeOptions, Size};
use crate::control::{self, Controls};
use crate::counters;
use crate::headless::HeadlessScreen;
use crate::hidden;
use crate::input::Inputs;
use crate::offer::{Offer, Unmet, blob_alignment};
use crate::screen::{Losses, Says, Session, WindowScreen};
use crate::shown::{Shown, display_options};
use crate::signals;
use crate::venus::VenusRenderer;

/// Refresh rate of a monitor in millihertz: what windows are composed at nearly everywhere.
const REFRESH_MHZ: u32 = 60_000;

/// Why Hesper could not run, or stopped.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    /// The command line lets nobody get here.
    #[error("there is no socket to serve; pass --socket-path=PATH or --fd=N")]
    NoSocket,
    /// `--fd` names no descriptor.
    #[error("--fd={fd}: {source}; pass one end of a connected unix socket pair")]
    NoDescriptor { fd: RawFd, source: io::Error },
    /// What was asked for cannot be had.
    #[error(transparent)]
    Unmet(#[from] Unmet),
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
    /// A thread panicked: a bug.
    #[error("the thread that serves the VM panicked; this is a bug in Hesper, please report it")]
    Panicked,
}

/// Serves VMs until the window is closed, a signal or `quit` comes, or the connection given by `--fd` ends.
///
/// # Errors
/// Why it cannot start or go on.
pub(crate) fn serve(options: &ServeOptions) -> Result<(), RunError> {
    let server = open(options)?;
    let inputs =
        Inputs::open(&options.input_sockets).map_err(|(socket, source)| RunError::Input {
            socket: socket.to_string(),
            source,
        })?;
    let mut shown = Shown::choose(options);
    shown.check(options)?;
    let offer = match shown {
        Shown::Qemu => {
            log::info!("GPU: none, QEMU's classic device is 2D (--display=qemu)");
            Offer::default()
        }
        Shown::Window { .. } => Offer::make(options, true)?,
        Shown::Nowhere { .. } => Offer::make(options, false)?,
    };
    let Offer {
        vulkan,
        venus,
        renderers,
    } = offer;
    let state = Arc::new(State::new(
        options,
        shown,
        venus.clone(),
        renderers,
        server.shutdown_handle(),
    ));
    on_signals(&state)?;
    let counted = Arc::clone(&state);
    counters::dump_on_signal(move || counted.counters());
    let shower = Arc::clone(&state);
    hidden::show_on_signal(move || shower.show(true));
    if shown == Shown::Qemu {
        let _control = listen_for_control(options, &state)?;
        log::info!("serving {} for QEMU's console", socket_name(options));
        let mut server = server;
        return Ok(server.serve(&mut || state.session_for_qemu())?);
    }

    let (mut display, handle) = loop {
        let display_options = display_options(options, shown, vulkan.as_ref());
        let state = Arc::clone(&state);
        let events = Box::new(move |event| state.on_display(event));
        match (Display::new(display_options, events), shown) {
            (
                Err(error @ DisplayError::NoDisplayServer { .. }),
                Shown::Window { is_asked: false },
            ) => {
                log::warn!("no window, since there is no desktop after all: {error}");
                shown = Shown::Nowhere { or_qemu: true };
                shown.check(options)?;
            }
            (made, _) => break made?,
        }
    };
    state.shown_on(shown);
    if let Some(sink) = inputs.sink() {
        display.set_input(sink);
    }
    let says = Arc::new(Says::new(handle.clone(), socket_name(options)));
    state.attach(handle.clone());
    if let Some(renderer) = &venus {
        let losses = Losses::new(handle.clone());
        renderer.when_lost(move |name, reason| losses.tell(name, reason));
    }
    let inputs = inputs.serve(&handle).map_err(|source| RunError::System {
        what: "start the thread of an input device",
        source,
    })?;
    let control = listen_for_control(options, &state)?;
    log::info!("serving {}, {shown}", socket_name(options));
    let serving = serve_on_thread(server, &state, handle, says)?;

    let mut served = Ok(Ok(()));
    let ran = display.run_then(|| {
        state.stop.shutdown();
        drop(inputs);
        served = serving.join();
        if let Some(venus) = venus {
            venus.settle();
        }
        // Here, not at the end of this function: some systems' event loops end the process.
        drop(control);
    });
    let served = served.map_err(|_| RunError::Panicked)?;
    ran?;
    Ok(served?)
}

/// The vhost-user socket that the options name.
fn open(options: &ServeOptions) -> Result<Server, RunError> {
    match (&options.socket.socket_path, options.socket.fd) {
        (Some(path), _) => Ok(Server::bind(path)?),
        (None, Some(fd)) => Ok(Server::from_fd(inherited(fd)?)?),
        (None, None) => Err(RunError::NoSocket),
    }
}

/// The same socket, for a person.
fn socket_name(options: &ServeOptions) -> String {
    match (&options.socket.socket_path, options.socket.fd) {
        (Some(path), _) => path.display().to_string(),
        (None, fd) => format!("descriptor {}", fd.unwrap_or_default()),
    }
}

/// Takes over a descriptor that the parent process left open for us.
fn inherited(fd: RawFd) -> Result<OwnedFd, RunError> {
    // SAFETY: the borrow ends before anything of this process could open or close `fd`; asking for the flags of
    // a number that is not open is an error, not a fault.
    let open = rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(fd) });
    open.map_err(|error| RunError::NoDescriptor {
        fd,
        source: error.into(),
    })?;
    // SAFETY: `fd` is open, and nobody else in this process owns it: this runs before the program opens
    // anything that outlives the call, and the command line names it to hand it over.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn on_signals(state: &Arc<State>) -> Result<(), RunError> {
    let state = Arc::clone(state);
    let end = move |signal| {
        let name = signal_hook::low_level::signal_name(signal).unwrap_or("a signal");
        log::info!("ending, as {name} asks");
        state.quit();
    };
    signals::watch("signals", &[SIGTERM, SIGINT], end).map_err(|source| RunError::System {
        what: "handle signals",
        source,
    })
}

/// Serves the control socket, if there is one, as long as the process lives; returns its file.
fn listen_for_control(
    options: &ServeOptions,
    state: &Arc<State>,
) -> Result<Option<SocketFile>, RunError> {
    let Some(path) = &options.control else {
        return Ok(None);
    };
    let (listener, file) = listen(path, Access::Private).map_err(RunError::Control)?;
    control::serve(listener, Arc::clone(state) as Arc<dyn Controls>).map_err(|source| {
        RunError::System {
            what: "start the thread of the control socket",
            source,
        }
    })?;
    Ok(Some(file))
}

fn serve_on_thread(
    mut server: Server,
    state: &Arc<State>,
    display: DisplayHandle,
    says: Arc<Says>,
) -> Result<JoinHandle<Result<(), transport::Error>>, RunError> {
    let state = Arc::clone(state);
    let work = move || {
        // The windows end with the server however it ends, also by a panic.
        let _end = QuitOnDrop(display.clone());
        server.serve(&mut || state.session_for_window(&display, &says))
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

/// What the threads of a running Hesper share.
struct State {
    /// Among the renderers.
    venus: Option<Arc<VenusRenderer>>,
    renderers: Vec<Arc<dyn Renderer>>,
    /// Size in bytes of the window through which the guest maps blobs; 0 without a renderer.
    host_visible_size: u64,
    blob_alignment: u32,
    come_back: String,
    stop: ShutdownHandle,
    inner: Mutex<Inner>,
}

struct Inner {
    monitors: Vec<Monitor>,
    session: Session,
    /// The device of the VM of the moment.
    device: Weak<Device>,
    display: Option<DisplayHandle>,
    shown: Shown,
}

impl State {
    fn new(
        options: &ServeOptions,
        shown: Shown,
        venus: Option<Arc<VenusRenderer>>,
        renderers: Vec<Arc<dyn Renderer>>,
        stop: ShutdownHandle,
    ) -> Self {
        let host_visible_size = if renderers.is_empty() {
            0
        } else {
            options.hostmem.0
        };
        let (width, height) = options.first_mode();
        let monitor = monitor(width, height, (0, 0));
        let inner = Inner {
            monitors: vec![monitor; options.scanouts as usize],
            session: Session::FIRST,
            device: Weak::new(),
            display: None,
            shown,
        };
        Self {
            venus,
            renderers,
            host_visible_size,
            blob_alignment: blob_alignment(options),
            come_back: hidden::come_back(options),
            stop,
            inner: Mutex::new(inner),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attach(&self, display: DisplayHandle) {
        self.lock().display = Some(display);
    }

    fn shown_on(&self, shown: Shown) {
        self.lock().shown = shown;
    }

    fn session_for_window(
        &self,
        display: &DisplayHandle,
        says: &Arc<Says>,
    ) -> transport::GpuBackend {
        let mut inner = self.lock();
        inner.session = inner.session.next();
        let screen = WindowScreen::new(display.clone(), inner.session, Arc::clone(says));
        if inner.shown != (Shown::Nowhere { or_qemu: true }) {
            return self.start(&mut inner, Arc::new(screen), None);
        }
        let console = Arc::new(GpuSocketScreen::new());
        let screen = HeadlessScreen::new(screen, Arc::clone(&console));
        self.start(&mut inner, Arc::new(screen), Some(console))
    }

    fn session_for_qemu(&self) -> transport::GpuBackend {
        let screen = Arc::new(GpuSocketScreen::new());
        let mut inner = self.lock();
        self.start(
            &mut inner,
            Arc::clone(&screen) as Arc<dyn ScanoutSink>,
            Some(screen),
        )
    }

    /// A device for the VM that has just connected.
    fn start(
        &self,
        inner: &mut Inner,
        screen: Arc<dyn ScanoutSink>,
        console: Option<Arc<GpuSocketScreen>>,
    ) -> transport::GpuBackend {
        let host_visible_size = self.host_visible_size;
        let options = DeviceOptions {
            monitors: inner.monitors.clone(),
            host_visible_size,
            blob_alignment: self.blob_alignment,
        };
        let device = Arc::new(Device::new(options, screen, self.renderers.clone()));
        inner.device = Arc::downgrade(&device);
        transport::GpuBackend {
            device,
            host_visible_size,
            console,
        }
    }

    /// Changes a monitor, and tells the guest.
    fn change_monitor(&self, scanout: usize, change: impl FnOnce(&mut Monitor)) {
        let (device, monitor) = {
            let mut inner = self.lock();
            let Some(known) = inner.monitors.get_mut(scanout) else {
                return;
            };
            change(known);
            let monitor = *known;
            (inner.device.upgrade(), monitor)
        };
        if let Some(device) = device {
            // The display has no more scanouts than the device, whose numbers are 32 bits wide.
            device.set_monitor(scanout as u32, monitor);
        }
    }

    fn on_display(&self, event: DisplayEvent) {
        match event {
            DisplayEvent::Settled {
                scanout,
                width,
                height,
                millimetres,
                position,
            } => self.change_monitor(scanout, |known| {
                // On Wayland no window knows its place: they stand in the order of their numbers.
                let (place, _) = position.unwrap_or_default();
                *known = Monitor {
                    place,
                    ..monitor(width, height, millimetres)
                };
            }),
            DisplayEvent::Unplugged { scanout } => {
                log::info!("monitor {scanout} is unplugged");
                self.change_monitor(scanout, |known| known.connected = false);
            }
            DisplayEvent::FlushDone(token) => {
                let device = {
                    let inner = self.lock();
                    inner.session.unmark(token).zip(inner.device.upgrade())
                };
                if let Some((token, device)) = device {
                    device.flush_done(token);
                }
            }
            DisplayEvent::Hidden => {
                log::info!(
                    "the windows are hidden; to show them again: {}",
                    self.come_back
                );
            }
            DisplayEvent::CloseRequested { scanout } => {
                log::info!("the window of scanout {scanout} was closed");
            }
            // The display may learn to tell more than the device can use.
            _ => {}
        }
    }
}

fn monitor(width: u32, height: u32, (width_mm, height_mm): (u32, u32)) -> Monitor {
    Monitor {
        connected: true,
        width,
        height,
        refresh_mhz: REFRESH_MHZ,
        width_mm,
        height_mm,
        place: 0,
    }
}

impl Controls for State {
    fn screenshot(&self, scanout: u32, file: &Path) -> Result<(), String> {
        self.display()?
            .screenshot(scanout as usize, file)
            .map_err(|error| error.to_string())
    }

    fn resize(&self, scanout: u32, size: Size) -> Result<(), String> {
        self.display()?
            .request_resize(scanout as usize, size.width, size.height)
            .map_err(|error| error.to_string())
    }

    fn plug(&self, scanout: u32) -> Result<(), String> {
        self.display()?
            .plug(scanout as usize)
            .map_err(|error| error.to_string())
    }

    fn unplug(&self, scanout: u32) -> Result<(), String> {
        self.display()?
            .unplug(scanout as usize)
            .map_err(|error| error.to_string())
    }

    fn show(&self, shown: bool) -> Result<(), String> {
        let display = self.display()?;
        let done = if shown {
            display.show()
        } else {
            display.hide()
        };
        done.map_err(|error| error.to_string())
    }

    fn status(&self) -> String {
        let inner = self.lock();
        let monitor = |monitor: &Monitor, said: Option<String>| {
            serde_json::json!({
                "says": said,
                "connected": monitor.connected,
                "width": monitor.width,
                "height": monitor.height,
                "width_mm": monitor.width_mm,
                "height_mm": monitor.height_mm,
            })
        };
        let display = inner.display.as_ref();
        let said = |index| display.and_then(|display| display.said(index).ok()?);
        let monitors: Vec<_> = inner
            .monitors
            .iter()
            .enumerate()
            .map(|(index, known)| monitor(known, said(index)))
            .collect();
        let connected = inner.device.strong_count() > 0;
        let hidden = display.is_some_and(DisplayHandle::is_hidden);
        serde_json::json!({"vm_connected": connected, "windows_hidden": hidden, "monitors": monitors}).to_string()
    }

    fn counters(&self) -> String {
        let display = self.lock().display.clone();
        let windows: Vec<_> = display
            .iter()
            .flat_map(|display| (0..display.scanouts()).map_while(|at| display.frames(at).ok()))
            .collect();
        let renderer = self.venus.as_ref().map(|renderer| renderer.counters());
        counters::object(renderer.as_deref(), &windows).to_string()
    }

    fn quit(&self) {
        self.stop.shutdown();
        if let Some(display) = &self.lock().display {
            display.quit();
        }
    }
}

impl State {
    /// The windows, for what only they can do.
    fn display(&self) -> Result<DisplayHandle, String> {
        let inner = self.lock();
        inner.display.clone().ok_or_else(|| match inner.shown {
            Shown::Qemu => "QEMU shows the screen (--display=qemu): ask QEMU".to_owned(),
            _ => "the windows are not open yet".to_owned(),
        })
    }
}
