//! Numbers that drivers do not check.

use hesper_mock_venus::{Gpu, VenusGuest as _, bytes};
use hesper_venus_protocol::runtime::{Array, Object};
use hesper_venus_protocol::{command, vk};

use crate::client::{Attack, Client};

pub(crate) const ATTACKS: &[Attack] = &[
    ("push-constants", push_constants),
    ("viewports", viewports),
    ("descriptor-sets", descriptor_sets),
    ("descriptor-bindings", descriptor_bindings),
    ("vertex-bindings", vertex_bindings),
    ("queries", queries),
    ("buffer-ranges", buffer_ranges),
    ("shader-of-three-bytes", shader_of_three_bytes),
];

/// A context with what a command buffer needs.
struct Recording {
    client: Client,
    gpu: Gpu,
    buffer: u64,
    commands: u64,
    set_layout: u64,
    layout: u64,
    set: u64,
}

impl Recording {
    fn new() -> Self {
        let client = Client::new();
        let gpu = client.gpu();
        let (buffer, _) = client.buffer(&gpu, 4096);
        let (commands, _) = client.command_buffer(&gpu);
        let device = Object::guest(gpu.device);
        let [set_layout, layout, pool, set] = std::array::from_fn(|_| client.id());
        let binding = vk::DescriptorSetLayoutBinding {
            descriptor_type: vk::DescriptorType::STORAGE_BUFFER,
            descriptor_count: 1,
            stage_flags: vk::ShaderStageFlags::COMPUTE,
            ..Default::default()
        };
        client.call(command::CreateDescriptorSetLayout {
            device,
            p_create_info: &mut vk::DescriptorSetLayoutCreateInfo {
                binding_count: 1,
                p_bindings: &raw const binding,
                ..Default::default()
            },
            p_set_layout: &mut vk::DescriptorSetLayout(set_layout),
        });
        let set_layouts = vk::DescriptorSetLayout(set_layout);
        let range = vk::PushConstantRange {
            stage_flags: vk::ShaderStageFlags::COMPUTE,
            offset: 0,
            size: 8,
        };
        client.call(command::CreatePipelineLayout {
            device,
            p_create_info: &mut vk::PipelineLayoutCreateInfo {
                set_layout_count: 1,
                p_set_layouts: &raw const set_layouts,
                push_constant_range_count: 1,
                p_push_constant_ranges: &raw const range,
                ..Default::default()
            },
            p_pipeline_layout: &mut vk::PipelineLayout(layout),
        });
        let size = vk::DescriptorPoolSize {
            ty: vk::DescriptorType::STORAGE_BUFFER,
            descriptor_count: 1,
        };
        client.call(command::CreateDescriptorPool {
            device,
            p_create_info: &mut vk::DescriptorPoolCreateInfo {
                max_sets: 1,
                pool_size_count: 1,
                p_pool_sizes: &raw const size,
                ..Default::default()
            },
            p_descriptor_pool: &mut vk::DescriptorPool(pool),
        });
        client.call(command::AllocateDescriptorSets {
            device,
            p_allocate_info: &mut vk::DescriptorSetAllocateInfo {
                descriptor_pool: vk::DescriptorPool(pool),
                descriptor_set_count: 1,
                p_set_layouts: &raw const set_layouts,
                ..Default::default()
            },
            p_descriptor_sets: [vk::DescriptorSet(set)].as_mut_slice().into(),
        });
        client.send(&command::BeginCommandBuffer {
            command_buffer: Object::guest(commands),
            p_begin_info: &mut vk::CommandBufferBeginInfo::default(),
        });
        Self {
            client,
            gpu,
            buffer,
            commands,
            set_layout,
            layout,
            set,
        }
    }

    /// Records the command, ends the recording and submits it.
    fn finish(&self, command: &[u8]) {
        let end = bytes(&command::EndCommandBuffer {
            command_buffer: Object::guest(self.commands),
        });
        let commands = vk::CommandBuffer(self.commands);
        let mut submit = vk::SubmitInfo {
            command_buffer_count: 1,
            p_command_buffers: &raw const commands,
            ..Default::default()
        };
        let submit = bytes(&command::QueueSubmit {
            queue: Object::guest(self.gpu.queue),
            submit_count: 1,
            p_submits: std::slice::from_mut(&mut submit).into(),
            fence: Object::guest(0),
        });
        self.client.attack(&[command, &end, &submit].concat());
    }
}

fn push_constants() {
    for (offset, size) in [
        (0, 4096),
        (0, 65536),
        (0x7fff_0000, 4096),
        (0xffff_f000, 4096),
    ] {
        let recording = Recording::new();
        recording.finish(&bytes(&command::CmdPushConstants {
            command_buffer: Object::guest(recording.commands),
            layout: Object::guest(recording.layout),
            stage_flags: vk::ShaderStageFlags::COMPUTE,
            offset,
            size,
            p_values: vec![0x41; size as usize].as_mut_slice().into(),
        }));
    }
}

fn viewports() {
    for (first, count) in [(0, 200), (0, 2500), (1 << 20, 16), (1 << 27, 16)] {
        let recording = Recording::new();
        let command_buffer = Object::guest(recording.commands);
        recording.finish(&bytes(&command::CmdSetViewport {
            command_buffer,
            first_viewport: first,
            viewport_count: count,
            p_viewports: vec![vk::Viewport::default(); count as usize]
                .as_mut_slice()
                .into(),
        }));
        let recording = Recording::new();
        recording.finish(&bytes(&command::CmdSetScissor {
            command_buffer: Object::guest(recording.commands),
            first_scissor: first,
            scissor_count: count,
            p_scissors: vec![vk::Rect2D::default(); count as usize]
                .as_mut_slice()
                .into(),
        }));
    }
}

fn descriptor_sets() {
    for first_set in [40, 4096, 1 << 24, 0x7fff_ffff] {
        let recording = Recording::new();
        recording.finish(&bytes(&command::CmdBindDescriptorSets {
            command_buffer: Object::guest(recording.commands),
            pipeline_bind_point: vk::PipelineBindPoint::COMPUTE,
            layout: Object::guest(recording.layout),
            first_set,
            descriptor_set_count: 1,
            p_descriptor_sets: [vk::DescriptorSet(recording.set)].as_mut_slice().into(),
            dynamic_offset_count: 0,
            p_dynamic_offsets: Array::NULL,
        }));
    }
}

fn descriptor_bindings() {
    for (binding, element) in [(1, 0), (100_000, 0), (0x1000_0000, 0), (0, 0x1000_0000)] {
        let recording = Recording::new();
        let buffer = vk::DescriptorBufferInfo {
            buffer: vk::Buffer(recording.buffer),
            offset: 0,
            range: 4096,
        };
        let mut write = vk::WriteDescriptorSet {
            dst_set: vk::DescriptorSet(recording.set),
            dst_binding: binding,
            dst_array_element: element,
            descriptor_count: 1,
            descriptor_type: vk::DescriptorType::STORAGE_BUFFER,
            p_buffer_info: &raw const buffer,
            ..Default::default()
        };
        assert_ne!(recording.set_layout, 0);
        recording
            .client
            .attack(&bytes(&command::UpdateDescriptorSets {
                device: Object::guest(recording.gpu.device),
                descriptor_write_count: 1,
                p_descriptor_writes: std::slice::from_mut(&mut write).into(),
                descriptor_copy_count: 0,
                p_descriptor_copies: Array::NULL,
            }));
    }
}

fn vertex_bindings() {
    for first_binding in [64, 4096, 1 << 24, 0x7fff_ffff] {
        let recording = Recording::new();
        recording.finish(&bytes(&command::CmdBindVertexBuffers {
            command_buffer: Object::guest(recording.commands),
            first_binding,
            binding_count: 1,
            p_buffers: [vk::Buffer(recording.buffer)].as_mut_slice().into(),
            p_offsets: [0].as_mut_slice().into(),
        }));
    }
}

fn queries() {
    for first_query in [4, 100_000, 1 << 28, 0xffff_fff0] {
        let recording = Recording::new();
        let client = &recording.client;
        let device = Object::guest(recording.gpu.device);
        let pool = client.id();
        client.call(command::CreateQueryPool {
            device,
            p_create_info: &mut vk::QueryPoolCreateInfo {
                query_type: vk::QueryType::OCCLUSION,
                query_count: 4,
                ..Default::default()
            },
            p_query_pool: &mut vk::QueryPool(pool),
        });
        let query_pool = Object::guest(pool);
        let results = bytes(&command::GetQueryPoolResults {
            device,
            query_pool,
            first_query,
            query_count: 1024,
            data_size: 8192,
            p_data: [0; 8192].as_mut_slice().into(),
            stride: 8,
            flags: vk::QueryResultFlags::RESULT_64,
        });
        client.attack(&results);
        recording.finish(&bytes(&command::CmdResetQueryPool {
            command_buffer: Object::guest(recording.commands),
            query_pool,
            first_query,
            query_count: 1024,
        }));
    }
}

fn buffer_ranges() {
    for dst_offset in [8192, 1 << 20, 1 << 30, 1 << 40] {
        let recording = Recording::new();
        recording.finish(&bytes(&command::CmdUpdateBuffer {
            command_buffer: Object::guest(recording.commands),
            dst_buffer: Object::guest(recording.buffer),
            dst_offset,
            data_size: 16,
            p_data: [7; 16].as_mut_slice().into(),
        }));
        let recording = Recording::new();
        recording.finish(&bytes(&command::CmdFillBuffer {
            command_buffer: Object::guest(recording.commands),
            dst_buffer: Object::guest(recording.buffer),
            dst_offset,
            size: 4096,
            data: 7,
        }));
    }
}

fn shader_of_three_bytes() {
    let client = Client::new();
    let gpu = client.gpu();
    let code = [0_u32; 4];
    for code_size in [0, 3] {
        client.attack(&bytes(&command::CreateShaderModule {
            device: Object::guest(gpu.device),
            p_create_info: &mut vk::ShaderModuleCreateInfo {
                code_size,
                p_code: code.as_ptr(),
                ..Default::default()
            },
            p_shader_module: &mut vk::ShaderModule(client.id()),
        }));
    }
}
