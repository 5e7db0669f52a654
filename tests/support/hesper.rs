//! Starts Hesper and talks to it.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::picture::Picture;
use super::process::{PATIENCE, Process, Usage, comes_true, in_environment};
use super::xserver::XServer;

/// A running Hesper.
pub struct Hesper {
    pub process: Process,
    folder: PathBuf,
    shots: std::cell::Cell<u32>,
}

impl Hesper {
    /// Starts Hesper with sockets in `folder` and waits until it listens.
    pub fn start(folder: &Path, arguments: &[&str], screen: Option<&XServer>) -> Self {
        Self::start_near(folder, arguments, screen, None)
    }

    /// The same with a Wayland compositor's socket.
    pub fn start_near(
        folder: &Path,
        arguments: &[&str],
        screen: Option<&XServer>,
        compositor: Option<&Path>,
    ) -> Self {
        Self::start_in(folder, arguments, screen, compositor, &[])
    }

    /// The same with this many physical pixels per logical one on the X server.
    pub fn start_scaled(
        folder: &Path,
        arguments: &[&str],
        screen: Option<&XServer>,
        compositor: Option<&Path>,
        scale: Option<&str>,
    ) -> Self {
        let scale = scale.map(|scale| ("WINIT_X11_SCALE_FACTOR", scale));
        Self::start_in(folder, arguments, screen, compositor, scale.as_slice())
    }

    /// The same with these additional environment variables.
    pub fn start_in(
        folder: &Path,
        arguments: &[&str],
        screen: Option<&XServer>,
        compositor: Option<&Path>,
        variables: &[(&str, &str)],
    ) -> Self {
        let mut command = in_environment(env!("CARGO_BIN_EXE_hesper"));
        command.arg("--socket-path").arg(folder.join("gpu.sock"));
        command
            .arg("--control")
            .arg(folder.join("control.sock"))
            .args(arguments);
        command
            .env_remove("WAYLAND_DISPLAY")
            .env_remove("DISPLAY")
            .env("XDG_STATE_HOME", folder.join("state"))
            .env("RUST_BACKTRACE", "1")
            .env("RUST_LOG", "info,hesper_display=debug");
        if let Some(screen) = screen {
            command.env("DISPLAY", screen.display());
        }
        if let Some(compositor) = compositor {
            command.env("WAYLAND_DISPLAY", compositor);
        }
        command.envs(variables.iter().copied());
        as_in_a_session(&mut command);
        let child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tests/env/run starts; see tests/env/README.md");
        let mut process = Process::new("hesper", child);
        let (socket, control) = (folder.join("gpu.sock"), folder.join("control.sock"));
        process.until("socket", || socket.exists() && control.exists());
        Self {
            process,
            folder: folder.to_owned(),
            shots: std::cell::Cell::new(0),
        }
    }

    /// What the process holds while it waits for a VM. Call it before the first VM.
    pub fn idle_usage(&self) -> Usage {
        // The sockets are there before the last threads.
        let serves = || {
            self.process
                .threads()
                .iter()
                .any(|name| name == "vhost-user")
        };
        let until = Instant::now() + PATIENCE;
        let mut last = None;
        loop {
            let now = self.process.usage();
            if serves() && last == Some(now) {
                return now;
            }
            assert!(Instant::now() < until, "{}", self.process.errors());
            last = Some(now);
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// Waits until the process holds what it held at the first call, because it closes a control
    /// connection a moment after its answer.
    #[track_caller]
    pub fn holds_the_same(&self, first: &mut Option<Usage>) {
        let until = Instant::now() + PATIENCE;
        let first = *first.get_or_insert_with(|| {
            std::thread::sleep(Duration::from_millis(500));
            self.process.usage()
        });
        while self.process.usage() != first {
            let (now, threads) = (self.process.usage(), self.process.threads());
            assert!(
                Instant::now() < until,
                "{now:?} instead of {first:?}: {threads:?}"
            );
            std::thread::sleep(Duration::from_millis(30));
        }
    }

    /// The vhost-user socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("gpu.sock")
    }

    /// Sends a command to the control socket and returns what it answered after `ok`.
    #[track_caller]
    pub fn control(&self, command: &str) -> String {
        let answer = self.try_control(command);
        let Some(text) = answer.strip_prefix("ok") else {
            panic!("'{command}': {answer}\n{}", self.process.errors())
        };
        text.trim().to_owned()
    }

    /// Sends a command to the control socket and returns the whole answer.
    pub fn try_control(&self, command: &str) -> String {
        let mut answer = String::new();
        self.ask(command).read_line(&mut answer).unwrap();
        answer.trim().to_owned()
    }

    /// Sends a command to the control socket.
    fn ask(&self, command: &str) -> BufReader<UnixStream> {
        let mut stream = UnixStream::connect(self.folder.join("control.sock")).unwrap();
        writeln!(stream, "{command}").unwrap();
        BufReader::new(stream)
    }

    /// Ends the recording of a trace.
    #[track_caller]
    pub fn stop_trace(&self) -> serde_json::Value {
        let mut reader = self.ask("trace stop -");
        let mut answer = String::new();
        reader.read_line(&mut answer).unwrap();
        let size = answer.trim().strip_prefix("ok ").map(str::parse);
        let Some(Ok(size)) = size else {
            panic!("{answer}\n{}", self.process.errors())
        };
        let mut json = vec![0; size];
        reader.read_exact(&mut json).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    /// Takes a screenshot of the window of `scanout`.
    #[track_caller]
    pub fn screenshot(&self, scanout: u32) -> Picture {
        self.try_screenshot(scanout)
            .unwrap_or_else(|answer| panic!("'screenshot': {answer}\n{}", self.process.errors()))
    }

    /// The same, or what Hesper answers: the scanout may show nothing.
    pub fn try_screenshot(&self, scanout: u32) -> Result<Picture, String> {
        let number = self.shots.get();
        self.shots.set(number + 1);
        let file = self.folder.join(format!("shot-{number}.png"));
        let mut reader = self.ask(&format!("screenshot {scanout} -"));
        let mut answer = String::new();
        reader.read_line(&mut answer).unwrap();
        let Some(size) = answer.strip_prefix("ok ") else {
            return Err(answer);
        };
        let mut bytes = vec![0; size.trim().parse().unwrap()];
        reader.read_exact(&mut bytes).unwrap();
        std::fs::write(&file, bytes).unwrap();
        Ok(Picture::read(&file))
    }

    /// Waits until a screenshot of `scanout` equals `expected`, because the guest's drawing takes a
    /// frame or two.
    #[track_caller]
    pub fn await_picture(&self, scanout: u32, expected: &Picture, tolerance: u8) {
        if !comes_true(|| self.screenshot(scanout).is_within(expected, tolerance)) {
            self.screenshot(scanout).assert_equals(expected, tolerance);
        }
    }

    /// Waits until `scanout` shows nothing, because the guest's driver does not wait for the
    /// command.
    #[track_caller]
    pub fn await_nothing(&self, scanout: u32) {
        let mut answer = String::new();
        let nothing = comes_true(|| {
            answer = self.try_control(&format!("screenshot {scanout} /nowhere/x.png"));
            answer.contains("shows nothing")
        });
        assert!(nothing, "scanout {scanout} still shows something: {answer}");
    }
}

/// Gives the child the usual limit on descriptors of a login session.
fn as_in_a_session(command: &mut Command) {
    let limit = || {
        let limit = getrlimit(Resource::Nofile);
        let usual = Rlimit {
            current: Some(1024),
            ..limit
        };
        setrlimit(Resource::Nofile, usual).map_err(io::Error::from)
    };
    // SAFETY: between fork and exec, `limit` only makes two system calls, which take no lock and
    // allocate nothing.
    unsafe { command.pre_exec(limit) };
}
