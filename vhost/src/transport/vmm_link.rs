//! The way from a device to its rings and to the VMM: the transport's [`Transport`].
//!
//! A request to the VMM waits while the device is stopped. A request that a stop interrupts is
//! repeated when the device runs again, so that a paused VM loses no mapping. Requests fail when
//! the device was reset meanwhile, or when the VM is gone.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use hesper_system::sync::{Lock, Wait};

use super::backend_channel::{AskError, BackendChannel};
use super::ring::Ring;
use crate::device::{Queue, Taken, Transport};

/// Limits the lines that a guest or its VM monitor can cause.
static LINES: hesper_system::LogLimit = hesper_system::LogLimit::new("hesper_vhost");

/// Connects a device with its rings and with the VMM. It holds nothing that holds it, so the device
/// can keep it as long as it likes.
pub(super) struct VmmLink {
    control: Arc<Ring>,
    cursor: Arc<Ring>,
    vmm: Mutex<Vmm>,
    /// Signalled when `vmm` changes.
    changed: Condvar,
}

/// The way to the VMM.
#[derive(Default)]
struct Vmm {
    /// `None` before the VMM sent its channel, and after the connection ended.
    channel: Option<Arc<BackendChannel>>,
    /// A driver runs: the VMM has started the queues.
    is_started: bool,
    /// How often the device was reset.
    resets: u64,
    /// The config space has changed, and the driver was not told yet.
    config_has_changed: bool,
    /// The connection has ended.
    is_over: bool,
}

/// The thread that tells the driver that the config space has changed. The notification may wait
/// for the VMM, and those who change the config space must not. Dropping it ends the thread.
pub(super) struct ConfigNotifier {
    link: Arc<VmmLink>,
    thread: Option<JoinHandle<()>>,
}

impl ConfigNotifier {
    pub(super) fn new(link: Arc<VmmLink>) -> io::Result<Self> {
        let thread = {
            let link = link.clone();
            std::thread::Builder::new()
                .name("gpu-config".to_owned())
                .spawn(move || link.notify_config_changes())?
        };
        Ok(Self {
            link,
            thread: Some(thread),
        })
    }
}

impl Drop for ConfigNotifier {
    fn drop(&mut self) {
        self.link.change(|vmm| vmm.is_over = true);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!(
                "the thread that tells of config changes panicked; this is a bug in Hesper, please report it"
            );
        }
    }
}

impl VmmLink {
    pub(super) fn new(control: Arc<Ring>, cursor: Arc<Ring>) -> Self {
        Self {
            control,
            cursor,
            vmm: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Vmm) -> T) -> T {
        let result = change(&mut self.vmm());
        self.changed.notify_all();
        result
    }

    /// Sets or removes the channel. Waiting requests of the previous one end.
    pub(super) fn set_channel(&self, channel: Option<Arc<BackendChannel>>) {
        let former = self.change(|vmm| std::mem::replace(&mut vmm.channel, channel));
        if let Some(former) = former {
            former.interrupt();
        }
    }

    /// The channel, cloned so that its lock is not held while the VMM is asked.
    pub(super) fn channel(&self) -> Option<Arc<BackendChannel>> {
        self.vmm().channel.clone()
    }

    /// Notes that the VMM has started the queues for a driver, or stops them. Once it stops them,
    /// nothing is asked of it.
    pub(super) fn set_started(&self, is_started: bool) {
        self.change(|vmm| vmm.is_started = is_started);
    }

    /// Tells the driver of changes of the config space while it runs, until the connection ends.
    /// QEMU 11.1 must not be told earlier, nor while the queues are stopped: its notifier for
    /// vhost-user devices has no device then, and QEMU ends by a segmentation fault (seen:
    /// `virtio_notify_config` of a null pointer).
    fn notify_config_changes(&self) {
        let mut vmm = self.vmm();
        while !vmm.is_over {
            let channel = vmm.channel.clone();
            let Some(channel) = channel.filter(|_| vmm.is_started && vmm.config_has_changed) else {
                vmm = self.changed.waited(vmm);
                continue;
            };
            vmm.config_has_changed = false;
            drop(vmm);
            let told = channel.config_changed();
            vmm = self.vmm();
            match told {
                Ok(()) => {}
                Err(AskError::Stopped) => vmm.config_has_changed = true,
                Err(AskError::Failed(error)) => {
                    LINES.log(
                        log::Level::Warn,
                        format_args!("the guest cannot be told of a configuration change: {error}"),
                    );
                }
            }
        }
    }

    fn vmm(&self) -> MutexGuard<'_, Vmm> {
        self.vmm.locked()
    }

    /// Asks the VMM while the device runs; see the module.
    fn ask(&self, ask: impl Fn(&BackendChannel) -> Result<(), AskError>) -> io::Result<()> {
        let resets = self.vmm().resets;
        loop {
            let channel = self.running_channel(resets)?;
            match ask(&channel) {
                Ok(()) => return Ok(()),
                Err(AskError::Stopped) => {}
                Err(AskError::Failed(error)) => return Err(error),
            }
        }
    }

    /// Waits until the device runs and returns the channel. Fails if the device is reset before.
    fn running_channel(&self, resets: u64) -> io::Result<Arc<BackendChannel>> {
        let mut vmm = self.vmm();
        let mut is_out = false;
        loop {
            let Some(channel) = vmm.channel.clone() else {
                return Err(io::Error::new(
                    io::ErrorKind::NotConnected,
                    "the VMM gave no backend channel (VHOST_USER_SET_BACKEND_REQ_FD), or is gone",
                ));
            };
            if vmm.resets != resets {
                return Err(io::Error::other("the device was reset meanwhile"));
            }
            // Both under the lock: a stop comes before or after them.
            if vmm.is_started && (!is_out || self.control.step_in()) {
                return Ok(channel);
            }
            self.control.step_out();
            is_out = true;
            vmm = self.changed.waited(vmm);
        }
    }
}

impl Transport for VmmLink {
    fn complete(&self, queue: Queue, head: u16, taken: Taken, written: u32) {
        match queue {
            Queue::Control => self.control.complete(head, taken.ring, written),
            Queue::Cursor => self.cursor.complete(head, taken.ring, written),
        }
    }

    fn config_changed(&self) {
        // QEMU's classic device has no channel, and notices changes of its own console by itself.
        self.change(|vmm| vmm.config_has_changed = true);
    }

    fn cancel(&self) {
        self.change(|vmm| vmm.resets += 1);
    }

    fn map(
        &self,
        window_offset: u64,
        fd: BorrowedFd<'_>,
        fd_offset: u64,
        len: u64,
    ) -> io::Result<()> {
        self.ask(|channel| channel.map(window_offset, fd, fd_offset, len))
    }

    fn unmap(&self, window_offset: u64, len: u64) -> io::Result<()> {
        self.ask(|channel| channel.unmap(window_offset, len))
    }
}
