//! Pipelines of `VK_KHR_ray_tracing_pipeline`, and the handles of their shader groups.
//!
//! The driver does not check the numbers of groups. So the number is kept for each pipeline, and
//! the GPU is asked for the size of a handle. Deferred operations exist in the guest's driver only:
//! it sends none, and what it defers is done here at once. Capture and replay of handles is not
//! possible, see [`crate::emulate::capture_replay`].

use std::sync::Arc;

use hesper_venus_protocol::call::Call;
use hesper_venus_protocol::command::{
    CreateRayTracingPipelinesKHR, GetPhysicalDeviceProperties2,
    GetRayTracingCaptureReplayShaderGroupHandlesKHR, GetRayTracingShaderGroupHandlesKHR,
    GetRayTracingShaderGroupStackSizeKHR,
};
use hesper_venus_protocol::runtime::Object;
use hesper_venus_protocol::{CommandId, vk};

use super::pipeline::several;
use super::shape::{Family, special};
use crate::fatal::Fatal;
use crate::object::shader_groups::groups;
use crate::session::{Session, call, name};

/// The commands of this file.
pub(super) const HANDLERS: Family = &[special!(
    CreateRayTracingPipelinesKHR => create,
    GetRayTracingShaderGroupHandlesKHR => group_handles,
    GetRayTracingCaptureReplayShaderGroupHandlesKHR => capture_handles,
    GetRayTracingShaderGroupStackSizeKHR => stack_size,
)];

/// `vkCreateRayTracingPipelinesKHR`
fn create(
    session: &mut Session<'_>,
    c: &mut CreateRayTracingPipelinesKHR<'_>,
) -> Result<vk::Result, Fatal> {
    // No command makes one, so this is null already. The driver must not defer what the reply
    // reports.
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
            device.shader_groups.insert(pipeline, count);
        },
    )
}

/// `vkGetRayTracingShaderGroupHandlesKHR`
fn group_handles(
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
fn capture_handles(
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
fn stack_size(
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
    let known = device.shader_groups.get(pipeline);
    let end = first.checked_add(count);
    match end.zip(known) {
        Some((end, known)) if end <= known => Ok(()),
        _ => Err(Fatal::Invalid {
            command: name(command),
            reason: "shader groups that the pipeline does not have",
        }),
    }
}

/// Drivers write as many handles as there are groups, and do not check that there is room.
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
    fn handles_need_the_room_that_the_gpu_says() {
        let id = CommandId::GetRayTracingShaderGroupHandlesKHR;
        assert!(check_room(id, 3, 48, 144).is_ok());
        assert!(check_room(id, 3, 48, 143).is_err());
        assert!(check_room(id, u32::MAX, u32::MAX, usize::MAX).is_ok());
    }
}
