//! Copies between images and host memory, as lavapipe makes them: flags are ignored, and rows lie
//! `memoryRowLength` texels apart.

use ash::vk::{self, Handle as _, ObjectType};

use crate::device::DEVICE;
use crate::memory::{array, pages};
use crate::objects::check;
use crate::{Function, function};

/// Bytes of a texel of every image.
const TEXEL: usize = 4;

pub(crate) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "vkCopyImageToMemory" | "vkCopyImageToMemoryEXT" => {
            function!(copy_out, (u64, *const vk::CopyImageToMemoryInfoEXT<'_>) -> vk::Result)
        }
        "vkGetImageSubresourceLayout2" => function!(
            layout,
            (
                u64,
                u64,
                *const vk::ImageSubresource2KHR<'_>,
                *mut vk::SubresourceLayout2KHR<'_>
            )
        ),
        _ => return None,
    })
}

unsafe extern "system" fn copy_out(
    device: u64,
    info: *const vk::CopyImageToMemoryInfoEXT<'_>,
) -> vk::Result {
    check(DEVICE, device);
    // SAFETY: the caller's promise.
    unsafe {
        let info = &*info;
        check(ObjectType::IMAGE.as_raw(), info.src_image.as_raw());
        for copy in array(info.p_regions, info.region_count) {
            let extent = copy.image_extent;
            let texels = copy.memory_row_length.max(extent.width) as usize;
            for row in 0..extent.height as usize {
                let start = copy.p_host_pointer.cast::<u8>();
                let start = start.wrapping_add(row * texels * TEXEL);
                start.write_bytes(0x41, extent.width as usize * TEXEL);
            }
        }
    }
    vk::Result::SUCCESS
}

/// The memory size of a whole image, for copies with `VK_HOST_IMAGE_COPY_MEMCPY`.
unsafe extern "system" fn layout(
    device: u64,
    image: u64,
    _: *const vk::ImageSubresource2KHR<'_>,
    out: *mut vk::SubresourceLayout2KHR<'_>,
) {
    check(DEVICE, device);
    check(ObjectType::IMAGE.as_raw(), image);
    let size = pages().images.get(&image).copied().unwrap_or(0);
    // SAFETY: the caller's promise; structs are known by their types.
    unsafe {
        crate::memory::walk((*out).p_next, |link| {
            if (*link).s_type == vk::StructureType::SUBRESOURCE_HOST_MEMCPY_SIZE_EXT {
                let link = link
                    .cast_mut()
                    .cast::<vk::SubresourceHostMemcpySizeEXT<'_>>();
                (*link).size = size;
            }
        });
    }
}
