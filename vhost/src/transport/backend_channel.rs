//! The channel on which the backend asks the VMM for something (vhost-user.rst, "Back-end message types"):
//! mapping blobs into the guest's host-visible window, and configuration change notifications.
//!
//! Requests that are answered go one after the other, each with its answer, under one lock. A configuration
//! change is not answered, so it needs only the lock for sending and never waits behind a request.
//!
//! The hard thing is stopping. While the VMM's main loop waits for our answer to `GET_VRING_BASE`, it does
//! not serve this channel; a queue thread that waits here for the VMM, while the connection thread waits for
//! the queue thread, would be a deadlock. So a stop raises the channel's interrupt, and the waiting request is
//! *abandoned*: its caller gets an error at once. The VMM will still work through it later, so the channel
//! remembers it, and before the next request reads the late answer and takes back a mapping that nobody
//! asked for any more.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::interrupt::Interrupt;
use super::socket::{TransferError, receive_rest, send_message, try_send_message};
use super::wire::{HEADER_BYTES, Header, NEED_REPLY, REPLY, VERSION, VERSION_MASK};
use crate::system::page_size;

/// `VHOST_USER_BACKEND_*` request codes.
mod request {
    pub(super) const CONFIG_CHANGE: u32 = 2;
    pub(super) const SHARED_OBJECT_REMOVE: u32 = 7;
    pub(super) const SHMEM_MAP: u32 = 9;
    pub(super) const SHMEM_UNMAP: u32 = 10;
}

/// `VHOST_USER_FLAG_MAP_RW`.
const MAP_WRITABLE: u64 = 1;

/// `VIRTIO_GPU_SHM_ID_HOST_VISIBLE`: which shared memory region the window is (virtio-v1.4 §5.7.6).
const HOST_VISIBLE: u8 = 1;

/// The body of `SHMEM_MAP` and `SHMEM_UNMAP`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct MemoryMap {
    region: u8,
    padding: [u8; 7],
    fd_offset: u64,
    window_offset: u64,
    len: u64,
    flags: u64,
}

/// The UUID of a shared object that nobody ever made. Not the nil UUID: VMMs built on the `vhost` crate take
/// that for a broken message and do not answer.
const NOBODY: &[u8; 16] = b"hesper: barrier\0";

const REPLY_BYTES: usize = HEADER_BYTES + size_of::<u64>();

/// What the VMM and the backend agreed on for this channel.
#[derive(Clone, Copy, Debug)]
pub(super) struct ChannelOptions {
    /// Size of the host-visible window in bytes.
    pub(super) window: u64,
    /// `REPLY_ACK` was negotiated.
    pub(super) replies: bool,
    /// `SHMEM` was negotiated.
    pub(super) shmem: bool,
    /// `SHARED_OBJECT` was negotiated, so that there is a barrier.
    pub(super) barrier: bool,
}

/// A request whose answer was not read yet.
struct Unanswered {
    request: u32,
    /// For `SHMEM_MAP`: where, so that an abandoned mapping can be taken back.
    mapped: Option<MemoryMap>,
}

/// The reading side, held for a whole request.
#[derive(Default)]
struct Replies {
    unanswered: VecDeque<Unanswered>,
    buffer: [u8; REPLY_BYTES],
    filled: usize,
    broken: bool,
}

/// The channel; see the module.
pub(super) struct BackendChannel {
    socket: UnixStream,
    options: ChannelOptions,
    replies: Mutex<Replies>,
    sending: Mutex<()>,
    interrupt: Interrupt,
}

impl BackendChannel {
    pub(super) fn new(socket: UnixStream, options: ChannelOptions) -> io::Result<Self> {
        Ok(Self {
            socket,
            options,
            replies: Mutex::default(),
            sending: Mutex::default(),
            interrupt: Interrupt::new()?,
        })
    }

    /// Ends requests that wait for the VMM, and those that come, until [`Self::resume`].
    pub(super) fn interrupt(&self) {
        self.interrupt.raise();
    }

    /// Takes one [`Self::interrupt`] back.
    pub(super) fn resume(&self) {
        self.interrupt.lower();
    }

    /// Tells the guest that the config space changed. Never waits: when the VMM's buffer is full, it has
    /// unread messages, and then one of these among them.
    pub(super) fn config_changed(&self) -> io::Result<()> {
        let header = Header {
            request: request::CONFIG_CHANGE,
            flags: VERSION,
            size: 0,
        };
        let _sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
        match try_send_message(&self.socket, &[header.as_bytes(), &[]], None) {
            Err(TransferError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            result => Ok(result?),
        }
    }

    /// Maps `len` bytes of `fd` into the window; returns when the guest sees them.
    pub(super) fn map(
        &self,
        window_offset: u64,
        fd: BorrowedFd<'_>,
        fd_offset: u64,
        len: u64,
    ) -> io::Result<()> {
        self.check(window_offset, len)?;
        if !fd_offset.is_multiple_of(page_size()) || fd_offset.checked_add(len).is_none() {
            return Err(invalid(format!(
                "mapping offset {fd_offset:#x} of a blob: it must be a multiple of the page size"
            )));
        }
        let body = MemoryMap {
            region: HOST_VISIBLE,
            padding: [0; 7],
            fd_offset,
            window_offset,
            len,
            flags: MAP_WRITABLE,
        };
        let mut replies = self.lock_settled()?;
        let answer = self.request(
            &mut replies,
            request::SHMEM_MAP,
            body.as_bytes(),
            Some(fd),
            Some(body),
        )?;
        if answer != 0 {
            return Err(io::Error::other(format!(
                "the VMM refused to map {len:#x} bytes at window offset {window_offset:#x} (answer {answer})"
            )));
        }
        self.barrier(&mut replies)
    }

    /// Takes a mapping out of the window.
    pub(super) fn unmap(&self, window_offset: u64, len: u64) -> io::Result<()> {
        self.check(window_offset, len)?;
        let mut replies = self.lock_settled()?;
        self.unmap_locked(&mut replies, window_offset, len)
    }

    fn unmap_locked(&self, replies: &mut Replies, window_offset: u64, len: u64) -> io::Result<()> {
        let body = MemoryMap {
            region: HOST_VISIBLE,
            padding: [0; 7],
            fd_offset: 0,
            window_offset,
            len,
            flags: 0,
        };
        match self.request(replies, request::SHMEM_UNMAP, body.as_bytes(), None, None)? {
            0 => Ok(()),
            answer => Err(io::Error::other(format!(
                "the VMM refused to unmap {len:#x} bytes at window offset {window_offset:#x} (answer {answer})"
            ))),
        }
    }

    /// QEMU acknowledges `SHMEM_MAP` before its memory transaction is committed; a guest that touches the
    /// mapping in between reads zeros. It handles one message of this channel after the other, so the answer
    /// to any later request tells that the commit is done. Removing a shared object that does not exist is
    /// such a request without an effect: it is refused, and the refusal is what is waited for.
    fn barrier(&self, replies: &mut Replies) -> io::Result<()> {
        if self.options.barrier {
            self.request(replies, request::SHARED_OBJECT_REMOVE, NOBODY, None, None)?;
        }
        Ok(())
    }

    /// QEMU accepts offsets that are not page-aligned and then aborts when the guest touches them.
    fn check(&self, window_offset: u64, len: u64) -> io::Result<()> {
        if !self.options.shmem || !self.options.replies {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "the VMM has no host-visible window; use QEMU >= 11.1 with vhost-user-test-device-pci",
            ));
        }
        let page = page_size();
        if len == 0 || !len.is_multiple_of(page) || !window_offset.is_multiple_of(page) {
            return Err(invalid(format!(
                "window range {window_offset:#x} + {len:#x}: both must be multiples of the page size {page:#x}, \
                 and the length above 0"
            )));
        }
        match window_offset.checked_add(len) {
            Some(end) if end <= self.options.window => Ok(()),
            _ => Err(invalid(format!(
                "window range {window_offset:#x} + {len:#x} exceeds the window of {:#x} bytes",
                self.options.window
            ))),
        }
    }

    /// Locks the channel for a request and deals with what abandoned requests left behind.
    fn lock_settled(&self) -> io::Result<std::sync::MutexGuard<'_, Replies>> {
        let mut replies = self.replies.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(front) = replies.unanswered.front() {
            let mapped = front.mapped;
            if self.read_reply(&mut replies)? == 0
                && let Some(map) = mapped
            {
                log::debug!(
                    "unmapping window offset {:#x}, whose request was abandoned",
                    map.window_offset
                );
                self.unmap_locked(&mut replies, map.window_offset, map.len)?;
            }
        }
        Ok(replies)
    }

    fn request(
        &self,
        replies: &mut Replies,
        request: u32,
        body: &[u8],
        fd: Option<BorrowedFd<'_>>,
        mapped: Option<MemoryMap>,
    ) -> io::Result<u64> {
        let header = Header {
            request,
            flags: VERSION | NEED_REPLY,
            // The bodies are the three constant ones above.
            size: u32::try_from(body.len()).unwrap_or(u32::MAX),
        };
        {
            let _sending = self.sending.lock().unwrap_or_else(PoisonError::into_inner);
            send_message(
                &self.socket,
                &[header.as_bytes(), body],
                fd,
                &self.interrupt,
            )?;
        }
        replies.unanswered.push_back(Unanswered { request, mapped });
        // Answers come in order, and everything before this request was settled.
        self.read_reply(replies)
    }

    /// Reads the answer to the oldest unanswered request.
    fn read_reply(&self, replies: &mut Replies) -> io::Result<u64> {
        if replies.broken {
            return Err(io::Error::other(
                "the VMM's answers on the backend channel are out of step",
            ));
        }
        receive_rest(
            &self.socket,
            &mut replies.buffer,
            &mut replies.filled,
            &self.interrupt,
        )?;
        replies.filled = 0;
        let expected = replies.unanswered.pop_front().map(|front| front.request);
        let parsed = Header::read_from_prefix(&replies.buffer)
            .ok()
            .and_then(|(header, rest)| Some((header, u64::read_from_bytes(rest).ok()?)));
        match parsed {
            Some((header, value))
                if Some(header.request) == expected
                    && header.flags & REPLY != 0
                    && header.flags & VERSION_MASK == VERSION
                    && header.size as usize == size_of::<u64>() =>
            {
                Ok(value)
            }
            _ => {
                replies.broken = true;
                Err(io::Error::other(format!(
                    "the VMM sent something else than the answer to request {expected:?} on the backend \
                     channel; host blobs cannot be mapped any more"
                )))
            }
        }
    }
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsFd;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use super::*;

    const OPTIONS: ChannelOptions = ChannelOptions {
        window: 1 << 20,
        replies: true,
        shmem: true,
        barrier: true,
    };

    fn pair() -> (Arc<BackendChannel>, UnixStream) {
        let (near, far) = UnixStream::pair().unwrap();
        (Arc::new(BackendChannel::new(near, OPTIONS).unwrap()), far)
    }

    /// Reads one request of the backend.
    fn read(vmm: &mut UnixStream) -> (u32, Vec<u8>) {
        let mut header = [0; HEADER_BYTES];
        vmm.read_exact(&mut header).unwrap();
        let header = Header::read_from_bytes(&header).unwrap();
        let mut body = vec![0; header.size as usize];
        vmm.read_exact(&mut body).unwrap();
        (header.request, body)
    }

    fn answer(vmm: &mut UnixStream, request: u32, value: u64) {
        let header = Header {
            request,
            flags: VERSION | REPLY,
            size: 8,
        };
        vmm.write_all(header.as_bytes()).unwrap();
        vmm.write_all(&value.to_ne_bytes()).unwrap();
    }

    #[test]
    fn map_returns_after_the_answer_to_the_barrier() {
        let (channel, mut vmm) = pair();
        let caller = std::thread::spawn(move || {
            let file = tempfile::tempfile().unwrap();
            channel.map(0x1000, file.as_fd(), 0, 0x2000)
        });
        let (code, body) = read(&mut vmm);
        assert_eq!(code, request::SHMEM_MAP);
        let map = MemoryMap::read_from_bytes(&body).unwrap();
        assert_eq!(
            (map.region, map.window_offset, map.len),
            (1, 0x1000, 0x2000)
        );
        answer(&mut vmm, code, 0);
        let (code, _) = read(&mut vmm);
        assert_eq!(code, request::SHARED_OBJECT_REMOVE);
        std::thread::sleep(Duration::from_millis(20));
        assert!(!caller.is_finished(), "the mapping may not be live yet");
        answer(&mut vmm, code, 1);
        caller.join().unwrap().unwrap();
    }

    #[test]
    fn a_bad_range_is_refused_without_asking_the_vmm() {
        let (channel, vmm) = pair();
        vmm.set_nonblocking(true).unwrap();
        // So that a request that should not be made fails instead of waiting.
        channel.interrupt();
        let file = tempfile::tempfile().unwrap();
        for (offset, fd_offset, len) in [
            (1, 0, 0x1000),
            (0, 0, 0),
            (0, 0, 0x800),
            (0, 3, 0x1000),
            (0, 0, (1 << 20) + 0x1000),
            (1 << 20, 0, 0x1000),
            (!0xfff, 0, 0x1000),
            (0, !0xfff, 0x1000),
        ] {
            let error = channel
                .map(offset, file.as_fd(), fd_offset, len)
                .unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{error}");
        }
        let mut byte = [0];
        assert_eq!(
            (&vmm).read(&mut byte).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
    }

    #[test]
    fn an_interrupted_map_is_abandoned_and_undone_before_the_next_request() {
        let (channel, mut vmm) = pair();
        let caller = {
            let channel = channel.clone();
            std::thread::spawn(move || {
                let file = tempfile::tempfile().unwrap();
                channel.map(0x3000, file.as_fd(), 0, 0x1000)
            })
        };
        let (map_code, _) = read(&mut vmm);
        let start = Instant::now();
        channel.interrupt();
        caller.join().unwrap().unwrap_err();
        assert!(start.elapsed() < Duration::from_millis(100));
        channel.resume();

        // The VMM comes round to the abandoned request only now.
        answer(&mut vmm, map_code, 0);
        let caller = std::thread::spawn(move || channel.unmap(0x8000, 0x1000));
        let (code, body) = read(&mut vmm);
        assert_eq!(code, request::SHMEM_UNMAP);
        let undone = MemoryMap::read_from_bytes(&body).unwrap();
        assert_eq!((undone.window_offset, undone.len), (0x3000, 0x1000));
        answer(&mut vmm, code, 0);
        let (code, body) = read(&mut vmm);
        let wanted = MemoryMap::read_from_bytes(&body).unwrap();
        assert_eq!((code, wanted.window_offset), (request::SHMEM_UNMAP, 0x8000));
        answer(&mut vmm, code, 0);
        caller.join().unwrap().unwrap();
    }

    #[test]
    fn a_config_change_is_sent_while_a_request_waits() {
        let (channel, mut vmm) = pair();
        let caller = {
            let channel = channel.clone();
            std::thread::spawn(move || channel.unmap(0, 0x1000))
        };
        let (code, _) = read(&mut vmm);
        channel.config_changed().unwrap();
        assert_eq!(read(&mut vmm), (request::CONFIG_CHANGE, vec![]));
        answer(&mut vmm, code, 0);
        caller.join().unwrap().unwrap();
    }

    #[test]
    fn a_vmm_that_reads_nothing_does_not_block_config_changes() {
        let (channel, _vmm) = pair();
        for _ in 0..10_000 {
            channel.config_changed().unwrap();
        }
    }

    #[test]
    fn a_wrong_answer_breaks_the_channel_for_good() {
        let (channel, mut vmm) = pair();
        let caller = {
            let channel = channel.clone();
            std::thread::spawn(move || channel.unmap(0, 0x1000))
        };
        read(&mut vmm);
        answer(&mut vmm, 77, 0);
        caller.join().unwrap().unwrap_err();
        answer(&mut vmm, request::SHMEM_UNMAP, 0);
        channel.unmap(0, 0x1000).unwrap_err();
    }
}
