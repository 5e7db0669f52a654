//! `VkCommandBuffer` and `VkCommandPool`: command buffers are freed with their pool.

use hesper_venus_protocol::command::{
    AllocateCommandBuffers, DestroyCommandPool, FreeCommandBuffers,
};
use hesper_venus_protocol::runtime::Handle;
use hesper_venus_protocol::{CommandId, vk};

use super::lifetime::destroy_object;
use super::lifetime::{enter_children, take_all_children, take_children};
use super::shape::{Family, create, forward, special};
use crate::fatal::Fatal;
use crate::session::{Session, call};

/// The commands of this file.
pub(super) const HANDLERS: Family = &[
    special!(
        AllocateCommandBuffers => allocate,
        FreeCommandBuffers => free,
        DestroyCommandPool => destroy_pool,
    ),
    create!(
        CreateCommandPool => p_command_pool,
    ),
    forward!(
        TrimCommandPool,
        ResetCommandPool,
        BeginCommandBuffer,
        EndCommandBuffer,
        ResetCommandBuffer,
    ),
];

/// `vkAllocateCommandBuffers`
fn allocate(
    session: &mut Session<'_>,
    c: &mut AllocateCommandBuffers<'_>,
) -> Result<vk::Result, Fatal> {
    let ids: Vec<u64> = c.p_command_buffers.iter().map(|id| id.raw()).collect();
    let pool = c.p_allocate_info.command_pool;
    let result = call(session, c)?;
    enter_children(
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
fn free(session: &mut Session<'_>, c: &mut FreeCommandBuffers<'_>) -> Result<(), Fatal> {
    take_children::<vk::CommandBuffer>(
        session,
        CommandId::FreeCommandBuffers,
        c.command_pool.handle.raw(),
        c.p_command_buffers.ids(),
    )?;
    call(session, c)
}

/// `vkDestroyCommandPool`
fn destroy_pool(session: &mut Session<'_>, c: &mut DestroyCommandPool) -> Result<(), Fatal> {
    let pool = c.command_pool;
    if !pool.is_null() {
        take_all_children::<vk::CommandBuffer>(
            session,
            CommandId::DestroyCommandPool,
            pool.handle.raw(),
        )?;
    }
    destroy_object(session, c, pool)
}
