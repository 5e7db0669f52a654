//! The root folder with the suites (`tests/env/prepare suites`), and `hesper vtest` in it.
//!
//! Hesper runs in that folder, too. So both ways use the same lavapipe, and only Hesper and Mesa's
//! Venus differ.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

/// How long a server may take to start or to answer on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where Vulkan's loader finds lavapipe, and nothing else.
const LAVAPIPE: (&str, &str) = ("VK_DRIVER_FILES", "/usr/share/vulkan/icd.d/lvp_icd.json");

/// Where Vulkan's loader finds Mesa's Venus, and nothing else.
const VENUS: (&str, &str) = ("VK_DRIVER_FILES", "/usr/share/vulkan/icd.d/virtio_icd.json");

/// Which Vulkan a program of a suite gets.
#[derive(Clone, Copy)]
pub enum Driver<'s> {
    /// lavapipe.
    Native,
    /// Venus over a server, which uses lavapipe.
    Hesper(&'s Server),
}

impl Driver<'_> {
    /// The driver's name in messages and folder names.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Native => "native",
            Self::Hesper(_) => "hesper",
        }
    }

    /// A program in the environment of the suites that finds this driver only.
    pub fn command(self, program: impl AsRef<OsStr>) -> Command {
        let mut command = in_suites(program);
        match self {
            Self::Native => command.env(LAVAPIPE.0, LAVAPIPE.1),
            Self::Hesper(server) => command
                .env(VENUS.0, VENUS.1)
                .env("VN_DEBUG", "vtest")
                .env("VTEST_SOCKET_NAME", server.socket()),
        };
        command
    }
}

/// A program in the environment of the suites.
pub fn in_suites(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../env/run"));
    command.arg("--suites").arg(program).stdin(Stdio::null());
    command
}

/// The path of a program that was built beside the running test, or the path in `variable`.
fn built(name: &str, variable: &str) -> PathBuf {
    let beside = || {
        let test = std::env::current_exe().unwrap();
        // target/debug/deps/test
        test.parent().unwrap().with_file_name(name)
    };
    let path = std::env::var_os(variable).map_or_else(beside, PathBuf::from);
    let hint = "run cargo build --workspace --bins";
    assert!(path.exists(), "{} is missing; {hint}", path.display());
    path
}

/// Hesper's own test client.
#[must_use]
pub fn test_client() -> PathBuf {
    built("hesper-test-client", "HESPER_TEST_CLIENT")
}

/// A process that is killed when its value is dropped.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// `hesper vtest` on lavapipe, with its socket and log in a temporary folder.
pub struct Server {
    process: Killed,
    folder: TempDir,
}

impl Server {
    /// Starts a server with these additional environment variables, and waits until it listens.
    #[must_use]
    pub fn start(variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = File::create(folder.path().join("log")).unwrap();
        let child = in_suites(built("hesper", "HESPER_BIN"))
            .arg("vtest")
            .arg("--socket-path")
            .arg(folder.path().join("socket"))
            .env(LAVAPIPE.0, LAVAPIPE.1)
            .envs(variables.iter().copied())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("tests/env/run starts");
        let server = Self {
            process: Killed(child),
            folder,
        };
        let until = Instant::now() + PATIENCE;
        while !server.socket().exists() {
            assert!(Instant::now() < until, "no server: {}", server.log());
            sleep(Duration::from_millis(20));
        }
        server
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// All that the server and its layers wrote.
    #[must_use]
    pub fn log(&self) -> String {
        let bytes = fs::read(self.folder.path().join("log")).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// How many contexts were lost until now, from the counters that the server prints on SIGUSR1.
    #[must_use]
    pub fn lost(&self) -> u64 {
        let counters = || -> Vec<String> {
            let log = self.log();
            let ends = log.rfind('\n').map_or(0, |at| at + 1);
            let whole = log[..ends].lines().filter(|line| line.starts_with('{'));
            whole.map(str::to_owned).collect()
        };
        let before = counters().len();
        kill_process(Pid::from_child(&self.process.0), Signal::USR1)
            .unwrap_or_else(|_| panic!("the server is gone: {}", self.log()));
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(line) = counters().get(before) {
                let all: Value = serde_json::from_str(line).unwrap();
                return all["lost"].as_u64().expect("a counter of lost contexts");
            }
            assert!(Instant::now() < until, "no counters: {}", self.log());
            sleep(Duration::from_millis(5));
        }
    }

    /// Fails the test if a context was lost, and prints the server's warnings.
    #[track_caller]
    pub fn assert_nothing_lost(&self) {
        let lost = self.lost();
        assert_eq!(
            lost,
            0,
            "contexts were lost; the server's warnings:\n{}",
            complaints(&self.log()).join("\n")
        );
    }
}

/// The warnings and errors of a server's log.
#[must_use]
pub fn complaints(log: &str) -> Vec<&str> {
    let complains = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
    log.lines().filter(complains).collect()
}

/// When a line of a server's log was written, in seconds since 1970.
#[must_use]
pub fn written_at(line: &str) -> Option<f64> {
    let stamp = line.strip_prefix('[')?.get(..24)?;
    let number = |from: usize, to: usize| stamp.get(from..to)?.parse::<f64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    // Days before this year and month. Here a year begins in March, so that a leap day is its last.
    let (years, months) = match month > 2.0 {
        true => (year, month - 3.0),
        false => (year - 1.0, month + 9.0),
    };
    let leaps = (years / 4.0).floor() - (years / 100.0).floor() + (years / 400.0).floor();
    let in_months = ((153.0 * months + 2.0) / 5.0).floor();
    let days = 365.0 * years + leaps + in_months + day - 1.0 - 719_468.0;
    let seconds = number(11, 13)? * 3600.0 + number(14, 16)? * 60.0 + number(17, 23)?;
    Some(days * 86_400.0 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_the_log_tell_their_time() {
        let line = "[2026-11-29T06:42:18.589Z INFO  hesper::vtest] clients are served";
        assert!((written_at(line).unwrap() - 1_795_934_538.589).abs() < 0.001);
        let leap = "[2024-02-29T00:00:00.000Z WARN  hesper] x";
        assert!((written_at(leap).unwrap() - 1_709_164_800.0).abs() < 0.001);
        assert_eq!(written_at("Validation Error: [ VUID"), None);
    }

    #[test]
    fn only_warnings_and_errors_are_complaints() {
        let log = "[t INFO  a] x\n[t WARN  a] y\n{\"lost\":1}\n[t ERROR a] z\n";
        assert_eq!(complaints(log), ["[t WARN  a] y", "[t ERROR a] z"]);
    }
}
