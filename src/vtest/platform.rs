//! What differs between systems: a [`Latch`] is an eventfd on Linux and a pipe elsewhere.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A descriptor that a client waits on until we make it readable.
pub(crate) struct Latch {
    ours: OwnedFd,
    #[cfg(not(target_os = "linux"))]
    theirs: Option<OwnedFd>,
}

impl Latch {
    /// A latch that is not readable.
    ///
    /// # Errors
    /// The system's, for lack of descriptors.
    #[cfg(target_os = "linux")]
    pub(crate) fn new() -> io::Result<Self> {
        use rustix::event::{EventfdFlags, eventfd};
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self {
            ours: eventfd(0, flags)?,
        })
    }

    /// A latch that is not readable.
    ///
    /// # Errors
    /// The system's, for lack of descriptors.
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

    /// The descriptor that the client gets a copy of.
    #[cfg(target_os = "linux")]
    pub(crate) fn for_client(&self) -> BorrowedFd<'_> {
        self.ours.as_fd()
    }

    /// The descriptor that the client gets a copy of.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn for_client(&self) -> BorrowedFd<'_> {
        self.theirs.as_ref().unwrap_or(&self.ours).as_fd()
    }

    /// Makes it readable.
    pub(crate) fn release(&self) {
        // An eventfd takes eight bytes at a time. It can be full only if it is readable already, and a pipe
        // that its reader has left needs nothing.
        if let Err(error) = rustix::io::write(&self.ours, &1_u64.to_ne_bytes()) {
            log::debug!("a latch could not be released: {error}");
        }
    }
}
