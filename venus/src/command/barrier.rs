//! Barriers and events of command buffers, within the guest's own queue families (see [`foreign`]).

use hesper_venus_protocol::command::{
    CmdPipelineBarrier, CmdPipelineBarrier2, CmdSetEvent2, CmdWaitEvents, CmdWaitEvents2,
};
use hesper_venus_protocol::runtime::Object;
use hesper_venus_protocol::{CommandId, vk};

use super::shape::{Family, special};
use crate::emulate::foreign;
use crate::fatal::Fatal;
use crate::object::mirrors::{self, Transfer};
use crate::session::{Session, call};

/// The commands of this file.
pub(super) const HANDLERS: Family = &[special!(
    CmdPipelineBarrier => pipeline_barrier,
    CmdPipelineBarrier2 => pipeline_barrier2,
    CmdWaitEvents => wait_events,
    CmdWaitEvents2 => wait_events2,
    CmdSetEvent2 => set_event2,
)];

/// `vkCmdPipelineBarrier`
fn pipeline_barrier(
    session: &mut Session<'_>,
    c: &mut CmdPipelineBarrier<'_>,
) -> Result<(), Fatal> {
    foreign::localize(&mut c.p_buffer_memory_barriers);
    let known = &session.device(CommandId::CmdPipelineBarrier)?.mirrors;
    let transfers = foreign::take_transfers(known, &mut c.p_image_memory_barriers);
    foreign::localize(&mut c.p_image_memory_barriers);
    if !transfers.is_empty() {
        c.dst_stage_mask = c.dst_stage_mask | vk::PipelineStageFlags::TRANSFER;
    }
    call(session, c)?;
    record(
        session,
        CommandId::CmdPipelineBarrier,
        c.command_buffer,
        &transfers,
    )
}

/// Records the copies of pictures that are handed over.
#[inline]
fn record(
    session: &mut Session<'_>,
    command: CommandId,
    commands: Object<vk::CommandBuffer>,
    transfers: &[Transfer],
) -> Result<(), Fatal> {
    if !transfers.is_empty() {
        mirrors::record(session.device(command)?, commands.handle, transfers);
    }
    Ok(())
}

/// `vkCmdPipelineBarrier2`
fn pipeline_barrier2(
    session: &mut Session<'_>,
    c: &mut CmdPipelineBarrier2<'_>,
) -> Result<(), Fatal> {
    let known = &session.device(CommandId::CmdPipelineBarrier2)?.mirrors;
    let transfers = foreign::take_transfers_of(known, c.p_dependency_info);
    foreign::localize_dependency(c.p_dependency_info);
    call(session, c)?;
    record(
        session,
        CommandId::CmdPipelineBarrier2,
        c.command_buffer,
        &transfers,
    )
}

/// `vkCmdWaitEvents`
fn wait_events(session: &mut Session<'_>, c: &mut CmdWaitEvents<'_>) -> Result<(), Fatal> {
    foreign::localize(&mut c.p_buffer_memory_barriers);
    let known = &session.device(CommandId::CmdWaitEvents)?.mirrors;
    let transfers = foreign::take_transfers(known, &mut c.p_image_memory_barriers);
    foreign::localize(&mut c.p_image_memory_barriers);
    if !transfers.is_empty() {
        c.dst_stage_mask = c.dst_stage_mask | vk::PipelineStageFlags::TRANSFER;
    }
    call(session, c)?;
    record(
        session,
        CommandId::CmdWaitEvents,
        c.command_buffer,
        &transfers,
    )
}

/// `vkCmdWaitEvents2`
fn wait_events2(session: &mut Session<'_>, c: &mut CmdWaitEvents2<'_>) -> Result<(), Fatal> {
    let known = &session.device(CommandId::CmdWaitEvents2)?.mirrors;
    let mut transfers = Vec::new();
    for info in c.p_dependency_infos.iter_mut() {
        transfers.extend(foreign::take_transfers_of(known, info));
        foreign::localize_dependency(info);
    }
    call(session, c)?;
    record(
        session,
        CommandId::CmdWaitEvents2,
        c.command_buffer,
        &transfers,
    )
}

/// `vkCmdSetEvent2`: its barriers must equal those of the wait, so they are rewritten in the same
/// way.
fn set_event2(session: &mut Session<'_>, c: &mut CmdSetEvent2<'_>) -> Result<(), Fatal> {
    let known = &session.device(CommandId::CmdSetEvent2)?.mirrors;
    // The wait records the copies.
    foreign::take_transfers_of(known, c.p_dependency_info);
    foreign::localize_dependency(c.p_dependency_info);
    call(session, c)
}
