//! The cursor queue: `UPDATE_CURSOR`, `MOVE_CURSOR`.

use std::sync::Arc;

use vm_memory::VolatileSlice;

use super::Progress;
use crate::backing::Backing;
use crate::copies::Copies;
use crate::engine::Call;
use crate::refusal::Refusal;
use crate::resource::{Body, HostBlob};
use crate::screen::{BYTES_PER_PIXEL, CURSOR_SIZE, CursorImage, PixelFormat, PixelMemory};
use crate::wire;

/// Bytes of a cursor image.
const IMAGE_BYTES: usize = (CURSOR_SIZE * CURSOR_SIZE * BYTES_PER_PIXEL) as usize;

/// Where the image is.
enum Source {
    Host(Arc<dyn PixelMemory>),
    Guest(Arc<Backing>),
}

pub(super) fn update(call: &Call<'_>, update: &wire::UpdateCursor) -> Result<Progress, Refusal> {
    let scanout = update.scanout_id.get();
    let id = update.resource_id.get();
    let (x, y) = (update.x.get(), update.y.get());
    call.engine.check_scanout(scanout)?;
    if id == 0 {
        call.engine.screen.set_cursor(scanout, None, x, y);
        return Ok(Progress::ok());
    }
    let (hot_x, hot_y) = (update.hot_x.get(), update.hot_y.get());
    for hot in [hot_x, hot_y] {
        if hot >= CURSOR_SIZE {
            return Err(Refusal::BadValue {
                what: "the hot spot",
                value: u64::from(hot),
                must: "inside the 64 × 64 image",
            });
        }
    }
    let (source, format) = find_image(call, id)?;
    let mut pixels = Box::new([0; IMAGE_BYTES]);
    match source {
        Source::Host(memory) => memory.read(0, pixels.as_mut_slice()),
        Source::Guest(backing) => {
            let target = VolatileSlice::from(pixels.as_mut_slice());
            let mut copies = Copies::new();
            backing.copy_to(call.memory, 0, &target, &mut copies)?;
            copies.finish();
        }
    }
    let image = CursorImage {
        pixels,
        // Linux makes cursors in resources of an X format when 3D is on; their fourth byte is alpha all the same.
        format: format.with_alpha(),
        hot_x,
        hot_y,
    };
    call.engine.screen.set_cursor(scanout, Some(&image), x, y);
    Ok(Progress::ok())
}

/// The pixels of resource `id`: a 2D resource of exactly the cursor's size, or a blob that holds as much. A blob
/// has no format; drivers use B8G8R8A8 for cursors.
fn find_image(call: &Call<'_>, id: u32) -> Result<(Source, PixelFormat), Refusal> {
    let too_small = |size| Refusal::BadValue {
        what: "the size of the cursor's blob",
        value: size,
        must: "at least the 16384 bytes of 64 × 64 pixels",
    };
    let mut state = call.state()?;
    let resource = state.resource(id)?;
    match &resource.body {
        Body::Image(image) if (image.width, image.height) == (CURSOR_SIZE, CURSOR_SIZE) => {
            Ok((Source::Host(Arc::clone(&image.pixels) as _), image.format))
        }
        Body::Image(image) => Err(Refusal::BadValue {
            what: "a side of the cursor image",
            value: u64::from(if image.width == CURSOR_SIZE {
                image.height
            } else {
                image.width
            }),
            must: "64 pixels",
        }),
        Body::Guest(guest) => {
            if guest.size < IMAGE_BYTES as u64 {
                return Err(too_small(guest.size));
            }
            let backing = resource.backing.clone().ok_or(Refusal::NoBacking(id))?;
            Ok((Source::Guest(backing), PixelFormat::B8G8R8A8))
        }
        Body::Host(HostBlob::Ready { blob, size, .. }) => match &blob.pixels {
            Some(pixels) if *size >= IMAGE_BYTES as u64 => {
                Ok((Source::Host(Arc::clone(pixels)), PixelFormat::B8G8R8A8))
            }
            Some(_) => Err(too_small(*size)),
            None => Err(Refusal::WrongResource {
                id,
                is: "a host blob that the host cannot read",
                needs: "one in host-visible memory",
            }),
        },
        Body::Host(HostBlob::Pending { .. }) => Err(Refusal::WrongResource {
            id,
            is: resource.kind(),
            needs: "a finished one",
        }),
    }
}

pub(super) fn move_to(call: &Call<'_>, position: &wire::UpdateCursor) -> Result<Progress, Refusal> {
    let scanout = position.scanout_id.get();
    call.engine.check_scanout(scanout)?;
    call.engine
        .screen
        .move_cursor(scanout, position.x.get(), position.y.get());
    Ok(Progress::ok())
}
