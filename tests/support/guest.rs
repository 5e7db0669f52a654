//! A guest in QEMU that runs the test program of `tests/programs/guest`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::mpsc::Receiver;

use super::process::{PATIENCE, Process, environment, lines};
use super::programs::{self, Linked};
use super::qmp::Qmp;

/// A running guest whose test program takes commands.
pub struct Guest {
    process: Process,
    input: ChildStdin,
    output: Receiver<String>,
    qmp: PathBuf,
}

/// Which of QEMU's devices the guest has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// The full device: `vhost-user-test-device-pci`.
    Full,
    /// `vhost-user-gpu-pci`, whose console is QEMU's.
    Classic,
}

impl Guest {
    /// Boots a guest on the Hesper that listens on `socket` and waits for its test program.
    ///
    /// `folder` gets its sockets and logs; `name` tells several guests of one test apart.
    pub fn boot(folder: &Path, name: &str, route: Route, socket: &Path) -> Self {
        Self::boot_with(folder, name, route, socket, &[])
    }

    /// The same with these additional options for `tests/env/guest`.
    pub fn boot_with(
        folder: &Path,
        name: &str,
        route: Route,
        socket: &Path,
        options: &[&str],
    ) -> Self {
        let suite = options.windows(2).find(|pair| pair[0] == "--suite");
        let suite = suite.map_or("forky", |pair| pair[1]);
        let program = programs::for_guest("hesper-test-guest", Linked::Statically, suite);
        let qmp = folder.join(format!("{name}.qmp"));
        let mut command = Command::new(environment("guest"));
        command
            .args(["--timeout", "600", "--socket"])
            .arg(socket)
            .arg("--qmp")
            .arg(&qmp);
        command
            .arg("--console")
            .arg(folder.join(format!("{name}.console")));
        command
            .arg("--file")
            .arg(format!("{}:hesper-test-guest", program.display()));
        if route == Route::Classic {
            command.arg("--classic");
        }
        command.args(options).args(["--", "/job/hesper-test-guest"]);
        Self::over(command, name, qmp)
    }

    /// The guest whose test program `command` talks to.
    pub fn over(mut command: Command, name: &str, qmp: PathBuf) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("tests/env/guest starts; see tests/env/README.md");
        let input = child.stdin.take().unwrap();
        let output = lines(child.stdout.take().unwrap());
        let guest = Self {
            process: Process::new(name, child),
            input,
            output,
            qmp,
        };
        guest.wait_ready();
        guest
    }

    /// Waits for the test program to start: at boot, and again after a reset.
    pub fn wait_ready(&self) {
        while self.line("the boot") != "ready" {}
    }

    /// Runs a command of the test program and returns what it answered after `ok`.
    #[track_caller]
    pub fn run(&mut self, command: &str) -> String {
        writeln!(self.input, "{command}").expect("the guest reads");
        loop {
            let line = self.line(command);
            if let Some(text) = line.strip_prefix("ok") {
                return text.trim().to_owned();
            }
            assert!(
                !line.starts_with("error"),
                "'{command}' in the guest: {line}"
            );
        }
    }

    /// Connects to QEMU's machine protocol (QMP).
    pub fn qmp(&self) -> Qmp {
        Qmp::connect(&self.qmp)
    }

    /// Kills QEMU, as a crash does.
    pub fn kill(mut self) {
        self.process.kill();
    }

    fn line(&self, wait: &str) -> String {
        self.output.recv_timeout(PATIENCE).unwrap_or_else(|error| {
            panic!(
                "the guest is silent ({error}) at: {wait}\n{}",
                self.process.errors()
            )
        })
    }
}
