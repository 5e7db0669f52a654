//! The virtio-gpu driver's own interface, as far as programs for tests need it (the kernel's
//! `virtgpu_drm.h`).

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::ioctl::{Updater, ioctl, opcode::read_write};
use rustix::mm::{MapFlags, ProtFlags};

/// How long to wait for the host. Emulated guests are slow.
const PATIENCE: Timespec = Timespec {
    tv_sec: 60,
    tv_nsec: 0,
};

const GUEST: u32 = 1;
const HOST: u32 = 2;
const MAPPABLE: u32 = 1;
const FENCE_FD_OUT: u32 = 2;
const RING_INDEX: u32 = 4;
const PARAMETER_CAPSET: u64 = 1;
const PARAMETER_RINGS: u64 = 2;
const PARAMETER_POLLED_RINGS: u64 = 3;
/// The event of a signalled fence on a polled ring.
const FENCE_SIGNALLED: u32 = 0x9000_0000;

#[repr(C)]
struct Map {
    offset: u64,
    handle: u32,
    pad: u32,
}

#[repr(C)]
struct Execute {
    flags: u32,
    size: u32,
    command: u64,
    handles: u64,
    handle_count: u32,
    fence_fd: i32,
    ring: u32,
    stride: u32,
    syncobj_counts: [u32; 2],
    syncobjs: [u64; 2],
}

#[repr(C)]
struct CreateBlob {
    memory: u32,
    flags: u32,
    handle: u32,
    resource: u32,
    size: u64,
    pad: u32,
    command_size: u32,
    command: u64,
    blob_id: u64,
}

#[repr(C)]
struct Parameter {
    name: u64,
    value: u64,
}

#[repr(C)]
struct ContextInit {
    count: u32,
    pad: u32,
    parameters: u64,
}

const DRM: u8 = b'd';
const MAP: rustix::ioctl::Opcode = read_write::<Map>(DRM, 0x41);
const EXECUTE: rustix::ioctl::Opcode = read_write::<Execute>(DRM, 0x42);
const CREATE_BLOB: rustix::ioctl::Opcode = read_write::<CreateBlob>(DRM, 0x4a);
const CONTEXT_INIT: rustix::ioctl::Opcode = read_write::<ContextInit>(DRM, 0x4b);

/// A context of the kernel's driver.
pub struct Context {
    file: File,
}

/// A mapped blob.
pub struct Blob {
    /// The id of its resource.
    pub resource: u32,
    start: NonNull<u8>,
    length: usize,
}

impl Context {
    /// Creates a context of a capability set with two rings. The second ring is polled.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn open(capset: u64) -> io::Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .open("/dev/dri/renderD128")?;
        let parameters = [
            (PARAMETER_CAPSET, capset),
            (PARAMETER_RINGS, 2),
            (PARAMETER_POLLED_RINGS, 1 << 1),
        ]
        .map(|(name, value)| Parameter { name, value });
        let mut init = ContextInit {
            count: parameters.len() as u32,
            pad: 0,
            parameters: parameters.as_ptr() as u64,
        };
        // SAFETY: the structure is the kernel's, and the parameters live through the call.
        unsafe { ioctl(&file, Updater::<CONTEXT_INIT, _>::new(&mut init)) }?;
        Ok(Self { file })
    }

    /// Creates a blob in the guest's own memory.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn guest_blob(&self, size: u64) -> io::Result<Blob> {
        self.blob(GUEST, 0, size)
    }

    /// Creates a blob that the host allocates.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn host_blob(&self, blob_id: u32, size: u64) -> io::Result<Blob> {
        self.blob(HOST, blob_id.into(), size)
    }

    fn blob(&self, memory: u32, blob_id: u64, size: u64) -> io::Result<Blob> {
        let mut create = CreateBlob {
            memory,
            flags: MAPPABLE,
            handle: 0,
            resource: 0,
            size,
            pad: 0,
            command_size: 0,
            command: 0,
            blob_id,
        };
        // SAFETY: the structure is the kernel's.
        unsafe { ioctl(&self.file, Updater::<CREATE_BLOB, _>::new(&mut create)) }?;
        let mut map = Map {
            offset: 0,
            handle: create.handle,
            pad: 0,
        };
        // SAFETY: as above.
        unsafe { ioctl(&self.file, Updater::<MAP, _>::new(&mut map)) }?;
        let length = usize::try_from(size).map_err(io::Error::other)?;
        let both = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: this makes a new mapping of a blob that has this size.
        let start = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                length,
                both,
                MapFlags::SHARED,
                &self.file,
                map.offset,
            )
        }?;
        Ok(Blob {
            resource: create.resource,
            start: NonNull::new(start.cast()).ok_or_else(|| io::Error::other("mapped at 0"))?,
            length,
        })
    }

    fn execute(&self, commands: &[u8], flags: u32, ring: u32) -> io::Result<i32> {
        let mut execute = Execute {
            flags,
            size: commands.len() as u32,
            command: commands.as_ptr() as u64,
            handles: 0,
            handle_count: 0,
            fence_fd: -1,
            ring,
            stride: 0,
            syncobj_counts: [0; 2],
            syncobjs: [0; 2],
        };
        // SAFETY: the structure is the kernel's, and the commands live through the call.
        unsafe { ioctl(&self.file, Updater::<EXECUTE, _>::new(&mut execute)) }?;
        Ok(execute.fence_fd)
    }

    /// Submits commands.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn submit(&self, commands: &[u8]) -> io::Result<()> {
        self.execute(commands, RING_INDEX, 0).map(|_| ())
    }

    /// Submits commands and waits until they are done.
    ///
    /// # Errors
    /// The kernel's error, or that the host is silent for a minute.
    pub fn submit_and_wait(&self, commands: &[u8]) -> io::Result<()> {
        let fence = self.execute(commands, RING_INDEX | FENCE_FD_OUT, 0)?;
        // SAFETY: the kernel created the descriptor for us.
        readable(&unsafe { OwnedFd::from_raw_fd(fence) })
    }

    /// Submits commands with a fence on the polled ring, and waits for its event.
    ///
    /// # Errors
    /// The kernel's error, or that the host is silent for a minute.
    pub fn poll(&self, commands: &[u8]) -> io::Result<()> {
        self.execute(commands, RING_INDEX, 1)?;
        readable(&self.file)?;
        let mut event = [0; 64];
        let length = (&self.file).read(&mut event)?;
        let kind = event.first_chunk().map(|kind| u32::from_ne_bytes(*kind));
        if length >= 8 && kind == Some(FENCE_SIGNALLED) {
            Ok(())
        } else {
            Err(io::Error::other(format!(
                "an event {kind:x?} of {length} bytes"
            )))
        }
    }
}

fn readable(file: &impl AsFd) -> io::Result<()> {
    let mut wait = [PollFd::new(file, PollFlags::IN)];
    match rustix::event::poll(&mut wait, Some(&PATIENCE))? {
        0 => Err(io::Error::other("the host is silent")),
        _ => Ok(()),
    }
}

impl Drop for Blob {
    fn drop(&mut self) {
        // Unmap it, because a mapping would keep the context alive.
        //
        // SAFETY: the mapping was made for this value, and nobody uses it any more.
        let unmapped = unsafe { rustix::mm::munmap(self.start.as_ptr().cast(), self.length) };
        if let Err(error) = unmapped {
            eprintln!("a blob stays mapped: {error}");
        }
    }
}

impl Blob {
    /// Copies its bytes.
    #[must_use]
    pub fn read(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.length];
        // SAFETY: the mapping has this many bytes, and lives as long as the value.
        unsafe {
            std::ptr::copy_nonoverlapping(self.start.as_ptr(), bytes.as_mut_ptr(), self.length)
        };
        bytes
    }

    /// Copies bytes to `offset`. False, and nothing is written, if they do not fit.
    #[must_use]
    pub fn write(&self, offset: usize, bytes: &[u8]) -> bool {
        let is_inside = (offset.checked_add(bytes.len())).is_some_and(|end| end <= self.length);
        if is_inside {
            // SAFETY: the bytes fit into the mapping, which lives as long as the value.
            unsafe {
                let to = self.start.as_ptr().add(offset);
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len());
            }
        }
        is_inside
    }

    /// The word at `offset`, which both sides use as a signal. `None` if it is not inside, or not
    /// at a multiple of four.
    #[must_use]
    pub fn word(&self, offset: usize) -> Option<&AtomicU32> {
        let is_inside = offset.checked_add(4).is_some_and(|end| end <= self.length);
        // SAFETY: inside the mapping, which lives as long as the value and begins at a page.
        (is_inside && offset.is_multiple_of(4))
            .then(|| unsafe { AtomicU32::from_ptr(self.start.as_ptr().add(offset).cast()) })
    }

    /// Fills the whole blob with the four bytes, again and again.
    pub fn fill(&self, word: [u8; 4]) {
        for index in 0..self.length / 4 {
            // SAFETY: the write is inside the mapping, which is page-aligned.
            unsafe { self.start.cast::<[u8; 4]>().add(index).write_volatile(word) };
        }
    }
}
