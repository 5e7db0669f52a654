//! Receives whole messages, with the descriptors that come with them.
//!
//! A message's descriptors are attached to its first byte. So the header is read with `recvmsg`,
//! and the rest with `recv`. Nothing is peeked at, because BSD systems pass no descriptors to a
//! peek.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, recv, recvmsg,
};
use zerocopy::{FromZeros, IntoBytes};

use super::super::wire::{Header, MAX_BODY, MAX_FDS, REPLY, VERSION, VERSION_MASK, request};

/// How long the rest of a message may take once its first byte is there. VMMs send it whole.
const REST: Duration = Duration::from_secs(5);

/// Why there is no next message.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiveError {
    /// The VMM has gone, between two messages or within one.
    #[error("the VMM closed the socket")]
    Closed,
    /// The socket failed.
    #[error("the socket cannot be read: {0}")]
    Socket(io::Error),
    /// A part of a message came, or a part of the handshake, and then nothing.
    #[error("{0} did not come within {1:?}")]
    Late(&'static str, Duration),
    /// The header is not that of a request.
    #[error(
        "{name} (code {code}) came with flags {flags:#x}; a request has version {VERSION} and is no answer"
    )]
    Flags {
        /// The request's name.
        name: &'static str,
        /// Its number.
        code: u32,
        /// The header's flags.
        flags: u32,
    },
    /// More follows the header than any request has.
    #[error("{name} (code {code}) has {size} bytes; at most {MAX_BODY} are allowed")]
    TooLong {
        /// The request's name.
        name: &'static str,
        /// Its number.
        code: u32,
        /// The header's size.
        size: u32,
    },
    /// More descriptors came than any request has.
    #[error("{name} (code {code}) came with more than {MAX_FDS} descriptors")]
    TooManyDescriptors {
        /// The request's name.
        name: &'static str,
        /// Its number.
        code: u32,
    },
}

impl From<Errno> for ReceiveError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::CONNRESET | Errno::PIPE => Self::Closed,
            other => Self::Socket(other.into()),
        }
    }
}

/// A request as it came.
#[derive(Debug)]
pub(super) struct Message {
    /// Its header: a request of this version, whose size is that of the body.
    pub(super) header: Header,
    /// What followed the header.
    pub(super) body: Vec<u8>,
    /// The descriptors that came with it. They are closed when a program is executed.
    pub(super) fds: Vec<OwnedFd>,
}

impl Message {
    /// Waits for the next message on a blocking stream socket, for at most `patience`. Its rest
    /// must follow its first byte soon: a peer that stops in the middle would keep all others out.
    pub(super) fn receive(
        stream: &UnixStream,
        patience: Option<Duration>,
    ) -> Result<Self, ReceiveError> {
        if let Some(patience) = patience
            && !is_readable(stream, Instant::now() + patience)?
        {
            return Err(ReceiveError::Late("the next message", patience));
        }
        let mut header = Header::new_zeroed();
        let mut fds = Vec::new();
        let truncated = read_start(stream, header.as_mut_bytes(), &mut fds)?;
        let (name, code) = (request::name(header.request), header.request);
        if truncated {
            return Err(ReceiveError::TooManyDescriptors { name, code });
        }
        if header.flags & VERSION_MASK != VERSION || header.flags & REPLY != 0 {
            let flags = header.flags;
            return Err(ReceiveError::Flags { name, code, flags });
        }
        let size = header.size as usize;
        if size > MAX_BODY {
            let size = header.size;
            return Err(ReceiveError::TooLong { name, code, size });
        }
        let mut body = vec![0; size];
        read_rest(stream, &mut body)?;
        Ok(Self { header, body, fds })
    }
}

/// Reads the header and the descriptors. Returns true when some of these were lost.
fn read_start(
    stream: &UnixStream,
    header: &mut [u8],
    fds: &mut Vec<OwnedFd>,
) -> Result<bool, ReceiveError> {
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = receive_flags();
    let received = loop {
        match recvmsg(stream, &mut [IoSliceMut::new(header)], &mut control, flags) {
            Err(Errno::INTR) => {}
            result => break result?,
        }
    };
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            fds.extend(some);
        }
    }
    if flags.is_empty() {
        for fd in &*fds {
            fcntl_setfd(fd.as_fd(), FdFlags::CLOEXEC)?;
        }
    }
    if received.bytes == 0 {
        return Err(ReceiveError::Closed);
    }
    // VMMs send a header whole, but nothing guarantees that it arrives so.
    read_rest(stream, header.get_mut(received.bytes..).unwrap_or_default())?;
    Ok(received.flags.contains(ReturnFlags::CTRUNC) || fds.len() > MAX_FDS)
}

fn read_rest(stream: &UnixStream, mut rest: &mut [u8]) -> Result<(), ReceiveError> {
    let mut deadline = None;
    while !rest.is_empty() {
        match recv(stream, &mut *rest, RecvFlags::DONTWAIT) {
            Ok((_, 0)) => return Err(ReceiveError::Closed),
            Ok((_, count)) => rest = rest.get_mut(count..).unwrap_or_default(),
            Err(Errno::AGAIN) => {
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + REST);
                if !is_readable(stream, deadline)? {
                    return Err(ReceiveError::Late("the rest of a message", REST));
                }
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Waits until something can be read or the peer has gone. Returns false at the deadline.
fn is_readable(stream: &UnixStream, deadline: Instant) -> Result<bool, ReceiveError> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(stream, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Where the system allows it, descriptors are close-on-exec from the first moment on.
fn receive_flags() -> RecvFlags {
    #[cfg(not(target_vendor = "apple"))]
    if !crate::system::is_macos() {
        return RecvFlags::CMSG_CLOEXEC;
    }
    RecvFlags::empty()
}
