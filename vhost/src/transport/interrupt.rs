//! A wait that another thread can end.
//!
//! Every thread of the transport that may wait for a peer waits through an [`Interrupt`]. So
//! stopping a queue, losing the VM or SIGTERM never has to wait for a peer. Raising is a level, not
//! an edge: waits that begin while it is raised end at once, until it is lowered again.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::time::Instant;

use hesper_system::sync::Lock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::system;

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wait {
    /// The descriptor is ready, or its peer hung up: the next call on it does not block.
    Ready,
    /// The interrupt was raised.
    Raised,
    /// The deadline has passed.
    TimedOut,
}

/// A level that ends waits; see the module.
pub(super) struct Interrupt {
    /// How many raises are not lowered yet. The lock also orders writes to and reads from the event
    /// pair.
    raised: Mutex<u32>,
    read: OwnedFd,
    write: OwnedFd,
}

impl Interrupt {
    pub(super) fn new() -> io::Result<Self> {
        let (read, write) = system::event()?;
        Ok(Self {
            raised: Mutex::new(0),
            read,
            write,
        })
    }

    /// Ends all waits, also later ones, until every raise was lowered.
    pub(super) fn raise(&self) {
        let mut raised = self.raised.locked();
        *raised = raised.saturating_add(1);
        if *raised == 1
            && let Err(error) = rustix::io::write(&self.write, &1_u64.to_ne_bytes())
        {
            log::error!("cannot wake a waiting thread of the transport: {error}");
        }
    }

    /// Takes one raise back.
    pub(super) fn lower(&self) {
        let mut raised = self.raised.locked();
        *raised = raised.saturating_sub(1);
        if *raised == 0 {
            self.consume();
        }
    }

    /// Takes every raise back.
    pub(super) fn clear(&self) {
        let mut raised = self.raised.locked();
        *raised = 0;
        self.consume();
    }

    /// Whether it is raised now.
    pub(super) fn is_raised(&self) -> bool {
        *self.raised.locked() > 0
    }

    /// Waits until the interrupt is raised.
    pub(super) fn wait_raised(&self) -> io::Result<()> {
        self.wait(self.event(), PollFlags::IN, None).map(|_| ())
    }

    /// Waits until the interrupt is raised or `deadline` has passed. Returns whether it is raised.
    pub(super) fn wait_raised_until(&self, deadline: Instant) -> io::Result<bool> {
        let wait = self.wait(self.event(), PollFlags::IN, Some(deadline))?;
        Ok(wait != Wait::TimedOut)
    }

    /// A descriptor that is ready for reading while the interrupt is raised.
    pub(super) fn event(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }

    /// Reads the record of the last raise, if there is one. The event may be empty: then nothing
    /// was raised.
    fn consume(&self) {
        let _ = rustix::io::read(&self.read, &mut [0_u8; 8]);
    }

    /// Waits until `fd` has one of `events`, the interrupt is raised or `deadline` has passed. If
    /// several are true at once, a ready descriptor counts first.
    pub(super) fn wait(
        &self,
        fd: BorrowedFd<'_>,
        events: PollFlags,
        deadline: Option<Instant>,
    ) -> io::Result<Wait> {
        let own = self.event();
        loop {
            let timeout = match deadline {
                None => None,
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    Some(Timespec {
                        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                        tv_nsec: left.subsec_nanos().into(),
                    })
                }
            };
            let mut fds = [
                PollFd::from_borrowed_fd(fd, events),
                PollFd::from_borrowed_fd(own, PollFlags::IN),
            ];
            match poll(&mut fds, timeout.as_ref()) {
                Ok(0) => return Ok(Wait::TimedOut),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            }
            let [peer, _] = &fds;
            return Ok(if peer.revents().is_empty() {
                Wait::Raised
            } else {
                Wait::Ready
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_raised_interrupt_ends_waits_until_lowered_as_often() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let interrupt = Interrupt::new().unwrap();
        let soon = || Some(Instant::now() + Duration::from_millis(5));
        let wait = || interrupt.wait(near.as_fd(), PollFlags::IN, soon()).unwrap();
        assert_eq!(wait(), Wait::TimedOut);
        interrupt.raise();
        interrupt.raise();
        assert_eq!(wait(), Wait::Raised);
        interrupt.lower();
        assert_eq!(wait(), Wait::Raised);
        interrupt.lower();
        assert_eq!(wait(), Wait::TimedOut);
        far.write_all(b"x").unwrap();
        interrupt.raise();
        assert_eq!(wait(), Wait::Ready, "data counts before an interrupt");
    }
}
