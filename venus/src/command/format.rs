//! Queries of formats: what a physical device can do with images and buffers of a format.

use hesper_venus_protocol::command::{
    GetPhysicalDeviceFormatProperties2, GetPhysicalDeviceImageFormatProperties,
    GetPhysicalDeviceImageFormatProperties2, GetPhysicalDeviceSparseImageFormatProperties,
    GetPhysicalDeviceSparseImageFormatProperties2,
};
use hesper_venus_protocol::runtime::find_mut;
use hesper_venus_protocol::{CommandId, vk};

use super::shape::{Family, forward, special};
use crate::emulate::modifier::{self, ModifierLists};
use crate::emulate::{Policy, dma_buf, mirror, sparse};
use crate::fatal::Fatal;
use crate::memory::HOST_ALLOCATION;
use crate::object::host_copy;
use crate::session::{Session, call};

/// The commands of this file.
pub(super) const HANDLERS: Family = &[
    special!(
        GetPhysicalDeviceFormatProperties2 => properties2,
        GetPhysicalDeviceImageFormatProperties => image_properties,
        GetPhysicalDeviceImageFormatProperties2 => image_properties2,
        GetPhysicalDeviceSparseImageFormatProperties => sparse_properties,
        GetPhysicalDeviceSparseImageFormatProperties2 => sparse_properties2,
    ),
    forward!(GetPhysicalDeviceFormatProperties),
];

/// `vkGetPhysicalDeviceImageFormatProperties`
fn image_properties(
    session: &mut Session<'_>,
    c: &mut GetPhysicalDeviceImageFormatProperties<'_>,
) -> Result<vk::Result, Fatal> {
    let id = CommandId::GetPhysicalDeviceImageFormatProperties;
    let device = session.physical_device(id, c.physical_device.handle)?;
    if sparse::is_image_hidden(&device, c.flags) || device.lacks_image(c.flags) {
        return Ok(vk::Result::ERROR_FORMAT_NOT_SUPPORTED);
    }
    call(session, c)
}

/// `vkGetPhysicalDeviceSparseImageFormatProperties`
fn sparse_properties(
    session: &mut Session<'_>,
    c: &mut GetPhysicalDeviceSparseImageFormatProperties<'_>,
) -> Result<(), Fatal> {
    let id = CommandId::GetPhysicalDeviceSparseImageFormatProperties;
    let device = session.physical_device(id, c.physical_device.handle)?;
    if sparse::is_hidden(&device) {
        *c.p_property_count = 0;
        return Ok(());
    }
    call(session, c)
}

/// `vkGetPhysicalDeviceSparseImageFormatProperties2`
fn sparse_properties2(
    session: &mut Session<'_>,
    c: &mut GetPhysicalDeviceSparseImageFormatProperties2<'_>,
) -> Result<(), Fatal> {
    let id = CommandId::GetPhysicalDeviceSparseImageFormatProperties2;
    let device = session.physical_device(id, c.physical_device.handle)?;
    if sparse::is_hidden(&device) {
        *c.p_property_count = 0;
        return Ok(());
    }
    call(session, c)
}

/// `vkGetPhysicalDeviceFormatProperties2`, with the list of modifiers.
fn properties2(
    session: &mut Session<'_>,
    c: &mut GetPhysicalDeviceFormatProperties2<'_>,
) -> Result<(), Fatal> {
    let id = CommandId::GetPhysicalDeviceFormatProperties2;
    let device = session.physical_device(id, c.physical_device.handle)?;
    // SAFETY: the chain was decoded, and nobody else uses it.
    let lists = unsafe { ModifierLists::take(c.p_format_properties) };
    call(session, c)?;
    let properties = &mut *c.p_format_properties;
    if !host_copy::is_carried(c.format) {
        // SAFETY: as above.
        let all = unsafe { find_mut::<vk::FormatProperties3>(properties.p_next) };
        let hidden = vk::FormatFeatureFlags2::HOST_IMAGE_TRANSFER;
        if let Some(all) = all {
            all.linear_tiling_features = all.linear_tiling_features & !hidden;
            all.optimal_tiling_features = all.optimal_tiling_features & !hidden;
        }
    }
    // SAFETY: as above; the driver does not change chains.
    unsafe { lists.answer(c.format, device.mirrors(c.format), properties) };
    Ok(())
}

/// `vkGetPhysicalDeviceImageFormatProperties2`: only linear images can be shared, and only if
/// sharing is offered.
fn image_properties2(
    session: &mut Session<'_>,
    c: &mut GetPhysicalDeviceImageFormatProperties2<'_>,
) -> Result<vk::Result, Fatal> {
    use vk::ExternalMemoryHandleTypeFlags as Types;
    let id = CommandId::GetPhysicalDeviceImageFormatProperties2;
    let device = session.physical_device(id, c.physical_device.handle)?;
    let is_offered = device.policy == Policy::DmaBuf;
    let flags = c.p_image_format_info.flags;
    if sparse::is_image_hidden(&device, flags) || device.lacks_image(flags) {
        return Ok(vk::Result::ERROR_FORMAT_NOT_SUPPORTED);
    }
    let info = &mut *c.p_image_format_info;
    if info.usage.contains(vk::ImageUsageFlags::HOST_TRANSFER)
        && !host_copy::is_carried(info.format)
    {
        return Ok(vk::Result::ERROR_FORMAT_NOT_SUPPORTED);
    }
    // SAFETY: the chain was decoded, and nobody else uses it.
    let modifier =
        unsafe { modifier::take::<vk::PhysicalDeviceImageDrmFormatModifierInfoEXT, _>(info) };
    let has_modifier = info.tiling == vk::ImageTiling::DRM_FORMAT_MODIFIER_EXT;
    let is_mirrored = has_modifier && device.mirrors(info.format);
    if has_modifier {
        let is_linear =
            modifier.is_some_and(|modifier| modifier.drm_format_modifier == modifier::LINEAR);
        let is_possible = is_mirrored || modifier::is_shareable(info.format);
        if !is_linear || !is_offered || !is_possible {
            return Ok(vk::Result::ERROR_FORMAT_NOT_SUPPORTED);
        }
        info.tiling = vk::ImageTiling::LINEAR;
    }
    // SAFETY: as above.
    let external =
        unsafe { find_mut::<vk::PhysicalDeviceExternalImageFormatInfo>(info.p_next.cast_mut()) };
    let external = external.filter(|external| !external.handle_type.is_empty());
    let is_external = external.is_some();
    if let Some(external) = external {
        let is_dma_buf = external.handle_type == Types::DMA_BUF_EXT;
        let has_layout = info.tiling == vk::ImageTiling::LINEAR
            && (is_mirrored || modifier::is_shareable(info.format));
        if !is_offered || !is_dma_buf || !has_layout {
            return Ok(vk::Result::ERROR_FORMAT_NOT_SUPPORTED);
        }
        external.handle_type = HOST_ALLOCATION;
    }
    if is_mirrored && !mirror::rewrite_question(info) {
        return Ok(vk::Result::ERROR_FORMAT_NOT_SUPPORTED);
    }
    let result = call(session, c)?;
    if is_mirrored {
        mirror::limit(&mut c.p_image_format_properties.image_format_properties);
    }
    let p_next = c.p_image_format_properties.p_next;
    // SAFETY: as above.
    let external = unsafe { find_mut::<vk::ExternalImageFormatProperties>(p_next) };
    if let Some(external) = external {
        external.external_memory_properties = match is_external && result == vk::Result::SUCCESS {
            true => dma_buf::PROPERTIES,
            false => vk::ExternalMemoryProperties::default(),
        };
    }
    Ok(result)
}
