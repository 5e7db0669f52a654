//! Recorded commands. The command buffer is checked for all of them, and the arguments of those
//! that point to something.

use std::ffi::c_void;

use ash::vk::{self, Handle as _, ObjectType};

use crate::device::{BUFFER, COMMAND_BUFFER, DESCRIPTOR_SET, PIPELINE, PIPELINE_LAYOUT};
use crate::limits::{limits, within};
use crate::memory::{array, pages, touch, touch_info, walk};
use crate::objects::{check, check_optional};
use crate::{Function, function, pipeline};

pub(crate) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "vkBeginCommandBuffer" => function!(begin, (u64, *const c_void) -> vk::Result),
        "vkEndCommandBuffer" | "vkResetCommandBuffer" => function!(recorded, (u64) -> u64),
        "vkCmdFillBuffer" => function!(fill, (u64, u64, u64, u64, u32)),
        "vkCmdUpdateBuffer" => function!(update, (u64, u64, u64, u64, *const u8)),
        "vkCmdCopyBuffer" => {
            function!(copy, (u64, u64, u64, u32, *const vk::BufferCopy))
        }
        "vkCmdClearColorImage" => function!(
            clear,
            (
                u64,
                u64,
                i32,
                *const vk::ClearColorValue,
                u32,
                *const vk::ImageSubresourceRange
            )
        ),
        "vkCmdCopyImageToBuffer" => function!(
            copy_image,
            (u64, u64, i32, u64, u32, *const vk::BufferImageCopy)
        ),
        "vkCmdPushConstants" => function!(push_constants, (u64, u64, u32, u32, u32, *const u8)),
        "vkCmdResetQueryPool" => function!(reset_queries, (u64, u64, u32, u32)),
        "vkCmdBeginQuery" => function!(begin_query, (u64, u64, u32, u32)),
        "vkCmdEndQuery" => function!(end_query, (u64, u64, u32)),
        "vkCmdWriteTimestamp" => function!(timestamp, (u64, u32, u64, u32)),
        "vkCmdDrawIndirect" => function!(draw_indirect, (u64, u64, u64, u32, u32)),
        "vkCmdBindPipeline" => function!(bind_pipeline, (u64, i32, u64)),
        "vkCmdBindDescriptorSets" => {
            function!(
                bind_sets,
                (u64, i32, u64, u32, u32, *const u64, u32, *const u32)
            )
        }
        "vkCmdBindVertexBuffers" => {
            function!(bind_vertex_buffers, (u64, u32, u32, *const u64, *const u64))
        }
        "vkCmdSetViewport" => function!(
            set_array::<vk::Viewport>,
            (u64, u32, u32, *const vk::Viewport)
        ),
        "vkCmdSetScissor" => function!(set_array::<vk::Rect2D>, (u64, u32, u32, *const vk::Rect2D)),
        "vkCmdPipelineBarrier" => function!(
            barrier,
            (
                u64,
                u32,
                u32,
                u32,
                u32,
                *const vk::MemoryBarrier<'_>,
                u32,
                *const vk::BufferMemoryBarrier<'_>,
                u32,
                *const vk::ImageMemoryBarrier<'_>
            )
        ),
        "vkCmdPipelineBarrier2" => function!(barrier2, (u64, *const vk::DependencyInfo<'_>)),
        "vkCmdExecuteCommands" => function!(execute, (u64, u32, *const u64)),
        "vkCmdDrawMultiEXT" => function!(
            draw_multi,
            (u64, u32, *const vk::MultiDrawInfoEXT, u32, u32, u32)
        ),
        _ if name.starts_with("vkCmd") => function!(recorded, (u64) -> u64),
        _ => return None,
    })
}

unsafe extern "system" fn recorded(commands: u64) -> u64 {
    check(COMMAND_BUFFER, commands);
    0
}

unsafe extern "system" fn begin(commands: u64, info: *const c_void) -> vk::Result {
    check(COMMAND_BUFFER, commands);
    // SAFETY: the caller's promise.
    unsafe { touch_info(info) };
    vk::Result::SUCCESS
}

unsafe extern "system" fn fill(commands: u64, buffer: u64, offset: u64, size: u64, pattern: u32) {
    check(COMMAND_BUFFER, commands);
    check(BUFFER, buffer);
    let part = if size == vk::WHOLE_SIZE { 0 } else { size };
    pages().has_bytes(buffer, offset, part);
    pages().fill(buffer, offset, size, pattern);
}

unsafe extern "system" fn update(
    commands: u64,
    buffer: u64,
    offset: u64,
    size: u64,
    data: *const u8,
) {
    check(COMMAND_BUFFER, commands);
    check(BUFFER, buffer);
    pages().has_bytes(buffer, offset, size);
    // SAFETY: the caller's promise.
    unsafe { touch(data, size) };
}

unsafe extern "system" fn copy(
    commands: u64,
    from: u64,
    to: u64,
    count: u32,
    regions: *const vk::BufferCopy,
) {
    check(COMMAND_BUFFER, commands);
    check(BUFFER, from);
    check(BUFFER, to);
    // SAFETY: the caller's promise.
    for region in unsafe { array(regions, count) } {
        pages().has_bytes(from, region.src_offset, region.size);
        pages().has_bytes(to, region.dst_offset, region.size);
    }
}

unsafe extern "system" fn clear(
    commands: u64,
    image: u64,
    _layout: i32,
    colour: *const vk::ClearColorValue,
    count: u32,
    ranges: *const vk::ImageSubresourceRange,
) {
    check(COMMAND_BUFFER, commands);
    check(ObjectType::IMAGE.as_raw(), image);
    // SAFETY: the caller's promise.
    unsafe {
        array(ranges, count);
        touch(colour, size_of::<vk::ClearColorValue>() as u64);
        pages().clear(image, (*colour).uint32.map(|value| value as u8));
    }
}

unsafe extern "system" fn copy_image(
    commands: u64,
    image: u64,
    _layout: i32,
    buffer: u64,
    count: u32,
    regions: *const vk::BufferImageCopy,
) {
    check(COMMAND_BUFFER, commands);
    check(ObjectType::IMAGE.as_raw(), image);
    check(BUFFER, buffer);
    // SAFETY: the caller's promise.
    unsafe { array(regions, count) };
    pages().copy_image(image, buffer);
}

unsafe extern "system" fn push_constants(
    commands: u64,
    layout: u64,
    _stages: u32,
    offset: u32,
    size: u32,
    values: *const u8,
) {
    check(COMMAND_BUFFER, commands);
    check(PIPELINE_LAYOUT, layout);
    let most = limits().max_push_constants_size;
    within("push constants", offset.into(), size.into(), most.into());
    // SAFETY: the caller's promise.
    unsafe { touch(values, size.into()) };
}

unsafe extern "system" fn bind_pipeline(commands: u64, _point: i32, pipeline: u64) {
    check(COMMAND_BUFFER, commands);
    check(PIPELINE, pipeline);
    pipeline::bound(commands, pipeline);
}

unsafe extern "system" fn bind_sets(
    commands: u64,
    _point: i32,
    layout: u64,
    first: u32,
    count: u32,
    sets: *const u64,
    offset_count: u32,
    offsets: *const u32,
) {
    check(COMMAND_BUFFER, commands);
    check(PIPELINE_LAYOUT, layout);
    let most = limits().max_bound_descriptor_sets;
    within("sets", first.into(), count.into(), most.into());
    // SAFETY: the caller's promise.
    unsafe {
        for set in array(sets, count) {
            check_optional(DESCRIPTOR_SET, *set);
        }
        array(offsets, offset_count);
    }
}

unsafe extern "system" fn bind_vertex_buffers(
    commands: u64,
    first: u32,
    count: u32,
    buffers: *const u64,
    offsets: *const u64,
) {
    check(COMMAND_BUFFER, commands);
    let most = limits().max_vertex_input_bindings;
    within("vertex bindings", first.into(), count.into(), most.into());
    // SAFETY: the caller's promise.
    unsafe {
        for buffer in array(buffers, count) {
            check_optional(BUFFER, *buffer);
        }
        array(offsets, count);
    }
}

unsafe extern "system" fn set_array<T>(commands: u64, first: u32, count: u32, values: *const T) {
    check(COMMAND_BUFFER, commands);
    let most = limits().max_viewports;
    within("viewports", first.into(), count.into(), most.into());
    // SAFETY: the caller's promise.
    unsafe { array(values, count) };
}

unsafe extern "system" fn barrier(
    commands: u64,
    _from: u32,
    _to: u32,
    _flags: u32,
    count: u32,
    global: *const vk::MemoryBarrier<'_>,
    buffer_count: u32,
    buffers: *const vk::BufferMemoryBarrier<'_>,
    image_count: u32,
    images: *const vk::ImageMemoryBarrier<'_>,
) {
    check(COMMAND_BUFFER, commands);
    // SAFETY: the caller's promise.
    unsafe {
        array(global, count);
        for barrier in array(buffers, buffer_count) {
            check(BUFFER, barrier.buffer.as_raw());
        }
        for barrier in array(images, image_count) {
            walk(barrier.p_next, |link| touch(link, 16));
            check(ObjectType::IMAGE.as_raw(), barrier.image.as_raw());
        }
    }
}

unsafe extern "system" fn barrier2(commands: u64, info: *const vk::DependencyInfo<'_>) {
    check(COMMAND_BUFFER, commands);
    // SAFETY: the caller's promise.
    unsafe {
        touch_info(info.cast());
        let info = &*info;
        array(info.p_memory_barriers, info.memory_barrier_count);
        for barrier in array(
            info.p_buffer_memory_barriers,
            info.buffer_memory_barrier_count,
        ) {
            check(BUFFER, barrier.buffer.as_raw());
        }
        for barrier in array(
            info.p_image_memory_barriers,
            info.image_memory_barrier_count,
        ) {
            check(ObjectType::IMAGE.as_raw(), barrier.image.as_raw());
        }
    }
}

unsafe extern "system" fn execute(commands: u64, count: u32, secondaries: *const u64) {
    check(COMMAND_BUFFER, commands);
    // SAFETY: the caller's promise.
    for secondary in unsafe { array(secondaries, count) } {
        check(COMMAND_BUFFER, *secondary);
    }
}

unsafe extern "system" fn draw_multi(
    commands: u64,
    count: u32,
    draws: *const vk::MultiDrawInfoEXT,
    _instances: u32,
    _first: u32,
    stride: u32,
) {
    check(COMMAND_BUFFER, commands);
    // SAFETY: the caller's promise: each draw lies `stride` bytes behind the one before.
    unsafe {
        for draw in 0..count as usize {
            touch(
                draws.wrapping_byte_add(draw.wrapping_mul(stride as usize)),
                8,
            );
        }
    }
}

unsafe extern "system" fn reset_queries(commands: u64, pool: u64, first: u32, count: u32) {
    check(COMMAND_BUFFER, commands);
    check(ObjectType::QUERY_POOL.as_raw(), pool);
    pages().has_queries(pool, first, count);
}

unsafe extern "system" fn begin_query(commands: u64, pool: u64, query: u32, _flags: u32) {
    // SAFETY: the caller's promise.
    unsafe { reset_queries(commands, pool, query, 1) };
}

unsafe extern "system" fn end_query(commands: u64, pool: u64, query: u32) {
    // SAFETY: the caller's promise.
    unsafe { reset_queries(commands, pool, query, 1) };
}

unsafe extern "system" fn timestamp(commands: u64, _stage: u32, pool: u64, query: u32) {
    // SAFETY: the caller's promise.
    unsafe { reset_queries(commands, pool, query, 1) };
}

unsafe extern "system" fn draw_indirect(
    commands: u64,
    buffer: u64,
    offset: u64,
    count: u32,
    stride: u32,
) {
    check(COMMAND_BUFFER, commands);
    check(BUFFER, buffer);
    if let Some(before_last) = count.checked_sub(1) {
        let size = u64::from(before_last) * u64::from(stride) + 16;
        pages().has_bytes(buffer, offset, size);
    }
}
