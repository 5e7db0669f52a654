//! The socket of a client: [`Connection`] reads commands, [`reply`] and [`send_descriptor`] answer.
//!
//! Reading is buffered: a command is a header and a payload, and often several commands wait. Only
//! the server sends descriptors, each with one byte after the reply. Clients read the reply with
//! read(2), which would lose a descriptor that came with it.

use std::io::{self, BufReader, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};

use super::wire::{HEADER_SIZE, Header};

/// A payload buffer larger than this is freed after use.
const KEPT: usize = 1 << 20;

/// How long a thread polls the socket before it sleeps, if the client sent its last bytes within
/// that time. Waking up takes as long, and clients that allocate memory send several commands in a
/// row.
const BRISK: Duration = Duration::from_micros(100);

/// The reading side of a client's socket.
pub(crate) struct Connection {
    reader: BufReader<Socket>,
    payload: Vec<u8>,
}

/// A socket that is polled for a moment before its reader sleeps.
struct Socket {
    stream: UnixStream,
    /// Whether the last bytes arrived soon.
    is_brisk: bool,
}

impl Socket {
    /// Reads bytes that are there or arrive soon; `None` if there are none.
    fn read_soon(&self, into: &mut [u8]) -> Option<io::Result<usize>> {
        let until = Instant::now() + BRISK;
        while Instant::now() < until {
            match recv(&self.stream, &mut *into, RecvFlags::DONTWAIT) {
                Ok((_, read)) => return Some(Ok(read)),
                Err(Errno::AGAIN) => thread::yield_now(),
                Err(error) => return Some(Err(error.into())),
            }
        }
        None
    }
}

impl Read for Socket {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.is_brisk
            && let Some(read) = self.read_soon(into)
        {
            return read;
        }
        let begin = Instant::now();
        let read = self.stream.read(into)?;
        self.is_brisk = begin.elapsed() < BRISK;
        Ok(read)
    }
}

impl Connection {
    /// Reads from a connected socket.
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self {
            reader: BufReader::with_capacity(
                16 << 10,
                Socket {
                    stream,
                    is_brisk: false,
                },
            ),
            payload: Vec::new(),
        }
    }

    /// Reads the next header; `None` when the client has disconnected.
    ///
    /// # Errors
    /// The system's error. An end in the middle of a header is `UnexpectedEof`.
    pub(crate) fn header(&mut self) -> io::Result<Option<Header>> {
        let mut bytes = [0; HEADER_SIZE];
        let mut got = 0;
        while let Some(rest) = bytes.get_mut(got..).filter(|rest| !rest.is_empty()) {
            match self.reader.read(rest) {
                Ok(0) if got == 0 => return Ok(None),
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(size) => got += size,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Some(Header::from_bytes(bytes)))
    }

    /// Reads the next `size` bytes. Memory is allocated as they arrive, not as they are announced.
    ///
    /// # Errors
    /// The system's error. An end before `size` bytes is `UnexpectedEof`.
    pub(crate) fn payload(&mut self, size: usize) -> io::Result<&[u8]> {
        if self.payload.capacity() > KEPT {
            self.payload = Vec::new();
        }
        self.payload.clear();
        let got = self
            .reader
            .by_ref()
            .take(size as u64)
            .read_to_end(&mut self.payload)?;
        if got < size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(&self.payload)
    }
}

/// Writes a reply: its number and its words.
///
/// # Errors
/// The system's error.
pub(crate) fn reply(mut stream: &UnixStream, number: u32, words: &[u32]) -> io::Result<()> {
    // The largest reply is a capability set: 43 words with the header.
    let mut bytes = [0; 4 * 64];
    let length = u32::try_from(words.len()).unwrap_or(u32::MAX);
    let all = [length, number].into_iter().chain(words.iter().copied());
    for (to, word) in bytes.chunks_exact_mut(4).zip(all) {
        to.copy_from_slice(&word.to_le_bytes());
    }
    let size = HEADER_SIZE + words.len() * 4;
    let whole = bytes.get(..size).ok_or(io::ErrorKind::InvalidInput)?;
    stream.write_all(whole)
}

/// Sends a descriptor with the one byte that a message must have.
///
/// # Errors
/// The system's error.
pub(crate) fn send_descriptor(stream: &UnixStream, fd: BorrowedFd<'_>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [fd];
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    loop {
        match sendmsg(
            stream,
            &[IoSlice::new(&[0])],
            &mut control,
            SendFlags::empty(),
        ) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
