//! What differs between operating systems: events, and identities of files.
//!
//! Linux has eventfds and gives every memory file an inode. macOS has pipes, and POSIX shared
//! memory without an inode. `hesper-system` tells which of them to follow.

use std::fs::{File, Metadata};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

pub(crate) use hesper_system::page_size;
use hesper_system::played;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

/// Whether Hesper follows macOS.
pub(crate) fn is_macos() -> bool {
    cfg!(target_vendor = "apple") || played().is_some()
}

/// Two ends of an event. What is written to the second can be read from the first, in records of 8
/// bytes. Neither end ever blocks.
pub(crate) fn event() -> io::Result<(OwnedFd, OwnedFd)> {
    #[cfg(target_os = "linux")]
    if !is_macos() {
        use rustix::event::{EventfdFlags, eventfd};
        let one = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let other = one.try_clone()?;
        return Ok((one, other));
    }
    let (read, write) = rustix::pipe::pipe()?;
    for end in [&read, &write] {
        rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC)?;
        do_not_wait(end)?;
    }
    Ok((read, write))
}

fn do_not_wait(fd: impl AsFd) -> io::Result<()> {
    let flags = fcntl_getfl(&fd)?;
    Ok(fcntl_setfl(fd, flags | OFlags::NONBLOCK)?)
}

/// Makes an event of the VMM safe to signal or to read, whatever it is: a full pipe or socket must
/// not block a queue, nor a kick that somebody else has taken.
pub(crate) fn never_wait(event: &File) -> io::Result<()> {
    do_not_wait(event)
}

/// Whether the peer of a stream socket has read everything that was sent. `None` when the system
/// does not tell: macOS counts nothing on the sender's side.
pub(crate) fn is_all_taken(socket: &std::os::unix::net::UnixStream) -> Option<bool> {
    #[cfg(all(
        target_os = "linux",
        any(
            target_arch = "x86_64",
            target_arch = "aarch64",
            target_arch = "riscv64",
            target_arch = "loongarch64"
        )
    ))]
    if !is_macos() {
        use rustix::ioctl::{Getter, Opcode, ioctl};
        /// `SIOCOUTQ` is `TIOCOUTQ` (linux/sockios.h), 0x5411 where asm-generic/ioctls.h holds.
        const SIOCOUTQ: Opcode = 0x5411;
        // SAFETY: on a socket this writes one `int`, which is what the getter has room for.
        let unread = unsafe { ioctl(socket, Getter::<SIOCOUTQ, std::ffi::c_int>::new()) };
        return unread.ok().map(|bytes| bytes == 0);
    }
    let _ = socket;
    None
}

/// Identifies the memory behind a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Identity {
    /// A file: device and inode.
    File(u64, u64),
    /// POSIX shared memory of macOS, which has neither.
    Nameless,
    /// Something else. Two of these may share an inode and still differ.
    Unknown,
}

/// The identity of the file with this metadata.
pub(crate) fn identity(metadata: &Metadata) -> Identity {
    let (device, inode) = (metadata.dev(), metadata.ino());
    let has_inode = metadata.is_file() && (device, inode) != (0, 0);
    match (has_inode, is_macos()) {
        (true, true) if cfg!(not(target_vendor = "apple")) => Identity::Nameless,
        (true, _) => Identity::File(device, inode),
        (false, true) if (device, inode) == (0, 0) => Identity::Nameless,
        (false, _) => Identity::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_full_pipe_as_a_call_event_does_not_wait() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let (mut read, mut write) = (File::from(read), File::from(write));
        never_wait(&write).unwrap();
        let mut written = 0;
        let full = loop {
            match write.write(&1_u64.to_ne_bytes()) {
                Ok(count) => written += count,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(written % 8, 0, "records are whole");
        let mut record = [0; 8];
        read.read_exact(&mut record).unwrap();
        assert_eq!(u64::from_ne_bytes(record), 1);
    }

    #[test]
    fn files_are_told_apart_and_events_are_not_files() {
        let (one, two) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let again = one.try_clone().unwrap();
        let identity = |file: &File| identity(&file.metadata().unwrap());
        assert_eq!(identity(&one), identity(&again));
        assert_ne!(identity(&one), identity(&two));
        let (event, _) = event().unwrap();
        assert_eq!(identity(&File::from(event)), Identity::Unknown);
    }
}
