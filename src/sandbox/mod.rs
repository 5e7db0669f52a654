//! Confines the process: what a guest that has taken it over could still do.
//!
//! [`harden`] is for every Hesper that serves guests. [`Sandbox`] is `--sandbox`:
//!
//! ```text
//! let sandbox = Sandbox::start(mode, &needs)?;   // files (Landlock), before the first thread
//! …                                              // drivers, sockets and windows
//! sandbox.seal();                                // system calls (seccomp), before the first guest
//! sandbox.seal_input_thread();                   // the same, stricter, for one thread
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | `places.rs` | which files drivers and windows need |
//! | `platform/linux/calls.rs` | which system calls they need |
//! | `platform/` | how the system enforces both |
//!
//! The difficulty: drivers run in this process, load files late, start threads, and make system
//! calls that nobody lists. So a call that is merely unknown fails as on an older kernel, and only
//! calls that no driver can need end the process. docs/sandbox.md is for users.

mod places;
mod platform;

use clap::ValueEnum;
pub(crate) use places::Needs;
pub(crate) use platform::state;

use places::Role;
use platform::Confinement;

/// The environment variable for the mode when `--sandbox` is not given.
const VARIABLE: &str = "HESPER_SANDBOX";

/// How the process is confined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum SandboxMode {
    /// Forbid what Hesper and drivers do not need.
    #[default]
    On,
    /// Forbid nothing.
    Off,
    /// Forbid nothing, and log what would be forbidden.
    Log,
}

/// Switches off what no Hesper needs: privileges by executed programs, files that others can read,
/// and, unless `core_dumps`, core dumps. Warns when the process has the rights of root.
pub(crate) fn harden(core_dumps: bool) {
    platform::harden(core_dumps);
    if let Some(why) = platform::is_privileged() {
        log::warn!(
            "Hesper {why}: a guest that breaks out of it owns this machine; start it as the user who runs the VM"
        );
    }
}

/// A process that is being confined.
pub(crate) struct Sandbox {
    mode: SandboxMode,
    role: Role,
    confinement: Option<Confinement>,
    /// What this system cannot forbid.
    missing: Vec<String>,
}

impl Sandbox {
    /// Restricts the process to the files that it needs. Call this before the first thread, because
    /// threads that exist stay free. `None` means `HESPER_SANDBOX`, else `on`.
    ///
    /// # Errors
    /// The variable has a wrong value, or a folder for caches cannot be made.
    pub(crate) fn start(mode: Option<SandboxMode>, needs: &Needs) -> Result<Self, String> {
        let is_asked = mode.is_some();
        let mode = match mode {
            Some(mode) => mode,
            None => from_environment()?.unwrap_or_default(),
        };
        let mut sandbox = Self {
            mode,
            role: Role::of(needs),
            confinement: None,
            missing: Vec::new(),
        };
        if mode == SandboxMode::Off {
            return Ok(sandbox);
        }
        if !platform::IS_SUPPORTED {
            if is_asked {
                log::warn!(
                    "--sandbox has no effect on this system: Hesper's sandbox needs Linux (docs/sandbox.md)"
                );
            }
            sandbox.mode = SandboxMode::Off;
            return Ok(sandbox);
        }
        let variable = |name: &str| std::env::var_os(name);
        for (cache, _) in places::caches(&variable).filter(|(_, is_made)| *is_made) {
            // Without the folder, the driver has no cache. That is slower, not wrong.
            if let Err(error) = std::fs::create_dir_all(&cache) {
                log::debug!("no shader cache in {}: {error}", cache.display());
            }
        }
        for folder in &needs.made {
            if let Err(error) = std::fs::create_dir_all(folder) {
                log::debug!("cannot make {}: {error}", folder.display());
            }
        }
        let places = places::places(needs, &variable);
        let display = variable("DISPLAY").unwrap_or_default();
        let confinement = Confinement::start(
            mode == SandboxMode::Log,
            places,
            // Xlib and XCB try the abstract socket of an X server first; CUDA has one, too.
            needs.windows && !display.is_empty() || places::has_nvidia(),
            places::remote_port(&display).filter(|_| needs.windows),
        );
        match confinement {
            Ok((confinement, missing)) => {
                sandbox.confinement = Some(confinement);
                sandbox.missing.extend(missing);
            }
            Err(missing) => sandbox.missing.push(missing),
        }
        Ok(sandbox)
    }

    /// Forbids the system calls that are not needed any more, to all threads of the process.
    pub(crate) fn seal(&mut self) {
        if self.mode == SandboxMode::Off {
            return;
        }
        let confinement = self.confinement.get_or_insert_default();
        if let Err(missing) = confinement.seal(self.role) {
            self.missing.push(missing);
        }
        let what = match self.mode {
            SandboxMode::Log => "what the sandbox would refuse is logged and allowed",
            _ => "the sandbox is on",
        };
        match self.missing.is_empty() {
            true => log::info!("{what}: {}", confinement),
            false => log::warn!(
                "{what}, but this system lacks a part of it: {} (docs/sandbox.md)",
                self.missing.join("; ")
            ),
        }
    }

    /// What [`seal_input_thread`] needs, to pass to the threads.
    pub(crate) fn is_sealed(&self) -> bool {
        self.mode == SandboxMode::On && self.confinement.is_some()
    }
}

/// Forbids the calling thread what serving an input device does not need.
pub(crate) fn seal_input_thread() {
    if let Err(error) = platform::seal_input_thread() {
        log::debug!("the thread of an input device is confined as the process is: {error}");
    }
}

/// The mode that the environment asks for.
fn from_environment() -> Result<Option<SandboxMode>, String> {
    let value = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
    let Some(value) = value else {
        return Ok(None);
    };
    let text = value.to_string_lossy();
    SandboxMode::from_str(&text, false)
        .map(Some)
        .map_err(|_| format!("{VARIABLE}={text:?} is not known; allowed: on, off, log"))
}
