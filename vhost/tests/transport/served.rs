//! A server on its own thread, with devices that the tests can inspect.

use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;

use hesper_vhost::device::{Device, DeviceOptions};
use hesper_vhost::renderer::Renderer;
use hesper_vhost::screen::{Monitor, NoScreen, ScanoutSink};
use hesper_vhost::transport::{Error, GpuBackend, GpuSocketScreen, Server, ShutdownHandle};

use hesper_mock_frontend::{PATIENCE, eventually};

/// What every session of a server consists of.
pub(crate) struct Parts {
    pub(crate) screen: Arc<dyn ScanoutSink>,
    pub(crate) renderers: Vec<Arc<dyn Renderer>>,
    pub(crate) window: u64,
    /// Sessions draw on QEMU's console instead of `screen`.
    pub(crate) in_qemu: bool,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            screen: Arc::new(NoScreen),
            renderers: Vec::new(),
            window: 0,
            in_qemu: false,
        }
    }
}

pub(crate) const MONITOR: Monitor = Monitor {
    connected: true,
    width: 1280,
    height: 800,
    refresh_mhz: 60_000,
    width_mm: 0,
    height_mm: 0,
    place: 0,
};

fn session(parts: &Parts) -> GpuBackend {
    let console = parts.in_qemu.then(|| Arc::new(GpuSocketScreen::new()));
    let screen = match &console {
        Some(console) => console.clone(),
        None => parts.screen.clone(),
    };
    let options = DeviceOptions {
        monitors: vec![MONITOR],
        host_visible_size: parts.window,
        blob_alignment: 4096,
    };
    GpuBackend {
        device: Arc::new(Device::new(options, screen, parts.renderers.clone())),
        host_visible_size: parts.window,
        console,
    }
}

/// A running server.
pub(crate) struct Served {
    folder: tempfile::TempDir,
    pub(crate) stop: ShutdownHandle,
    /// The device of each connection.
    pub(crate) devices: Receiver<Weak<Device>>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

impl Served {
    pub(crate) fn new(parts: Parts) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let server = Server::bind(&folder.path().join("gpu.sock")).unwrap();
        Self::run(server, parts, folder)
    }

    pub(crate) fn run(mut server: Server, parts: Parts, folder: tempfile::TempDir) -> Self {
        let stop = server.shutdown_handle();
        let (sender, devices) = channel();
        let thread = std::thread::spawn(move || {
            server.serve(&mut || {
                let session = session(&parts);
                // The test may have dropped the receiver.
                let _ = sender.send(Arc::downgrade(&session.device));
                session
            })
        });
        Self {
            folder,
            stop,
            devices,
            thread: Some(thread),
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("gpu.sock")
    }

    /// The device of the next connection, while it is connected.
    pub(crate) fn device(&self) -> Arc<Device> {
        let device = self.devices.recv_timeout(PATIENCE).unwrap();
        device.upgrade().expect("the connection still stands")
    }

    /// Waits until the server ends by itself.
    pub(crate) fn join(mut self) -> Result<(), Error> {
        let thread = self.thread.take().unwrap();
        eventually("the server ends", || thread.is_finished());
        thread.join().unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop.shutdown();
        // A failed test does not wait: perhaps the shutdown is what it broke.
        if let Some(thread) = self.thread.take()
            && !std::thread::panicking()
        {
            thread.join().unwrap().unwrap();
        }
    }
}
