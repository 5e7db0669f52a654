//! How a renderer plugs into the device: the [`Renderer`] and [`Context`] traits.
//!
//! A renderer offers capability sets (virtio-v1.4 §5.7.6.8, `VIRTIO_GPU_CMD_GET_CAPSET_INFO`).
//! Every guest context belongs to the renderer of its capability set. The device forwards the
//! commands of a context in queue order and goes on at once: **no method of [`Context`] may wait
//! for the host GPU, for another context or for the guest.** A context works through its calls in
//! order, on a thread of its own, and reports through [`Completions`] from any thread. So a context
//! that waits delays only itself, and one that breaks ends alone.
//!
//! The hard thing is order. Within one context, a submit, a blob creation and a fence act in the
//! order in which they were called. A fence therefore covers everything submitted before it on its
//! ring. A blob whose id names a memory object finds the object that an earlier submit made.

use std::any::Any;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::budget::Charge;
use crate::pixels::{PixelMemory, WritablePixels};
use crate::resource3d::Resources3d;

pub use crate::guest_pages::{GUEST_WRITE, GuestPages, GuestRun};

/// A guest's context id (never 0).
pub type ContextId = u32;
/// A guest's resource id (never 0).
pub type ResourceId = u32;

/// What one capability set is; the answer to `VIRTIO_GPU_CMD_GET_CAPSET_INFO`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CapsetInfo {
    /// `VIRTIO_GPU_CAPSET_*`: 4 is Venus.
    pub id: u32,
    /// Highest version offered.
    pub max_version: u32,
    /// Size in bytes of the largest version.
    pub max_size: u32,
}

/// Why a renderer refused something. The text is for the log. The guest gets a virtio-gpu error
/// code.
#[derive(Debug, thiserror::Error)]
pub enum RendererError {
    /// The guest asked for something that does not exist or does not fit.
    #[error("invalid request: {0}")]
    Invalid(String),
    /// The host or the context's budget is out of memory.
    #[error("out of memory: {0}")]
    OutOfMemory(String),
    /// The context broke earlier and answers nothing any more.
    #[error("the context is lost: {0}")]
    ContextLost(String),
}

/// Which memory a blob resource has (virtio-v1.4 §5.7.6.8, `VIRTIO_GPU_BLOB_MEM_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobKind {
    /// `HOST3D`: memory of the renderer.
    Host3d,
    /// `HOST3D_GUEST`: memory of the renderer with guest pages as its shadow.
    Host3dGuest,
}

/// What a guest asks for with `VIRTIO_GPU_CMD_RESOURCE_CREATE_BLOB` in a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobRequest {
    /// Kind of memory.
    pub kind: BlobKind,
    /// `blob_id`: 0 asks for fresh shared memory, else it names an object of the context.
    pub blob_id: u64,
    /// Size in bytes, a multiple of the blob alignment, never 0.
    pub size: u64,
    /// `VIRTIO_GPU_BLOB_FLAG_USE_MAPPABLE`.
    pub mappable: bool,
    /// `VIRTIO_GPU_BLOB_FLAG_USE_SHAREABLE`.
    pub shareable: bool,
    /// `VIRTIO_GPU_BLOB_FLAG_USE_CROSS_DEVICE`.
    pub cross_device: bool,
}

/// How the guest should map a blob (`VIRTIO_GPU_MAP_CACHE_*`). It must match the host's mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MapCaching {
    /// `CACHED` = 1.
    Cached,
    /// `UNCACHED` = 2.
    Uncached,
    /// `WC` = 3.
    WriteCombining,
}

/// The memory behind a blob: the same pages for host, guest and GPU (invariant 1 of the design).
#[derive(Clone)]
pub struct Blob {
    /// A descriptor that the VMM can map. `None` when the blob cannot be mapped into the guest.
    pub fd: Option<Arc<OwnedFd>>,
    /// Where the blob starts in `fd`, in bytes, a multiple of the page size.
    pub fd_offset: u64,
    /// Size in bytes, at least that of the request, a multiple of the page size.
    pub size: u64,
    /// Caching of the host's mapping.
    pub caching: MapCaching,
    /// The host's own mapping, if there is one. With it, a scanout can show the blob.
    pub pixels: Option<Arc<dyn PixelMemory>>,
    /// The pages of a blob in guest memory. `None` for all others.
    pub guest: Option<Arc<dyn GuestPages>>,
    /// Data of the renderer that made the blob. It finds it again when the blob is attached to a
    /// context. Nobody else reads it.
    pub origin: Option<Arc<dyn Any + Send + Sync>>,
}

/// Memory that a renderer's contexts can draw into, and the device, too.
pub struct SharedPixels {
    /// What contexts attach.
    pub blob: Blob,
    /// The same memory.
    pub memory: Arc<dyn WritablePixels>,
}

/// Where a renderer reports what it finished. It may be called from any thread, and never blocks
/// for long.
pub trait Completions: Send + Sync {
    /// Reports that a fence of [`Context::fence`] is signalled. Fences of one ring retire in the
    /// order of their creation.
    fn fence_retired(&self, context: ContextId, ring: u8, fence: u64);

    /// Answers [`Context::create_blob`].
    fn blob_created(
        &self,
        context: ContextId,
        resource: ResourceId,
        result: Result<Blob, RendererError>,
    );
}

/// What is known of a context that is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewContext<'a> {
    /// The id of its capability set.
    pub capset: u32,
    /// The guest's debug name, for logs. It is untrusted text.
    pub name: &'a str,
    /// Whether a desktop that draws with the guest's processor is on the screen.
    pub is_screen_drawn_by_cpu: bool,
}

/// A way to render, for one or more capability sets.
pub trait Renderer: Send + Sync {
    /// The capability sets that work on this host. The guest is told of exactly these.
    fn capsets(&self) -> &[CapsetInfo];

    /// Whether its contexts need the host-visible window. Without one, their capability sets are
    /// not offered.
    fn needs_window(&self) -> bool {
        false
    }

    /// The bytes of a capability set, at most `max_size`. `None` for an unknown id or version.
    fn capset(&self, id: u32, version: u32) -> Option<Vec<u8>>;

    /// Makes a context.
    ///
    /// # Errors
    /// [`RendererError::OutOfMemory`] when a limit is reached.
    fn create_context(
        &self,
        id: ContextId,
        about: &NewContext<'_>,
        completions: Arc<dyn Completions>,
    ) -> Result<Arc<dyn Context>, RendererError>;

    /// Its 3D resources (`RESOURCE_CREATE_3D`), if it has any. The first renderer of a device that
    /// has them gets those of the guest.
    fn resources_3d(&self) -> Option<Arc<dyn Resources3d>> {
        None
    }
}

/// One guest context: a mailbox. All calls enqueue and return at once. Dropping it ends the
/// context: its objects are destroyed and its open fences retire.
///
/// The device holds no lock while it calls a context. A context may therefore report to its
/// [`Completions`] from inside of a call, and the device may call it again from inside of that
/// report. Calls may come from several threads at a time. The device orders those that the guest
/// ordered: a submit, a fence and a blob of one context never overlap.
pub trait Context: Send + Sync {
    /// `VIRTIO_GPU_CMD_SUBMIT_3D`: the bytes are already copied out of guest memory. `charge`
    /// counts them against what the guest may have queued ([`crate::budget::QUEUED_BYTES`]). It
    /// stays beside the bytes until they are consumed.
    fn submit(&self, commands: Vec<u8>, charge: Charge);

    /// Creates a fence on timeline `ring`. It retires when everything submitted before it is done;
    /// on ring 0, as soon as everything before it was consumed.
    fn fence(&self, ring: u8, fence: u64);

    /// Makes the memory of a blob resource. The answer is [`Completions::blob_created`].
    ///
    /// A blob that was made is attached to this context, as by [`Context::attach_resource`], which
    /// is not called for it. The guest may name the blob as soon as it hears of it, and need not
    /// wait for `CTX_ATTACH_RESOURCE`: Mesa's Venus driver names it in a ring once
    /// `RESOURCE_MAP_BLOB` is answered. [`Context::detach_resource`] detaches it.
    fn create_blob(&self, resource: ResourceId, request: BlobRequest);

    /// Makes zeroed memory of at least `size` bytes, for the pixels of a 2D resource into which
    /// contexts of this renderer can draw. `None` if they cannot draw into 2D resources.
    fn share_pixels(&self, size: u64) -> Option<SharedPixels> {
        let _ = size;
        None
    }

    /// `VIRTIO_GPU_CMD_CTX_ATTACH_RESOURCE`: the context may now name `resource`. Not called for
    /// resources that are attached already, such as a blob that the context made.
    fn attach_resource(&self, resource: ResourceId, blob: &Blob);

    /// The same for a 3D resource. Only contexts of the renderer that made it can use it.
    fn attach_3d(&self, _resource: ResourceId) {}

    /// `VIRTIO_GPU_CMD_CTX_DETACH_RESOURCE`, also sent when the resource goes away.
    fn detach_resource(&self, resource: ResourceId);
}
