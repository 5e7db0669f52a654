//! Joins the device to the Venus renderer: implements the device's [`Renderer`] with [`Contexts`].
//!
//! Each side has plain types of its own. Only this module knows both.

use std::any::Any;
use std::sync::{Arc, OnceLock};

use hesper_venus as venus;
use hesper_venus::{ContextEvents, DisplayServer, SharedMemory};
use hesper_vhost::budget::Charge;
use hesper_vhost::renderer::{
    Blob, BlobKind, BlobRequest, CapsetInfo, Completions, Context, ContextId, GuestRun, MapCaching,
    NewContext, Renderer, RendererError, ResourceId, SharedPixels,
};
use hesper_vhost::screen::{GuestPixels, PixelMemory, WritablePixels};

use crate::contexts::{Contexts, TraceError, VenusContext};

/// `VIRTIO_GPU_CAPSET_VENUS`.
const CAPSET_VENUS: u32 = 4;
/// The only version of that capability set.
const VERSION: u32 = 0;
/// Its size in bytes.
const CAPSET_SIZE: u32 = 160;

/// The Venus renderer as a device's [`Renderer`].
pub(crate) struct VenusRenderer {
    contexts: Arc<dyn Contexts>,
    capsets: [CapsetInfo; 1],
    /// The handler for lost contexts.
    when_lost: Arc<OnceLock<WhenLost>>,
}

/// A handler for lost contexts. It takes the context's name and the reason.
type WhenLost = Box<dyn Fn(&str, &str) + Send + Sync>;

impl VenusRenderer {
    pub(crate) fn new(contexts: Arc<dyn Contexts>) -> Self {
        let capset = CapsetInfo {
            id: CAPSET_VENUS,
            max_version: VERSION,
            max_size: CAPSET_SIZE,
        };
        Self {
            contexts,
            capsets: [capset],
            when_lost: Arc::default(),
        }
    }

    /// Calls `tell` for every context that is lost from now on, with its name and the reason. Only
    /// the first call has an effect.
    pub(crate) fn when_lost(&self, tell: impl Fn(&str, &str) + Send + Sync + 'static) {
        // An error means that a handler is set already.
        let _ = self.when_lost.set(Box::new(tell));
    }

    /// The renderer's counters as a JSON object.
    pub(crate) fn counters(&self) -> String {
        self.contexts.counters().to_json()
    }

    /// Begins to record a trace; see [`Contexts::start_trace`].
    pub(crate) fn start_trace(&self) -> Result<(), TraceError> {
        self.contexts.start_trace()
    }

    /// Ends the recording; see [`Contexts::stop_trace`].
    pub(crate) fn stop_trace(&self) -> Result<Vec<u8>, TraceError> {
        self.contexts.stop_trace()
    }

    /// Waits until all contexts have ended; see [`Contexts::settle`].
    pub(crate) fn settle(&self) {
        self.contexts.settle();
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
        (id == CAPSET_VENUS && version == VERSION).then(|| self.contexts.capset().to_vec())
    }

    fn create_context(
        &self,
        id: ContextId,
        about: &NewContext<'_>,
        completions: Arc<dyn Completions>,
    ) -> Result<Arc<dyn Context>, RendererError> {
        // A guest's desktop that draws with the processor takes no dma-bufs.
        let server = match about.is_screen_drawn_by_cpu {
            true => DisplayServer::NeedsCopies,
            false => DisplayServer::Unknown,
        };
        let events = Arc::new(Events {
            context: id,
            name: about.name.to_owned(),
            when_lost: Arc::clone(&self.when_lost),
            completions,
        });
        match self.contexts.create_context(id, about.name, server, events) {
            Ok(context) => Ok(Arc::new(DeviceContext(context))),
            Err(error) => Err(RendererError::OutOfMemory(error)),
        }
    }
}

/// The folder for saved command streams; see [`hesper_venus::RendererOptions::save_streams`].
pub(crate) fn save_streams() -> Option<std::path::PathBuf> {
    std::env::var_os("HESPER_SAVE_STREAMS").map(Into::into)
}

/// One guest context.
struct DeviceContext(Arc<dyn VenusContext>);

impl Context for DeviceContext {
    fn submit(&self, commands: Vec<u8>, charge: Charge) {
        self.0.submit(commands, charge);
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
            // Guest pages as a shadow copy are not needed: guest and host share the memory itself.
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

    fn share_pixels(&self, size: u64) -> Option<SharedPixels> {
        // Drivers import whole pages, and a guest's pages may have 64 KiB.
        let size = size.checked_next_multiple_of(64 << 10)?;
        let memory = Arc::new(SharedMemory::create(size).ok()?);
        let pixels = Arc::new(BlobPixels(Arc::clone(&memory)));
        Some(SharedPixels {
            blob: device_blob(venus::Blob {
                memory,
                caching: venus::Caching::Cached,
            }),
            memory: pixels,
        })
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
                // A 2D resource. The guest's driver attaches every resource that it makes. A Venus
                // command that names this one gets an error.
                None => log::debug!("resource {resource} has no memory that Venus can import"),
            },
        }
    }

    fn detach_resource(&self, resource: ResourceId) {
        self.0.detach_resource(resource);
    }
}

/// Converts runs of guest memory to the renderer's type.
fn guest_pages(runs: Vec<GuestRun>) -> Vec<venus::GuestPages> {
    runs.into_iter()
        .map(|GuestRun { file, offset, size }| venus::GuestPages { file, offset, size })
        .collect()
}

/// Maps guest memory side by side for a screen; `None` if that fails or needs too many mappings.
pub(crate) fn guest_pixels(
    runs: Vec<GuestRun>,
    mappings: &Arc<venus::Mappings>,
) -> Option<Arc<dyn GuestPixels>> {
    match SharedMemory::gather(&guest_pages(runs), mappings) {
        Ok(memory) => Some(Arc::new(BlobPixels(Arc::new(memory)))),
        Err(error) => {
            log::debug!("a framebuffer in guest memory is copied at each flush: {error}");
            None
        }
    }
}

impl DeviceContext {
    fn attach_guest_memory(&self, resource: ResourceId, runs: Vec<GuestRun>) {
        let pages = guest_pages(runs);
        if let Err(error) = self.0.attach_guest_memory(resource, &pages) {
            // Harmless unless the guest names the resource in a command; that command then gets an
            // error.
            log::debug!("resource {resource} cannot be used in Venus: {error}");
        }
    }
}

/// A blob of this renderer, kept with the device's blob so that other contexts can attach it.
struct Origin(venus::Blob);

/// Reports a context's events to the device.
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
        // The renderer has logged it, and the guest sees it in its rings.
        if let Some(tell) = self.when_lost.get() {
            tell(&self.name, reason);
        }
    }
}

fn device_blob(blob: venus::Blob) -> Blob {
    let memory = &blob.memory;
    Blob {
        // The device unmaps it in the VMM before it drops the blob.
        fd: memory.lent_fd(),
        fd_offset: memory.fd_offset(),
        // The memory is mapped into this process, so its size fits into 64 bits.
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

// SAFETY: a `SharedMemory` is mapped for reading and writing.
unsafe impl WritablePixels for BlobPixels {}

// SAFETY: a `SharedMemory` is one mapping of whole pages. It stays mapped at its address as long as
// the value lives.
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
