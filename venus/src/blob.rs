//! Blob resources: what a guest asks for, and what it gets.

use std::sync::Arc;

use crate::memory::SharedMemory;

/// What a guest asks for with a blob resource (virtio-v1.4 §5.7.6.8,
/// `VIRTIO_GPU_CMD_RESOURCE_CREATE_BLOB`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobRequest {
    /// 0 asks for fresh shared memory. Any other value is the guest's id of a `VkDeviceMemory`.
    pub blob_id: u64,
    /// Size in bytes, not 0.
    pub size: u64,
    /// The guest wants to map it.
    pub mappable: bool,
    /// The guest wants to use it in other contexts.
    pub shareable: bool,
    /// The guest wants to share it with other devices.
    pub cross_device: bool,
}

/// How the host's mapping of a blob is cached. The guest must map it with the same caching.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caching {
    /// Ordinary cached memory.
    Cached,
    /// Write combining.
    WriteCombining,
}

/// The memory of a blob resource.
#[derive(Clone, Debug)]
pub struct Blob {
    /// The pages, the same for guest, host and GPU. Whole pages, at least as large as the request.
    pub memory: Arc<SharedMemory>,
    /// Caching of the mapping.
    pub caching: Caching,
}

/// Why a blob was refused.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum BlobError {
    /// The request is not valid.
    #[error("invalid blob request: {0}")]
    Invalid(String),
    /// The host, or the context's budget, is out of memory.
    #[error("no memory for a blob: {0}")]
    OutOfMemory(String),
    /// The context was lost before.
    #[error("the context is lost: {0}")]
    Lost(String),
}
