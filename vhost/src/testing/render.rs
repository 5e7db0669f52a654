//! Fake 3D resources: bytes, at four a pixel, one level, one layer.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::renderer::{ContextId, RendererError, ResourceId};
use crate::resource3d::{AttachedPages, Direction, Done, Pixels, Resources3d, Shape3d, Transfer};
use crate::screen::Rect;

/// What the renderer of 3D resources was asked to do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FakeCall3d {
    /// `create`.
    Create(ResourceId, Shape3d),
    /// `destroy`.
    Destroy(ResourceId),
    /// `attach_memory` with the number of bytes.
    Attach(ResourceId, usize),
    /// `detach_memory`.
    Detach(ResourceId),
    /// `transfer`.
    Transfer(ResourceId, ContextId, Direction, Transfer),
    /// `read`.
    Read(ResourceId, Rect),
    /// `clear`.
    Clear,
}

struct Texture {
    shape: Shape3d,
    bytes: Vec<u8>,
    pages: Option<AttachedPages>,
}

#[derive(Default)]
struct Textures {
    live: HashMap<ResourceId, Texture>,
    refuse: bool,
}

type DeferredCommand = Box<dyn FnOnce(&mut Textures) -> Tell + Send>;
type Tell = Box<dyn FnOnce() + Send>;

/// Fake 3D resources; see the module. By default it does everything at once, from inside the calls.
/// With [`Self::be_slow`] it waits for [`Self::work`].
#[derive(Default)]
pub struct FakeResources3d {
    calls: Mutex<Vec<FakeCall3d>>,
    textures: Mutex<Textures>,
    queue: Mutex<VecDeque<DeferredCommand>>,
    slow: AtomicBool,
}

impl FakeResources3d {
    /// Makes calls wait for the test from now on, or no more.
    pub fn be_slow(&self, slow: bool) {
        self.slow.store(slow, Ordering::Relaxed);
    }

    /// Makes everything fail for lack of memory from now on, or no more.
    pub fn refuse(&self, refuse: bool) {
        self.textures.lock().unwrap().refuse = refuse;
    }

    /// Carries out the next call that waits. Returns whether there was one.
    pub fn work(&self) -> bool {
        let work = self.queue.lock().unwrap().pop_front();
        work.map(|work| work(&mut self.textures.lock().unwrap()))
            .map(|tell| tell())
            .is_some()
    }

    /// Drops the calls that wait, like a renderer that dies.
    pub fn die(&self) {
        let queue = std::mem::take(&mut *self.queue.lock().unwrap());
        drop(queue);
    }

    /// The calls since the last time.
    pub fn calls(&self) -> Vec<FakeCall3d> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }

    /// The bytes of a resource.
    pub fn bytes(&self, resource: ResourceId) -> Option<Vec<u8>> {
        let textures = self.textures.lock().unwrap();
        textures
            .live
            .get(&resource)
            .map(|texture| texture.bytes.clone())
    }

    /// Renders: it fills a resource with one pixel.
    pub fn fill(&self, resource: ResourceId, pixel: [u8; 4]) {
        let mut textures = self.textures.lock().unwrap();
        let texture = textures.live.get_mut(&resource).expect("a live resource");
        for bytes in texture.bytes.chunks_exact_mut(4) {
            bytes.copy_from_slice(&pixel);
        }
    }

    /// Resources that are live.
    pub fn live(&self) -> usize {
        self.textures.lock().unwrap().live.len()
    }

    /// Resources that have guest memory.
    pub fn lent(&self) -> usize {
        let textures = self.textures.lock().unwrap();
        let lent = textures.live.values().filter(|one| one.pages.is_some());
        lent.count()
    }

    fn enqueue(
        &self,
        call: FakeCall3d,
        done: Done,
        act: impl FnOnce(&mut Textures) -> Result<(), RendererError> + Send + 'static,
    ) {
        self.push(
            call,
            Box::new(move |textures| {
                let refused = RendererError::OutOfMemory("the test refuses".to_owned());
                let result = if textures.refuse {
                    Err(refused)
                } else {
                    act(textures)
                };
                Box::new(move || done.tell(result))
            }),
        );
    }

    fn push(&self, call: FakeCall3d, work: DeferredCommand) {
        self.calls.lock().unwrap().push(call);
        self.queue.lock().unwrap().push_back(work);
        if !self.slow.load(Ordering::Relaxed) {
            while self.work() {}
        }
    }
}

fn missing(resource: ResourceId) -> RendererError {
    RendererError::Invalid(format!("there is no 3D resource {resource}"))
}

impl Textures {
    fn find(&mut self, resource: ResourceId) -> Result<&mut Texture, RendererError> {
        self.live
            .get_mut(&resource)
            .ok_or_else(|| missing(resource))
    }
}

impl Texture {
    /// Where the rows of a box begin in the texture, and how long each is.
    fn rows(&self, x: u32, y: u32, width: u32, height: u32) -> (Vec<usize>, usize) {
        let size = |pixels: u32| pixels as usize * 4;
        let starts = (y..y + height).map(|y| size(y) * self.shape.width as usize + size(x));
        (starts.collect(), size(width))
    }

    fn transfer(&mut self, direction: Direction, transfer: &Transfer) -> Result<(), RendererError> {
        let bounds = transfer.bounds;
        let (starts, row) = self.rows(bounds.x, bounds.y, bounds.width, bounds.height);
        let stride = match transfer.stride {
            0 => row,
            stride => stride as usize,
        };
        let pages = self.pages.as_ref().expect("the device has looked");
        let length: usize = pages.pieces().iter().map(|(_, length)| length).sum();
        let end = transfer.offset as usize + starts.len().saturating_sub(1) * stride + row;
        if end > length {
            return Err(RendererError::Invalid(format!(
                "{end} of {length} bytes of the memory"
            )));
        }
        for (index, start) in starts.into_iter().enumerate() {
            let texture = &mut self.bytes[start..start + row];
            let memory = transfer.offset as usize + index * stride;
            for (place, byte) in (memory..).zip(texture) {
                let address = address(pages, place);
                match direction {
                    // SAFETY: the address is inside of the pages, which are mapped.
                    Direction::ToHost => *byte = unsafe { address.read_volatile() },
                    // SAFETY: as above.
                    Direction::FromHost => unsafe { address.write_volatile(*byte) },
                }
            }
        }
        Ok(())
    }
}

/// The address of a byte of the pages.
fn address(pages: &AttachedPages, mut place: usize) -> *mut u8 {
    for (start, length) in pages.pieces() {
        if place < *length {
            // SAFETY: inside of the piece.
            return unsafe { start.add(place) };
        }
        place -= length;
    }
    panic!("the place was checked");
}

impl Resources3d for FakeResources3d {
    fn create(&self, resource: ResourceId, shape: &Shape3d, done: Done) {
        let shape = *shape;
        self.enqueue(FakeCall3d::Create(resource, shape), done, move |textures| {
            let bytes = match shape.target {
                0 => shape.width as usize,
                _ => shape.width as usize * shape.height as usize * 4,
            };
            let texture = Texture {
                shape,
                bytes: vec![0; bytes],
                pages: None,
            };
            let last = textures.live.insert(resource, texture);
            assert!(last.is_none(), "resource {resource} was made twice");
            Ok(())
        });
    }

    fn destroy(&self, resource: ResourceId, done: Done) {
        self.enqueue(FakeCall3d::Destroy(resource), done, move |textures| {
            let gone = textures.live.remove(&resource);
            gone.map(drop).ok_or_else(|| missing(resource))
        });
    }

    fn attach_memory(&self, resource: ResourceId, pages: AttachedPages, done: Done) {
        let length = pages.pieces().iter().map(|(_, length)| length).sum();
        let call = FakeCall3d::Attach(resource, length);
        self.enqueue(call, done, move |textures| {
            let last = textures.find(resource)?.pages.replace(pages);
            assert!(last.is_none(), "resource {resource} has memory");
            Ok(())
        });
    }

    fn detach_memory(&self, resource: ResourceId, done: Done) {
        self.enqueue(FakeCall3d::Detach(resource), done, move |textures| {
            textures.find(resource)?.pages = None;
            Ok(())
        });
    }

    fn transfer(
        &self,
        resource: ResourceId,
        context: ContextId,
        direction: Direction,
        transfer: &Transfer,
        done: Done,
    ) {
        let transfer = *transfer;
        let call = FakeCall3d::Transfer(resource, context, direction, transfer);
        self.enqueue(call, done, move |textures| {
            textures.find(resource)?.transfer(direction, &transfer)
        });
    }

    fn read(&self, resource: ResourceId, rect: Rect, pixels: Pixels) {
        let work = move |textures: &mut Textures| -> Tell {
            let result = match textures.find(resource) {
                Ok(texture) => {
                    let (starts, row) = texture.rows(rect.x, rect.y, rect.width, rect.height);
                    let rows = starts
                        .iter()
                        .map(|start| &texture.bytes[*start..*start + row]);
                    Ok(rows.collect::<Vec<_>>().concat())
                }
                Err(error) => Err(error),
            };
            Box::new(move || match result {
                Ok(bytes) => pixels.show(Ok(&bytes)),
                Err(error) => pixels.show(Err(error)),
            })
        };
        self.push(FakeCall3d::Read(resource, rect), Box::new(work));
    }

    fn clear(&self, _patience: Duration) -> bool {
        self.calls.lock().unwrap().push(FakeCall3d::Clear);
        self.die();
        self.textures.lock().unwrap().live.clear();
        true
    }
}

/// A renderer's 3D resources, shared with the test.
pub(super) type Shared3d = Option<Arc<FakeResources3d>>;
