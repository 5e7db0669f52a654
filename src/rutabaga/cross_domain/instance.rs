//! A context's instance of the library, on a thread of its own.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Weak};

use hesper_vhost::renderer::{
    Blob, BlobRequest, GuestPages, MapCaching, RendererError, ResourceId,
};
use rutabaga_gfx::{
    RUTABAGA_BLOB_FLAG_USE_MAPPABLE, RUTABAGA_BLOB_FLAG_USE_SHAREABLE, RUTABAGA_BLOB_MEM_GUEST,
    RUTABAGA_BLOB_MEM_HOST3D, RUTABAGA_CAPSET_CROSS_DOMAIN, RUTABAGA_FLAG_FENCE,
    RUTABAGA_FLAG_INFO_RING_IDX, RUTABAGA_PATH_TYPE_WAYLAND, ResourceCreateBlob, Rutabaga,
    RutabagaBuilder, RutabagaError, RutabagaFence, RutabagaFenceHandler, RutabagaPath,
};

use super::commands::{self, Init, Kind};
use super::mailbox::{Mailbox, Message, Origin};
use super::memory;
use super::ring::Ring;
use super::shared::{CHANNEL_RING, Shared};

/// How many image layouts a context may ask for: the library keeps each of them.
const IMAGES: u32 = 16384;
/// How many pipes a context may open.
const PIPES: u32 = 16384;

/// Builds the library for Wayland connections to the socket `compositor`.
pub(super) fn library(
    compositor: &Path,
    handler: RutabagaFenceHandler,
) -> Result<Rutabaga, RutabagaError> {
    let path = RutabagaPath {
        path: compositor.to_owned(),
        path_type: RUTABAGA_PATH_TYPE_WAYLAND,
    };
    RutabagaBuilder::new(1 << RUTABAGA_CAPSET_CROSS_DOMAIN, handler)
        .set_rutabaga_paths(Some(vec![path]))
        .build()
}

/// Runs a context's thread until the context ends.
pub(super) fn run(
    compositor: &Path,
    shared: &Arc<Shared>,
    mailbox: &Receiver<Message>,
    sender: &Weak<Mailbox>,
) {
    let work = || match Instance::new(compositor, shared, sender) {
        Ok(mut instance) => {
            // Reported before the instance and its worker thread end.
            match instance.serve(mailbox) {
                Ok(()) => shared.life.end(),
                Err(reason) => shared.life.lose(&reason),
            }
        }
        Err(reason) => shared.life.lose(&reason),
    };
    if catch_unwind(AssertUnwindSafe(work)).is_err() {
        shared.life.lose("rutabaga_gfx panicked");
    }
    // The remaining and later messages are not served, but requests for blobs must be answered.
    for message in mailbox {
        shared.life.backlog.remove(message.weight());
        if let Message::CreateBlob(resource, _) = message {
            shared
                .life
                .answer_blob(resource, Err(shared.life.lost_error()));
        }
    }
}

struct Instance {
    /// Dropped before the rings, because the library writes to them.
    rutabaga: Rutabaga,
    rings: HashMap<ResourceId, Arc<Ring>>,
    query_ring: Option<Arc<Ring>>,
    /// Whether the library is connected: then the channel ring's fences retire when the host sends
    /// something.
    connected: bool,
    initialised: bool,
    /// The guest memory that is attached.
    pages: HashMap<ResourceId, Arc<dyn GuestPages>>,
    /// The blobs made here, each with a number that tells it from earlier blobs of the same id.
    blobs: HashMap<ResourceId, u64>,
    generation: u64,
    /// How many image layouts were asked for, and how many pipes were opened.
    images: u32,
    pipes: u32,
    shared: Arc<Shared>,
    sender: Weak<Mailbox>,
}

/// Whether to continue after a message.
enum Step {
    Next,
    /// The guest has ended the context.
    Stop,
}

impl Instance {
    fn new(
        compositor: &Path,
        shared: &Arc<Shared>,
        sender: &Weak<Mailbox>,
    ) -> Result<Self, String> {
        let starts = |error: RutabagaError| format!("rutabaga_gfx does not start: {error}");
        let mut rutabaga = library(compositor, shared.fence_handler()).map_err(starts)?;
        rutabaga
            .create_context(shared.life.id, RUTABAGA_CAPSET_CROSS_DOMAIN, None)
            .map_err(starts)?;
        Ok(Self {
            rutabaga,
            rings: HashMap::new(),
            query_ring: None,
            connected: false,
            initialised: false,
            pages: HashMap::new(),
            blobs: HashMap::new(),
            generation: 0,
            images: 0,
            pipes: 0,
            shared: Arc::clone(shared),
            sender: Weak::clone(sender),
        })
    }

    /// Serves messages until the context ends or breaks.
    fn serve(&mut self, mailbox: &Receiver<Message>) -> Result<(), String> {
        for message in mailbox {
            let weight = message.weight();
            let step = if self.shared.life.is_running() {
                self.take(message)
            } else {
                if let Message::CreateBlob(resource, _) = message {
                    self.shared
                        .life
                        .answer_blob(resource, Err(self.shared.life.lost_error()));
                }
                Ok(Step::Stop)
            };
            self.shared.life.backlog.remove(weight);
            if let Step::Stop = step? {
                break;
            }
        }
        Ok(())
    }

    fn take(&mut self, message: Message) -> Result<Step, String> {
        match message {
            Message::Submit(commands, _charge) => self.submit(commands)?,
            Message::Fence(ring, fence) => self.fence(ring, fence)?,
            Message::CreateBlob(resource, request) => {
                let result = self.create_blob(resource, request);
                self.shared.life.answer_blob(resource, result);
            }
            Message::AttachGuest(resource, pages) => {
                self.pages.insert(resource, pages);
            }
            Message::AttachHost(resource) => {
                if self.blobs.contains_key(&resource) {
                    self.rutabaga
                        .context_attach_resource(self.shared.life.id, resource)
                        .map_err(|error| format!("cannot attach resource {resource}: {error}"))?;
                } else {
                    log::debug!("resource {resource} is not a blob of a cross-domain context");
                }
            }
            Message::Detach(resource) => {
                self.pages.remove(&resource);
                if self.rings.contains_key(&resource) {
                    // A driver detaches the rings when its program ends, and then destroys the
                    // context.
                    return Ok(Step::Stop);
                }
                if self.blobs.contains_key(&resource) {
                    self.rutabaga
                        .context_detach_resource(self.shared.life.id, resource)
                        .map_err(|error| format!("cannot detach resource {resource}: {error}"))?;
                }
            }
            Message::Forget(resource, generation) => {
                if self.blobs.get(&resource) == Some(&generation) {
                    self.forget(resource);
                }
            }
        }
        Ok(Step::Next)
    }

    fn submit(&mut self, mut commands: Vec<u8>) -> Result<(), String> {
        let mut rest = commands.as_mut_slice();
        while let Some(command) = commands::next(&mut rest)? {
            match command.kind {
                Kind::Init(init) => self.prepare(init)?,
                Kind::ImageRequirements => {
                    self.images += 1;
                    if self.images > IMAGES {
                        return Err(format!(
                            "the guest asked for the layouts of more than {IMAGES} images"
                        ));
                    }
                }
                Kind::Send(pipes) => {
                    self.pipes += pipes;
                    if self.pipes > PIPES {
                        return Err(format!("the guest opened more than {PIPES} pipes"));
                    }
                }
                Kind::Other => {}
            }
            self.rutabaga
                .submit_command(self.shared.life.id, command.bytes, &[])
                .map_err(|error| format!("rutabaga_gfx refused a command: {error}"))?;
            match command.kind {
                Kind::Init(init) => self.connected = init.channel != 0,
                Kind::ImageRequirements => self.answer_image(),
                Kind::Send(_) | Kind::Other => {}
            }
        }
        Ok(())
    }

    /// Gives the library its rings for an INIT.
    fn prepare(&mut self, init: Init) -> Result<(), String> {
        // At a second INIT the library would lose its worker thread, and wait for it forever at the
        // end.
        if std::mem::replace(&mut self.initialised, true) {
            return Err("the context was initialised twice".to_owned());
        }
        self.query_ring = Some(self.ring(init.query_ring)?);
        if init.channel != 0 {
            if init.channel_ring == init.query_ring {
                return Err(format!(
                    "resource {} is named for both rings; each ring needs its own resource",
                    init.channel_ring
                ));
            }
            let ring = self.ring(init.channel_ring)?;
            self.shared.set_channel(ring);
        }
        Ok(())
    }

    fn ring(&mut self, resource: ResourceId) -> Result<Arc<Ring>, String> {
        let pages = self.pages.get(&resource).ok_or_else(|| {
            format!(
                "resource {resource} cannot be a ring: it is not a guest blob that is attached to the context"
            )
        })?;
        let ring = Ring::new(Arc::clone(pages))?;
        self.rings.insert(resource, Arc::clone(&ring));
        if self.blobs.contains_key(&resource) {
            // It belongs to an earlier resource of this id.
            self.forget(resource);
        }
        let iovec = ring.as_iovec();
        let blob = ResourceCreateBlob {
            blob_mem: RUTABAGA_BLOB_MEM_GUEST,
            blob_flags: RUTABAGA_BLOB_FLAG_USE_MAPPABLE,
            blob_id: 0,
            size: iovec.len as u64,
        };
        self.rutabaga
            .resource_create_blob(0, resource, blob, Some(vec![iovec]), None)
            .and_then(|()| {
                self.rutabaga
                    .context_attach_resource(self.shared.life.id, resource)
            })
            .map_err(|error| format!("resource {resource} cannot be a ring: {error}"))?;
        Ok(ring)
    }

    /// Copies the answer about an image's layout to the guest.
    fn answer_image(&mut self) {
        if let Some(ring) = &self.query_ring {
            // SAFETY: the library writes to the query ring only in this thread, during
            // `submit_command`, which has returned.
            unsafe { ring.deliver() };
        }
    }

    fn fence(&mut self, ring: u8, fence: u64) -> Result<(), String> {
        if ring > CHANNEL_RING {
            return Err(format!("the context has no ring {ring}"));
        }
        if ring == CHANNEL_RING && !self.connected {
            // Nothing is connected, so nothing will arrive.
            self.shared.life.retire(ring, fence);
            return Ok(());
        }
        let fence = RutabagaFence {
            flags: RUTABAGA_FLAG_FENCE | RUTABAGA_FLAG_INFO_RING_IDX,
            fence_id: fence,
            ctx_id: self.shared.life.id,
            ring_idx: ring,
        };
        self.rutabaga
            .create_fence(fence)
            .map_err(|error| format!("rutabaga_gfx refused a fence: {error}"))
    }

    fn create_blob(
        &mut self,
        resource: ResourceId,
        request: BlobRequest,
    ) -> Result<Blob, RendererError> {
        let BlobRequest { blob_id, size, .. } = request;
        if u32::try_from(blob_id).is_err() {
            return Err(RendererError::Invalid(format!(
                "no cross-domain object has the id {blob_id}"
            )));
        }
        self.forget(resource);
        self.shared.blobs.take(size)?;
        // Returns the bytes to the budget when it is dropped.
        self.generation += 1;
        let origin = Origin {
            resource,
            generation: self.generation,
            size,
            budget: Arc::clone(&self.shared.blobs),
            mailbox: Weak::clone(&self.sender),
        };
        let blob = ResourceCreateBlob {
            blob_mem: RUTABAGA_BLOB_MEM_HOST3D,
            // Without SHAREABLE the library gives its descriptor away and cannot send it
            // afterwards.
            blob_flags: RUTABAGA_BLOB_FLAG_USE_MAPPABLE | RUTABAGA_BLOB_FLAG_USE_SHAREABLE,
            blob_id,
            size,
        };
        let invalid = |error: RutabagaError| {
            RendererError::Invalid(format!("cross-domain object {blob_id} as a blob: {error}"))
        };
        self.rutabaga
            .resource_create_blob(self.shared.life.id, resource, blob, None, None)
            .map_err(invalid)?;
        self.blobs.insert(resource, self.generation);
        let fd = self
            .rutabaga
            .export_blob(resource)
            .map_err(invalid)
            .and_then(|handle| {
                memory::descriptor(handle)
                    .and_then(|fd| memory::mappable(fd, size))
                    .map_err(RendererError::Invalid)
            })
            .and_then(|fd| {
                // Attached last: after an error the blob is removed below, and the library would
                // keep the descriptor of an attached resource.
                self.rutabaga
                    .context_attach_resource(self.shared.life.id, resource)
                    .map_err(invalid)?;
                Ok(fd)
            });
        let fd = fd.inspect_err(|_| self.forget(resource))?;
        Ok(Blob {
            fd: Some(Arc::new(fd)),
            fd_offset: 0,
            size,
            caching: MapCaching::Cached,
            pixels: None,
            guest: None,
            origin: Some(Arc::new(origin)),
        })
    }

    /// Removes a blob from the library, if it exists.
    fn forget(&mut self, resource: ResourceId) {
        if self.blobs.remove(&resource).is_some()
            && let Err(error) = self.rutabaga.unref_resource(resource)
        {
            log::debug!("rutabaga_gfx cannot remove resource {resource}: {error}");
        }
    }
}
