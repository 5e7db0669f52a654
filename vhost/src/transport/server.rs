//! The server: where VMs connect, and how serving ends.

use std::io;
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::event::PollFlags;
use rustix::net::SocketType;

use super::interrupt::{Interrupt, Wait};
use super::model::{Gpu, Model};
use super::{Error, Session, messages};
use crate::input::InputDevice;

/// A vhost-user server, on a listening socket or on one connection.
pub struct Server {
    source: Source,
    stop: Arc<Stop>,
}

enum Source {
    Listening(Listening),
    /// Taken by the first [`Server::serve`].
    Connected(Option<UnixStream>),
}

/// A listening socket and its file.
struct Listening {
    listener: UnixListener,
    _file: SocketFile,
}

/// The file of a listening socket. It is removed when this goes, unless another process has replaced it.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl SocketFile {
    /// Takes care of the file that is at `path` now.
    ///
    /// # Errors
    /// The system's, when it cannot be looked at.
    pub fn new(path: &Path) -> io::Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|now| now == self.identity)
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// Shared by a server, its shutdown handles and the connection being served.
pub(super) struct Stop {
    requested: AtomicBool,
    interrupt: Interrupt,
    /// The connection being served.
    connection: Mutex<Option<UnixStream>>,
}

impl Stop {
    fn new() -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self {
            requested: AtomicBool::new(false),
            interrupt: Interrupt::new().map_err(Error::system("cannot make an event"))?,
            connection: Mutex::default(),
        }))
    }

    pub(super) fn requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }

    fn request(&self) {
        self.requested.store(true, Ordering::Release);
        self.interrupt.raise();
        let connection = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = &*connection {
            // Fails only when the peer has closed it: what is wanted.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Makes `connection` the one that a shutdown ends, or none.
    fn watch(&self, connection: Option<UnixStream>) {
        let mut watched = self
            .connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(connection) = &connection
            && self.requested()
        {
            let _ = connection.shutdown(Shutdown::Both);
        }
        *watched = connection;
    }
}

/// Ends [`Server::serve`] from any thread, as often as one likes.
#[derive(Clone)]
pub struct ShutdownHandle {
    stop: Arc<Stop>,
}

impl ShutdownHandle {
    /// Stops accepting and closes the connection being served; returns at once. The VM's side sees its
    /// backend go away.
    pub fn shutdown(&self) {
        self.stop.request();
    }
}

impl Server {
    /// Listens on `path` (`--socket-path`). A socket file that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::NotASocket`] or [`Error::Listen`].
    pub fn bind(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Listen {
            path: path.to_owned(),
            source,
        };
        let listener = match listen(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                remove_stale(path)?;
                listen(path).map_err(failed)?
            }
            result => result.map_err(failed)?,
        };
        // A client may leave between the readiness and the accept.
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self {
            source: Source::Listening(Listening {
                listener,
                _file: SocketFile::new(path).map_err(failed)?,
            }),
            stop: Stop::new()?,
        })
    }

    /// Serves the connected unix stream socket `fd` (`--fd=N`, libvirt's way).
    ///
    /// # Errors
    /// [`Error::BadDescriptor`] when it is something else.
    pub fn from_fd(fd: OwnedFd) -> Result<Self, Error> {
        let number = fd.as_raw_fd();
        let bad = |source| Error::BadDescriptor { fd: number, source };
        let stream = rustix::net::sockopt::socket_type(&fd)
            .map_err(io::Error::from)
            .and_then(|kind| match kind {
                SocketType::STREAM => Ok(UnixStream::from(fd)),
                other => Err(io::Error::other(format!("socket type {other:?}"))),
            })
            .map_err(bad)?;
        // Both fail on other address families; the second on a socket that is not connected.
        stream
            .local_addr()
            .and_then(|_| stream.peer_addr())
            .map_err(bad)?;
        rustix::io::fcntl_setfd(&stream, rustix::io::FdFlags::CLOEXEC)
            .map_err(|error| bad(error.into()))?;
        stream.set_nonblocking(false).map_err(bad)?;
        Ok(Self {
            source: Source::Connected(Some(stream)),
            stop: Stop::new()?,
        })
    }

    /// A handle that ends [`Self::serve`].
    pub fn shutdown_handle(&self) -> ShutdownHandle {
        ShutdownHandle {
            stop: self.stop.clone(),
        }
    }

    /// Serves one VM after the other, each with a session of its own, until a shutdown is requested; on a
    /// given connection, until its peer hangs up. A VM that connects while another is served waits. A VMM that breaks the protocol loses its connection and
    /// is logged, no more; it ends serving only where there is no next connection.
    ///
    /// # Errors
    /// What makes serving impossible at all, and [`Error::Protocol`] on a given connection.
    pub fn serve(&mut self, session: &mut dyn FnMut() -> Session) -> Result<(), Error> {
        self.serve_models(&mut || Gpu::new(session()))
    }

    /// The same for an input device: `device` makes one, in its reset state, for each VM.
    ///
    /// # Errors
    /// As [`Self::serve`].
    pub fn serve_input(
        &mut self,
        device: &mut dyn FnMut() -> Arc<InputDevice>,
    ) -> Result<(), Error> {
        self.serve_models(&mut || device())
    }

    fn serve_models(&mut self, model: &mut dyn FnMut() -> Arc<dyn Model>) -> Result<(), Error> {
        match &mut self.source {
            Source::Connected(stream) => match stream.take() {
                Some(stream) => serve_one(&self.stop, stream, model),
                None => Ok(()),
            },
            Source::Listening(listening) => loop {
                let Some(stream) = accept(&listening.listener, &self.stop)? else {
                    return Ok(());
                };
                match serve_one(&self.stop, stream, model) {
                    Ok(()) => log::info!("the VM disconnected"),
                    Err(error @ (Error::Protocol(_) | Error::System { .. })) => {
                        log::error!("{error}");
                    }
                    Err(error) => return Err(error),
                }
            },
        }
    }
}

fn serve_one(
    stop: &Stop,
    stream: UnixStream,
    model: &mut dyn FnMut() -> Arc<dyn Model>,
) -> Result<(), Error> {
    let watched = stream
        .try_clone()
        .map_err(Error::system("cannot duplicate the connection"))?;
    stop.watch(Some(watched));
    let result = messages::serve(&stream, model);
    stop.watch(None);
    match result {
        // A shutdown cuts the connection anywhere.
        Err(Error::Protocol(_)) if stop.requested() => Ok(()),
        result => result,
    }
}

/// The next connection, or `None` at a shutdown.
fn accept(listener: &UnixListener, stop: &Stop) -> Result<Option<UnixStream>, Error> {
    let failed = "cannot accept a connection";
    loop {
        if stop.requested() {
            return Ok(None);
        }
        let wait = stop
            .interrupt
            .wait(listener.as_fd(), PollFlags::IN, None)
            .map_err(Error::system(failed))?;
        if wait != Wait::Ready {
            continue;
        }
        match listener.accept() {
            Ok((stream, _)) => {
                stream
                    .set_nonblocking(false)
                    .map_err(Error::system(failed))?;
                log::info!("a VM connected");
                return Ok(Some(stream));
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock
                        | io::ErrorKind::ConnectionAborted
                        | io::ErrorKind::Interrupted
                ) => {}
            Err(source) => {
                return Err(Error::System {
                    what: failed,
                    source,
                });
            }
        }
    }
}

/// Listens on `path`, which is there only once one can connect to it: who waits for the file, as scripts do, would else
/// be refused between `bind` and `listen`.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let mut early = path.as_os_str().to_owned();
    early.push(format!(".{}", std::process::id()));
    let early = Path::new(&early);
    let listener = match UnixListener::bind(early) {
        // The other name is too long for a socket, or is taken: the file comes a moment early.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::AddrInUse
            ) =>
        {
            return UnixListener::bind(path);
        }
        result => result?,
    };
    // Unlike a renaming, this replaces no file.
    let named = match std::fs::hard_link(early, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            Err(io::ErrorKind::AddrInUse.into())
        }
        // Not every file system can.
        Err(_) => UnixListener::bind(path).map(Some),
        Ok(()) => Ok(None),
    };
    std::fs::remove_file(early)?;
    Ok(named?.unwrap_or(listener))
}

/// Removes a socket file that nobody listens on.
fn remove_stale(path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Listen {
        path: path.to_owned(),
        source,
    };
    let metadata = std::fs::symlink_metadata(path).map_err(failed)?;
    if !metadata.file_type().is_socket() {
        return Err(Error::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(failed)
        }
        _ => Err(Error::InUse(path.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn a_stale_socket_file_is_replaced_a_live_one_and_a_file_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gpu.sock");
        drop(UnixListener::bind(&path).unwrap());
        let server = Server::bind(&path).unwrap();
        assert!(matches!(Server::bind(&path), Err(Error::InUse(_))));
        drop(server);
        assert!(!path.exists(), "the server removes its socket file");
        std::fs::write(&path, "precious").unwrap();
        assert!(matches!(Server::bind(&path), Err(Error::NotASocket(_))));
        assert_eq!(std::fs::read(&path).unwrap(), b"precious");
        assert!(matches!(
            Server::bind(&folder.path().join("none/gpu.sock")),
            Err(Error::Listen { .. })
        ));
    }

    #[test]
    fn a_socket_file_is_there_only_when_one_can_connect() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gpu.sock");
        for _ in 0..200 {
            let waits = {
                let path = path.clone();
                std::thread::spawn(move || {
                    while !path.exists() {
                        std::hint::spin_loop();
                    }
                    UnixStream::connect(path)
                })
            };
            let server = Server::bind(&path).unwrap();
            waits.join().unwrap().unwrap();
            drop(server);
        }
        assert_eq!(folder.path().read_dir().unwrap().count(), 0);
        // The longest name that a socket can have has no room for another one beside it.
        let longest = folder
            .path()
            .join("x".repeat(106 - folder.path().as_os_str().len()));
        let server = Server::bind(&longest).unwrap();
        UnixStream::connect(&longest).unwrap();
        drop(server);
    }

    #[test]
    fn a_descriptor_that_is_no_connected_stream_is_refused() {
        let file = tempfile::tempfile().unwrap();
        assert!(matches!(
            Server::from_fd(file.into()),
            Err(Error::BadDescriptor { .. })
        ));
        let datagram = std::os::unix::net::UnixDatagram::unbound().unwrap();
        assert!(Server::from_fd(datagram.into()).is_err());
        let inet = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(Server::from_fd(inet.into()).is_err());
        let folder = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(folder.path().join("s")).unwrap();
        assert!(Server::from_fd(listener.into()).is_err());
    }

    #[test]
    fn who_connects_and_says_nothing_gets_no_session() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gpu.sock");
        let mut server = Server::bind(&path).unwrap();
        let handle = server.shutdown_handle();
        let thread = std::thread::spawn(move || server.serve(&mut || unreachable!()));
        for _ in 0..10 {
            assert!(matches!(Server::bind(&path), Err(Error::InUse(_))));
        }
        let silent = UnixStream::connect(&path).unwrap();
        std::thread::sleep(Duration::from_millis(20));
        handle.shutdown();
        thread.join().unwrap().unwrap();
        drop(silent);
    }

    #[test]
    fn shutdown_ends_accepting_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Server::bind(&folder.path().join("gpu.sock")).unwrap();
        let handle = server.shutdown_handle();
        let thread = std::thread::spawn(move || server.serve(&mut || unreachable!()));
        std::thread::sleep(Duration::from_millis(20));
        let start = Instant::now();
        handle.shutdown();
        thread.join().unwrap().unwrap();
        assert!(start.elapsed() < Duration::from_millis(100));
    }
}
