//! Cases of sparse binding, where the driver has it.

use ash::vk;

use super::{Case, case};
use crate::gpu::Gpu;
use crate::outcome::{Outcome, Stop, equal, need};
use crate::resources::ANY_USE;

pub(super) const CASES: &[Case] = &[
    case("sparse-buffer", buffer),
    case("sparse-pages", pages),
    case("sparse-image", image),
];

fn buffer(gpu: &Gpu<'_>) -> Outcome {
    need("sparseBinding", gpu.features.core.sparse_binding != 0)?;
    let sparse = vk::QueueFlags::SPARSE_BINDING;
    let families = gpu.host.families.iter();
    let family = families
        .enumerate()
        .position(|(_, f)| f.queue_flags.contains(sparse));
    need("queue family that binds sparse memory", family.is_some())?;
    let family = family.map_or(0, |family| family as u32);
    let info = vk::BufferCreateInfo::default()
        .flags(vk::BufferCreateFlags::SPARSE_BINDING)
        .size(1 << 20)
        .usage(ANY_USE);
    let read = gpu.buffer(2)?;
    let (bound, fence) = (gpu.semaphore()?, gpu.fence(false)?);
    // SAFETY: all handles are of this device. The bound ranges are those of the buffer, with its
    // two halves swapped.
    unsafe {
        let queue = gpu.get_device_queue(family, 0);
        let buffer = gpu.own(gpu.create_buffer(&info, None)?, ash::Device::destroy_buffer);
        let needs = gpu.get_buffer_memory_requirements(buffer);
        let local = vk::MemoryPropertyFlags::DEVICE_LOCAL;
        let memory = gpu.allocate(needs.size, gpu.memory_type(needs.memory_type_bits, local)?)?;
        let half = (needs.size / 2).next_multiple_of(needs.alignment);
        let bind = |resource_offset, size, memory_offset| {
            vk::SparseMemoryBind::default()
                .resource_offset(resource_offset)
                .size(size)
                .memory(memory)
                .memory_offset(memory_offset)
        };
        let rest = needs.size - half;
        let binds = [bind(0, half, rest), bind(half, rest, 0)];
        let buffers = [vk::SparseBufferMemoryBindInfo::default()
            .buffer(buffer)
            .binds(&binds)];
        let signals = [bound];
        let binding = vk::BindSparseInfo::default()
            .buffer_binds(&buffers)
            .signal_semaphores(&signals);
        gpu.queue_bind_sparse(queue, &[binding], vk::Fence::null())?;
        let commands = [gpu.record(|commands| {
            gpu.cmd_fill_buffer(commands, buffer, 0, 1 << 19, 0x11);
            gpu.cmd_fill_buffer(commands, buffer, 1 << 19, 1 << 19, 0x22);
            gpu.barrier(commands);
            let copies = [
                vk::BufferCopy {
                    src_offset: (1 << 19) - 4,
                    dst_offset: 0,
                    size: 4,
                },
                vk::BufferCopy {
                    src_offset: (1 << 20) - 4,
                    dst_offset: 4,
                    size: 4,
                },
            ];
            gpu.cmd_copy_buffer(commands, buffer, read.handle, &copies);
            gpu.barrier(commands);
        })?];
        let stages = [vk::PipelineStageFlags::ALL_COMMANDS];
        let submit = vk::SubmitInfo::default()
            .wait_semaphores(&signals)
            .wait_dst_stage_mask(&stages)
            .command_buffers(&commands);
        gpu.queue_submit(gpu.queue, &[submit], fence)?;
    }
    gpu.wait(fence)?;
    equal("the words", read.read_all(), vec![0x11, 0x22])?;
    Ok(String::new())
}

/// The first queue that binds sparse memory.
fn binding_queue(gpu: &Gpu<'_>) -> Result<vk::Queue, Stop> {
    need("sparseBinding", gpu.features.core.sparse_binding != 0)?;
    let sparse = vk::QueueFlags::SPARSE_BINDING;
    let mut families = (0..).zip(&gpu.host.families);
    let family = families.find(|(_, family)| family.queue_flags.contains(sparse));
    need("queue family that binds sparse memory", family.is_some())?;
    let family = family.map_or(0, |(family, _)| family);
    // SAFETY: the device was created with a queue of each family.
    Ok(unsafe { gpu.get_device_queue(family, 0) })
}

/// Submits bindings and waits for them.
fn bind(gpu: &Gpu<'_>, queue: vk::Queue, info: &vk::BindSparseInfo<'_>) -> Result<(), Stop> {
    let fence = gpu.fence(false)?;
    // SAFETY: the queue is of this device, and so are the objects in the callers' infos.
    unsafe { gpu.queue_bind_sparse(queue, &[*info], fence) }?;
    gpu.wait(fence)
}

fn pages(gpu: &Gpu<'_>) -> Outcome {
    let queue = binding_queue(gpu)?;
    let core = &gpu.features.core;
    need("sparseResidencyBuffer", core.sparse_residency_buffer != 0)?;
    need("sparseResidencyAliased", core.sparse_residency_aliased != 0)?;
    let flags = vk::BufferCreateFlags::SPARSE_BINDING
        | vk::BufferCreateFlags::SPARSE_RESIDENCY
        | vk::BufferCreateFlags::SPARSE_ALIASED;
    let info = vk::BufferCreateInfo::default()
        .flags(flags)
        .size(4 << 20)
        .usage(ANY_USE);
    let read = gpu.buffer(4)?;
    // SAFETY: the features of these flags are enabled.
    let buffer = unsafe { gpu.create_buffer(&info, None) }?;
    let buffer = gpu.own(buffer, ash::Device::destroy_buffer);
    // SAFETY: the buffer is of this device.
    let needs = unsafe { gpu.get_buffer_memory_requirements(buffer) };
    let anything = vk::MemoryPropertyFlags::empty();
    let kind = gpu.memory_type(needs.memory_type_bits, anything)?;
    let page = needs.alignment.max(65536);
    let memory = gpu.allocate(2 * page, kind)?;
    let to = |places: &[(u64, Option<u64>)]| {
        let binds: Vec<_> = places
            .iter()
            .map(|(place, offset)| {
                let bind = vk::SparseMemoryBind::default()
                    .resource_offset(place * page)
                    .size(page);
                match offset {
                    Some(offset) => bind.memory(memory).memory_offset(offset * page),
                    None => bind,
                }
            })
            .collect();
        let buffers = [vk::SparseBufferMemoryBindInfo::default()
            .buffer(buffer)
            .binds(&binds)];
        bind(
            gpu,
            queue,
            &vk::BindSparseInfo::default().buffer_binds(&buffers),
        )
    };
    // Copy the last word of each of four pages.
    let look = || {
        // SAFETY: `run` records; both buffers are of this device and have these ranges.
        gpu.run(|commands| unsafe {
            let copies = [0_u64, 1, 2, 3].map(|place| vk::BufferCopy {
                src_offset: (place + 1) * page - 4,
                dst_offset: place * 4,
                size: 4,
            });
            gpu.cmd_copy_buffer(commands, buffer, read.handle, &copies);
            gpu.barrier(commands);
        })?;
        Ok::<_, Stop>(read.read_all())
    };
    let is_strict = gpu
        .host
        .properties
        .sparse_properties
        .residency_non_resident_strict
        != 0;
    let unbound = |word: u32| if is_strict { word } else { 0 };
    // Swap two pages, let one alias the first, and leave one without memory.
    to(&[(0, Some(1)), (1, Some(0)), (2, Some(1))])?;
    // SAFETY: as above.
    gpu.run(|commands| unsafe {
        gpu.cmd_fill_buffer(commands, buffer, 0, page, 0x11);
        gpu.cmd_fill_buffer(commands, buffer, page, page, 0x22);
        gpu.barrier(commands);
    })?;
    let seen = look()?;
    equal("bound pages", &seen[..3], &[0x11, 0x22, 0x11])?;
    equal("a page without memory", unbound(seen[3]), 0)?;
    // Swap back, and leave the alias without memory.
    to(&[(0, Some(0)), (1, Some(1)), (2, None)])?;
    let seen = look()?;
    equal("pages bound again", &seen[..2], &[0x22, 0x11])?;
    equal(
        "pages without memory",
        [unbound(seen[2]), unbound(seen[3])],
        [0, 0],
    )?;
    Ok(String::new())
}

fn image(gpu: &Gpu<'_>) -> Outcome {
    let queue = binding_queue(gpu)?;
    let core = &gpu.features.core;
    need(
        "sparseResidencyImage2D",
        core.sparse_residency_image2_d != 0,
    )?;
    let extent = vk::Extent3D {
        width: 256,
        height: 256,
        depth: 1,
    };
    let info = vk::ImageCreateInfo::default()
        .flags(vk::ImageCreateFlags::SPARSE_BINDING | vk::ImageCreateFlags::SPARSE_RESIDENCY)
        .image_type(vk::ImageType::TYPE_2D)
        .format(vk::Format::R8G8B8A8_UNORM)
        .extent(extent)
        .mip_levels(1)
        .array_layers(1)
        .samples(vk::SampleCountFlags::TYPE_1)
        .usage(vk::ImageUsageFlags::TRANSFER_SRC | vk::ImageUsageFlags::TRANSFER_DST);
    let texels = gpu.buffer(256 * 256)?;
    let read = gpu.buffer(256 * 256)?;
    texels.fill_with(|i| i.wrapping_mul(2_654_435_761));
    // SAFETY: the features of these flags are enabled, and the image is of this device.
    let (image, needs, kinds) = unsafe {
        let image = gpu.own(gpu.create_image(&info, None)?, ash::Device::destroy_image);
        (
            image,
            gpu.get_image_memory_requirements(image),
            gpu.get_image_sparse_memory_requirements(image),
        )
    };
    let colour = vk::ImageAspectFlags::COLOR;
    let mut kinds = kinds.iter().map(|kind| kind.format_properties);
    let kind = kinds.find(|kind| kind.aspect_mask.contains(colour));
    let tile = kind.map_or(extent, |kind| kind.image_granularity);
    need(
        "tiles smaller than the image",
        tile.width <= 128 && tile.height <= 128,
    )?;
    let anything = vk::MemoryPropertyFlags::empty();
    let memory = gpu.allocate(
        needs.size,
        gpu.memory_type(needs.memory_type_bits, anything)?,
    )?;
    let (columns, rows) = (256 / tile.width, 256 / tile.height);
    let last = u64::from(columns * rows - 1);
    // Bind tiles from first to last to memory from last to first.
    let binds: Vec<_> = (0..columns * rows)
        .map(|tile_index| {
            vk::SparseImageMemoryBind::default()
                .subresource(vk::ImageSubresource {
                    aspect_mask: colour,
                    ..Default::default()
                })
                .offset(vk::Offset3D {
                    x: (tile_index % columns * tile.width) as i32,
                    y: (tile_index / columns * tile.height) as i32,
                    z: 0,
                })
                .extent(tile)
                .memory(memory)
                .memory_offset((last - u64::from(tile_index)) * needs.alignment)
        })
        .collect();
    let images = [vk::SparseImageMemoryBindInfo::default()
        .image(image)
        .binds(&binds)];
    bind(
        gpu,
        queue,
        &vk::BindSparseInfo::default().image_binds(&images),
    )?;
    let whole = crate::resources::Image {
        handle: image,
        view: vk::ImageView::null(),
        kind: crate::resources::ImageKind::picture(256, 256),
    };
    let region = vk::BufferImageCopy::default()
        .image_subresource(whole.kind.level(0))
        .image_extent(extent);
    let (target, source) = (
        vk::ImageLayout::TRANSFER_DST_OPTIMAL,
        vk::ImageLayout::TRANSFER_SRC_OPTIMAL,
    );
    // SAFETY: `run` records; buffers and image are of this device and in the layouts named.
    gpu.run(|commands| unsafe {
        gpu.transition(commands, &whole, vk::ImageLayout::UNDEFINED, target);
        gpu.cmd_copy_buffer_to_image(commands, texels.handle, image, target, &[region]);
        gpu.transition(commands, &whole, target, source);
        gpu.cmd_copy_image_to_buffer(commands, image, source, read.handle, &[region]);
        gpu.barrier(commands);
    })?;
    equal("the texels", read.digest(), texels.digest())?;
    Ok(String::new())
}
