//! The thread that runs virglrenderer.

use std::collections::{HashMap, HashSet};
use std::io::IoSliceMut;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};

use hesper_system::sync::Lock;
use hesper_vhost::renderer::{CapsetInfo, ContextId, RendererError, ResourceId};
use hesper_vhost::resource3d::{AttachedPages, Direction, Shape3d, Transfer};
use hesper_vhost::screen::{BYTES_PER_PIXEL, Rect};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rutabaga_gfx::{
    RUTABAGA_CAPSET_VIRGL, RUTABAGA_CAPSET_VIRGL2, RUTABAGA_FLAG_FENCE,
    RUTABAGA_FLAG_INFO_RING_IDX, ResourceCreate3D, Rutabaga, RutabagaBuilder, RutabagaError,
    RutabagaFence, RutabagaHandler, RutabagaIntoRawDescriptor, RutabagaIovec, Transfer3D,
};

use super::mailbox::{Mailbox, Message};
use crate::rutabaga::life::Life;

/// Limits the lines that a guest or its VM monitor can cause.
static LINES: hesper_system::LogLimit = hesper_system::LogLimit::new("hesper");

/// A capability set, and its bytes.
pub(super) struct Capset {
    /// Its id, version and size.
    pub(super) info: CapsetInfo,
    /// The bytes that the guest reads.
    pub(super) bytes: Vec<u8>,
}

/// How often the library is polled for retired fences if it has no descriptor for that.
const POLL: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 2_000_000,
};

/// The library's contexts, for the fences that it retires.
type Contexts = Arc<Mutex<HashMap<ContextId, Arc<Life>>>>;

/// Runs the thread: starts the library, sends its capability sets or an error to `startup`, and
/// serves messages until [`Message::Stop`].
pub(super) fn run(mailbox: &Mailbox, startup: &SyncSender<Result<Vec<Capset>, String>>) {
    let started = catch_unwind(AssertUnwindSafe(Worker::start));
    let worker = match started {
        Ok(Ok((worker, capsets))) => {
            let _ = startup.send(Ok(capsets));
            Some(worker)
        }
        Ok(Err(reason)) => {
            let _ = startup.send(Err(reason));
            None
        }
        Err(_) => None,
    };
    if let Some(mut worker) = worker {
        let contexts = Arc::clone(&worker.contexts);
        if catch_unwind(AssertUnwindSafe(|| worker.serve(mailbox))).is_err() {
            log::error!("virgl ends: rutabaga_gfx panicked");
        }
        let left: Vec<_> = lock(&contexts).drain().collect();
        for (_, life) in left {
            life.lose("virglrenderer has ended");
        }
        mailbox.close();
        // The library is dropped before the pages to which it has pointers.
        let Worker {
            rutabaga, pages, ..
        } = worker;
        drop(rutabaga);
        drop(pages);
    }
    mailbox.close();
}

fn lock(contexts: &Contexts) -> std::sync::MutexGuard<'_, HashMap<ContextId, Arc<Life>>> {
    contexts.locked()
}

struct Worker {
    rutabaga: Rutabaga,
    /// Readable when the library needs to be polled.
    events: Option<OwnedFd>,
    contexts: Contexts,
    /// The library's resources.
    resources: HashSet<ResourceId>,
    /// The guest pages to which the library has pointers.
    pages: HashMap<ResourceId, AttachedPages>,
    /// Buffer for pixels that are read for a screen.
    pixels: Vec<u8>,
}

impl Worker {
    fn start() -> Result<(Self, Vec<Capset>), String> {
        let contexts = Contexts::default();
        let retiring = Arc::clone(&contexts);
        let handler = RutabagaHandler::new(move |fence: RutabagaFence| {
            let life = lock(&retiring).get(&fence.ctx_id).cloned();
            if let Some(life) = life {
                // A context never uses a fence number twice, so a fence of an earlier context with
                // this id retires nothing.
                life.retire_up_to(fence.fence_id);
            }
        });
        let mask = 1 << RUTABAGA_CAPSET_VIRGL | 1 << RUTABAGA_CAPSET_VIRGL2;
        let rutabaga = RutabagaBuilder::new(mask, handler)
            .set_use_egl(true)
            .set_use_surfaceless(true)
            // Without this the library offers buffers that only this process could map.
            .set_use_external_blob(true)
            .build()
            .map_err(|error| format!("rutabaga_gfx does not start: {error}"))?;
        let capsets = capsets(&rutabaga)?;
        let events = rutabaga.poll_descriptor().map(|descriptor| {
            let raw = descriptor.into_raw_descriptor();
            // SAFETY: on Linux, the raw descriptor was an owned one, and `into_raw_descriptor`
            // gives up that ownership.
            unsafe { OwnedFd::from_raw_fd(raw) }
        });
        let worker = Self {
            rutabaga,
            events,
            contexts,
            resources: HashSet::new(),
            pages: HashMap::new(),
            pixels: Vec::new(),
        };
        Ok((worker, capsets))
    }

    fn serve(&mut self, mailbox: &Mailbox) {
        loop {
            match mailbox.take() {
                Some(Message::Stop) => return,
                Some(message) => self.attempt(message),
                None => self.wait(mailbox),
            }
        }
    }

    /// Performs a message. An error or a panic loses the context that the message is for.
    fn attempt(&mut self, message: Message) {
        let life = match &message {
            Message::CreateContext(life, _)
            | Message::Submit(life, ..)
            | Message::Fence(life, _)
            | Message::AttachResource(life, _)
            | Message::DetachResource(life, _) => Some(Arc::clone(life)),
            _ => None,
        };
        if life.as_ref().is_some_and(|life| !life.is_running()) {
            return;
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| self.carry_out(message)));
        let reason = match outcome {
            Ok(Ok(())) => return,
            Ok(Err(reason)) => reason,
            Err(_) => "rutabaga_gfx panicked".to_owned(),
        };
        match life {
            Some(life) => life.lose(&reason),
            None => LINES.log(log::Level::Error, format_args!("virgl: {reason}")),
        }
    }

    /// Waits for a message or for an event of the library.
    fn wait(&self, mailbox: &Mailbox) {
        let mailbox = mailbox.descriptor();
        let wake = PollFd::from_borrowed_fd(mailbox, PollFlags::IN);
        let polled = match &self.events {
            Some(events) => {
                let event = PollFd::from_borrowed_fd(events.as_fd(), PollFlags::IN);
                let mut both = [wake, event];
                let _ = poll(&mut both, None);
                let [_, event] = both;
                !event.revents().is_empty()
            }
            None => {
                let open = lock(&self.contexts)
                    .values()
                    .any(|life| life.has_open_fences());
                let timeout = open.then_some(&POLL);
                let _ = poll(&mut [wake], timeout);
                open
            }
        };
        if polled {
            self.rutabaga.event_poll();
        }
    }

    /// Performs a message.
    ///
    /// # Errors
    /// Why the message's context is lost.
    fn carry_out(&mut self, message: Message) -> Result<(), String> {
        // Messages that belong to no context run in the library's own context.
        if message.weight().is_none() {
            self.rutabaga.force_ctx_0();
        }
        match message {
            Message::CreateContext(life, capset) => self.create_context(life, capset)?,
            Message::DestroyContext(life) => self.destroy_context(&life),
            Message::Submit(life, mut commands, _charge) => {
                let length = commands.len();
                self.rutabaga
                    .submit_command(life.id, &mut commands, &[])
                    .map_err(|error| {
                        format!("virglrenderer refused a submission of {length} bytes: {error}")
                    })?;
            }
            Message::Fence(life, fence_id) => {
                let fence = RutabagaFence {
                    flags: RUTABAGA_FLAG_FENCE | RUTABAGA_FLAG_INFO_RING_IDX,
                    fence_id,
                    ctx_id: life.id,
                    // A context has only this ring.
                    ring_idx: 0,
                };
                self.rutabaga
                    .create_fence(fence)
                    .map_err(|error| format!("virglrenderer refused a fence: {error}"))?;
            }
            Message::AttachResource(life, resource) => {
                // If the resource does not exist, the command that uses it fails.
                let _ = self.rutabaga.context_attach_resource(life.id, resource);
            }
            Message::DetachResource(life, resource) => {
                let _ = self.rutabaga.context_detach_resource(life.id, resource);
            }
            Message::Create(resource, shape, done) => done.tell(self.create(resource, &shape)),
            Message::Destroy(resource, done) => done.tell(self.destroy(resource)),
            Message::AttachMemory(resource, pages, done) => {
                done.tell(self.attach_memory(resource, pages));
            }
            Message::DetachMemory(resource, done) => done.tell(self.detach_memory(resource)),
            Message::Transfer(resource, context, direction, transfer, done) => {
                done.tell(self.transfer(resource, context, direction, &transfer));
            }
            Message::Read(resource, rect, pixels) => {
                let read = self.read(resource, rect);
                pixels.show(read.map(|()| self.pixels.as_slice()));
            }
            Message::Clear(done) => {
                for resource in std::mem::take(&mut self.resources) {
                    self.remove(resource);
                }
                drop(done);
            }
            Message::Stop => {}
        }
        Ok(())
    }

    fn create_context(&mut self, life: Arc<Life>, capset: u32) -> Result<(), String> {
        let name = Some(life.name()).filter(|name| !name.is_empty());
        self.rutabaga
            .create_context(life.id, capset, name)
            .map_err(|error| format!("virglrenderer cannot create the context: {error}"))?;
        lock(&self.contexts).insert(life.id, life);
        Ok(())
    }

    fn destroy_context(&mut self, life: &Arc<Life>) {
        let is_there = {
            let mut contexts = lock(&self.contexts);
            let is_it = contexts
                .get(&life.id)
                .is_some_and(|one| Arc::ptr_eq(one, life));
            is_it && contexts.remove(&life.id).is_some()
        };
        if is_there && let Err(error) = self.rutabaga.destroy_context(life.id) {
            log::debug!("virglrenderer cannot destroy context {}: {error}", life.id);
        }
    }

    fn create(&mut self, resource: ResourceId, shape: &Shape3d) -> Result<(), RendererError> {
        let create = ResourceCreate3D {
            target: shape.target,
            format: shape.format,
            bind: shape.bind,
            width: shape.width,
            height: shape.height,
            depth: shape.depth,
            array_size: shape.array_size,
            last_level: shape.last_level,
            nr_samples: shape.samples,
            flags: shape.flags,
        };
        self.rutabaga
            .resource_create_3d(resource, create)
            .map_err(|error| invalid(&error, &format!("resource {resource} as {shape:?}")))?;
        self.resources.insert(resource);
        Ok(())
    }

    fn destroy(&mut self, resource: ResourceId) -> Result<(), RendererError> {
        self.find(resource)?;
        self.resources.remove(&resource);
        self.remove(resource);
        Ok(())
    }

    /// Detaches a resource's pages and removes it from the library.
    fn remove(&mut self, resource: ResourceId) {
        // The pages first: a context's objects may keep the resource's storage alive for longer.
        let _ = self.detach_memory(resource);
        if let Err(error) = self.rutabaga.unref_resource(resource) {
            log::debug!("virglrenderer cannot remove resource {resource}: {error}");
        }
    }

    fn attach_memory(
        &mut self,
        resource: ResourceId,
        pages: AttachedPages,
    ) -> Result<(), RendererError> {
        self.find(resource)?;
        let iovecs = iovecs(&pages);
        if iovecs.is_empty() {
            return Ok(());
        }
        // The library keeps these pointers and accesses their memory during its calls in this
        // thread. This is sound because:
        // - `self.pages` keeps the memory mapped until `detach_memory` has taken the pointers from
        //   the library. At the end of the thread, the library is dropped first (`run`).
        // - The guest, and other threads of this process on behalf of the guest, may write to the
        //   pages at the same time. The library takes plain data from them, once, and checks bounds
        //   on its own copies.
        self.rutabaga
            .attach_backing(resource, iovecs)
            .map_err(|error| invalid(&error, &format!("memory of resource {resource}")))?;
        self.pages.insert(resource, pages);
        Ok(())
    }

    fn detach_memory(&mut self, resource: ResourceId) -> Result<(), RendererError> {
        if self.pages.contains_key(&resource) {
            let detached = self.rutabaga.detach_backing(resource);
            if let Err(error) = detached {
                // The library does not know the resource, so it has no pointers to its memory.
                log::debug!("memory of resource {resource}: {error}");
            }
            self.pages.remove(&resource);
        }
        Ok(())
    }

    fn transfer(
        &mut self,
        resource: ResourceId,
        context: ContextId,
        direction: Direction,
        transfer: &Transfer,
    ) -> Result<(), RendererError> {
        self.find(resource)?;
        let bounds = transfer.bounds;
        let wanted = Transfer3D {
            x: bounds.x,
            y: bounds.y,
            z: bounds.z,
            w: bounds.width,
            h: bounds.height,
            d: bounds.depth,
            level: transfer.level,
            stride: transfer.stride,
            layer_stride: transfer.layer_stride,
            offset: transfer.offset,
        };
        let done = match direction {
            Direction::ToHost => self
                .rutabaga
                .transfer_write(context, resource, wanted, None),
            Direction::FromHost => self.rutabaga.transfer_read(context, resource, wanted, None),
        };
        done.map_err(|error| invalid(&error, &format!("{transfer:?} of resource {resource}")))
    }

    /// Reads a rectangle of pixels into `self.pixels`.
    fn read(&mut self, resource: ResourceId, rect: Rect) -> Result<(), RendererError> {
        self.find(resource)?;
        let stride = rect.width.checked_mul(BYTES_PER_PIXEL);
        let length = stride.and_then(|stride| {
            let length = u64::from(stride) * u64::from(rect.height);
            usize::try_from(length).ok()
        });
        let (Some(stride), Some(length)) = (stride, length) else {
            let what = format!("{rect:?} of resource {resource} is too large");
            return Err(RendererError::Invalid(what));
        };
        self.pixels.resize(length, 0);
        let wanted = Transfer3D {
            stride,
            ..Transfer3D::new_2d(rect.x, rect.y, rect.width, rect.height, 0)
        };
        let into = IoSliceMut::new(&mut self.pixels);
        self.rutabaga
            .transfer_read(0, resource, wanted, Some(into))
            .map_err(|error| invalid(&error, &format!("pixels of resource {resource}")))
    }

    fn find(&self, resource: ResourceId) -> Result<(), RendererError> {
        if self.resources.contains(&resource) {
            return Ok(());
        }
        Err(RendererError::Invalid(format!(
            "virglrenderer has no resource {resource}"
        )))
    }
}

/// Converts guest memory to the library's type, in at least two pieces.
///
/// The library passes memory in one piece to OpenGL unchanged, with strides whose product it has
/// checked in 32 bits only: a guest could make OpenGL read and write other memory of this process.
/// Memory in several pieces is copied row by row, up to its end.
fn iovecs(pages: &AttachedPages) -> Vec<RutabagaIovec> {
    let iovec = |start: *mut u8, len| RutabagaIovec {
        base: start.cast(),
        len,
    };
    match *pages.pieces() {
        [(start, len)] => {
            let half = len / 2;
            vec![
                iovec(start, half),
                iovec(start.wrapping_add(half), len - half),
            ]
        }
        ref pieces => pieces
            .iter()
            .map(|&(start, len)| iovec(start, len))
            .collect(),
    }
}

fn invalid(error: &RutabagaError, what: &str) -> RendererError {
    RendererError::Invalid(format!("virglrenderer refused {what}: {error}"))
}

/// The capability sets that the library offers on this host.
fn capsets(rutabaga: &Rutabaga) -> Result<Vec<Capset>, String> {
    let mut found = Vec::new();
    for index in 0..rutabaga.get_num_capsets() {
        let failed = |error: RutabagaError| format!("capability set {index}: {error}");
        let (id, max_version, max_size) = rutabaga.get_capset_info(index).map_err(failed)?;
        if id != RUTABAGA_CAPSET_VIRGL && id != RUTABAGA_CAPSET_VIRGL2 {
            continue;
        }
        let bytes = rutabaga.get_capset(id, max_version).map_err(failed)?;
        if bytes.is_empty() || bytes.iter().all(|byte| *byte == 0) {
            return Err(format!("its capability set {id} is empty"));
        }
        let info = CapsetInfo {
            id,
            max_version,
            max_size,
        };
        found.push(Capset { info, bytes });
    }
    if found.is_empty() {
        return Err(
            "virglrenderer finds no OpenGL here; it needs EGL without a window system (Debian: libegl1 \
             libgl1-mesa-dri), and RUST_LOG=rutabaga_gfx=debug shows its log"
                .to_owned(),
        );
    }
    Ok(found)
}
