//! Copies between images and host memory (`VK_EXT_host_image_copy`), with the protocol's own commands.
//!
//! The guest says how many bytes it sends or wants, and the driver derives its own number from extent and format. So
//! that the second can never exceed the first, the driver works on memory that is large enough for any format; the
//! system backs only the part that is touched.

use std::ffi::CStr;

use ash::vk as host;
use hesper_venus_protocol::call::Function;
use hesper_venus_protocol::command::{
    CopyImageToMemoryMESA, CopyMemoryToImageMESA, GetImageSubresourceLayout2,
};
use hesper_venus_protocol::runtime::Object;
use hesper_venus_protocol::{CommandId, vk};

use crate::dispatch::{Session, call};
use crate::fatal::Fatal;

/// Bytes of the largest texel block of any format.
const LARGEST_BLOCK: u64 = 32;
/// Bytes that one copy may address.
const LIMIT: u64 = 8 << 30;

/// The driver's functions, where it has them and they are enabled.
#[derive(Clone, Copy)]
pub(crate) struct HostCopy {
    to_memory: Option<host::PFN_vkCopyImageToMemoryEXT>,
    to_image: Option<host::PFN_vkCopyMemoryToImageEXT>,
}

impl HostCopy {
    /// Asks for the functions by name.
    pub(crate) fn load(get: &mut dyn FnMut(&CStr) -> Option<Function>) -> Self {
        let mut first = |names: [&CStr; 2]| names.into_iter().find_map(&mut *get);
        let to_memory = first([c"vkCopyImageToMemory", c"vkCopyImageToMemoryEXT"]);
        let to_image = first([c"vkCopyMemoryToImage", c"vkCopyMemoryToImageEXT"]);
        Self {
            // SAFETY: the driver answers by name, and this is the type of that function.
            to_memory: to_memory.map(|f| unsafe {
                std::mem::transmute::<Function, host::PFN_vkCopyImageToMemoryEXT>(f)
            }),
            // SAFETY: as above.
            to_image: to_image.map(|f| unsafe {
                std::mem::transmute::<Function, host::PFN_vkCopyMemoryToImageEXT>(f)
            }),
        }
    }
}

/// A piece of an image and how it lies in memory.
struct Region {
    row_length: u32,
    image_height: u32,
    subresource: vk::ImageSubresourceLayers,
    offset: vk::Offset3D,
    extent: vk::Extent3D,
}

impl Region {
    /// Bytes that no driver exceeds when it copies this piece; `None` beyond the limit.
    fn bytes(&self) -> Option<u64> {
        let rows = u64::from(self.image_height.max(self.extent.height));
        // Compressed rows are counted in texels too, so this is more than they take.
        [
            u64::from(self.row_length.max(self.extent.width)),
            rows,
            u64::from(self.extent.depth),
            u64::from(self.subresource.layer_count),
        ]
        .into_iter()
        .try_fold(LARGEST_BLOCK, |bytes, factor| {
            bytes.checked_mul(factor.max(1))
        })
        .filter(|bytes| *bytes <= LIMIT)
    }

    fn subresource(&self) -> host::ImageSubresourceLayers {
        host::ImageSubresourceLayers {
            aspect_mask: host::ImageAspectFlags::from_raw(self.subresource.aspect_mask.0),
            mip_level: self.subresource.mip_level,
            base_array_layer: self.subresource.base_array_layer,
            layer_count: self.subresource.layer_count,
        }
    }

    fn offset(&self) -> host::Offset3D {
        host::Offset3D {
            x: self.offset.x,
            y: self.offset.y,
            z: self.offset.z,
        }
    }

    fn extent(&self) -> host::Extent3D {
        host::Extent3D {
            width: self.extent.width,
            height: self.extent.height,
            depth: self.extent.depth,
        }
    }
}

/// Memory for a copy: at least what the driver may touch, and what the guest sends or wants.
///
/// With `MEMCPY` the driver copies whole subresources in an order of its own and tells how large they are.
fn scratch(
    session: &mut Session<'_>,
    device: Object<vk::Device>,
    image: vk::Image,
    flags: vk::HostImageCopyFlags,
    region: &Region,
    data_size: usize,
) -> Result<Option<Vec<u8>>, Fatal> {
    let mut bytes = region.bytes();
    if flags.contains(vk::HostImageCopyFlags::MEMCPY) {
        bytes = bytes.max(memcpy_size(session, device, image, &region.subresource)?);
    }
    let bytes = bytes
        .and_then(|bytes| usize::try_from(bytes).ok())
        .map(|bytes| bytes.max(data_size));
    Ok(bytes.map(|bytes| vec![0; bytes]))
}

fn memcpy_size(
    session: &mut Session<'_>,
    device: Object<vk::Device>,
    image: vk::Image,
    layers: &vk::ImageSubresourceLayers,
) -> Result<Option<u64>, Fatal> {
    let mut size = vk::SubresourceHostMemcpySize::default();
    let mut layout = vk::SubresourceLayout2 {
        p_next: (&raw mut size).cast(),
        ..Default::default()
    };
    let mut subresource = vk::ImageSubresource2::default();
    subresource.image_subresource.aspect_mask = layers.aspect_mask;
    subresource.image_subresource.mip_level = layers.mip_level;
    subresource.image_subresource.array_layer = layers.base_array_layer;
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
    let total = size.size.checked_mul(layers.layer_count.max(1).into());
    Ok(total.filter(|total| *total <= LIMIT))
}

/// `vkCopyImageToMemoryMESA`
pub(crate) fn image_to_memory(
    session: &mut Session<'_>,
    c: &mut CopyImageToMemoryMESA<'_>,
) -> Result<vk::Result, Fatal> {
    let name = "vkCopyImageToMemoryMESA";
    let info = *c.p_copy_image_to_memory_info;
    let region = Region {
        row_length: info.memory_row_length,
        image_height: info.memory_image_height,
        subresource: info.image_subresource,
        offset: info.image_offset,
        extent: info.image_extent,
    };
    let memory = scratch(
        session,
        c.device,
        info.src_image,
        info.flags,
        &region,
        c.p_data.len(),
    )?;
    let Some(mut memory) = memory else {
        return Ok(vk::Result::ERROR_OUT_OF_HOST_MEMORY);
    };
    let device = session.device(CommandId::CopyImageToMemoryMESA)?;
    let function = device.host_copy.to_memory.ok_or(Fatal::NotEnabled(name))?;
    let copy = host::ImageToMemoryCopyEXT {
        p_host_pointer: memory.as_mut_ptr().cast(),
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
    // SAFETY: the decoder found the image of this device; the memory is as large as the driver can need.
    let result = unsafe { function(host::Handle::from_raw(device.handle().0), &raw mut whole) };
    for (to, from) in c.p_data.iter_mut().zip(&memory) {
        *to = *from;
    }
    Ok(vk::Result(result.as_raw()))
}

/// `vkCopyMemoryToImageMESA`
pub(crate) fn memory_to_image(
    session: &mut Session<'_>,
    c: &mut CopyMemoryToImageMESA<'_>,
) -> Result<vk::Result, Fatal> {
    let name = "vkCopyMemoryToImageMESA";
    let info = *c.p_copy_memory_to_image_info;
    let regions: &[vk::MemoryToImageCopyMESA] = match info.p_regions.is_null() {
        true => &[],
        // SAFETY: the decoder made an array of `region_count` structs, or a null pointer.
        false => unsafe { std::slice::from_raw_parts(info.p_regions, info.region_count as usize) },
    };
    for from in regions {
        let region = Region {
            row_length: from.memory_row_length,
            image_height: from.memory_image_height,
            subresource: from.image_subresource,
            offset: from.image_offset,
            extent: from.image_extent,
        };
        let memory = scratch(
            session,
            c.device,
            info.dst_image,
            info.flags,
            &region,
            from.data_size,
        )?;
        let Some(mut memory) = memory else {
            return Ok(vk::Result::ERROR_OUT_OF_HOST_MEMORY);
        };
        if !from.p_data.is_null() {
            // SAFETY: the decoder made `data_size` bytes there, and the scratch memory has at least as many.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    from.p_data.cast(),
                    memory.as_mut_ptr(),
                    from.data_size,
                )
            };
        }
        let device = session.device(CommandId::CopyMemoryToImageMESA)?;
        let function = device.host_copy.to_image.ok_or(Fatal::NotEnabled(name))?;
        let copies = [host::MemoryToImageCopyEXT {
            p_host_pointer: memory.as_ptr().cast(),
            memory_row_length: region.row_length,
            memory_image_height: region.image_height,
            image_subresource: region.subresource(),
            image_offset: region.offset(),
            image_extent: region.extent(),
            ..Default::default()
        }];
        let mut whole = host::CopyMemoryToImageInfoEXT::default()
            .flags(host::HostImageCopyFlagsEXT::from_raw(info.flags.0))
            .dst_image(host::Handle::from_raw(info.dst_image.0))
            .dst_image_layout(host::ImageLayout::from_raw(info.dst_image_layout.0))
            .regions(&copies);
        // SAFETY: the decoder found the image of this device; the memory is as large as the driver can need.
        let result = unsafe { function(host::Handle::from_raw(device.handle().0), &raw mut whole) };
        if result != host::Result::SUCCESS {
            return Ok(vk::Result(result.as_raw()));
        }
    }
    Ok(vk::Result::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(row_length: u32, image_height: u32, extent: [u32; 3], layer_count: u32) -> Region {
        let [width, height, depth] = extent;
        Region {
            row_length,
            image_height,
            subresource: vk::ImageSubresourceLayers {
                layer_count,
                ..Default::default()
            },
            offset: vk::Offset3D::default(),
            extent: vk::Extent3D {
                width,
                height,
                depth,
            },
        }
    }

    #[test]
    fn memory_is_enough_for_any_format_and_bounded() {
        assert_eq!(region(0, 0, [10, 20, 1], 2).bytes(), Some(10 * 20 * 2 * 32));
        assert_eq!(
            region(16, 32, [10, 20, 3], 1).bytes(),
            Some(16 * 32 * 3 * 32)
        );
        assert_eq!(region(0, 0, [u32::MAX; 3], u32::MAX).bytes(), None);
    }
}
