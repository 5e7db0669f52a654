//! Joins the device to the Venus renderer: the device's [`Renderer`] on a [`hesper_venus::Renderer`].
//!
//! Both sides have their own plain types, alike in shape; this is the one place that knows both.

use std::any::Any;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hesper_venus as venus;
use hesper_venus::{ContextEvents, SharedMemory};
use hesper_vhost::renderer::{
    Blob, BlobKind, BlobRequest, CapsetInfo, Completions, Context, ContextId, GuestRun, MapCaching,
    Renderer, RendererError, ResourceId,
};
use hesper_vhost::screen::{GuestPixels, PixelMemory};

/// `VIRTIO_GPU_CAPSET_VENUS`.
const CAPSET_VENUS: u32 = 4;
/// The only version of that capability set.
const VERSION: u32 = 0;
/// Its size in bytes.
const CAPSET_SIZE: u32 = 160;

/// How long contexts may take to end when the program does.
const GRACE: Duration = Duration::from_secs(2);

/// Waits until the contexts of `renderer`, all dropped, have ended.
pub(crate) fn settle(renderer: &venus::Renderer) {
    if !renderer.settle(GRACE) {
        log::warn!(
            "programs of the guest still keep the GPU busy after {GRACE:?}; Hesper ends without waiting for them any longer"
        );
    }
}

/// The Venus renderer, as a device sees it.
pub(crate) struct VenusRenderer {
    renderer: Arc<venus::Renderer>,
    capsets: [CapsetInfo; 1],
    /// Who wants to know.
    when_lost: Arc<OnceLock<WhenLost>>,
}

/// Takes a lost context's name and the reason.
type WhenLost = Box<dyn Fn(&str, &str) + Send + Sync>;

impl VenusRenderer {
    pub(crate) fn new(renderer: Arc<venus::Renderer>) -> Self {
        let capset = CapsetInfo {
            id: CAPSET_VENUS,
            max_version: VERSION,
            max_size: CAPSET_SIZE,
        };
        Self {
            renderer,
            capsets: [capset],
            when_lost: Arc::default(),
        }
    }

    /// From now on `tell` is called for every lost context, with its name and the reason. The first call counts.
    pub(crate) fn when_lost(&self, tell: impl Fn(&str, &str) + Send + Sync + 'static) {
        // Failing means that somebody was first.
        let _ = self.when_lost.set(Box::new(tell));
    }

    /// The GPUs that guests see.
    pub(crate) fn gpus(&self) -> impl Iterator<Item = &venus::host::Gpu> {
        self.renderer.gpus()
    }

    /// The renderer's counters as a JSON object.
    pub(crate) fn counters(&self) -> String {
        self.renderer.counters().to_json()
    }

    /// See [`settle`].
    pub(crate) fn settle(&self) {
        settle(&self.renderer);
    }
}

impl Renderer for VenusRenderer {
    fn capsets(&self) -> &[CapsetInfo] {
        &self.capsets
    }

    fn needs_window(&self) -> bool {
        true
    }

    fn capset(&self, id: u32, version: u32) -> Option<Vec<u8>> {
        (id == CAPSET_VENUS && version == VERSION).then(|| self.renderer.capset().to_vec())
    }

    fn create_context(
        &self,
        id: ContextId,
        _capset: u32,
        name: &str,
        completions: Arc<dyn Completions>,
    ) -> Result<Box<dyn Context>, RendererError> {
        let events = Arc::new(Events {
            context: id,
            name: name.to_owned(),
            when_lost: Arc::clone(&self.when_lost),
            completions,
        });
        match self.renderer.create_context(id, name, events) {
            Ok(context) => Ok(Box::new(VenusContext(context))),
            Err(error) => Err(RendererError::OutOfMemory(error.to_string())),
        }
    }
}

/// The folder for what guests send, see [`hesper_venus::RendererOptions::save_streams`].
pub(crate) fn save_streams() -> Option<std::path::PathBuf> {
    std::env::var_os("HESPER_SAVE_STREAMS").map(Into::into)
}

/// One guest context.
struct VenusContext(venus::Context);

impl Context for VenusContext {
    fn submit(&self, commands: Vec<u8>) {
        self.0.submit(commands);
    }

    fn fence(&self, ring: u8, fence: u64) {
        self.0.fence(ring, fence);
    }

    fn create_blob(&self, resource: ResourceId, request: BlobRequest) {
        let BlobRequest {
            kind,
            blob_id,
            size,
            mappable,
            shareable,
            cross_device,
        } = request;
        match kind {
            // Guest pages as a shadow add nothing: guest and host share the memory itself.
            BlobKind::Host3d | BlobKind::Host3dGuest => {
                let request = venus::BlobRequest {
                    blob_id,
                    size,
                    mappable,
                    shareable,
                    cross_device,
                };
                self.0.create_blob(resource, request);
            }
        }
    }

    fn attach_resource(&self, resource: ResourceId, blob: &Blob) {
        let origin = blob
            .origin
            .clone()
            .and_then(|origin| origin.downcast::<Origin>().ok());
        match origin {
            Some(origin) => self.0.attach_resource(resource, &origin.0),
            None => match blob.guest.as_ref().and_then(|guest| guest.runs()) {
                Some(runs) => self.attach_guest_memory(resource, runs),
                // A 2D resource: the guest's driver attaches every resource it makes, and a Venus context that names this one
                // in a command is told that there is none.
                None => log::debug!("resource {resource} has no memory that Venus can name"),
            },
        }
    }

    fn detach_resource(&self, resource: ResourceId) {
        self.0.detach_resource(resource);
    }
}

/// Runs of guest memory as the renderer has them.
fn guest_pages(runs: Vec<GuestRun>) -> Vec<venus::GuestPages> {
    runs.into_iter()
        .map(|GuestRun { file, offset, size }| venus::GuestPages { file, offset, size })
        .collect()
}

/// Guest memory for a screen, mapped side by side; `None` when it cannot be, or takes too many mappings.
pub(crate) fn guest_pixels(
    runs: Vec<GuestRun>,
    mappings: &Arc<venus::Mappings>,
) -> Option<Arc<dyn GuestPixels>> {
    match SharedMemory::gather(&guest_pages(runs), mappings) {
        Ok(memory) => Some(Arc::new(BlobPixels(Arc::new(memory)))),
        Err(error) => {
            log::debug!("a framebuffer in guest memory is copied: {error}");
            None
        }
    }
}

impl VenusContext {
    fn attach_guest_memory(&self, resource: ResourceId, runs: Vec<GuestRun>) {
        let pages = guest_pages(runs);
        if let Err(error) = self.0.attach_guest_memory(resource, &pages) {
            // Nothing is lost unless the guest names it; then it is told that there is no such resource.
            log::debug!("resource {resource} cannot be named in Venus: {error}");
        }
    }
}

/// A blob of this renderer, found again when it is attached to another context.
struct Origin(venus::Blob);

/// What a context of the renderer reports, told to the device.
struct Events {
    context: ContextId,
    completions: Arc<dyn Completions>,
    name: String,
    when_lost: Arc<OnceLock<WhenLost>>,
}

impl ContextEvents for Events {
    fn fence_retired(&self, ring: u8, fence: u64) {
        self.completions.fence_retired(self.context, ring, fence);
    }

    fn blob_created(&self, resource: u32, result: Result<venus::Blob, venus::BlobError>) {
        let result = result.map(device_blob).map_err(|error| match error {
            venus::BlobError::Invalid(what) => RendererError::Invalid(what),
            venus::BlobError::OutOfMemory(what) => RendererError::OutOfMemory(what),
            venus::BlobError::Lost(what) => RendererError::ContextLost(what),
        });
        self.completions
            .blob_created(self.context, resource, result);
    }

    fn lost(&self, reason: &str) {
        // The renderer has logged it; the guest learns of it from its rings.
        if let Some(tell) = self.when_lost.get() {
            tell(&self.name, reason);
        }
    }
}

fn device_blob(blob: venus::Blob) -> Blob {
    let memory = &blob.memory;
    Blob {
        fd: memory.shared_fd(),
        fd_offset: memory.fd_offset(),
        // The memory is mapped into this process, so its size fits.
        size: memory.len() as u64,
        caching: match blob.caching {
            venus::Caching::Cached => MapCaching::Cached,
            venus::Caching::WriteCombining => MapCaching::WriteCombining,
        },
        pixels: Some(Arc::new(BlobPixels(Arc::clone(memory)))),
        guest: None,
        origin: Some(Arc::new(Origin(blob)) as Arc<dyn Any + Send + Sync>),
    }
}

/// A blob's memory as a screen reads it.
struct BlobPixels(Arc<SharedMemory>);

// SAFETY: a `SharedMemory` is one mapping of whole pages that lives, at its address, as long as the value.
unsafe impl PixelMemory for BlobPixels {
    fn host_pages(&self) -> (*const u8, usize) {
        (self.0.as_ptr(), self.0.len())
    }

    fn read(&self, offset: usize, into: &mut [u8]) {
        let there = self.0.len().saturating_sub(offset).min(into.len());
        let (inside, outside) = into.split_at_mut(there);
        outside.fill(0);
        if self.0.read(offset, inside).is_none() {
            inside.fill(0);
        }
    }
}

impl GuestPixels for BlobPixels {
    fn give_back(&self) {
        self.0.give_back();
    }
}
