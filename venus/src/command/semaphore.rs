//! `VkSemaphore`: which are timelines, and waits that end when the context does.

use std::sync::Arc;

use hesper_venus_protocol::call::Call;
use hesper_venus_protocol::command::{CreateSemaphore, DestroySemaphore, WaitSemaphores};
use hesper_venus_protocol::runtime::{Chained, find, unlink};
use hesper_venus_protocol::{CommandId, vk};

use crate::command::{create_one, destroy_one};
use crate::fatal::Fatal;
use crate::object::device::wait_sliced;
use crate::session::{Session, call};
use crate::sync::Lock;

/// `vkCreateSemaphore`
pub(crate) fn create(
    session: &mut Session<'_>,
    c: &mut CreateSemaphore<'_>,
) -> Result<vk::Result, Fatal> {
    let p_next = c.p_create_info.p_next;
    // SAFETY: the chain was decoded, and nobody else uses it.
    let kind = unsafe { find::<vk::SemaphoreTypeCreateInfo>(p_next) };
    let is_timeline = kind.is_some_and(|kind| kind.semaphore_type == vk::SemaphoreType::TIMELINE);
    let can_signal = session
        .device(CommandId::CreateSemaphore)?
        .functions()
        .signal_semaphore
        .is_some();
    if is_timeline && !can_signal {
        // Without the function a queue that waits could not be released when the context ends.
        return Err(Fatal::NotEnabled("vkSignalSemaphore"));
    }
    // Sync files are emulated, the host knows nothing of them.
    // SAFETY: as above.
    unsafe { unlink(&mut *c.p_create_info, vk::ExportSemaphoreCreateInfo::STYPE) };
    let (result, host) = create_one(session, c, |c| &mut *c.p_semaphore)?;
    if is_timeline && let Some(host) = host {
        let device = session.device(CommandId::CreateSemaphore)?;
        device.timeline_semaphores.locked().insert(host.0);
    }
    Ok(result)
}

/// `vkDestroySemaphore`
pub(crate) fn destroy(session: &mut Session<'_>, c: &mut DestroySemaphore) -> Result<(), Fatal> {
    if !c.semaphore.is_null() {
        let device = session.device(CommandId::DestroySemaphore)?;
        device
            .timeline_semaphores
            .locked()
            .remove(&c.semaphore.handle.0);
    }
    let semaphore = c.semaphore;
    destroy_one(session, c, semaphore)
}

/// `vkWaitSemaphores`
pub(crate) fn wait(
    session: &mut Session<'_>,
    c: &mut WaitSemaphores<'_>,
) -> Result<vk::Result, Fatal> {
    let timeout = std::mem::replace(&mut c.timeout, 0);
    let result = call(session, c)?;
    if result != vk::Result::TIMEOUT || timeout == 0 {
        return Ok(result);
    }
    session.publish();
    let device = Arc::clone(session.device(CommandId::WaitSemaphores)?);
    Ok(wait_sliced(timeout, session.state.stop_flag(), |slice| {
        c.timeout = slice;
        // SAFETY: as for every call: the decoder has replaced ids by handles and checked counts.
        let result = unsafe { c.call(device.functions()) };
        result.unwrap_or(vk::Result::ERROR_DEVICE_LOST)
    }))
}
