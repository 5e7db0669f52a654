//! Which command is carried out how: the one table of all handlers.
//!
//! Most commands are one of three shapes. *Forward*: call the driver with the decoded arguments. *Create*: call the driver, then
//! enter the new handle under the id that the guest chose. *Destroy*: take the id out, then call the driver. The rest names its
//! function, which stands in the file of the object it is about. What is in none of the lists is fatal for
//! the context: those are commands that only the guest's driver carries out.

pub(crate) mod bind_memory;
pub(crate) mod command_buffer;
pub(crate) mod descriptor_set;
pub(crate) mod fence;
pub(crate) mod memory;
pub(crate) mod pipeline;
pub(crate) mod query_pool;
pub(crate) mod ray_tracing;
pub(crate) mod semaphore;
pub(crate) mod transport;

use hesper_venus_protocol::call::{Call, DeviceTable};
use hesper_venus_protocol::runtime::{Command, Decoder, Handle, Object};
use hesper_venus_protocol::{COMMAND_COUNT, CommandId, command, vk};

use crate::emulate::{dma_buf, foreign, modifier, sparse, sync_fd};
use crate::fatal::Fatal;
use crate::object::table::Entry;
use crate::object::{device, host_copy, instance, physical_device, queue, teardown};
use crate::session::{Handler, Outcome, Reach, Session, call, handle, name};

/// The handlers, by command number.
pub(crate) static HANDLERS: [Option<Handler>; COMMAND_COUNT] = table();

/// Calls the driver.
#[inline]
fn forward<'m, C: Call<'m>>(session: &mut Session<'_>, decoder: &mut Decoder<'m>) -> bool
where
    C::Return: Outcome,
    C::Table: Reach,
{
    handle::<C>(session, decoder, |session, c| call(session, c))
}

/// Creates an object of a device: calls the driver, enters what it made, and puts the guest's id back for the reply. The
/// driver's handle comes back, too, if there is one.
#[inline]
pub(crate) fn create_one<'m, C, H>(
    session: &mut Session<'_>,
    c: &mut C,
    place: impl for<'c> Fn(&'c mut C) -> &'c mut H,
) -> Result<(vk::Result, Option<H>), Fatal>
where
    C: Call<'m, Return = vk::Result, Table = DeviceTable>,
    H: Handle,
{
    let id = *place(c);
    let result = call(session, c)?;
    let host = std::mem::replace(place(c), id);
    if result != vk::Result::SUCCESS {
        session.remember_failed(id);
        return Ok((result, None));
    }
    let device = session.device(C::ID)?;
    let owner = device.owner;
    if let Err(fatal) = session.state.objects.insert(owner, id.raw(), host) {
        // Nobody can name it, so nobody else would destroy it.
        let entry = Entry {
            host: host.raw(),
            kind: H::TYPE as u32,
            owner,
        };
        teardown::destroy_one(session.device(C::ID)?.raw(), &entry);
        return Err(fatal);
    }
    Ok((result, Some(host)))
}

/// Destroys an object of a device. Null is allowed and does nothing.
#[inline]
pub(crate) fn destroy_one<'m, C, H>(
    session: &mut Session<'_>,
    c: &mut C,
    object: Object<H>,
) -> Result<(), Fatal>
where
    C: Call<'m, Return = (), Table = DeviceTable>,
    H: Handle,
{
    if object.is_null() {
        return Ok(());
    }
    take(session, object, C::ID)?;
    call(session, c)
}

/// Takes an object out that is about to be destroyed. Who takes it out destroys it: another ring may have been faster, and
/// may even have made another object under its id.
#[inline]
pub(crate) fn take<H: Handle>(
    session: &Session<'_>,
    object: Object<H>,
    command: CommandId,
) -> Result<(), Fatal> {
    if session.state.objects.remove_exactly(object) {
        return Ok(());
    }
    let reason = "the object is being destroyed twice";
    Err(Fatal::Invalid {
        command: name(command),
        reason,
    })
}

/// Whether bytes for `count` elements of `size` each fit into `room`.
fn fits(count: u32, size: u64, room: usize) -> bool {
    u64::from(count)
        .checked_mul(size)
        .is_some_and(|bytes| bytes <= room as u64)
}

/// `vkWriteAccelerationStructuresPropertiesKHR`
fn write_properties(
    session: &mut Session<'_>,
    c: &mut command::WriteAccelerationStructuresPropertiesKHR<'_>,
) -> Result<vk::Result, Fatal> {
    if !fits(
        c.acceleration_structure_count,
        c.stride as u64,
        c.p_data.len(),
    ) || c.stride < 8
    {
        return Err(Fatal::Invalid {
            command: name(command_id(c)),
            reason: "the properties do not fit",
        });
    }
    call(session, c)
}

fn command_id<'m, C: Command<'m>>(_: &C) -> CommandId {
    C::ID
}

/// Gives a closure the type of a handler.
const fn handler(handler: Handler) -> Option<Handler> {
    Some(handler)
}

#[expect(
    clippy::indexing_slicing,
    reason = "evaluated by the compiler, which checks every index"
)]
const fn table() -> [Option<Handler>; COMMAND_COUNT] {
    let mut table: [Option<Handler>; COMMAND_COUNT] = [None; COMMAND_COUNT];

    macro_rules! forward {
        ($($command:ident),* $(,)?) => {
            $(table[CommandId::$command as usize] = handler(|s, d| forward::<command::$command>(s, d));)*
        };
    }
    macro_rules! create {
        ($($command:ident $place:ident),* $(,)?) => {
            $(table[CommandId::$command as usize] = handler(|s, d| {
                handle::<command::$command>(s, d, |s, c| {
                    create_one(s, c, |c| &mut *c.$place).map(|(result, _)| result)
                })
            });)*
        };
    }
    macro_rules! destroy {
        ($($command:ident $object:ident),* $(,)?) => {
            $(table[CommandId::$command as usize] = handler(|s, d| {
                handle::<command::$command>(s, d, |s, c| {
                    let object = c.$object;
                    destroy_one(s, c, object)
                })
            });)*
        };
    }
    macro_rules! of_extension {
        ($($command:ident $extension:literal),* $(,)?) => {
            $(table[CommandId::$command as usize] = handler(|s, d| {
                handle::<command::$command>(s, d, |s, c| {
                    physical_device::require(s, CommandId::$command, c.physical_device.handle, $extension)?;
                    call(s, c)
                })
            });)*
        };
    }
    macro_rules! special {
        ($($command:ident $function:path),* $(,)?) => {
            $(table[CommandId::$command as usize] = handler(|s, d| {
                handle::<command::$command>(s, d, |s, c| $function(s, c))
            });)*
        };
    }

    special!(
        SetReplyCommandStreamMESA transport::set_reply,
        SeekReplyCommandStreamMESA transport::seek_reply,
        ExecuteCommandStreamsMESA transport::execute,
        CreateRingMESA transport::create_ring,
        DestroyRingMESA transport::destroy_ring,
        NotifyRingMESA transport::notify_ring,
        WriteRingExtraMESA transport::write_extra,
        SubmitVirtqueueSeqnoMESA transport::submit_virtqueue_seqno,
        WaitVirtqueueSeqnoMESA transport::wait_virtqueue_seqno,
        WaitRingSeqnoMESA transport::wait_ring_seqno,
    );
    special!(
        EnumerateInstanceVersion instance::enumerate_version,
        EnumerateInstanceExtensionProperties instance::extensions,
        CreateInstance instance::create,
        DestroyInstance instance::destroy,
        EnumeratePhysicalDevices physical_device::enumerate,
        EnumeratePhysicalDeviceGroups physical_device::groups,
        EnumerateDeviceExtensionProperties physical_device::extensions,
        GetPhysicalDeviceProperties physical_device::properties,
        GetPhysicalDeviceProperties2 physical_device::properties2,
        GetPhysicalDeviceMemoryProperties physical_device::memory_properties,
        GetPhysicalDeviceMemoryProperties2 physical_device::memory_properties2,
        GetPhysicalDeviceExternalFenceProperties sync_fd::fence_properties,
        GetPhysicalDeviceExternalSemaphoreProperties sync_fd::semaphore_properties,
    );
    special!(
        GetPhysicalDeviceFeatures sparse::features,
        GetPhysicalDeviceFeatures2 sparse::features2,
        GetPhysicalDeviceImageFormatProperties sparse::image_format,
        GetPhysicalDeviceQueueFamilyProperties sparse::queue_families,
        GetPhysicalDeviceQueueFamilyProperties2 sparse::queue_families2,
        GetPhysicalDeviceSparseImageFormatProperties sparse::sparse_image_format,
        GetPhysicalDeviceSparseImageFormatProperties2 sparse::sparse_image_format2,
    );
    forward!(GetPhysicalDeviceFormatProperties);
    special!(
        GetPhysicalDeviceCalibrateableTimeDomainsKHR physical_device::time_domains,
    );
    of_extension!(
        GetPhysicalDeviceMultisamplePropertiesEXT c"VK_EXT_sample_locations",
        GetPhysicalDeviceFragmentShadingRatesKHR c"VK_KHR_fragment_shading_rate",
        GetPhysicalDeviceCooperativeMatrixPropertiesKHR c"VK_KHR_cooperative_matrix",
        GetPhysicalDeviceDescriptorSizeEXT c"VK_EXT_descriptor_heap",
    );

    special!(
        GetPhysicalDeviceExternalBufferProperties dma_buf::buffer_properties,
        GetPhysicalDeviceFormatProperties2 modifier::format_properties,
        GetPhysicalDeviceImageFormatProperties2 modifier::image_format_properties,
        CreateBuffer dma_buf::create_buffer,
        DestroyBuffer dma_buf::destroy_buffer,
        CreateImage modifier::create_image,
        DestroyImage dma_buf::destroy_image,
        GetBufferMemoryRequirements dma_buf::buffer_requirements,
        GetBufferMemoryRequirements2 dma_buf::buffer_requirements2,
        GetImageMemoryRequirements dma_buf::image_requirements,
        GetImageMemoryRequirements2 dma_buf::image_requirements2,
        GetDeviceBufferMemoryRequirements dma_buf::device_buffer_requirements,
        GetDeviceImageMemoryRequirements dma_buf::device_image_requirements,
        GetImageDrmFormatModifierPropertiesEXT modifier::image_modifier,
        GetImageSubresourceLayout modifier::subresource_layout,
        GetImageSubresourceLayout2 modifier::subresource_layout2,
        GetDeviceImageSubresourceLayout modifier::device_subresource_layout,
        CmdPipelineBarrier foreign::pipeline_barrier,
        CmdPipelineBarrier2 foreign::pipeline_barrier2,
        CmdWaitEvents foreign::wait_events,
        CmdWaitEvents2 foreign::wait_events2,
        CmdSetEvent2 foreign::set_event2,
    );
    special!(
        CreateDevice device::create,
        DestroyDevice device::destroy,
        DeviceWaitIdle device::wait,
        GetDeviceQueue queue::get,
        GetDeviceQueue2 queue::get2,
        QueueSubmit queue::submit,
        QueueSubmit2 queue::submit2,
        QueueBindSparse queue::bind_sparse,
        QueueWaitIdle queue::wait_idle,
        AllocateMemory memory::allocate,
        FreeMemory memory::free,
        BindBufferMemory bind_memory::bind_buffer,
        BindBufferMemory2 bind_memory::bind_buffers,
        BindImageMemory bind_memory::bind_image,
        BindImageMemory2 bind_memory::bind_images,
        GetMemoryResourcePropertiesMESA memory::resource_properties,
        CreateFence fence::create,
        WaitForFences fence::wait,
        ResetFenceResourceMESA fence::reset_resource,
        CreateSemaphore semaphore::create,
        DestroySemaphore semaphore::destroy,
        WaitSemaphores semaphore::wait,
        ImportSemaphoreResourceMESA sync_fd::import_semaphore,
        WaitSemaphoreResourceMESA sync_fd::wait_semaphore,
        CreateQueryPool query_pool::create,
        DestroyQueryPool query_pool::destroy,
        GetQueryPoolResults query_pool::results,
        AllocateDescriptorSets descriptor_set::allocate,
        FreeDescriptorSets descriptor_set::free,
        ResetDescriptorPool descriptor_set::reset_pool,
        UpdateDescriptorSets descriptor_set::update,
        DestroyDescriptorPool descriptor_set::destroy_pool,
        AllocateCommandBuffers command_buffer::allocate,
        FreeCommandBuffers command_buffer::free,
        DestroyCommandPool command_buffer::destroy_pool,
        CreateGraphicsPipelines pipeline::graphics,
        CreateComputePipelines pipeline::compute,
        DestroyPipeline pipeline::destroy,
        GetPipelineCacheData pipeline::cache_data,
        CreateRayTracingPipelinesKHR ray_tracing::create,
        GetRayTracingShaderGroupHandlesKHR ray_tracing::group_handles,
        GetRayTracingCaptureReplayShaderGroupHandlesKHR ray_tracing::capture_handles,
        GetRayTracingShaderGroupStackSizeKHR ray_tracing::stack_size,
        WriteAccelerationStructuresPropertiesKHR write_properties,
        CopyImageToMemoryMESA host_copy::image_to_memory,
        CopyMemoryToImageMESA host_copy::memory_to_image,
    );
    create!(
        CreateEvent p_event,
        CreateBufferView p_view,
        CreateImageView p_view,
        CreateShaderModule p_shader_module,
        CreatePipelineCache p_pipeline_cache,
        CreatePipelineLayout p_pipeline_layout,
        CreateSampler p_sampler,
        CreateSamplerYcbcrConversion p_ycbcr_conversion,
        CreateDescriptorSetLayout p_set_layout,
        CreateDescriptorPool p_descriptor_pool,
        CreateDescriptorUpdateTemplate p_descriptor_update_template,
        CreateFramebuffer p_framebuffer,
        CreateRenderPass p_render_pass,
        CreateRenderPass2 p_render_pass,
        CreateCommandPool p_command_pool,
        CreatePrivateDataSlot p_private_data_slot,
        CreateAccelerationStructureKHR p_acceleration_structure,
    );
    destroy!(
        DestroyFence fence,
        DestroyEvent event,
        DestroyBufferView buffer_view,
        DestroyImageView image_view,
        DestroyShaderModule shader_module,
        DestroyPipelineCache pipeline_cache,
        DestroyPipelineLayout pipeline_layout,
        DestroySampler sampler,
        DestroySamplerYcbcrConversion ycbcr_conversion,
        DestroyDescriptorSetLayout descriptor_set_layout,
        DestroyDescriptorUpdateTemplate descriptor_update_template,
        DestroyFramebuffer framebuffer,
        DestroyRenderPass render_pass,
        DestroyPrivateDataSlot private_data_slot,
        DestroyAccelerationStructureKHR acceleration_structure,
    );
    forward!(
        GetDeviceMemoryCommitment,
        GetDeviceMemoryOpaqueCaptureAddress,
        GetImageSparseMemoryRequirements,
        GetImageSparseMemoryRequirements2,
        GetDeviceImageSparseMemoryRequirements,
        GetDeviceGroupPeerMemoryFeatures,
        GetBufferDeviceAddress,
        GetBufferOpaqueCaptureAddress,
        GetImageOpaqueCaptureDataEXT,
        GetRenderAreaGranularity,
        GetRenderingAreaGranularity,
        GetDescriptorSetLayoutSupport,
        ResetFences,
        GetFenceStatus,
        GetSemaphoreCounterValue,
        SignalSemaphore,
        GetEventStatus,
        SetEvent,
        ResetEvent,
        ResetQueryPool,
        MergePipelineCaches,
        TrimCommandPool,
        ResetCommandPool,
        BeginCommandBuffer,
        EndCommandBuffer,
        ResetCommandBuffer,
        GetCalibratedTimestampsKHR,
        GetAccelerationStructureBuildSizesKHR,
        GetAccelerationStructureDeviceAddressKHR,
        GetDeviceAccelerationStructureCompatibilityKHR,
        CopyImageToImage,
        TransitionImageLayout,
        RegisterCustomBorderColorEXT,
        UnregisterCustomBorderColorEXT,
    );
    forward!(
        CmdBeginConditionalRenderingEXT,
        CmdBeginQuery,
        CmdBeginQueryIndexedEXT,
        CmdBeginRendering,
        CmdBeginRenderPass,
        CmdBeginRenderPass2,
        CmdBeginTransformFeedbackEXT,
        CmdBindDescriptorSets,
        CmdBindDescriptorSets2,
        CmdBindIndexBuffer,
        CmdBindIndexBuffer2,
        CmdBindPipeline,
        CmdBindResourceHeapEXT,
        CmdBindSamplerHeapEXT,
        CmdBindTransformFeedbackBuffersEXT,
        CmdBindVertexBuffers,
        CmdBindVertexBuffers2,
        CmdBlitImage,
        CmdBlitImage2,
        CmdBuildAccelerationStructuresIndirectKHR,
        CmdBuildAccelerationStructuresKHR,
        CmdClearAttachments,
        CmdClearColorImage,
        CmdClearDepthStencilImage,
        CmdCopyAccelerationStructureKHR,
        CmdCopyAccelerationStructureToMemoryKHR,
        CmdCopyBuffer,
        CmdCopyBuffer2,
        CmdCopyBufferToImage,
        CmdCopyBufferToImage2,
        CmdCopyImage,
        CmdCopyImage2,
        CmdCopyImageToBuffer,
        CmdCopyImageToBuffer2,
        CmdCopyMemoryToAccelerationStructureKHR,
        CmdCopyQueryPoolResults,
        CmdDispatch,
        CmdDispatchBase,
        CmdDispatchIndirect,
        CmdDraw,
        CmdDrawIndexed,
        CmdDrawIndexedIndirect,
        CmdDrawIndexedIndirectCount,
        CmdDrawIndirect,
        CmdDrawIndirectByteCountEXT,
        CmdDrawIndirectCount,
        CmdDrawMeshTasksEXT,
        CmdDrawMeshTasksIndirectCountEXT,
        CmdDrawMeshTasksIndirectEXT,
        CmdEndConditionalRenderingEXT,
        CmdEndQuery,
        CmdEndQueryIndexedEXT,
        CmdEndRendering,
        CmdEndRenderPass,
        CmdEndRenderPass2,
        CmdEndTransformFeedbackEXT,
        CmdExecuteCommands,
        CmdFillBuffer,
        CmdNextSubpass,
        CmdNextSubpass2,
        CmdPushConstants,
        CmdPushConstants2,
        CmdPushDataEXT,
        CmdResetEvent,
        CmdResetEvent2,
        CmdResetQueryPool,
        CmdResolveImage,
        CmdResolveImage2,
        CmdTraceRaysIndirect2KHR,
        CmdTraceRaysIndirectKHR,
        CmdTraceRaysKHR,
        CmdUpdateBuffer,
        CmdWriteAccelerationStructuresPropertiesKHR,
        CmdWriteTimestamp,
        CmdWriteTimestamp2,
    );
    forward!(
        CmdSetAlphaToCoverageEnableEXT,
        CmdSetAlphaToOneEnableEXT,
        CmdSetAttachmentFeedbackLoopEnableEXT,
        CmdSetBlendConstants,
        CmdSetColorBlendAdvancedEXT,
        CmdSetColorBlendEnableEXT,
        CmdSetColorBlendEquationEXT,
        CmdSetColorWriteEnableEXT,
        CmdSetColorWriteMaskEXT,
        CmdSetConservativeRasterizationModeEXT,
        CmdSetCullMode,
        CmdSetDepthBias,
        CmdSetDepthBias2EXT,
        CmdSetDepthBiasEnable,
        CmdSetDepthBounds,
        CmdSetDepthBoundsTestEnable,
        CmdSetDepthClampEnableEXT,
        CmdSetDepthClampRangeEXT,
        CmdSetDepthClipEnableEXT,
        CmdSetDepthClipNegativeOneToOneEXT,
        CmdSetDepthCompareOp,
        CmdSetDepthTestEnable,
        CmdSetDepthWriteEnable,
        CmdSetDeviceMask,
        CmdSetEvent,
        CmdSetExtraPrimitiveOverestimationSizeEXT,
        CmdSetFragmentShadingRateKHR,
        CmdSetFrontFace,
        CmdSetLineRasterizationModeEXT,
        CmdSetLineStipple,
        CmdSetLineStippleEnableEXT,
        CmdSetLineWidth,
        CmdSetLogicOpEnableEXT,
        CmdSetLogicOpEXT,
        CmdSetPatchControlPointsEXT,
        CmdSetPolygonModeEXT,
        CmdSetPrimitiveRestartEnable,
        CmdSetPrimitiveTopology,
        CmdSetProvokingVertexModeEXT,
        CmdSetRasterizationSamplesEXT,
        CmdSetRasterizationStreamEXT,
        CmdSetRasterizerDiscardEnable,
        CmdSetRayTracingPipelineStackSizeKHR,
        CmdSetRenderingAttachmentLocations,
        CmdSetRenderingInputAttachmentIndices,
        CmdSetSampleLocationsEnableEXT,
        CmdSetSampleLocationsEXT,
        CmdSetSampleMaskEXT,
        CmdSetScissor,
        CmdSetScissorWithCount,
        CmdSetStencilCompareMask,
        CmdSetStencilOp,
        CmdSetStencilReference,
        CmdSetStencilTestEnable,
        CmdSetStencilWriteMask,
        CmdSetTessellationDomainOriginEXT,
        CmdSetVertexInputEXT,
        CmdSetViewport,
        CmdSetViewportWithCount,
    );
    special!(
        CmdDrawMultiEXT command_buffer::draw_multi,
        CmdDrawMultiIndexedEXT command_buffer::draw_multi_indexed,
        CmdPushDescriptorSet descriptor_set::push,
        CmdPushDescriptorSet2 descriptor_set::push2,
    );
    table
}
