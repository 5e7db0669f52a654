//! [`Wake`]: ends the sleep of a thread in `poll`.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};

/// A descriptor that becomes readable. A socket pair, because not every system has eventfds.
#[derive(Debug)]
pub(super) struct Wake {
    near: UnixStream,
    far: UnixStream,
    is_set: AtomicBool,
}

impl Wake {
    /// Not readable yet.
    ///
    /// # Errors
    /// There is no descriptor left.
    pub(super) fn new() -> io::Result<Self> {
        let (near, far) = UnixStream::pair()?;
        near.set_nonblocking(true)?;
        far.set_nonblocking(true)?;
        Ok(Self {
            near,
            far,
            is_set: AtomicBool::new(false),
        })
    }

    /// Makes it readable.
    pub(super) fn set(&self) {
        if !self.is_set.swap(true, Ordering::SeqCst) {
            // It fails only when the buffer is full, which is readable, too.
            let _ = (&self.far).write(&[1]);
        }
    }

    /// Makes it unreadable again. The caller looks at everything afterwards.
    pub(super) fn clear(&self) {
        let _ = (&self.near).read(&mut [0; 8]);
        self.is_set.store(false, Ordering::SeqCst);
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.near.as_fd()
    }
}
