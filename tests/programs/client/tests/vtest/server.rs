//! Starts `hesper vtest`, and programs that find Vulkan through it.

#[path = "../../../../support/library.rs"]
mod library;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

pub(crate) use library::built;

/// The path of the test client.
pub(crate) const CLIENT: &str = env!("CARGO_BIN_EXE_hesper-test-client");

/// The time limit of anything on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A warning in the log while all cases run: one case asks for more memory than there is.
pub(crate) const TOO_MUCH: &str = "gets no memory";

/// The suite whose Mesa the environment itself has.
pub(crate) const OWN_SUITE: &str = "forky";

/// The environment variable that leaves only lavapipe.
pub(crate) const LAVAPIPE: (&str, &str) =
    ("VK_DRIVER_FILES", "/usr/share/vulkan/icd.d/lvp_icd.json");

/// The environment variable that leaves only Mesa's Venus.
const VENUS: (&str, &str) = ("VK_DRIVER_FILES", "/usr/share/vulkan/icd.d/virtio_icd.json");

/// The suites whose Mesa is tested. By default it is one; the environment variable
/// `HESPER_SUITES="trixie forky sid"` asks for more.
pub(crate) fn suites() -> Vec<String> {
    let asked = std::env::var("HESPER_SUITES").unwrap_or_else(|_| OWN_SUITE.to_owned());
    asked.split_whitespace().map(str::to_owned).collect()
}

/// How often to repeat something slow: `full`, or the percentage of it in the environment variable
/// `HESPER_ROUNDS`.
pub(crate) fn rounds(full: usize) -> usize {
    let percent = std::env::var("HESPER_ROUNDS").map(|text| text.parse::<usize>());
    match percent {
        Ok(percent) => {
            (full * percent.expect("HESPER_ROUNDS is a number of percent")).div_ceil(100)
        }
        Err(_) => full,
    }
}

fn run_script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../env/run")
}

/// A command that runs `program` in the environment.
pub(crate) fn in_environment(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(run_script());
    command.arg(program).stdin(Stdio::null());
    command
}

/// A command that runs a suite's own program.
fn in_suite(suite: &str, program: &str) -> Command {
    if suite == OWN_SUITE {
        return in_environment(program);
    }
    let mut command = Command::new(run_script());
    command
        .args(["--mesa", suite, program])
        .stdin(Stdio::null());
    command
}

/// The path of the program under test.
pub(crate) fn hesper() -> PathBuf {
    let beside = || Path::new(CLIENT).with_file_name("hesper");
    let path = std::env::var_os("HESPER_BIN").map_or_else(beside, PathBuf::from);
    assert!(
        path.exists(),
        "{} is missing; run cargo build -p hesper",
        path.display()
    );
    path
}

/// Waits until `holds` is true. Fails the test if that takes too long.
#[track_caller]
pub(crate) fn await_that(what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "still not so: {what}");
        sleep(Duration::from_millis(20));
    }
}

/// A process that is killed when the value is dropped.
pub(crate) struct Killed(pub(crate) Child);

impl Killed {
    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.0.wait().unwrap()
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have exited already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What exists for all clients together, by the server's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Alive {
    pub(crate) contexts: u64,
    pub(crate) rings: u64,
    pub(crate) objects: u64,
    pub(crate) shared_bytes: u64,
}

/// `hesper vtest`, with its socket and log in a temporary folder.
pub(crate) struct Server {
    pub(crate) process: Killed,
    folder: TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(&[], &[])
    }

    /// Starts a server with more arguments and environment variables.
    pub(crate) fn with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = in_environment(hesper());
        command
            .arg("vtest")
            .args(arguments)
            .arg("--socket-path")
            .arg(folder.path().join("socket"))
            .envs(variables.iter().copied())
            .stderr(File::create(folder.path().join("log")).unwrap());
        let server = Self {
            process: Killed(
                command
                    .spawn()
                    .expect("tests/env/run starts; see tests/env/README.md"),
            ),
            folder,
        };
        await_that("hesper vtest listens", || server.socket().exists());
        server
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    /// A command that runs a suite's program, which finds Vulkan only through this server.
    pub(crate) fn program_of(&self, suite: &str, program: &str) -> Command {
        self.connected(in_suite(suite, program))
    }

    fn connected(&self, mut command: Command) -> Command {
        command
            .env("VN_DEBUG", "vtest")
            .env("VTEST_SOCKET_NAME", self.socket())
            .env(VENUS.0, VENUS.1)
            .stdout(Stdio::null());
        command
    }

    /// A command that runs `program` in the environment with a suite's Venus, through this server.
    pub(crate) fn with_venus_of(&self, suite: &str, program: &str) -> Command {
        let mut command = self.connected(in_environment(program));
        if suite != OWN_SUITE {
            let library = mesa_root(suite).join(format!(
                "usr/lib/{}-linux-gnu/libvulkan_virtio.so",
                std::env::consts::ARCH
            ));
            assert!(
                library.exists(),
                "{} is missing; run tests/env/prepare mesa:{suite}",
                library.display()
            );
            let manifest = self.folder.path().join(format!("{suite}.json"));
            fs::write(&manifest, driver_manifest(&library)).unwrap();
            command.env(VENUS.0, manifest);
        }
        command
    }

    /// A command that runs the test client with these cases.
    pub(crate) fn client(&self, cases: &[&str]) -> Command {
        let mut command = self.with_venus_of(OWN_SUITE, CLIENT);
        command.arg("run").args(cases);
        command
    }

    #[track_caller]
    pub(crate) fn assert_calm(&self) {
        self.assert_calm_but_for(&[]);
    }

    /// Asserts that the log has no warning but those with one of these texts.
    #[track_caller]
    pub(crate) fn assert_calm_but_for(&self, expected: &[&str]) {
        let log = self.log();
        let is_loud = |line: &&str| line.contains("WARN") || line.contains("ERROR");
        // Tests may run as root, and with HESPER_ISOLATE=off.
        let is_expected = |line: &str| {
            let usual = ["Hesper runs as root", "the guest must be trusted"];
            let mut all = expected.iter().chain(&usual);
            all.any(|text| line.contains(text))
        };
        let loud: Vec<_> = log
            .lines()
            .filter(is_loud)
            .filter(|line| !is_expected(line))
            .collect();
        assert!(loud.is_empty(), "{loud:#?}");
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process.0), signal).unwrap();
    }

    /// Reads all counters, as SIGUSR1 prints them.
    #[track_caller]
    pub(crate) fn counters(&self) -> Value {
        let lines = || -> Vec<String> {
            let log = self.log();
            let ends = log.rfind('\n').map_or(0, |at| at + 1);
            let whole = log[..ends].lines().filter(|line| line.starts_with('{'));
            whole.map(str::to_owned).collect()
        };
        let before = lines().len();
        self.signal(Signal::USR1);
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = lines().get(before) {
                return serde_json::from_str(line).unwrap();
            }
            assert!(Instant::now() < until, "no counters");
            sleep(Duration::from_millis(2));
        }
    }

    /// Reads the counters of what exists.
    #[track_caller]
    pub(crate) fn alive(&self) -> Alive {
        let counters = self.counters();
        let count = |name: &str| counters[name].as_u64().unwrap();
        Alive {
            contexts: count("contexts"),
            rings: count("rings"),
            objects: count("objects"),
            shared_bytes: count("shared_bytes"),
        }
    }

    /// The number of the server's entries in /proc: open descriptors (`fd`) or threads (`task`).
    pub(crate) fn count(&self, what: &str) -> usize {
        let folder = format!("/proc/{}/{what}", self.process.0.id());
        fs::read_dir(folder).unwrap().count()
    }

    /// The processes that the server has started, and those that these have started.
    pub(crate) fn descendants(&self) -> Vec<u32> {
        let folder = fs::read_dir("/proc").unwrap();
        let parents: Vec<(u32, u32)> = folder
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|id| Some((id, parent(id)?)))
            .collect();
        let mut found = vec![self.process.0.id()];
        let mut at = 0;
        while let Some(&one) = found.get(at) {
            let children = parents.iter().filter(|(_, parent)| *parent == one);
            found.extend(children.map(|(id, _)| *id));
            at += 1;
        }
        found.split_off(1)
    }

    /// Waits until the server has nothing left of any client, and no thread for one. Returns the
    /// number of open descriptors.
    #[track_caller]
    pub(crate) fn rest(&self, threads: usize) -> usize {
        await_that("the threads of all clients have ended", || {
            self.count("task") <= threads
        });
        await_that("nothing is left of any client", || {
            self.alive() == Alive::default()
        });
        // A connection's descriptors close a moment after its context has ended.
        let mut descriptors = self.count("fd");
        let mut unchanged = 0;
        while unchanged < 10 {
            sleep(Duration::from_millis(20));
            let now = self.count("fd");
            unchanged = if now == descriptors { unchanged + 1 } else { 0 };
            descriptors = now;
        }
        descriptors
    }
}

/// The parent of a process.
fn parent(id: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name in parentheses can hold anything. The state and the parent come after it.
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// Makes a manifest with which Vulkan's loader finds a driver.
pub(crate) fn driver_manifest(library: &Path) -> String {
    serde_json::json!({
        "file_format_version": "1.0.0",
        "ICD": {"library_path": library, "api_version": "1.4.0"},
    })
    .to_string()
}

/// The root folder of a suite's Mesa.
fn mesa_root(suite: &str) -> PathBuf {
    cache(&format!("mesa-{suite}/root"))
}

/// A part of the prepared environment. tests/env/README.md says where it is.
pub(crate) fn cache(part: &str) -> PathBuf {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = folder("HESPER_CACHE")
        .or_else(|| Some(folder("XDG_CACHE_HOME")?.join("hesper")))
        .or_else(|| Some(folder("HOME")?.join(".cache/hesper")));
    cache.expect("HOME is set").join(part)
}

/// The lines that a program printed.
pub(crate) fn lines(output: &Output) -> Vec<String> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(str::to_owned).collect()
}

/// Runs a program, which must succeed within the time limit. Returns its output.
#[track_caller]
pub(crate) fn succeed(command: &mut Command) -> String {
    let output = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{text}{errors}",
        output.status
    );
    text
}

/// An X server without a monitor. Its picture is a file.
pub(crate) struct XServer {
    _process: Killed,
    display: String,
    folder: TempDir,
}

impl XServer {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut process = in_environment("Xvfb")
            .args(["-displayfd", "1", "-nolisten", "tcp", "-screen", "0"])
            .args(["640x480x24", "-fbdir"])
            .arg(folder.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map(Killed)
            .unwrap();
        let mut number = String::new();
        let numbers = process.0.stdout.take().unwrap();
        BufReader::new(numbers).read_line(&mut number).unwrap();
        assert!(!number.trim().is_empty(), "Xvfb starts");
        Self {
            _process: process,
            display: format!(":{}", number.trim()),
            folder,
        }
    }

    pub(crate) fn display(&self) -> &str {
        &self.display
    }

    /// The screen's picture, after a header that does not change.
    pub(crate) fn picture(&self) -> Vec<u8> {
        fs::read(self.folder.path().join("Xvfb_screen0")).unwrap()
    }
}

/// weston without a monitor. It draws with the CPU.
pub(crate) struct Weston {
    _process: Killed,
    folder: TempDir,
}

/// weston's configuration: a desktop of one colour.
const WESTON: &str = "[shell]\npanel-position=none\nbackground-type=tile\nbackground-color=0xff000000\n\
    startup-animation=none\nclose-animation=none\nanimation=none\n";

impl Weston {
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = folder.path().join("weston.ini");
        fs::write(&settings, WESTON).unwrap();
        let mut command = in_environment("weston");
        command
            .arg(format!("--config={}", settings.display()))
            // `--debug` permits weston-screenshooter.
            .args(["--backend=headless", "--renderer=pixman", "--debug"])
            .args(["--width=640", "--height=480", "--idle-time=0"])
            .arg("--socket=wayland-test")
            .env("XDG_RUNTIME_DIR", folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let weston = Self {
            _process: Killed(command.spawn().unwrap()),
            folder,
        };
        await_that("weston listens", || {
            weston.folder.path().join("wayland-test").exists()
        });
        weston
    }

    /// Makes a command a client of this compositor.
    pub(crate) fn serve<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        command
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .env("WAYLAND_DISPLAY", "wayland-test")
    }

    /// The screen's picture, as red, green and blue.
    pub(crate) fn picture(&self) -> Vec<u8> {
        let shots = tempfile::tempdir().unwrap();
        let mut shoot = in_environment("weston-screenshooter");
        succeed(self.serve(&mut shoot).current_dir(shots.path()));
        let shot = fs::read_dir(shots.path()).unwrap().next().unwrap().unwrap();
        let pixels = shots.path().join("pixels");
        let mut convert = in_environment("convert");
        convert
            .arg(shot.path())
            .args(["-depth", "8"])
            .arg(format!("rgb:{}", pixels.display()));
        succeed(&mut convert);
        fs::read(pixels).unwrap()
    }
}
