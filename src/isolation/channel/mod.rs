//! A socket for messages with descriptors: [`Sender`], [`Outbox`] and [`Receiver`].
//!
//! ```text
//! header: u32 bytes of the fields, u16 descriptors, u8 kind, u8 zero
//! fields: see `encoding`
//! ```
//!
//! It is a unix stream socket, which all systems have. Descriptors travel with the first byte of
//! their frame. A frame that breaks the rules ends the connection: nothing behind it can be
//! understood.
//!
//! A worker sends with a [`Sender`], which waits until the frame is sent. The main process waits
//! for no worker, so it sends with an [`Outbox`], which keeps what the socket does not take.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

use hesper_system::sync::Lock;
use rustix::buffer::spare_capacity;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recv, recvmsg, sendmsg,
};

use super::encoding::{Malformed, Message};
use super::message::MOST_FILES;

/// The most bytes of fields that the main process sends: the largest batch of commands.
pub(super) const LARGEST_TO_WORKER: usize = 1 << 30;
/// The most bytes of fields that a worker sends.
pub(super) const LARGEST_FROM_WORKER: usize = 64 << 10;
/// The most descriptors of a frame.
const MOST_DESCRIPTORS: usize = MOST_FILES;
/// Bytes of a header.
const HEADER: usize = 8;
/// Bytes that are received at a time. Frames that are larger get memory of their own.
const BUFFER: usize = HEADER + LARGEST_FROM_WORKER;
/// Room for the descriptors of a frame.
const CONTROL: usize = rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS));

/// Why nothing more can be received.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReceiveError {
    /// The other process has closed the socket, perhaps in the middle of a frame.
    #[error("the other process closed the socket")]
    Closed,
    /// The socket failed.
    #[error("the socket cannot be read: {0}")]
    Socket(#[from] io::Error),
    /// The header is none.
    #[error(
        "a frame of kind {kind} with {bytes} bytes and {fds} descriptors; at most {largest} bytes and {MOST_DESCRIPTORS} descriptors are allowed"
    )]
    Header {
        /// Kind of the message.
        kind: u8,
        /// Bytes of its fields.
        bytes: usize,
        /// Its descriptors.
        fds: usize,
        /// The most bytes.
        largest: usize,
    },
    /// Other descriptors came than the frames say, or this process can have no more.
    #[error("the wrong number of descriptors came, or too many files are open")]
    Descriptors,
    /// There is no memory for a large frame.
    #[error("no memory for a frame of {0} bytes")]
    Memory(usize),
}

impl From<Errno> for ReceiveError {
    fn from(error: Errno) -> Self {
        match error {
            Errno::CONNRESET | Errno::PIPE => Self::Closed,
            other => Self::Socket(other.into()),
        }
    }
}

/// What a header says.
#[derive(Clone, Copy, Debug)]
struct Header {
    bytes: usize,
    fds: usize,
    kind: u8,
}

/// Writes the header and the fields of a message, without its tail, in place of what `to` has.
fn encode(message: &impl Message, fds: usize, to: &mut Vec<u8>) -> io::Result<()> {
    to.clear();
    to.resize(HEADER, 0);
    message.encode(to);
    let bytes = to.len() - HEADER + message.tail().len();
    let is_allowed = bytes <= LARGEST_TO_WORKER && fds <= MOST_DESCRIPTORS;
    let (Ok(bytes), Ok(fds), true) = (u32::try_from(bytes), u16::try_from(fds), is_allowed) else {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!(
                "a message of {bytes} bytes with {fds} descriptors; at most {LARGEST_TO_WORKER} bytes and {MOST_DESCRIPTORS} descriptors can be sent"
            ),
        ));
    };
    let header = to.iter_mut().zip(
        bytes
            .to_le_bytes()
            .into_iter()
            .chain(fds.to_le_bytes())
            .chain([message.kind()]),
    );
    header.for_each(|(to, byte)| *to = byte);
    Ok(())
}

/// Sends what is left of a frame, of which `sent` bytes are sent, without waiting. The descriptors
/// go with the first byte. Returns how many bytes are sent now: all, unless the socket is full.
fn send_rest(
    socket: &UnixStream,
    head: &[u8],
    tail: &[u8],
    fds: &[BorrowedFd<'_>],
    mut sent: usize,
) -> io::Result<usize> {
    #[cfg(not(target_vendor = "apple"))]
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    // Rust programs ignore SIGPIPE anyway.
    #[cfg(target_vendor = "apple")]
    let flags = SendFlags::DONTWAIT;
    while sent < head.len() + tail.len() {
        let slices = [
            IoSlice::new(head.get(sent..).unwrap_or_default()),
            IoSlice::new(
                tail.get(sent.saturating_sub(head.len())..)
                    .unwrap_or_default(),
            ),
        ];
        let mut space = [MaybeUninit::uninit(); CONTROL];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if sent == 0 && !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        match sendmsg(socket, &slices, &mut control, flags) {
            Ok(count) => sent += count,
            Err(Errno::AGAIN) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(sent)
}

/// The sending end for threads that may wait.
#[derive(Debug)]
pub(super) struct Sender {
    socket: Arc<UnixStream>,
    /// For the bytes of one message. Whoever holds it sends.
    buffer: Mutex<Vec<u8>>,
}

impl Sender {
    pub(super) fn new(socket: Arc<UnixStream>) -> Self {
        Self {
            socket,
            buffer: Mutex::default(),
        }
    }

    /// Sends a message whole, and waits when the socket is full.
    ///
    /// # Errors
    /// The other process is gone, or the message is too large. Nothing can be sent any more.
    pub(super) fn send(&self, message: &impl Message, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut head = self.buffer.locked();
        encode(message, fds.len(), &mut head)?;
        let tail = message.tail();
        let mut sent = 0;
        loop {
            sent = send_rest(&self.socket, &head, tail, fds, sent)?;
            if sent == head.len() + tail.len() {
                return Ok(());
            }
            match poll(&mut [PollFd::new(&*self.socket, PollFlags::OUT)], None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A frame that the socket has not taken, or only a part of it.
#[derive(Debug)]
struct Waiting {
    head: Vec<u8>,
    tail: Vec<u8>,
    fds: Vec<OwnedFd>,
    sent: usize,
}

impl Waiting {
    fn left(&self) -> usize {
        self.head.len() + self.tail.len() - self.sent
    }
}

/// The sending end that never waits.
#[derive(Debug)]
pub(super) struct Outbox {
    socket: Arc<UnixStream>,
    /// For the bytes of one message.
    buffer: Vec<u8>,
    waiting: VecDeque<Waiting>,
    bytes: usize,
}

impl Outbox {
    pub(super) fn new(socket: Arc<UnixStream>) -> Self {
        Self {
            socket,
            buffer: Vec::new(),
            waiting: VecDeque::new(),
            bytes: 0,
        }
    }

    /// Sends a message, or keeps what the socket does not take. True when all is sent. Otherwise
    /// call [`Outbox::flush`] when the socket can be written.
    ///
    /// # Errors
    /// The other process is gone, the message is too large, or descriptors cannot be kept. Nothing
    /// can be sent any more.
    pub(super) fn send<M: Message>(
        &mut self,
        message: M,
        fds: &[BorrowedFd<'_>],
    ) -> io::Result<bool> {
        encode(&message, fds.len(), &mut self.buffer)?;
        let mut sent = 0;
        if self.waiting.is_empty() {
            let tail = message.tail();
            sent = send_rest(&self.socket, &self.buffer, tail, fds, 0)?;
            if sent == self.buffer.len() + tail.len() {
                return Ok(true);
            }
        }
        let kept = fds.iter().filter(|_| sent == 0);
        let waiting = Waiting {
            head: self.buffer.clone(),
            tail: message.into_tail(),
            fds: kept
                .map(BorrowedFd::try_clone_to_owned)
                .collect::<io::Result<_>>()?,
            sent,
        };
        self.bytes += waiting.left();
        self.waiting.push_back(waiting);
        Ok(false)
    }

    /// Sends what waits, as far as the socket takes it. True when nothing waits any more.
    ///
    /// # Errors
    /// The other process is gone.
    pub(super) fn flush(&mut self) -> io::Result<bool> {
        while let Some(first) = self.waiting.front_mut() {
            let before = first.left();
            let fds: Vec<BorrowedFd<'_>> = first.fds.iter().map(AsFd::as_fd).collect();
            let (head, tail) = (&first.head, &first.tail);
            first.sent = send_rest(&self.socket, head, tail, &fds, first.sent)?;
            let left = first.left();
            self.bytes -= before - left;
            if left > 0 {
                return Ok(false);
            }
            self.waiting.pop_front();
        }
        Ok(true)
    }

    /// How many messages wait.
    pub(super) fn messages(&self) -> usize {
        self.waiting.len()
    }

    /// How many bytes wait.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A message that has come whole.
#[derive(Debug)]
pub(super) struct Frame<'a> {
    kind: u8,
    fields: Cow<'a, [u8]>,
    fds: Vec<OwnedFd>,
}

impl Frame<'_> {
    /// The message and its descriptors.
    ///
    /// # Errors
    /// It is no such message.
    pub(super) fn decode<M: Message>(self) -> Result<(M, Vec<OwnedFd>), Malformed> {
        let message = M::decode(self.kind, self.fields, self.fds.len())?;
        Ok((message, self.fds))
    }
}

/// A frame that is larger than the buffer, and what has come of its fields.
#[derive(Debug)]
struct Large {
    header: Header,
    fields: Vec<u8>,
}

/// The receiving end.
#[derive(Debug)]
pub(super) struct Receiver {
    socket: Arc<UnixStream>,
    largest: usize,
    buffer: Box<[u8]>,
    /// Where the bytes begin and end that are in the buffer.
    begin: usize,
    end: usize,
    large: Option<Large>,
    /// What has come for frames that are not taken yet.
    fds: VecDeque<OwnedFd>,
}

impl Receiver {
    /// Receives frames with at most `largest` bytes of fields.
    pub(super) fn new(socket: Arc<UnixStream>, largest: usize) -> Self {
        Self {
            socket,
            largest,
            buffer: vec![0; BUFFER].into(),
            begin: 0,
            end: 0,
            large: None,
            fds: VecDeque::new(),
        }
    }

    /// Waits for the next frame.
    ///
    /// # Errors
    /// The other process is gone or has broken the rules. Nothing more can be received.
    pub(super) fn receive(&mut self) -> Result<Frame<'_>, ReceiveError> {
        while !self.is_there(true)? {}
        self.take()
    }

    /// The next frame, if all of it has come.
    ///
    /// # Errors
    /// As [`Receiver::receive`].
    pub(super) fn try_receive(&mut self) -> Result<Option<Frame<'_>>, ReceiveError> {
        match self.is_there(false)? {
            true => self.take().map(Some),
            false => Ok(None),
        }
    }

    /// Whether a whole frame is there. Reads until one is, or until nothing more has come.
    fn is_there(&mut self, waits: bool) -> Result<bool, ReceiveError> {
        loop {
            if let Some(large) = &mut self.large {
                if large.fields.len() == large.header.bytes {
                    return Ok(true);
                }
                if !read_large(&self.socket, large, waits)? {
                    return Ok(false);
                }
                continue;
            }
            match self.header()? {
                Some(header) if self.end - self.begin >= HEADER + header.bytes => return Ok(true),
                Some(header) if HEADER + header.bytes > self.buffer.len() => {
                    self.large = Some(self.begin_large(header)?);
                }
                _ => {
                    if !self.read(waits)? {
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// The header of the first frame, if it has come.
    fn header(&self) -> Result<Option<Header>, ReceiveError> {
        let come = self.buffer.get(self.begin..self.end).unwrap_or_default();
        let Some((&[a, b, c, d, e, f, kind, zero], _)) = come.split_first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let bytes = u32::from_le_bytes([a, b, c, d]) as usize;
        let fds = usize::from(u16::from_le_bytes([e, f]));
        if bytes > self.largest || fds > MOST_DESCRIPTORS || zero != 0 {
            return Err(ReceiveError::Header {
                kind,
                bytes,
                fds,
                largest: self.largest,
            });
        }
        // They came with the frame's first byte.
        if self.fds.len() < fds {
            return Err(ReceiveError::Descriptors);
        }
        Ok(Some(Header { bytes, fds, kind }))
    }

    /// Moves what has come of a large frame to memory of its own.
    fn begin_large(&mut self, header: Header) -> Result<Large, ReceiveError> {
        let mut fields = Vec::new();
        let reserved = fields.try_reserve_exact(header.bytes);
        reserved.map_err(|_| ReceiveError::Memory(header.bytes))?;
        let come = self.buffer.get(self.begin + HEADER..self.end);
        fields.extend_from_slice(come.unwrap_or_default());
        (self.begin, self.end) = (0, 0);
        Ok(Large { header, fields })
    }

    /// Takes the frame that [`Receiver::is_there`] has found.
    fn take(&mut self) -> Result<Frame<'_>, ReceiveError> {
        let (header, fields) = match self.large.take() {
            Some(large) => (large.header, Cow::Owned(large.fields)),
            None => {
                let header = self.header()?.ok_or(ReceiveError::Closed)?;
                let begin = self.begin + HEADER;
                self.begin = begin + header.bytes;
                let fields = self.buffer.get(begin..self.begin);
                (header, Cow::Borrowed(fields.unwrap_or_default()))
            }
        };
        let fds = self.fds.drain(..header.fds).collect();
        Ok(Frame {
            kind: header.kind,
            fields,
            fds,
        })
    }

    /// Reads into the buffer. False when nothing has come.
    fn read(&mut self, waits: bool) -> Result<bool, ReceiveError> {
        if self.begin == self.end {
            // A frame's descriptors come with its first byte, and none has come.
            if !self.fds.is_empty() {
                return Err(ReceiveError::Descriptors);
            }
            (self.begin, self.end) = (0, 0);
        } else if self.begin > 0 {
            // The rest of a frame. It is less than a frame, so this is little.
            self.buffer.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
        }
        let mut space = [MaybeUninit::uninit(); CONTROL];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let room = self.buffer.get_mut(self.end..).unwrap_or_default();
        let received = loop {
            let mut slices = [IoSliceMut::new(room)];
            match recvmsg(&self.socket, &mut slices, &mut control, flags(waits)) {
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if !waits => return Ok(false),
                Err(Errno::AGAIN) => wait_for_bytes(&self.socket)?,
                result => break result?,
            }
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                for fd in fds {
                    close_on_exec(&fd)?;
                    self.fds.push_back(fd);
                }
            }
        }
        // A frame that is not whole has some, and another begins with this read.
        let is_too_much = self.fds.len() > 2 * MOST_DESCRIPTORS;
        if received.flags.contains(ReturnFlags::CTRUNC) || is_too_much {
            return Err(ReceiveError::Descriptors);
        }
        if received.bytes == 0 {
            return Err(ReceiveError::Closed);
        }
        self.end += received.bytes;
        Ok(true)
    }
}

/// Reads more of a large frame. False when nothing has come. Descriptors that came now would be
/// nobody's: the system closes them.
fn read_large(socket: &UnixStream, large: &mut Large, waits: bool) -> Result<bool, ReceiveError> {
    match recv(socket, spare_capacity(&mut large.fields), flags(waits)) {
        Ok((_, 0)) => Err(ReceiveError::Closed),
        // The vector has no more room than was asked for.
        Ok(_) if large.fields.len() <= large.header.bytes => Ok(true),
        Ok(_) => Err(ReceiveError::Memory(large.header.bytes)),
        Err(Errno::INTR) => Ok(true),
        Err(Errno::AGAIN) if !waits => Ok(false),
        Err(Errno::AGAIN) => wait_for_bytes(socket).map(|()| true),
        Err(error) => Err(error.into()),
    }
}

/// Waits for a socket that does not wait by itself.
fn wait_for_bytes(socket: &UnixStream) -> Result<(), ReceiveError> {
    match poll(&mut [PollFd::new(socket, PollFlags::IN)], None) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn flags(waits: bool) -> RecvFlags {
    match waits {
        true => cloexec(),
        false => cloexec() | RecvFlags::DONTWAIT,
    }
}

/// Makes descriptors close-on-exec from the first moment on, where the system can.
fn cloexec() -> RecvFlags {
    #[cfg(not(target_vendor = "apple"))]
    return RecvFlags::CMSG_CLOEXEC;
    #[cfg(target_vendor = "apple")]
    RecvFlags::empty()
}

/// The same where it cannot.
fn close_on_exec(_fd: &OwnedFd) -> Result<(), ReceiveError> {
    #[cfg(target_vendor = "apple")]
    rustix::io::fcntl_setfd(_fd, rustix::io::FdFlags::CLOEXEC)?;
    Ok(())
}

#[cfg(test)]
mod tests;
