//! Devices, queues and everything that is made from them.

use std::collections::HashSet;
use std::ffi::c_void;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use ash::vk::{self, Handle as _, ObjectType};

use crate::limits::within;
use crate::memory::{array, pages, touch, touch_info, touch_text, walk};
use crate::objects::{check, check_optional, destroy, destroy_children, make, only};
use crate::pipeline::{
    cache_data, compute_pipelines, create_cache, create_shader, graphics_pipelines, submitted,
};
use crate::sync::status;
use crate::{Function, function, get_device_proc_addr, hang};

const PHYSICAL_DEVICE: i32 = ObjectType::PHYSICAL_DEVICE.as_raw();
pub(crate) const DEVICE: i32 = ObjectType::DEVICE.as_raw();
const QUEUE: i32 = ObjectType::QUEUE.as_raw();
pub(crate) const COMMAND_BUFFER: i32 = ObjectType::COMMAND_BUFFER.as_raw();
pub(crate) const BUFFER: i32 = ObjectType::BUFFER.as_raw();
pub(crate) const PIPELINE: i32 = ObjectType::PIPELINE.as_raw();
pub(crate) const DESCRIPTOR_SET: i32 = ObjectType::DESCRIPTOR_SET.as_raw();
pub(crate) const PIPELINE_LAYOUT: i32 = ObjectType::PIPELINE_LAYOUT.as_raw();
const SEMAPHORE: i32 = ObjectType::SEMAPHORE.as_raw();
pub(crate) const FENCE: i32 = ObjectType::FENCE.as_raw();
const QUERY_POOL: i32 = ObjectType::QUERY_POOL.as_raw();
pub(crate) const SHADER_MODULE: i32 = ObjectType::SHADER_MODULE.as_raw();
const COMMAND_POOL: i32 = ObjectType::COMMAND_POOL.as_raw();
const DESCRIPTOR_POOL: i32 = ObjectType::DESCRIPTOR_POOL.as_raw();

/// Devices that were created with more than the renderer's own extension.
static EXTENDED: LazyLock<Mutex<HashSet<u64>>> = LazyLock::new(Mutex::default);

fn extended() -> MutexGuard<'static, HashSet<u64>> {
    EXTENDED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether a device was created with more than the renderer's own extension.
pub(crate) fn has_extensions(device: u64) -> bool {
    check(DEVICE, device);
    extended().contains(&device)
}

/// Functions of objects that are simply made from a device: `vkCreate…` and `vkDestroy…`.
fn find_simple(name: &str) -> Option<Function> {
    let (is_create, object) = match name.strip_prefix("vkCreate") {
        Some(object) => (true, object),
        None => (false, name.strip_prefix("vkDestroy")?),
    };
    macro_rules! table {
        ($($object:literal $kind:ident)*) => {
            match (object, is_create) {
                $(
                    ($object, true) => function!(
                        create::<{ ObjectType::$kind.as_raw() }>,
                        (u64, *const c_void, *const c_void, *mut u64) -> vk::Result
                    ),
                    ($object, false) => function!(
                        destroy_one::<{ ObjectType::$kind.as_raw() }>, (u64, u64, *const c_void)
                    ),
                )*
                _ => return None,
            }
        };
    }
    Some(table! {
        "AccelerationStructureKHR" ACCELERATION_STRUCTURE_KHR
        "BufferView" BUFFER_VIEW
        "CommandPool" COMMAND_POOL
        "DescriptorPool" DESCRIPTOR_POOL
        "DescriptorSetLayout" DESCRIPTOR_SET_LAYOUT
        "DescriptorUpdateTemplate" DESCRIPTOR_UPDATE_TEMPLATE
        "Event" EVENT
        "Fence" FENCE
        "Framebuffer" FRAMEBUFFER
        "ImageView" IMAGE_VIEW
        "Pipeline" PIPELINE
        "PipelineCache" PIPELINE_CACHE
        "PipelineLayout" PIPELINE_LAYOUT
        "PrivateDataSlot" PRIVATE_DATA_SLOT
        "QueryPool" QUERY_POOL
        "RenderPass" RENDER_PASS
        "RenderPass2" RENDER_PASS
        "Sampler" SAMPLER
        "SamplerYcbcrConversion" SAMPLER_YCBCR_CONVERSION
        "Semaphore" SEMAPHORE
        "ShaderModule" SHADER_MODULE
    })
}

pub(crate) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "vkGetDeviceProcAddr" => {
            function!(get_device_proc_addr, (u64, *const std::ffi::c_char) -> Option<Function>)
        }
        "vkCreateDevice" => {
            function!(create_device, (u64, *const vk::DeviceCreateInfo<'_>, *const c_void, *mut u64) -> vk::Result)
        }
        "vkDestroyDevice" => function!(destroy_device, (u64, *const c_void)),
        "vkDeviceWaitIdle" => function!(device_wait_idle, (u64) -> vk::Result),
        "vkGetDeviceQueue" => function!(queue, (u64, u32, u32, *mut u64)),
        "vkGetDeviceQueue2" => function!(queue2, (u64, *const c_void, *mut u64)),
        "vkQueueSubmit" => {
            function!(submit, (u64, u32, *const vk::SubmitInfo<'_>, u64) -> vk::Result)
        }
        "vkQueueSubmit2" => {
            function!(submit2, (u64, u32, *const vk::SubmitInfo2<'_>, u64) -> vk::Result)
        }
        "vkAllocateCommandBuffers" => {
            function!(allocate_commands, (u64, *const vk::CommandBufferAllocateInfo<'_>, *mut u64) -> vk::Result)
        }
        "vkFreeCommandBuffers" => {
            function!(free_children::<COMMAND_POOL, COMMAND_BUFFER>, (u64, u64, u32, *const u64) -> vk::Result)
        }
        "vkAllocateDescriptorSets" => {
            function!(allocate_sets, (u64, *const vk::DescriptorSetAllocateInfo<'_>, *mut u64) -> vk::Result)
        }
        "vkFreeDescriptorSets" => {
            function!(free_children::<DESCRIPTOR_POOL, DESCRIPTOR_SET>, (u64, u64, u32, *const u64) -> vk::Result)
        }
        "vkResetCommandPool" => {
            function!(status::<COMMAND_POOL>, (u64, u64) -> vk::Result)
        }
        "vkMergePipelineCaches" => {
            function!(merge, (u64, u64, u32, *const u64) -> vk::Result)
        }
        "vkResetDescriptorPool" => function!(reset_descriptor_pool, (u64, u64, u32) -> vk::Result),
        "vkCreateQueryPool" => {
            function!(create_queries, (u64, *const vk::QueryPoolCreateInfo<'_>, *const c_void, *mut u64) -> vk::Result)
        }
        "vkResetQueryPool" => function!(reset_queries, (u64, u64, u32, u32)),
        "vkCreateDescriptorSetLayout" => {
            function!(create_layout, (u64, *const vk::DescriptorSetLayoutCreateInfo<'_>, *const c_void, *mut u64) -> vk::Result)
        }
        "vkUpdateDescriptorSets" => function!(
            update_sets,
            (
                u64,
                u32,
                *const vk::WriteDescriptorSet<'_>,
                u32,
                *const vk::CopyDescriptorSet<'_>
            )
        ),
        "vkCreateShaderModule" => {
            function!(create_shader, (u64, *const vk::ShaderModuleCreateInfo<'_>, *const c_void, *mut u64) -> vk::Result)
        }
        "vkCreateComputePipelines" => function!(
            compute_pipelines,
            (u64, u64, u32, *const vk::ComputePipelineCreateInfo<'_>, *const c_void, *mut u64) -> vk::Result
        ),
        "vkCreateGraphicsPipelines" => function!(
            graphics_pipelines,
            (u64, u64, u32, *const vk::GraphicsPipelineCreateInfo<'_>, *const c_void, *mut u64) -> vk::Result
        ),
        "vkCreatePipelineCache" => {
            function!(create_cache, (u64, *const vk::PipelineCacheCreateInfo<'_>, *const c_void, *mut u64) -> vk::Result)
        }
        "vkGetPipelineCacheData" => {
            function!(cache_data, (u64, u64, *mut usize, *mut u8) -> vk::Result)
        }
        "vkGetQueryPoolResults" => {
            function!(query_results, (u64, u64, u32, u32, usize, *mut u8, u64, u32) -> vk::Result)
        }
        _ => return find_simple(name),
    })
}

pub(crate) unsafe extern "system" fn create<const KIND: i32>(
    device: u64,
    info: *const c_void,
    _: *const c_void,
    out: *mut u64,
) -> vk::Result {
    check(DEVICE, device);
    // SAFETY: the caller's promise.
    unsafe {
        touch_info(info);
        *out = make(KIND, device);
    }
    vk::Result::SUCCESS
}

pub(crate) unsafe extern "system" fn destroy_one<const KIND: i32>(
    device: u64,
    object: u64,
    _: *const c_void,
) {
    check(DEVICE, device);
    if object != 0 {
        destroy(
            KIND,
            object,
            &[ObjectType::COMMAND_BUFFER, ObjectType::DESCRIPTOR_SET],
        );
    }
}

unsafe extern "system" fn create_device(
    physical: u64,
    info: *const vk::DeviceCreateInfo<'_>,
    _: *const c_void,
    out: *mut u64,
) -> vk::Result {
    let instance = check(PHYSICAL_DEVICE, physical);
    // SAFETY: the caller's promise.
    unsafe {
        touch_info(info.cast());
        let info = &*info;
        for queue in array(info.p_queue_create_infos, info.queue_create_info_count) {
            array(queue.p_queue_priorities, queue.queue_count);
        }
        for name in array(
            info.pp_enabled_extension_names,
            info.enabled_extension_count,
        ) {
            touch_text(*name);
        }
        *out = make(DEVICE, instance);
        if info.enabled_extension_count > 1 {
            extended().insert(*out);
        }
    }
    vk::Result::SUCCESS
}

unsafe extern "system" fn destroy_device(device: u64, _: *const c_void) {
    destroy(DEVICE, device, &[ObjectType::QUEUE]);
    extended().remove(&device);
}

extern "system" fn device_wait_idle(device: u64) -> vk::Result {
    check(DEVICE, device);
    hang::pass(hang::DEVICE_WAIT_IDLE);
    vk::Result::SUCCESS
}

unsafe extern "system" fn queue(device: u64, _family: u32, _index: u32, out: *mut u64) {
    check(DEVICE, device);
    // SAFETY: the caller's promise.
    unsafe { *out = only(QUEUE, device) };
}

unsafe extern "system" fn queue2(device: u64, info: *const c_void, out: *mut u64) {
    // SAFETY: the caller's promise.
    unsafe {
        touch_info(info);
        queue(device, 0, 0, out);
    }
}

fn check_all<H: vk::Handle + Copy>(handles: &[H]) {
    for handle in handles {
        check(H::TYPE.as_raw(), handle.as_raw());
    }
}

unsafe extern "system" fn submit(
    queue: u64,
    count: u32,
    submits: *const vk::SubmitInfo<'_>,
    fence: u64,
) -> vk::Result {
    check(QUEUE, queue);
    check_optional(FENCE, fence);
    // SAFETY: the caller's promise.
    unsafe {
        for submit in array(submits, count) {
            walk(submit.p_next, |link| touch(link, 16));
            check_all(array(submit.p_wait_semaphores, submit.wait_semaphore_count));
            array(submit.p_wait_dst_stage_mask, submit.wait_semaphore_count);
            let commands = array(submit.p_command_buffers, submit.command_buffer_count);
            check_all(commands);
            commands.iter().for_each(|one| submitted(one.as_raw()));
            check_all(array(
                submit.p_signal_semaphores,
                submit.signal_semaphore_count,
            ));
        }
    }
    vk::Result::SUCCESS
}

unsafe extern "system" fn submit2(
    queue: u64,
    count: u32,
    submits: *const vk::SubmitInfo2<'_>,
    fence: u64,
) -> vk::Result {
    check(QUEUE, queue);
    check_optional(FENCE, fence);
    // SAFETY: the caller's promise.
    unsafe {
        for submit in array(submits, count) {
            walk(submit.p_next, |link| touch(link, 16));
            let waits = array(
                submit.p_wait_semaphore_infos,
                submit.wait_semaphore_info_count,
            );
            let signals = array(
                submit.p_signal_semaphore_infos,
                submit.signal_semaphore_info_count,
            );
            for info in waits.iter().chain(signals) {
                check(SEMAPHORE, info.semaphore.as_raw());
            }
            for info in array(
                submit.p_command_buffer_infos,
                submit.command_buffer_info_count,
            ) {
                check(COMMAND_BUFFER, info.command_buffer.as_raw());
                submitted(info.command_buffer.as_raw());
            }
        }
    }
    vk::Result::SUCCESS
}

unsafe extern "system" fn merge(
    device: u64,
    into: u64,
    count: u32,
    caches: *const u64,
) -> vk::Result {
    const CACHE: i32 = ObjectType::PIPELINE_CACHE.as_raw();
    check(DEVICE, device);
    check(CACHE, into);
    // SAFETY: the caller's promise.
    for cache in unsafe { array(caches, count) } {
        check(CACHE, *cache);
    }
    vk::Result::SUCCESS
}

/// Makes children of a pool.
pub(crate) unsafe fn children(kind: i32, pool: u64, count: u32, out: *mut u64) -> vk::Result {
    // SAFETY: the caller's promise: there is room for `count` handles.
    unsafe {
        array(out.cast_const(), count);
        for index in 0..count as usize {
            *out.add(index) = make(kind, pool);
        }
    }
    vk::Result::SUCCESS
}

unsafe extern "system" fn allocate_commands(
    device: u64,
    info: *const vk::CommandBufferAllocateInfo<'_>,
    out: *mut u64,
) -> vk::Result {
    check(DEVICE, device);
    // SAFETY: the caller's promise.
    unsafe {
        touch_info(info.cast());
        let level = (*info).level.as_raw();
        crate::known(
            "the level of command buffers",
            level,
            level == 0 || level == 1,
        );
        let pool = (*info).command_pool.as_raw();
        check(COMMAND_POOL, pool);
        children(COMMAND_BUFFER, pool, (*info).command_buffer_count, out)
    }
}

unsafe extern "system" fn allocate_sets(
    device: u64,
    info: *const vk::DescriptorSetAllocateInfo<'_>,
    out: *mut u64,
) -> vk::Result {
    check(DEVICE, device);
    // SAFETY: the caller's promise.
    unsafe {
        touch_info(info.cast());
        let pool = (*info).descriptor_pool.as_raw();
        check(DESCRIPTOR_POOL, pool);
        let layouts = array((*info).p_set_layouts, (*info).descriptor_set_count);
        check_all(layouts);
        let result = children(DESCRIPTOR_SET, pool, (*info).descriptor_set_count, out);
        for (index, layout) in layouts.iter().enumerate() {
            pages().sets.insert(*out.add(index), layout.as_raw());
        }
        result
    }
}

unsafe extern "system" fn free_children<const POOL: i32, const KIND: i32>(
    device: u64,
    pool: u64,
    count: u32,
    handles: *const u64,
) -> vk::Result {
    check(DEVICE, device);
    check(POOL, pool);
    // SAFETY: the caller's promise.
    for handle in unsafe { array(handles, count) } {
        if *handle == 0 {
            continue;
        }
        if check(KIND, *handle) != pool {
            crate::violation("a child is freed to a pool that it is not of");
        }
        destroy(KIND, *handle, &[]);
    }
    vk::Result::SUCCESS
}

unsafe extern "system" fn reset_descriptor_pool(device: u64, pool: u64, _: u32) -> vk::Result {
    check(DEVICE, device);
    check(DESCRIPTOR_POOL, pool);
    destroy_children(pool);
    vk::Result::SUCCESS
}

unsafe extern "system" fn update_sets(
    device: u64,
    writes: u32,
    write: *const vk::WriteDescriptorSet<'_>,
    copies: u32,
    copy: *const vk::CopyDescriptorSet<'_>,
) {
    use vk::DescriptorType as Type;
    check(DEVICE, device);
    // SAFETY: the caller's promise.
    unsafe {
        for write in array(write, writes) {
            walk(write.p_next, |link| touch(link, 16));
            check(DESCRIPTOR_SET, write.dst_set.as_raw());
            let count = write.descriptor_count;
            has_descriptors(
                write.dst_set.as_raw(),
                write.dst_binding,
                write.dst_array_element,
                count,
            );
            match write.descriptor_type {
                Type::UNIFORM_TEXEL_BUFFER | Type::STORAGE_TEXEL_BUFFER => {
                    array(write.p_texel_buffer_view, count);
                }
                Type::UNIFORM_BUFFER
                | Type::STORAGE_BUFFER
                | Type::UNIFORM_BUFFER_DYNAMIC
                | Type::STORAGE_BUFFER_DYNAMIC => {
                    for info in array(write.p_buffer_info, count) {
                        check_optional(BUFFER, info.buffer.as_raw());
                    }
                }
                Type::SAMPLER
                | Type::COMBINED_IMAGE_SAMPLER
                | Type::SAMPLED_IMAGE
                | Type::STORAGE_IMAGE
                | Type::INPUT_ATTACHMENT => {
                    array(write.p_image_info, count);
                }
                _ => {}
            }
        }
        for copy in array(copy, copies) {
            check(DESCRIPTOR_SET, copy.src_set.as_raw());
            check(DESCRIPTOR_SET, copy.dst_set.as_raw());
            let count = copy.descriptor_count;
            let (from, to) = (copy.src_set.as_raw(), copy.dst_set.as_raw());
            has_descriptors(from, copy.src_binding, copy.src_array_element, count);
            has_descriptors(to, copy.dst_binding, copy.dst_array_element, count);
        }
    }
}

unsafe extern "system" fn create_queries(
    device: u64,
    info: *const vk::QueryPoolCreateInfo<'_>,
    allocator: *const c_void,
    out: *mut u64,
) -> vk::Result {
    // SAFETY: the caller's promise.
    unsafe {
        let result = create::<QUERY_POOL>(device, info.cast(), allocator, out);
        pages().queries.insert(*out, (*info).query_count);
        result
    }
}

unsafe extern "system" fn reset_queries(device: u64, pool: u64, first: u32, count: u32) {
    check(DEVICE, device);
    check(QUERY_POOL, pool);
    pages().has_queries(pool, first, count);
}

unsafe extern "system" fn create_layout(
    device: u64,
    info: *const vk::DescriptorSetLayoutCreateInfo<'_>,
    allocator: *const c_void,
    out: *mut u64,
) -> vk::Result {
    const LAYOUT: i32 = ObjectType::DESCRIPTOR_SET_LAYOUT.as_raw();
    // SAFETY: the caller's promise.
    unsafe {
        let result = create::<LAYOUT>(device, info.cast(), allocator, out);
        let bindings = array((*info).p_bindings, (*info).binding_count).iter();
        let bindings = bindings.map(|binding| (binding.binding, binding.descriptor_count));
        pages().layouts.insert(*out, bindings.collect());
        result
    }
}

/// Ends the process unless a set has these descriptors, in this binding or the next ones.
fn has_descriptors(set: u64, binding: u32, element: u32, count: u32) {
    let pages = pages();
    let layout = pages.sets.get(&set).and_then(|set| pages.layouts.get(set));
    let Some(layout) = layout.filter(|layout| layout.contains_key(&binding)) else {
        crate::violation(&format!("binding {binding} of a set does not exist"));
    };
    let rest = layout.iter().filter(|(number, _)| **number >= binding);
    let most = rest.map(|(_, count)| u64::from(*count)).sum();
    within("descriptors", element.into(), count.into(), most);
}

/// Writes what a driver writes at least: one value for each query, at distance `stride`, whatever
/// the size says.
unsafe extern "system" fn query_results(
    device: u64,
    pool: u64,
    first: u32,
    count: u32,
    _size: usize,
    data: *mut u8,
    stride: u64,
    flags: u32,
) -> vk::Result {
    check(DEVICE, device);
    check(QUERY_POOL, pool);
    pages().has_queries(pool, first, count);
    let flags = vk::QueryResultFlags::from_raw(flags);
    let width = if flags.contains(vk::QueryResultFlags::TYPE_64) {
        8
    } else {
        4
    };
    for query in 0..count as usize {
        let at = data.wrapping_add(query.wrapping_mul(stride as usize));
        // SAFETY: the caller's promise.
        unsafe { at.write_bytes(9, width) };
    }
    vk::Result::SUCCESS
}
