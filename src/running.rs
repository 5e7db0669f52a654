//! What the threads of a running Hesper share: the device of the connected VM, and the monitors. A
//! device lives as long as its connection; monitors and windows outlive it.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use hesper_display::{DisplayError, DisplayEvent, DisplayHandle};
use hesper_system::sync::Lock;
use hesper_vhost::device::{Device, DeviceOptions};
use hesper_vhost::renderer::Renderer;
use hesper_vhost::screen::{Monitor, ScanoutSink};
use hesper_vhost::transport::{self, GpuSocketScreen, ShutdownHandle};

use crate::cli::{ServeOptions, Size};
use crate::contexts::TraceError;
use crate::control::Controls;
use crate::counters;
use crate::headless_screen::HeadlessScreen;
use crate::hidden_windows;
use crate::renderers::blob_alignment;
use crate::screen_target::ScreenTarget;
use crate::venus::VenusRenderer;
use crate::window_screen::{DeviceNumber, StatusMessages, WindowScreen};

/// Refresh rate of a monitor in millihertz: that of nearly all compositors.
const REFRESH_MHZ: u32 = 60_000;

/// What the threads of a running Hesper share.
pub(crate) struct Running {
    /// The Venus renderer, which is also in `renderers`.
    venus: Option<Arc<VenusRenderer>>,
    renderers: Vec<Arc<dyn Renderer>>,
    /// Size in bytes of the host-visible window; 0 without a renderer.
    host_visible_size: u64,
    blob_alignment: u32,
    show_hint: String,
    /// Stops the server.
    pub(crate) stop: ShutdownHandle,
    inner: Mutex<Changing>,
}

/// What changes while Hesper runs.
struct Changing {
    monitors: Vec<Monitor>,
    device_number: DeviceNumber,
    /// The device of the connected VM.
    device: Weak<Device>,
    display: Option<DisplayHandle>,
    target: ScreenTarget,
}

impl Running {
    pub(crate) fn new(
        options: &ServeOptions,
        target: ScreenTarget,
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
        let inner = Changing {
            monitors: vec![monitor; options.scanouts as usize],
            device_number: DeviceNumber::FIRST,
            device: Weak::new(),
            display: None,
            target,
        };
        Self {
            venus,
            renderers,
            host_visible_size,
            blob_alignment: blob_alignment(options),
            show_hint: hidden_windows::show_hint(options),
            stop,
            inner: Mutex::new(inner),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Changing> {
        self.inner.locked()
    }

    pub(crate) fn attach(&self, display: DisplayHandle) {
        self.lock().display = Some(display);
    }

    pub(crate) fn set_target(&self, target: ScreenTarget) {
        self.lock().target = target;
    }

    pub(crate) fn session_for_window(
        &self,
        display: &DisplayHandle,
        status: &Arc<StatusMessages>,
    ) -> transport::GpuBackend {
        let mut inner = self.lock();
        inner.device_number = inner.device_number.next();
        let screen = WindowScreen::new(display.clone(), inner.device_number, Arc::clone(status));
        if inner.target != (ScreenTarget::Headless { or_qemu: true }) {
            return self.start(&mut inner, Arc::new(screen), None);
        }
        let console = Arc::new(GpuSocketScreen::new());
        let screen = HeadlessScreen::new(screen, Arc::clone(&console));
        self.start(&mut inner, Arc::new(screen), Some(console))
    }

    pub(crate) fn session_for_qemu(&self) -> transport::GpuBackend {
        let screen = Arc::new(GpuSocketScreen::new());
        let mut inner = self.lock();
        self.start(
            &mut inner,
            Arc::clone(&screen) as Arc<dyn ScanoutSink>,
            Some(screen),
        )
    }

    /// Makes a device for the VM that has just connected.
    fn start(
        &self,
        inner: &mut Changing,
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

    /// Changes a monitor and sends the change to the guest.
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
            // The display has no more scanouts than the device, and the device's numbers are 32
            // bits wide.
            device.set_monitor(scanout as u32, monitor);
        }
    }

    pub(crate) fn on_display(&self, event: DisplayEvent) {
        match event {
            DisplayEvent::MonitorChanged {
                scanout,
                width,
                height,
                millimetres,
                position,
            } => self.change_monitor(scanout, |known| {
                // Wayland does not tell a window its position: there, monitors are ordered by their
                // numbers.
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
                    inner
                        .device_number
                        .unmark(token)
                        .zip(inner.device.upgrade())
                };
                if let Some((token, device)) = device {
                    device.flush_done(token);
                }
            }
            DisplayEvent::Hidden => {
                log::info!(
                    "the windows are hidden; to show them again: {}",
                    self.show_hint
                );
            }
            DisplayEvent::CloseRequested { scanout } => {
                log::info!("the window of scanout {scanout} was closed");
            }
            // Events that only newer displays have do not concern the device.
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

impl Controls for Running {
    fn screenshot(&self, scanout: u32, file: &Path) -> Result<(), String> {
        self.display()?
            .screenshot(scanout as usize, file)
            .map_err(|error| match &error {
                DisplayError::WritePng { .. } => format!(
                    "{error}; the sandbox allows Hesper only few folders, so let `hesper ctl` write the file, or ask for `screenshot {scanout} -` (docs/sandbox.md)"
                ),
                _ => error.to_string(),
            })
    }

    fn screenshot_bytes(&self, scanout: u32) -> Result<Vec<u8>, String> {
        self.display()?
            .screenshot_bytes(scanout as usize)
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
        let said = |index| display.and_then(|display| display.shown_text(index).ok()?);
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
            .flat_map(|display| {
                (0..display.scanouts()).map_while(|at| display.frame_statistics(at).ok())
            })
            .collect();
        let renderer = self.venus.as_ref().map(|renderer| renderer.counters());
        counters::object(renderer.as_deref(), &windows).to_string()
    }

    fn start_trace(&self) -> Result<(), String> {
        let venus = self.venus.as_ref().ok_or(TraceError::NoVulkan);
        venus
            .and_then(|venus| venus.start_trace())
            .map_err(|error| error.to_string())
    }

    fn stop_trace(&self) -> Result<Vec<u8>, String> {
        let venus = self.venus.as_ref().ok_or(TraceError::NoVulkan);
        venus
            .and_then(|venus| venus.stop_trace())
            .map_err(|error| error.to_string())
    }

    fn quit(&self) {
        self.stop.shutdown();
        if let Some(display) = &self.lock().display {
            display.quit();
        }
    }
}

impl Running {
    /// The windows, or why there are none to control.
    fn display(&self) -> Result<DisplayHandle, String> {
        let inner = self.lock();
        inner.display.clone().ok_or_else(|| match inner.target {
            ScreenTarget::Qemu => {
                "QEMU shows the screen (--display=qemu); use QEMU's monitor instead".to_owned()
            }
            _ => "the windows are not open yet".to_owned(),
        })
    }
}
