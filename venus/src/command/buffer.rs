//! Commands of `VkBuffer` and `VkBufferView`.

use hesper_venus_protocol::command::{
    CreateBuffer, DestroyBuffer, GetPhysicalDeviceExternalBufferProperties,
};
use hesper_venus_protocol::{CommandId, vk};

use super::lifetime::{create_object, destroy_late};
use super::shape::{Family, create, destroy, forward, special};
use crate::emulate::{Policy, dma_buf, host_allocation};
use crate::fatal::Fatal;
use crate::session::Session;

/// The commands of this file.
pub(super) const HANDLERS: Family = &[
    special!(
        GetPhysicalDeviceExternalBufferProperties => external_properties,
        CreateBuffer => create,
        DestroyBuffer => destroy,
    ),
    create!(
        CreateBufferView => p_view,
    ),
    destroy!(
        DestroyBufferView => buffer_view,
    ),
    forward!(GetBufferDeviceAddress, GetBufferOpaqueCaptureAddress),
];

/// `vkGetPhysicalDeviceExternalBufferProperties`: only dma-bufs can be shared, and only if they are
/// offered.
fn external_properties(
    session: &mut Session<'_>,
    c: &mut GetPhysicalDeviceExternalBufferProperties<'_>,
) -> Result<(), Fatal> {
    let id = CommandId::GetPhysicalDeviceExternalBufferProperties;
    let device = session.physical_device(id, c.physical_device.handle)?;
    let info = &c.p_external_buffer_info;
    let is_shareable = device.policy == Policy::DmaBuf
        && info.handle_type == vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT
        && !dma_buf::is_sparse(info.flags);
    c.p_external_buffer_properties.external_memory_properties = match is_shareable {
        true => dma_buf::PROPERTIES,
        false => vk::ExternalMemoryProperties::default(),
    };
    Ok(())
}

/// `vkDestroyBuffer`
fn destroy(session: &mut Session<'_>, c: &mut DestroyBuffer) -> Result<(), Fatal> {
    destroy_late(session, CommandId::DestroyBuffer, c.buffer)
}

/// `vkCreateBuffer`
fn create(session: &mut Session<'_>, c: &mut CreateBuffer<'_>) -> Result<vk::Result, Fatal> {
    let device = session.device(CommandId::CreateBuffer)?;
    let is_shared = dma_buf::rewrite_buffer(c.p_create_info, device.physical.facts.declares);
    let mut external = Default::default();
    host_allocation::declare_buffer(device, c.p_create_info, &mut external);
    create_object(
        session,
        c,
        |c| &mut *c.p_buffer,
        |device, buffer| {
            if is_shared {
                device.shared_objects.buffers.insert(buffer.0);
            }
        },
    )
}
