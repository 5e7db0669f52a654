//! What the device calls back: the transport's [`Host`].

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Mutex, PoisonError};

use super::backend_channel::BackendChannel;
use super::ring::Ring;
use crate::device::{Host, Queue};

/// Connects a device with its rings and with the VMM. Holds nothing that holds it, so that the device can
/// keep it as long as it likes.
pub(super) struct HostLink {
    control: Arc<Ring>,
    cursor: Arc<Ring>,
    /// `None` before the VMM sent its channel, and after the connection ended.
    channel: Mutex<Option<Arc<BackendChannel>>>,
}

impl HostLink {
    pub(super) fn new(control: Arc<Ring>, cursor: Arc<Ring>) -> Self {
        Self {
            control,
            cursor,
            channel: Mutex::default(),
        }
    }

    /// Sets or takes away the channel; a former one ends its waiting requests.
    pub(super) fn set_channel(&self, channel: Option<Arc<BackendChannel>>) {
        let former = std::mem::replace(
            &mut *self.channel.lock().unwrap_or_else(PoisonError::into_inner),
            channel,
        );
        if let Some(former) = former {
            former.interrupt();
        }
    }

    /// The channel, cloned out so that its lock is never held while the VMM is asked.
    pub(super) fn channel(&self) -> Option<Arc<BackendChannel>> {
        self.channel
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
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
        // Without a channel no driver runs yet, and it reads the config space when it starts; QEMU's classic
        // device has none and notices changes of its own console by itself.
        if let Some(channel) = self.channel()
            && let Err(error) = channel.config_changed()
        {
            log::warn!("the guest cannot be told of a configuration change: {error}");
        }
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
