//! Barriers and events of command buffers, within the guest's own queue families (see [`foreign`]).

use hesper_venus_protocol::call::{Call, DeviceTable};
use hesper_venus_protocol::command::{
    CmdPipelineBarrier, CmdPipelineBarrier2, CmdSetEvent2, CmdWaitEvents, CmdWaitEvents2,
};
use hesper_venus_protocol::runtime::Object;
use hesper_venus_protocol::vk;

use super::shape::{Family, record};
use crate::emulate::foreign;
use crate::fatal::Fatal;
use crate::object::device::Device;
use crate::object::mirrors::{self, Transfer};
use crate::session::call_recorded;

/// The commands of this file.
pub(super) const HANDLERS: Family = &[record!(
    CmdPipelineBarrier => pipeline_barrier,
    CmdPipelineBarrier2 => pipeline_barrier2,
    CmdWaitEvents => wait_events,
    CmdWaitEvents2 => wait_events2,
    CmdSetEvent2 => set_event2,
)];

/// Records a command, and then the copies of pictures that its barriers hand over.
#[inline(never)]
fn with_transfers<'m, C>(
    device: &Device,
    commands: Object<vk::CommandBuffer>,
    c: &mut C,
    transfers: &[Transfer],
) -> Result<(), Fatal>
where
    C: Call<'m, Table = DeviceTable, Return = ()>,
{
    call_recorded(device, c)?;
    if !transfers.is_empty() {
        mirrors::record(device, commands.handle, transfers);
    }
    Ok(())
}

/// `vkCmdPipelineBarrier`
#[inline(always)]
fn pipeline_barrier(device: &Device, c: &mut CmdPipelineBarrier<'_>) -> Result<(), Fatal> {
    foreign::localize(&mut c.p_buffer_memory_barriers);
    // Most devices have no mirror.
    if device.mirrors.is_empty() {
        foreign::localize(&mut c.p_image_memory_barriers);
        return call_recorded(device, c);
    }
    let transfers = foreign::take_transfers(&device.mirrors, &mut c.p_image_memory_barriers);
    foreign::localize(&mut c.p_image_memory_barriers);
    if !transfers.is_empty() {
        c.dst_stage_mask = c.dst_stage_mask | vk::PipelineStageFlags::TRANSFER;
    }
    with_transfers(device, c.command_buffer, c, &transfers)
}

/// `vkCmdPipelineBarrier2`
#[inline(always)]
fn pipeline_barrier2(device: &Device, c: &mut CmdPipelineBarrier2<'_>) -> Result<(), Fatal> {
    if device.mirrors.is_empty() {
        foreign::localize_dependency(c.p_dependency_info);
        return call_recorded(device, c);
    }
    let transfers = foreign::take_transfers_of(&device.mirrors, c.p_dependency_info);
    foreign::localize_dependency(c.p_dependency_info);
    with_transfers(device, c.command_buffer, c, &transfers)
}

/// `vkCmdWaitEvents`
fn wait_events(device: &Device, c: &mut CmdWaitEvents<'_>) -> Result<(), Fatal> {
    foreign::localize(&mut c.p_buffer_memory_barriers);
    let transfers = foreign::take_transfers(&device.mirrors, &mut c.p_image_memory_barriers);
    foreign::localize(&mut c.p_image_memory_barriers);
    if !transfers.is_empty() {
        c.dst_stage_mask = c.dst_stage_mask | vk::PipelineStageFlags::TRANSFER;
    }
    with_transfers(device, c.command_buffer, c, &transfers)
}

/// `vkCmdWaitEvents2`
fn wait_events2(device: &Device, c: &mut CmdWaitEvents2<'_>) -> Result<(), Fatal> {
    let mut transfers = Vec::new();
    for info in c.p_dependency_infos.iter_mut() {
        transfers.extend(foreign::take_transfers_of(&device.mirrors, info));
        foreign::localize_dependency(info);
    }
    with_transfers(device, c.command_buffer, c, &transfers)
}

/// `vkCmdSetEvent2`: its barriers must equal those of the wait, so they are rewritten in the same
/// way.
fn set_event2(device: &Device, c: &mut CmdSetEvent2<'_>) -> Result<(), Fatal> {
    // The wait records the copies.
    foreign::take_transfers_of(&device.mirrors, c.p_dependency_info);
    foreign::localize_dependency(c.p_dependency_info);
    call_recorded(device, c)
}
