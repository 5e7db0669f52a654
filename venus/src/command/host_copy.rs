//! Copies between images and host memory (`VK_EXT_host_image_copy`), by commands of the protocol.
//!
//! The driver reads and writes the command's own bytes in place. A copy that needs more bytes than
//! the command has is refused ([`crate::object::host_copy`]).

use std::sync::{Arc, Once};

use ash::vk as host;
use hesper_venus_protocol::command::{
    CopyImageToMemoryMESA, CopyMemoryToImageMESA, GetImageSubresourceLayout2,
};
use hesper_venus_protocol::runtime::Object;
use hesper_venus_protocol::{CommandId, vk};

use super::shape::{Family, forward, special};
use crate::fatal::Fatal;
use crate::object::host_copy::{CopiedImage, Region};
use crate::session::{Session, call, name};

/// The commands of this file.
pub(super) const HANDLERS: Family = &[
    special!(
        CopyImageToMemoryMESA => image_to_memory,
        CopyMemoryToImageMESA => memory_to_image,
    ),
    forward!(CopyImageToImage, TransitionImageLayout),
];

/// The image of a command.
fn image(
    session: &mut Session<'_>,
    command: CommandId,
    handle: vk::Image,
) -> Result<CopiedImage, Fatal> {
    let known = session.device(command)?.facts.images.get(handle);
    known
        .filter(|image| image.is_for_host)
        .ok_or(Fatal::Invalid {
            command: name(command),
            reason: "the image was made without VK_IMAGE_USAGE_HOST_TRANSFER",
        })
}

/// Whether `room` bytes are enough for what the driver will read or write. If not, the copy is
/// refused. Resolves the region.
fn is_enough(
    session: &mut Session<'_>,
    ids: (CommandId, Object<vk::Device>, vk::Image),
    image: &CopiedImage,
    flags: vk::HostImageCopyFlags,
    region: &mut Region,
    room: usize,
) -> Result<bool, Fatal> {
    let (command, device, handle) = ids;
    let invalid = |reason| Fatal::Invalid {
        command: name(command),
        reason,
    };
    let mut bytes = region.resolve(image).map_err(invalid)?;
    if flags.contains(vk::HostImageCopyFlags::MEMCPY) {
        if region.row_length != 0 || region.image_height != 0 {
            return Err(invalid(
                "VK_HOST_IMAGE_COPY_MEMCPY with a row length or an image height",
            ));
        }
        // A driver that ignores the flag copies rows, so both sizes must fit.
        let of_driver = memcpy_size(session, device, handle, &region.subresource)?;
        bytes = bytes.max(of_driver.ok_or(invalid(
            "the driver does not say how large the image is for VK_HOST_IMAGE_COPY_MEMCPY",
        ))?);
    }
    let is_enough = bytes <= room as u64;
    if !is_enough {
        // A guest can cause this as often as it likes.
        static LOGGED: Once = Once::new();
        LOGGED.call_once(|| {
            log::warn!(
                "{} is refused: it needs {bytes} bytes of memory, and the guest's driver names {room}; logged once",
                name(command)
            );
        });
    }
    Ok(is_enough)
}

/// With `MEMCPY`, the driver copies whole subresources in an order of its own and says how large
/// they are. `None` when it does not say so.
fn memcpy_size(
    session: &mut Session<'_>,
    device: Object<vk::Device>,
    image: vk::Image,
    layers: &vk::ImageSubresourceLayers,
) -> Result<Option<u64>, Fatal> {
    let mut total: u64 = 0;
    for layer in 0..layers.layer_count {
        let mut size = vk::SubresourceHostMemcpySize::default();
        let mut layout = vk::SubresourceLayout2 {
            p_next: (&raw mut size).cast(),
            ..Default::default()
        };
        let mut subresource = vk::ImageSubresource2::default();
        subresource.image_subresource.aspect_mask = layers.aspect_mask;
        subresource.image_subresource.mip_level = layers.mip_level;
        subresource.image_subresource.array_layer = layers.base_array_layer.saturating_add(layer);
        let mut query = GetImageSubresourceLayout2 {
            device,
            image: Object {
                id: 0,
                handle: image,
            },
            p_subresource: &mut subresource,
            p_layout: &mut layout,
        };
        call(session, &mut query)?;
        if size.size == 0 {
            return Ok(None);
        }
        total = total.saturating_add(size.size);
    }
    Ok(Some(total))
}

/// `vkCopyImageToMemoryMESA`: the driver writes into the reply.
fn image_to_memory(
    session: &mut Session<'_>,
    c: &mut CopyImageToMemoryMESA<'_>,
) -> Result<vk::Result, Fatal> {
    let id = CommandId::CopyImageToMemoryMESA;
    let info = *c.p_copy_image_to_memory_info;
    let mut region = Region {
        row_length: info.memory_row_length,
        image_height: info.memory_image_height,
        subresource: info.image_subresource,
        offset: info.image_offset,
        extent: info.image_extent,
    };
    let image = image(session, id, info.src_image)?;
    let ids = (id, c.device, info.src_image);
    if !is_enough(
        session,
        ids,
        &image,
        info.flags,
        &mut region,
        c.p_data.len(),
    )? {
        return Ok(vk::Result::ERROR_OUT_OF_HOST_MEMORY);
    }
    let device = session.device(id)?;
    let function = device.host_copy.to_memory;
    let function = function.ok_or(Fatal::NotEnabled(name(id)))?;
    let copy = host::ImageToMemoryCopyEXT {
        p_host_pointer: c.p_data.as_mut_ptr().cast(),
        memory_row_length: region.row_length,
        memory_image_height: region.image_height,
        image_subresource: region.subresource(),
        image_offset: region.offset(),
        image_extent: region.extent(),
        ..Default::default()
    };
    let copies = [copy];
    let mut whole = host::CopyImageToMemoryInfoEXT::default()
        .flags(host::HostImageCopyFlagsEXT::from_raw(info.flags.0))
        .src_image(host::Handle::from_raw(info.src_image.0))
        .src_image_layout(host::ImageLayout::from_raw(info.src_image_layout.0))
        .regions(&copies);
    // SAFETY: the decoder found the image of this device. The memory is as large as the region with
    // its strides, and with `MEMCPY`, which allows no strides, also as large as the driver says
    // (`is_enough`).
    let result = unsafe { function(host::Handle::from_raw(device.handle().0), &raw mut whole) };
    Ok(vk::Result(result.as_raw()))
}

/// `vkCopyMemoryToImageMESA`: the driver reads the guest's bytes where they were decoded.
fn memory_to_image(
    session: &mut Session<'_>,
    c: &mut CopyMemoryToImageMESA<'_>,
) -> Result<vk::Result, Fatal> {
    let id = CommandId::CopyMemoryToImageMESA;
    let info = *c.p_copy_memory_to_image_info;
    let regions: &[vk::MemoryToImageCopyMESA] = match info.p_regions.is_null() {
        true => &[],
        // SAFETY: the decoder made an array of `region_count` structs, or a null pointer.
        false => unsafe { std::slice::from_raw_parts(info.p_regions, info.region_count as usize) },
    };
    let image = image(session, id, info.dst_image)?;
    let ids = (id, c.device, info.dst_image);
    let mut copies = Vec::with_capacity(regions.len());
    for from in regions {
        let mut region = Region {
            row_length: from.memory_row_length,
            image_height: from.memory_image_height,
            subresource: from.image_subresource,
            offset: from.image_offset,
            extent: from.image_extent,
        };
        // The decoder made that many bytes there, or a null pointer.
        let room = match from.p_data.is_null() {
            true => 0,
            false => from.data_size,
        };
        if !is_enough(session, ids, &image, info.flags, &mut region, room)? {
            return Ok(vk::Result::ERROR_OUT_OF_HOST_MEMORY);
        }
        copies.push(host::MemoryToImageCopyEXT {
            p_host_pointer: from.p_data,
            memory_row_length: region.row_length,
            memory_image_height: region.image_height,
            image_subresource: region.subresource(),
            image_offset: region.offset(),
            image_extent: region.extent(),
            ..Default::default()
        });
    }
    let device = Arc::clone(session.device(id)?);
    let function = device.host_copy.to_image;
    let function = function.ok_or(Fatal::NotEnabled(name(id)))?;
    let mut whole = host::CopyMemoryToImageInfoEXT::default()
        .flags(host::HostImageCopyFlagsEXT::from_raw(info.flags.0))
        .dst_image(host::Handle::from_raw(info.dst_image.0))
        .dst_image_layout(host::ImageLayout::from_raw(info.dst_image_layout.0))
        .regions(&copies);
    // SAFETY: the decoder found the image of this device. Each region's memory is as large as
    // `is_enough` demands, see above.
    let result = unsafe { function(host::Handle::from_raw(device.handle().0), &raw mut whole) };
    Ok(vk::Result(result.as_raw()))
}
