//! Which operating system's ways Hesper follows, the size of a page, and what differs between
//! systems.
//!
//! Linux has memfds with inodes, eventfds, and pages of 4 KiB on most machines. macOS has POSIX
//! shared memory without inodes, pipes, and pages of 16 KiB. A Hesper on Linux follows macOS when
//! the variable [`VARIABLE`] says so. This is how the tests on Linux cover what a Mac does.
//!
//! The device (`hesper-vhost`) and the renderer (`hesper-venus`) ask here. The program calls
//! [`check`] first, so that an unknown value is an error.

use std::ffi::{OsStr, OsString};
use std::os::unix::net::UnixStream;
use std::sync::OnceLock;

/// The environment variable that makes Hesper follow another system, for tests.
pub const VARIABLE: &str = "HESPER_SYSTEM";

/// A page of Apple silicon, in bytes.
const APPLE_PAGE: u64 = 16 << 10;

/// A system that Hesper follows on another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Played {
    /// POSIX shared memory, pipes, memory without inodes.
    Posix,
    /// The same, and pages of 16 KiB.
    Macos,
}

/// The variable has an unknown value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{VARIABLE}={0:?} is not known; allowed: posix, macos, or leave it out for this system's own ways"
)]
pub struct UnknownSystem(OsString);

impl Played {
    fn named(name: &OsStr) -> Result<Self, UnknownSystem> {
        match name.to_str() {
            Some("posix") => Ok(Self::Posix),
            Some("macos") => Ok(Self::Macos),
            _ => Err(UnknownSystem(name.to_owned())),
        }
    }
}

/// The system that the variable names. The variable is read once.
fn choice() -> &'static Result<Option<Played>, UnknownSystem> {
    static CHOICE: OnceLock<Result<Option<Played>, UnknownSystem>> = OnceLock::new();
    CHOICE.get_or_init(|| {
        // An empty value counts as unset, as usual.
        let value = std::env::var_os(VARIABLE).filter(|value| !value.is_empty());
        value.as_deref().map(Played::named).transpose()
    })
}

/// Checks that the variable is unset or has a known value.
///
/// # Errors
/// [`UnknownSystem`].
pub fn check() -> Result<(), UnknownSystem> {
    choice().clone().map(drop)
}

/// The system that Hesper follows, when it is not this one.
///
/// # Panics
/// When the variable has a value that [`check`] refuses. A test that asks for a system must not run
/// without it.
pub fn played() -> Option<Played> {
    match choice() {
        Ok(played) => *played,
        Err(unknown) => panic!("{unknown}"),
    }
}

/// The host's page size in bytes. Memory that is shared with a guest begins and ends on pages.
pub fn page_size() -> u64 {
    let own = rustix::param::page_size() as u64;
    match played() {
        Some(Played::Macos) => own.max(APPLE_PAGE),
        _ => own,
    }
}

/// User and process at the other end of a unix socket.
#[cfg(target_os = "linux")]
pub(crate) fn peer(stream: &UnixStream) -> Option<(u32, Option<i32>)> {
    let peer = rustix::net::sockopt::socket_peercred(stream).ok()?;
    Some((peer.uid.as_raw(), Some(peer.pid.as_raw_nonzero().get())))
}

/// User and process at the other end of a unix socket.
#[cfg(target_vendor = "apple")]
pub(crate) fn peer(stream: &UnixStream) -> Option<(u32, Option<i32>)> {
    use std::os::fd::AsRawFd;
    let fd = stream.as_raw_fd();
    let (mut uid, mut gid) = (0, 0);
    // SAFETY: the descriptor is open, and both numbers are written by the call.
    if unsafe { libc::getpeereid(fd, &raw mut uid, &raw mut gid) } != 0 {
        return None;
    }
    let mut pid: libc::pid_t = 0;
    let mut size = size_of::<libc::pid_t>() as libc::socklen_t;
    // SAFETY: the call writes one `pid_t`, for which there is room.
    let asked = unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_LOCAL,
            libc::LOCAL_PEERPID,
            (&raw mut pid).cast(),
            &raw mut size,
        )
    };
    Some((uid, (asked == 0).then_some(pid)))
}

/// Not known on other systems.
#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
pub(crate) fn peer(_stream: &UnixStream) -> Option<(u32, Option<i32>)> {
    None
}

/// Leaves this memory, whole pages of a mapping, out of core dumps: it holds a guest's data. Only
/// Linux can do this; elsewhere, and on an error, the memory is dumped.
pub fn keep_out_of_core_dumps(address: usize, bytes: usize) {
    #[cfg(target_os = "linux")]
    {
        let start = std::ptr::without_provenance_mut(address);
        // SAFETY: this advice changes neither the contents nor the access, whatever is mapped
        // there.
        let advised =
            unsafe { rustix::mm::madvise(start, bytes, rustix::mm::Advice::LinuxDontDump) };
        if let Err(error) = advised {
            log::debug!("{bytes} bytes at {address:#x} stay in core dumps: {error}");
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (address, bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_system_that_is_not_known_is_named_with_those_that_are() {
        assert_eq!(Played::named("posix".as_ref()), Ok(Played::Posix));
        assert_eq!(Played::named("macos".as_ref()), Ok(Played::Macos));
        for value in ["", "mac", "MACOS", "linux"] {
            let error = Played::named(value.as_ref()).unwrap_err().to_string();
            assert!(
                error.contains(&format!("HESPER_SYSTEM={value:?}")),
                "{error}"
            );
            assert!(error.contains("posix, macos"), "{error}");
        }
    }
}
