//! Linux: Landlock for files, seccomp for system calls.

mod calls;
mod filter;
mod landlock;
mod refusal;
mod watch;

use super::super::places::{Place, Role};

/// Whether `--sandbox` can do anything.
pub(crate) const IS_SUPPORTED: bool = true;

/// The largest core dump that the kernel neither writes nor pipes to a program (`core(5)`: a limit
/// of 0 does not stop a pipe, as systemd-coredump's is).
const NO_CORE_DUMP: u64 = 1;

/// The capability that is nearly root.
const CAP_SYS_ADMIN: u64 = 1 << 21;

/// What of the process is confined.
#[derive(Default)]
pub(crate) struct Confinement {
    /// Landlock's version, once it restricts the process.
    version: Option<i32>,
    /// Keeps rules alive, see [`landlock::restrict`].
    _kept: Vec<::landlock::PathFd>,
    /// The places, when nothing is refused but logged.
    watched: Option<Vec<Place>>,
    is_sealed: bool,
}

impl Confinement {
    /// Restricts the files of the calling thread and of those that it starts. Returns what the
    /// kernel is too old to forbid.
    ///
    /// # Errors
    /// Why no files are restricted.
    pub(crate) fn start(
        only_logs: bool,
        places: Vec<Place>,
        abstract_sockets: bool,
        port: Option<u16>,
    ) -> Result<(Self, Vec<String>), String> {
        if only_logs {
            let watched = Some(places);
            return Ok((
                Self {
                    watched,
                    ..Self::default()
                },
                Vec::new(),
            ));
        }
        let version = landlock::version()?;
        let scopes = landlock::Scopes {
            abstract_sockets,
            port,
        };
        let kept = landlock::restrict(&places, &scopes)
            .map_err(|error| format!("Landlock refused the rules: {error}"))?;
        let confinement = Self {
            version: Some(version),
            _kept: kept,
            ..Self::default()
        };
        let missing = landlock::missing(version);
        let missing = missing
            .iter()
            .map(|what| format!("Landlock {version} does not restrict {what}"));
        Ok((confinement, missing.collect()))
    }

    /// Restricts the system calls of all threads, or watches them.
    ///
    /// # Errors
    /// Why none are restricted.
    pub(crate) fn seal(&mut self, role: Role) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Display| format!("seccomp: {error}");
        match self.watched.take() {
            Some(places) => watch::start(role, places).map_err(|error| failed(&error))?,
            None => {
                refusal::handle().map_err(|error| failed(&error))?;
                filter::confine_process(role).map_err(|error| failed(&error))?;
            }
        }
        self.is_sealed = true;
        Ok(())
    }
}

impl std::fmt::Display for Confinement {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.version {
            Some(version) => write!(out, "files (Landlock {version}), system calls (seccomp)"),
            None => out.write_str("system calls and files"),
        }
    }
}

/// See [`crate::sandbox::harden`].
pub(crate) fn harden(core_dumps: bool) {
    super::keep_files_private();
    if !core_dumps {
        super::limit_core_dumps(NO_CORE_DUMP);
    }
    make_nvidia_nodes();
    // SAFETY: this takes numbers, and affects programs that are executed later.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } != 0 {
        log::warn!(
            "the kernel refused no_new_privs: {}",
            std::io::Error::last_os_error()
        );
    }
}

/// Lets NVIDIA's driver make its device nodes, if it has to: its library executes a setuid program
/// for this, which works only before `no_new_privs`. Usually the nodes are there since the boot.
fn make_nvidia_nodes() {
    use std::path::Path;
    use std::process::{Command, Stdio};

    let exists = |path: &&str| Path::new(path).exists();
    let has_helper = ["/usr/bin/nvidia-modprobe", "/bin/nvidia-modprobe"]
        .iter()
        .any(exists);
    if !has_helper || ["/dev/nvidiactl", "/dev/nvidia-modeset"].iter().all(exists) {
        return;
    }
    let Ok(program) = std::env::current_exe() else {
        return;
    };
    let listed = Command::new(program)
        .arg("gpus")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    log::debug!("NVIDIA's device nodes are missing; loading the driver once: {listed:?}");
}

/// Why this process may do more than a user's, if it may.
pub(crate) fn is_privileged() -> Option<&'static str> {
    if rustix::process::geteuid().is_root() {
        return Some("runs as root");
    }
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))?;
    let capabilities = u64::from_str_radix(line.trim(), 16).ok()?;
    (capabilities & CAP_SYS_ADMIN != 0).then_some("has the capability CAP_SYS_ADMIN")
}

/// Restricts the system calls of the calling thread to those of an input device.
///
/// # Errors
/// The kernel refused the filters.
pub(crate) fn seal_input_thread() -> Result<(), String> {
    filter::confine_thread(filter::Kind::Input).map_err(|error| error.to_string())
}

/// What this host can forbid, for `hesper doctor`; an error says what is missing.
pub(crate) fn state() -> Result<String, String> {
    let mut missing: Vec<String> = Vec::new();
    let version = landlock::version();
    match version {
        Ok(version) => missing.extend(
            landlock::missing(version)
                .iter()
                .map(|what| format!("Landlock {version} does not restrict {what}")),
        ),
        Err(why) => missing.push(why.to_owned()),
    }
    if !filter::is_available() {
        missing.push("the kernel has no seccomp filters".to_owned());
    }
    match (version, missing.is_empty()) {
        (Ok(version), true) => Ok(format!(
            "the sandbox works: Landlock {version} and seccomp (--sandbox=on)"
        )),
        _ => Err(missing.join("; ")),
    }
}
