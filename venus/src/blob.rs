//! Blob resources: what a guest asks for, and what it gets.

use std::sync::Arc;

use crate::memory::SharedMemory;

/// What a guest asks for with a blob resource (virtio-v1.4 §5.7.6.8, `VIRTIO_GPU_CMD_RESOURCE_CREATE_BLOB`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobRequest {
    /// 0 asks for fresh shared memory, else it is the guest's id of a `VkDeviceMemory`.
    pub blob_id: u64,
    /// Size in bytes, not 0.
    pub size: u64,
    /// The guest wants to map it.
    pub mappable: bool,
    /// The guest wants to name it in other contexts.
    pub shareable: bool,
    /// The guest wants to hand it to other devices.
    pub cross_device: bool,
}

/// How the host's mapping of a blob is cached; the guest must map it alike.
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
    /// The pages: the same for guest, host and GPU. At least as large as was asked for, in whole pages.
    pub memory: Arc<SharedMemory>,
    /// Caching of the mapping.
    pub caching: Caching,
}

/// Why a blob was refused.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum BlobError {
    /// The request names nothing that can be had.
    #[error("invalid blob request: {0}")]
    Invalid(String),
    /// The host, or the context's budget, is out of memory.
    #[error("no memory for a blob: {0}")]
    OutOfMemory(String),
    /// The context broke earlier.
    #[error("the context is lost: {0}")]
    Lost(String),
}
