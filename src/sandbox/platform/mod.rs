//! What differs between operating systems: how a process is confined.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(not(target_os = "linux"))]
mod other;

#[cfg(target_os = "linux")]
pub(crate) use linux::{
    Confinement, IS_SUPPORTED, harden, is_privileged, seal_input_thread, state,
};
#[cfg(not(target_os = "linux"))]
pub(crate) use other::{
    Confinement, IS_SUPPORTED, harden, is_privileged, seal_input_thread, state,
};

use rustix::fs::Mode;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit, umask};

/// Files that this process makes are its user's alone.
fn keep_files_private() {
    umask(Mode::RWXG | Mode::RWXO);
}

/// Limits core dumps to `most` bytes.
fn limit_core_dumps(most: u64) {
    let limit = getrlimit(Resource::Core);
    let current = limit.maximum.map_or(most, |maximum| maximum.min(most));
    let limited = Rlimit {
        current: Some(current),
        ..limit
    };
    if let Err(error) = setrlimit(Resource::Core, limited) {
        log::warn!("core dumps stay on: {error}; run ulimit -c 0 before Hesper");
    }
}
