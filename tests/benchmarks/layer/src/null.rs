//! Replaces commands by functions that do nothing, and pipelines and descriptor sets by numbers.
//!
//! The driver does everything else, including `vkCmdFillBuffer` and `vkCmdCopyBuffer`: Mesa's guest
//! driver writes fences and timeline semaphores into memory with these two, and Hesper tests shared
//! memory with `vkCmdFillBuffer`.

use std::ffi::{CStr, c_void};
use std::sync::atomic::{AtomicU64, Ordering};

use ash::vk::{self, Handle};

use crate::{Function, function};

/// The handle of the next object.
static NUMBER: AtomicU64 = AtomicU64::new(1);

pub(crate) fn find(name: &CStr) -> Option<Function> {
    let name = name.to_str().ok()?;
    Some(match name {
        "vkCmdFillBuffer" | "vkCmdCopyBuffer" => return None,
        "vkCreateGraphicsPipelines" | "vkCreateComputePipelines" => {
            function!(pipelines, CreatePipelines)
        }
        "vkAllocateDescriptorSets" => {
            function!(descriptor_sets, vk::PFN_vkAllocateDescriptorSets)
        }
        "vkDestroyPipeline" | "vkFreeDescriptorSets" | "vkUpdateDescriptorSets" => {
            function!(nothing, extern "system" fn() -> u64)
        }
        _ if name.starts_with("vkCmd") => function!(nothing, extern "system" fn() -> u64),
        _ => return None,
    })
}

/// Ignores its arguments and returns 0, which is `VK_SUCCESS`.
extern "system" fn nothing() -> u64 {
    0
}

/// Writes `count` new handles to `out`.
///
/// # Safety
/// `out` has room for `count` handles.
unsafe fn number<H: Handle>(count: u32, out: *mut H) {
    for index in 0..count as usize {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise.
        unsafe { out.add(index).write(H::from_raw(number)) };
    }
}

/// The type of `vkCreateGraphicsPipelines` and the similar functions, which differ only in the type
/// of the infos.
type CreatePipelines = unsafe extern "system" fn(
    vk::Device,
    vk::PipelineCache,
    u32,
    *const c_void,
    *const c_void,
    *mut vk::Pipeline,
) -> vk::Result;

unsafe extern "system" fn pipelines(
    _: vk::Device,
    _: vk::PipelineCache,
    count: u32,
    _: *const c_void,
    _: *const c_void,
    out: *mut vk::Pipeline,
) -> vk::Result {
    // SAFETY: the caller's promise.
    unsafe { number(count, out) };
    vk::Result::SUCCESS
}

unsafe extern "system" fn descriptor_sets(
    _: vk::Device,
    info: *const vk::DescriptorSetAllocateInfo<'_>,
    out: *mut vk::DescriptorSet,
) -> vk::Result {
    // SAFETY: the caller's promise.
    unsafe { number((*info).descriptor_set_count, out) };
    vk::Result::SUCCESS
}
