//! Descriptors that the parent process left open for this one.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_setfd};

/// Takes ownership of a descriptor that the command line names. Programs that this process executes
/// do not get it.
///
/// # Errors
/// It is not open.
pub(crate) fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the borrow ends before anything of this process could open or close `fd`; setting the
    // flags of a number that is not open is an error, not a fault.
    fcntl_setfd(unsafe { BorrowedFd::borrow_raw(fd) }, FdFlags::CLOEXEC)?;
    // SAFETY: `fd` is open, and nobody else in this process owns it: this runs before the program
    // opens anything that outlives the call, and the command line names it to hand it over.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
