//! Who is at the other end of a unix socket, and which errors of accepting one will pass.

use std::fmt;
use std::io;
use std::os::unix::net::UnixStream;

/// Who connected, as the system saw it at that moment. Shown as `uid 1000, pid 4242`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    uid: Option<u32>,
    pid: Option<i32>,
}

impl Peer {
    /// The other end of `stream`.
    #[must_use]
    pub fn of(stream: &UnixStream) -> Self {
        crate::platform::peer(stream).map_or(
            Self {
                uid: None,
                pid: None,
            },
            |(uid, pid)| Self {
                uid: Some(uid),
                pid,
            },
        )
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.uid {
            Some(uid) => write!(out, "uid {uid}")?,
            None => write!(out, "unknown user")?,
        }
        match self.pid {
            Some(pid) => write!(out, ", pid {pid}"),
            None => Ok(()),
        }
    }
}

/// Whether accepting failed because the process or the system has no descriptors or memory left.
/// The connection stays in the listener's queue, and the listener stays readable: whoever tries
/// again must wait a moment first.
#[must_use]
pub fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    rustix::io::Errno::from_io_error(error).is_some_and(|error| {
        matches!(
            error,
            Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peer_of_a_pair_is_this_process() {
        let (near, _far) = UnixStream::pair().unwrap();
        let peer = Peer::of(&near).to_string();
        let uid = rustix::process::getuid().as_raw();
        assert_eq!(peer, format!("uid {uid}, pid {}", std::process::id()));
    }

    #[test]
    fn only_a_lack_of_room_will_pass() {
        use rustix::io::Errno;
        assert!(is_exhausted(&Errno::MFILE.into()));
        assert!(!is_exhausted(&Errno::BADF.into()));
        assert!(!is_exhausted(&io::Error::other("text")));
    }
}
