//! The device's queues as its transport serves them: which there are, what becomes of a chain, what the device asks.

use std::os::fd::BorrowedFd;

/// Which virtqueue a chain came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Queue {
    /// Virtqueue 0.
    Control,
    /// Virtqueue 1.
    Cursor,
}

/// What became of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// Answered: put it on the used ring with this many bytes written.
    Done {
        /// Bytes written into the device-writable part.
        written: u32,
    },
    /// The answer comes later, through [`Transport::complete`].
    Held,
}

/// What a device needs from its transport. Callable from any thread, also from inside [`crate::device::Device::control`] on the
/// thread that called it; the device holds no lock of its state while it calls.
pub trait Transport: Send + Sync {
    /// A held chain was answered: put `head` on `queue`'s used ring and notify the guest.
    fn complete(&self, queue: Queue, head: u16, written: u32);

    /// The config space changed: send a configuration change notification.
    fn config_changed(&self);

    /// The device was reset: whoever waits in [`Self::map`] or [`Self::unmap`] gets an error at once.
    fn cancel(&self) {}

    /// Maps `len` bytes of `fd` at `fd_offset` into the host-visible window at `window_offset`.
    /// Returns after the mapping is visible to the guest.
    ///
    /// # Errors
    /// What the VMM or the channel answered.
    fn map(
        &self,
        window_offset: u64,
        fd: BorrowedFd<'_>,
        fd_offset: u64,
        len: u64,
    ) -> std::io::Result<()>;

    /// Takes `len` bytes at `window_offset` out of the window.
    ///
    /// # Errors
    /// What the VMM or the channel answered.
    fn unmap(&self, window_offset: u64, len: u64) -> std::io::Result<()>;
}
