//! `VkCommandBuffer` and `VkCommandPool`: command buffers are freed with their pool.

use hesper_venus_protocol::command::{
    AllocateCommandBuffers, DestroyCommandPool, FreeCommandBuffers, ResetCommandPool,
    TrimCommandPool,
};
use hesper_venus_protocol::runtime::Handle;
use hesper_venus_protocol::{CommandId, vk};

use super::lifetime::{self, allocate_children, free_children, with_pool};
use super::shape::{Family, create, forward, special};
use crate::fatal::Fatal;
use crate::session::Session;

/// The commands of this file.
pub(super) const HANDLERS: Family = &[
    special!(
        AllocateCommandBuffers => allocate,
        FreeCommandBuffers => free,
        DestroyCommandPool => destroy_pool,
        ResetCommandPool => reset_pool,
        TrimCommandPool => trim_pool,
    ),
    create!(
        CreateCommandPool => p_command_pool,
    ),
    forward!(BeginCommandBuffer, EndCommandBuffer, ResetCommandBuffer,),
];

/// `vkAllocateCommandBuffers`
fn allocate(
    session: &mut Session<'_>,
    c: &mut AllocateCommandBuffers<'_>,
) -> Result<vk::Result, Fatal> {
    let pool = c.p_allocate_info.command_pool;
    allocate_children(session, pool.raw(), c, |c| &mut c.p_command_buffers)
}

/// `vkFreeCommandBuffers`
fn free(session: &mut Session<'_>, c: &mut FreeCommandBuffers<'_>) -> Result<(), Fatal> {
    let pool = c.command_pool.handle.raw();
    let ids = c.p_command_buffers.ids().to_vec();
    free_children::<_, vk::CommandBuffer>(session, pool, &ids, c).map(|_| ())
}

/// `vkResetCommandPool`
fn reset_pool(session: &mut Session<'_>, c: &mut ResetCommandPool) -> Result<vk::Result, Fatal> {
    with_pool(session, c.command_pool.handle.raw(), c)
}

/// `vkTrimCommandPool`
fn trim_pool(session: &mut Session<'_>, c: &mut TrimCommandPool) -> Result<(), Fatal> {
    with_pool(session, c.command_pool.handle.raw(), c)
}

/// `vkDestroyCommandPool`
fn destroy_pool(session: &mut Session<'_>, c: &mut DestroyCommandPool) -> Result<(), Fatal> {
    let command = CommandId::DestroyCommandPool;
    lifetime::destroy_pool::<_, vk::CommandBuffer>(session, command, c.command_pool)
}
