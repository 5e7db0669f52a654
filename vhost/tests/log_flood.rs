//! A guest can do wrong as often as it likes, and must not fill the host's disk with lines about
//! it. The logger belongs to the process, so this is a process of its own.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends where it fails"
)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use hesper_mock_frontend::{Machine, eventually};
use hesper_vhost::device::{Device, DeviceOptions};
use hesper_vhost::screen::NoScreen;
use hesper_vhost::testing::Request;
use hesper_vhost::transport::{GpuBackend, Server};
use vhost::VhostBackend;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

/// Counts the lines that a user sees.
struct Lines(AtomicUsize);

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.level() <= log::Level::Info {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

static LINES: Lines = Lines(AtomicUsize::new(0));

/// Index of the control queue's available ring.
const AVAILABLE: u64 = 0x4000_2002;
const ROUNDS: usize = 400;

#[test]
fn a_guest_that_does_wrong_all_the_time_writes_few_lines() {
    log::set_logger(&LINES).unwrap();
    log::set_max_level(log::LevelFilter::Info);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gpu.sock");
    let mut server = Server::bind(&path).unwrap();
    let stop = server.shutdown_handle();
    let thread = std::thread::spawn(move || {
        server.serve(&mut || {
            let options = DeviceOptions {
                monitors: Vec::new(),
                host_visible_size: 0,
                blob_alignment: 4096,
            };
            GpuBackend {
                device: Arc::new(Device::new(options, Arc::new(NoScreen), Vec::new())),
                host_visible_size: 0,
                console: None,
            }
        })
    });
    let begin = Instant::now();
    let mut machine = Machine::boot(&path);
    for id in 0..1000 {
        machine.code(&Request::unref(id));
    }
    let error = EventFd::new(EFD_NONBLOCK).unwrap();
    for _ in 0..ROUNDS {
        machine.frontend.set_vring_err(0, &error).unwrap();
        // More chains than the ring has places.
        machine.write(AVAILABLE, &u16::MAX.to_le_bytes());
        machine.kick(0);
        eventually("the queue is broken", || error.read().is_ok());
        machine.reset();
    }
    drop(machine);
    for _ in 0..ROUNDS {
        drop(Machine::boot(&path));
    }
    stop.shutdown();
    thread.join().unwrap().unwrap();
    // Three kinds of lines, each with 20 in 10 seconds.
    let periods = 1 + begin.elapsed().as_secs() / Duration::from_secs(10).as_secs();
    let most = 3 * 20 * (periods as usize + 1);
    let lines = LINES.0.load(Ordering::Relaxed);
    assert!((3..=most).contains(&lines), "{lines} lines, at most {most}");
    assert!(most < ROUNDS, "too slow to tell");
}
