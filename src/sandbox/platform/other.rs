//! Systems without Landlock and seccomp.

use super::super::places::{Place, Role};

/// Whether `--sandbox` can do anything.
pub(crate) const IS_SUPPORTED: bool = false;

/// A confinement that does not exist here.
#[derive(Default)]
pub(crate) struct Confinement(());

impl Confinement {
    /// Is not called, because of [`IS_SUPPORTED`].
    pub(crate) fn start(
        _only_logs: bool,
        _places: Vec<Place>,
        _abstract_sockets: bool,
        _port: Option<u16>,
    ) -> Result<(Self, Vec<String>), String> {
        Err("this system has neither Landlock nor seccomp".to_owned())
    }

    /// Is not called, because of [`IS_SUPPORTED`].
    pub(crate) fn seal(&mut self, _role: Role) -> Result<(), String> {
        Ok(())
    }
}

impl std::fmt::Display for Confinement {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("nothing")
    }
}

/// See [`crate::sandbox::harden`].
pub(crate) fn harden(core_dumps: bool) {
    super::keep_files_private();
    if !core_dumps {
        super::limit_core_dumps(0);
    }
}

/// Why this process may do more than a user's, if it may.
pub(crate) fn is_privileged() -> Option<&'static str> {
    rustix::process::geteuid()
        .is_root()
        .then_some("runs as root")
}

/// Is not called, because of [`IS_SUPPORTED`].
pub(crate) fn seal_input_thread() -> Result<(), String> {
    Ok(())
}

/// What this host can forbid, for `hesper doctor`; an error says what is missing.
pub(crate) fn state() -> Result<String, String> {
    Err("this system has no sandbox for Hesper: neither Landlock nor seccomp".to_owned())
}
