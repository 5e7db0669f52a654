//! Connections to a listening socket that have sent nothing yet.
//!
//! The first one that speaks vhost-user is the VM. The others keep nobody out. Some only check
//! whether somebody listens, as [`super::Server::bind`] does. Some have taken this socket for
//! another one.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::{Duration, Instant};

use hesper_system::{LogLimit, Peer, is_exhausted};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, recv};

use super::Error;
use super::stop::Stop;

/// How many connections may be silent at a time. Beyond that, the oldest is closed.
const MOST: usize = 16;

/// Size in bytes of a message's header.
const HEADER: usize = 12;

/// The answer to a client that sends text. `hesper ctl` prints it.
const NOT_CONTROL: &[u8] =
    b"error this is the socket of a virtual device (--socket-path, --input-socket), for a VM monitor; name the --control socket\n";

/// How long the rest of a header may take, and how often it is checked.
const PATIENCE: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// How long to wait before a connection is accepted again that could not be accepted.
const RETRY: Duration = Duration::from_millis(100);

/// Limits the lines about connections that cannot be accepted, or are turned away.
static NO_ROOM: LogLimit = LogLimit::new("hesper_vhost");
static TURNED_AWAY: LogLimit = LogLimit::new("hesper_vhost");

/// The silent connections; see the module.
#[derive(Default)]
pub(super) struct PendingConnections {
    silent: VecDeque<PendingConnection>,
}

/// One of them.
struct PendingConnection {
    stream: UnixStream,
    /// When the first part of a header came.
    begun: Option<Instant>,
}

/// What the first bytes of a connection are.
#[derive(Debug, PartialEq, Eq)]
enum FirstBytes {
    /// Nothing yet.
    Nothing,
    /// A part of a header.
    Part,
    /// The header of a vhost-user message.
    Message,
    /// The connection is closed.
    Gone,
    /// Anything else.
    Other,
}

impl PendingConnections {
    /// Returns the next connection that speaks vhost-user, or `None` at a shutdown.
    ///
    /// # Errors
    /// [`Error::System`], when the socket cannot be waited for any more.
    pub(super) fn next(
        &mut self,
        listener: &UnixListener,
        stop: &Stop,
    ) -> Result<Option<UnixStream>, Error> {
        loop {
            if stop.requested() {
                return Ok(None);
            }
            if let Some(stream) = self.take_speaking() {
                stream
                    .set_nonblocking(false)
                    .map_err(Error::system("cannot use a connection"))?;
                return Ok(Some(stream));
            }
            self.wait(listener, stop)
                .map_err(Error::system("cannot wait for a connection"))?;
            match accept(listener) {
                Ok(stream) => self.silent.extend(stream.map(|stream| PendingConnection {
                    stream,
                    begun: None,
                })),
                Err(error) if is_exhausted(&error) => self.make_room(&error, stop)?,
                Err(error) => return Err(Error::system("cannot accept a connection")(error)),
            }
            while self.silent.len() > MOST {
                log::debug!(
                    "more than {MOST} connections have sent nothing; the oldest one is closed"
                );
                self.silent.pop_front();
            }
        }
    }

    /// Closes the oldest silent connection, because the process or the system has no descriptors
    /// left, and waits a moment. The one that could not be accepted stays in the listener's queue.
    fn make_room(&mut self, error: &io::Error, stop: &Stop) -> Result<(), Error> {
        NO_ROOM.warn(format_args!(
            "a VM cannot be accepted now: {error}; it is tried again (a higher `ulimit -n` gives more room)"
        ));
        self.silent.pop_front();
        let deadline = Instant::now() + RETRY;
        stop.wait_until(deadline)
            .map_err(Error::system("cannot wait for a connection"))
    }

    /// Waits until somebody connects, until a connection sends something or closes, or until a
    /// shutdown.
    fn wait(&self, listener: &UnixListener, stop: &Stop) -> io::Result<()> {
        let others = [listener.as_fd(), stop.event()];
        // Connections that sent a part of a header are always ready.
        let quiet = self.silent.iter().filter(|one| one.begun.is_none());
        let streams = quiet.clone().map(|one| one.stream.as_fd());
        let poll_interval = Timespec {
            tv_sec: 0,
            tv_nsec: POLL_INTERVAL.subsec_nanos().into(),
        };
        let timeout = (quiet.count() < self.silent.len()).then_some(&poll_interval);
        let mut fds: Vec<_> = others
            .into_iter()
            .chain(streams)
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        match poll(&mut fds, timeout) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Takes the first connection that speaks vhost-user, and closes those that speak something
    /// else.
    fn take_speaking(&mut self) -> Option<UnixStream> {
        let mut place = 0;
        while let Some(one) = self.silent.get_mut(place) {
            let mut first = first_bytes(&one.stream);
            if first == FirstBytes::Part {
                let begun = *one.begun.get_or_insert_with(Instant::now);
                if begun.elapsed() > PATIENCE {
                    first = FirstBytes::Other;
                }
            }
            match first {
                FirstBytes::Nothing | FirstBytes::Part => place += 1,
                FirstBytes::Message => return self.silent.remove(place).map(|one| one.stream),
                FirstBytes::Gone => drop(self.silent.remove(place)),
                FirstBytes::Other => {
                    if let Some(one) = self.silent.remove(place) {
                        TURNED_AWAY.warn(format_args!(
                            "a client that does not speak vhost-user ({}) connected to a device's socket and is turned away; \
                             `hesper ctl` needs the --control socket",
                            Peer::of(&one.stream)
                        ));
                        turn_away(one.stream);
                    }
                }
            }
        }
        None
    }
}

/// Tells a client that this is the wrong socket. It may be gone by now, and then needs no answer.
fn turn_away(mut stream: UnixStream) {
    // Unread bytes would reset the connection, and the answer would be lost.
    let _ = stream.read(&mut [0; 4096]);
    let _ = stream.write(NOT_CONTROL);
}

/// Accepts a connection, if one is waiting.
fn accept(listener: &UnixListener) -> io::Result<Option<UnixStream>> {
    match listener.accept() {
        Ok((stream, _)) => {
            stream.set_nonblocking(true)?;
            Ok(Some(stream))
        }
        // The client may have left since.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock
                    | io::ErrorKind::ConnectionAborted
                    | io::ErrorKind::Interrupted
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// Looks at the first bytes without taking them.
fn first_bytes(stream: &UnixStream) -> FirstBytes {
    let mut header = [0; HEADER];
    match recv(stream, &mut header, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
        Ok((0, _)) => FirstBytes::Gone,
        Ok((count, _)) => classify(header.get(..count).unwrap_or_default()),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => FirstBytes::Nothing,
        Err(_) => FirstBytes::Gone,
    }
}

/// Classifies the first bytes of a connection.
fn classify(bytes: &[u8]) -> FirstBytes {
    // The request's number, the flags with the version 1, and the size, little-endian
    // (vhost-user.rst, "Header").
    let fits = |(place, byte): (usize, &u8)| match place {
        0 => true,
        4 => byte & 3 == 1,
        8..HEADER => true,
        _ => *byte == 0,
    };
    match bytes.iter().enumerate().all(fits) {
        true if bytes.len() < HEADER => FirstBytes::Part,
        true => FirstBytes::Message,
        false => FirstBytes::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_told_from_text() {
        let message = |words: [u32; 3]| words.map(u32::to_le_bytes).concat();
        for (bytes, expected) in [
            (message([1, 1, 0]), FirstBytes::Message),
            (message([3, 9, 0]), FirstBytes::Message),
            (message([16, 1, 8]), FirstBytes::Message),
            (message([1, 2, 0]), FirstBytes::Other),
            (message([1, 1, 0])[..11].to_vec(), FirstBytes::Part),
            (vec![1], FirstBytes::Part),
            (b"status\n".to_vec(), FirstBytes::Other),
            (
                b"screenshot 0 /tmp/x.png\n"[..12].to_vec(),
                FirstBytes::Other,
            ),
        ] {
            assert_eq!(classify(&bytes), expected, "{bytes:?}");
        }
    }
}
