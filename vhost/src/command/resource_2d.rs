//! 2D resources: create, back with guest pages, transfer; and what all resources have: unreference, UUID.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::{Progress, Response, blob, resource_3d};
use crate::backing::Backing;
use crate::budget::RESOURCES;
use crate::engine::{Call, Engine, GuestState};
use crate::error::CommandError;
use crate::renderer::ResourceId;
use crate::resource::{Body, Resource, Resource2d, Rows, check_inside, copy_rows};
use crate::screen::{BYTES_PER_PIXEL, Rect};
use crate::surface::Surface;
use crate::wire;

/// Fails unless a resource `id` can be made now.
pub(super) fn check_new(state: &GuestState, id: ResourceId) -> Result<(), CommandError> {
    if id == 0 || state.resources.contains_key(&id) {
        return Err(CommandError::BadNewResource(id));
    }
    if state.resources.len() >= RESOURCES {
        return Err(CommandError::Limit {
            what: "resources",
            limit: RESOURCES as u64,
        });
    }
    Ok(())
}

pub(super) fn create(
    call: &Call<'_>,
    create: &wire::ResourceCreate2d,
) -> Result<Progress, CommandError> {
    let id = create.resource_id.get();
    let (width, height) = (create.width.get(), create.height.get());
    let format = wire::pixel_format(create.format.get())
        .ok_or(CommandError::BadFormat(create.format.get()))?;
    if width == 0 || height == 0 {
        return Err(CommandError::BadValue {
            what: "a side of the resource",
            value: 0,
            must: "at least 1",
        });
    }
    check_new(&*call.state()?, id)?;
    let bytes = u128::from(width) * u128::from(height) * u128::from(BYTES_PER_PIXEL);
    let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
    let pixels = Surface::new(bytes, &call.engine.pools.pixels)?;
    let image = Resource2d {
        pixels,
        format,
        width,
        height,
    };
    call.state()?
        .resources
        .insert(id, Resource::new(Body::Resource2d(image), None));
    Ok(Progress::ok())
}

pub(super) fn unref(call: &mut Call<'_>, id: ResourceId) -> Result<Progress, CommandError> {
    blob::unmap_if_mapped(call, id)?;
    let engine = call.engine;
    let screen_lock = engine.lock_screen();
    let (resource, contexts, off) = {
        let mut state = call.state()?;
        let resource = state
            .resources
            .remove(&id)
            .ok_or(CommandError::NoResource(id))?;
        let contexts: Vec<_> = resource
            .contexts
            .iter()
            .filter_map(|context| state.contexts.get(context))
            .map(|slot| slot.handle.clone())
            .collect();
        let off = take_off(&mut state, id);
        (resource, contexts, off)
    };
    turn_off(engine, off);
    drop(screen_lock);
    for context in contexts {
        super::context::lock(&context).detach_resource(id);
    }
    match resource.body {
        Body::Resource3d(gone) => resource_3d::destroy(call, id, gone),
        Body::Resource2d(_) | Body::GuestBlob(_) | Body::HostBlob(_) => Ok(Progress::ok()),
    }
}

/// Takes a resource off the scanouts; which ones, a bit each.
pub(super) fn take_off(state: &mut GuestState, id: ResourceId) -> u16 {
    let mut off = 0;
    for (index, scanout) in state.scanouts.iter_mut().enumerate() {
        if scanout.as_ref().is_some_and(|shown| shown.resource == id) {
            *scanout = None;
            off |= 1 << index;
        }
    }
    off
}

/// Tells the screen that these scanouts are off. The caller holds the screen lock.
pub(super) fn turn_off(engine: &Engine, off: u16) {
    for scanout in (0..wire::MAX_SCANOUTS).filter(|index| off >> index & 1 != 0) {
        engine.screen.set_scanout(scanout, None);
    }
}

pub(super) fn attach_backing(
    call: &Call<'_>,
    id: ResourceId,
    backing: Backing,
) -> Result<Progress, CommandError> {
    let mut state = call.state()?;
    let resource = state.resource(id)?;
    if let Body::HostBlob(_) = resource.body {
        return Err(CommandError::WrongResource {
            id,
            is: resource.kind(),
            needs: "a 2D or 3D resource or a guest blob",
        });
    }
    if resource.backing.is_some() {
        return Err(CommandError::HasBacking(id));
    }
    if let Body::GuestBlob(guest) = &mut resource.body {
        backing.check(0, guest.size)?;
        guest.refused = false;
    }
    let backing = Arc::new(backing);
    let attach = match &resource.body {
        Body::Resource3d(body) => Some(resource_3d::attach_memory(call, id, body, &backing)?),
        Body::Resource2d(_) | Body::GuestBlob(_) | Body::HostBlob(_) => None,
    };
    resource.backing = Some(backing);
    drop(state);
    if let Some(attach) = attach {
        attach();
    }
    Ok(Progress::ok())
}

pub(super) fn detach_backing(
    call: &mut Call<'_>,
    id: ResourceId,
) -> Result<Progress, CommandError> {
    let engine = call.engine;
    let screen_lock = engine.lock_screen();
    let mut state = call.state()?;
    let resource = state.resource(id)?;
    let backing = resource.backing.take().ok_or(CommandError::NoBacking(id))?;
    if let Body::Resource3d(body) = &resource.body {
        let owner = Arc::clone(&body.owner);
        drop((state, screen_lock));
        return resource_3d::detach_memory(call, id, &owner);
    }
    // Who renders into a guest blob renders into these pages, which the guest has back with our answer.
    let (contexts, framebuffer) = match &mut resource.body {
        Body::GuestBlob(guest) => (
            std::mem::take(&mut resource.contexts),
            guest.framebuffer.take(),
        ),
        Body::Resource2d(_) | Body::HostBlob(_) | Body::Resource3d(_) => (Vec::new(), None),
    };
    // What a screen reads there is no picture any more.
    let off = framebuffer.as_ref().map_or(0, |_| take_off(&mut state, id));
    let handles: Vec<_> = contexts
        .iter()
        .filter_map(|context| state.contexts.get(context))
        .map(|slot| slot.handle.clone())
        .collect();
    drop(state);
    turn_off(engine, off);
    drop(screen_lock);
    for handle in handles {
        super::context::lock(&handle).detach_resource(id);
    }
    drop((framebuffer, backing));
    Ok(Progress::ok())
}

pub(super) fn transfer(
    call: &Call<'_>,
    transfer: &wire::TransferToHost2d,
) -> Result<Progress, CommandError> {
    let id = transfer.resource_id.get();
    let rect = Rect::from(transfer.rect);
    let (image, backing) = {
        let mut state = call.state()?;
        let resource = state.resource(id)?;
        let image = match &resource.body {
            Body::Resource2d(image) => image.clone(),
            // Its pixels are where they are: Linux sends transfers of cursor images that are blobs.
            Body::GuestBlob(_) | Body::HostBlob(_) => return Ok(Progress::ok()),
            Body::Resource3d(_) => {
                return Err(CommandError::WrongResource {
                    id,
                    is: resource.kind(),
                    needs: "a 2D resource (TRANSFER_TO_HOST_3D fills others)",
                });
            }
        };
        let backing = resource
            .backing
            .clone()
            .ok_or(CommandError::NoBacking(id))?;
        (image, backing)
    };
    check_inside(rect, image.width, image.height)?;
    let source = Rows {
        offset: transfer.offset.get(),
        stride: image.stride(),
    };
    copy_rows(
        call.memory,
        &backing,
        source,
        &image.pixels,
        image.stride(),
        rect,
    )?;
    Ok(Progress::ok())
}

pub(super) fn assign_uuid(call: &Call<'_>, id: ResourceId) -> Result<Progress, CommandError> {
    let mut state = call.state()?;
    let serial = state.serial();
    let resource = state.resource(id)?;
    let uuid = *resource.uuid.get_or_insert_with(|| random_uuid(serial));
    Ok(Progress::Answer(Response {
        kind: wire::RESP_OK_RESOURCE_UUID,
        body: uuid.to_vec(),
    }))
}

/// A version 4 UUID (RFC 9562 §5.4). Two randomly keyed hashes of a number that is never used twice.
fn random_uuid(serial: u64) -> [u8; 16] {
    let high = RandomState::new().hash_one(serial);
    let low = RandomState::new().hash_one(serial);
    let random = u128::from(high) << 64 | u128::from(low);
    let version = random & !(0xf << 76) | 4 << 76;
    let variant = version & !(3 << 62) | 2 << 62;
    variant.to_be_bytes()
}
