//! The socket of a client: [`Connection`] reads commands, [`reply`] and [`send_descriptor`] answer.
//!
//! Reading is buffered: a command is a header and a payload, and often several stand in line. Descriptors go
//! the other way only, each with one byte of its own behind the reply: clients read the reply with read(2),
//! which would lose them.

use std::io::{self, BufReader, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, recv, sendmsg};

use super::wire::{HEADER_SIZE, Header};

/// A payload buffer larger than this is given back after use.
const KEPT: usize = 1 << 20;

/// How long a thread looks for more before it sleeps, when the client sent the last in less than that. To be woken takes as
/// long, and clients that allocate memory send several commands in a row.
const BRISK: Duration = Duration::from_micros(100);

/// The reading side.
pub(crate) struct Connection {
    reader: BufReader<Socket>,
    payload: Vec<u8>,
}

/// A socket that is looked at for a moment before its reader sleeps.
struct Socket {
    stream: UnixStream,
    /// The last bytes came soon.
    is_brisk: bool,
}

impl Socket {
    /// Reads what is there, or comes soon; `None` if nothing does.
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
    /// For a connected socket.
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

    /// The next header; `None` when the client has gone.
    ///
    /// # Errors
    /// The system's; an end in the middle of a header is `UnexpectedEof`.
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

    /// The next `size` bytes. Memory is taken as they come, not as they are announced.
    ///
    /// # Errors
    /// The system's; an end before them is `UnexpectedEof`.
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

/// Writes the reply `number` of these words.
///
/// # Errors
/// The system's.
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

/// Sends a descriptor, with the byte that carries it.
///
/// # Errors
/// The system's.
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
