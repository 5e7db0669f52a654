//! What the main process and the spawner tell each other: frames of [`SIZE`] bytes.
//!
//! The two descriptors of an order to start a worker are attached to its frame. Nobody waits: both
//! ends of the socket are non-blocking, and what cannot be sent yet stays in an [`Outbox`].

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// Size of a frame in bytes.
const SIZE: usize = 16;
/// The descriptors of a worker: its two sockets.
pub(super) const DESCRIPTORS: usize = 2;

/// A frame: a kind, a number and a worker's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// To the spawner: start a worker. With [`DESCRIPTORS`] descriptors.
    Start { worker: u64 },
    /// To the spawner: kill a worker.
    Kill { worker: u64 },
    /// From the spawner: it is there.
    Ready,
    /// From the spawner: a worker ended with this status.
    Exited { worker: u64, status: i32 },
    /// From the spawner: this signal ended a worker.
    Signalled { worker: u64, signal: i32 },
    /// From the spawner: a worker could not be started; the system's error, or 0.
    NotStarted { worker: u64, error: i32 },
}

impl Frame {
    fn bytes(self) -> [u8; SIZE] {
        let (kind, value, worker) = match self {
            Self::Start { worker } => (1_u32, 0, worker),
            Self::Kill { worker } => (2, 0, worker),
            Self::Ready => (3, 0, 0),
            Self::Exited { worker, status } => (4, status, worker),
            Self::Signalled { worker, signal } => (5, signal, worker),
            Self::NotStarted { worker, error } => (6, error, worker),
        };
        let all =
            u128::from(kind) | u128::from(value.cast_unsigned()) << 32 | u128::from(worker) << 64;
        all.to_le_bytes()
    }

    /// `None` for a kind that is not known.
    fn from_bytes(bytes: [u8; SIZE]) -> Option<Self> {
        let all = u128::from_le_bytes(bytes);
        let value = ((all >> 32) as u32).cast_signed();
        let worker = (all >> 64) as u64;
        Some(match all as u32 {
            1 => Self::Start { worker },
            2 => Self::Kill { worker },
            3 => Self::Ready,
            4 => Self::Exited {
                worker,
                status: value,
            },
            5 => Self::Signalled {
                worker,
                signal: value,
            },
            6 => Self::NotStarted {
                worker,
                error: value,
            },
            _ => return None,
        })
    }
}

/// Frames that wait to be sent.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    frames: VecDeque<([u8; SIZE], Vec<OwnedFd>)>,
    /// How many bytes of the first frame are sent.
    sent: usize,
}

impl Outbox {
    pub(super) fn push(&mut self, frame: Frame, descriptors: Vec<OwnedFd>) {
        self.frames.push_back((frame.bytes(), descriptors));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.frames.clear();
        self.sent = 0;
    }

    /// Sends as much as the socket takes.
    ///
    /// # Errors
    /// The other end is gone.
    pub(super) fn flush(&mut self, socket: &UnixStream) -> io::Result<()> {
        while let Some((bytes, descriptors)) = self.frames.front_mut() {
            let rest = bytes.get(self.sent..).unwrap_or_default();
            match send(socket, rest, descriptors) {
                Ok(count) => {
                    // They travelled with the first byte.
                    descriptors.clear();
                    self.sent += count;
                }
                Err(Errno::INTR) => {}
                // `NOBUFS`: macOS is short of memory for sockets.
                Err(Errno::AGAIN | Errno::NOBUFS) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            if self.sent == SIZE {
                self.frames.pop_front();
                self.sent = 0;
            }
        }
        Ok(())
    }
}

fn send(socket: &UnixStream, bytes: &[u8], descriptors: &[OwnedFd]) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let borrowed: Vec<_> = descriptors.iter().map(AsFd::as_fd).collect();
    if !borrowed.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&borrowed)) {
        return Err(Errno::INVAL);
    }
    sendmsg(
        socket,
        &[IoSlice::new(bytes)],
        &mut control,
        SendFlags::DONTWAIT,
    )
}

/// What [`Inbox::receive`] found.
#[derive(Debug)]
pub(super) enum Received {
    /// No whole frame is there yet.
    Nothing,
    /// A frame and its descriptors. They are fewer than were sent if this process has too many.
    Frame(Frame, Vec<OwnedFd>),
}

/// The frame that is arriving.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: [u8; SIZE],
    filled: usize,
    descriptors: Vec<OwnedFd>,
}

impl Inbox {
    /// Receives at most one frame.
    ///
    /// # Errors
    /// The other end is gone (`UnexpectedEof`), or sends something else than frames.
    pub(super) fn receive(&mut self, socket: &UnixStream) -> io::Result<Received> {
        while let Some(rest) = self
            .bytes
            .get_mut(self.filled..)
            .filter(|rest| !rest.is_empty())
        {
            match receive(socket, rest, &mut self.descriptors) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.filled += count,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(Received::Nothing),
                Err(error) => return Err(error.into()),
            }
        }
        self.filled = 0;
        let descriptors = std::mem::take(&mut self.descriptors);
        match Frame::from_bytes(self.bytes) {
            Some(frame) => Ok(Received::Frame(frame, descriptors)),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

fn receive(
    socket: &UnixStream,
    bytes: &mut [u8],
    descriptors: &mut Vec<OwnedFd>,
) -> Result<usize, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(
        socket,
        &mut [IoSliceMut::new(bytes)],
        &mut control,
        flags() | RecvFlags::DONTWAIT,
    )?;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    for descriptor in &*descriptors {
        // Only for systems whose `recvmsg` cannot do it. It cannot fail on an open descriptor.
        let _ = fcntl_setfd(descriptor, FdFlags::CLOEXEC);
    }
    if received.flags.contains(ReturnFlags::CTRUNC) {
        log::debug!("this process cannot take more descriptors");
    }
    Ok(received.bytes)
}

/// Descriptors are not passed on to programs that this process executes.
fn flags() -> RecvFlags {
    #[cfg(target_os = "linux")]
    return RecvFlags::CMSG_CLOEXEC;
    #[cfg(not(target_os = "linux"))]
    return RecvFlags::empty();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_what_was_sent() {
        let (worker, last) = (0x0123_4567_89ab_cdef, u64::MAX);
        for frame in [
            Frame::Start { worker },
            Frame::Kill { worker: last },
            Frame::Ready,
            Frame::Exited { worker, status: -1 },
            Frame::Signalled { worker, signal: 11 },
            Frame::NotStarted {
                worker: last,
                error: i32::MAX,
            },
        ] {
            assert_eq!(Frame::from_bytes(frame.bytes()), Some(frame));
        }
        assert_eq!(Frame::from_bytes([0; SIZE]), None);
        assert_eq!(Frame::from_bytes([7; SIZE]), None);
    }

    #[test]
    fn what_the_socket_does_not_take_is_sent_later_in_order() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let (mut outbox, mut inbox) = (Outbox::default(), Inbox::default());
        let mut pushed = 0;
        while outbox.is_empty() {
            let descriptors = match pushed % 100 {
                0 => vec![rustix::io::dup(&theirs).unwrap()],
                _ => Vec::new(),
            };
            outbox.push(Frame::Kill { worker: pushed }, descriptors);
            outbox.flush(&ours).unwrap();
            pushed += 1;
        }
        let mut got = 0;
        while got < pushed {
            outbox.flush(&ours).unwrap();
            match inbox.receive(&theirs).unwrap() {
                Received::Nothing => assert!(!outbox.is_empty(), "{got} of {pushed}"),
                Received::Frame(frame, descriptors) => {
                    assert_eq!(frame, Frame::Kill { worker: got });
                    assert_eq!(descriptors.len(), usize::from(got % 100 == 0));
                    got += 1;
                }
            }
        }
        drop(ours);
        let end = inbox.receive(&theirs).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::UnexpectedEof);
    }
}
