//! Commands of all resources: `RESOURCE_UNREF`, `RESOURCE_ATTACH_BACKING`,
//! `RESOURCE_DETACH_BACKING`, `RESOURCE_ASSIGN_UUID`.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::{blob, resource_3d};
use crate::backing::Backing;
use crate::engine::{Call, Progress};
use crate::error::CommandError;
use crate::renderer::ResourceId;
use crate::resource::Body;
use crate::response::Response;
use crate::wire;

pub(super) fn resource_unref(
    call: &mut Call<'_>,
    id: ResourceId,
) -> Result<Progress, CommandError> {
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
        let off = state.take_off_scanouts(id);
        (resource, contexts, off)
    };
    engine.turn_off(off);
    drop(screen_lock);
    for context in contexts {
        context.detach_resource(id);
    }
    match resource.body {
        Body::Resource3d(gone) => resource_3d::destroy(call, id, gone),
        Body::Resource2d(_) | Body::GuestBlob(_) | Body::HostBlob(_) => Ok(Progress::ok()),
    }
}

pub(super) fn resource_attach_backing(
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

pub(super) fn resource_detach_backing(
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
    // A context that renders into a guest blob writes into these pages. The guest has them back
    // with our answer.
    let (contexts, framebuffer) = match &mut resource.body {
        Body::GuestBlob(guest) => (
            std::mem::take(&mut resource.contexts),
            guest.framebuffer.take(),
        ),
        Body::Resource2d(_) | Body::HostBlob(_) | Body::Resource3d(_) => (Vec::new(), None),
    };
    // Pages that a screen reads are no picture any more.
    let off = framebuffer
        .as_ref()
        .map_or(0, |_| state.take_off_scanouts(id));
    let handles: Vec<_> = contexts
        .iter()
        .filter_map(|context| state.contexts.get(context))
        .map(|slot| slot.handle.clone())
        .collect();
    drop(state);
    engine.turn_off(off);
    drop(screen_lock);
    for handle in handles {
        handle.detach_resource(id);
    }
    drop((framebuffer, backing));
    Ok(Progress::ok())
}

pub(super) fn resource_assign_uuid(
    call: &Call<'_>,
    id: ResourceId,
) -> Result<Progress, CommandError> {
    let mut state = call.state()?;
    let serial = state.serial();
    let resource = state.resource(id)?;
    let uuid = *resource.uuid.get_or_insert_with(|| random_uuid(serial));
    Ok(Progress::Answer(Response {
        kind: wire::RESP_OK_RESOURCE_UUID,
        body: uuid.to_vec(),
    }))
}

/// A version 4 UUID (RFC 9562 §5.4), made of two randomly keyed hashes of a number that is never
/// used twice.
fn random_uuid(serial: u64) -> [u8; 16] {
    let high = RandomState::new().hash_one(serial);
    let low = RandomState::new().hash_one(serial);
    let random = u128::from(high) << 64 | u128::from(low);
    let version = random & !(0xf << 76) | 4 << 76;
    let variant = version & !(3 << 62) | 2 << 62;
    variant.to_be_bytes()
}
