//! Sync files without a host that has them.
//!
//! A guest imports a sync file into a semaphore when its display server has released a picture: by then it is
//! signalled, so `vkImportSemaphoreResourceMESA` becomes an empty submit that signals the semaphore. It exports one by
//! consuming the signal that is pending on a semaphore (`vkWaitSemaphoreResourceMESA`): an empty submit that
//! waits for it. The file itself is made by the guest's kernel from a fence on the queue's ring index.

use hesper_venus_protocol::runtime::find;
use hesper_venus_protocol::vk;

/// Answers what can be done with handles of a semaphore: sync files of binary ones can be imported and exported.
pub(crate) fn semaphore_properties(
    info: &vk::PhysicalDeviceExternalSemaphoreInfo,
    properties: &mut vk::ExternalSemaphoreProperties,
) {
    use vk::{
        ExternalSemaphoreFeatureFlags as Features, ExternalSemaphoreHandleTypeFlags as Types,
    };
    let is_sync_fd = info.handle_type == Types::SYNC_FD;
    // Timeline semaphores have no sync files.
    // SAFETY: the chain was decoded, and nobody else uses it.
    let kind = unsafe { find::<vk::SemaphoreTypeCreateInfo>(info.p_next) };
    let is_binary = kind.is_none_or(|kind| kind.semaphore_type == vk::SemaphoreType::BINARY);
    properties.export_from_imported_handle_types = Types::default();
    properties.compatible_handle_types = Types::default();
    properties.external_semaphore_features = Features::default();
    if is_sync_fd && is_binary {
        properties.export_from_imported_handle_types = Types::SYNC_FD;
        properties.compatible_handle_types = Types::SYNC_FD;
        properties.external_semaphore_features = Features::EXPORTABLE | Features::IMPORTABLE;
    }
}

/// Answers what can be done with handles of a fence: no handle type works.
pub(crate) fn fence_properties(properties: &mut vk::ExternalFenceProperties) {
    *properties = vk::ExternalFenceProperties {
        p_next: properties.p_next,
        ..Default::default()
    };
}
