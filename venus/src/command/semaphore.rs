//! `VkSemaphore`: knows which are timelines; waits end when the context ends.

use hesper_system::sync::Lock;
use hesper_venus_protocol::command::{
    CreateSemaphore, GetPhysicalDeviceExternalSemaphoreProperties, ImportSemaphoreResourceMESA,
    WaitSemaphoreResourceMESA, WaitSemaphores,
};
use hesper_venus_protocol::runtime::{Chained, find, unlink};
use hesper_venus_protocol::{CommandId, vk};

use super::fence::wait_on;
use super::lifetime::create_object;
use super::shape::{Family, destroy, forward, special};
use crate::emulate::sync_fd;
use crate::fatal::Fatal;
use crate::session::{Session, call};

/// The commands of this file.
pub(super) const HANDLERS: Family = &[
    special!(
        GetPhysicalDeviceExternalSemaphoreProperties => external_properties,
        CreateSemaphore => create,
        WaitSemaphores => wait,
        ImportSemaphoreResourceMESA => import_resource,
        WaitSemaphoreResourceMESA => wait_resource,
    ),
    destroy!(
        DestroySemaphore => semaphore,
    ),
    forward!(GetSemaphoreCounterValue, SignalSemaphore),
];

/// `vkGetPhysicalDeviceExternalSemaphoreProperties`
fn external_properties(
    _session: &mut Session<'_>,
    c: &mut GetPhysicalDeviceExternalSemaphoreProperties<'_>,
) -> Result<(), Fatal> {
    sync_fd::semaphore_properties(
        c.p_external_semaphore_info,
        c.p_external_semaphore_properties,
    );
    Ok(())
}

/// `vkCreateSemaphore`
fn create(session: &mut Session<'_>, c: &mut CreateSemaphore<'_>) -> Result<vk::Result, Fatal> {
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
        // Without this function, a waiting queue could not be released when the context ends.
        return Err(Fatal::NotEnabled("vkSignalSemaphore"));
    }
    // The renderer emulates sync files; the host knows nothing of them.
    // SAFETY: as above.
    let export = unsafe { unlink(&mut *c.p_create_info, vk::ExportSemaphoreCreateInfo::STYPE) };
    create_object(
        session,
        c,
        |c| &mut *c.p_semaphore,
        |device, semaphore| {
            if is_timeline {
                device.timeline_semaphores.locked().insert(semaphore.0);
            } else if export.is_some() {
                device.sync_files.exportable(semaphore);
            }
        },
    )
}

/// `vkWaitSemaphores`
fn wait(session: &mut Session<'_>, c: &mut WaitSemaphores<'_>) -> Result<vk::Result, Fatal> {
    let timeout = std::mem::replace(&mut c.timeout, 0);
    let result = call(session, c)?;
    if result != vk::Result::TIMEOUT || timeout == 0 {
        return Ok(result);
    }
    session.publish();
    let info = &*c.p_wait_info;
    let semaphores: &[vk::Semaphore] = match info.p_semaphores.is_null() {
        true => &[],
        // SAFETY: the decoder made an array of `semaphore_count` handles, or a null pointer.
        false => unsafe {
            std::slice::from_raw_parts(info.p_semaphores, info.semaphore_count as usize)
        },
    };
    let semaphores: Vec<u64> = semaphores.iter().map(|semaphore| semaphore.0).collect();
    wait_on(session, &semaphores, timeout, c, |c, slice| {
        c.timeout = slice;
    })
}

/// `vkImportSemaphoreResourceMESA`: the semaphore is signalled from now on.
fn import_resource(
    session: &mut Session<'_>,
    c: &mut ImportSemaphoreResourceMESA<'_>,
) -> Result<(), Fatal> {
    let info = &c.p_import_semaphore_resource_info;
    if info.resource_id != 0 {
        return Err(Fatal::Invalid {
            command: "vkImportSemaphoreResourceMESA",
            reason: "the resource is not 0, which stands for a signalled semaphore",
        });
    }
    let device = session.device(CommandId::ImportSemaphoreResourceMESA)?;
    device.sync_files.import(info.semaphore);
    Ok(())
}

/// `vkWaitSemaphoreResourceMESA`: the payload goes into a sync file in the guest.
fn wait_resource(
    session: &mut Session<'_>,
    c: &mut WaitSemaphoreResourceMESA,
) -> Result<(), Fatal> {
    let device = session.device(CommandId::WaitSemaphoreResourceMESA)?;
    device.export_payload(c.semaphore.handle);
    Ok(())
}
