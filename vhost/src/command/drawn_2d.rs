//! 2D resources into which a renderer's contexts draw.
//!
//! A guest's Vulkan desktop may draw into "dumb" buffers of the guest's kernel, which are 2D
//! resources. They have pages of the guest's, and the kernel asks for their content before each
//! page flip (`TRANSFER_TO_HOST_2D`). The GPU does not write to these pages. The contexts get the
//! host's pixels of the resource instead, in memory of their renderer.
//!
//! The hard thing: a transfer would overwrite what the GPU has drawn. So the device remembers the
//! guest's pixels, and copies only pieces of rows that the guest has changed since.

use std::sync::Arc;

use hesper_system::LogLimit;
use vm_memory::{GuestMemoryMmap, VolatileSlice};

use crate::backing::Backing;
use crate::copy_pipeline::CopyPipeline;
use crate::engine::Call;
use crate::error::CommandError;
use crate::renderer::{Blob, Context, ResourceId};
use crate::resource::{Body, Drawn2d, Resource2d, Rows, byte_of, copy_rows};
use crate::screen::{BYTES_PER_PIXEL, Rect};
use crate::surface::Surface;

/// Bytes that are compared at a time, on the stack.
const PIECE: usize = 4096;

/// Limits the log lines about resources that contexts cannot draw into. A guest can cause them.
static NOT_DRAWN: LogLimit = LogLimit::new("hesper_vhost");

/// Lets contexts draw into the 2D resource `id`, which one attaches now. `None` if they cannot, or
/// if it is another resource. Without memory for it, it stays an ordinary one.
///
/// The pixels move to other memory for that. A resource that is shown already stays as it is.
pub(super) fn draw_into(
    call: &Call<'_>,
    id: ResourceId,
    context: &dyn Context,
) -> Result<Option<Blob>, CommandError> {
    let (image, backing) = {
        let mut state = call.state()?;
        let is_shown = (state.scanouts.iter().flatten()).any(|scanout| scanout.resource == id);
        let resource = state.resource(id)?;
        let Body::Resource2d(image) = &resource.body else {
            return Ok(None);
        };
        if let Some(drawn) = &image.drawn {
            return Ok(Some(drawn.blob.clone()));
        }
        if is_shown {
            return Ok(None);
        }
        (image.clone(), resource.backing.clone())
    };
    let size = image.stride() * u64::from(image.height);
    let Some(shared) = context.share_pixels(size) else {
        return Ok(None);
    };
    let pools = &call.engine.pools;
    let pixels = Surface::over(shared.memory, &pools.pixels);
    let (pixels, seen) = match (pixels, Surface::new(size, &pools.pixels)) {
        (Ok(pixels), Ok(seen)) => (pixels, seen),
        (Err(error), _) | (_, Err(error)) => return Ok(not_drawn(id, &error)),
    };
    if let (Some(from), Some(to)) = (image.pixels.slice(0, size), pixels.slice(0, size)) {
        from.copy_to_volatile_slice(to);
    }
    let whole = Rect {
        x: 0,
        y: 0,
        width: image.width,
        height: image.height,
    };
    let stride = image.stride();
    if let Some(backing) = backing.filter(|backing| backing.length() >= size) {
        let source = Rows { offset: 0, stride };
        if let Err(error) = copy_rows(call.memory, &backing, source, &seen, stride, whole) {
            return Ok(not_drawn(id, &error));
        }
    }
    let drawn = Arc::new(Drawn2d {
        blob: shared.blob,
        seen,
    });
    let mut state = call.state()?;
    let Body::Resource2d(image) = &mut state.resource(id)?.body else {
        return Ok(None);
    };
    image.pixels = pixels;
    image.drawn = Some(Arc::clone(&drawn));
    Ok(Some(drawn.blob.clone()))
}

/// Says why a resource stays an ordinary one.
fn not_drawn(id: ResourceId, error: &CommandError) -> Option<Blob> {
    NOT_DRAWN.warn(format_args!(
        "contexts cannot draw into 2D resource {id}: {error}"
    ));
    None
}

/// Copies what the guest has changed in `rect`.
pub(super) fn copy_changes(
    memory: &GuestMemoryMmap,
    backing: &Backing,
    source: Rows,
    image: &Resource2d,
    drawn: &Drawn2d,
    rect: Rect,
) -> Result<(), CommandError> {
    if rect.width == 0 || rect.height == 0 {
        return Ok(());
    }
    let row = u64::from(rect.width) * u64::from(BYTES_PER_PIXEL);
    let outside = || source.outside(backing, row);
    let rows = u64::from(rect.height);
    source.check(backing, rows, row)?;
    let (mut now, mut before) = ([0_u8; PIECE], [0_u8; PIECE]);
    for index in 0..rows {
        let from = source.offset + index * source.stride;
        let to = byte_of(rect.x, rect.y, image.stride()) + index * image.stride();
        for start in (0..row).step_by(PIECE) {
            // At most PIECE bytes.
            let length = (row - start).min(PIECE as u64);
            let pieces = now
                .get_mut(..length as usize)
                .zip(before.get_mut(..length as usize));
            let (now, before) = pieces.ok_or_else(outside)?;
            let mut copies = CopyPipeline::new();
            let into = VolatileSlice::from(&mut *now);
            backing.copy_to(memory, from + start, &into, &mut copies)?;
            copies.finish();
            let seen = drawn.seen.slice(to + start, length).ok_or_else(outside)?;
            seen.copy_to(&mut *before);
            if now != before {
                seen.copy_from(&*now);
                let pixels = image.pixels.slice(to + start, length).ok_or_else(outside)?;
                pixels.copy_from(&*now);
            }
        }
    }
    Ok(())
}
