//! Shaders, pipelines and their caches.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError};

use ash::vk::{self, Handle as _, ObjectType};

use crate::device::{DEVICE, PIPELINE, PIPELINE_LAYOUT, SHADER_MODULE, children, create};
use crate::hang;
use crate::limits::within;
use crate::memory::{array, touch, touch_text, walk};
use crate::misdeed::{Place, Request};
use crate::objects::{check, check_optional};
use crate::violation;

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
        if let Some(request) = code((*info).p_code, (*info).code_size) {
            ask(*out, request);
        }
        result
    }
}

/// What shaders have asked for: by modules, by pipelines of these modules, and by command buffers
/// that bind these pipelines. Handles are never used twice.
static ASKED: LazyLock<Mutex<HashMap<u64, Request>>> = LazyLock::new(Mutex::default);
/// Whether [`ASKED`] has anything.
static ANY: AtomicBool = AtomicBool::new(false);

/// Remembers that an object asks for something.
fn ask(handle: u64, request: Request) {
    let mut asked = ASKED.lock().unwrap_or_else(PoisonError::into_inner);
    asked.insert(handle, request);
    ANY.store(true, Ordering::Release);
}

/// What an object asks for.
fn asked(handle: u64) -> Option<Request> {
    if !ANY.load(Ordering::Acquire) {
        return None;
    }
    let asked = ASKED.lock().unwrap_or_else(PoisonError::into_inner);
    asked.get(&handle).copied()
}

/// A command buffer binds a pipeline.
pub(crate) fn bound(commands: u64, pipeline: u64) {
    if let Some(request) = asked(pipeline) {
        ask(commands, request);
    }
}

/// A command buffer is submitted.
pub(crate) fn submitted(commands: u64) {
    if let Some(request) = asked(commands) {
        request.fulfil();
    }
}

/// Reads shader code, which is whole words of SPIR-V. Does what it asks for, or returns what it
/// asks for later.
unsafe fn code(words: *const u32, size: usize) -> Option<Request> {
    if size == 0 || !size.is_multiple_of(4) {
        violation(&format!("shader code of {size} bytes"));
    }
    // SAFETY: the caller's promise.
    unsafe {
        touch(words, size as u64);
        if *words != 0x0723_0203 {
            violation("shader code that is not SPIR-V");
        }
        let request = Request::of(std::slice::from_raw_parts(words.cast(), size))?;
        if request.place == Place::Creation {
            request.fulfil();
        }
        Some(request)
    }
}

/// Reads a shader stage, and returns what it asks for.
unsafe fn touch_stage(stage: &vk::PipelineShaderStageCreateInfo<'_>) -> Option<Request> {
    let mut request = asked(stage.module.as_raw());
    let bits = stage.stage.as_raw();
    crate::known(
        "a shader's stage",
        bits.cast_signed(),
        bits.is_power_of_two(),
    );
    // SAFETY: the caller's promise.
    unsafe {
        walk(stage.p_next, |link| {
            touch(link, 16);
            if (*link).s_type == vk::StructureType::SHADER_MODULE_CREATE_INFO {
                let module = link.cast::<vk::ShaderModuleCreateInfo<'_>>();
                request = code((*module).p_code, (*module).code_size).or(request);
            }
        });
        check_optional(SHADER_MODULE, stage.module.as_raw());
        if !stage.p_name.is_null() {
            touch_text(stage.p_name);
        }
        if let Some(constants) = stage.p_specialization_info.as_ref() {
            for entry in array(constants.p_map_entries, constants.map_entry_count) {
                let (offset, size) = (entry.offset.into(), entry.size as u64);
                within("constants", offset, size, constants.data_size as u64);
            }
            touch(constants.p_data.cast::<u8>(), constants.data_size as u64);
        }
    }
    request
}

/// Makes pipelines, of which these ask for something.
unsafe fn pipelines(
    device: u64,
    count: u32,
    requests: &[Option<Request>],
    out: *mut u64,
) -> vk::Result {
    // SAFETY: the caller's promise.
    unsafe {
        let result = children(PIPELINE, device, count, out);
        for (pipeline, request) in array(out.cast_const(), count).iter().zip(requests) {
            if let Some(request) = request {
                ask(*pipeline, *request);
            }
        }
        result
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
        let each = |info: &vk::ComputePipelineCreateInfo<'_>| {
            walk(info.p_next, |link| touch(link, 16));
            check(PIPELINE_LAYOUT, info.layout.as_raw());
            touch_stage(&info.stage)
        };
        let requests: Vec<_> = array(infos, count).iter().map(each).collect();
        pipelines(device, count, &requests, out)
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
        let each = |info: &vk::GraphicsPipelineCreateInfo<'_>| {
            walk(info.p_next, |link| {
                touch(link, 16);
                let link = link.cast::<vk::PipelineRenderingCreateInfo<'_>>();
                if (*link).s_type == vk::StructureType::PIPELINE_RENDERING_CREATE_INFO {
                    let formats = (*link).p_color_attachment_formats;
                    array(formats, (*link).color_attachment_count);
                }
            });
            check_optional(PIPELINE_LAYOUT, info.layout.as_raw());
            if let Some(input) = info.p_vertex_input_state.as_ref() {
                let attributes = array(
                    input.p_vertex_attribute_descriptions,
                    input.vertex_attribute_description_count,
                );
                attributes
                    .iter()
                    .for_each(|a| crate::known_format(a.format));
            }
            if let Some(dynamic) = info.p_dynamic_state.as_ref() {
                for state in array(dynamic.p_dynamic_states, dynamic.dynamic_state_count) {
                    let state = state.as_raw();
                    crate::known("a dynamic state", state, state < 2_000_000_000);
                }
            }
            let stages = array(info.p_stages, info.stage_count).iter();
            stages.fold(None, |found, stage| touch_stage(stage).or(found))
        };
        let requests: Vec<_> = array(infos, count).iter().map(each).collect();
        pipelines(device, count, &requests, out)
    }
}

/// The data of every cache: `VkPipelineCacheHeaderVersionOne` and eight bytes.
fn cache() -> [u8; 40] {
    let mut data = [7; 40];
    for (to, from) in data
        .iter_mut()
        .zip([32u32, 1, 0, 0].map(u32::to_le_bytes).concat())
    {
        *to = from;
    }
    data
}

/// Data of a cache must be its own, or the beginning of it.
pub(crate) unsafe extern "system" fn create_cache(
    device: u64,
    info: *const vk::PipelineCacheCreateInfo<'_>,
    allocator: *const c_void,
    out: *mut u64,
) -> vk::Result {
    const CACHE: i32 = ObjectType::PIPELINE_CACHE.as_raw();
    // SAFETY: the caller's promise.
    unsafe {
        let result = create::<CACHE>(device, info.cast(), allocator, out);
        let size = (*info).initial_data_size;
        let data = array((*info).p_initial_data.cast::<u8>(), size as u32);
        if !cache().starts_with(data) {
            violation("pipeline-cache data that this driver did not make");
        }
        result
    }
}

pub(crate) unsafe extern "system" fn cache_data(
    device: u64,
    cache_handle: u64,
    size: *mut usize,
    data: *mut u8,
) -> vk::Result {
    let whole = cache();
    check(DEVICE, device);
    check(ObjectType::PIPELINE_CACHE.as_raw(), cache_handle);
    // SAFETY: the caller's promise: there is room for as many bytes as the size says.
    unsafe {
        if data.is_null() {
            *size = whole.len();
            return vk::Result::SUCCESS;
        }
        *size = (*size).min(whole.len());
        data.copy_from_nonoverlapping(whole.as_ptr(), *size);
        if *size < whole.len() {
            return vk::Result::INCOMPLETE;
        }
    }
    vk::Result::SUCCESS
}
