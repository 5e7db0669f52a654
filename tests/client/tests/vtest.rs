//! Real Mesa over `hesper vtest`: the client prints the same lines natively and through Hesper.
//!
//! ```text
//! tests/env/prepare host
//! cargo build -p hesper && cargo test -p hesper-test-client --test vtest
//! ```
//!
//! Mesa's Venus driver and lavapipe are the environment's; HESPER_BIN names another Hesper than the one that
//! was built beside this test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic"
)]

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// The test client.
const CLIENT: &str = env!("CARGO_BIN_EXE_hesper-test-client");

/// Cases whose outcome Mesa's guest driver decides by itself; it hides what they are about.
const GUEST_ONLY: [&str; 1] = ["memory-budget"];

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn in_environment(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../env/run"));
    command.arg(program).stdin(Stdio::null());
    command
}

fn hesper() -> PathBuf {
    let beside = || Path::new(CLIENT).with_file_name("hesper");
    let path = std::env::var_os("HESPER_BIN").map_or_else(beside, PathBuf::from);
    assert!(
        path.exists(),
        "{} is missing; run cargo build -p hesper",
        path.display()
    );
    path
}

#[track_caller]
fn await_that(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "still not so: {what}");
        sleep(Duration::from_millis(20));
    }
}

/// A process that is killed with its value.
struct Killed(Child);

impl Killed {
    fn wait(&mut self) -> ExitStatus {
        self.0.wait().unwrap()
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `hesper vtest`, with its socket and log in a temporary folder.
struct Server {
    process: Killed,
    folder: TempDir,
}

impl Server {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let child = in_environment(hesper())
            .arg("vtest")
            .arg("--socket-path")
            .arg(folder.path().join("socket"))
            .stderr(File::create(folder.path().join("log")).unwrap())
            .spawn()
            .expect("tests/env/run starts; see tests/env/README.md");
        let server = Self {
            process: Killed(child),
            folder,
        };
        await_that("hesper vtest listens", || server.socket().exists());
        server
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// A program that finds Vulkan through this server only.
    fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = in_environment(program);
        command
            .env("VN_DEBUG", "vtest")
            .env("VTEST_SOCKET_NAME", self.socket())
            .env("VK_DRIVER_FILES", "/usr/share/vulkan/icd.d/virtio_icd.json")
            .stdout(Stdio::null());
        command
    }

    /// The test client with these cases.
    fn client(&self, cases: &[&str]) -> Command {
        let mut command = self.program(CLIENT);
        command.arg("run").args(cases);
        command
    }

    #[track_caller]
    fn assert_calm(&self) {
        let log = self.log();
        assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
    }

    fn count(&self, what: &str) -> usize {
        let folder = format!("/proc/{}/{what}", self.process.0.id());
        fs::read_dir(folder).unwrap().count()
    }

    /// Waits until no thread works for a client; returns the number of open descriptors.
    #[track_caller]
    fn rest(&self, threads: usize) -> usize {
        await_that("the threads of all clients have ended", || {
            self.count("task") <= threads
        });
        self.count("fd")
    }
}

fn lines(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(str::to_owned).collect()
}

#[test]
fn every_case_prints_the_same_natively_and_over_hesper() {
    let native = in_environment(CLIENT)
        .args(["run", "all"])
        .output()
        .unwrap();
    assert!(native.status.success(), "{:#?}", lines(&native));
    let server = Server::start();
    let over = server
        .client(&["all"])
        .stdout(Stdio::piped())
        .output()
        .unwrap();
    assert!(
        over.status.success(),
        "{:#?}\n{}",
        lines(&over),
        server.log()
    );
    let compared = |output: &Output| -> Vec<String> {
        let by_guest = |line: &String| GUEST_ONLY.iter().any(|name| line.contains(name));
        lines(output)
            .into_iter()
            .filter(|line| !by_guest(line))
            .collect()
    };
    assert_eq!(compared(&over), compared(&native));
    server.assert_calm();
}

#[test]
fn many_clients_at_once_and_in_a_row_leave_nothing() {
    let server = Server::start();
    let threads = server.count("task");
    let some = ["submit-64-in-flight", "draw-render-pass", "map-gpu-writes"];
    // The first client makes the driver open what it keeps.
    assert!(
        server.client(&some).status().unwrap().success(),
        "{}",
        server.log()
    );
    let descriptors = server.rest(threads);
    scope(|scope| {
        let client = || server.client(&some).status().unwrap().success();
        let all: Vec<_> = (0..16).map(|_| scope.spawn(client)).collect();
        assert!(
            all.into_iter().all(|one| one.join().unwrap()),
            "{}",
            server.log()
        );
    });
    for _ in 0..30 {
        assert!(
            server.client(&some).status().unwrap().success(),
            "{}",
            server.log()
        );
    }
    assert_eq!(server.rest(threads), descriptors);
    server.assert_calm();
}

#[test]
fn clients_killed_at_any_moment_leave_nothing_and_others_see_nothing() {
    let server = Server::start();
    let threads = server.count("task");
    assert!(
        server.client(&["submit-one"]).status().unwrap().success(),
        "{}",
        server.log()
    );
    let descriptors = server.rest(threads);
    let mut other = Killed(server.client(&["all"]).spawn().unwrap());
    for round in 0..50_u64 {
        let victim = Killed(server.client(&["all"]).spawn().unwrap());
        // Spread over what a client does in its first second, differently in each round.
        sleep(Duration::from_millis(40 + round * 367 % 1000));
        drop(victim);
    }
    assert!(other.wait().success(), "{}", server.log());
    assert_eq!(server.rest(threads), descriptors);
    server.assert_calm();
}

#[test]
fn a_signal_ends_the_server_quickly_and_removes_its_socket() {
    let mut server = Server::start();
    let _client = Killed(
        server
            .client(&["all"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    sleep(Duration::from_millis(600));
    kill_process(Pid::from_child(&server.process.0), Signal::TERM).unwrap();
    let begin = Instant::now();
    let status = server.process.wait();
    assert!(status.success(), "{status:?}\n{}", server.log());
    assert!(
        begin.elapsed() < Duration::from_secs(4),
        "{:?}",
        begin.elapsed()
    );
    assert!(!server.socket().exists());
}

#[test]
fn vkcube_draws_a_turning_cube_on_an_x_server() {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let screen = [
        "-displayfd",
        "1",
        "-nolisten",
        "tcp",
        "-screen",
        "0",
        "640x480x24",
        "-fbdir",
    ];
    let mut x_server = in_environment("Xvfb")
        .args(screen)
        .arg(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map(Killed)
        .unwrap();
    let mut display = String::new();
    let numbers = x_server.0.stdout.take().unwrap();
    BufReader::new(numbers).read_line(&mut display).unwrap();
    assert!(!display.trim().is_empty(), "Xvfb starts");

    // All that the screen shows, behind a header that does not change.
    let picture = || fs::read(folder.path().join("Xvfb_screen0")).unwrap();
    let empty = picture();
    let mut cube = server
        .program("vkcube")
        .args(["--c", "1000", "--wsi", "xcb"])
        .env("DISPLAY", format!(":{}", display.trim()))
        .spawn()
        .map(Killed)
        .unwrap();
    await_that("something is drawn", || picture() != empty);
    let first = picture();
    let changed = |other: &[u8]| {
        first
            .iter()
            .zip(other)
            .filter(|(one, two)| one != two)
            .count()
    };
    // A window that comes up changes a lot once; a cube that turns goes on changing some of it.
    await_that("the picture goes on changing", || {
        changed(&picture()) > 1000
    });
    let turned = picture();
    await_that("the cube goes on turning", || picture() != turned);
    assert!(cube.wait().success(), "{}", server.log());
    server.assert_calm();
}
