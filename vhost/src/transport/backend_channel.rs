//! The channel for requests of the backend to the VMM (vhost-user.rst, "Back-end message types"):
//! mapping blobs into the guest's host-visible window, and configuration change notifications.
//!
//! Requests with an answer go one after the other, each with its answer, under one lock. A
//! configuration change has no answer. It needs only the lock for sending and never waits behind a
//! request.
//!
//! # Stopping
//!
//! The VMM may stop the device at any time, and then two things can go wrong.
//!
//! First, the VMM's main loop does not serve this channel while it waits for our answer to
//! `GET_VRING_BASE`. A queue thread that waits here for the VMM, while the connection thread waits
//! for the queue thread, would be a deadlock. So a stop raises the channel's interrupt, and whoever
//! waits here gets [`AskError::Stopped`] at once. `vmm_link` tries again when the device runs.
//!
//! Second, QEMU 11.1 ends by a segmentation fault when it *reads* a request about a device that is
//! stopped: its handlers take the device from a pointer that is null then. What was sent can't be
//! taken back. So the first byte of a request is sent alone, and the rest follows when the VMM has
//! taken that byte. It is reading the message then, and does nothing else until it has carried it
//! out. When a stop comes earlier, the byte is completed to a message of no known kind ([`VOID`]),
//! which QEMU logs and drops. Where the system does not tell whether the byte was taken (macOS),
//! messages are sent whole.
//!
//! A request that a stop interrupts later than that is *abandoned*. The VMM works through it in any
//! case. So the channel remembers it, reads the late answer before the next request, and takes back
//! a mapping that nobody wants any more.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use hesper_system::sync::Lock;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::interrupt::Interrupt;
use super::mapped_blobs::MappedBlob;
use super::socket::{TransferError, receive_rest, send_message, try_send_message};
use super::wire::{HEADER_BYTES, Header, NEED_REPLY, REPLY, VERSION, VERSION_MASK};
use crate::system::{is_all_taken, page_size};

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

/// The UUID of a shared object that nobody ever made. It is not the nil UUID: VMMs built on the
/// `vhost` crate take that for a broken message and do not answer.
const NOBODY: &[u8; 16] = b"hesper: barrier\0";

/// Completes a first byte to a header that nobody understands: the rest of a code that no request
/// has, the version as flags (no answer is wanted), and no body.
const VOID: &[u8] = &{
    let mut rest = [0; HEADER_BYTES - 1];
    let (code, flags) = (*b"oid", VERSION.to_ne_bytes());
    (rest[0], rest[1], rest[2]) = (code[0], code[1], code[2]);
    (rest[3], rest[4], rest[5], rest[6]) = (flags[0], flags[1], flags[2], flags[3]);
    rest
};

/// How long a VMM may take to begin reading a message. After that it gets the rest all the same: it
/// may wait for whole messages.
const TAKING: Duration = Duration::from_secs(2);

/// The most blobs that are mapped at a time when the VMM keeps its regions one by one. QEMU 11.1
/// ends when a device has more than 512 regions. The others are for guest RAM and other devices.
const MAX_MAPS: usize = 480;

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
    /// `SHARED_OBJECT` was negotiated, which makes a barrier possible.
    pub(super) barrier: bool,
    /// `CONFIGURE_MEM_SLOTS` was negotiated, so the VMM has room for a limited number of regions.
    pub(super) slots: bool,
}

/// Why a request to the VMM was not carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum AskError {
    /// The device is being stopped. Nothing has changed, or the change is taken back before the
    /// next request.
    #[error("the VMM stops the device")]
    Stopped,
    /// The request failed.
    #[error(transparent)]
    Failed(#[from] io::Error),
}

impl From<TransferError> for AskError {
    fn from(error: TransferError) -> Self {
        match error {
            TransferError::Interrupted => Self::Stopped,
            other => Self::Failed(other.into()),
        }
    }
}

/// A request whose answer was not read yet.
struct Unanswered {
    request: u32,
    /// For `SHMEM_MAP`: what was mapped, so that an abandoned mapping can be taken back.
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
    /// What the VMM has mapped, by its offset in the window.
    maps: Mutex<BTreeMap<u64, MappedBlob>>,
}

impl BackendChannel {
    pub(super) fn new(socket: UnixStream, options: ChannelOptions) -> io::Result<Self> {
        Ok(Self {
            socket,
            options,
            replies: Mutex::default(),
            sending: Mutex::default(),
            interrupt: Interrupt::new()?,
            maps: Mutex::default(),
        })
    }

    /// Ends requests that wait for the VMM, also later ones, until [`Self::resume`].
    pub(super) fn interrupt(&self) {
        self.interrupt.raise();
    }

    /// Undoes one [`Self::interrupt`].
    pub(super) fn resume(&self) {
        self.interrupt.lower();
    }

    /// Forgets all mappings: the VMM drops them when a driver resets the device.
    pub(super) fn forget_maps(&self) {
        self.maps().clear();
    }

    fn maps(&self) -> MutexGuard<'_, BTreeMap<u64, MappedBlob>> {
        self.maps.locked()
    }

    /// Tells the guest that the config space changed. There is no answer.
    pub(super) fn config_changed(&self) -> Result<(), AskError> {
        self.send(request::CONFIG_CHANGE, 0, &[], None)
    }

    /// Maps `len` bytes of `fd` into the window. Returns when the guest sees them.
    pub(super) fn map(
        &self,
        window_offset: u64,
        fd: BorrowedFd<'_>,
        fd_offset: u64,
        len: u64,
    ) -> Result<(), AskError> {
        self.check(window_offset, len)?;
        if !fd_offset.is_multiple_of(page_size()) || fd_offset.checked_add(len).is_none() {
            return Err(invalid(format!(
                "mapping offset {fd_offset:#x} of a blob: it must be a multiple of the page size"
            ))
            .into());
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
        // The blob must be on the list before the VMM offers the region to its devices.
        {
            let mut maps = self.maps();
            if self.options.slots && maps.len() >= MAX_MAPS {
                return Err(io::Error::other(format!(
                    "{MAX_MAPS} blobs are mapped, and QEMU has room for no more; the guest's programs must map less memory at a time"
                ))
                .into());
            }
            maps.insert(window_offset, MappedBlob::new(fd, fd_offset, len)?);
        }
        let asked = self.request(
            &mut replies,
            request::SHMEM_MAP,
            body.as_bytes(),
            Some(fd),
            Some(body),
        );
        let is_abandoned = !replies.unanswered.is_empty();
        if !matches!(asked, Ok(0)) && !is_abandoned {
            self.maps().remove(&window_offset);
        }
        match asked? {
            0 => self.barrier(&mut replies),
            answer => Err(io::Error::other(format!(
                "the VMM refused to map {len:#x} bytes at window offset {window_offset:#x} (answer {answer})"
            ))
            .into()),
        }
    }

    /// Unmaps a range of the window.
    pub(super) fn unmap(&self, window_offset: u64, len: u64) -> Result<(), AskError> {
        self.check(window_offset, len)?;
        let mut replies = self.lock_settled()?;
        match self.unmap_locked(&mut replies, window_offset, len) {
            // It is abandoned: the VMM will do it, and the next request waits for that.
            Err(AskError::Stopped) if !replies.unanswered.is_empty() => Ok(()),
            result => result,
        }
    }

    fn unmap_locked(
        &self,
        replies: &mut Replies,
        window_offset: u64,
        len: u64,
    ) -> Result<(), AskError> {
        let body = MemoryMap {
            region: HOST_VISIBLE,
            padding: [0; 7],
            fd_offset: 0,
            window_offset,
            len,
            flags: 0,
        };
        let asked = self.request(replies, request::SHMEM_UNMAP, body.as_bytes(), None, None);
        if asked.is_ok() || !replies.unanswered.is_empty() {
            self.maps().remove(&window_offset);
        }
        match asked? {
            0 => Ok(()),
            answer => Err(io::Error::other(format!(
                "the VMM refused to unmap {len:#x} bytes at window offset {window_offset:#x} (answer {answer})"
            ))
            .into()),
        }
    }

    /// Waits until a map is visible to the guest. QEMU acknowledges `SHMEM_MAP` before its memory
    /// transaction is committed, and a guest that touches the mapping in between reads zeros. QEMU
    /// handles the messages of this channel one after the other, so the answer to any later request
    /// tells that the commit is done. Removing a shared object that does not exist is such a
    /// request without an effect: it is refused, and the refusal is what we wait for. A stop is as
    /// good, since the main loop has gone on to it after the commit.
    fn barrier(&self, replies: &mut Replies) -> Result<(), AskError> {
        if self.options.barrier {
            match self.request(replies, request::SHARED_OBJECT_REMOVE, NOBODY, None, None) {
                Ok(_) | Err(AskError::Stopped) => {}
                Err(error) => return Err(error),
            }
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

    /// Locks the channel for a request, after it has dealt with abandoned requests.
    fn lock_settled(&self) -> Result<MutexGuard<'_, Replies>, AskError> {
        let mut replies = self.replies.locked();
        while let Some(front) = replies.unanswered.front() {
            let mapped = front.mapped;
            let answer = self.read_reply(&mut replies)?;
            let Some(map) = mapped else { continue };
            if answer == 0 {
                log::debug!(
                    "unmapping window offset {:#x}, whose request was abandoned",
                    map.window_offset
                );
                self.unmap_locked(&mut replies, map.window_offset, map.len)?;
            } else {
                self.maps().remove(&map.window_offset);
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
    ) -> Result<u64, AskError> {
        self.send(request, NEED_REPLY, body, fd)?;
        replies.unanswered.push_back(Unanswered { request, mapped });
        // Answers come in order, and everything before this request is settled.
        self.read_reply(replies)
    }

    /// Sends a message in two parts; see the module.
    fn send(
        &self,
        request: u32,
        flags: u32,
        body: &[u8],
        fd: Option<BorrowedFd<'_>>,
    ) -> Result<(), AskError> {
        let header = Header {
            request,
            flags: VERSION | flags,
            // All bodies are the constant ones above.
            size: u32::try_from(body.len()).unwrap_or(u32::MAX),
        };
        let head = header.as_bytes();
        let (first, rest) = head.split_at(1);
        let _sending = self.sending.locked();
        // The barrier is not about the device, so QEMU may read it at any time.
        if request == request::SHARED_OBJECT_REMOVE || is_all_taken(&self.socket).is_none() {
            send_message(&self.socket, &[head, body], fd, &self.interrupt)?;
            return Ok(());
        }
        send_message(&self.socket, &[first, &[]], fd, &self.interrupt)?;
        let taken = self.wait_until_taken();
        // The VMM waits for these bytes now, or will. Nothing may end this half-way, and the socket
        // has room.
        match taken {
            Ok(()) => try_send_message(&self.socket, &[rest, body], None)?,
            Err(_) => try_send_message(&self.socket, &[VOID, &[]], None)?,
        }
        taken
    }

    /// Waits until the VMM has begun to read what was sent.
    fn wait_until_taken(&self) -> Result<(), AskError> {
        let deadline = Instant::now() + TAKING;
        let mut pause = Duration::ZERO;
        while is_all_taken(&self.socket) == Some(false) {
            let now = Instant::now();
            if now >= deadline {
                log::debug!("the VMM has not begun to read a message on the backend channel");
                break;
            }
            if self.interrupt.wait_raised_until(now + pause)? {
                return Err(AskError::Stopped);
            }
            // A VMM that waits for messages takes it at once. A busy one should not be polled all
            // the time.
            pause = (pause + Duration::from_micros(10)).min(Duration::from_millis(1));
        }
        Ok(())
    }

    /// Reads the answer to the oldest unanswered request.
    fn read_reply(&self, replies: &mut Replies) -> Result<u64, AskError> {
        if replies.broken {
            return Err(io::Error::other(
                "the VMM's answers on the backend channel are out of step",
            )
            .into());
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
                ))
                .into())
            }
        }
    }
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

#[cfg(test)]
#[path = "backend_channel_tests.rs"]
mod tests;
