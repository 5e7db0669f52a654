//! What commands that create and destroy objects have in common.
//!
//! An object of the host is *entered* into the object table under the id that the guest chose. This
//! is the last step: other threads may use it from then on. It is *taken out* before it is
//! destroyed. Only the caller that takes it out destroys it, and not before other threads have
//! finished with it ([`crate::object::reclamation`]).

use std::sync::{Arc, Mutex};

use hesper_system::sync::Lock;
use hesper_venus_protocol::call::{Call, DeviceTable};
use hesper_venus_protocol::runtime::{Handle, Object};
use hesper_venus_protocol::{CommandId, vk};

use crate::fatal::Fatal;
use crate::object::device::Device;
use crate::object::pools::{Pool, PoolState};
use crate::object::reclamation::{Class, Last};
use crate::object::table::Entry;
use crate::session::{Outcome, Session, call, name};

/// Creates an object of a device: calls the driver, lets `keep` note what must be known about the
/// new object, enters it, and puts the guest's id back for the reply.
#[inline]
pub(crate) fn create_object<'m, C, H>(
    session: &mut Session<'_>,
    c: &mut C,
    place: impl for<'c> Fn(&'c mut C) -> &'c mut H,
    keep: impl FnOnce(&Device, H),
) -> Result<vk::Result, Fatal>
where
    C: Call<'m, Return = vk::Result, Table = DeviceTable>,
    H: Handle,
{
    let id = *place(c);
    let result = call(session, c)?;
    let host = std::mem::replace(place(c), id);
    if result != vk::Result::SUCCESS {
        session.remember_failed(id);
        return Ok(result);
    }
    enter_object(session, C::ID, id, host, keep)?;
    Ok(result)
}

/// Lets `keep` note what must be known about a new object of a device, and enters it under the
/// guest's `id`.
#[inline]
pub(crate) fn enter_object<H: Handle>(
    session: &mut Session<'_>,
    command: CommandId,
    id: H,
    host: H,
    keep: impl FnOnce(&Device, H),
) -> Result<(), Fatal> {
    let state = session.state;
    let device = session.device(command)?;
    keep(device, host);
    let (owner, is_gone) = (device.owner, &device.is_gone);
    let entered = state.objects.insert(owner, id.raw(), host, is_gone);
    if entered.is_err() {
        // No guest can name it, so nothing else would destroy it.
        device.destroy_now(&entry(owner, host));
    }
    entered
}

/// An object as the table has it.
pub(crate) fn entry<H: Handle>(owner: u32, host: H) -> Entry {
    Entry {
        host: host.raw(),
        kind: H::TYPE as u32,
        owner,
    }
}

/// Destroys an object of a device. Null is allowed and does nothing.
#[inline]
pub(crate) fn destroy_object<H: Handle>(
    session: &mut Session<'_>,
    command: CommandId,
    object: Object<H>,
) -> Result<(), Fatal> {
    if object.is_null() {
        return Ok(());
    }
    // Before the object is out of the table: another thread may destroy the device now, and would
    // not find the object any more.
    session.device(command)?;
    take_object(session, object, command)?;
    session.retire(command, |owner| Last::Destroy(entry(owner, object.handle)))
}

/// Takes out an object that is about to be destroyed. Only the caller that takes it out destroys
/// it: another ring may have won the race, and may even have made another object under its id.
#[inline]
pub(crate) fn take_object<H: Handle>(
    session: &Session<'_>,
    object: Object<H>,
    command: CommandId,
) -> Result<(), Fatal> {
    match session.state.objects.remove_exactly(object) {
        true => Ok(()),
        false => Err(destroyed_twice(command)),
    }
}

fn destroyed_twice(command: CommandId) -> Fatal {
    Fatal::Invalid {
        command: name(command),
        reason: "the object is being destroyed twice",
    }
}

/// Destroys a buffer of a device late: after some hundred others, or with the device.
///
/// Mesa sends the commands of a command buffer when its recording ends. Some programs (Firefox on
/// zink) destroy a buffer before that. Vulkan forbids it, but drivers look at a buffer when a
/// command with it is recorded, and its memory lives on. So it works with them, and must work here.
pub(crate) fn destroy_late<H: Handle>(
    session: &mut Session<'_>,
    command: CommandId,
    object: Object<H>,
) -> Result<(), Fatal> {
    if object.is_null() {
        return Ok(());
    }
    // Before it is out of the table, as above.
    let owner = session.device(command)?.owner;
    let departed = session.state.objects.depart(owner, object);
    match departed.ok_or(destroyed_twice(command))? {
        Some(oldest) => session.retire(command, |_| Last::Destroy(oldest)),
        None => Ok(()),
    }
}

/// Fails unless this thread may use a pool that it has locked.
fn check_pool(pool: &Pool, command: CommandId) -> Result<(), Fatal> {
    match pool.state {
        PoolState::Free => Ok(()),
        PoolState::Busy | PoolState::Destroyed => Err(Fatal::Invalid {
            command: name(command),
            reason: "two threads use the pool at the same time",
        }),
    }
}

/// Calls the driver with a pool that nobody else uses meanwhile.
pub(crate) fn with_pool<'m, C>(
    session: &mut Session<'_>,
    pool: u64,
    c: &mut C,
) -> Result<C::Return, Fatal>
where
    C: Call<'m, Table = DeviceTable>,
    C::Return: Outcome,
{
    let pool = session.device(C::ID)?.pools.get(pool);
    let pool = pool.locked();
    check_pool(&pool, C::ID)?;
    call(session, c)
}

/// Allocates from a pool: enters all children, or none if the driver fails. Puts the guest's ids
/// back for the reply.
pub(crate) fn allocate_children<'m, C, H>(
    session: &mut Session<'_>,
    pool: u64,
    c: &mut C,
    room: impl for<'c> Fn(&'c mut C) -> &'c mut [H],
) -> Result<vk::Result, Fatal>
where
    C: Call<'m, Return = vk::Result, Table = DeviceTable>,
    H: Handle,
{
    let ids: Vec<H> = room(c).to_vec();
    let pool = session.device(C::ID)?.pools.get(pool);
    let mut pool = pool.locked();
    check_pool(&pool, C::ID)?;
    let result = call(session, c)?;
    let state = session.state;
    let device = session.device(C::ID)?;
    let mut refused = Ok(());
    for (id, slot) in ids.iter().zip(room(c)) {
        let host = std::mem::replace(slot, *id);
        if result == vk::Result::SUCCESS && refused.is_ok() {
            // A child that is refused is freed with its pool.
            refused = state
                .objects
                .insert(device.owner, id.raw(), host, &device.is_gone);
            if refused.is_ok() {
                pool.children.insert(id.raw());
            }
        }
    }
    refused.map(|()| result)
}

/// Returns children to their pool. Null ids are allowed and skipped.
pub(crate) fn free_children<'m, C, H>(
    session: &mut Session<'_>,
    pool: u64,
    ids: &[u64],
    c: &mut C,
) -> Result<Option<C::Return>, Fatal>
where
    C: Call<'m, Table = DeviceTable>,
    H: Handle,
    C::Return: Outcome,
{
    let objects = &session.state.objects;
    let device = session.device(C::ID)?;
    let pool = device.pools.get(pool);
    {
        let mut pool = pool.locked();
        check_pool(&pool, C::ID)?;
        for id in ids.iter().filter(|id| **id != 0) {
            let is_child = pool.children.remove(id);
            let Some(child) = is_child.then(|| objects.remove::<H>(*id)).flatten() else {
                let reason = "an object was not allocated from this pool, or is named twice";
                return Err(Fatal::Invalid {
                    command: name(C::ID),
                    reason,
                });
            };
            device.facts.forget(H::TYPE as u32, child.raw());
        }
        pool.state = PoolState::Busy;
    }
    call_after_others(session, &pool, c)
}

/// Returns everything to a pool.
pub(crate) fn free_all_children<'m, C, H>(
    session: &mut Session<'_>,
    pool: u64,
    c: &mut C,
) -> Result<Option<C::Return>, Fatal>
where
    C: Call<'m, Table = DeviceTable>,
    H: Handle,
    C::Return: Outcome,
{
    let pool = session.device(C::ID)?.pools.get(pool);
    take_all_children::<H>(session, C::ID, &pool, PoolState::Busy)?;
    call_after_others(session, &pool, c)
}

/// Takes all children of a pool out of the table.
fn take_all_children<H: Handle>(
    session: &mut Session<'_>,
    command: CommandId,
    pool: &Mutex<Pool>,
    state: PoolState,
) -> Result<(), Fatal> {
    let objects = &session.state.objects;
    let device = session.device(command)?;
    let mut pool = pool.locked();
    check_pool(&pool, command)?;
    for id in std::mem::take(&mut pool.children) {
        if let Some(child) = objects.remove::<H>(id) {
            device.facts.forget(H::TYPE as u32, child.raw());
        }
    }
    pool.state = state;
    Ok(())
}

/// Calls the driver with a pool that is [`PoolState::Busy`], as soon as no other thread uses what
/// was taken out of the table. `None` when the context ends before.
fn call_after_others<'m, C>(
    session: &mut Session<'_>,
    pool: &Mutex<Pool>,
    c: &mut C,
) -> Result<Option<C::Return>, Fatal>
where
    C: Call<'m, Table = DeviceTable>,
    C::Return: Outcome,
{
    // Nobody waits for this thread while it waits. The pool is not destroyed meanwhile.
    if !session.synchronize(Class::Other) {
        return Ok(None);
    }
    let mut pool = pool.locked();
    let result = call(session, c)?;
    pool.state = PoolState::Free;
    Ok(Some(result))
}

/// Destroys a pool, and with it everything that was allocated from it. Null is allowed and does
/// nothing.
pub(crate) fn destroy_pool<P: Handle, H: Handle>(
    session: &mut Session<'_>,
    command: CommandId,
    object: Object<P>,
) -> Result<(), Fatal> {
    if object.is_null() {
        return Ok(());
    }
    let pool: Arc<Mutex<Pool>> = session.device(command)?.pools.get(object.handle.raw());
    take_all_children::<H>(session, command, &pool, PoolState::Destroyed)?;
    destroy_object(session, command, object)
}
