//! The cursor queue: `UPDATE_CURSOR`, `MOVE_CURSOR`.

use std::sync::{Arc, Weak};

use vm_memory::VolatileSlice;

use crate::backing::Backing;
use crate::copy_pipeline::CopyPipeline;
use crate::engine::{Call, CursorPlace, Engine, GuestState, Progress};
use crate::error::CommandError;
use crate::renderer::RendererError;
use crate::resource::{Body, HostBlob, Resource3d};
use crate::resource3d::{Pixels, Resources3d};
use crate::screen::{
    BYTES_PER_PIXEL, CURSOR_SIZE, CursorImage, PixelFormat, PixelMemory, Rect, ScanoutId,
};
use crate::wire;

/// Bytes of a cursor image.
const IMAGE_BYTES: usize = (CURSOR_SIZE * CURSOR_SIZE * BYTES_PER_PIXEL) as usize;

/// Where the pixels of the cursor are.
enum Source {
    HostMemory(Arc<dyn PixelMemory>),
    GuestMemory(Arc<Backing>),
    Renderer(Arc<dyn Resources3d>),
}

/// Gives a scanout another cursor. One that is refused hides the old cursor: Linux does not look at
/// the answer, and the guest's desktop believes that the old image is gone.
pub(super) fn update_cursor(
    call: &Call<'_>,
    update: &wire::UpdateCursor,
) -> Result<Progress, CommandError> {
    let scanout = update.scanout_id.get();
    call.engine.check_scanout(scanout)?;
    let result = match update.resource_id.get() {
        0 => Err(None),
        id => show_image(call, update, id).map_err(Some),
    };
    result.or_else(|error| {
        let place = place(call, update.x.get(), update.y.get(), false);
        show(call.engine, call.exchange.epoch, scanout, place, None);
        error.map_or_else(|| Ok(Progress::ok()), Err)
    })
}

/// Makes resource `id` the cursor.
fn show_image(
    call: &Call<'_>,
    update: &wire::UpdateCursor,
    id: u32,
) -> Result<Progress, CommandError> {
    let scanout = update.scanout_id.get();
    let (x, y) = (update.x.get(), update.y.get());
    let (hot_x, hot_y) = (update.hot_x.get(), update.hot_y.get());
    for hot in [hot_x, hot_y] {
        if hot >= CURSOR_SIZE {
            return Err(CommandError::BadValue {
                what: "the hot spot",
                value: u64::from(hot),
                must: "inside the 64 × 64 image",
            });
        }
    }
    let (source, format) = find_image(call, id)?;
    let mut pixels = Box::new([0; IMAGE_BYTES]);
    match source {
        Source::HostMemory(memory) => memory.read(0, pixels.as_mut_slice()),
        Source::GuestMemory(backing) => {
            let target = VolatileSlice::from(pixels.as_mut_slice());
            let mut copies = CopyPipeline::new();
            backing.copy_to(call.memory, 0, &target, &mut copies)?;
            copies.finish();
        }
        Source::Renderer(owner) => {
            let place = place(call, x, y, true);
            note(&mut *call.state()?, scanout, place);
            read(call, &owner, update, format, place);
            return Ok(Progress::ok());
        }
    }
    let image = CursorImage {
        pixels,
        // With 3D, Linux makes cursors in resources of an X format, but their fourth byte is alpha.
        format: format.with_alpha(),
        hot_x,
        hot_y,
    };
    let place = place(call, x, y, true);
    show(
        call.engine,
        call.exchange.epoch,
        scanout,
        place,
        Some(&image),
    );
    Ok(Progress::ok())
}

fn place(call: &Call<'_>, x: u32, y: u32, has_image: bool) -> CursorPlace {
    CursorPlace {
        serial: call.exchange.ticket.serial,
        x,
        y,
        has_image,
    }
}

/// Notes that the guest has a new cursor.
fn note(state: &mut GuestState, scanout: ScanoutId, place: CursorPlace) {
    if let Some(cursor) = state.cursors.get_mut(scanout as usize) {
        *cursor = place;
    }
}

/// Gives the screen a new cursor, unless the device was reset.
fn show(
    engine: &Engine,
    epoch: u64,
    scanout: ScanoutId,
    place: CursorPlace,
    image: Option<&CursorImage>,
) {
    let screen_lock = engine.lock_screen();
    let Ok(mut state) = engine.at(epoch) else {
        return;
    };
    note(&mut state, scanout, place);
    drop(state);
    let CursorPlace { x, y, .. } = place;
    engine.screen.set_cursor(scanout, image, x, y);
    drop(screen_lock);
}

/// Asks the renderer of a 3D resource for the cursor's pixels. When they arrive, they become the
/// cursor at its position by then, unless the guest has set another one.
fn read(
    call: &Call<'_>,
    owner: &Arc<dyn Resources3d>,
    update: &wire::UpdateCursor,
    format: PixelFormat,
    asked: CursorPlace,
) {
    let (scanout, id) = (update.scanout_id.get(), update.resource_id.get());
    let (hot_x, hot_y) = (update.hot_x.get(), update.hot_y.get());
    let (epoch, header) = (call.exchange.epoch, call.exchange.header);
    let engine = Weak::clone(&call.engine.me);
    let whole = Rect {
        x: 0,
        y: 0,
        width: CURSOR_SIZE,
        height: CURSOR_SIZE,
    };
    let arrived = move |result: Result<&[u8], RendererError>| {
        let Some(engine) = engine.upgrade() else {
            return;
        };
        let image = result.map(|bytes| {
            let mut pixels = Box::new([0; IMAGE_BYTES]);
            for (pixel, byte) in pixels.iter_mut().zip(bytes) {
                *pixel = *byte;
            }
            CursorImage {
                pixels,
                format: format.with_alpha(),
                hot_x,
                hot_y,
            }
        });
        // No image hides the cursor, as when the command is refused.
        let image = match image {
            Ok(image) => Some(image),
            Err(error) => {
                engine.log_error(&header, &CommandError::from(error));
                None
            }
        };
        let screen_lock = engine.lock_screen();
        let now = match engine.at(epoch) {
            Ok(state) => state.cursors.get(scanout as usize).copied(),
            Err(_) => None,
        };
        if let Some(CursorPlace { serial, x, y, .. }) = now
            && serial == asked.serial
        {
            engine.screen.set_cursor(scanout, image.as_ref(), x, y);
        }
        drop(screen_lock);
    };
    owner.read(id, whole, Pixels::new(arrived));
}

/// The pixels of resource `id`: a 2D resource of exactly the cursor's size, or a blob that is large
/// enough. A blob has no format. Drivers use B8G8R8A8 for cursors.
fn find_image(call: &Call<'_>, id: u32) -> Result<(Source, PixelFormat), CommandError> {
    let too_small = |size| CommandError::BadValue {
        what: "the size of the cursor's blob",
        value: size,
        must: "at least the 16384 bytes of 64 × 64 pixels",
    };
    let mut state = call.state()?;
    let resource = state.resource(id)?;
    match &resource.body {
        Body::Resource2d(image) => {
            check_size(image.width, image.height)?;
            Ok((
                Source::HostMemory(Arc::clone(&image.pixels) as _),
                image.format,
            ))
        }
        Body::GuestBlob(guest) => {
            if guest.size < IMAGE_BYTES as u64 {
                return Err(too_small(guest.size));
            }
            let backing = resource
                .backing
                .clone()
                .ok_or(CommandError::NoBacking(id))?;
            Ok((Source::GuestMemory(backing), PixelFormat::B8G8R8A8))
        }
        Body::HostBlob(HostBlob::Ready { blob, size, .. }) => match &blob.pixels {
            Some(pixels) if *size >= IMAGE_BYTES as u64 => Ok((
                Source::HostMemory(Arc::clone(pixels)),
                PixelFormat::B8G8R8A8,
            )),
            Some(_) => Err(too_small(*size)),
            None => Err(CommandError::WrongResource {
                id,
                is: "a host blob that the host cannot read",
                needs: "one in host-visible memory",
            }),
        },
        Body::HostBlob(HostBlob::Pending { .. }) => Err(CommandError::WrongResource {
            id,
            is: resource.kind(),
            needs: "a finished one",
        }),
        Body::Resource3d(Resource3d { owner, shape, .. }) => {
            check_size(shape.width, shape.height)?;
            let format =
                wire::pixel_format(shape.format).ok_or(CommandError::BadFormat(shape.format))?;
            Ok((Source::Renderer(Arc::clone(owner)), format))
        }
    }
}

/// Fails unless an image has the size of cursors, 64 × 64.
fn check_size(width: u32, height: u32) -> Result<(), CommandError> {
    match [width, height].iter().find(|side| **side != CURSOR_SIZE) {
        None => Ok(()),
        Some(side) => Err(CommandError::BadValue {
            what: "a side of the cursor image",
            value: u64::from(*side),
            must: "64 pixels",
        }),
    }
}

pub(super) fn move_cursor(
    call: &Call<'_>,
    position: &wire::UpdateCursor,
) -> Result<Progress, CommandError> {
    let scanout = position.scanout_id.get();
    let (x, y) = (position.x.get(), position.y.get());
    call.engine.check_scanout(scanout)?;
    let screen_lock = call.engine.lock_screen();
    if let Some(cursor) = call.state()?.cursors.get_mut(scanout as usize) {
        (cursor.x, cursor.y) = (x, y);
    }
    call.engine.screen.move_cursor(scanout, x, y);
    drop(screen_lock);
    Ok(Progress::ok())
}
