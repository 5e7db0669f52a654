//! The layout in memory of shared pictures that the driver cannot lay out so.
//!
//! A picture that a guest shares has rows of pixels, with the pitch that guest and display server
//! agree on ([`super::modifier`]). Some drivers draw into no such image (NVIDIA's), and none has
//! every pitch. So the image is made with optimal tiling in memory of its own, and has a *mirror*:
//! a buffer in the shared memory. The GPU copies between the two where the guest hands the picture
//! over to another user or takes it back: at the barriers to and from foreign queue families
//! ([`super::foreign`]). `object::mirrors` keeps the mirrors and records the copies.

use hesper_venus_protocol::format::Format;
use hesper_venus_protocol::runtime::{Chained, unlink};
use hesper_venus_protocol::vk;

/// What an image may be besides plain and still have a mirror.
const FLAGS: u32 = vk::ImageCreateFlags::MUTABLE_FORMAT.0
    | vk::ImageCreateFlags::EXTENDED_USAGE.0
    | vk::ImageCreateFlags::ALIAS.0;

/// The pitch of an image whose guest leaves it to the renderer is a multiple of this many bytes, as
/// display hardware wants it.
const PITCH: u64 = 256;

/// No picture is larger, in bytes. Drivers round sizes up, and must not overflow.
const MOST: u64 = 1 << 40;

/// What copies between image and mirror need.
const TRANSFERS: vk::ImageUsageFlags =
    vk::ImageUsageFlags(vk::ImageUsageFlags::TRANSFER_SRC.0 | vk::ImageUsageFlags::TRANSFER_DST.0);

/// One sample per texel.
const SINGLE: vk::SampleCountFlags =
    vk::SampleCountFlags(ash::vk::SampleCountFlags::TYPE_1.as_raw());

/// How a picture lies in its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    planes: Vec<Plane>,
    /// The first byte behind it.
    pub(crate) end: u64,
}

/// A plane of a picture. Nearly all have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Plane {
    aspect: vk::ImageAspectFlags,
    offset: u64,
    /// Bytes from row to row.
    pitch: u64,
    /// Bytes of a texel.
    texel: u64,
    width: u32,
    height: u32,
}

/// The format of an image that can have a mirror: whole texels, one to three planes of colours.
pub(crate) fn format(format: vk::Format) -> Option<&'static Format> {
    let known = Format::of(format)?;
    let is_colour = known.depth_bits == 0 && known.stencil_bits == 0;
    (is_colour && known.block_extent == [1; 3]).then_some(known)
}

/// How many planes of memory an image of this format has.
pub(crate) fn planes(wanted: vk::Format) -> u32 {
    let known = format(wanted);
    known.map_or(1, |known| aspects(known).len() as u32)
}

/// The aspects of a format's planes.
fn aspects(known: &Format) -> &'static [vk::ImageAspectFlags] {
    use vk::ImageAspectFlags as Aspects;
    const PLANES: &[Aspects] = &[Aspects::PLANE_0, Aspects::PLANE_1, Aspects::PLANE_2];
    match known.planes.len() {
        0 => &[Aspects::COLOR],
        count => PLANES.get(..count).unwrap_or(PLANES),
    }
}

impl Layout {
    /// The layout of a new image: as `demanded`, or the renderer's own if that is empty. `None` if
    /// such an image can have no mirror.
    pub(crate) fn new(
        info: &vk::ImageCreateInfo,
        demanded: &[vk::SubresourceLayout],
    ) -> Option<Self> {
        let is_plain = info.image_type == vk::ImageType::TYPE_2D
            && info.extent.depth == 1
            && (info.mip_levels, info.array_layers) == (1, 1)
            && info.samples == SINGLE
            && info.flags.0 & !FLAGS == 0;
        let known = format(info.format).filter(|_| is_plain)?;
        let aspects = aspects(known);
        if !demanded.is_empty() && demanded.len() != aspects.len() {
            return None;
        }
        let mut layout = Self {
            planes: Vec::new(),
            end: 0,
        };
        for (index, aspect) in aspects.iter().enumerate() {
            let texel = u64::from(known.in_buffer(*aspect)?.size);
            let [across, down] = known.divisors(*aspect).map(|divisor| divisor.max(1));
            let (width, height) = (
                info.extent.width.div_ceil(across),
                info.extent.height.div_ceil(down),
            );
            let row = u64::from(width) * texel;
            let (offset, pitch) = match demanded.get(index) {
                Some(demanded) => (demanded.offset, demanded.row_pitch),
                // A pitch of whole texels.
                None => (layout.end, row.checked_next_multiple_of(PITCH * texel)?),
            };
            // What vkCmdCopyImageToBuffer demands.
            let is_possible = pitch >= row
                && pitch.is_multiple_of(texel)
                && offset.is_multiple_of(texel)
                && offset.is_multiple_of(4)
                && u32::try_from(pitch / texel).is_ok()
                && width > 0
                && height > 0;
            let end = pitch.checked_mul(height.into())?.checked_add(offset)?;
            if !is_possible || end > MOST {
                return None;
            }
            layout.end = layout.end.max(end);
            layout.planes.push(Plane {
                aspect: *aspect,
                offset,
                pitch,
                texel,
                width,
                height,
            });
        }
        Some(layout)
    }

    /// The layout of a plane, by its aspect or by its memory plane; `None` for another aspect.
    pub(crate) fn of(&self, aspect: vk::ImageAspectFlags) -> Option<vk::SubresourceLayout> {
        use vk::ImageAspectFlags as Aspects;
        const MEMORY: [Aspects; 3] = [
            Aspects::MEMORY_PLANE_0_EXT,
            Aspects::MEMORY_PLANE_1_EXT,
            Aspects::MEMORY_PLANE_2_EXT,
        ];
        let mut planes = self.planes.iter().zip(MEMORY);
        let (plane, _) =
            planes.find(|(plane, memory)| plane.aspect == aspect || *memory == aspect)?;
        let size = plane.pitch * u64::from(plane.height);
        Some(vk::SubresourceLayout {
            offset: plane.offset,
            size,
            row_pitch: plane.pitch,
            array_pitch: size,
            depth_pitch: size,
        })
    }

    /// The copies between image and mirror.
    pub(crate) fn copies(&self) -> Vec<vk::BufferImageCopy> {
        let copy = |plane: &Plane| vk::BufferImageCopy {
            buffer_offset: plane.offset,
            // Was tried when it was made.
            buffer_row_length: u32::try_from(plane.pitch / plane.texel).unwrap_or(plane.width),
            image_subresource: vk::ImageSubresourceLayers {
                aspect_mask: plane.aspect,
                layer_count: 1,
                ..Default::default()
            },
            image_extent: vk::Extent3D {
                width: plane.width,
                height: plane.height,
                depth: 1,
            },
            ..Default::default()
        };
        self.planes.iter().map(copy).collect()
    }
}

/// Makes an image that has a mirror one of optimal tiling, of which nothing is shared.
pub(crate) fn rewrite_image(info: &mut vk::ImageCreateInfo) {
    info.tiling = vk::ImageTiling::OPTIMAL;
    info.initial_layout = vk::ImageLayout::UNDEFINED;
    info.usage = info.usage | TRANSFERS;
    // SAFETY: the chain was decoded, and nobody else uses it.
    unsafe { unlink(info, vk::ExternalMemoryImageCreateInfo::STYPE) };
}

/// Makes a question about an image that has a mirror one about its image of optimal tiling. False
/// if there is none of these flags.
pub(crate) fn rewrite_question(info: &mut vk::PhysicalDeviceImageFormatInfo2) -> bool {
    info.tiling = vk::ImageTiling::OPTIMAL;
    info.usage = info.usage | TRANSFERS;
    // SAFETY: as above.
    unsafe { unlink(info, vk::PhysicalDeviceExternalImageFormatInfo::STYPE) };
    info.ty == vk::ImageType::TYPE_2D && info.flags.0 & !FLAGS == 0
}

/// Limits what the driver has answered to such a question.
pub(crate) fn limit(properties: &mut vk::ImageFormatProperties) {
    properties.max_extent.depth = properties.max_extent.depth.min(1);
    properties.max_mip_levels = properties.max_mip_levels.min(1);
    properties.max_array_layers = properties.max_array_layers.min(1);
    properties.sample_counts = properties.sample_counts & SINGLE;
}

/// What can be done with an image of this format that has a mirror, by the driver's features for
/// optimal tiling. `None` if it cannot have one.
pub(crate) fn features(
    wanted: vk::Format,
    optimal: vk::FormatFeatureFlags2,
) -> Option<vk::FormatFeatureFlags2> {
    use vk::FormatFeatureFlags2 as Features;
    let needed = Features::TRANSFER_SRC | Features::TRANSFER_DST;
    let hidden = Features::DISJOINT | Features::HOST_IMAGE_TRANSFER;
    format(wanted).filter(|_| optimal.contains(needed))?;
    Some(optimal & !hidden)
}

#[cfg(test)]
mod tests {
    use ash::vk as host;

    use super::*;

    fn image(format: host::Format, width: u32, height: u32) -> vk::ImageCreateInfo {
        vk::ImageCreateInfo {
            image_type: vk::ImageType::TYPE_2D,
            format: vk::Format(format.as_raw()),
            extent: vk::Extent3D {
                width,
                height,
                depth: 1,
            },
            mip_levels: 1,
            array_layers: 1,
            samples: SINGLE,
            ..Default::default()
        }
    }

    fn demanded(offset: u64, row_pitch: u64) -> vk::SubresourceLayout {
        vk::SubresourceLayout {
            offset,
            row_pitch,
            ..Default::default()
        }
    }

    const BGRA: host::Format = host::Format::B8G8R8A8_UNORM;

    #[test]
    fn a_picture_has_any_pitch_and_offset_of_whole_texels() {
        let info = image(BGRA, 1366, 768);
        let layout = Layout::new(&info, &[demanded(983_040, 5464)]).unwrap();
        assert_eq!(layout.end, 983_040 + 5464 * 768);
        let [copy] = layout.copies()[..] else {
            panic!("one plane has one copy");
        };
        assert_eq!(
            (copy.buffer_offset, copy.buffer_row_length),
            (983_040, 1366)
        );
        let of = layout.of(vk::ImageAspectFlags::MEMORY_PLANE_0_EXT).unwrap();
        assert_eq!((of.offset, of.row_pitch), (983_040, 5464));
        assert!(
            layout
                .of(vk::ImageAspectFlags::MEMORY_PLANE_1_EXT)
                .is_none()
        );
        for (offset, pitch) in [(0, 5460), (0, 5466), (2, 5464), (0, !3), (MOST, 5464)] {
            let refused = Layout::new(&info, &[demanded(offset, pitch)]);
            assert_eq!(refused, None, "{offset}, {pitch}");
        }
        let own = Layout::new(&info, &[]).unwrap();
        assert_eq!(own.of(vk::ImageAspectFlags::COLOR).unwrap().row_pitch, 6144);
    }

    #[test]
    fn planes_lie_one_behind_the_other_or_as_demanded() {
        let info = image(host::Format::G8_B8R8_2PLANE_420_UNORM, 641, 481);
        let layout = Layout::new(&info, &[]).unwrap();
        let [luma, chroma] = layout.copies()[..] else {
            panic!("two planes have two copies");
        };
        assert_eq!(luma.image_extent.width, 641);
        assert_eq!(
            (chroma.image_extent.width, chroma.image_extent.height),
            (321, 241)
        );
        assert_eq!(chroma.buffer_offset, 768 * 481);
        let layout = Layout::new(&info, &[demanded(0, 644), demanded(400_000, 644)]).unwrap();
        assert_eq!(layout.end, 400_000 + 644 * 241);
        let second = layout.of(vk::ImageAspectFlags::MEMORY_PLANE_1_EXT).unwrap();
        assert_eq!(second.offset, 400_000);
        assert_eq!(Layout::new(&info, &[demanded(0, 644)]), None);
    }

    #[test]
    fn other_images_have_no_mirror() {
        let plain = image(BGRA, 64, 64);
        assert!(Layout::new(&plain, &[]).is_some());
        let changes: [fn(&mut vk::ImageCreateInfo); 6] = [
            |info| info.mip_levels = 2,
            |info| info.array_layers = 2,
            |info| info.samples = vk::SampleCountFlags(4),
            |info| info.image_type = vk::ImageType::TYPE_3D,
            |info| info.flags = vk::ImageCreateFlags::SPARSE_BINDING,
            |info| info.format = vk::Format(host::Format::D16_UNORM.as_raw()),
        ];
        assert_eq!(Layout::new(&image(BGRA, 0, 64), &[]), None);
        for (index, change) in changes.into_iter().enumerate() {
            let mut info = plain;
            change(&mut info);
            assert_eq!(Layout::new(&info, &[]), None, "{index}");
        }
    }
}
