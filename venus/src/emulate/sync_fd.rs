//! Sync files without a host that has them.
//!
//! A guest imports a sync file into a semaphore when its display server has released a picture: by then it is
//! signalled, so `vkImportSemaphoreResourceMESA` becomes an empty submit that signals the semaphore. It exports one by
//! consuming the signal that is pending on a semaphore (`vkWaitSemaphoreResourceMESA`): an empty submit that
//! waits for it. The file itself is made by the guest's kernel from a fence on the queue's ring index.

use hesper_venus_protocol::command::{
    GetPhysicalDeviceExternalFenceProperties, GetPhysicalDeviceExternalSemaphoreProperties,
    ImportSemaphoreResourceMESA, WaitSemaphoreResourceMESA,
};
use hesper_venus_protocol::runtime::find;
use hesper_venus_protocol::{CommandId, vk};

use crate::fatal::Fatal;
use crate::session::Session;

/// `vkGetPhysicalDeviceExternalSemaphoreProperties`
pub(crate) fn semaphore_properties(
    _session: &mut Session<'_>,
    c: &mut GetPhysicalDeviceExternalSemaphoreProperties<'_>,
) -> Result<(), Fatal> {
    use vk::{
        ExternalSemaphoreFeatureFlags as Features, ExternalSemaphoreHandleTypeFlags as Types,
    };
    let is_sync_fd = c.p_external_semaphore_info.handle_type == Types::SYNC_FD;
    // Timeline semaphores have no sync files.
    // SAFETY: the chain was decoded, and nobody else uses it.
    let kind = unsafe { find::<vk::SemaphoreTypeCreateInfo>(c.p_external_semaphore_info.p_next) };
    let is_binary = kind.is_none_or(|kind| kind.semaphore_type == vk::SemaphoreType::BINARY);
    let properties = &mut *c.p_external_semaphore_properties;
    properties.export_from_imported_handle_types = Types::default();
    properties.compatible_handle_types = Types::default();
    properties.external_semaphore_features = Features::default();
    if is_sync_fd && is_binary {
        properties.export_from_imported_handle_types = Types::SYNC_FD;
        properties.compatible_handle_types = Types::SYNC_FD;
        properties.external_semaphore_features = Features::EXPORTABLE | Features::IMPORTABLE;
    }
    Ok(())
}

/// `vkGetPhysicalDeviceExternalFenceProperties`: no handle type works.
pub(crate) fn fence_properties(
    _session: &mut Session<'_>,
    c: &mut GetPhysicalDeviceExternalFenceProperties<'_>,
) -> Result<(), Fatal> {
    let p_next = c.p_external_fence_properties.p_next;
    *c.p_external_fence_properties = vk::ExternalFenceProperties {
        p_next,
        ..Default::default()
    };
    Ok(())
}

/// `vkImportSemaphoreResourceMESA`: the semaphore is signalled from now on.
pub(crate) fn import_semaphore(
    session: &mut Session<'_>,
    c: &mut ImportSemaphoreResourceMESA<'_>,
) -> Result<(), Fatal> {
    let info = &c.p_import_semaphore_resource_info;
    if info.resource_id != 0 {
        return Err(Fatal::Invalid {
            command: "vkImportSemaphoreResourceMESA",
            reason: "a resource other than 0, which stands for a signalled semaphore",
        });
    }
    let device = session.device(CommandId::ImportSemaphoreResourceMESA)?;
    device.signal_now(info.semaphore);
    Ok(())
}

/// `vkWaitSemaphoreResourceMESA`: the pending signal is consumed.
pub(crate) fn wait_semaphore(
    session: &mut Session<'_>,
    c: &mut WaitSemaphoreResourceMESA,
) -> Result<(), Fatal> {
    let device = session.device(CommandId::WaitSemaphoreResourceMESA)?;
    device.consume_signal(c.semaphore.handle);
    Ok(())
}
