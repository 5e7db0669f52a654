//! Rules for images: their numbers when they are made, and parts of them later.

use hesper_venus_protocol::rules::{Rules, all};
use hesper_venus_protocol::vk;

use super::buffers;
use super::checked::{Checked, broken, demand};
use crate::object::facts::Facts;
use crate::object::host_copy::{CopiedImage, Region};

/// Keeps what is needed of a new image. Of a format that the protocol does not have, nothing is
/// known.
pub(super) fn keep(facts: &Facts, info: &vk::ImageCreateInfo, image: vk::Image) {
    match CopiedImage::of(info) {
        Some(kept) => facts.images.insert(image, kept),
        // The handle may have been that of another image.
        None => facts.images.remove(image.0),
    }
}

pub(super) fn create(facts: &Facts, info: &vk::ImageCreateInfo) -> Checked {
    let core = &facts.limits.core;
    let vk::Extent3D {
        width,
        height,
        depth,
    } = info.extent;
    let most = match info.image_type {
        vk::ImageType::TYPE_1D => [core.max_image_dimension1d, 1, 1],
        vk::ImageType::TYPE_2D => {
            let most = core
                .max_image_dimension2d
                .max(core.max_image_dimension_cube);
            [most, most, 1]
        }
        vk::ImageType::TYPE_3D => [core.max_image_dimension3d; 3],
        _ => return Err(broken("an unknown image type", 0, 1, 0)),
    };
    for (size, most) in [width, height, depth].into_iter().zip(most) {
        let is_possible = (1..=most).contains(&size);
        demand(
            is_possible,
            "an image of this size",
            size.into(),
            most.into(),
        )?;
    }
    let levels = width.max(height).max(depth).ilog2() + 1;
    let is_possible = (1..=levels).contains(&info.mip_levels);
    demand(
        is_possible,
        "mip levels",
        info.mip_levels.into(),
        levels.into(),
    )?;
    let layers = match info.image_type {
        vk::ImageType::TYPE_3D => 1,
        _ => core.max_image_array_layers,
    };
    let is_possible = (1..=layers).contains(&info.array_layers);
    demand(
        is_possible,
        "array layers",
        info.array_layers.into(),
        layers.into(),
    )?;
    super::pipelines::samples(info.samples)?;
    // SAFETY: the decoder made an array of this many elements, or a null pointer.
    let families = unsafe { all(info.p_queue_family_indices, info.queue_family_index_count) };
    buffers::sharing(facts, info.sharing_mode, families)
}

/// The error for a part that an image does not have.
#[cold]
fn missing(layers: &vk::ImageSubresourceLayers, offset: &vk::Offset3D) -> super::Broken {
    broken(
        "a region, mip level or layer that the image does not have",
        u64::from(offset.x.unsigned_abs()),
        layers.layer_count.into(),
        layers.mip_level.into(),
    )
}

pub(super) fn range(facts: &Facts, image: vk::Image, range: &vk::ImageSubresourceRange) -> Checked {
    let Some(known) = facts.images.get(image) else {
        return Ok(());
    };
    let (level, levels) = (range.base_mip_level, range.level_count);
    demand(
        known.has_levels(level, levels),
        "mip levels that the image does not have",
        level.into(),
        levels.into(),
    )?;
    let (layer, layers) = (range.base_array_layer, range.layer_count);
    demand(
        known.has_layers(layer, layers),
        "layers that the image does not have",
        layer.into(),
        layers.into(),
    )
}

/// Fails unless the image has a mip level and a layer.
fn has(known: &CopiedImage, level: u64, layer: u64) -> Checked {
    let holds = |number: u64, has: &dyn Fn(u32) -> bool| u32::try_from(number).is_ok_and(has);
    let what = "a mip level that the image does not have";
    demand(
        holds(level, &|level| known.has_levels(level, 1)),
        what,
        level,
        0,
    )?;
    let what = "a layer that the image does not have";
    demand(
        holds(layer, &|layer| known.has_layers(layer, 1)),
        what,
        layer,
        0,
    )
}

pub(super) fn subresource(facts: &Facts, image: vk::Image, level: u64, layer: u64) -> Checked {
    let known = facts.images.get(image);
    known.map_or(Ok(()), |known| has(&known, level, layer))
}

pub(super) fn device_layout(facts: &Facts, info: &vk::DeviceImageSubresourceInfo) -> Checked {
    // SAFETY: decoded as null or valid structs.
    let (image, part) = unsafe { (info.p_create_info.as_ref(), info.p_subresource.as_ref()) };
    let Some((image, part)) = image.zip(part) else {
        return Ok(());
    };
    create(facts, image)?;
    let part = &part.image_subresource;
    let known = CopiedImage::of(image);
    known.map_or(Ok(()), |known| {
        has(&known, part.mip_level.into(), part.array_layer.into())
    })
}

pub(super) fn dependency(facts: &Facts, info: &vk::DependencyInfo) -> Checked {
    // SAFETY: the decoder made arrays of as many elements as their counts say, or null pointers.
    let (buffers, images) = unsafe {
        (
            all(
                info.p_buffer_memory_barriers,
                info.buffer_memory_barrier_count,
            ),
            all(
                info.p_image_memory_barriers,
                info.image_memory_barrier_count,
            ),
        )
    };
    for barrier in buffers {
        let (from, to) = (
            barrier.src_queue_family_index,
            barrier.dst_queue_family_index,
        );
        facts.families(from.into(), to.into())?;
    }
    for barrier in images {
        let (from, to) = (
            barrier.src_queue_family_index,
            barrier.dst_queue_family_index,
        );
        facts.families(from.into(), to.into())?;
        range(facts, barrier.image, &barrier.subresource_range)?;
    }
    Ok(())
}

/// The first texel behind a part.
fn end(offset: &vk::Offset3D, extent: [u32; 3]) -> [i64; 3] {
    let [width, height, depth] = extent.map(i64::from);
    let [x, y, z] = [offset.x, offset.y, offset.z].map(i64::from);
    [x + width, y + height, z + depth]
}

pub(super) fn region(
    facts: &Facts,
    image: vk::Image,
    layers: &vk::ImageSubresourceLayers,
    offset: &vk::Offset3D,
    extent: &vk::Extent3D,
) -> Checked {
    let Some(known) = facts.images.get(image) else {
        return Ok(());
    };
    let end = end(offset, [extent.width, extent.height, extent.depth]);
    match known.holds(layers, offset, end) {
        true => Ok(()),
        false => Err(missing(layers, offset)),
    }
}

pub(super) fn corners(
    facts: &Facts,
    image: vk::Image,
    layers: &vk::ImageSubresourceLayers,
    [first, second]: &[vk::Offset3D; 2],
) -> Checked {
    let Some(known) = facts.images.get(image) else {
        return Ok(());
    };
    let end = [second.x, second.y, second.z].map(i64::from);
    match known.holds(layers, first, end) {
        true => Ok(()),
        false => Err(missing(layers, first)),
    }
}

pub(super) fn copied(
    facts: &Facts,
    (from, to): (vk::Image, vk::Image),
    (from_layers, from_offset): (&vk::ImageSubresourceLayers, &vk::Offset3D),
    (to_layers, to_offset): (&vk::ImageSubresourceLayers, &vk::Offset3D),
    extent: &vk::Extent3D,
) -> Checked {
    region(facts, from, from_layers, from_offset, extent)?;
    let (Some(from), Some(to)) = (facts.images.get(from), facts.images.get(to)) else {
        return Ok(());
    };
    // Blocks are copied to as many blocks, which may be of another size.
    let sizes = [extent.width, extent.height, extent.depth];
    let mut reached = sizes;
    let blocks = from.block().into_iter().zip(to.block());
    for ((reached, size), (from, to)) in reached.iter_mut().zip(sizes).zip(blocks) {
        if from != to {
            *reached = size.div_ceil(from.max(1)).saturating_mul(to);
        }
    }
    match to.holds(to_layers, to_offset, end(to_offset, reached)) {
        true => Ok(()),
        false => Err(missing(to_layers, to_offset)),
    }
}

pub(super) fn buffer_image(
    facts: &Facts,
    (buffer, image): (vk::Buffer, vk::Image),
    (start, row_length, image_height): (u64, u64, u64),
    (layers, offset, extent): (&vk::ImageSubresourceLayers, &vk::Offset3D, &vk::Extent3D),
) -> Checked {
    let mut bytes = 0;
    if let Some(known) = facts.images.get(image) {
        let strides = u32::try_from(row_length)
            .ok()
            .zip(u32::try_from(image_height).ok());
        let (row_length, image_height) = strides.ok_or_else(|| missing(layers, offset))?;
        let mut region = Region {
            row_length,
            image_height,
            subresource: *layers,
            offset: *offset,
            extent: *extent,
        };
        let resolved = region.resolve(&known);
        bytes = resolved.map_err(|what| broken(what, start, row_length.into(), 0))?;
    }
    facts.check_part(buffer, start, bytes)
}
