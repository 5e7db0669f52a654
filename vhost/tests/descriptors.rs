//! What belongs to the whole process: its descriptors and its umask. So this is a process of its
//! own.
#![cfg(target_os = "linux")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends where it fails"
)]

use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hesper_vhost::input::{InputDevice, Kind};
use hesper_vhost::transport::{Access, Server};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

const PATIENCE: Duration = Duration::from_secs(60);

/// One test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Counts the lines of the log.
struct Lines(AtomicUsize);

impl log::Log for Lines {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.level() <= log::Level::Warn {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

static LINES: Lines = Lines(AtomicUsize::new(0));

fn serve(
    path: &Path,
) -> (
    hesper_vhost::transport::ShutdownHandle,
    std::thread::JoinHandle<()>,
) {
    let mut server = Server::bind(path).unwrap();
    let stop = server.shutdown_handle();
    let thread = std::thread::spawn(move || {
        let mut device = || Arc::new(InputDevice::new(Kind::Keyboard, Box::new(|_| ())));
        server.serve_input(&mut device).expect("the server ends");
    });
    (stop, thread)
}

/// `GET_FEATURES` is answered.
fn assert_answers(mut stream: UnixStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(&[1_u32, 1, 0].map(u32::to_le_bytes).concat())
        .unwrap();
    stream.read_exact(&mut [0; 20]).unwrap();
}

#[test]
fn no_descriptors_left_ends_no_server_and_floods_no_log() {
    let _alone = ALONE.lock();
    log::set_logger(&LINES).unwrap();
    log::set_max_level(log::LevelFilter::Warn);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("gpu.sock");
    let (stop, thread) = serve(&path);
    // The server has all that it needs by itself.
    assert_answers(UnixStream::connect(&path).unwrap());
    let waiting: Vec<_> = (0..3)
        .map(|_| UnixStream::connect(&path).unwrap())
        .collect();
    std::thread::sleep(Duration::from_millis(200));
    let vm = UnixStream::connect(&path);
    let before = getrlimit(Resource::Nofile);
    let next_free = rustix::io::dup(&waiting[0]).unwrap().as_raw_fd() as u64;
    let limit = Rlimit {
        current: Some(next_free),
        ..before
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    drop(vm);
    // Takes the descriptor that was just freed: none is left.
    let vm = UnixStream::connect(&path).unwrap();
    let until = Instant::now() + PATIENCE;
    while LINES.0.load(Ordering::Relaxed) == 0 {
        assert!(Instant::now() < until, "the server had descriptors left");
        std::thread::yield_now();
    }
    assert!(!thread.is_finished(), "the server has ended");
    // Without a pause between the attempts, these would be thousands of lines.
    std::thread::sleep(Duration::from_millis(500));
    assert!(LINES.0.load(Ordering::Relaxed) <= 20);
    setrlimit(Resource::Nofile, before).unwrap();
    assert_answers(vm);
    drop(waiting);
    stop.shutdown();
    thread.join().unwrap();
}

#[test]
fn sockets_are_their_owners_alone_whatever_the_umask() {
    let _alone = ALONE.lock();
    let folder = tempfile::tempdir().unwrap();
    let mode = |name: &str| {
        let metadata = std::fs::metadata(folder.path().join(name)).unwrap();
        metadata.permissions().mode() & 0o777
    };
    let before = rustix::process::umask(rustix::fs::Mode::empty());
    let _server = Server::bind(&folder.path().join("open")).unwrap();
    let after = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    assert!(after.is_empty(), "the umask stays as it was");
    let shared = Access::Mode(0o660);
    let _shared = Server::bind_for(&folder.path().join("shared"), shared).unwrap();
    rustix::process::umask(before);
    assert_eq!(mode("open"), 0o600);
    assert_eq!(mode("shared"), 0o660);
}
