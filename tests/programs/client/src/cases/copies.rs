//! Cases of transfer commands: updates, fills, copies, blits, clears, resolves, with levels and
//! layers.

use ash::vk;

use super::{Case, case};
use crate::gpu::Gpu;
use crate::outcome::{Outcome, Stop, digest, ensure, equal, need};
use crate::resources::{COHERENT, Image, ImageKind};

pub(super) const CASES: &[Case] = &[
    case("copy-update-buffer", update_buffer),
    case("copy-buffer-regions", buffer_regions),
    case("copy-image", image),
    case("copy-clear", clear),
    case("copy-clear-depth", clear_depth),
    case("copy-mip-levels", mip_levels),
    case("copy-layers", layers),
    case("copy-blit-linear", blit_linear),
    case("copy-linear-image", linear_image),
    case("copy-format-properties", format_properties),
];

const SOURCE: vk::ImageLayout = vk::ImageLayout::TRANSFER_SRC_OPTIMAL;
const TARGET: vk::ImageLayout = vk::ImageLayout::TRANSFER_DST_OPTIMAL;
const NEW: vk::ImageLayout = vk::ImageLayout::UNDEFINED;

fn update_buffer(gpu: &Gpu<'_>) -> Outcome {
    let buffer = gpu.local_buffer(65536 + 16)?;
    let read = gpu.buffer(16388)?;
    // The largest size that vkCmdUpdateBuffer takes. The data travels inside the command.
    let data: Vec<u8> = (0..16384_u32)
        .flat_map(|word| (word * 5).to_ne_bytes())
        .collect();
    // SAFETY: `run` records; the buffers are of this device.
    gpu.run(|commands| unsafe {
        gpu.cmd_fill_buffer(commands, buffer, 65536, vk::WHOLE_SIZE, 0x77);
        gpu.cmd_update_buffer(commands, buffer, 0, &data);
        gpu.barrier(commands);
        gpu.cmd_update_buffer(commands, buffer, 8, &[1, 2, 3, 4]);
        gpu.barrier(commands);
        let copy = vk::BufferCopy {
            size: 65552,
            ..Default::default()
        };
        gpu.cmd_copy_buffer(commands, buffer, read.handle, &[copy]);
        gpu.barrier(commands);
    })?;
    for (index, word) in (0..).zip(read.read_all()) {
        let expected = match index {
            2 => u32::from_ne_bytes([1, 2, 3, 4]),
            16384.. => 0x77,
            _ => index * 5,
        };
        equal("a word", word, expected)?;
    }
    Ok(String::new())
}

fn buffer_regions(gpu: &Gpu<'_>) -> Outcome {
    let (from, to) = (gpu.buffer(1000)?, gpu.buffer(1000)?);
    from.fill_with(|index| index);
    // Reverse the order of the words, with one region per word.
    let copies: Vec<_> = (0..1000_u64)
        .map(|i| vk::BufferCopy {
            src_offset: i * 4,
            dst_offset: (999 - i) * 4,
            size: 4,
        })
        .collect();
    // SAFETY: `run` records; the buffers are of this device.
    gpu.run(|commands| unsafe {
        gpu.cmd_copy_buffer(commands, from.handle, to.handle, &copies);
        gpu.barrier(commands);
    })?;
    equal("the words", to.read_all(), (0..1000).rev().collect())?;
    Ok(String::new())
}

/// Creates an image in layout `then` whose level 0 holds the texels that `texel` returns for x, y
/// and layer.
fn painted(
    gpu: &Gpu<'_>,
    kind: ImageKind,
    then: vk::ImageLayout,
    texel: impl Fn(u32, u32, u32) -> u32,
) -> Result<Image, Stop> {
    let [width, height] = kind.size;
    let buffer = gpu.buffer((width * height * kind.layers) as usize)?;
    buffer.fill_with(|i| texel(i % width, i / width % height, i / width / height));
    let image = gpu.image(kind)?;
    let region = vk::BufferImageCopy::default()
        .image_subresource(kind.level(0))
        .image_extent(vk::Extent3D {
            width,
            height,
            depth: 1,
        });
    // SAFETY: `run` records; the buffer holds the whole level, and all is of this device.
    gpu.run(|commands| unsafe {
        gpu.transition(commands, &image, NEW, TARGET);
        gpu.cmd_copy_buffer_to_image(commands, buffer.handle, image.handle, TARGET, &[region]);
        gpu.transition(commands, &image, TARGET, then);
    })?;
    Ok(image)
}

/// Makes a texel of this red and green. Red values of more than 8 bits reach into the green.
fn texel_of(red: u32, green: u32) -> u32 {
    red | (green << 8) | 0xff00_0000
}

fn image(gpu: &Gpu<'_>) -> Outcome {
    let texel = |x: u32, y: u32, _| texel_of(x, y);
    let from = painted(gpu, ImageKind::picture(100, 60), SOURCE, texel)?;
    let to = gpu.image(ImageKind::picture(50, 60))?;
    let offset = |x, y| vk::Offset3D { x, y, z: 0 };
    let copy = |from_at, to_at, width, height| vk::ImageCopy {
        src_subresource: from.kind.level(0),
        src_offset: from_at,
        dst_subresource: to.kind.level(0),
        dst_offset: to_at,
        extent: vk::Extent3D {
            width,
            height,
            depth: 1,
        },
    };
    let regions = [
        copy(offset(10, 0), offset(0, 0), 50, 30),
        copy(offset(49, 7), offset(1, 31), 33, 29),
    ];
    let black = vk::ClearColorValue::default();
    // SAFETY: `run` records; the images are of this device and in the layouts named.
    gpu.run(|commands| unsafe {
        gpu.transition(commands, &to, NEW, TARGET);
        gpu.cmd_clear_color_image(commands, to.handle, TARGET, &black, &[to.kind.whole()]);
        gpu.barrier(commands);
        gpu.cmd_copy_image(commands, from.handle, SOURCE, to.handle, TARGET, &regions);
        gpu.transition(commands, &to, TARGET, SOURCE);
    })?;
    let read = gpu.read_back(&to, 0)?;
    for (index, word) in (0..).zip(read.read_all()) {
        let (x, y) = (index % 50, index / 50);
        let expected = if y < 30 {
            texel(x + 10, y, 0)
        } else if (1..34).contains(&x) && y > 30 {
            texel(x + 48, y - 24, 0)
        } else {
            0
        };
        equal("a texel", word, expected)?;
    }
    Ok(format!("{:016x}", read.digest()))
}

fn clear(gpu: &Gpu<'_>) -> Outcome {
    let image = gpu.image(ImageKind::picture(33, 17))?;
    let colour = vk::ClearColorValue {
        float32: [1.0, 0.5, 0.25, 0.0],
    };
    // SAFETY: `run` records; the image is of this device and in the layout named.
    gpu.run(|commands| unsafe {
        gpu.transition(commands, &image, NEW, TARGET);
        gpu.cmd_clear_color_image(
            commands,
            image.handle,
            TARGET,
            &colour,
            &[image.kind.whole()],
        );
        gpu.transition(commands, &image, TARGET, SOURCE);
    })?;
    let read = gpu.read_back(&image, 0)?;
    let first = read.read(0);
    ensure(
        "all texels are equal",
        read.read_all().iter().all(|&word| word == first),
    )?;
    let [r, g, b, a] = first.to_le_bytes();
    ensure("red is full, alpha none", r == 255 && a == 0)?;
    ensure(
        "green is half, blue a quarter",
        g.abs_diff(128) <= 1 && b.abs_diff(64) <= 1,
    )?;
    Ok(format!("{first:08x}"))
}

fn clear_depth(gpu: &Gpu<'_>) -> Outcome {
    let usage = vk::ImageUsageFlags::DEPTH_STENCIL_ATTACHMENT
        | vk::ImageUsageFlags::TRANSFER_SRC
        | vk::ImageUsageFlags::TRANSFER_DST;
    let format = vk::Format::D32_SFLOAT;
    let image = gpu.image(ImageKind {
        format,
        usage,
        ..ImageKind::picture(16, 16)
    })?;
    let value = vk::ClearDepthStencilValue {
        depth: 0.375,
        stencil: 0,
    };
    let ranges = [image.kind.whole()];
    // SAFETY: `run` records; the image is of this device and in the layout named.
    gpu.run(|commands| unsafe {
        gpu.transition(commands, &image, NEW, TARGET);
        gpu.cmd_clear_depth_stencil_image(commands, image.handle, TARGET, &value, &ranges);
        gpu.transition(commands, &image, TARGET, SOURCE);
    })?;
    let read = gpu.read_back(&image, 0)?;
    equal(
        "the depths",
        read.read_all(),
        vec![0.375_f32.to_bits(); 256],
    )?;
    Ok(String::new())
}

fn mip_levels(gpu: &Gpu<'_>) -> Outcome {
    let kind = ImageKind {
        levels: 7,
        ..ImageKind::picture(64, 64)
    };
    // Every 2×2 block has one colour, so that a blit to half the size by nearest texels is exact.
    let texel = |x: u32, y: u32, _| texel_of(x / 2 * 8, y / 2 * 8);
    let image = painted(gpu, kind, SOURCE, texel)?;
    let corner = |edge: i32| {
        [
            vk::Offset3D::default(),
            vk::Offset3D {
                x: edge,
                y: edge,
                z: 1,
            },
        ]
    };
    // SAFETY: `run` records; the image is of this device and in the layouts named.
    gpu.run(|commands| unsafe {
        gpu.transition(commands, &image, SOURCE, vk::ImageLayout::GENERAL);
        for level in 1..7 {
            let blit = vk::ImageBlit {
                src_subresource: kind.level(level - 1),
                src_offsets: corner(64 >> (level - 1)),
                dst_subresource: kind.level(level),
                dst_offsets: corner(64 >> level),
            };
            let general = vk::ImageLayout::GENERAL;
            gpu.cmd_blit_image(
                commands,
                image.handle,
                general,
                image.handle,
                general,
                &[blit],
                vk::Filter::NEAREST,
            );
            gpu.barrier(commands);
        }
        gpu.transition(commands, &image, vk::ImageLayout::GENERAL, SOURCE);
    })?;
    let first = gpu.read_back(&image, 1)?;
    let expected: Vec<u32> = (0..32 * 32)
        .map(|i| texel(i % 32 * 2, i / 32 * 2, 0))
        .collect();
    equal("level 1", first.read_all(), expected)?;
    let mut digests = Vec::new();
    for level in 2..7 {
        digests.extend(gpu.read_back(&image, level)?.digest().to_le_bytes());
    }
    Ok(format!("{:016x}", digest(digests)))
}

fn layers(gpu: &Gpu<'_>) -> Outcome {
    let kind = ImageKind {
        layers: 5,
        ..ImageKind::picture(8, 8)
    };
    let texel = |x: u32, y: u32, layer: u32| x | y << 8 | layer << 16 | 0x7f00_0000;
    let image = painted(gpu, kind, SOURCE, texel)?;
    let read = gpu.read_back(&image, 0)?;
    let expected: Vec<u32> = (0..5 * 64)
        .map(|i| texel(i % 8, i / 8 % 8, i / 64))
        .collect();
    equal("the texels of all layers", read.read_all(), expected)?;
    Ok(String::new())
}

fn blit_linear(gpu: &Gpu<'_>) -> Outcome {
    let texel = |x: u32, y: u32, _| texel_of((x ^ y) * 16, x * 8);
    let from = painted(gpu, ImageKind::picture(16, 16), SOURCE, texel)?;
    let to = gpu.image(ImageKind::picture(53, 41))?;
    let corner = |x, y| [vk::Offset3D::default(), vk::Offset3D { x, y, z: 1 }];
    let blit = vk::ImageBlit {
        src_subresource: from.kind.level(0),
        src_offsets: corner(16, 16),
        dst_subresource: to.kind.level(0),
        dst_offsets: corner(53, 41),
    };
    let filter = vk::Filter::LINEAR;
    // SAFETY: `run` records; the images are of this device and in the layouts named.
    gpu.run(|commands| unsafe {
        gpu.transition(commands, &to, NEW, TARGET);
        gpu.cmd_blit_image(
            commands,
            from.handle,
            SOURCE,
            to.handle,
            TARGET,
            &[blit],
            filter,
        );
        gpu.transition(commands, &to, TARGET, SOURCE);
    })?;
    Ok(format!("{:016x}", gpu.read_back(&to, 0)?.digest()))
}

fn linear_image(gpu: &Gpu<'_>) -> Outcome {
    // The CPU writes this image row by row, at the driver's row pitch.
    let kind = ImageKind::picture(37, 11);
    let info = vk::ImageCreateInfo::default()
        .image_type(vk::ImageType::TYPE_2D)
        .format(kind.format)
        .extent(vk::Extent3D {
            width: 37,
            height: 11,
            depth: 1,
        })
        .mip_levels(1)
        .array_layers(1)
        .samples(kind.samples)
        .tiling(vk::ImageTiling::LINEAR)
        .usage(vk::ImageUsageFlags::TRANSFER_SRC)
        .initial_layout(vk::ImageLayout::PREINITIALIZED);
    let read = gpu.buffer(37 * 11)?;
    // SAFETY: `run` records; image and memory are of this device and fit each other; every write is
    // inside the rows, which are inside the memory.
    unsafe {
        let handle = gpu.own(gpu.create_image(&info, None)?, ash::Device::destroy_image);
        let needs = gpu.get_image_memory_requirements(handle);
        let kind_of_memory = gpu.memory_type(needs.memory_type_bits, COHERENT);
        let Ok(kind_of_memory) = kind_of_memory else {
            return need("coherent memory for linear images", false).map(|()| String::new());
        };
        let memory = gpu.allocate(needs.size, kind_of_memory)?;
        gpu.bind_image_memory(handle, memory, 0)?;
        let part = vk::ImageSubresource {
            aspect_mask: vk::ImageAspectFlags::COLOR,
            ..Default::default()
        };
        let layout = gpu.get_image_subresource_layout(handle, part);
        ensure(
            "the rows fit",
            layout.row_pitch >= 37 * 4 && layout.size <= needs.size,
        )?;
        let at = gpu
            .map_memory(memory, 0, vk::WHOLE_SIZE, Default::default())?
            .cast::<u8>();
        for i in 0..37 * 11 {
            let (x, y) = (i % 37, i / 37);
            let offset = layout.offset + y * layout.row_pitch + x * 4;
            at.add(offset as usize)
                .cast::<u32>()
                .write_volatile(i as u32 * 3);
        }
        let region = vk::BufferImageCopy::default()
            .image_subresource(kind.level(0))
            .image_extent(vk::Extent3D {
                width: 37,
                height: 11,
                depth: 1,
            });
        let image = Image {
            handle,
            view: vk::ImageView::null(),
            kind,
        };
        gpu.run(|commands| {
            gpu.transition(commands, &image, vk::ImageLayout::PREINITIALIZED, SOURCE);
            gpu.cmd_copy_image_to_buffer(commands, handle, SOURCE, read.handle, &[region]);
            gpu.barrier(commands);
        })?;
    }
    equal(
        "the texels",
        read.read_all(),
        (0..37 * 11).map(|i| i * 3).collect(),
    )?;
    Ok(String::new())
}

fn format_properties(gpu: &Gpu<'_>) -> Outcome {
    // Query the format properties of all formats of Vulkan 1.0, and the size limits of their
    // images.
    let host = gpu.host;
    let mut bytes = Vec::new();
    for format in (1..=184).map(vk::Format::from_raw) {
        // SAFETY: the physical device is of this instance.
        let (found, image) = unsafe {
            let usage = vk::ImageUsageFlags::TRANSFER_SRC;
            let (kind, tiling) = (vk::ImageType::TYPE_2D, vk::ImageTiling::OPTIMAL);
            let flags = vk::ImageCreateFlags::empty();
            let instance = &host.instance;
            (
                instance.get_physical_device_format_properties(host.physical, format),
                instance.get_physical_device_image_format_properties(
                    host.physical,
                    format,
                    kind,
                    tiling,
                    usage,
                    flags,
                ),
            )
        };
        let image = image.unwrap_or_default();
        let numbers = [
            found.linear_tiling_features.as_raw(),
            found.optimal_tiling_features.as_raw(),
            found.buffer_features.as_raw(),
            image.max_extent.width,
            image.max_extent.height,
            image.max_mip_levels,
            image.max_array_layers,
            image.sample_counts.as_raw(),
        ];
        bytes.extend(numbers.into_iter().flat_map(u32::to_le_bytes));
    }
    Ok(format!("{:016x}", digest(bytes)))
}
