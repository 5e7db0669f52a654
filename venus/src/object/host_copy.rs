//! What copies between images and host memory need of a device and its images
//! (`VK_EXT_host_image_copy`).
//!
//! The guest says how many bytes it sends or wants. The driver computes its own number from extent,
//! strides and format. So the number is computed here, too, from what is kept of each image
//! ([`super::facts`]).

use std::ffi::CStr;

use ash::vk as host;
use hesper_venus_protocol::call::Function;
use hesper_venus_protocol::format::Format;
use hesper_venus_protocol::runtime::find;
use hesper_venus_protocol::vk;

/// The driver's functions, if it has them and they are enabled.
pub(crate) struct HostCopy {
    /// `vkCopyImageToMemory`
    pub(crate) to_memory: Option<host::PFN_vkCopyImageToMemoryEXT>,
    /// `vkCopyMemoryToImage`
    pub(crate) to_image: Option<host::PFN_vkCopyMemoryToImageEXT>,
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

/// Whether an image is made for copies from and to host memory.
fn is_for_host(info: &vk::ImageCreateInfo) -> bool {
    const HOST_TRANSFER: vk::ImageUsageFlags = vk::ImageUsageFlags::HOST_TRANSFER;
    // SAFETY: the chain was decoded, and nobody else uses it.
    let stencil = unsafe { find::<vk::ImageStencilUsageCreateInfo>(info.p_next) };
    let is_for_stencil = stencil.is_some_and(|s| s.stencil_usage.contains(HOST_TRANSFER));
    info.usage.contains(HOST_TRANSFER) || is_for_stencil
}

/// `VK_REMAINING_ARRAY_LAYERS`
const REMAINING_LAYERS: u32 = !0;

/// What copies need of an image.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CopiedImage {
    format: &'static Format,
    extent: [u32; 3],
    levels: u32,
    layers: u32,
    /// Whether it may be copied from and to host memory.
    pub(crate) is_for_host: bool,
}

impl CopiedImage {
    /// What copies need of an image. `None` for a format that the protocol does not have.
    pub(crate) fn of(info: &vk::ImageCreateInfo) -> Option<Self> {
        Some(Self {
            format: Format::of(info.format)?,
            extent: [info.extent.width, info.extent.height, info.extent.depth],
            levels: info.mip_levels,
            layers: info.array_layers,
            is_for_host: is_for_host(info),
        })
    }

    /// Whether it has `count` mip levels from `first` on, or any at all for `REMAINING`.
    pub(crate) fn has_levels(&self, first: u32, count: u32) -> bool {
        has(self.levels, first, count)
    }

    /// The same for array layers. Slices of a volume may be layers of a view.
    pub(crate) fn has_layers(&self, first: u32, count: u32) -> bool {
        let [_, _, depth] = self.extent;
        has(self.layers.max(depth), first, count)
    }

    /// Texels of a block.
    pub(crate) fn block(&self) -> [u32; 3] {
        self.format.block_extent
    }

    /// Whether a part lies inside: mip level, layers and texels. `end` is the first texel behind
    /// it. The slices of a volume may be copied from or to layers, as many as `end` has.
    pub(crate) fn holds(
        &self,
        part: &vk::ImageSubresourceLayers,
        offset: &vk::Offset3D,
        end: [i64; 3],
    ) -> bool {
        if !self.has_levels(part.mip_level, 1)
            || !has(self.layers, part.base_array_layer, part.layer_count)
        {
            return false;
        }
        let [width, height] = self.format.divisors(part.aspect_mask);
        let [_, _, depth] = self.extent;
        let start = [offset.x, offset.y, offset.z].map(i64::from);
        let axes = start.into_iter().zip(end).zip(self.extent);
        let mut axes = axes.zip(self.block()).zip([width, height, 1]).enumerate();
        axes.all(|(axis, ((((start, end), size), block), divisor))| {
            let level = size.unbounded_shr(part.mip_level).max(1).div_ceil(divisor);
            // The last block may reach over the edge.
            let mut level = u64::from(level).next_multiple_of(u64::from(block.max(1)));
            if axis == 2 && depth == 1 {
                level = u64::from(self.layers.saturating_sub(part.base_array_layer)).max(1);
            }
            let is_inside = |at: i64| u64::try_from(at).is_ok_and(|at| at <= level);
            is_inside(start) && is_inside(end)
        })
    }
}

/// Whether there are `count` numbers from `first` on below `all`. `!0` stands for the rest.
fn has(all: u32, first: u32, count: u32) -> bool {
    match all.checked_sub(first) {
        Some(left) if left > 0 => count == REMAINING_LAYERS || count <= left,
        _ => false,
    }
}

/// A region of an image, and its layout in memory.
#[derive(Clone, Copy)]
pub(crate) struct Region {
    /// Texels from row to row. 0 stands for the width.
    pub(crate) row_length: u32,
    /// Rows from slice to slice. 0 stands for the height.
    pub(crate) image_height: u32,
    /// Aspect, mip level and array layers.
    pub(crate) subresource: vk::ImageSubresourceLayers,
    /// Where it begins, in texels.
    pub(crate) offset: vk::Offset3D,
    /// How large it is, in texels.
    pub(crate) extent: vk::Extent3D,
}

impl Region {
    /// Replaces `VK_REMAINING_ARRAY_LAYERS` by their number, and checks that the region is inside
    /// `image`. Returns the bytes of memory that the driver reads or writes, or what is wrong.
    pub(crate) fn resolve(&mut self, image: &CopiedImage) -> Result<u64, &'static str> {
        let part = &mut self.subresource;
        let left = image.layers.checked_sub(part.base_array_layer);
        let left = left.ok_or("an array layer that the image does not have")?;
        if part.layer_count == REMAINING_LAYERS {
            part.layer_count = left;
        }
        if part.layer_count > left || part.mip_level >= image.levels {
            return Err("an array layer or mip level that the image does not have");
        }
        let block = image.format.in_buffer(part.aspect_mask);
        let block = block.ok_or("an aspect that the image does not have, or several")?;
        let [width, height] = image.format.divisors(part.aspect_mask);
        let [x, y, z] = block.extent;
        let Region { offset, extent, .. } = *self;
        let axes = [
            (offset.x, extent.width, width, x),
            (offset.y, extent.height, height, y),
            (offset.z, extent.depth, 1, z),
        ];
        for ((offset, texels, divisor, block), size) in axes.into_iter().zip(image.extent) {
            let level = size.unbounded_shr(part.mip_level).max(1).div_ceil(divisor);
            // The last block may reach over the edge.
            let level = u64::from(level).next_multiple_of(block.into());
            let end = u64::try_from(offset).map(|offset| offset + u64::from(texels));
            if end.is_err() || end.is_ok_and(|end| end > level) {
                return Err("a region that is not inside the image");
            }
        }
        // A number that overflows is more than there is.
        Ok(self.bytes(block.size, block.extent).unwrap_or(u64::MAX))
    }

    /// Bytes from the first to the last: rows, slices and layers at their distances. The last one
    /// of each is as long as its texels.
    fn bytes(&self, block_size: u32, block: [u32; 3]) -> Option<u64> {
        let [wide, high, _] = block;
        let vk::Extent3D {
            width,
            height,
            depth,
        } = self.extent;
        let layers = self.subresource.layer_count;
        if [width, height, depth, layers].contains(&0) {
            return Some(0);
        }
        let size = |texels: u32, block: u32| u64::from(texels.div_ceil(block));
        let row = size(width.max(self.row_length), wide) * u64::from(block_size);
        let slice = row.checked_mul(size(height.max(self.image_height), high))?;
        let layer = slice.checked_mul(depth.into())?;
        let last_row = size(width, wide) * u64::from(block_size);
        let before_last = [(layers, layer), (depth, slice)]
            .into_iter()
            .try_fold(0_u64, |sum, (count, distance)| {
                sum.checked_add(distance.checked_mul(u64::from(count - 1))?)
            })?;
        let rows = row.checked_mul(size(height, high) - 1)?;
        before_last.checked_add(rows)?.checked_add(last_row)
    }

    /// The subresource for the driver.
    pub(crate) fn subresource(&self) -> host::ImageSubresourceLayers {
        host::ImageSubresourceLayers {
            aspect_mask: host::ImageAspectFlags::from_raw(self.subresource.aspect_mask.0),
            mip_level: self.subresource.mip_level,
            base_array_layer: self.subresource.base_array_layer,
            layer_count: self.subresource.layer_count,
        }
    }

    /// The offset for the driver.
    pub(crate) fn offset(&self) -> host::Offset3D {
        host::Offset3D {
            x: self.offset.x,
            y: self.offset.y,
            z: self.offset.z,
        }
    }

    /// The extent for the driver.
    pub(crate) fn extent(&self) -> host::Extent3D {
        host::Extent3D {
            width: self.extent.width,
            height: self.extent.height,
            depth: self.extent.depth,
        }
    }
}

/// Whether guests send all bytes of a copy of this format. Mesa 26.1 counts one byte for a texel of
/// any plane.
pub(crate) fn is_carried(format: vk::Format) -> bool {
    let planes = Format::of(format).map_or(&[][..], |format| format.planes);
    planes.iter().all(|plane| plane.block_size == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(format: vk::Format, extent: [u32; 3], levels: u32, layers: u32) -> CopiedImage {
        let format = Format::of(format).expect("a known format");
        CopiedImage {
            format,
            extent,
            levels,
            layers,
            is_for_host: true,
        }
    }

    fn region(strides: [u32; 2], extent: [u32; 3], layer_count: u32) -> Region {
        let [row_length, image_height] = strides;
        let [width, height, depth] = extent;
        Region {
            row_length,
            image_height,
            subresource: vk::ImageSubresourceLayers {
                aspect_mask: vk::ImageAspectFlags::COLOR,
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
    fn bytes_end_with_the_last_texel() {
        let rgba = image(vk::Format::R8G8B8A8_UNORM, [64, 64, 1], 1, 4);
        let bytes = |strides, extent, layers| region(strides, extent, layers).resolve(&rgba);
        assert_eq!(bytes([0, 0], [10, 20, 1], 2), Ok(10 * 20 * 2 * 4));
        assert_eq!(bytes([16, 0], [10, 20, 1], 1), Ok((16 * 19 + 10) * 4));
        assert_eq!(
            bytes([16, 32], [10, 20, 1], 3),
            Ok((16 * 32 * 2 + 16 * 19 + 10) * 4)
        );
        assert_eq!(bytes([0, 0], [0, 20, 1], 1), Ok(0));
        let huge = region([u32::MAX, u32::MAX], [10, 20, 1], 4).resolve(&rgba);
        assert_eq!(huge, Ok(u64::MAX));
        let volume = image(vk::Format::R16_SFLOAT, [8, 8, 8], 1, 1);
        let slices = region([10, 12], [8, 8, 3], 1).resolve(&volume);
        assert_eq!(slices, Ok((10 * 12 * 2 + 10 * 7 + 8) * 2));
        let largest = image(vk::Format::R64G64B64A64_SFLOAT, [u32::MAX; 3], 1, u32::MAX);
        let all = region([0, 0], [u32::MAX; 3], u32::MAX).resolve(&largest);
        assert_eq!(all, Ok(u64::MAX));
    }

    #[test]
    fn remaining_layers_are_those_that_the_image_has() {
        let layered = image(vk::Format::R8_UNORM, [4, 4, 1], 1, 6);
        let mut rest = region([0, 0], [4, 4, 1], REMAINING_LAYERS);
        rest.subresource.base_array_layer = 2;
        assert_eq!(rest.resolve(&layered), Ok(4 * 4 * 4));
        assert_eq!(rest.subresource.layer_count, 4);
        rest.subresource.base_array_layer = 7;
        assert!(rest.resolve(&layered).is_err());
        assert!(region([0, 0], [4, 4, 1], 7).resolve(&layered).is_err());
    }

    #[test]
    fn compressed_blocks_count_as_a_whole() {
        let bc1 = image(vk::Format::BC1_RGBA_UNORM_BLOCK, [10, 10, 1], 4, 1);
        assert_eq!(region([0, 0], [10, 10, 1], 1).resolve(&bc1), Ok(3 * 3 * 8));
        // A row of six blocks.
        let wide = region([21, 0], [10, 10, 1], 1).resolve(&bc1);
        assert_eq!(wide, Ok((6 * 2 + 3) * 8));
        let mut small = region([0, 0], [1, 1, 1], 1);
        small.subresource.mip_level = 3;
        assert_eq!(small.resolve(&bc1), Ok(8));
        let mut rounded = region([0, 0], [4, 4, 1], 1);
        rounded.subresource.mip_level = 3;
        assert_eq!(rounded.resolve(&bc1), Ok(8));
    }

    #[test]
    fn depth_stencil_and_planes_are_copied_one_by_one() {
        use vk::ImageAspectFlags as Aspects;
        let of = |image: &CopiedImage, aspect_mask, extent| {
            let mut one = region([0, 0], extent, 1);
            one.subresource.aspect_mask = aspect_mask;
            one.resolve(image)
        };
        let both = image(vk::Format::D32_SFLOAT_S8_UINT, [8, 8, 1], 1, 1);
        assert_eq!(of(&both, Aspects::DEPTH, [8, 8, 1]), Ok(8 * 8 * 4));
        assert_eq!(of(&both, Aspects::STENCIL, [8, 8, 1]), Ok(8 * 8));
        assert!(of(&both, Aspects::DEPTH | Aspects::STENCIL, [8, 8, 1]).is_err());
        assert!(of(&both, Aspects::COLOR, [8, 8, 1]).is_err());
        let nv12 = image(vk::Format::G8_B8R8_2PLANE_420_UNORM, [8, 8, 1], 1, 1);
        assert_eq!(of(&nv12, Aspects::PLANE_0, [8, 8, 1]), Ok(8 * 8));
        assert_eq!(of(&nv12, Aspects::PLANE_1, [4, 4, 1]), Ok(4 * 4 * 2));
        assert!(of(&nv12, Aspects::PLANE_1, [8, 8, 1]).is_err());
        assert!(of(&nv12, Aspects::PLANE_2, [4, 4, 1]).is_err());
    }

    #[test]
    fn pieces_out_of_the_image_are_refused() {
        let rgba = image(vk::Format::R8G8B8A8_UNORM, [16, 8, 1], 3, 1);
        let at = |x, y, z, level, extent| {
            let mut one = region([0, 0], extent, 1);
            one.offset = vk::Offset3D { x, y, z };
            one.subresource.mip_level = level;
            one.resolve(&rgba).is_ok()
        };
        assert!(at(8, 4, 0, 0, [8, 4, 1]));
        assert!(at(4, 0, 0, 2, [0, 2, 1]));
        assert!(!at(9, 4, 0, 0, [8, 4, 1]));
        assert!(!at(-1, 0, 0, 0, [8, 4, 1]));
        assert!(!at(0, 0, 1, 0, [8, 4, 1]));
        assert!(!at(0, 0, 0, 0, [8, 4, 2]));
        assert!(!at(0, 0, 0, 1, [16, 8, 1]));
        assert!(!at(0, 0, 0, 3, [1, 1, 1]));
        assert!(!at(i32::MAX, 0, 0, 0, [u32::MAX, 1, 1]));
    }
}
