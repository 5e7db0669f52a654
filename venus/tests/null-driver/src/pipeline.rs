//! Shaders, pipelines and their caches.

use std::ffi::c_void;

use ash::vk::{self, Handle as _, ObjectType};

use crate::device::{DEVICE, PIPELINE, PIPELINE_LAYOUT, SHADER_MODULE, children, create};
use crate::hang;
use crate::memory::{array, touch, touch_text, walk};
use crate::objects::{check, check_optional};

pub(crate) unsafe extern "system" fn create_shader(
    device: u64,
    info: *const vk::ShaderModuleCreateInfo<'_>,
    allocator: *const c_void,
    out: *mut u64,
) -> vk::Result {
    hang::pass(hang::CREATE_SHADER);
    // SAFETY: the caller's promise.
    unsafe {
        let result = create::<SHADER_MODULE>(device, info.cast(), allocator, out);
        touch((*info).p_code, (*info).code_size as u64);
        result
    }
}

unsafe fn touch_stage(stage: &vk::PipelineShaderStageCreateInfo<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        walk(stage.p_next, |link| touch(link, 16));
        check_optional(SHADER_MODULE, stage.module.as_raw());
        if !stage.p_name.is_null() {
            touch_text(stage.p_name);
        }
        if let Some(constants) = stage.p_specialization_info.as_ref() {
            array(constants.p_map_entries, constants.map_entry_count);
            touch(constants.p_data.cast::<u8>(), constants.data_size as u64);
        }
    }
}

pub(crate) unsafe extern "system" fn compute_pipelines(
    device: u64,
    cache: u64,
    count: u32,
    infos: *const vk::ComputePipelineCreateInfo<'_>,
    _: *const c_void,
    out: *mut u64,
) -> vk::Result {
    check(DEVICE, device);
    check_optional(ObjectType::PIPELINE_CACHE.as_raw(), cache);
    // SAFETY: the caller's promise.
    unsafe {
        for info in array(infos, count) {
            walk(info.p_next, |link| touch(link, 16));
            touch_stage(&info.stage);
            check(PIPELINE_LAYOUT, info.layout.as_raw());
        }
        children(PIPELINE, device, count, out)
    }
}

pub(crate) unsafe extern "system" fn graphics_pipelines(
    device: u64,
    cache: u64,
    count: u32,
    infos: *const vk::GraphicsPipelineCreateInfo<'_>,
    _: *const c_void,
    out: *mut u64,
) -> vk::Result {
    check(DEVICE, device);
    check_optional(ObjectType::PIPELINE_CACHE.as_raw(), cache);
    // SAFETY: the caller's promise.
    unsafe {
        for info in array(infos, count) {
            walk(info.p_next, |link| touch(link, 16));
            for stage in array(info.p_stages, info.stage_count) {
                touch_stage(stage);
            }
            check_optional(PIPELINE_LAYOUT, info.layout.as_raw());
        }
        children(PIPELINE, device, count, out)
    }
}

pub(crate) unsafe extern "system" fn cache_data(
    device: u64,
    cache: u64,
    size: *mut usize,
    data: *mut u8,
) -> vk::Result {
    const BYTES: usize = 40;
    check(DEVICE, device);
    check(ObjectType::PIPELINE_CACHE.as_raw(), cache);
    // SAFETY: the caller's promise: there is room for as many bytes as the size says.
    unsafe {
        if data.is_null() {
            *size = BYTES;
            return vk::Result::SUCCESS;
        }
        *size = (*size).min(BYTES);
        data.write_bytes(7, *size);
        if *size < BYTES {
            return vk::Result::INCOMPLETE;
        }
    }
    vk::Result::SUCCESS
}
