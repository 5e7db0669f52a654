//! QEMU's D-Bus display (QEMU's `ui/dbus-display1.xml`), used like a viewer with a resizable
//! window. VNC is no alternative, because QEMU does not show the classic device on it.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::process::{Process, in_environment};

/// A message bus for one QEMU and its viewer.
pub struct Bus {
    _daemon: Process,
    address: String,
}

impl Bus {
    /// Starts a bus with its socket in `folder`.
    pub fn start(folder: &Path) -> Self {
        let socket: PathBuf = folder.join("bus.sock");
        let address = format!("unix:path={}", socket.display());
        let mut command = in_environment("dbus-daemon");
        command
            .args(["--session", "--nofork", "--nopidfile"])
            .arg(format!("--address={address}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut daemon = Process::new("dbus-daemon", command.spawn().unwrap());
        daemon.until("socket", || socket.exists());
        Self {
            _daemon: daemon,
            address,
        }
    }

    /// QEMU's option for a display on this bus.
    pub fn display(&self) -> String {
        format!("dbus,addr={}", self.address)
    }

    /// Tells QEMU the size of the viewer's window for the first console.
    #[track_caller]
    pub fn resize(&self, width: u32, height: u32) {
        let output = in_environment("dbus-send")
            .arg(format!("--bus={}", self.address))
            .args(["--print-reply", "--dest=org.qemu"])
            .args(["/org/qemu/Display1/Console_0"])
            .arg("org.qemu.Display1.Console.SetUIInfo")
            // The window's size in millimetres, where 0 lets QEMU guess, and its position.
            .args(["uint16:0", "uint16:0", "int32:0", "int32:0"])
            .args([format!("uint32:{width}"), format!("uint32:{height}")])
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{width}×{height}: {said}");
    }
}
