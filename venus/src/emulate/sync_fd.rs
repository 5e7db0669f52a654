//! Sync files without a host that has them.
//!
//! A guest imports a sync file into a semaphore when its display server has released a picture. The
//! sync file is signalled by then, so `vkImportSemaphoreResourceMESA` becomes an empty submit that
//! signals the semaphore. A guest exports a sync file by consuming the pending signal of a
//! semaphore (`vkWaitSemaphoreResourceMESA`): an empty submit that waits for it. The guest's kernel
//! makes the file itself, from a fence on the queue's ring index.

use hesper_venus_protocol::runtime::find;
use hesper_venus_protocol::vk;

/// Answers what can be done with a semaphore's handles: sync files of binary semaphores can be
/// imported and exported.
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

/// Answers what can be done with a fence's handles: nothing.
pub(crate) fn fence_properties(properties: &mut vk::ExternalFenceProperties) {
    *properties = vk::ExternalFenceProperties {
        p_next: properties.p_next,
        ..Default::default()
    };
}
