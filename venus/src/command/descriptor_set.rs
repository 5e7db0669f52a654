//! `VkDescriptorSet` and `VkDescriptorPool`: sets are freed with their pool.

use hesper_venus_protocol::command::{
    AllocateDescriptorSets, CmdPushDescriptorSet, CmdPushDescriptorSet2, DestroyDescriptorPool,
    FreeDescriptorSets, ResetDescriptorPool, UpdateDescriptorSets,
};
use hesper_venus_protocol::runtime::{Handle, find};
use hesper_venus_protocol::{CommandId, vk};

use super::lifetime::{self, allocate_children, free_all_children, free_children};
use super::shape::{Family, create, destroy, forward, record, special};
use crate::fatal::Fatal;
use crate::host::GpuKind;
use crate::object::device::Device;
use crate::session::{Session, call, call_recorded};

/// The commands of this file.
pub(super) const HANDLERS: Family = &[
    special!(
        AllocateDescriptorSets => allocate,
        FreeDescriptorSets => free,
        ResetDescriptorPool => reset_pool,
        UpdateDescriptorSets => update,
        DestroyDescriptorPool => destroy_pool,
    ),
    record!(
        CmdPushDescriptorSet => push,
        CmdPushDescriptorSet2 => push2,
    ),
    create!(
        CreateDescriptorPool => p_descriptor_pool,
        CreateDescriptorSetLayout => p_set_layout,
        CreateDescriptorUpdateTemplate => p_descriptor_update_template,
    ),
    destroy!(
        DestroyDescriptorSetLayout => descriptor_set_layout,
        DestroyDescriptorUpdateTemplate => descriptor_update_template,
    ),
    forward!(GetDescriptorSetLayoutSupport),
];

/// `vkAllocateDescriptorSets`
fn allocate(
    session: &mut Session<'_>,
    c: &mut AllocateDescriptorSets<'_>,
) -> Result<vk::Result, Fatal> {
    let (pool, count) = (c.p_allocate_info.descriptor_pool, c.p_descriptor_sets.len());
    // A software driver keeps each set in pages of its own in this process.
    let device = session.device(CommandId::AllocateDescriptorSets)?;
    if device.physical.facts.gpu.kind == GpuKind::Cpu && !session.state.host_mappings.make(count) {
        session.state.complain(format_args!(
            "vkAllocateDescriptorSets fails: {count} more descriptor sets could be more mappings than this process may have; allow more \
             with sysctl vm.max_map_count"
        ));
        return Ok(vk::Result::ERROR_OUT_OF_POOL_MEMORY);
    }
    allocate_children(session, pool.raw(), c, |c| &mut c.p_descriptor_sets)
}

/// `vkFreeDescriptorSets`
fn free(session: &mut Session<'_>, c: &mut FreeDescriptorSets<'_>) -> Result<vk::Result, Fatal> {
    let pool = c.descriptor_pool.handle.raw();
    let ids = c.p_descriptor_sets.ids().to_vec();
    let freed = free_children::<_, vk::DescriptorSet>(session, pool, &ids, c)?;
    Ok(freed.unwrap_or(vk::Result::SUCCESS))
}

/// `vkResetDescriptorPool`
fn reset_pool(session: &mut Session<'_>, c: &mut ResetDescriptorPool) -> Result<vk::Result, Fatal> {
    let pool = c.descriptor_pool.handle.raw();
    let reset = free_all_children::<_, vk::DescriptorSet>(session, pool, c)?;
    Ok(reset.unwrap_or(vk::Result::SUCCESS))
}

/// `vkDestroyDescriptorPool`
fn destroy_pool(session: &mut Session<'_>, c: &mut DestroyDescriptorPool) -> Result<(), Fatal> {
    let command = CommandId::DestroyDescriptorPool;
    lifetime::destroy_pool::<_, vk::DescriptorSet>(session, command, c.descriptor_pool)
}

/// `vkUpdateDescriptorSets`
fn update(session: &mut Session<'_>, c: &mut UpdateDescriptorSets<'_>) -> Result<(), Fatal> {
    // The decoder allows a null set, since pushed descriptors have none. Here drivers read it.
    let is_whole = |write: &vk::WriteDescriptorSet| write.dst_set.raw() != 0 && has_contents(write);
    if !c.p_descriptor_writes.iter().all(is_whole) {
        return Err(incomplete("vkUpdateDescriptorSets"));
    }
    call(session, c)
}

/// `vkCmdPushDescriptorSet`
fn push(device: &Device, c: &mut CmdPushDescriptorSet<'_>) -> Result<(), Fatal> {
    if !c.p_descriptor_writes.iter().all(has_contents) {
        return Err(incomplete("vkCmdPushDescriptorSet"));
    }
    call_recorded(device, c)
}

/// `vkCmdPushDescriptorSet2`
fn push2(device: &Device, c: &mut CmdPushDescriptorSet2<'_>) -> Result<(), Fatal> {
    let info = &*c.p_push_descriptor_set_info;
    let writes = match info.p_descriptor_writes.is_null() {
        true => &[],
        // SAFETY: the decoder made an array of this many structs, or a null pointer.
        false => unsafe {
            std::slice::from_raw_parts(
                info.p_descriptor_writes,
                info.descriptor_write_count as usize,
            )
        },
    };
    if !writes.iter().all(has_contents) {
        return Err(incomplete("vkCmdPushDescriptorSet2"));
    }
    call_recorded(device, c)
}

#[cold]
fn incomplete(command: &'static str) -> Fatal {
    Fatal::Invalid {
        command,
        reason: "a write without a set, or without the descriptors of its type",
    }
}

/// Whether a write has what its type needs. The type alone decides which of its arrays are used, so
/// the decoder allows each of them to be null. Drivers read the one that they need.
fn has_contents(write: &vk::WriteDescriptorSet) -> bool {
    use vk::DescriptorType as Type;
    let count = write.descriptor_count;
    match write.descriptor_type {
        _ if count == 0 => true,
        Type::SAMPLER
        | Type::COMBINED_IMAGE_SAMPLER
        | Type::SAMPLED_IMAGE
        | Type::STORAGE_IMAGE
        | Type::INPUT_ATTACHMENT => !write.p_image_info.is_null(),
        Type::UNIFORM_TEXEL_BUFFER | Type::STORAGE_TEXEL_BUFFER => {
            !write.p_texel_buffer_view.is_null()
        }
        Type::UNIFORM_BUFFER
        | Type::STORAGE_BUFFER
        | Type::UNIFORM_BUFFER_DYNAMIC
        | Type::STORAGE_BUFFER_DYNAMIC => !write.p_buffer_info.is_null(),
        Type::INLINE_UNIFORM_BLOCK => {
            // SAFETY: the chain was decoded, and nobody else uses it.
            let block = unsafe { find::<vk::WriteDescriptorSetInlineUniformBlock>(write.p_next) };
            // The count is in bytes.
            block.is_some_and(|block| block.data_size >= count && !block.p_data.is_null())
        }
        Type::ACCELERATION_STRUCTURE_KHR => {
            // SAFETY: as above.
            let structures =
                unsafe { find::<vk::WriteDescriptorSetAccelerationStructureKHR>(write.p_next) };
            structures.is_some_and(|structures| {
                structures.acceleration_structure_count >= count
                    && !structures.p_acceleration_structures.is_null()
            })
        }
        // Of no extension that guests see.
        _ => false,
    }
}
