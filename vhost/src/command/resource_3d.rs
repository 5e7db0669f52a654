//! 3D resources: `RESOURCE_CREATE_3D`, `TRANSFER_TO_HOST_3D`, `TRANSFER_FROM_HOST_3D`, and the 3D
//! part of `RESOURCE_UNREF` and of attaching and detaching memory.
//!
//! The renderer carries them out in a thread of its own, in order ([`crate::resource3d`]). This
//! file checks what can be checked without it. A command is held until the renderer has answered
//! when the answer tells the guest something: that the resource exists, that pixels are copied, or
//! that pages belong to the guest again.

use std::sync::{Arc, Weak};

use crate::backing::Backing;
use crate::budget::RENDER_BYTES;
use crate::engine::{Call, Engine, Progress};
use crate::error::CommandError;
use crate::fence::Gate;
use crate::renderer::{RendererError, ResourceId};
use crate::resource::{Body, Resource, Resource3d};
use crate::resource3d::{Box3d, Direction, Done, Shape3d, Transfer};
use crate::screen::BYTES_PER_PIXEL;
use crate::wire;

/// The most bytes between the first and the last byte of a transfer.
const FARTHEST: u64 = i32::MAX as u64;
/// Gallium's target for buffers. Their width is their size in bytes.
const BUFFER: u32 = 0;

/// Holds the command, and answers it with the renderer's result. `after` is called with the result
/// first.
fn answer(
    call: &mut Call<'_>,
    after: impl FnOnce(&Engine, &Result<(), RendererError>) + Send + 'static,
) -> Result<Done, CommandError> {
    let engine = call.engine;
    let mut state = engine.at(call.exchange.epoch)?;
    call.hold(&mut state, Gate::Open);
    drop(state);
    let (ticket, header) = (call.exchange.ticket, call.exchange.header);
    let engine = Weak::clone(&engine.me);
    Ok(Done::new(move |result| {
        if let Some(engine) = engine.upgrade() {
            after(&engine, &result);
            engine.respond_with(ticket, &header, result.map_err(CommandError::from));
        }
    }))
}

pub(super) fn resource_create_3d(
    call: &mut Call<'_>,
    create: &wire::ResourceCreate3d,
) -> Result<Progress, CommandError> {
    let id = create.resource_id.get();
    let owner = call
        .engine
        .resources_3d
        .clone()
        .ok_or(CommandError::NoRenderer("RESOURCE_CREATE_3D"))?;
    let shape = Shape3d {
        target: create.target.get(),
        format: create.format.get(),
        bind: create.bind.get(),
        width: create.width.get(),
        height: create.height.get(),
        depth: create.depth.get(),
        array_size: create.array_size.get(),
        last_level: create.last_level.get(),
        samples: create.samples.get(),
        flags: create.flags.get(),
    };
    if shape.width == 0 || shape.height == 0 || shape.depth == 0 {
        return Err(CommandError::BadValue {
            what: "a side of the resource",
            value: 0,
            must: "at least 1",
        });
    }
    if shape.last_level >= u32::BITS {
        return Err(CommandError::BadValue {
            what: "last_level",
            value: u64::from(shape.last_level),
            must: "below 32",
        });
    }
    let charge = call
        .engine
        .pools
        .render
        .charge(bytes(&shape))
        .ok_or(CommandError::Limit {
            what: "bytes of 3D resources",
            limit: RENDER_BYTES,
        })?;
    let serial = {
        let mut state = call.state()?;
        state.check_new_resource(id)?;
        let serial = state.serial();
        let render = Resource3d {
            owner: Arc::clone(&owner),
            shape,
            serial,
            shown: None,
            _charge: charge,
        };
        let resource = Resource::new(Body::Resource3d(render), None);
        state.resources.insert(id, resource);
        state.rendered = true;
        serial
    };
    let epoch = call.exchange.epoch;
    let done = answer(call, move |engine, result| {
        if result.is_err() {
            forget(engine, epoch, id, serial);
        }
    })?;
    owner.create(id, &shape, done);
    Ok(Progress::Held)
}

/// How many bytes a resource has at four a pixel, or `u64::MAX` when that overflows.
fn bytes(shape: &Shape3d) -> u64 {
    let factors = match shape.target {
        BUFFER => [shape.width, 1, 1, 1, 1],
        _ => [
            shape.width,
            shape.height,
            shape.depth.max(shape.array_size),
            shape.samples.max(1),
            BYTES_PER_PIXEL,
        ],
    };
    let product = factors.iter().try_fold(1_u64, |product, factor| {
        product.checked_mul(u64::from(*factor))
    });
    product.unwrap_or(u64::MAX)
}

/// Forgets a resource that the renderer could not make.
fn forget(engine: &Engine, epoch: u64, id: ResourceId, serial: u64) {
    let screen_lock = engine.lock_screen();
    let Ok(mut state) = engine.at(epoch) else {
        return;
    };
    if state
        .resource_3d(id)
        .is_ok_and(|render| render.serial == serial)
    {
        let gone = state.resources.remove(&id);
        let off = state.take_off_scanouts(id);
        drop(state);
        engine.turn_off(off);
        drop(screen_lock);
        drop(gone);
    }
}

/// Passes the resource's new backing to the renderer.
pub(super) fn attach_memory(
    call: &Call<'_>,
    id: ResourceId,
    render: &Resource3d,
    backing: &Arc<Backing>,
) -> Result<impl FnOnce() + use<>, CommandError> {
    let pages = backing.mapped_pieces(call.memory)?;
    let owner = Arc::clone(&render.owner);
    let header = call.exchange.header;
    let engine = Weak::clone(&call.engine.me);
    Ok(move || {
        let done = Done::new(move |result| {
            if let (Err(error), Some(engine)) = (result, engine.upgrade()) {
                engine.log_error(&header, &CommandError::from(error));
            }
        });
        owner.attach_memory(id, pages, done);
    })
}

/// Tells the renderer that the backing was detached. The guest may use its pages after the answer.
pub(super) fn detach_memory(
    call: &mut Call<'_>,
    id: ResourceId,
    owner: &Arc<dyn crate::resource3d::Resources3d>,
) -> Result<Progress, CommandError> {
    let done = answer(call, |_, _| ())?;
    owner.detach_memory(id, done);
    Ok(Progress::Held)
}

/// Tells the renderer to destroy a resource that the device has forgotten.
pub(super) fn destroy(
    call: &mut Call<'_>,
    id: ResourceId,
    gone: Resource3d,
) -> Result<Progress, CommandError> {
    let owner = Arc::clone(&gone.owner);
    // It counts against the budget for as long as the renderer has it.
    let done = answer(call, move |_, _| drop(gone))?;
    owner.destroy(id, done);
    Ok(Progress::Held)
}

pub(super) fn transfer_3d(
    call: &mut Call<'_>,
    direction: Direction,
    transfer: &wire::TransferHost3d,
) -> Result<Progress, CommandError> {
    let id = transfer.resource_id.get();
    let context = call.exchange.header.context_id.get();
    let (owner, transfer) = {
        let mut state = call.state()?;
        if context != 0 {
            state.context(context)?;
        }
        let render = state.resource_3d(id)?;
        let owner = Arc::clone(&render.owner);
        let transfer = check_transfer(transfer, &render.shape)?;
        let resource = state.resource(id)?;
        let backing = resource
            .backing
            .as_ref()
            .ok_or(CommandError::NoBacking(id))?;
        backing.check(transfer.offset, at_least(&transfer, &resource.body))?;
        (owner, transfer)
    };
    let done = answer(call, |_, _| ())?;
    owner.transfer(id, context, direction, &transfer, done);
    Ok(Progress::Held)
}

/// How many bytes of the memory the transfer certainly reaches: all of them for a buffer, the first
/// one for others.
fn at_least(transfer: &Transfer, body: &Body) -> u64 {
    let Box3d {
        width,
        height,
        depth,
        ..
    } = transfer.bounds;
    match body {
        Body::Resource3d(render) if render.shape.target == BUFFER => u64::from(width),
        _ => u64::from(width.min(height).min(depth).min(1)),
    }
}

/// Checks that the transfer is inside of the resource.
fn check_transfer(
    transfer: &wire::TransferHost3d,
    shape: &Shape3d,
) -> Result<Transfer, CommandError> {
    let level = transfer.level.get();
    if level > shape.last_level {
        return Err(CommandError::BadValue {
            what: "the level",
            value: u64::from(level),
            must: "one that the resource has",
        });
    }
    let bounds = &transfer.bounds;
    let side = |whole: u32| (whole >> level).max(1);
    // Layers do not shrink with the level.
    let layers = side(shape.depth).max(shape.array_size);
    for (start, length, size) in [
        (bounds.x, bounds.width, side(shape.width)),
        (bounds.y, bounds.height, side(shape.height)),
        (bounds.z, bounds.depth, layers),
    ] {
        let (start, length) = (start.get(), length.get());
        if start.checked_add(length).is_none_or(|end| end > size) {
            return Err(CommandError::OutOfRange {
                start: u64::from(start),
                length: u64::from(length),
                size: u64::from(size),
                of: "a side of the resource",
            });
        }
    }
    // A row is a pixel high, or a block of pixels, so this is at least what the transfer reaches in
    // the memory. The limit protects renderers that count in 32 bits.
    let rows = u64::from(transfer.stride.get()) * u64::from(bounds.height.get());
    let slices = u64::from(transfer.layer_stride.get()) * u64::from(bounds.depth.get());
    if rows.saturating_add(slices) > FARTHEST {
        return Err(CommandError::BadValue {
            what: "rows and layers times their strides",
            value: rows.saturating_add(slices),
            must: "below 2 GiB",
        });
    }
    Ok(Transfer {
        bounds: Box3d {
            x: bounds.x.get(),
            y: bounds.y.get(),
            z: bounds.z.get(),
            width: bounds.width.get(),
            height: bounds.height.get(),
            depth: bounds.depth.get(),
        },
        level,
        offset: transfer.offset.get(),
        stride: transfer.stride.get(),
        layer_stride: transfer.layer_stride.get(),
    })
}
