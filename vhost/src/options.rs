//! The fixed properties of a device.

use crate::screen::Monitor;
use crate::system::page_size;

/// Fixed properties of a device.
#[derive(Clone, Debug)]
pub struct DeviceOptions {
    /// The monitors at start, one per scanout (1 to 16).
    pub monitors: Vec<Monitor>,
    /// Size in bytes of the host-visible window, a power of two. 0 = no window and no mappable host
    /// blobs.
    pub host_visible_size: u64,
    /// Alignment in bytes of blob sizes and map offsets that the guest is told
    /// (`VIRTIO_GPU_F_BLOB_ALIGNMENT`). With 4096 it is told nothing. Blobs are whole pages of the
    /// host even then. A guest with pages of that size aligns them anyway.
    pub blob_alignment: u32,
}

impl DeviceOptions {
    /// What blob sizes and map offsets must be multiples of, even if the guest was not told.
    pub(crate) fn alignment_of_blobs(&self) -> u64 {
        page_size().max(self.blob_alignment.into())
    }
}
