//! Cases of pictures that are shared with other users: dma-bufs with a DRM format modifier, where
//! the driver has them.
//!
//! The other user is the CPU, through a mapping of the picture's memory. It stands for a display
//! server: the picture is handed over to a foreign queue family and taken back.

use std::ffi::CStr;
use std::sync::atomic::Ordering;

use ash::vk;

use super::{Case, case, named};
use crate::gpu::Gpu;
use crate::outcome::{Outcome, Stop, equal, need};
use crate::resources::{Buffer, COHERENT};

pub(super) const CASES: &[Case] = &[
    case("shared-picture", |gpu| bgra(gpu, 300, 200, &[])),
    // A width whose pitch is no round number, as a kernel's "dumb" buffer has it, and not at the
    // beginning of its memory.
    case("shared-picture-odd-pitch", |gpu| {
        bgra(gpu, 1366, 768, &[(983_040, 5464)])
    }),
    case("shared-picture-two-planes", two_planes),
];

const EXTENSIONS: [&CStr; 4] = [
    ash::ext::image_drm_format_modifier::NAME,
    ash::ext::external_memory_dma_buf::NAME,
    ash::khr::external_memory_fd::NAME,
    ash::ext::queue_family_foreign::NAME,
];

/// `DRM_FORMAT_MOD_LINEAR`
const LINEAR: u64 = 0;

const FOREIGN: u32 = vk::QUEUE_FAMILY_FOREIGN_EXT;

/// A shared picture and the CPU's view of its memory.
struct Picture<'g> {
    image: vk::Image,
    memory: Buffer<'g>,
    /// Offset, pitch in bytes, width and height in texels, and aspect of each plane.
    planes: Vec<(usize, usize, [u32; 2], vk::ImageAspectFlags)>,
}

/// Makes a picture with `layout` (offset and pitch of each plane), or the driver's own if that is
/// empty.
fn picture<'g>(
    gpu: &'g Gpu<'_>,
    format: vk::Format,
    [width, height]: [u32; 2],
    layout: &[(u64, u64)],
) -> Result<Picture<'g>, Stop> {
    let usage = vk::ImageUsageFlags::TRANSFER_SRC
        | vk::ImageUsageFlags::TRANSFER_DST
        | vk::ImageUsageFlags::SAMPLED;
    let (usage, aspects) = match format {
        vk::Format::G8_B8R8_2PLANE_420_UNORM => (
            usage,
            &[
                (vk::ImageAspectFlags::PLANE_0, 1),
                (vk::ImageAspectFlags::PLANE_1, 2),
            ][..],
        ),
        _ => (
            usage | vk::ImageUsageFlags::COLOR_ATTACHMENT,
            &[(vk::ImageAspectFlags::COLOR, 1)][..],
        ),
    };
    let layouts: Vec<_> = layout
        .iter()
        .map(|(offset, pitch)| {
            vk::SubresourceLayout::default()
                .offset(*offset)
                .row_pitch(*pitch)
        })
        .collect();
    let mut explicit = vk::ImageDrmFormatModifierExplicitCreateInfoEXT::default()
        .drm_format_modifier(LINEAR)
        .plane_layouts(&layouts);
    let mut list =
        vk::ImageDrmFormatModifierListCreateInfoEXT::default().drm_format_modifiers(&[LINEAR]);
    let mut external = vk::ExternalMemoryImageCreateInfo::default()
        .handle_types(vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT);
    let info = vk::ImageCreateInfo::default()
        .image_type(vk::ImageType::TYPE_2D)
        .format(format)
        .extent(vk::Extent3D {
            width,
            height,
            depth: 1,
        })
        .mip_levels(1)
        .array_layers(1)
        .samples(vk::SampleCountFlags::TYPE_1)
        .tiling(vk::ImageTiling::DRM_FORMAT_MODIFIER_EXT)
        .usage(usage)
        .push_next(&mut external);
    let info = match layouts.is_empty() {
        true => info.push_next(&mut list),
        false => info.push_next(&mut explicit),
    };
    // SAFETY: the image and its memory are of this device, and fit.
    unsafe {
        let image = gpu.own(gpu.create_image(&info, None)?, ash::Device::destroy_image);
        let needs = gpu.get_image_memory_requirements(image);
        let mut export = vk::ExportMemoryAllocateInfo::default()
            .handle_types(vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT);
        let allocate = vk::MemoryAllocateInfo::default()
            .allocation_size(needs.size)
            .memory_type_index(gpu.memory_type(needs.memory_type_bits, COHERENT)?)
            .push_next(&mut export);
        let memory = gpu.own(
            gpu.allocate_memory(&allocate, None)?,
            ash::Device::free_memory,
        );
        gpu.bind_image_memory(image, memory, 0)?;
        let mapped = gpu.map_memory(memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty())?;
        let words = std::slice::from_raw_parts(mapped.cast(), needs.size as usize / 4);
        let memory_planes = [
            vk::ImageAspectFlags::MEMORY_PLANE_0_EXT,
            vk::ImageAspectFlags::MEMORY_PLANE_1_EXT,
        ];
        let planes = aspects.iter().zip(memory_planes);
        let planes = planes.map(|((aspect, divisor), memory_plane)| {
            let part = vk::ImageSubresource::default().aspect_mask(memory_plane);
            let layout = gpu.get_image_subresource_layout(image, part);
            let size = [width, height].map(|side| side.div_ceil(*divisor));
            (
                layout.offset as usize,
                layout.row_pitch as usize,
                size,
                *aspect,
            )
        });
        Ok(Picture {
            image,
            planes: planes.collect(),
            memory: Buffer {
                handle: vk::Buffer::null(),
                words,
            },
        })
    }
}

/// A device with the extensions, which the driver may lack.
fn device<'h>(gpu: &Gpu<'h>) -> Result<Gpu<'h>, Stop> {
    for extension in EXTENSIONS {
        need(named(extension), gpu.host.has(extension))?;
    }
    Gpu::with(
        gpu.host,
        &EXTENSIONS,
        None::<&mut vk::DeviceGroupDeviceCreateInfo<'_>>,
    )
}

/// A barrier of the picture.
fn barrier(
    picture: &Picture<'_>,
    layouts: [vk::ImageLayout; 2],
    families: [u32; 2],
) -> vk::ImageMemoryBarrier<'static> {
    let all = vk::AccessFlags::MEMORY_READ | vk::AccessFlags::MEMORY_WRITE;
    vk::ImageMemoryBarrier::default()
        .image(picture.image)
        .old_layout(layouts[0])
        .new_layout(layouts[1])
        .src_queue_family_index(families[0])
        .dst_queue_family_index(families[1])
        .src_access_mask(all)
        .dst_access_mask(all)
        .subresource_range(vk::ImageSubresourceRange {
            aspect_mask: vk::ImageAspectFlags::COLOR,
            level_count: 1,
            layer_count: 1,
            ..Default::default()
        })
}

fn record_barrier(gpu: &Gpu<'_>, commands: vk::CommandBuffer, barrier: vk::ImageMemoryBarrier<'_>) {
    let all = vk::PipelineStageFlags::ALL_COMMANDS;
    let none = vk::DependencyFlags::empty();
    // SAFETY: the commands are being recorded, outside of a render pass.
    unsafe { gpu.cmd_pipeline_barrier(commands, all, all, none, &[], &[], &[barrier]) };
}

/// Copies all planes from the picture, which is taken back and handed over again, to a buffer
/// without gaps.
fn read(gpu: &Gpu<'_>, picture: &Picture<'_>, bytes: usize) -> Result<Vec<u8>, Stop> {
    let packed = gpu.buffer(bytes.div_ceil(4))?;
    let mut at = 0;
    let mut copies = Vec::new();
    for (_, _, [width, height], aspect) in &picture.planes {
        copies.push(
            vk::BufferImageCopy::default()
                .buffer_offset(at)
                .image_subresource(vk::ImageSubresourceLayers {
                    aspect_mask: *aspect,
                    layer_count: 1,
                    ..Default::default()
                })
                .image_extent(vk::Extent3D {
                    width: *width,
                    height: *height,
                    depth: 1,
                }),
        );
        at += u64::from(width * height) * texel(*aspect) as u64;
    }
    let own = gpu.family;
    let (source, general) = (
        vk::ImageLayout::TRANSFER_SRC_OPTIMAL,
        vk::ImageLayout::GENERAL,
    );
    gpu.run(|commands| {
        let comes = barrier(picture, [general, source], [FOREIGN, own]);
        record_barrier(gpu, commands, comes);
        // SAFETY: the regions are inside of image and buffer.
        unsafe {
            gpu.cmd_copy_image_to_buffer(commands, picture.image, source, packed.handle, &copies);
        };
        gpu.barrier(commands);
        let goes = barrier(picture, [source, general], [own, FOREIGN]);
        record_barrier(gpu, commands, goes);
    })?;
    let bytes_read = packed.read_all().into_iter().flat_map(u32::to_le_bytes);
    Ok(bytes_read.take(bytes).collect())
}

/// Bytes of a texel of a plane.
fn texel(aspect: vk::ImageAspectFlags) -> usize {
    match aspect {
        vk::ImageAspectFlags::PLANE_0 => 1,
        vk::ImageAspectFlags::PLANE_1 => 2,
        _ => 4,
    }
}

/// All bytes that the CPU sees.
fn seen(picture: &Picture<'_>) -> Vec<u8> {
    let words = picture.memory.words.iter();
    let words = words.map(|word| word.load(Ordering::Acquire));
    words.flat_map(u32::to_le_bytes).collect()
}

/// The picture's bytes among `all` of its memory, without gaps.
fn packed(picture: &Picture<'_>, all: &[u8]) -> Vec<u8> {
    let planes = picture.planes.iter();
    let rows = planes.flat_map(|(offset, pitch, [width, height], aspect)| {
        (0..*height as usize).map(move |row| {
            let start = offset + row * pitch;
            &all[start..start + *width as usize * texel(*aspect)]
        })
    });
    rows.flatten().copied().collect()
}

/// Writes all of the memory as the CPU, and returns it.
fn write(picture: &Picture<'_>) -> Vec<u8> {
    picture
        .memory
        .fill_with(|index| index.wrapping_mul(2_654_435_761));
    seen(picture)
}

fn bgra(gpu: &Gpu<'_>, width: u32, height: u32, layout: &[(u64, u64)]) -> Outcome {
    let gpu = device(gpu)?;
    let format = vk::Format::B8G8R8A8_UNORM;
    let picture = picture(&gpu, format, [width, height], layout)?;
    let asked = picture
        .planes
        .iter()
        .map(|plane| (plane.0 as u64, plane.1 as u64));
    if !layout.is_empty() {
        equal("the layout", asked.collect::<Vec<_>>(), layout.to_vec())?;
    }
    // The GPU reads what another user has written, and leaves it as it is.
    let before = write(&picture);
    let size = (width * height * 4) as usize;
    let is_read = read(&gpu, &picture, size)? == packed(&picture, &before);
    equal("the GPU reads the picture", is_read, true)?;
    equal("it stays as it is", seen(&picture) == before, true)?;

    // What the GPU draws is there for the other user, and nothing beside it has changed.
    let drawn = vk::ImageLayout::TRANSFER_DST_OPTIMAL;
    let own = gpu.family;
    gpu.run(|commands| {
        let undefined = [vk::ImageLayout::UNDEFINED, drawn];
        record_barrier(&gpu, commands, barrier(&picture, undefined, [own, own]));
        let colour = vk::ClearColorValue {
            float32: [1.0, 0.0, 0.6, 0.2],
        };
        let whole = barrier(&picture, undefined, [own, own]).subresource_range;
        // SAFETY: the image has this layout.
        unsafe {
            gpu.cmd_clear_color_image(commands, picture.image, drawn, &colour, &[whole]);
        };
        gpu.barrier(commands);
        let goes = barrier(&picture, [drawn, vk::ImageLayout::GENERAL], [own, FOREIGN]);
        record_barrier(&gpu, commands, goes);
    })?;
    let after = seen(&picture);
    let is_drawn = packed(&picture, &after)
        .chunks_exact(4)
        .all(|pixel| pixel == [153, 0, 255, 51]);
    equal("every pixel is drawn", is_drawn, true)?;
    let [(offset, pitch, ..)] = picture.planes[..] else {
        return Ok(String::new());
    };
    let is_outside = |at: &usize| {
        let inside = at.checked_sub(offset).map(|at| (at / pitch, at % pitch));
        !inside.is_some_and(|(row, column)| row < height as usize && column < width as usize * 4)
    };
    let mut outside = (0..before.len()).filter(is_outside);
    let is_same = outside.all(|at| before[at] == after[at]);
    equal("nothing else is written", is_same, true)?;
    Ok(String::new())
}

fn two_planes(gpu: &Gpu<'_>) -> Outcome {
    let gpu = device(gpu)?;
    let format = vk::Format::G8_B8R8_2PLANE_420_UNORM;
    let mut modifiers = vk::DrmFormatModifierPropertiesListEXT::default();
    let mut properties = vk::FormatProperties2::default().push_next(&mut modifiers);
    let host = gpu.host;
    // SAFETY: the chain is valid for a device with the extension.
    unsafe {
        host.instance.get_physical_device_format_properties2(
            host.physical,
            format,
            &mut properties,
        );
    };
    let is_offered = modifiers.drm_format_modifier_count > 0;
    need("a modifier for pictures of two planes", is_offered)?;
    let [width, height] = [642, 482];
    // One buffer, as decoders make it: the second plane begins behind the first.
    let layout = [(0, 768), (768 * 512, 768)];
    let picture = picture(&gpu, format, [width, height], &layout)?;
    let asked = picture
        .planes
        .iter()
        .map(|plane| (plane.0 as u64, plane.1 as u64));
    equal("the layout", asked.collect::<Vec<_>>(), layout.to_vec())?;
    let before = write(&picture);
    let size = (width * height * 3 / 2) as usize;
    let is_read = read(&gpu, &picture, size)? == packed(&picture, &before);
    equal("the GPU reads the picture", is_read, true)?;
    equal("it stays as it is", seen(&picture) == before, true)?;
    Ok(String::new())
}
