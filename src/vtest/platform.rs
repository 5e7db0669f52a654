//! What differs between operating systems: a [`Latch`] is an eventfd on Linux and a pipe elsewhere.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A descriptor that a client waits on until the server makes it readable.
pub(crate) struct Latch {
    ours: OwnedFd,
    #[cfg(not(target_os = "linux"))]
    theirs: Option<OwnedFd>,
}

impl Latch {
    /// Creates a latch that is not readable.
    ///
    /// # Errors
    /// The system has no descriptors left.
    #[cfg(target_os = "linux")]
    pub(crate) fn new() -> io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self {
            ours: eventfd(0, flags)?,
        })
    }

    /// Creates a latch that is not readable.
    ///
    /// # Errors
    /// The system has no descriptors left.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn new() -> io::Result<Self> {
        let (theirs, ours) = rustix::pipe::pipe()?;
        for end in [&theirs, &ours] {
            rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC)?;
        }
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok(Self {
            ours,
            theirs: Some(theirs),
        })
    }

    /// The descriptor to send to the client.
    #[cfg(target_os = "linux")]
    pub(crate) fn for_client(&self) -> BorrowedFd<'_> {
        self.ours.as_fd()
    }

    /// The descriptor to send to the client.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn for_client(&self) -> BorrowedFd<'_> {
        self.theirs.as_ref().unwrap_or(&self.ours).as_fd()
    }

    /// Makes the client's descriptor readable.
    pub(crate) fn release(&self) {
        // A write to an eventfd has eight bytes. It fails when the eventfd is already readable, or
        // when the pipe's reader has closed it: in both cases nothing is left to do.
        if let Err(error) = rustix::io::write(&self.ours, &1_u64.to_ne_bytes()) {
            log::debug!("cannot release a latch: {error}");
        }
    }
}
