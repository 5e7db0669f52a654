//! weston, a Wayland compositor, without a monitor or in a window.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::process::{Process, in_environment};
use super::xserver::XServer;

/// A running weston, which draws with the processor.
pub struct Weston {
    pub process: Process,
    folder: TempDir,
}

/// weston's settings: a black and empty desktop.
const SETTINGS: &str = "[shell]\npanel-position=none\nbackground-type=tile\nbackground-color=0xff000000\n\
    startup-animation=none\nclose-animation=none\nanimation=none\n";
/// The name of weston's socket.
const DISPLAY: &str = "wayland-test";
/// Width and height of weston's monitor.
pub const SIZE: [usize; 2] = [640, 480];

impl Weston {
    /// Starts a compositor without a monitor.
    pub fn start() -> Self {
        Self::run(None)
    }

    /// Starts a compositor whose monitor is a window in the upper left corner of an X server. A
    /// test can send input to that window.
    pub fn start_in(screen: &XServer) -> Self {
        Self::run(Some(screen))
    }

    fn run(screen: Option<&XServer>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = folder.path().join("weston.ini");
        fs::write(&settings, SETTINGS).unwrap();
        let mut command = in_environment("weston");
        match screen {
            Some(screen) => command
                .arg("--backend=x11")
                .env("DISPLAY", screen.display()),
            None => command.args(["--backend=headless", "--fake-seat"]),
        };
        command
            .arg(format!("--config={}", settings.display()))
            // Only --debug lets weston-screenshooter connect.
            .args(["--renderer=pixman", "--debug"])
            .args(["--width=640", "--height=480", "--idle-time=0"])
            .arg(format!("--socket={DISPLAY}"))
            .env("XDG_RUNTIME_DIR", folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = Process::new("weston", command.spawn().unwrap());
        let socket = folder.path().join(DISPLAY);
        process.until("socket", || socket.exists());
        Self { process, folder }
    }

    /// The path of the Wayland socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join(DISPLAY)
    }

    /// What the monitor shows: red, green and blue of each pixel.
    pub fn picture(&self) -> Vec<[u8; 3]> {
        let shots = tempfile::tempdir().unwrap();
        let mut shoot = in_environment("weston-screenshooter");
        shoot
            .env("XDG_RUNTIME_DIR", self.folder.path())
            .env("WAYLAND_DISPLAY", DISPLAY)
            .current_dir(shots.path());
        succeeds(&mut shoot);
        let shot = fs::read_dir(shots.path()).unwrap().next().unwrap().unwrap();
        let pixels = shots.path().join("pixels");
        let mut convert = in_environment("convert");
        convert
            .arg(shot.path())
            .args(["-depth", "8"])
            .arg(format!("rgb:{}", pixels.display()));
        succeeds(&mut convert);
        let bytes = fs::read(pixels).unwrap();
        assert_eq!(bytes.len(), SIZE[0] * SIZE[1] * 3);
        bytes
            .chunks_exact(3)
            .map(|pixel| pixel.try_into().unwrap())
            .collect()
    }
}

fn succeeds(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}
