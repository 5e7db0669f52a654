//! `VkFence`: waits that end when the context does, and `vkResetFenceResourceMESA`.

use hesper_venus_protocol::call::Call;
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
    _session: &mut Session<'_>,
    c: &mut GetPhysicalDeviceExternalFenceProperties<'_>,
) -> Result<(), Fatal> {
    sync_fd::fence_properties(c.p_external_fence_properties);
    Ok(())
}

/// `vkCreateFence`
fn create(session: &mut Session<'_>, c: &mut CreateFence<'_>) -> Result<vk::Result, Fatal> {
    // The renderer emulates sync files; the host knows nothing of them.
    // SAFETY: the chain was decoded, and nobody else uses it.
    unsafe { unlink(&mut *c.p_create_info, vk::ExportFenceCreateInfo::STYPE) };
    create_object(session, c, |c| &mut *c.p_fence).map(|(result, _)| result)
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
    let device = std::sync::Arc::clone(session.device(CommandId::WaitForFences)?);
    Ok(wait_sliced(timeout, session.state.stop_flag(), |slice| {
        c.timeout = slice;
        // SAFETY: as for every call: the decoder has replaced ids by handles and checked counts.
        let result = unsafe { c.call(device.functions()) };
        result.unwrap_or(vk::Result::ERROR_DEVICE_LOST)
    }))
}

/// `vkResetFenceResourceMESA`: the payload went into a sync file in the guest. The old fence may
/// still be in use, so the id gets a new one.
fn reset_resource(session: &mut Session<'_>, c: &mut ResetFenceResourceMESA) -> Result<(), Fatal> {
    let device = session.device(CommandId::ResetFenceResourceMESA)?;
    let (owner, raw) = (device.owner, std::sync::Arc::clone(device));
    let lost = Fatal::DeviceLost(name(CommandId::ResetFenceResourceMESA));
    let fresh = raw.raw().create_fence().ok_or(lost)?;
    let objects = &session.state.objects;
    if raw.raw().has_too_many_abandoned() || !objects.remove_exactly(c.fence) {
        raw.raw().destroy_fence(fresh);
        return Err(Fatal::Invalid {
            command: name(CommandId::ResetFenceResourceMESA),
            reason: "the fence is being destroyed, or thousands of fences were reset that nothing signals",
        });
    }
    raw.raw().abandon_fence(c.fence.handle);
    let inserted = objects.insert(owner, c.fence.id, fresh);
    if inserted.is_err() {
        // Another ring has taken the id in between.
        raw.raw().destroy_fence(fresh);
    }
    inserted
}
