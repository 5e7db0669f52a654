//! `VkCommandBuffer` and `VkCommandPool`: buffers live and die with their pool.

use hesper_venus_protocol::command::{
    AllocateCommandBuffers, CmdDrawMultiEXT, CmdDrawMultiIndexedEXT, DestroyCommandPool,
    FreeCommandBuffers,
};
use hesper_venus_protocol::runtime::Handle;
use hesper_venus_protocol::{CommandId, vk};

use crate::command::destroy_one;
use crate::fatal::Fatal;
use crate::object::{adopt, disown, disown_all};
use crate::session::{Session, call};

/// `vkAllocateCommandBuffers`
pub(crate) fn allocate(
    session: &mut Session<'_>,
    c: &mut AllocateCommandBuffers<'_>,
) -> Result<vk::Result, Fatal> {
    let ids: Vec<u64> = c.p_command_buffers.iter().map(|id| id.raw()).collect();
    let pool = c.p_allocate_info.command_pool;
    let result = call(session, c)?;
    adopt(
        session,
        CommandId::AllocateCommandBuffers,
        pool.raw(),
        &ids,
        &mut c.p_command_buffers,
        result,
    )?;
    Ok(result)
}

/// `vkFreeCommandBuffers`
pub(crate) fn free(session: &mut Session<'_>, c: &mut FreeCommandBuffers<'_>) -> Result<(), Fatal> {
    disown::<vk::CommandBuffer>(
        session,
        CommandId::FreeCommandBuffers,
        c.command_pool.handle.raw(),
        c.p_command_buffers.ids(),
    )?;
    call(session, c)
}

/// `vkDestroyCommandPool`
pub(crate) fn destroy_pool(
    session: &mut Session<'_>,
    c: &mut DestroyCommandPool,
) -> Result<(), Fatal> {
    let pool = c.command_pool;
    if !pool.is_null() {
        disown_all::<vk::CommandBuffer>(session, CommandId::DestroyCommandPool, pool.handle.raw())?;
    }
    destroy_one(session, c, pool)
}

/// `vkCmdDrawMultiEXT`
pub(crate) fn draw_multi(
    session: &mut Session<'_>,
    c: &mut CmdDrawMultiEXT<'_>,
) -> Result<(), Fatal> {
    // The protocol repacks the draws, one behind the other.
    c.stride = size_of::<vk::MultiDrawInfoEXT>() as u32;
    call(session, c)
}

/// `vkCmdDrawMultiIndexedEXT`
pub(crate) fn draw_multi_indexed(
    session: &mut Session<'_>,
    c: &mut CmdDrawMultiIndexedEXT<'_>,
) -> Result<(), Fatal> {
    c.stride = size_of::<vk::MultiDrawIndexedInfoEXT>() as u32;
    call(session, c)
}
