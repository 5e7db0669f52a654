//! The sizes of formats' texel blocks and planes.

use crate::generated::formats::FORMATS;
use crate::vk;

/// A format's texel blocks and planes.
#[derive(Debug)]
pub struct Format {
    /// The value of `VkFormat`.
    pub format: vk::Format,
    /// Bytes of a texel block. For a format of several planes, the sum of one texel of each.
    pub block_size: u32,
    /// Texels of a block: width, height, depth.
    pub block_extent: [u32; 3],
    /// Bits of the depth component.
    pub depth_bits: u32,
    /// Bits of the stencil component.
    pub stencil_bits: u32,
    /// The planes of a format that has several.
    pub planes: &'static [Plane],
}

/// A plane of a format that has several.
#[derive(Debug)]
pub struct Plane {
    /// The divisors of the image's width and height.
    pub divisors: [u32; 2],
    /// Bytes of a texel.
    pub block_size: u32,
}

/// Texel blocks in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Bytes of a block.
    pub size: u32,
    /// Texels of a block: width, height, depth.
    pub extent: [u32; 3],
}

impl Format {
    /// The properties of a format; `None` for a format that the protocol does not have.
    pub fn of(format: vk::Format) -> Option<&'static Self> {
        let found = FORMATS.binary_search_by_key(&format.0, |known| known.format.0);
        FORMATS.get(found.ok()?)
    }

    /// The blocks of one aspect in a buffer. Depth, stencil and each plane are separate there.
    /// `None` when the format does not have the aspect, or when `aspect` is more than one.
    pub fn in_buffer(&self, aspect: vk::ImageAspectFlags) -> Option<Block> {
        use vk::ImageAspectFlags as Aspects;
        let single = |size| Block {
            size,
            extent: [1; 3],
        };
        let is_colour = self.depth_bits == 0 && self.stencil_bits == 0 && self.planes.is_empty();
        match aspect {
            Aspects::COLOR if is_colour => Some(Block {
                size: self.block_size,
                extent: self.block_extent,
            }),
            Aspects::DEPTH if self.depth_bits > 0 => {
                // 24 bits take 32 bits, of which 8 are unused.
                Some(single(self.depth_bits.div_ceil(16) * 2))
            }
            Aspects::STENCIL if self.stencil_bits > 0 => {
                Some(single(self.stencil_bits.div_ceil(8)))
            }
            Aspects::PLANE_0 => self.planes.first().map(|plane| single(plane.block_size)),
            Aspects::PLANE_1 => self.planes.get(1).map(|plane| single(plane.block_size)),
            Aspects::PLANE_2 => self.planes.get(2).map(|plane| single(plane.block_size)),
            _ => None,
        }
    }
}

impl Format {
    /// The divisors of an image's width and height for one aspect.
    pub fn divisors(&self, aspect: vk::ImageAspectFlags) -> [u32; 2] {
        use vk::ImageAspectFlags as Aspects;
        let index = match aspect {
            Aspects::PLANE_1 => 1,
            Aspects::PLANE_2 => 2,
            _ => 0,
        };
        self.planes
            .get(index)
            .map_or([1; 2], |plane| plane.divisors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vk::ImageAspectFlags as Aspects;

    fn block(format: vk::Format, aspect: Aspects) -> Option<(u32, [u32; 3])> {
        let block = Format::of(format)?.in_buffer(aspect)?;
        Some((block.size, block.extent))
    }

    #[test]
    fn the_table_is_in_order_and_every_block_has_a_size() {
        assert!(FORMATS.len() > 200);
        assert!(FORMATS.is_sorted_by_key(|format| format.format.0));
        for format in FORMATS {
            assert!(format.block_size > 0, "{format:?}");
            assert!(
                format.block_extent.iter().all(|texels| *texels > 0),
                "{format:?}"
            );
            let mut planes = format.planes.iter();
            assert!(
                planes.all(|plane| plane.block_size > 0 && !plane.divisors.contains(&0)),
                "{format:?}"
            );
        }
    }

    #[test]
    fn blocks_are_those_of_the_aspect() {
        assert_eq!(
            block(vk::Format::R8G8B8A8_UNORM, Aspects::COLOR),
            Some((4, [1; 3]))
        );
        assert_eq!(
            block(vk::Format::BC1_RGB_UNORM_BLOCK, Aspects::COLOR),
            Some((8, [4, 4, 1]))
        );
        assert_eq!(
            block(vk::Format::ASTC_5X4_UNORM_BLOCK, Aspects::COLOR),
            Some((16, [5, 4, 1]))
        );
        for (format, depth) in [
            (vk::Format::D16_UNORM_S8_UINT, 2),
            (vk::Format::D24_UNORM_S8_UINT, 4),
            (vk::Format::D32_SFLOAT_S8_UINT, 4),
        ] {
            assert_eq!(block(format, Aspects::DEPTH), Some((depth, [1; 3])));
            assert_eq!(block(format, Aspects::STENCIL), Some((1, [1; 3])));
            assert_eq!(block(format, Aspects::COLOR), None);
        }
        let planes = vk::Format::G8_B8R8_2PLANE_420_UNORM;
        assert_eq!(block(planes, Aspects::PLANE_0), Some((1, [1; 3])));
        assert_eq!(block(planes, Aspects::PLANE_1), Some((2, [1; 3])));
        assert_eq!(block(planes, Aspects::PLANE_2), None);
        assert!(Format::of(vk::Format(-1)).is_none());
    }
}
