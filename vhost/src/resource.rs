//! Resources: what the guest's resource ids name.
//!
//! A resource is one of four things, and its type says which:
//! - a [`Resource2d`] of the 2D commands, with pixels in host memory;
//! - a [`GuestBlob`], whose pixels stay in guest memory;
//! - a [`HostBlob`] with memory of a renderer, which exists once the renderer has made it;
//! - a [`Resource3d`], which a renderer has and only its commands reach.

use std::sync::Arc;

use vm_memory::GuestMemoryMmap;

use crate::backing::Backing;
use crate::budget::{Charge, Pool};
use crate::copy_pipeline::CopyPipeline;
use crate::error::CommandError;
use crate::fence::Ticket;
use crate::guest_framebuffer::GuestFramebuffer;
use crate::renderer::{Blob, ContextId};
use crate::resource3d::{Resources3d, Shape3d};
use crate::screen::{BYTES_PER_PIXEL, PixelFormat, Rect};
use crate::surface::Surface;

/// A guest's resource.
pub(crate) struct Resource {
    pub(crate) body: Body,
    /// Guest memory attached to it.
    pub(crate) backing: Option<Arc<Backing>>,
    /// The contexts that it is attached to.
    pub(crate) contexts: Vec<ContextId>,
    /// Assigned by `RESOURCE_ASSIGN_UUID`.
    pub(crate) uuid: Option<[u8; 16]>,
}

/// The kind of a resource.
pub(crate) enum Body {
    Resource2d(Resource2d),
    GuestBlob(GuestBlob),
    HostBlob(HostBlob),
    Resource3d(Resource3d),
}

/// A 2D resource.
#[derive(Clone)]
pub(crate) struct Resource2d {
    pub(crate) pixels: Arc<Surface>,
    pub(crate) format: PixelFormat,
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// Set once a context may draw into it.
    pub(crate) drawn: Option<Arc<Drawn2d>>,
}

/// What a 2D resource has besides its pixels if a context may draw into it.
pub(crate) struct Drawn2d {
    /// Its pixels, as contexts attach them.
    pub(crate) blob: Blob,
    /// The guest's pixels, as the device has last seen them.
    pub(crate) seen: Arc<Surface>,
}

impl Resource2d {
    /// Bytes from row to row.
    pub(crate) fn stride(&self) -> u64 {
        u64::from(self.width) * u64::from(BYTES_PER_PIXEL)
    }
}

/// A blob in guest memory; the memory is the resource's backing.
pub(crate) struct GuestBlob {
    pub(crate) size: u64,
    /// Its memory as the screen has it mapped, once it was scanned out.
    pub(crate) framebuffer: Option<GuestFramebuffer>,
    /// The screen did not map its memory, and is not asked again at each page flip.
    pub(crate) refused: bool,
    /// Its last shadow, kept until it is scanned out again.
    pub(crate) shadow: Option<Arc<Shadow>>,
}

/// A blob of a renderer.
pub(crate) enum HostBlob {
    /// The renderer has not answered yet.
    Pending {
        /// The generation of the context that makes it.
        generation: u64,
        /// The `RESOURCE_CREATE_BLOB` to answer.
        ticket: Ticket,
        /// What the guest asked for.
        size: u64,
        /// Whether the guest may map it.
        mappable: bool,
    },
    /// It exists.
    Ready {
        blob: Blob,
        size: u64,
        mappable: bool,
        /// Its offset in the host-visible window.
        mapped_at: Option<u64>,
    },
}

/// A 3D resource.
pub(crate) struct Resource3d {
    /// The renderer that has it.
    pub(crate) owner: Arc<dyn Resources3d>,
    pub(crate) shape: Shape3d,
    /// Tells it from another resource with the same id.
    pub(crate) serial: u64,
    /// The pixels that scanouts show: those of the last flush.
    pub(crate) shown: Option<Arc<Surface>>,
    pub(crate) _charge: Charge,
}

impl Resource3d {
    /// Bytes from row to row of what is shown.
    pub(crate) fn stride(&self) -> u64 {
        u64::from(self.shape.width) * u64::from(BYTES_PER_PIXEL)
    }
}

impl Resource {
    pub(crate) fn new(body: Body, backing: Option<Backing>) -> Self {
        Self {
            body,
            backing: backing.map(Arc::new),
            contexts: Vec::new(),
            uuid: None,
        }
    }

    /// A description for logs.
    pub(crate) fn kind(&self) -> &'static str {
        match &self.body {
            Body::Resource2d(_) => "a 2D resource",
            Body::GuestBlob(_) => "a guest blob",
            Body::HostBlob(HostBlob::Pending { .. }) => "a host blob that is still being made",
            Body::HostBlob(HostBlob::Ready { .. }) => "a host blob",
            Body::Resource3d(_) => "a 3D resource",
        }
    }
}

/// How a framebuffer lies in a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameLayout {
    /// Byte offset of the first pixel.
    pub(crate) offset: u64,
    /// Bytes from row to row.
    pub(crate) stride: u64,
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) format: PixelFormat,
}

impl FrameLayout {
    /// Fails unless rows do not overlap, are whole pixels and end inside `size` bytes.
    pub(crate) fn check(&self, size: u64) -> Result<(), CommandError> {
        let row = u64::from(self.width) * u64::from(BYTES_PER_PIXEL);
        if self.width == 0 || self.height == 0 {
            return Err(CommandError::BadValue {
                what: "a side of the framebuffer",
                value: 0,
                must: "at least 1",
            });
        }
        if self.stride < row || !self.stride.is_multiple_of(u64::from(BYTES_PER_PIXEL)) {
            return Err(CommandError::BadValue {
                what: "the stride",
                value: self.stride,
                must: "a multiple of 4 and not less than a row of pixels",
            });
        }
        // Both factors have 32 bits: no overflow.
        let length = self.stride * u64::from(self.height - 1) + row;
        match self.offset.checked_add(length) {
            Some(end) if end <= size => Ok(()),
            _ => Err(CommandError::OutOfRange {
                start: self.offset,
                length,
                size,
                of: "the blob",
            }),
        }
    }
}

/// A page-aligned host copy of a framebuffer in guest memory, without padding between rows.
pub(crate) struct Shadow {
    pub(crate) pixels: Arc<Surface>,
    pub(crate) layout: FrameLayout,
}

impl Shadow {
    pub(crate) fn new(layout: FrameLayout, pool: &Arc<Pool>) -> Result<Arc<Self>, CommandError> {
        let bytes = u64::from(layout.width) * u64::from(layout.height) * u64::from(BYTES_PER_PIXEL);
        Ok(Arc::new(Self {
            pixels: Surface::new(bytes, pool)?,
            layout,
        }))
    }

    /// Bytes from row to row.
    pub(crate) fn stride(&self) -> u64 {
        u64::from(self.layout.width) * u64::from(BYTES_PER_PIXEL)
    }

    /// Copies `rect` from guest memory into the shadow.
    pub(crate) fn gather(
        &self,
        memory: &GuestMemoryMmap,
        backing: &Backing,
        rect: Rect,
    ) -> Result<(), CommandError> {
        let source = Rows {
            offset: self.layout.offset + byte_of(rect.x, rect.y, self.layout.stride),
            stride: self.layout.stride,
        };
        copy_rows(memory, backing, source, &self.pixels, self.stride(), rect)
    }
}

/// Byte offset of a pixel in rows of `stride` bytes.
pub(crate) fn byte_of(x: u32, y: u32, stride: u64) -> u64 {
    u64::from(y) * stride + u64::from(x) * u64::from(BYTES_PER_PIXEL)
}

/// Where the rows of a rectangle are in a backing.
#[derive(Clone, Copy)]
pub(crate) struct Rows {
    /// Byte offset of the first row.
    pub(crate) offset: u64,
    /// Bytes from row to row.
    pub(crate) stride: u64,
}

impl Rows {
    /// The error for rows of `length` bytes that are not inside of `backing`.
    pub(crate) fn outside(&self, backing: &Backing, length: u64) -> CommandError {
        CommandError::OutOfRange {
            start: self.offset,
            length,
            size: backing.length(),
            of: "the backing",
        }
    }

    /// Fails unless `rows` rows, at least one, of `length` bytes are inside of `backing`.
    pub(crate) fn check(
        &self,
        backing: &Backing,
        rows: u64,
        length: u64,
    ) -> Result<(), CommandError> {
        let before = self.stride.checked_mul(rows - 1);
        let last = before.and_then(|before| before.checked_add(self.offset));
        backing.check(last.ok_or_else(|| self.outside(backing, length))?, length)
    }
}

/// Copies `rect` into `pixels`, whose rows are `stride` bytes, from the rows at `source` in
/// `backing`.
///
/// Rows without gaps on both sides are copied as one run.
pub(crate) fn copy_rows(
    memory: &GuestMemoryMmap,
    backing: &Backing,
    source: Rows,
    pixels: &Surface,
    stride: u64,
    rect: Rect,
) -> Result<(), CommandError> {
    if rect.width == 0 || rect.height == 0 {
        return Ok(());
    }
    let row = u64::from(rect.width) * u64::from(BYTES_PER_PIXEL);
    let (rows, length) = if row == stride && row == source.stride {
        (1, row * u64::from(rect.height))
    } else {
        (u64::from(rect.height), row)
    };
    let target = byte_of(rect.x, rect.y, stride);
    // The last byte is checked first: nothing is copied when the rectangle does not fit.
    let overflow = || source.outside(backing, length);
    source.check(backing, rows, length)?;
    let mut copies = CopyPipeline::new();
    for index in 0..rows {
        let into = pixels
            .slice(target + index * stride, length)
            .ok_or_else(overflow)?;
        let from = source.offset + index * source.stride;
        backing.copy_to(memory, from, &into, &mut copies)?;
    }
    copies.finish();
    Ok(())
}

/// The part of `rect` inside `bounds`, in their common coordinates. `None` when they do not meet.
pub(crate) fn intersect(rect: Rect, bounds: Rect) -> Option<Rect> {
    let left = rect.x.max(bounds.x);
    let top = rect.y.max(bounds.y);
    let right = rect
        .x
        .saturating_add(rect.width)
        .min(bounds.x.saturating_add(bounds.width));
    let bottom = rect
        .y
        .saturating_add(rect.height)
        .min(bounds.y.saturating_add(bounds.height));
    (left < right && top < bottom).then(|| Rect {
        x: left,
        y: top,
        width: right - left,
        height: bottom - top,
    })
}

/// Fails unless `rect` lies inside `width` × `height` pixels.
pub(crate) fn check_inside(rect: Rect, width: u32, height: u32) -> Result<(), CommandError> {
    let fits = |start: u32, length: u32, size: u32| {
        start.checked_add(length).is_some_and(|end| end <= size)
    };
    if fits(rect.x, rect.width, width) && fits(rect.y, rect.height, height) {
        Ok(())
    } else {
        Err(CommandError::BadRect(rect, width, height))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rect(x: u32, y: u32, width: u32, height: u32) -> Rect {
        Rect {
            x,
            y,
            width,
            height,
        }
    }

    #[test]
    fn intersections_at_the_edges_of_the_number_range() {
        let bounds = rect(10, 10, 100, 50);
        assert_eq!(
            intersect(rect(0, 0, u32::MAX, u32::MAX), bounds),
            Some(bounds)
        );
        assert_eq!(intersect(rect(u32::MAX, 0, u32::MAX, 1), bounds), None);
        assert_eq!(intersect(rect(0, 0, 10, 60), bounds), None);
        assert_eq!(
            intersect(rect(0, 59, 11, 9), bounds),
            Some(rect(10, 59, 1, 1))
        );
        assert!(check_inside(rect(u32::MAX, 0, 2, 1), u32::MAX, 4).is_err());
        assert!(check_inside(rect(3, 3, 1, 1), 4, 4).is_ok());
        assert!(check_inside(rect(4, 4, 0, 0), 4, 4).is_ok());
    }

    #[test]
    fn a_frame_must_fit_its_blob_to_the_last_byte() {
        let layout = FrameLayout {
            offset: 16,
            stride: 44,
            width: 10,
            height: 3,
            format: PixelFormat::B8G8R8X8,
        };
        let size = 16 + 2 * 44 + 40;
        assert!(layout.check(size).is_ok());
        assert!(layout.check(size - 1).is_err());
        assert!(
            FrameLayout {
                stride: 36,
                ..layout
            }
            .check(size)
            .is_err()
        );
        assert!(
            FrameLayout {
                stride: 42,
                ..layout
            }
            .check(size)
            .is_err()
        );
        assert!(FrameLayout { width: 0, ..layout }.check(size).is_err());
        let huge = FrameLayout {
            offset: u64::from(u32::MAX),
            stride: u64::from(u32::MAX) & !3,
            width: 1,
            height: u32::MAX,
            ..layout
        };
        assert!(huge.check(u64::MAX).is_ok());
        assert!(huge.check(1 << 40).is_err());
    }
}
