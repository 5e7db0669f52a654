//! Limits on what one guest may make this process hold.
//!
//! A command that would exceed a limit is answered `VIRTIO_GPU_RESP_ERR_OUT_OF_MEMORY`, with one
//! rate-limited line in the log. Together they bound what the device itself keeps for a guest:
//! [`PIXEL_BYTES`] + 16 B × [`BACKING_ENTRIES`] + [`QUEUED_BYTES`] + about 300
//! B × [`RESOURCES`] + about 1.5 KiB for each chain in the queues, which is 1.4 GiB in all. What a
//! renderer keeps counts against the renderer's own budgets.
//!
//! Limits on bytes are [`Pool`]s. A [`Charge`] is taken before the memory is allocated, lives
//! beside it, and gives the amount back when it is dropped. Memory that outlives its resource
//! because the screen still shows it therefore still counts.

use std::sync::Arc;

pub use hesper_system::budget::{Charge, Pool};

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

/// Bytes of all `SUBMIT_3D` commands that were copied out of guest memory and not consumed yet:
/// those that wait until a blob is made, and those in the mailboxes of all contexts. Commands go
/// through rings in memory that the guest pays for itself. These are for what does not fit in
/// there.
pub const QUEUED_BYTES: u64 = 2 * SUBMIT_BYTES;

/// The byte budgets of one device.
pub(crate) struct Pools {
    pub(crate) pixels: Arc<Pool>,
    pub(crate) render: Arc<Pool>,
    pub(crate) entries: Arc<Pool>,
    /// Commands that wait to be consumed.
    pub(crate) queued: Arc<Pool>,
}

impl Pools {
    pub(crate) fn new() -> Self {
        Self {
            pixels: Pool::new(PIXEL_BYTES),
            render: Pool::new(RENDER_BYTES),
            entries: Pool::new(BACKING_ENTRIES),
            queued: Pool::new(QUEUED_BYTES),
        }
    }
}
