//! What commands that create and destroy objects have in common.
//!
//! An object of the host is *entered* into the object table under the id that the guest chose, and
//! *taken out* before it is destroyed. Only the caller that takes it out destroys it.

use std::sync::Arc;

use hesper_system::sync::Lock;
use hesper_venus_protocol::call::{Call, DeviceTable};
use hesper_venus_protocol::runtime::{Handle, Object};
use hesper_venus_protocol::{CommandId, vk};

use crate::fatal::Fatal;
use crate::object::table::Entry;
use crate::object::teardown;
use crate::session::{Session, call, name};

/// Creates an object of a device: calls the driver, enters the new object, and puts the guest's id
/// back for the reply. Returns the driver's handle, too, if there is one.
#[inline]
pub(crate) fn create_object<'m, C, H>(
    session: &mut Session<'_>,
    c: &mut C,
    place: impl for<'c> Fn(&'c mut C) -> &'c mut H,
) -> Result<(vk::Result, Option<H>), Fatal>
where
    C: Call<'m, Return = vk::Result, Table = DeviceTable>,
    H: Handle,
{
    let id = *place(c);
    let result = call(session, c)?;
    let host = std::mem::replace(place(c), id);
    if result != vk::Result::SUCCESS {
        session.remember_failed(id);
        return Ok((result, None));
    }
    let device = session.device(C::ID)?;
    let owner = device.owner;
    if let Err(fatal) = session.state.objects.insert(owner, id.raw(), host) {
        // No guest can name it, so nothing else would destroy it.
        let entry = Entry {
            host: host.raw(),
            kind: H::TYPE as u32,
            owner,
        };
        teardown::destroy_one(session.device(C::ID)?.raw(), &entry);
        return Err(fatal);
    }
    Ok((result, Some(host)))
}

/// Destroys an object of a device. Null is allowed and does nothing.
#[inline]
pub(crate) fn destroy_object<'m, C, H>(
    session: &mut Session<'_>,
    c: &mut C,
    object: Object<H>,
) -> Result<(), Fatal>
where
    C: Call<'m, Return = (), Table = DeviceTable>,
    H: Handle,
{
    if object.is_null() {
        return Ok(());
    }
    take_object(session, object, C::ID)?;
    call(session, c)
}

/// Takes out an object that is about to be destroyed. Only the caller that takes it out destroys
/// it: another ring may have won the race, and may even have made another object under its id.
#[inline]
pub(crate) fn take_object<H: Handle>(
    session: &Session<'_>,
    object: Object<H>,
    command: CommandId,
) -> Result<(), Fatal> {
    if session.state.objects.remove_exactly(object) {
        return Ok(());
    }
    let reason = "the object is being destroyed twice";
    Err(Fatal::Invalid {
        command: name(command),
        reason,
    })
}

/// Enters what was allocated from a pool, and puts the guest's ids back for the reply. Enters all
/// of them, or none if the allocation failed.
pub(crate) fn enter_children<H: Handle>(
    session: &mut Session<'_>,
    command: CommandId,
    pool: u64,
    ids: &[u64],
    room: &mut [H],
    result: vk::Result,
) -> Result<(), Fatal> {
    let device = Arc::clone(session.device(command)?);
    let mut refused = Ok(());
    if result == vk::Result::SUCCESS {
        let mut pools = device.pools.locked();
        let children = pools.entry(pool).or_default();
        for (id, host) in ids.iter().zip(&*room) {
            // A child that is refused is freed with its pool.
            refused = refused.and(session.state.objects.insert(device.owner, *id, *host));
            children.insert(*id);
        }
    }
    for (slot, id) in room.iter_mut().zip(ids) {
        *slot = H::from_raw(*id);
    }
    refused
}

/// Takes out what is about to be returned to its pool. Null ids are allowed and skipped.
pub(crate) fn take_children<H: Handle>(
    session: &mut Session<'_>,
    command: CommandId,
    pool: u64,
    ids: &[u64],
) -> Result<(), Fatal> {
    let device = Arc::clone(session.device(command)?);
    let mut pools = device.pools.locked();
    let mut children = pools.get_mut(&pool);
    for id in ids.iter().filter(|id| **id != 0) {
        let is_child = children
            .as_mut()
            .is_some_and(|children| children.remove(id));
        if !is_child || session.state.objects.remove::<H>(*id).is_none() {
            let reason = "an object was not allocated from this pool, or is named twice";
            return Err(Fatal::Invalid {
                command: name(command),
                reason,
            });
        }
    }
    Ok(())
}

/// Takes out everything that came from a pool.
pub(crate) fn take_all_children<H: Handle>(
    session: &mut Session<'_>,
    command: CommandId,
    pool: u64,
) -> Result<(), Fatal> {
    let device = Arc::clone(session.device(command)?);
    let children = device.pools.locked().remove(&pool);
    for id in children.into_iter().flatten() {
        if let Some(child) = session.state.objects.remove::<H>(id) {
            device.facts.forget(H::TYPE, child.raw());
        }
    }
    Ok(())
}
