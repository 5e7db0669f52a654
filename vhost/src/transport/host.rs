//! What the device calls back: the transport's [`Host`].

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::backend_channel::BackendChannel;
use super::ring::Ring;
use crate::device::{Host, Queue};

/// Connects a device with its rings and with the VMM. Holds nothing that holds it, so that the device can
/// keep it as long as it likes.
pub(super) struct HostLink {
    control: Arc<Ring>,
    cursor: Arc<Ring>,
    vmm: Mutex<Vmm>,
}

/// The way to the VMM.
#[derive(Default)]
struct Vmm {
    /// `None` before the VMM sent its channel, and after the connection ended.
    channel: Option<Arc<BackendChannel>>,
    /// A driver runs: the VMM has started the queues.
    is_started: bool,
    /// The config space has changed, and the driver was not told.
    has_news: bool,
}

impl Vmm {
    /// Tells the driver of a changed config space, once it runs. QEMU 11.1 must not be told before, nor while the queues are
    /// stopped: its notifier for vhost-user devices then has no device, and QEMU ends by a segmentation fault (seen; `virtio_notify_config`
    /// of nothing).
    fn tell_news(&mut self) {
        let Some(channel) = self.channel.as_ref().filter(|_| self.is_started) else {
            return;
        };
        if std::mem::take(&mut self.has_news)
            && let Err(error) = channel.config_changed()
        {
            log::warn!("the guest cannot be told of a configuration change: {error}");
        }
    }
}

impl HostLink {
    pub(super) fn new(control: Arc<Ring>, cursor: Arc<Ring>) -> Self {
        Self {
            control,
            cursor,
            vmm: Mutex::default(),
        }
    }

    /// Sets or takes away the channel; a former one ends its waiting requests.
    pub(super) fn set_channel(&self, channel: Option<Arc<BackendChannel>>) {
        let former = {
            let mut vmm = self.vmm();
            let former = std::mem::replace(&mut vmm.channel, channel);
            vmm.tell_news();
            former
        };
        if let Some(former) = former {
            former.interrupt();
        }
    }

    /// The channel, cloned out so that its lock is never held while the VMM is asked.
    pub(super) fn channel(&self) -> Option<Arc<BackendChannel>> {
        self.vmm().channel.clone()
    }

    /// The VMM has started the queues for a driver, or stops them. Once it stops them, no change of the config space is told.
    pub(super) fn set_started(&self, is_started: bool) {
        let mut vmm = self.vmm();
        vmm.is_started = is_started;
        vmm.tell_news();
    }

    fn vmm(&self) -> MutexGuard<'_, Vmm> {
        self.vmm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn need_channel(&self) -> io::Result<Arc<BackendChannel>> {
        self.channel().ok_or_else(|| {
            io::Error::new(
                io::ErrorKind::NotConnected,
                "the VMM gave no backend channel (VHOST_USER_SET_BACKEND_REQ_FD)",
            )
        })
    }
}

impl Host for HostLink {
    fn complete(&self, queue: Queue, head: u16, written: u32) {
        match queue {
            Queue::Control => self.control.complete(head, written),
            Queue::Cursor => self.cursor.complete(head, written),
        }
    }

    fn config_changed(&self) {
        // QEMU's classic device has no channel and notices changes of its own console by itself.
        let mut vmm = self.vmm();
        vmm.has_news = true;
        vmm.tell_news();
    }

    fn map(
        &self,
        window_offset: u64,
        fd: BorrowedFd<'_>,
        fd_offset: u64,
        len: u64,
    ) -> io::Result<()> {
        self.need_channel()?.map(window_offset, fd, fd_offset, len)
    }

    fn unmap(&self, window_offset: u64, len: u64) -> io::Result<()> {
        self.need_channel()?.unmap(window_offset, len)
    }
}
