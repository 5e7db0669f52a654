//! Wiring: which device, screen, window and socket make up a running Hesper, and how it ends.
//!
//! The main thread belongs to the windows (window systems demand it), or to the server where there is none.
//! [`State`] is what the threads share: which device serves the VM of the moment, and what its monitors are
//! like. A device lives as long as its connection; monitors and windows outlive it.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use hesper_display::{
    Display, DisplayError, DisplayEvent, DisplayHandle, DisplayOptions, KeyboardOptions,
    VulkanEntry,
};
use hesper_venus::host::Vulkan;
use hesper_venus::memory::page_size;
use hesper_venus::{Driver, GpuSelection, RendererOptions};
use hesper_vhost::device::{Device, DeviceOptions};
use hesper_vhost::renderer::Renderer;
use hesper_vhost::screen::{Monitor, ScanoutSink};
use hesper_vhost::transport::{self, GpuSocketScreen, Server, ShutdownHandle, SocketFile};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::capsets::Capset;
use crate::cli::{BlobAlignment, DisplayMode, ServeOptions, Size, Switch};
use crate::control::{self, Controls};
use crate::counters;
use crate::driver;
use crate::hidden;
use crate::input::Inputs;
use crate::places;
use crate::rutabaga;
use crate::screen::{Losses, Says, Session, WindowScreen};
use crate::socket;
use crate::venus::{self, VenusRenderer};

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
    /// The Vulkan library cannot be told from what was said.
    #[error("{0}")]
    Driver(String),
    /// The control socket cannot be made.
    #[error("--control={path}: {source}")]
    Control { path: PathBuf, source: io::Error },
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
    let vulkan = match wants_vulkan(options) {
        true => driver::open(options.driver.driver.as_deref()).map_err(RunError::Driver)?,
        false => None,
    };
    let (venus, renderers) = renderers(options, vulkan.as_ref());
    let state = Arc::new(State::new(
        options,
        venus.clone(),
        renderers,
        server.shutdown_handle(),
    ));
    on_signals(&state)?;
    let counted = Arc::clone(&state);
    counters::dump_on_signal(move || counted.counters());
    let hidden_state = Arc::clone(&state);
    hidden::show_on_signal(move || hidden_state.show(true));
    if options.display == DisplayMode::Qemu {
        let _control = listen_for_control(options, &state)?;
        let mut server = server;
        return Ok(server.serve(&mut || state.session_for_qemu())?);
    }

    let display_options = DisplayOptions {
        scanouts: options.scanouts as usize,
        size: options.first_mode(),
        size_asked: options.size.is_some(),
        title: options.name.clone().unwrap_or_else(|| "Hesper".to_owned()),
        places: places::file(options),
        headless: options.display == DisplayMode::Headless,
        resize: options.resize.into(),
        scaling: options.scaling.into(),
        full_screen: options.full_screen,
        on_close: options.on_close.into(),
        come_back: hidden::come_back(options),
        keyboard: KeyboardOptions {
            grab_mod: options.grab_mod.into(),
            cmd_key: options.cmd_key.into(),
        },
        vsync: options.vsync == Switch::On,
        overlay: options.overlay,
        screenshots: options.screenshots.clone(),
        record: options.record.clone(),
        vulkan: vulkan.map(|vulkan| VulkanEntry(vulkan.entry().clone())),
        ..DisplayOptions::default()
    };
    let events = {
        let state = Arc::clone(&state);
        Box::new(move |event| state.on_display(event))
    };
    let (mut display, handle) = Display::new(display_options, events)?;
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
    let serving = serve_on_thread(server, &state, handle, says)?;

    let mut served = Ok(Ok(()));
    let shown = display.run_then(|| {
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
    shown?;
    Ok(served?)
}

/// Whether anything here needs Vulkan: a window, or a guest's 3D.
fn wants_vulkan(options: &ServeOptions) -> bool {
    match options.display {
        DisplayMode::Window => true,
        DisplayMode::Headless => options.hostmem.0 != 0,
        DisplayMode::Qemu => false,
    }
}

/// The renderers of all capability sets that are wanted and work, and Venus among them: the guest is told the truth.
fn renderers(
    options: &ServeOptions,
    vulkan: Option<&Vulkan>,
) -> (Option<Arc<VenusRenderer>>, Vec<Arc<dyn Renderer>>) {
    if options.display == DisplayMode::Qemu {
        log::info!("no 3D: QEMU's classic device cannot map a GPU's memory into the guest");
        return (None, Vec::new());
    }
    if options.hostmem.0 == 0 {
        log::info!("no 3D: --hostmem=0");
        return (None, Vec::new());
    }
    let wants = |capset| options.offer.has(capset);
    let venus = vulkan
        .filter(|_| wants(Capset::Venus))
        .and_then(|vulkan| venus(options, vulkan.driver()));
    let mut renderers: Vec<_> = venus
        .iter()
        .map(|venus| Arc::clone(venus) as Arc<dyn Renderer>)
        .collect();
    if wants(Capset::Virgl) {
        match rutabaga::virgl() {
            Ok(renderer) => renderers.push(renderer),
            Err(missing) => log::warn!("no virgl for the guest: {missing}"),
        }
    }
    if wants(Capset::CrossDomain) {
        match rutabaga::cross_domain() {
            Ok(renderer) => renderers.push(renderer),
            Err(missing) => log::warn!("no cross-domain for the guest: {missing}"),
        }
    }
    (venus, renderers)
}

/// The renderer for the guest's Vulkan, or none where it cannot work.
fn venus(options: &ServeOptions, driver: &Driver) -> Option<Arc<VenusRenderer>> {
    if let Some(node) = &options.render_node {
        log::warn!(
            "--render-node={} is accepted but does not choose the GPU; use --gpu (`hesper gpus` lists them)",
            node.display()
        );
    }
    let gpu = options
        .gpu
        .clone()
        .map(GpuSelection::from)
        .unwrap_or_default();
    match hesper_venus::Renderer::new(RendererOptions {
        driver: driver.clone(),
        gpu,
        wsi: options.wsi,
        budget: options.budget.budget(),
        blob_alignment: blob_alignment(options).into(),
        window: Some(options.hostmem.0),
        save_streams: venus::save_streams(),
        ..RendererOptions::default()
    }) {
        Ok(renderer) => Some(Arc::new(VenusRenderer::new(Arc::new(renderer)))),
        Err(error) => {
            log::warn!("no 3D for the guest: {error}; `hesper doctor` says more");
            None
        }
    }
}

/// Alignment of blobs that guests are told: what the host can map is whole pages of its own.
fn blob_alignment(options: &ServeOptions) -> u32 {
    // A page is far below 4 GiB.
    let page = page_size() as u32;
    match options.blob_alignment {
        // Not told: a Mesa that does not know of it fails with a kernel that does.
        Some(BlobAlignment(4096)) => 4096,
        Some(BlobAlignment(alignment)) => alignment.max(page),
        None => page,
    }
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
    let system = |source| RunError::System {
        what: "handle signals",
        source,
    };
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(system)?;
    let state = Arc::clone(state);
    let wait = move || {
        for signal in &mut signals {
            log::info!("ending on signal {signal}");
            state.quit();
        }
    };
    thread::Builder::new()
        .name("signals".to_owned())
        .spawn(wait)
        .map_err(system)?;
    Ok(())
}

/// Serves the control socket, if there is one, as long as the process lives; returns its file.
fn listen_for_control(
    options: &ServeOptions,
    state: &Arc<State>,
) -> Result<Option<SocketFile>, RunError> {
    let Some(path) = &options.control else {
        return Ok(None);
    };
    let failed = |source| RunError::Control {
        path: path.clone(),
        source,
    };
    let (listener, file) = socket::bind_private(path).map_err(failed)?;
    control::serve(listener, Arc::clone(state) as Arc<dyn Controls>).map_err(failed)?;
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
    mode: DisplayMode,
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
}

impl State {
    fn new(
        options: &ServeOptions,
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
        };
        Self {
            mode: options.display,
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

    fn session_for_window(&self, display: &DisplayHandle, says: &Arc<Says>) -> transport::Session {
        let mut inner = self.lock();
        inner.session = inner.session.next();
        let screen = WindowScreen::new(display.clone(), inner.session, Arc::clone(says));
        self.start(&mut inner, Arc::new(screen), None)
    }

    fn session_for_qemu(&self) -> transport::Session {
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
    ) -> transport::Session {
        let host_visible_size = self.host_visible_size;
        let options = DeviceOptions {
            monitors: inner.monitors.clone(),
            host_visible_size,
            blob_alignment: self.blob_alignment,
        };
        let device = Arc::new(Device::new(options, screen, self.renderers.clone()));
        inner.device = Arc::downgrade(&device);
        transport::Session {
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
        self.lock().display.clone().ok_or_else(|| match self.mode {
            DisplayMode::Qemu => "QEMU shows the screen (--display=qemu): ask QEMU".to_owned(),
            DisplayMode::Window | DisplayMode::Headless => {
                "the windows are not open yet".to_owned()
            }
        })
    }
}
