//! `VkFence`: waits that end when the context does, and `vkResetFenceResourceMESA`.

use std::sync::Arc;

use hesper_venus_protocol::call::{Call, DeviceTable};
use hesper_venus_protocol::command::{
    CreateFence, GetPhysicalDeviceExternalFenceProperties, ResetFenceResourceMESA, WaitForFences,
};
use hesper_venus_protocol::runtime::{Chained, unlink};
use hesper_venus_protocol::{CommandId, vk};

use super::lifetime::create_object;
use super::shape::{Family, destroy, forward, special};
use crate::emulate::sync_fd;
use crate::fatal::Fatal;
use crate::object::raw_device::wait_sliced;
use crate::object::reclamation::{Class, Last};
use crate::session::{Session, call, name};

/// The commands of this file.
pub(super) const HANDLERS: Family = &[
    special!(
        GetPhysicalDeviceExternalFenceProperties => external_properties,
        CreateFence => create,
        WaitForFences => wait,
        ResetFenceResourceMESA => reset_resource,
    ),
    destroy!(
        DestroyFence => fence,
    ),
    forward!(ResetFences, GetFenceStatus),
];

/// `vkGetPhysicalDeviceExternalFenceProperties`
fn external_properties(
    session: &mut Session<'_>,
    c: &mut GetPhysicalDeviceExternalFenceProperties<'_>,
) -> Result<(), Fatal> {
    let id = CommandId::GetPhysicalDeviceExternalFenceProperties;
    let physical = session.physical_device(id, c.physical_device.handle)?;
    sync_fd::fence_properties(
        c.p_external_fence_info,
        c.p_external_fence_properties,
        physical.policy,
    );
    Ok(())
}

/// `vkCreateFence`
fn create(session: &mut Session<'_>, c: &mut CreateFence<'_>) -> Result<vk::Result, Fatal> {
    // The renderer emulates sync files; the host knows nothing of them.
    // SAFETY: the chain was decoded, and nobody else uses it.
    unsafe { unlink(&mut *c.p_create_info, vk::ExportFenceCreateInfo::STYPE) };
    create_object(session, c, |c| &mut *c.p_fence, |_, _| {})
}

/// `vkWaitForFences`
fn wait(session: &mut Session<'_>, c: &mut WaitForFences<'_>) -> Result<vk::Result, Fatal> {
    let timeout = std::mem::replace(&mut c.timeout, 0);
    // Most fences are signalled already: guests look at a fence before they wait.
    let result = call(session, c)?;
    if result != vk::Result::TIMEOUT || timeout == 0 {
        return Ok(result);
    }
    session.publish();
    let fences: Vec<u64> = c.p_fences.iter().map(|fence| fence.0).collect();
    wait_on(session, &fences, timeout, c, |c, slice| c.timeout = slice)
}

/// Waits for fences or semaphores, by a command that ends after the timeout that `set` sets. Ends
/// the context if another thread destroys one of these `handles`.
pub(super) fn wait_on<'m, C>(
    session: &mut Session<'_>,
    handles: &[u64],
    timeout: u64,
    c: &mut C,
    set: impl Fn(&mut C, u64),
) -> Result<vk::Result, Fatal>
where
    C: Call<'m, Return = vk::Result, Table = DeviceTable>,
{
    let device = Arc::clone(session.device(C::ID)?);
    let mut is_destroyed = false;
    let wait = |session: &mut Session<'_>| {
        wait_sliced(timeout, session.state.stop_flag(), |slice| {
            if !session.may_wait_on(handles) {
                is_destroyed = true;
                return vk::Result::ERROR_DEVICE_LOST;
            }
            set(c, slice);
            // SAFETY: the decoder has replaced ids by handles and checked counts. This thread has
            // said that it uses these handles, so nobody destroys them meanwhile.
            let result = unsafe { c.call(device.functions()) };
            result.unwrap_or(vk::Result::ERROR_DEVICE_LOST)
        })
    };
    let result = session.waiting(C::ID, |session| session.with_only(Class::Sync, wait));
    match is_destroyed {
        true => Err(Fatal::Invalid {
            command: name(C::ID),
            reason: "another thread destroys what this command waits for",
        }),
        false => Ok(result),
    }
}

/// `vkResetFenceResourceMESA`: the payload went into a sync file in the guest. The old fence may
/// still be in use, so the id gets a new one.
fn reset_resource(session: &mut Session<'_>, c: &mut ResetFenceResourceMESA) -> Result<(), Fatal> {
    let command = CommandId::ResetFenceResourceMESA;
    let device = Arc::clone(session.device(command)?);
    let raw = device.raw();
    let lost = Fatal::DeviceLost(name(command));
    let fresh = raw.create_fence().ok_or(lost)?;
    let objects = &session.state.objects;
    if raw.has_too_many_abandoned() || !objects.remove_exactly(c.fence) {
        raw.destroy_fence(fresh);
        return Err(Fatal::Invalid {
            command: name(command),
            reason: "the fence is being destroyed, or thousands of fences were reset that nothing signals",
        });
    }
    let inserted = objects.insert(device.owner, c.fence.id, fresh, &device.is_gone);
    if inserted.is_err() {
        // Another ring has taken the id in between, or has destroyed the device.
        raw.destroy_fence(fresh);
    }
    // Another ring may be waiting for the old one.
    session.retire(command, |_| Last::Abandon(c.fence.handle))?;
    inserted
}
