//! Errors of the transport.

use std::io;
use std::path::{Path, PathBuf};

/// Why the transport could not serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process listens on the socket path already.
    #[error("{0}: another process is listening on this socket; choose another path or end it")]
    InUse(PathBuf),
    /// The path names something that must not be replaced.
    #[error("{0}: exists and is not a socket; choose another path or remove it")]
    NotASocket(PathBuf),
    /// The path does not fit into a socket's address.
    #[error(
        "{path}: a socket's path has at most {most} bytes, this one has {length}; choose a shorter one"
    )]
    TooLong {
        /// The socket path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
        /// How many bytes fit.
        most: usize,
    },
    /// The listening socket could not be made.
    #[error("cannot listen on {path}: {source}; check that the folder exists and is writable")]
    Listen {
        /// The socket path.
        path: PathBuf,
        /// What the system answered.
        source: io::Error,
    },
    /// The given descriptor is not a connected unix stream socket.
    #[error(
        "descriptor {fd} is not a connected unix stream socket ({source}); pass one end of a socketpair"
    )]
    BadDescriptor {
        /// Its number.
        fd: i32,
        /// What the system answered.
        source: io::Error,
    },
    /// The size of the host-visible window is not possible.
    #[error(
        "a host-visible window of {0} bytes is not possible; it must be 0 or a power of two of at least one page"
    )]
    WindowSize(u64),
    /// The VMM broke the vhost-user protocol. Ends the connection, not the server.
    #[error("the VMM broke the vhost-user protocol: {0}; the connection is closed")]
    Protocol(String),
    /// The system refused something that every connection needs.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the system answered.
        source: io::Error,
    },
}

impl Error {
    /// For `map_err` on calls that make a listening socket.
    pub(super) fn listening(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Listen { path, source }
    }

    /// For `map_err` on other system calls.
    pub(super) fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}
