//! The queues of a device as its transport serves them, and what the device asks of its transport.

use std::os::fd::BorrowedFd;

/// Which virtqueue a chain came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Queue {
    /// Virtqueue 0.
    Control,
    /// Virtqueue 1.
    Cursor,
}

/// When a chain was taken from its ring. An answer that comes after the ring was set up anew is for
/// nobody: the driver that offered the chain is gone, and its number may be that of another chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// How often the ring had forgotten its chains, counted by the transport.
    pub ring: u64,
    /// How often the device had been reset ([`crate::device::Device::resets`]).
    pub resets: u64,
}

/// What happened to a chain.
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

/// What a device needs from its transport: it completes held chains, notifies the guest, and maps
/// blobs into the host-visible window. It may be called from any thread, even from inside
/// [`crate::device::Device::control`]. The device does not hold its state lock while it calls.
pub trait Transport: Send + Sync {
    /// Completes a held chain: puts `head` on `queue`'s used ring and notifies the guest. Does
    /// nothing when the ring was set up anew since the chain was `taken`.
    fn complete(&self, queue: Queue, head: u16, taken: Taken, written: u32);

    /// Sends a configuration change notification: the config space changed.
    fn config_changed(&self);

    /// The device was reset: waiting calls of [`Self::map`] and [`Self::unmap`] must fail at once.
    fn cancel(&self) {}

    /// Maps `len` bytes of `fd` at `fd_offset` into the host-visible window at `window_offset`.
    /// Returns when the guest sees the mapping.
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

    /// Unmaps `len` bytes at `window_offset` from the window.
    ///
    /// # Errors
    /// What the VMM or the channel answered.
    fn unmap(&self, window_offset: u64, len: u64) -> std::io::Result<()>;
}
