//! The server: it accepts VMs and serves one after the other.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use hesper_system::guest_memory::Owner;
use hesper_system::{LogLimit, Peer};
use log::Level;
use rustix::net::SocketType;

use super::listener::{Access, SocketFile, listen};
use super::model::{Gpu, Model};
use super::pending_connections::PendingConnections;
use super::stop::Stop;
use super::{Error, GpuBackend, messages};
use crate::input::InputDevice;

/// Limits the lines about connections. A client can connect as often as it likes.
static CONNECTIONS: LogLimit = LogLimit::new("hesper_vhost");

/// A vhost-user server on a listening socket or on one connection.
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
    pending: PendingConnections,
    _file: SocketFile,
}

/// Ends [`Server::serve`] from any thread. It may be used more than once.
#[derive(Clone)]
pub struct ShutdownHandle {
    stop: Arc<Stop>,
}

impl ShutdownHandle {
    /// Stops accepting and closes the connection being served. Returns at once. The VMM sees its
    /// backend go away.
    pub fn shutdown(&self) {
        self.stop.request();
    }
}

impl Server {
    /// Listens on `path` (`--socket-path`). Only the owner of the file may connect. A socket file
    /// that nobody listens on any more is replaced.
    ///
    /// # Errors
    /// [`Error::TooLong`], [`Error::InUse`], [`Error::NotASocket`] or [`Error::Listen`].
    pub fn bind(path: &Path) -> Result<Self, Error> {
        Self::bind_for(path, Access::Private)
    }

    /// [`Self::bind`] for whom `access` allows.
    ///
    /// # Errors
    /// As [`Self::bind`].
    pub fn bind_for(path: &Path, access: Access) -> Result<Self, Error> {
        let (listener, file) = listen(path, access)?;
        // A client may leave between the poll and the accept.
        listener
            .set_nonblocking(true)
            .map_err(Error::listening(path))?;
        Ok(Self {
            source: Source::Listening(Listening {
                listener,
                pending: PendingConnections::default(),
                _file: file,
            }),
            stop: Stop::new()?,
        })
    }

    /// Serves the connected unix stream socket `fd` (`--fd=N`, as libvirt does).
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

    /// Serves one VM after the other, each with a backend of its own, until a shutdown is
    /// requested; on a given connection, until its peer hangs up. A VM that connects while another
    /// one is served waits. A client that connects and says nothing keeps no VM out. A VMM that
    /// breaks the protocol loses its connection, with a line in the log. It ends serving only where
    /// there is no next connection.
    ///
    /// # Errors
    /// Errors that make serving impossible, and [`Error::Protocol`] on a given connection.
    pub fn serve(&mut self, backend: &mut dyn FnMut() -> GpuBackend) -> Result<(), Error> {
        self.serve_models(&mut || Gpu::new(backend()))
    }

    /// Like [`Self::serve`] for an input device: `device` makes one, in its reset state, for each
    /// VM.
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
                let next = listening.pending.next(&listening.listener, &self.stop)?;
                let Some(stream) = next else {
                    return Ok(());
                };
                CONNECTIONS.log(
                    Level::Info,
                    format_args!("a VM connected: {}", Peer::of(&stream)),
                );
                match serve_one(&self.stop, stream, model) {
                    Ok(()) => CONNECTIONS.log(Level::Info, format_args!("the VM disconnected")),
                    Err(error @ (Error::Protocol(_) | Error::System { .. })) => {
                        CONNECTIONS.log(Level::Error, format_args!("{error}"));
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
    let owner = Owner::new(&stream).map_err(Error::system("cannot duplicate the connection"))?;
    stop.watch(Some(watched));
    let result = messages::serve(&stream, &owner, model);
    stop.watch(None);
    match result {
        _ if owner.is_broken() => Err(Error::Protocol(
            "the VMM has shrunk memory that it shares, and Hesper used it; its connection is ended"
                .to_owned(),
        )),
        // A shutdown cuts the connection at any point.
        Err(Error::Protocol(_)) if stop.requested() => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::listener::MAX_PATH;
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
        // The longest possible name leaves no room for the temporary one beside it.
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
        // A client that took it for the control socket is told at once.
        let mut other = UnixStream::connect(&path).unwrap();
        std::io::Write::write_all(&mut other, b"status\n").unwrap();
        let mut answer = String::new();
        std::io::Read::read_to_string(&mut other, &mut answer).unwrap();
        assert!(
            answer.starts_with("error ") && answer.contains("--control"),
            "{answer}"
        );
        handle.shutdown();
        thread.join().unwrap().unwrap();
        drop(silent);
    }

    #[test]
    fn who_says_nothing_keeps_no_vm_out() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gpu.sock");
        let mut server = Server::bind(&path).unwrap();
        let handle = server.shutdown_handle();
        let device = || {
            Arc::new(InputDevice::new(
                crate::input::Kind::Keyboard,
                Box::new(|_| ()),
            ))
        };
        let thread = std::thread::spawn(move || server.serve_input(&mut { device }));
        let silent: Vec<_> = (0..40)
            .map(|_| UnixStream::connect(&path).unwrap())
            .collect();
        for _ in 0..3 {
            let mut vm = UnixStream::connect(&path).unwrap();
            // VHOST_USER_GET_FEATURES, version 1, no body.
            let request = [1u32, 1, 0].map(u32::to_le_bytes).concat();
            std::io::Write::write_all(&mut vm, &request).unwrap();
            std::io::Read::read_exact(&mut vm, &mut [0; 20]).unwrap();
        }
        handle.shutdown();
        thread.join().unwrap().unwrap();
        drop(silent);
    }

    #[test]
    fn a_path_that_is_too_long_is_refused_with_its_length() {
        let path = Path::new("/").join("x".repeat(MAX_PATH));
        let Err(error) = Server::bind(&path) else {
            panic!("it was taken")
        };
        let text = error.to_string();
        assert!(
            text.contains(&(MAX_PATH + 1).to_string()) && text.contains(&MAX_PATH.to_string()),
            "{text}"
        );
    }

    #[test]
    fn shutdown_ends_accepting_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let mut server = Server::bind(&folder.path().join("gpu.sock")).unwrap();
        let handle = server.shutdown_handle();
        let thread = std::thread::spawn(move || server.serve(&mut || unreachable!()));
        std::thread::sleep(Duration::from_millis(20));
        // Without this the test waits forever.
        handle.shutdown();
        thread.join().unwrap().unwrap();
    }
}
