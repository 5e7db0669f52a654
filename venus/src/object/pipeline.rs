//! `VkPipeline`: several at once, some of which may fail.

use std::sync::Arc;

use hesper_venus_protocol::call::Call;
use hesper_venus_protocol::command::{
    CreateComputePipelines, CreateGraphicsPipelines, CreateRayTracingPipelinesKHR,
    GetRayTracingCaptureReplayShaderGroupHandlesKHR, GetRayTracingShaderGroupHandlesKHR,
};
use hesper_venus_protocol::runtime::Handle;
use hesper_venus_protocol::vk;

use crate::dispatch::{Reach, Session, call};
use crate::fatal::Fatal;
use crate::object::leftover;
use crate::object::table::Entry;

/// `vkCreateGraphicsPipelines`
pub(crate) fn graphics(
    session: &mut Session<'_>,
    c: &mut CreateGraphicsPipelines<'_>,
) -> Result<vk::Result, Fatal> {
    several(session, c, |c| &mut c.p_pipelines)
}

/// `vkCreateComputePipelines`
pub(crate) fn compute(
    session: &mut Session<'_>,
    c: &mut CreateComputePipelines<'_>,
) -> Result<vk::Result, Fatal> {
    // The registry lets the layout be null, for descriptor heaps, which no guest sees; drivers look into it.
    if c.p_create_infos.iter().any(|info| info.layout.raw() == 0) {
        return Err(Fatal::Invalid {
            command: "vkCreateComputePipelines",
            reason: "a pipeline without a layout",
        });
    }
    several(session, c, |c| &mut c.p_pipelines)
}

/// `vkCreateRayTracingPipelinesKHR`
pub(crate) fn ray_tracing(
    session: &mut Session<'_>,
    c: &mut CreateRayTracingPipelinesKHR<'_>,
) -> Result<vk::Result, Fatal> {
    if !c.deferred_operation.is_null() {
        return Err(Fatal::Invalid {
            command: "vkCreateRayTracingPipelinesKHR",
            reason: "a deferred operation, which lives in the guest's driver only",
        });
    }
    several(session, c, |c| &mut c.p_pipelines)
}

/// Creates pipelines: those that the driver made get the guest's ids, those that failed go back as null.
fn several<'m, C>(
    session: &mut Session<'_>,
    c: &mut C,
    pipelines: impl for<'c> Fn(&'c mut C) -> &'c mut [vk::Pipeline],
) -> Result<vk::Result, Fatal>
where
    C: Call<'m, Return = vk::Result>,
    C::Table: Reach,
{
    let ids: Vec<u64> = pipelines(c).iter().map(|id| id.raw()).collect();
    // A driver that fails altogether may leave its outputs alone.
    pipelines(c).fill(vk::Pipeline::default());
    let result = call(session, c)?;
    let device = Arc::clone(session.device(C::ID)?);
    let mut entered = Ok(());
    for (slot, id) in pipelines(c).iter_mut().zip(ids) {
        if slot.raw() != 0 {
            let refused = session.state.objects.insert(device.owner, id, *slot);
            if refused.is_err() {
                // Nobody can name it, so nobody else would destroy it.
                let entry = Entry {
                    host: slot.raw(),
                    kind: vk::Pipeline::TYPE as u32,
                    owner: device.owner,
                };
                leftover::destroy_one(device.raw(), &entry);
            }
            entered = entered.and(refused);
            *slot = vk::Pipeline(id);
        }
    }
    entered.map(|()| result)
}

/// `vkGetRayTracingShaderGroupHandlesKHR`
pub(crate) fn group_handles(
    session: &mut Session<'_>,
    c: &mut GetRayTracingShaderGroupHandlesKHR<'_>,
) -> Result<vk::Result, Fatal> {
    check_room(
        c.group_count,
        c.data_size,
        "vkGetRayTracingShaderGroupHandlesKHR",
    )?;
    call(session, c)
}

/// `vkGetRayTracingCaptureReplayShaderGroupHandlesKHR`
pub(crate) fn capture_handles(
    session: &mut Session<'_>,
    c: &mut GetRayTracingCaptureReplayShaderGroupHandlesKHR<'_>,
) -> Result<vk::Result, Fatal> {
    check_room(
        c.group_count,
        c.data_size,
        "vkGetRayTracingCaptureReplayShaderGroupHandlesKHR",
    )?;
    call(session, c)
}

/// Drivers write as many handles as there are groups, and believe that there is room for them.
fn check_room(groups: u32, room: usize, command: &'static str) -> Result<(), Fatal> {
    /// `shaderGroupHandleSize` is 32 on every driver: the specification demands it.
    const HANDLE: u64 = 32;
    if u64::from(groups) * HANDLE > room as u64 {
        return Err(Fatal::Invalid {
            command,
            reason: "the handles do not fit into the memory for them",
        });
    }
    Ok(())
}
