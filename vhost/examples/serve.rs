//! Serves a device without a window, to try the transport by hand:
//!
//! ```text
//! cargo run -p hesper-vhost --example serve -- /tmp/gpu.sock [window-bytes] [qemu]
//! ```
//!
//! With `qemu` as the last word, the guest's screen goes to QEMU's own console (classic device).
//! Set `RUST_LOG=debug` to see the queues start and stop.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use hesper_vhost::device::{Device, DeviceOptions};
use hesper_vhost::screen::{Monitor, NoScreen, ScanoutSink};
use hesper_vhost::transport::{GpuBackend, GpuSocketScreen, Server};

fn backend(host_visible_size: u64, in_qemu: bool) -> GpuBackend {
    let console = in_qemu.then(|| Arc::new(GpuSocketScreen::new()));
    let screen: Arc<dyn ScanoutSink> = match &console {
        Some(console) => console.clone(),
        None => Arc::new(NoScreen),
    };
    let options = DeviceOptions {
        monitors: vec![Monitor {
            connected: true,
            width: 1280,
            height: 800,
            refresh_mhz: 60_000,
            width_mm: 0,
            height_mm: 0,
            place: 0,
        }],
        host_visible_size,
        blob_alignment: 4096,
    };
    GpuBackend {
        device: Arc::new(Device::new(options, screen, Vec::new())),
        host_visible_size,
        console,
    }
}

fn main() -> ExitCode {
    env_logger::init();
    let mut arguments = std::env::args().skip(1);
    let Some(path) = arguments.next().map(PathBuf::from) else {
        eprintln!("usage: serve SOCKET [window-bytes] [qemu]");
        return ExitCode::from(2);
    };
    let rest: Vec<String> = arguments.collect();
    let window = rest.iter().find_map(|word| word.parse().ok()).unwrap_or(0);
    let in_qemu = rest.iter().any(|word| word == "qemu");
    let served =
        Server::bind(&path).and_then(|mut server| server.serve(&mut || backend(window, in_qemu)));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
