//! A compute shader and all that it takes to run it, as streams without replies.

use hesper_venus_protocol::runtime::Object;
use hesper_venus_protocol::{command, vk};

use crate::{Gpu, RING, bytes};

/// The streams that run a shader once.
pub struct Run {
    /// Makes the shader module.
    pub shader: Vec<u8>,
    /// Makes a pipeline and a command buffer with one dispatch.
    pub recording: Vec<u8>,
    /// Submits the command buffer.
    pub submission: Vec<u8>,
}

impl Run {
    /// Everything in one stream.
    pub fn whole(self) -> Vec<u8> {
        [self.shader, self.recording, self.submission].concat()
    }
}

/// Takes a compute shader without descriptors, and its eight bytes of push constants. `id` gives
/// fresh object ids.
pub fn run(gpu: &Gpu, mut id: impl FnMut() -> u64, shader: &[u8], mut constants: [u8; 8]) -> Run {
    let device = Object::guest(gpu.device);
    let [module, layout, pipeline, pool, commands] = std::array::from_fn(|_| id());
    let code: Vec<u32> = shader
        .chunks_exact(4)
        .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
        .collect();
    let shader = bytes(&command::CreateShaderModule {
        device,
        p_create_info: &mut vk::ShaderModuleCreateInfo {
            code_size: shader.len(),
            p_code: code.as_ptr(),
            ..Default::default()
        },
        p_shader_module: &mut vk::ShaderModule(module),
    });
    let stage_flags = vk::ShaderStageFlags::COMPUTE;
    let range = vk::PushConstantRange {
        stage_flags,
        offset: 0,
        size: 8,
    };
    let mut pipeline_info = vk::ComputePipelineCreateInfo {
        stage: vk::PipelineShaderStageCreateInfo {
            stage: stage_flags,
            module: vk::ShaderModule(module),
            p_name: c"main".as_ptr(),
            ..Default::default()
        },
        layout: vk::PipelineLayout(layout),
        ..Default::default()
    };
    let command_buffer = Object::guest(commands);
    let recording = [
        bytes(&command::CreatePipelineLayout {
            device,
            p_create_info: &mut vk::PipelineLayoutCreateInfo {
                push_constant_range_count: 1,
                p_push_constant_ranges: &raw const range,
                ..Default::default()
            },
            p_pipeline_layout: &mut vk::PipelineLayout(layout),
        }),
        bytes(&command::CreateComputePipelines {
            device,
            pipeline_cache: Object::guest(0),
            create_info_count: 1,
            p_create_infos: std::slice::from_mut(&mut pipeline_info).into(),
            p_pipelines: [vk::Pipeline(pipeline)].as_mut_slice().into(),
        }),
        bytes(&command::CreateCommandPool {
            device,
            p_create_info: &mut vk::CommandPoolCreateInfo::default(),
            p_command_pool: &mut vk::CommandPool(pool),
        }),
        bytes(&command::AllocateCommandBuffers {
            device,
            p_allocate_info: &mut vk::CommandBufferAllocateInfo {
                command_pool: vk::CommandPool(pool),
                command_buffer_count: 1,
                ..Default::default()
            },
            p_command_buffers: [vk::CommandBuffer(commands)].as_mut_slice().into(),
        }),
        bytes(&command::BeginCommandBuffer {
            command_buffer,
            p_begin_info: &mut vk::CommandBufferBeginInfo::default(),
        }),
        bytes(&command::CmdBindPipeline {
            command_buffer,
            pipeline_bind_point: vk::PipelineBindPoint::COMPUTE,
            pipeline: Object::guest(pipeline),
        }),
        bytes(&command::CmdPushConstants {
            command_buffer,
            layout: Object::guest(layout),
            stage_flags,
            offset: 0,
            size: 8,
            p_values: constants.as_mut_slice().into(),
        }),
        bytes(&command::CmdDispatch {
            command_buffer,
            group_count_x: 1,
            group_count_y: 1,
            group_count_z: 1,
        }),
        bytes(&command::EndCommandBuffer { command_buffer }),
    ]
    .concat();
    let commands = vk::CommandBuffer(commands);
    let mut submit = vk::SubmitInfo {
        command_buffer_count: 1,
        p_command_buffers: &raw const commands,
        ..Default::default()
    };
    let submission = bytes(&command::QueueSubmit {
        queue: Object::guest(gpu.queue),
        submit_count: 1,
        p_submits: std::slice::from_mut(&mut submit).into(),
        fence: Object::guest(0),
    });
    Run {
        shader,
        recording,
        submission,
    }
}

/// The stream that makes what [`crate::VenusGuest::gpu`] does.
pub fn gpu(mut id: impl FnMut() -> u64) -> (Gpu, Vec<u8>) {
    let gpu = Gpu {
        instance: id(),
        physical: id(),
        device: id(),
        queue: id(),
    };
    let application = vk::ApplicationInfo {
        api_version: 1 << 22 | 3 << 12,
        ..Default::default()
    };
    let priority = 1.0;
    let queues = vk::DeviceQueueCreateInfo {
        queue_count: 1,
        p_queue_priorities: &raw const priority,
        ..Default::default()
    };
    let timeline = vk::DeviceQueueTimelineInfoMESA {
        ring_idx: u32::from(RING),
        ..Default::default()
    };
    let stream = [
        bytes(&command::CreateInstance {
            p_create_info: &mut vk::InstanceCreateInfo {
                p_application_info: &raw const application,
                ..Default::default()
            },
            p_instance: &mut vk::Instance(gpu.instance),
        }),
        bytes(&command::EnumeratePhysicalDevices {
            instance: Object::guest(gpu.instance),
            p_physical_device_count: &mut 1,
            p_physical_devices: [vk::PhysicalDevice(gpu.physical)].as_mut_slice().into(),
        }),
        bytes(&command::CreateDevice {
            physical_device: Object::guest(gpu.physical),
            p_create_info: &mut vk::DeviceCreateInfo {
                queue_create_info_count: 1,
                p_queue_create_infos: &raw const queues,
                ..Default::default()
            },
            p_device: &mut vk::Device(gpu.device),
        }),
        bytes(&command::GetDeviceQueue2 {
            device: Object::guest(gpu.device),
            p_queue_info: &mut vk::DeviceQueueInfo2 {
                p_next: (&raw const timeline).cast(),
                ..Default::default()
            },
            p_queue: &mut vk::Queue(gpu.queue),
        }),
    ];
    (gpu, stream.concat())
}
