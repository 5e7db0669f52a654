//! The thread of a queue: it waits for kicks and lets the ring pass its chains to the device.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;

use super::interrupt::{Interrupt, Wait};
use super::ring::{ChainUser, Ring};
use crate::input::Waker;

/// Limits the lines that a guest or its VM monitor can cause.
static LINES: hesper_system::LogLimit = hesper_system::LogLimit::new("hesper_vhost");

/// A queue's thread. Dropping it ends and joins the thread. The ring must be stopped first.
pub(super) struct Worker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    ring: Arc<Ring>,
    /// How often the ring is checked without a kick.
    poll_interval: Option<Duration>,
    /// Raised to make the thread check the ring or `exit`.
    wake: Interrupt,
    exit: AtomicBool,
}

impl Worker {
    /// Starts the thread `name`, which passes chains to `user` while it wants them. Without a kick
    /// it checks a running ring every `poll_interval`.
    pub(super) fn spawn(
        name: &str,
        ring: Arc<Ring>,
        poll_interval: Option<Duration>,
        user: impl ChainUser + Send + 'static,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            ring,
            poll_interval,
            wake: Interrupt::new()?,
            exit: AtomicBool::new(false),
        });
        let thread = {
            let shared = shared.clone();
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || shared.run(&user))?
        };
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Makes the thread check the ring, which was started, enabled or got another kick event.
    pub(super) fn wake(&self) {
        self.shared.wake.raise();
    }

    /// [`Self::wake`] for a device that now wants a chain. Does nothing once the worker is gone.
    pub(super) fn waker(&self) -> Waker {
        let shared = self.shared.clone();
        Arc::new(move || shared.wake.raise())
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.exit.store(true, Ordering::Release);
        self.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("a queue thread panicked; this is a bug in Hesper, please report it");
        }
    }
}

impl Shared {
    fn run(&self, user: &impl ChainUser) {
        while !self.exit.load(Ordering::Acquire) {
            self.ring.pass_chains(user);
            let kick = self.ring.kick();
            let wait = match &kick {
                Some(kick) => {
                    let deadline = self.poll_interval.map(|interval| Instant::now() + interval);
                    self.wake.wait(kick.as_fd(), PollFlags::IN, deadline)
                }
                None => self.wake.wait_raised().map(|()| Wait::Raised),
            };
            match wait {
                Ok(Wait::Ready) => {
                    if let Some(kick) = &kick
                        && !drain(kick)
                    {
                        self.ring.drop_kick(kick);
                    }
                }
                Ok(Wait::Raised) => self.wake.clear(),
                Ok(Wait::TimedOut) => self.ring.repeat_lost_interrupt(),
                Err(error) => {
                    LINES.log(
                        log::Level::Error,
                        format_args!("a queue thread cannot wait for kicks: {error}"),
                    );
                    return;
                }
            }
        }
    }
}

/// Takes all pending kicks: one 8-byte counter of an eventfd, or many 8-byte records of a pipe.
/// Returns false when no kick can come any more.
fn drain(kick: &File) -> bool {
    let mut records = [0u8; 512];
    match rustix::io::read(kick, &mut records) {
        Ok(0) => false,
        Ok(_) | Err(Errno::AGAIN | Errno::INTR) => true,
        Err(error) => {
            LINES.log(
                log::Level::Error,
                format_args!("the kick event of a queue cannot be read: {error}"),
            );
            false
        }
    }
}
