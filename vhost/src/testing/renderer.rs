//! A renderer that the test controls.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use super::render::{FakeResources3d, Shared3d};
use crate::budget::{Charge, Pool};
use crate::renderer::{
    Blob, BlobRequest, CapsetInfo, Completions, Context, ContextId, GuestPages, MapCaching,
    NewContext, Renderer, RendererError, ResourceId, SharedPixels,
};
use crate::resource3d::Resources3d;
use crate::screen::{PixelMemory, WritablePixels};
use crate::surface::Surface;

/// What a context was asked to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FakeContext {
    /// `submit`.
    Submit(Vec<u8>),
    /// `fence` with its ring and number.
    Fence(u8, u64),
    /// `create_blob`.
    Create(ResourceId, BlobRequest),
    /// `attach_resource` with the blob's size.
    Attach(ResourceId, u64),
    /// `attach_3d`.
    Attach3d(ResourceId),
    /// `detach_resource`.
    Detach(ResourceId),
    /// Dropped.
    Ended,
}

#[derive(Default)]
struct Book {
    calls: HashMap<ContextId, Vec<FakeContext>>,
    reports: HashMap<ContextId, Arc<dyn Completions>>,
    names: HashMap<ContextId, String>,
    screens_drawn_by_cpu: HashMap<ContextId, bool>,
    pages: HashMap<(ContextId, ResourceId), Arc<dyn GuestPages>>,
    charges: HashMap<ContextId, Vec<Charge>>,
    /// Whether contexts can draw into 2D resources.
    draws: bool,
    shared: Option<Arc<dyn WritablePixels>>,
}

/// The renderer. By default it makes blobs and retires fences at once, from inside the calls. With
/// [`Self::be_slow`] it waits for [`Self::make_blob`], [`Self::retire`] and [`Self::consume`].
pub struct FakeRenderer {
    capsets: [CapsetInfo; 1],
    book: Arc<Mutex<Book>>,
    slow: Arc<AtomicBool>,
    resources_3d: Shared3d,
}

impl FakeRenderer {
    /// A renderer with the one capability set 4 of 160 bytes.
    pub fn new() -> Arc<Self> {
        Self::with_capset(4, 160)
    }

    /// A renderer with one capability set, whose bytes count up from 0.
    pub fn with_capset(id: u32, size: u8) -> Arc<Self> {
        Arc::new(Self::made(id, size, None))
    }

    /// A renderer with virgl's capability set 2 and 3D resources.
    pub fn with_3d() -> (Arc<Self>, Arc<FakeResources3d>) {
        let resources = Arc::new(FakeResources3d::default());
        let renderer = Self::made(2, 64, Some(Arc::clone(&resources)));
        (Arc::new(renderer), resources)
    }

    fn made(id: u32, size: u8, resources_3d: Shared3d) -> Self {
        Self {
            capsets: [CapsetInfo {
                id,
                max_version: 0,
                max_size: size.into(),
            }],
            book: Arc::default(),
            slow: Arc::default(),
            resources_3d,
        }
    }

    /// The guest memory of a resource that was attached to a context.
    pub fn pages(&self, context: ContextId, resource: ResourceId) -> Option<Arc<dyn GuestPages>> {
        let book = self.book.lock().unwrap();
        book.pages.get(&(context, resource)).cloned()
    }

    /// Makes blobs and fences wait for the test from now on, or no more.
    pub fn be_slow(&self, slow: bool) {
        self.slow.store(slow, Ordering::Relaxed);
    }

    /// The calls of a context since the last time.
    pub fn calls(&self, context: ContextId) -> Vec<FakeContext> {
        let mut book = self.book.lock().unwrap();
        book.calls
            .get_mut(&context)
            .map_or_else(Vec::new, std::mem::take)
    }

    /// The debug name of a context.
    pub fn name(&self, context: ContextId) -> Option<String> {
        self.book.lock().unwrap().names.get(&context).cloned()
    }

    /// Lets contexts draw into 2D resources.
    pub fn draw(&self) {
        self.book.lock().unwrap().draws = true;
    }

    /// The memory of the last 2D resource that contexts can draw into.
    pub fn shared(&self) -> Option<Arc<dyn WritablePixels>> {
        self.book.lock().unwrap().shared.clone()
    }

    /// What the device has said of the screen when it made a context.
    pub fn is_screen_drawn_by_cpu(&self, context: ContextId) -> Option<bool> {
        let book = self.book.lock().unwrap();
        book.screens_drawn_by_cpu.get(&context).copied()
    }

    /// The completions of the newest context with this id.
    pub fn reports(&self, context: ContextId) -> Arc<dyn Completions> {
        Arc::clone(&self.book.lock().unwrap().reports[&context])
    }

    /// Consumes the commands that were submitted while this was slow.
    pub fn consume(&self) {
        self.book.lock().unwrap().charges.clear();
    }

    /// Retires a fence.
    pub fn retire(&self, context: ContextId, ring: u8, fence: u64) {
        self.reports(context).fence_retired(context, ring, fence);
    }

    /// Answers a `create_blob` with memory of `size` bytes.
    pub fn make_blob(&self, context: ContextId, resource: ResourceId, size: u64) {
        self.reports(context)
            .blob_created(context, resource, Ok(fake_blob(size)));
    }

    /// Answers a `create_blob` with an error.
    pub fn fail_blob(&self, context: ContextId, resource: ResourceId, error: RendererError) {
        self.reports(context)
            .blob_created(context, resource, Err(error));
    }
}

/// A blob whose descriptor a VMM could not map. The recording transport does not try.
fn fake_blob(size: u64) -> Blob {
    let file = File::open("/dev/zero").expect("every Unix has /dev/zero");
    Blob {
        fd: Some(Arc::new(OwnedFd::from(file))),
        fd_offset: 0,
        size,
        caching: MapCaching::WriteCombining,
        pixels: None,
        guest: None,
        origin: None,
    }
}

impl Renderer for FakeRenderer {
    fn capsets(&self) -> &[CapsetInfo] {
        &self.capsets
    }

    fn capset(&self, id: u32, version: u32) -> Option<Vec<u8>> {
        let [info] = self.capsets;
        let size = u8::try_from(info.max_size).expect("made from a byte");
        (id == info.id && version == 0).then(|| (0..size).collect())
    }

    fn create_context(
        &self,
        id: ContextId,
        about: &NewContext<'_>,
        completions: Arc<dyn Completions>,
    ) -> Result<Arc<dyn Context>, RendererError> {
        let mut book = self.book.lock().unwrap();
        book.names.insert(id, about.name.to_owned());
        let drawn = about.is_screen_drawn_by_cpu;
        book.screens_drawn_by_cpu.insert(id, drawn);
        book.reports.insert(id, Arc::clone(&completions));
        Ok(Arc::new(Running {
            id,
            book: Arc::clone(&self.book),
            slow: Arc::clone(&self.slow),
            completions,
        }))
    }

    fn resources_3d(&self) -> Option<Arc<dyn Resources3d>> {
        self.resources_3d.clone().map(|resources| resources as _)
    }
}

struct Running {
    id: ContextId,
    book: Arc<Mutex<Book>>,
    slow: Arc<AtomicBool>,
    completions: Arc<dyn Completions>,
}

impl Running {
    fn note(&self, call: FakeContext) {
        let mut book = self.book.lock().unwrap();
        book.calls.entry(self.id).or_default().push(call);
    }

    fn is_slow(&self) -> bool {
        self.slow.load(Ordering::Relaxed)
    }
}

impl Context for Running {
    fn submit(&self, commands: Vec<u8>, charge: Charge) {
        self.note(FakeContext::Submit(commands));
        if self.is_slow() {
            let mut book = self.book.lock().unwrap();
            book.charges.entry(self.id).or_default().push(charge);
        }
    }

    fn fence(&self, ring: u8, fence: u64) {
        self.note(FakeContext::Fence(ring, fence));
        if !self.is_slow() {
            self.completions.fence_retired(self.id, ring, fence);
        }
    }

    fn create_blob(&self, resource: ResourceId, request: BlobRequest) {
        self.note(FakeContext::Create(resource, request));
        if !self.is_slow() {
            self.completions
                .blob_created(self.id, resource, Ok(fake_blob(request.size)));
        }
    }

    fn share_pixels(&self, size: u64) -> Option<SharedPixels> {
        let mut book = self.book.lock().unwrap();
        if !book.draws {
            return None;
        }
        let surface = Surface::new(size, &Pool::new(u64::MAX)).ok()?;
        let (_, length) = surface.host_pages();
        let mut blob = fake_blob(length as u64);
        blob.pixels = Some(Arc::clone(&surface) as _);
        let memory = surface as Arc<dyn WritablePixels>;
        book.shared = Some(Arc::clone(&memory));
        Some(SharedPixels { blob, memory })
    }

    fn attach_resource(&self, resource: ResourceId, blob: &Blob) {
        self.note(FakeContext::Attach(resource, blob.size));
        if let Some(pages) = &blob.guest {
            let mut book = self.book.lock().unwrap();
            book.pages.insert((self.id, resource), Arc::clone(pages));
        }
    }

    fn attach_3d(&self, resource: ResourceId) {
        self.note(FakeContext::Attach3d(resource));
    }

    fn detach_resource(&self, resource: ResourceId) {
        self.note(FakeContext::Detach(resource));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.note(FakeContext::Ended);
        self.book.lock().unwrap().charges.remove(&self.id);
    }
}
