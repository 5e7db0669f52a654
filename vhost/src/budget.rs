//! Limits on what one guest may make this process hold.
//!
//! A command that would exceed a limit is answered `VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY`, with one
//! rate-limited line in the log. Together they bound what the device itself keeps for a guest:
//! [`PIXEL_BYTES`] + 16 B × [`BACKING_ENTRIES`] + [`DEFERRED_BYTES`] + [`SUBMIT_BYTES`] + about 300
//! B × [`RESOURCES`] + about 1.5 KiB for each chain in the queues, which is 1.4 GiB in all. What a
//! renderer keeps counts against the renderer's own budgets.
//!
//! Limits on bytes are `Pool`s. A `Charge` is taken before the memory is allocated, lives beside
//! it, and gives the amount back when it is dropped. Memory that outlives its resource because the
//! screen still shows it therefore still counts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Live resources of all kinds. Linux allows a process 65530 mappings by default, and each blob
/// takes one.
pub const RESOURCES: usize = 32_768;

/// Bytes of pixels for 2D resources and for scanouts of guest blobs, rounded up to pages. 1 GiB is
/// enough for eight 8K framebuffers.
pub const PIXEL_BYTES: u64 = 1 << 30;

/// Bytes of all 3D resources, counted at four bytes a pixel. The renderer chooses their formats,
/// which have up to sixteen.
pub const RENDER_BYTES: u64 = 8 << 30;

/// Guest memory pieces of all backings together, after neighbours are joined. This is enough for 16
/// GiB of scattered 4 KiB pages.
pub const BACKING_ENTRIES: u64 = 4 << 20;

/// Live contexts. A guest process that uses the GPU takes one or two.
pub const CONTEXTS: usize = 1024;

/// Blobs mapped into the host-visible window at a time. The time that QEMU needs per map grows with
/// their number.
pub const MAPPINGS: usize = 4096;

/// Bytes of commands in one `SUBMIT_3D`. It is the most that Linux can send: one descriptor per
/// page, in a chain of 65,535.
pub const SUBMIT_BYTES: u64 = 256 << 20;

/// Bytes of commands that wait until a blob is made.
pub const DEFERRED_BYTES: u64 = 64 << 20;

/// A limited amount of something.
pub(crate) struct Pool {
    limit: u64,
    used: AtomicU64,
}

impl Pool {
    pub(crate) fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            used: AtomicU64::new(0),
        })
    }

    /// Takes `amount`, or nothing when that much is not left.
    pub(crate) fn charge(self: &Arc<Self>, amount: u64) -> Option<Charge> {
        self.used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
                used.checked_add(amount).filter(|sum| *sum <= self.limit)
            })
            .ok()?;
        Some(Charge {
            pool: Arc::clone(self),
            amount,
        })
    }

    /// How much is in use.
    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }
}

/// A part of a [`Pool`], given back on drop.
pub(crate) struct Charge {
    pool: Arc<Pool>,
    amount: u64,
}

impl Charge {
    /// Gives back all but `amount`. Does nothing when less was taken.
    pub(crate) fn shrink_to(&mut self, amount: u64) {
        let surplus = self.amount.saturating_sub(amount);
        self.pool.used.fetch_sub(surplus, Ordering::Relaxed);
        self.amount -= surplus;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.pool.used.fetch_sub(self.amount, Ordering::Relaxed);
    }
}

/// The byte budgets of one device.
pub(crate) struct Pools {
    pub(crate) pixels: Arc<Pool>,
    pub(crate) render: Arc<Pool>,
    pub(crate) entries: Arc<Pool>,
    pub(crate) deferred: Arc<Pool>,
}

impl Pools {
    pub(crate) fn new() -> Self {
        Self {
            pixels: Pool::new(PIXEL_BYTES),
            render: Pool::new(RENDER_BYTES),
            entries: Pool::new(BACKING_ENTRIES),
            deferred: Pool::new(DEFERRED_BYTES),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_gives_out_its_limit_and_takes_it_back() {
        let pool = Pool::new(10);
        let mut first = pool.charge(6).unwrap();
        assert!(pool.charge(5).is_none());
        assert!(pool.charge(u64::MAX).is_none());
        let second = pool.charge(4).unwrap();
        first.shrink_to(1);
        assert_eq!(pool.used(), 5);
        drop((first, second));
        assert_eq!(pool.used(), 0);
    }
}
