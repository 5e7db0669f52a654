//! Pipelines of `VK_KHR_ray_tracing_pipeline`, and the handles of their shader groups.
//!
//! The driver believes what it is told of groups, so their number is kept for each pipeline, and the size of a handle is asked
//! of the GPU. Deferred operations live in the guest's driver alone: it sends none, and what it defers is done here at once.
//!
//! Capture and replay of group handles cannot be carried: of `pShaderGroupCaptureReplayHandle` guests send that it is there, and
//! none of its bytes. Its features are hidden, and a pipeline that asks for handles all the same fails as Vulkan has it for
//! handles that cannot be had again.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Arc, Mutex};

use hesper_venus_protocol::call::Call;
use hesper_venus_protocol::command::{
    CreateRayTracingPipelinesKHR, GetPhysicalDeviceProperties2,
    GetRayTracingCaptureReplayShaderGroupHandlesKHR, GetRayTracingShaderGroupHandlesKHR,
    GetRayTracingShaderGroupStackSizeKHR,
};
use hesper_venus_protocol::runtime::{Object, find, find_mut};
use hesper_venus_protocol::{CommandId, vk};

use crate::command::pipeline::several;
use crate::fatal::Fatal;
use crate::session::{Session, call, name};
use crate::sync::Lock;

/// How many shader groups each ray tracing pipeline of a device has, by the driver's handles.
#[derive(Default)]
pub(crate) struct ShaderGroups(Mutex<HashMap<u64, u32>>);

impl ShaderGroups {
    /// Forgets a pipeline that is about to be destroyed.
    pub(crate) fn forget(&self, pipeline: vk::Pipeline) {
        let mut groups = self.0.locked();
        if !groups.is_empty() {
            groups.remove(&pipeline.0);
        }
    }

    /// How many a pipeline has: its own, and those of the libraries in it.
    fn count(&self, info: &vk::RayTracingPipelineCreateInfoKHR) -> u32 {
        // SAFETY: decoded as null or a valid struct.
        let library = unsafe { info.p_library_info.as_ref() };
        let libraries: &[vk::Pipeline] = match library {
            Some(library) if !library.p_libraries.is_null() => {
                // SAFETY: the decoder made an array of `library_count` handles, or a null pointer.
                unsafe {
                    std::slice::from_raw_parts(library.p_libraries, library.library_count as usize)
                }
            }
            _ => &[],
        };
        let known = self.0.locked();
        let of_libraries = libraries.iter().filter_map(|library| known.get(&library.0));
        of_libraries.fold(groups(info).len() as u32, |sum, more| {
            sum.saturating_add(*more)
        })
    }
}

/// The groups of a pipeline's own.
fn groups(info: &vk::RayTracingPipelineCreateInfoKHR) -> &[vk::RayTracingShaderGroupCreateInfoKHR] {
    match info.p_groups.is_null() {
        true => &[],
        // SAFETY: the decoder made an array of `group_count` structs, or a null pointer.
        false => unsafe { std::slice::from_raw_parts(info.p_groups, info.group_count as usize) },
    }
}

/// Hides that group handles can be captured and replayed, in the chain of features that `p_next` begins.
///
/// # Safety
/// The chain must be valid, and nobody else may use it.
pub(crate) unsafe fn hide_replay(p_next: *mut c_void) {
    // SAFETY: as the caller promises.
    let features = unsafe { find_mut::<vk::PhysicalDeviceRayTracingPipelineFeaturesKHR>(p_next) };
    if let Some(features) = features {
        features.ray_tracing_pipeline_shader_group_handle_capture_replay = 0;
        features.ray_tracing_pipeline_shader_group_handle_capture_replay_mixed = 0;
    }
}

/// Whether a device is asked for with what [`hide_replay`] hides.
///
/// # Safety
/// The chain must be valid.
pub(crate) unsafe fn wants_replay(p_next: *const c_void) -> bool {
    // SAFETY: as the caller promises.
    let features = unsafe { find::<vk::PhysicalDeviceRayTracingPipelineFeaturesKHR>(p_next) };
    features.is_some_and(|features| {
        features.ray_tracing_pipeline_shader_group_handle_capture_replay != 0
            || features.ray_tracing_pipeline_shader_group_handle_capture_replay_mixed != 0
    })
}

/// `vkCreateRayTracingPipelinesKHR`
pub(crate) fn create(
    session: &mut Session<'_>,
    c: &mut CreateRayTracingPipelinesKHR<'_>,
) -> Result<vk::Result, Fatal> {
    // No command makes one, so this is null already; the driver must not defer what the reply tells of.
    c.deferred_operation = Object::guest(0);
    let mut all_groups = c.p_create_infos.iter().flat_map(groups);
    if all_groups.any(|group| !group.p_shader_group_capture_replay_handle.is_null()) {
        c.p_pipelines.fill(vk::Pipeline::default());
        return Ok(vk::Result::ERROR_INVALID_OPAQUE_CAPTURE_ADDRESS);
    }
    let device = Arc::clone(session.device(CommandId::CreateRayTracingPipelinesKHR)?);
    let infos = c.p_create_infos.iter();
    let counts: Vec<u32> = infos.map(|info| device.shader_groups.count(info)).collect();
    several(
        session,
        c,
        |c| &mut c.p_pipelines,
        |index, pipeline| {
            let count = counts.get(index).copied().unwrap_or(0);
            device.shader_groups.0.locked().insert(pipeline.0, count);
        },
    )
}

/// `vkGetRayTracingShaderGroupHandlesKHR`
pub(crate) fn group_handles(
    session: &mut Session<'_>,
    c: &mut GetRayTracingShaderGroupHandlesKHR<'_>,
) -> Result<vk::Result, Fatal> {
    let id = CommandId::GetRayTracingShaderGroupHandlesKHR;
    let size = properties(session, id)?.shader_group_handle_size;
    check_groups(session, id, c.pipeline.handle, c.first_group, c.group_count)?;
    check_room(id, c.group_count, size, c.p_data.len())?;
    call(session, c)
}

/// `vkGetRayTracingCaptureReplayShaderGroupHandlesKHR`
pub(crate) fn capture_handles(
    session: &mut Session<'_>,
    c: &mut GetRayTracingCaptureReplayShaderGroupHandlesKHR<'_>,
) -> Result<vk::Result, Fatal> {
    let id = CommandId::GetRayTracingCaptureReplayShaderGroupHandlesKHR;
    let size = properties(session, id)?.shader_group_handle_capture_replay_size;
    check_groups(session, id, c.pipeline.handle, c.first_group, c.group_count)?;
    check_room(id, c.group_count, size, c.p_data.len())?;
    call(session, c)
}

/// `vkGetRayTracingShaderGroupStackSizeKHR`
pub(crate) fn stack_size(
    session: &mut Session<'_>,
    c: &mut GetRayTracingShaderGroupStackSizeKHR,
) -> Result<u64, Fatal> {
    let id = CommandId::GetRayTracingShaderGroupStackSizeKHR;
    check_groups(session, id, c.pipeline.handle, c.group, 1)?;
    call(session, c)
}

/// What the GPU of the current command's device says of its handles.
fn properties(
    session: &mut Session<'_>,
    command: CommandId,
) -> Result<vk::PhysicalDeviceRayTracingPipelinePropertiesKHR, Fatal> {
    let device = session.device(command)?;
    let mut own = vk::PhysicalDeviceRayTracingPipelinePropertiesKHR::default();
    let mut all = vk::PhysicalDeviceProperties2 {
        p_next: (&raw mut own).cast(),
        ..Default::default()
    };
    let mut query = GetPhysicalDeviceProperties2 {
        physical_device: Object {
            id: 0,
            handle: device.physical.handle,
        },
        p_properties: &mut all,
    };
    // SAFETY: the instance lives as long as its device; the chain is of live structs.
    let asked = unsafe { query.call(device.instance().functions()) };
    asked.ok_or(Fatal::NotEnabled(name(command)))?;
    Ok(own)
}

/// Fails unless the pipeline has these groups.
fn check_groups(
    session: &mut Session<'_>,
    command: CommandId,
    pipeline: vk::Pipeline,
    first: u32,
    count: u32,
) -> Result<(), Fatal> {
    let device = session.device(command)?;
    let known = device.shader_groups.0.locked().get(&pipeline.0).copied();
    let end = first.checked_add(count);
    match end.zip(known) {
        Some((end, known)) if end <= known => Ok(()),
        _ => Err(Fatal::Invalid {
            command: name(command),
            reason: "shader groups that the pipeline does not have",
        }),
    }
}

/// Drivers write as many handles as there are groups, and believe that there is room for them.
fn check_room(command: CommandId, groups: u32, size: u32, room: usize) -> Result<(), Fatal> {
    if u64::from(groups) * u64::from(size) > room as u64 {
        return Err(Fatal::Invalid {
            command: name(command),
            reason: "the handles do not fit into the memory for them",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_libraries_count() {
        let groups = ShaderGroups::default();
        groups.0.locked().insert(7, 3);
        let own = [vk::RayTracingShaderGroupCreateInfoKHR::default(); 2];
        let libraries = [vk::Pipeline(7), vk::Pipeline(7), vk::Pipeline(8)];
        let library = vk::PipelineLibraryCreateInfoKHR {
            library_count: 3,
            p_libraries: libraries.as_ptr(),
            ..Default::default()
        };
        let mut info = vk::RayTracingPipelineCreateInfoKHR {
            group_count: 2,
            p_groups: own.as_ptr(),
            p_library_info: &raw const library,
            ..Default::default()
        };
        assert_eq!(groups.count(&info), 8);
        groups.forget(vk::Pipeline(7));
        assert_eq!(groups.count(&info), 2);
        info.p_groups = std::ptr::null();
        assert_eq!(groups.count(&info), 0);
    }

    #[test]
    fn handles_need_the_room_that_the_gpu_says() {
        let id = CommandId::GetRayTracingShaderGroupHandlesKHR;
        assert!(check_room(id, 3, 48, 144).is_ok());
        assert!(check_room(id, 3, 48, 143).is_err());
        assert!(check_room(id, u32::MAX, u32::MAX, usize::MAX).is_ok());
    }
}
