//! Messages over unix stream sockets, with or without a descriptor attached. Every wait can be
//! interrupted.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{
    RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, send, sendmsg,
};

use super::interrupt::{Interrupt, Wait};

/// Why a transfer ended before its last byte.
#[derive(Debug, thiserror::Error)]
pub(super) enum TransferError {
    /// Another thread asked to stop waiting.
    #[error("interrupted, because a queue stops or the VM is gone")]
    Interrupted,
    /// The peer did nothing until the deadline.
    #[error("the VMM did not answer in time")]
    TimedOut,
    /// The peer closed its end.
    #[error("the VMM closed the socket")]
    Closed,
    /// The socket failed.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Errno> for TransferError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::PIPE | Errno::CONNRESET => Self::Closed,
            other => Self::Io(other.into()),
        }
    }
}

impl From<TransferError> for io::Error {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::Io(error) => error,
            // Not `ErrorKind::Interrupted`: callers retry that by convention, and must not do so
            // here.
            other => Self::other(other),
        }
    }
}

fn wait(
    socket: &UnixStream,
    events: PollFlags,
    interrupt: &Interrupt,
    deadline: Option<Instant>,
) -> Result<(), TransferError> {
    match interrupt.wait(socket.as_fd(), events, deadline)? {
        Wait::Ready => Ok(()),
        Wait::Raised => Err(TransferError::Interrupted),
        Wait::TimedOut => Err(TransferError::TimedOut),
    }
}

/// Sends one small message whole, with `fd` attached to its first byte.
///
/// Messages of this size (below a page) are queued whole or not at all. After anything else the
/// socket cannot be used any more.
pub(super) fn send_message(
    socket: &UnixStream,
    parts: &[&[u8]; 2],
    fd: Option<BorrowedFd<'_>>,
    interrupt: &Interrupt,
) -> Result<(), TransferError> {
    loop {
        match try_send_message(socket, parts, fd) {
            Err(TransferError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {
                wait(socket, PollFlags::OUT, interrupt, None)?;
            }
            result => return result,
        }
    }
}

/// Like [`send_message`], but gives up with `WouldBlock` when the peer's buffer is full.
pub(super) fn try_send_message(
    socket: &UnixStream,
    parts: &[&[u8]; 2],
    fd: Option<BorrowedFd<'_>>,
) -> Result<(), TransferError> {
    let [head, body] = parts;
    let slices = [IoSlice::new(head), IoSlice::new(body)];
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = fd.map(|fd| [fd]);
    if let Some(fds) = &fds
        && !control.push(SendAncillaryMessage::ScmRights(fds))
    {
        return Err(TransferError::Io(io::Error::other(
            "no room for a descriptor in the control message",
        )));
    }
    loop {
        match sendmsg(socket, &slices, &mut control, SendFlags::DONTWAIT) {
            Ok(sent) if sent == head.len() + body.len() => return Ok(()),
            Ok(sent) => {
                return Err(TransferError::Io(io::Error::new(
                    io::ErrorKind::WriteZero,
                    format!("only {sent} bytes of a message were sent"),
                )));
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Sends all of `bytes`.
pub(super) fn send_all(
    socket: &UnixStream,
    mut bytes: &[u8],
    interrupt: &Interrupt,
) -> Result<(), TransferError> {
    while !bytes.is_empty() {
        match send(socket, bytes, SendFlags::DONTWAIT) {
            Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
            Err(Errno::AGAIN) => wait(socket, PollFlags::OUT, interrupt, None)?,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Fills the rest of `buffer`, of which `filled` bytes are there already. Bytes that arrived before
/// an interruption stay counted in `filled`, so that the next call goes on at the right byte.
pub(super) fn receive_rest(
    socket: &UnixStream,
    buffer: &mut [u8],
    filled: &mut usize,
    interrupt: &Interrupt,
) -> Result<(), TransferError> {
    while let Some(rest) = buffer.get_mut(*filled..).filter(|rest| !rest.is_empty()) {
        match recv(socket, rest, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return Err(TransferError::Closed),
            Ok((_, count)) => *filled += count,
            Err(Errno::AGAIN) => wait(socket, PollFlags::IN, interrupt, None)?,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
