//! Cases of copies between images and host memory without a queue (`VK_EXT_host_image_copy`).

use ash::vk;

use super::{Case, case};
use crate::gpu::Gpu;
use crate::host_copy::{COLOUR, Copier, GENERAL, Kind, Piece, REST, noise};
use crate::outcome::{Outcome, digest, ensure, equal};

pub(super) const CASES: &[Case] = &[
    case("host-copy-remaining", remaining),
    case("host-copy-strides", strides),
    case("host-copy-formats", formats),
    case("host-copy-depth-stencil", depth_stencil),
    case("host-copy-planes", planes),
    case("host-copy-volume", volume),
    case("host-copy-memcpy", memcpy),
    case("host-copy-images", images),
    case("host-copy-large", large),
];

fn remaining(gpu: &Gpu<'_>) -> Outcome {
    let copier = Copier::new(gpu)?;
    let kind = Kind {
        format: vk::Format::R8G8B8A8_UNORM,
        extent: [8, 4, 1],
        levels: 3,
        layers: 5,
    };
    let image = copier.image(&kind)?;
    let layer = 8 * 4 * 4;
    let all = noise(5 * layer, 1);
    copier.write(image, &[(Piece::of(&kind), &all)])?;
    equal(
        "all layers",
        copier.read(image, &Piece::of(&kind), all.len())?,
        all.clone(),
    )?;
    // Read and write the last three layers.
    let mut rest = Piece::of(&kind);
    rest.layers = [2, REST];
    equal(
        "the rest",
        &copier.read(image, &rest, 3 * layer)?[..],
        &all[2 * layer..],
    )?;
    let other = noise(3 * layer, 99);
    copier.write(image, &[(rest, &other)])?;
    let mut one = Piece::of(&kind);
    one.layers = [1, 1];
    let found = copier.read(image, &one, layer)?;
    equal("the layer before", &found[..], &all[layer..2 * layer])?;
    one.layers = [4, 1];
    let found = copier.read(image, &one, layer)?;
    equal("the last layer", &found[..], &other[2 * layer..])?;
    // A smaller level has texels of its own.
    let mut level = Piece::of(&kind);
    (level.level, level.extent) = (2, [2, 1, 1]);
    let small = noise(5 * 8, 7);
    copier.write(image, &[(level, &small)])?;
    equal("level 2", copier.read(image, &level, small.len())?, small)?;
    one.layers = [0, 1];
    equal(
        "level 0",
        &copier.read(image, &one, layer)?[..],
        &all[..layer],
    )?;
    Ok(String::new())
}

fn strides(gpu: &Gpu<'_>) -> Outcome {
    let copier = Copier::new(gpu)?;
    let kind = Kind {
        format: vk::Format::R16_UINT,
        extent: [7, 5, 1],
        levels: 1,
        layers: 3,
    };
    let image = copier.image(&kind)?;
    // Rows have 11 texels, layers 9 rows. The data ends with the texels of the last layer's last
    // row.
    let (row, layer) = (11 * 2, 11 * 9 * 2);
    let spread = noise(2 * layer + 4 * row + 7 * 2, 3);
    let mut piece = Piece::of(&kind);
    (piece.row_length, piece.image_height) = (11, 9);
    copier.write(image, &[(piece, &spread)])?;
    let tight = copier.read(image, &Piece::of(&kind), 7 * 5 * 3 * 2)?;
    let mut expected = Vec::new();
    for at in 0..15 {
        let start = at / 5 * layer + at % 5 * row;
        expected.extend_from_slice(&spread[start..start + 14]);
    }
    equal("the texels", &tight, &expected)?;
    // The bytes between rows are undefined. The texels are where they were.
    let again = copier.read(image, &piece, spread.len())?;
    for at in 0..15 {
        let start = at / 5 * layer + at % 5 * row;
        equal(
            "a row",
            &again[start..start + 14],
            &spread[start..start + 14],
        )?;
    }
    // A region in the middle.
    let middle = Piece {
        offset: [2, 1, 0],
        extent: [3, 2, 1],
        layers: [1, 1],
        ..Piece::of(&kind)
    };
    let found = copier.read(image, &middle, 12)?;
    let start = layer + row + 4;
    let mut expected = spread[start..start + 6].to_vec();
    expected.extend_from_slice(&spread[start + row..start + row + 6]);
    equal("the middle", found, expected)?;
    Ok(format!("{:016x}", digest(tight)))
}

/// Formats, with the bytes and the texels of a block.
const FORMATS: &[(vk::Format, u32, [u32; 2])] = &[
    (vk::Format::R8_UNORM, 1, [1, 1]),
    (vk::Format::R5G6B5_UNORM_PACK16, 2, [1, 1]),
    (vk::Format::R8G8B8_UNORM, 3, [1, 1]),
    (vk::Format::R16G16B16A16_SFLOAT, 8, [1, 1]),
    (vk::Format::R32G32B32A32_UINT, 16, [1, 1]),
    (vk::Format::B10G11R11_UFLOAT_PACK32, 4, [1, 1]),
    (vk::Format::E5B9G9R9_UFLOAT_PACK32, 4, [1, 1]),
    (vk::Format::BC1_RGB_UNORM_BLOCK, 8, [4, 4]),
    (vk::Format::BC3_SRGB_BLOCK, 16, [4, 4]),
    (vk::Format::BC4_SNORM_BLOCK, 8, [4, 4]),
    (vk::Format::BC7_UNORM_BLOCK, 16, [4, 4]),
    (vk::Format::ETC2_R8G8B8_UNORM_BLOCK, 8, [4, 4]),
    (vk::Format::EAC_R11G11_UNORM_BLOCK, 16, [4, 4]),
    (vk::Format::ASTC_4X4_UNORM_BLOCK, 16, [4, 4]),
    (vk::Format::ASTC_5X4_UNORM_BLOCK, 16, [5, 4]),
    (vk::Format::ASTC_12X10_SRGB_BLOCK, 16, [12, 10]),
];

fn formats(gpu: &Gpu<'_>) -> Outcome {
    let copier = Copier::new(gpu)?;
    let mut seen = Vec::new();
    for (format, size, block) in FORMATS {
        if !copier.can(*format) {
            continue;
        }
        let kind = Kind {
            format: *format,
            extent: [30, 21, 1],
            levels: 4,
            layers: 2,
        };
        let image = copier.image(&kind)?;
        let mut of_format = Vec::new();
        for level in 0..4 {
            let mut piece = Piece::of(&kind);
            piece.level = level;
            piece.extent = [30 >> level, 21 >> level, 1];
            let blocks = |texels: u32, block: u32| texels.div_ceil(block);
            let (wide, high) = (
                blocks(piece.extent[0], block[0]),
                blocks(piece.extent[1], block[1]),
            );
            // Rows and layers are one block further apart than necessary.
            (piece.row_length, piece.image_height) = ((wide + 1) * block[0], (high + 1) * block[1]);
            let row = (wide + 1) * size;
            let bytes = (high + 1) * row + (high - 1) * row + wide * size;
            let sent = noise(bytes as usize, level + size);
            copier.write(image, &[(piece, &sent)])?;
            (piece.row_length, piece.image_height) = (0, 0);
            let found = copier.read(image, &piece, (2 * wide * high * size) as usize)?;
            let mut expected = Vec::new();
            for at in 0..2 * high {
                let start = ((at / high * (high + 1) + at % high) * row) as usize;
                expected.extend_from_slice(&sent[start..start + (wide * size) as usize]);
            }
            if found != expected {
                let what = format!("level {level} of {format:?}");
                equal(&what, digest(found.clone()), digest(expected))?;
            }
            of_format.extend(found);
        }
        seen.push(format!(
            "{}:{:08x}",
            format.as_raw(),
            digest(of_format) as u32
        ));
    }
    Ok(seen.join(" "))
}

fn depth_stencil(gpu: &Gpu<'_>) -> Outcome {
    let copier = Copier::new(gpu)?;
    let mut seen = Vec::new();
    for (format, depth) in [
        (vk::Format::D16_UNORM, 2),
        (vk::Format::X8_D24_UNORM_PACK32, 4),
        (vk::Format::D32_SFLOAT, 4),
        (vk::Format::S8_UINT, 0),
        (vk::Format::D24_UNORM_S8_UINT, 4),
        (vk::Format::D32_SFLOAT_S8_UINT, 4),
    ] {
        if !copier.can(format) {
            continue;
        }
        let has_stencil = depth == 0
            || matches!(
                format,
                vk::Format::D24_UNORM_S8_UINT | vk::Format::D32_SFLOAT_S8_UINT
            );
        let kind = Kind {
            format,
            extent: [9, 6, 1],
            levels: 2,
            layers: 3,
        };
        let image = copier.image(&kind)?;
        let texels = 9 * 6 * 3;
        let piece = |aspect| Piece {
            aspect,
            ..Piece::of(&kind)
        };
        let (depths, stencils) = (
            piece(vk::ImageAspectFlags::DEPTH),
            piece(vk::ImageAspectFlags::STENCIL),
        );
        let stencil = noise(texels, 5);
        if has_stencil {
            copier.write(image, &[(stencils, &stencil)])?;
        }
        if depth > 0 {
            // Use floating point numbers below one, so that no driver has to clamp.
            let mut values = noise(texels * depth, 8);
            if format == vk::Format::D32_SFLOAT || format == vk::Format::D32_SFLOAT_S8_UINT {
                values.chunks_exact_mut(4).for_each(|texel| texel[3] = 0x3e);
            }
            copier.write(image, &[(depths, &values)])?;
            let mut found = copier.read(image, &depths, values.len())?;
            if depth == 4
                && !matches!(
                    format,
                    vk::Format::D32_SFLOAT | vk::Format::D32_SFLOAT_S8_UINT
                )
            {
                // The upper bits of 24-bit depths are not defined.
                found.chunks_exact_mut(4).for_each(|texel| texel[3] = 0);
                values.chunks_exact_mut(4).for_each(|texel| texel[3] = 0);
            }
            equal(
                &format!("depths of {format:?}"),
                digest(found),
                digest(values),
            )?;
        }
        if has_stencil {
            let found = copier.read(image, &stencils, texels)?;
            equal(
                &format!("stencils of {format:?}"),
                digest(found),
                digest(stencil),
            )?;
        }
        seen.push(format.as_raw().to_string());
    }
    Ok(seen.join(" "))
}

fn planes(gpu: &Gpu<'_>) -> Outcome {
    let copier = Copier::new(gpu)?;
    let aspects = [
        vk::ImageAspectFlags::PLANE_0,
        vk::ImageAspectFlags::PLANE_1,
        vk::ImageAspectFlags::PLANE_2,
    ];
    let mut seen = Vec::new();
    for (format, sizes, divisors) in [
        // Only formats with planes of single bytes. For others, Mesa's Venus sends too few bytes,
        // and Hesper hides them.
        (vk::Format::G8_B8_R8_3PLANE_420_UNORM, [1, 1, 1], [2, 2]),
        (vk::Format::G8_B8_R8_3PLANE_422_UNORM, [1, 1, 1], [2, 1]),
        (vk::Format::G8_B8_R8_3PLANE_444_UNORM, [1, 1, 1], [1, 1]),
    ] {
        if !copier.can(format) {
            continue;
        }
        let kind = Kind {
            format,
            extent: [16, 8, 1],
            levels: 1,
            layers: 1,
        };
        let image = copier.image(&kind)?;
        for (index, size) in sizes.iter().enumerate() {
            let mut piece = Piece::of(&kind);
            piece.aspect = aspects[index];
            if index > 0 {
                piece.extent = [16 / divisors[0], 8 / divisors[1], 1];
            }
            let bytes = (piece.extent[0] * piece.extent[1] * size) as usize;
            let sent = noise(bytes, index as u32);
            copier.write(image, &[(piece, &sent)])?;
            let found = copier.read(image, &piece, bytes)?;
            equal(
                &format!("plane {index} of {format:?}"),
                digest(found),
                digest(sent),
            )?;
        }
        seen.push(format.as_raw().to_string());
    }
    Ok(seen.join(" "))
}

fn volume(gpu: &Gpu<'_>) -> Outcome {
    let copier = Copier::new(gpu)?;
    let kind = Kind {
        format: vk::Format::R8G8_UNORM,
        extent: [6, 5, 7],
        levels: 2,
        layers: 1,
    };
    let image = copier.image(&kind)?;
    let all = noise(6 * 5 * 7 * 2, 11);
    copier.write(image, &[(Piece::of(&kind), &all)])?;
    equal(
        "the volume",
        copier.read(image, &Piece::of(&kind), all.len())?,
        all.clone(),
    )?;
    let part = Piece {
        offset: [1, 2, 3],
        extent: [4, 2, 3],
        row_length: 5,
        image_height: 3,
        ..Piece::of(&kind)
    };
    let bytes = (2 * 5 * 3 + 5 + 4) * 2;
    let found = copier.read(image, &part, bytes)?;
    for z in 0..3 {
        for y in 0..2 {
            let to = (z * 15 + y * 5) * 2;
            let from = ((z + 3) * 30 + (y + 2) * 6 + 1) * 2;
            equal("a row", &found[to..to + 8], &all[from..from + 8])?;
        }
    }
    let mut small = Piece::of(&kind);
    (small.level, small.extent) = (1, [3, 2, 3]);
    let texels = noise(3 * 2 * 3 * 2, 12);
    copier.write(image, &[(small, &texels)])?;
    equal("level 1", copier.read(image, &small, texels.len())?, texels)?;
    Ok(String::new())
}

fn memcpy(gpu: &Gpu<'_>) -> Outcome {
    let copier = Copier::new(gpu)?;
    let kind = Kind {
        format: vk::Format::R8G8B8A8_UNORM,
        extent: [13, 9, 1],
        levels: 2,
        layers: 3,
    };
    let (first, second) = (copier.image(&kind)?, copier.image(&kind)?);
    let all = noise(13 * 9 * 3 * 4, 21);
    copier.write(first, &[(Piece::of(&kind), &all)])?;
    let mut size = 0;
    for layer in 0..3 {
        let mut bytes = vk::SubresourceHostMemcpySizeEXT::default();
        let mut layout = vk::SubresourceLayout2EXT::default().push_next(&mut bytes);
        let part = vk::ImageSubresource2EXT::default().image_subresource(vk::ImageSubresource {
            aspect_mask: COLOUR,
            mip_level: 0,
            array_layer: layer,
        });
        // SAFETY: the image is of this device.
        unsafe {
            copier
                .copy
                .get_image_subresource_layout2(first, &part, &mut layout)
        };
        size += bytes.size as usize;
    }
    ensure("a size is known", size >= all.len())?;
    let flags = vk::HostImageCopyFlagsEXT::MEMCPY;
    let raw = copier.read_with(first, &Piece::of(&kind), size, flags)?;
    copier.write_with(second, &[(Piece::of(&kind), &raw)], flags)?;
    equal(
        "the texels",
        copier.read(second, &Piece::of(&kind), all.len())?,
        all,
    )?;
    Ok(format!("{size}"))
}

fn images(gpu: &Gpu<'_>) -> Outcome {
    let copier = Copier::new(gpu)?;
    let kind = Kind {
        format: vk::Format::R8G8B8A8_UNORM,
        extent: [12, 10, 1],
        levels: 1,
        layers: 4,
    };
    let (first, second) = (copier.image(&kind)?, copier.image(&kind)?);
    let layer = 12 * 10 * 4;
    let (all, other) = (noise(4 * layer, 31), noise(4 * layer, 32));
    copier.write(first, &[(Piece::of(&kind), &all)])?;
    copier.write(second, &[(Piece::of(&kind), &other)])?;
    let mut rest = Piece::of(&kind);
    rest.layers = [1, REST];
    let regions = [vk::ImageCopy2::default()
        .src_subresource(rest.subresource())
        .dst_subresource(rest.subresource())
        .extent(rest.extent())];
    let info = vk::CopyImageToImageInfoEXT::default()
        .src_image(first)
        .src_image_layout(GENERAL)
        .dst_image(second)
        .dst_image_layout(GENERAL)
        .regions(&regions);
    // SAFETY: both images are of this device and in this layout.
    unsafe { copier.copy.copy_image_to_image(&info) }?;
    let found = copier.read(second, &Piece::of(&kind), all.len())?;
    equal("the first layer", &found[..layer], &other[..layer])?;
    equal("the rest", &found[layer..], &all[layer..])?;
    Ok(String::new())
}

fn large(gpu: &Gpu<'_>) -> Outcome {
    let copier = Copier::new(gpu)?;
    // The image has 64 MiB.
    let kind = Kind {
        format: vk::Format::R8G8B8A8_UNORM,
        extent: [4096, 4096, 1],
        levels: 1,
        layers: 1,
    };
    let image = copier.image(&kind)?;
    let all = noise(64 << 20, 41);
    copier.write(image, &[(Piece::of(&kind), &all)])?;
    let found = copier.read(image, &Piece::of(&kind), all.len())?;
    ensure("the texels are those that were written", found == all)?;
    Ok(format!("{:016x}", digest(found)))
}
