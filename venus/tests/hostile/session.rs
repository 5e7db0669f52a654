//! A session of a correct guest: the material that hostile streams are made from.

use std::ptr::from_ref;

use hesper_venus_protocol::runtime::{Array, Command, Object};
use hesper_venus_protocol::{command, guest, vk};

pub use super::ids::{Id, object};
use super::{REPLIES, REPLY_RESOURCE};

/// A shader that reads and writes a storage buffer and takes constants.
const SHADER: &[u8] = include_bytes!("../../../tests/programs/client/shaders/scramble.comp.spv");
/// Size of the buffer.
const SIZE: u64 = 4096;

/// An image of 16 × 16 texels.
pub fn image(usage: vk::ImageUsageFlags) -> vk::ImageCreateInfo {
    vk::ImageCreateInfo {
        image_type: vk::ImageType::TYPE_2D,
        format: vk::Format::R8G8B8A8_UNORM,
        extent: vk::Extent3D {
            width: 16,
            height: 16,
            depth: 1,
        },
        mip_levels: 1,
        array_layers: 1,
        samples: vk::SampleCountFlags::COUNT_1,
        usage,
        ..Default::default()
    }
}

/// Commands one after the other, and where each begins.
#[derive(Clone, Debug, Default)]
pub struct Session {
    pub stream: Vec<u8>,
    pub starts: Vec<usize>,
}

impl Session {
    /// Appends a command.
    pub fn push<'a, C: Command<'a>>(&mut self, command: &C, reply: bool) -> &mut Self {
        self.starts.push(self.stream.len());
        // SAFETY: the arguments in this file and the tests point to live values.
        unsafe { guest::encode(command, reply, &mut self.stream) };
        self
    }

    /// The place for replies.
    pub fn reply_stream() -> Self {
        let mut session = Self::default();
        session.push(
            &command::SetReplyCommandStreamMESA {
                p_stream: &mut vk::CommandStreamDescriptionMESA {
                    resource_id: REPLY_RESOURCE,
                    offset: 0,
                    size: REPLIES,
                },
            },
            false,
        );
        session
    }

    /// A session up to a device and its queue on ring index 1.
    pub fn device() -> Self {
        let mut s = Self::reply_stream();
        let application = vk::ApplicationInfo {
            p_application_name: c"session".as_ptr(),
            api_version: 1 << 22 | 3 << 12,
            ..Default::default()
        };
        let mut info = vk::InstanceCreateInfo {
            p_application_info: &raw const application,
            ..Default::default()
        };
        s.push(
            &command::CreateInstance {
                p_create_info: &mut info,
                p_instance: &mut vk::Instance(Id::Instance as u64),
            },
            true,
        );
        s.push(
            &command::EnumeratePhysicalDevices {
                instance: object(Id::Instance),
                p_physical_device_count: &mut 1,
                p_physical_devices: [vk::PhysicalDevice(Id::Physical as u64)]
                    .as_mut_slice()
                    .into(),
            },
            true,
        );
        let mut vulkan12 = vk::PhysicalDeviceVulkan12Properties::default();
        let mut properties = vk::PhysicalDeviceProperties2 {
            p_next: (&raw mut vulkan12).cast(),
            ..Default::default()
        };
        s.push(
            &command::GetPhysicalDeviceProperties2 {
                physical_device: object(Id::Physical),
                p_properties: &mut properties,
            },
            true,
        );
        let priority = 1.0;
        let queues = vk::DeviceQueueCreateInfo {
            queue_count: 1,
            p_queue_priorities: &raw const priority,
            ..Default::default()
        };
        let mut features = vk::PhysicalDeviceTimelineSemaphoreFeatures {
            timeline_semaphore: 1,
            ..Default::default()
        };
        let mut info = vk::DeviceCreateInfo {
            p_next: (&raw mut features).cast(),
            queue_create_info_count: 1,
            p_queue_create_infos: &raw const queues,
            ..Default::default()
        };
        s.push(
            &command::CreateDevice {
                physical_device: object(Id::Physical),
                p_create_info: &mut info,
                p_device: &mut vk::Device(Id::Device as u64),
            },
            true,
        );
        let timeline = vk::DeviceQueueTimelineInfoMESA {
            ring_idx: 1,
            ..Default::default()
        };
        let mut info = vk::DeviceQueueInfo2 {
            p_next: (&raw const timeline).cast(),
            ..Default::default()
        };
        s.push(
            &command::GetDeviceQueue2 {
                device: object(Id::Device),
                p_queue_info: &mut info,
                p_queue: &mut vk::Queue(Id::Queue as u64),
            },
            true,
        );
        s
    }

    /// A whole session: memory, a compute pipeline, recording, submission, fence, queries.
    pub fn whole() -> Self {
        let mut s = Self::device();
        s.buffer();
        s.pipeline();
        s.descriptors();
        s.recording();
        s.rest();
        s
    }

    fn buffer(&mut self) {
        let mut info = vk::BufferCreateInfo {
            size: SIZE,
            usage: vk::BufferUsageFlags::TRANSFER_DST | vk::BufferUsageFlags::STORAGE_BUFFER,
            ..Default::default()
        };
        self.push(
            &command::CreateBuffer {
                device: object(Id::Device),
                p_create_info: &mut info,
                p_buffer: &mut vk::Buffer(Id::Buffer as u64),
            },
            true,
        );
        let mut info = vk::MemoryAllocateInfo {
            allocation_size: SIZE,
            ..Default::default()
        };
        self.push(
            &command::AllocateMemory {
                device: object(Id::Device),
                p_allocate_info: &mut info,
                p_memory: &mut vk::DeviceMemory(Id::Memory as u64),
            },
            true,
        );
        self.push(
            &command::BindBufferMemory {
                device: object(Id::Device),
                buffer: object(Id::Buffer),
                memory: object(Id::Memory),
                memory_offset: 0,
            },
            true,
        );
    }

    fn pipeline(&mut self) {
        let code: Vec<u32> = SHADER
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
            .collect();
        let mut info = vk::ShaderModuleCreateInfo {
            code_size: SHADER.len(),
            p_code: code.as_ptr(),
            ..Default::default()
        };
        self.push(
            &command::CreateShaderModule {
                device: object(Id::Device),
                p_create_info: &mut info,
                p_shader_module: &mut vk::ShaderModule(Id::Shader as u64),
            },
            false,
        );
        let binding = vk::DescriptorSetLayoutBinding {
            descriptor_type: vk::DescriptorType::STORAGE_BUFFER,
            descriptor_count: 1,
            stage_flags: vk::ShaderStageFlags::COMPUTE,
            ..Default::default()
        };
        let mut info = vk::DescriptorSetLayoutCreateInfo {
            binding_count: 1,
            p_bindings: &raw const binding,
            ..Default::default()
        };
        self.push(
            &command::CreateDescriptorSetLayout {
                device: object(Id::Device),
                p_create_info: &mut info,
                p_set_layout: &mut vk::DescriptorSetLayout(Id::SetLayout as u64),
            },
            false,
        );
        let layout = vk::DescriptorSetLayout(Id::SetLayout as u64);
        let range = vk::PushConstantRange {
            stage_flags: vk::ShaderStageFlags::COMPUTE,
            offset: 0,
            size: 8,
        };
        let mut info = vk::PipelineLayoutCreateInfo {
            set_layout_count: 1,
            p_set_layouts: &raw const layout,
            push_constant_range_count: 1,
            p_push_constant_ranges: &raw const range,
            ..Default::default()
        };
        self.push(
            &command::CreatePipelineLayout {
                device: object(Id::Device),
                p_create_info: &mut info,
                p_pipeline_layout: &mut vk::PipelineLayout(Id::PipelineLayout as u64),
            },
            false,
        );
        let entries = [
            vk::SpecializationMapEntry {
                constant_id: 0,
                offset: 0,
                size: 4,
            },
            vk::SpecializationMapEntry {
                constant_id: 1,
                offset: 4,
                size: 4,
            },
        ];
        let constants = [64u32, 2];
        let specialization = vk::SpecializationInfo {
            map_entry_count: 2,
            p_map_entries: entries.as_ptr(),
            data_size: 8,
            p_data: constants.as_ptr().cast(),
        };
        let mut info = vk::ComputePipelineCreateInfo {
            stage: vk::PipelineShaderStageCreateInfo {
                stage: vk::ShaderStageFlags::COMPUTE,
                module: vk::ShaderModule(Id::Shader as u64),
                p_name: c"main".as_ptr(),
                p_specialization_info: &raw const specialization,
                ..Default::default()
            },
            layout: vk::PipelineLayout(Id::PipelineLayout as u64),
            ..Default::default()
        };
        self.push(
            &command::CreateComputePipelines {
                device: object(Id::Device),
                pipeline_cache: Object::guest(0),
                create_info_count: 1,
                p_create_infos: std::slice::from_mut(&mut info).into(),
                p_pipelines: [vk::Pipeline(Id::Pipeline as u64)].as_mut_slice().into(),
            },
            true,
        );
    }

    fn descriptors(&mut self) {
        let size = vk::DescriptorPoolSize {
            ty: vk::DescriptorType::STORAGE_BUFFER,
            descriptor_count: 1,
        };
        let mut info = vk::DescriptorPoolCreateInfo {
            max_sets: 1,
            pool_size_count: 1,
            p_pool_sizes: &raw const size,
            ..Default::default()
        };
        self.push(
            &command::CreateDescriptorPool {
                device: object(Id::Device),
                p_create_info: &mut info,
                p_descriptor_pool: &mut vk::DescriptorPool(Id::DescriptorPool as u64),
            },
            false,
        );
        let layout = vk::DescriptorSetLayout(Id::SetLayout as u64);
        let mut info = vk::DescriptorSetAllocateInfo {
            descriptor_pool: vk::DescriptorPool(Id::DescriptorPool as u64),
            descriptor_set_count: 1,
            p_set_layouts: &raw const layout,
            ..Default::default()
        };
        self.push(
            &command::AllocateDescriptorSets {
                device: object(Id::Device),
                p_allocate_info: &mut info,
                p_descriptor_sets: [vk::DescriptorSet(Id::DescriptorSet as u64)]
                    .as_mut_slice()
                    .into(),
            },
            true,
        );
        let buffer = vk::DescriptorBufferInfo {
            buffer: vk::Buffer(Id::Buffer as u64),
            offset: 0,
            range: SIZE,
        };
        let mut write = vk::WriteDescriptorSet {
            dst_set: vk::DescriptorSet(Id::DescriptorSet as u64),
            descriptor_count: 1,
            descriptor_type: vk::DescriptorType::STORAGE_BUFFER,
            p_buffer_info: &raw const buffer,
            ..Default::default()
        };
        self.push(
            &command::UpdateDescriptorSets {
                device: object(Id::Device),
                descriptor_write_count: 1,
                p_descriptor_writes: std::slice::from_mut(&mut write).into(),
                descriptor_copy_count: 0,
                p_descriptor_copies: Array::NULL,
            },
            false,
        );
    }

    fn recording(&mut self) {
        let mut info = vk::CommandPoolCreateInfo::default();
        self.push(
            &command::CreateCommandPool {
                device: object(Id::Device),
                p_create_info: &mut info,
                p_command_pool: &mut vk::CommandPool(Id::CommandPool as u64),
            },
            false,
        );
        let mut info = vk::CommandBufferAllocateInfo {
            command_pool: vk::CommandPool(Id::CommandPool as u64),
            command_buffer_count: 1,
            ..Default::default()
        };
        self.push(
            &command::AllocateCommandBuffers {
                device: object(Id::Device),
                p_allocate_info: &mut info,
                p_command_buffers: [vk::CommandBuffer(Id::Commands as u64)]
                    .as_mut_slice()
                    .into(),
            },
            true,
        );
        let command_buffer = object(Id::Commands);
        self.push(
            &command::BeginCommandBuffer {
                command_buffer,
                p_begin_info: &mut vk::CommandBufferBeginInfo::default(),
            },
            false,
        );
        self.push(
            &command::CmdUpdateBuffer {
                command_buffer,
                dst_buffer: object(Id::Buffer),
                dst_offset: 0,
                data_size: 16,
                p_data: [7u8; 16].as_mut_slice().into(),
            },
            false,
        );
        let mut barrier = vk::MemoryBarrier {
            src_access_mask: vk::AccessFlags::TRANSFER_WRITE,
            dst_access_mask: vk::AccessFlags::SHADER_READ,
            ..Default::default()
        };
        self.push(
            &command::CmdPipelineBarrier {
                command_buffer,
                src_stage_mask: vk::PipelineStageFlags::TRANSFER,
                dst_stage_mask: vk::PipelineStageFlags::COMPUTE_SHADER,
                dependency_flags: vk::DependencyFlags::default(),
                memory_barrier_count: 1,
                p_memory_barriers: std::slice::from_mut(&mut barrier).into(),
                buffer_memory_barrier_count: 0,
                p_buffer_memory_barriers: Array::NULL,
                image_memory_barrier_count: 0,
                p_image_memory_barriers: Array::NULL,
            },
            false,
        );
        self.push(
            &command::CmdBindPipeline {
                command_buffer,
                pipeline_bind_point: vk::PipelineBindPoint::COMPUTE,
                pipeline: object(Id::Pipeline),
            },
            false,
        );
        self.push(
            &command::CmdBindDescriptorSets {
                command_buffer,
                pipeline_bind_point: vk::PipelineBindPoint::COMPUTE,
                layout: object(Id::PipelineLayout),
                first_set: 0,
                descriptor_set_count: 1,
                p_descriptor_sets: [vk::DescriptorSet(Id::DescriptorSet as u64)]
                    .as_mut_slice()
                    .into(),
                dynamic_offset_count: 0,
                p_dynamic_offsets: Array::NULL,
            },
            false,
        );
        self.push(
            &command::CmdPushConstants {
                command_buffer,
                layout: object(Id::PipelineLayout),
                stage_flags: vk::ShaderStageFlags::COMPUTE,
                offset: 0,
                size: 8,
                p_values: [64u8, 0, 0, 0, 9, 0, 0, 0].as_mut_slice().into(),
            },
            false,
        );
        self.push(
            &command::CmdDispatch {
                command_buffer,
                group_count_x: 1,
                group_count_y: 1,
                group_count_z: 1,
            },
            false,
        );
        self.push(&command::EndCommandBuffer { command_buffer }, false);
    }

    fn rest(&mut self) {
        let device = object(Id::Device);
        let mut info = vk::FenceCreateInfo::default();
        for id in [Id::Fence, Id::Gone] {
            self.push(
                &command::CreateFence {
                    device,
                    p_create_info: &mut info,
                    p_fence: &mut vk::Fence(id as u64),
                },
                false,
            );
        }
        let kind = vk::SemaphoreTypeCreateInfo {
            semaphore_type: vk::SemaphoreType::TIMELINE,
            ..Default::default()
        };
        let mut info = vk::SemaphoreCreateInfo {
            p_next: from_ref(&kind).cast(),
            ..Default::default()
        };
        self.push(
            &command::CreateSemaphore {
                device,
                p_create_info: &mut info,
                p_semaphore: &mut vk::Semaphore(Id::Semaphore as u64),
            },
            true,
        );
        let mut info = vk::EventCreateInfo::default();
        self.push(
            &command::CreateEvent {
                device,
                p_create_info: &mut info,
                p_event: &mut vk::Event(Id::Event as u64),
            },
            false,
        );
        let commands = vk::CommandBuffer(Id::Commands as u64);
        let mut submit = vk::SubmitInfo {
            command_buffer_count: 1,
            p_command_buffers: &raw const commands,
            ..Default::default()
        };
        self.push(
            &command::QueueSubmit {
                queue: object(Id::Queue),
                submit_count: 1,
                p_submits: std::slice::from_mut(&mut submit).into(),
                fence: object(Id::Fence),
            },
            true,
        );
        self.push(
            &command::WaitForFences {
                device,
                fence_count: 1,
                p_fences: [vk::Fence(Id::Fence as u64)].as_mut_slice().into(),
                wait_all: 1,
                timeout: 5_000_000_000,
            },
            true,
        );
        let mut info = vk::QueryPoolCreateInfo {
            query_type: vk::QueryType::OCCLUSION,
            query_count: 4,
            ..Default::default()
        };
        self.push(
            &command::CreateQueryPool {
                device,
                p_create_info: &mut info,
                p_query_pool: &mut vk::QueryPool(Id::QueryPool as u64),
            },
            false,
        );
        self.push(
            &command::GetQueryPoolResults {
                device,
                query_pool: object(Id::QueryPool),
                first_query: 0,
                query_count: 4,
                data_size: 32,
                p_data: [0; 32].as_mut_slice().into(),
                stride: 8,
                flags: vk::QueryResultFlags::RESULT_64,
            },
            true,
        );
        let mut info = vk::PipelineCacheCreateInfo::default();
        self.push(
            &command::CreatePipelineCache {
                device,
                p_create_info: &mut info,
                p_pipeline_cache: &mut vk::PipelineCache(Id::Cache as u64),
            },
            false,
        );
        self.push(
            &command::GetPipelineCacheData {
                device,
                pipeline_cache: object(Id::Cache),
                p_data_size: &mut 40,
                p_data: [0; 40].as_mut_slice().into(),
            },
            true,
        );
        let mut info = image(vk::ImageUsageFlags::SAMPLED);
        self.push(
            &command::CreateImage {
                device,
                p_create_info: &mut info,
                p_image: &mut vk::Image(Id::Image as u64),
            },
            true,
        );
        self.push(
            &command::DestroyFence {
                device,
                fence: object(Id::Gone),
            },
            false,
        );
    }
}
