//! 3D resources: how a renderer that has its own textures and buffers plugs into the device
//! ([`Resources3d`]).
//!
//! OpenGL in a guest makes textures with `RESOURCE_CREATE_3D`, fills and reads them with transfers,
//! attaches them to contexts with `CTX_ATTACH_RESOURCE`, and shows them with `SET_SCANOUT`. Only
//! the renderer knows what is in them. The device checks what can be checked without it, keeps the
//! order, and answers the guest when the renderer has answered.
//!
//! The calls of [`Resources3d`] enqueue and return at once, like those of a context
//! ([`crate::renderer::Context`]). They are carried out in order, together with the calls of the
//! renderer's contexts. Each takes a [`Done`] or a [`Pixels`], which is told the outcome from any
//! thread. One that is dropped untold reports that the renderer has failed, so that no chain of the
//! guest is ever lost.
//!
//! The hard thing is the guest's memory. The renderer reads and writes it while it is attached to a
//! resource; see [`AttachedPages`].

use std::time::Duration;

use crate::pixels::Rect;
use crate::renderer::{ContextId, RendererError, ResourceId};

pub use crate::guest_pages::AttachedPages;

/// What a guest asks for with `RESOURCE_CREATE_3D`. The device has checked that no side is 0. The
/// renderer checks everything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape3d {
    /// Gallium's target.
    pub target: u32,
    /// virgl's format.
    pub format: u32,
    /// virgl's bind bits.
    pub bind: u32,
    /// Width in pixels; of a buffer, its bytes.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Depth in pixels.
    pub depth: u32,
    /// Layers.
    pub array_size: u32,
    /// The highest mipmap level.
    pub last_level: u32,
    /// Samples a pixel.
    pub samples: u32,
    /// Flags.
    pub flags: u32,
}

/// A part of a 3D resource. The device has checked that no sum overflows and that it is inside of
/// the level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Box3d {
    /// Left edge.
    pub x: u32,
    /// Upper edge.
    pub y: u32,
    /// First slice or layer.
    pub z: u32,
    /// Width.
    pub width: u32,
    /// Height.
    pub height: u32,
    /// Slices or layers.
    pub depth: u32,
}

/// Which way a transfer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// `TRANSFER_TO_HOST_3D`: guest memory is read.
    ToHost,
    /// `TRANSFER_FROM_HOST_3D`: guest memory is written.
    FromHost,
}

/// A transfer between a resource and the guest memory that is attached to it. The device has
/// checked that it begins inside of that memory. Where it ends depends on the format, and the
/// renderer must check that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The part of the resource.
    pub bounds: Box3d,
    /// The mipmap level, which the resource has.
    pub level: u32,
    /// Where it begins in the memory.
    pub offset: u64,
    /// Bytes from row to row; 0 = without padding.
    pub stride: u32,
    /// Bytes from layer to layer; 0 = without padding.
    pub layer_stride: u32,
}

/// The callback for the result of a call.
pub struct Done(Option<Tell>);

type Tell = Box<dyn FnOnce(Result<(), RendererError>) + Send>;

impl Done {
    pub(crate) fn new(tell: impl FnOnce(Result<(), RendererError>) + Send + 'static) -> Self {
        Self(Some(Box::new(tell)))
    }

    /// Reports the result.
    pub fn tell(mut self, result: Result<(), RendererError>) {
        if let Some(tell) = self.0.take() {
            tell(result);
        }
    }
}

impl Drop for Done {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            tell(Err(gone()));
        }
    }
}

/// The callback for the pixels of a resource: rows from top to bottom, without padding, in the
/// resource's format.
pub struct Pixels(Option<Show>);

type Show = Box<dyn FnOnce(Result<&[u8], RendererError>) + Send>;

impl Pixels {
    pub(crate) fn new(show: impl FnOnce(Result<&[u8], RendererError>) + Send + 'static) -> Self {
        Self(Some(Box::new(show)))
    }

    /// Reports the pixels.
    pub fn show(mut self, result: Result<&[u8], RendererError>) {
        if let Some(show) = self.0.take() {
            show(result);
        }
    }
}

impl Drop for Pixels {
    fn drop(&mut self) {
        if let Some(show) = self.0.take() {
            show(Err(gone()));
        }
    }
}

fn gone() -> RendererError {
    RendererError::ContextLost("the renderer of 3D resources has ended".to_owned())
}

/// The 3D resources of a renderer. Calls come in the order of the guest's commands and return at
/// once, except for [`Self::clear`]. The guest chooses the ids. It may use one again after
/// [`Self::destroy`].
pub trait Resources3d: Send + Sync {
    /// `RESOURCE_CREATE_3D`. When it fails there is no such resource, and later calls for it fail
    /// too, until the device knows.
    fn create(&self, resource: ResourceId, shape: &Shape3d, done: Done);

    /// `RESOURCE_UNREF`: destroys the resource. Its memory must be released before `done` is told.
    fn destroy(&self, resource: ResourceId, done: Done);

    /// `RESOURCE_ATTACH_BACKING`: the resource has this guest memory from now on.
    fn attach_memory(&self, resource: ResourceId, pages: AttachedPages, done: Done);

    /// `RESOURCE_DETACH_BACKING`: the memory must be released before `done` is told.
    fn detach_memory(&self, resource: ResourceId, done: Done);

    /// `TRANSFER_TO_HOST_3D` and `TRANSFER_FROM_HOST_3D`, in a context or, with 0, in none.
    fn transfer(
        &self,
        resource: ResourceId,
        context: ContextId,
        direction: Direction,
        transfer: &Transfer,
        done: Done,
    );

    /// Reads `rect` of level 0 for a screen. The format has four bytes a pixel.
    fn read(&self, resource: ResourceId, rect: Rect, pixels: Pixels);

    /// Destroys all resources: the guest starts anew. Waits for at most `patience` until their
    /// memory is released, and returns whether it is.
    fn clear(&self, patience: Duration) -> bool;
}
