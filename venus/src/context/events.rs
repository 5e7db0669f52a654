//! [`ContextEvents`]: how a context answers its front end.

use crate::blob::{Blob, BlobError};

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
}
