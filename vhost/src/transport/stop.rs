//! Ends serving from another thread.

use std::net::Shutdown;
use std::os::fd::BorrowedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use hesper_system::sync::Lock;

use super::Error;
use super::interrupt::Interrupt;

/// What a server shares with its shutdown handles and the connection being served.
pub(super) struct Stop {
    requested: AtomicBool,
    interrupt: Interrupt,
    /// The connection being served.
    connection: Mutex<Option<UnixStream>>,
}

impl Stop {
    pub(super) fn new() -> Result<Arc<Self>, Error> {
        Ok(Arc::new(Self {
            requested: AtomicBool::new(false),
            interrupt: Interrupt::new().map_err(Error::system("cannot make an event"))?,
            connection: Mutex::default(),
        }))
    }

    /// A descriptor that is ready for reading once a shutdown is requested.
    pub(super) fn event(&self) -> BorrowedFd<'_> {
        self.interrupt.event()
    }

    /// Waits until a shutdown is requested, but no longer than `deadline`.
    pub(super) fn wait_until(&self, deadline: Instant) -> std::io::Result<()> {
        self.interrupt.wait_raised_until(deadline).map(|_| ())
    }

    pub(super) fn requested(&self) -> bool {
        self.requested.load(Ordering::Acquire)
    }

    pub(super) fn request(&self) {
        self.requested.store(true, Ordering::Release);
        self.interrupt.raise();
        let connection = self.connection.locked();
        if let Some(connection) = &*connection {
            // This fails only when the peer has closed it, which is what we want.
            let _ = connection.shutdown(Shutdown::Both);
        }
    }

    /// Sets the connection that a shutdown ends, or none.
    pub(super) fn watch(&self, connection: Option<UnixStream>) {
        let mut watched = self.connection.locked();
        if let Some(connection) = &connection
            && self.requested()
        {
            let _ = connection.shutdown(Shutdown::Both);
        }
        *watched = connection;
    }
}
