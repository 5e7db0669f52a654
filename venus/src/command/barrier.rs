//! Barriers and events of command buffers, within the guest's own queue families (see [`foreign`]).

use hesper_venus_protocol::command::{
    CmdPipelineBarrier, CmdPipelineBarrier2, CmdSetEvent2, CmdWaitEvents, CmdWaitEvents2,
};

use super::shape::{Family, special};
use crate::emulate::foreign;
use crate::fatal::Fatal;
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
    foreign::localize(&mut c.p_image_memory_barriers);
    call(session, c)
}

/// `vkCmdPipelineBarrier2`
fn pipeline_barrier2(
    session: &mut Session<'_>,
    c: &mut CmdPipelineBarrier2<'_>,
) -> Result<(), Fatal> {
    foreign::localize_dependency(c.p_dependency_info);
    call(session, c)
}

/// `vkCmdWaitEvents`
fn wait_events(session: &mut Session<'_>, c: &mut CmdWaitEvents<'_>) -> Result<(), Fatal> {
    foreign::localize(&mut c.p_buffer_memory_barriers);
    foreign::localize(&mut c.p_image_memory_barriers);
    call(session, c)
}

/// `vkCmdWaitEvents2`
fn wait_events2(session: &mut Session<'_>, c: &mut CmdWaitEvents2<'_>) -> Result<(), Fatal> {
    c.p_dependency_infos
        .iter_mut()
        .for_each(foreign::localize_dependency);
    call(session, c)
}

/// `vkCmdSetEvent2`: its barriers must equal those of the wait, so they are rewritten in the same
/// way.
fn set_event2(session: &mut Session<'_>, c: &mut CmdSetEvent2<'_>) -> Result<(), Fatal> {
    foreign::localize_dependency(c.p_dependency_info);
    call(session, c)
}
