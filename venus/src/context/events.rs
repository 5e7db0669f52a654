//! [`ContextEvents`]: how a context answers its front end.

use std::sync::Arc;

use crate::blob::{Blob, BlobError};
use crate::memory::SharedMemory;

/// Where a context reports what it has finished. Any of its threads calls this, so it must not
/// block for long. [`ContextEvents::blob_created`] is also called from inside
/// [`crate::Context::create_blob`].
pub trait ContextEvents: Send + Sync {
    /// The fence of [`crate::Context::fence`] is signalled. Fences of one ring retire in the order
    /// of their creation.
    fn fence_retired(&self, ring: u8, fence: u64);

    /// The answer to [`crate::Context::create_blob`].
    fn blob_created(&self, resource: u32, result: Result<Blob, BlobError>);

    /// The guest broke the protocol, or the host failed: the context does nothing more. Called
    /// once.
    fn lost(&self, reason: &str);

    /// There is a ring with this id of the guest's. Its word `VkRingStatusFlagsMESA` is at byte
    /// `status` of the `memory`, and aligned: who sets `VK_RING_STATUS_FATAL_BIT_MESA` there tells
    /// the guest that the context is lost. Called before the ring carries out anything.
    ///
    /// Does nothing by default.
    fn ring_created(&self, ring: u64, memory: &Arc<SharedMemory>, status: usize) {
        let _ = (ring, memory, status);
    }

    /// The ring is gone. Its memory may be another ring's from now on. Another ring with this id
    /// is reported after this.
    ///
    /// Does nothing by default.
    fn ring_destroyed(&self, ring: u64) {
        let _ = ring;
    }
}
