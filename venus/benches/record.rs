//! What commands cost the renderer itself, over the null driver:
//!
//! ```text
//! cargo bench -p hesper-venus --bench record    # nanoseconds
//! tests/bench-vtest --instructions              # instructions by function, with callgrind
//! ```
//!
//! Each case is a stream that is submitted many times. The time is that of the context's thread
//! from the first submit to the last, divided by the number of operations. A draw is three
//! commands: push constants, bind a descriptor set, draw.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark ends with a panic"
)]

#[path = "../tests/guest/mod.rs"]
mod guest;
#[path = "../tests/null/mod.rs"]
mod null;

use std::time::Instant;

use guest::{Gpu, Guest, VenusGuest as _, bytes};
use hesper_venus::{Driver, Renderer, RendererOptions};
use hesper_venus_protocol::runtime::{Array, Object};
use hesper_venus_protocol::{command, vk};

/// Operations in one submit.
const BATCH: usize = 1000;
/// Measured submits, unless `--rounds=N` says otherwise.
const ROUNDS: usize = 200;

/// Makes what a case needs, and returns the stream of one operation.
type Case = fn(&Guest, &Gpu) -> Vec<u8>;

const CASES: [(&str, Case); 4] = [
    ("draw", draw),
    ("buffer", buffer),
    ("barrier", barrier),
    ("update", update),
];

fn main() {
    let wanted: Vec<String> = std::env::args()
        .skip(1)
        .filter(|name| !name.starts_with("--"))
        .collect();
    let rounds = std::env::args().find_map(|option| option.strip_prefix("--rounds=")?.parse().ok());
    for (name, case) in CASES {
        if wanted.is_empty() || wanted.iter().any(|wanted| wanted == name) {
            println!("{name} {:.1} ns", measure(case, rounds.unwrap_or(ROUNDS)));
        }
    }
}

fn measure(case: Case, rounds: usize) -> f64 {
    let options = RendererOptions {
        driver: Driver::Library(null::library()),
        ..Default::default()
    };
    let renderer = Renderer::new(options).unwrap();
    let guest = Guest::new(&renderer, "bench");
    let gpu = guest.gpu();
    let stream = case(&guest, &gpu).repeat(BATCH);
    guest.context.submit(stream.clone());
    guest.wait_fence(0);
    let begin = Instant::now();
    for _ in 0..rounds {
        guest.context.submit(stream.clone());
    }
    guest.wait_fence(0);
    begin.elapsed().as_nanos() as f64 / (BATCH * rounds) as f64
}

/// Push constants, bind one set, draw.
fn draw(guest: &Guest, gpu: &Gpu) -> Vec<u8> {
    let commands = command_buffer(guest, gpu);
    let (layout, set) = layout_and_set(guest, gpu);
    let mut stream = bytes(&command::CmdPushConstants {
        command_buffer: Object::guest(commands),
        layout: Object::guest(layout),
        stage_flags: vk::ShaderStageFlags::VERTEX,
        offset: 0,
        size: 16,
        p_values: [7; 16].as_mut_slice().into(),
    });
    stream.extend(bytes(&command::CmdBindDescriptorSets {
        command_buffer: Object::guest(commands),
        pipeline_bind_point: vk::PipelineBindPoint::GRAPHICS,
        layout: Object::guest(layout),
        first_set: 0,
        descriptor_set_count: 1,
        p_descriptor_sets: [vk::DescriptorSet(set)].as_mut_slice().into(),
        dynamic_offset_count: 0,
        p_dynamic_offsets: Array::NULL,
    }));
    stream.extend(bytes(&command::CmdDraw {
        command_buffer: Object::guest(commands),
        vertex_count: 3,
        instance_count: 1,
        first_vertex: 0,
        first_instance: 0,
    }));
    stream
}

/// Create and destroy a buffer.
fn buffer(guest: &Guest, gpu: &Gpu) -> Vec<u8> {
    let buffer = guest.id();
    let mut info = vk::BufferCreateInfo {
        size: 4096,
        usage: vk::BufferUsageFlags::TRANSFER_DST,
        ..Default::default()
    };
    let mut stream = bytes(&command::CreateBuffer {
        device: Object::guest(gpu.device),
        p_create_info: &mut info,
        p_buffer: &mut vk::Buffer(buffer),
    });
    stream.extend(bytes(&command::DestroyBuffer {
        device: Object::guest(gpu.device),
        buffer: Object::guest(buffer),
    }));
    stream
}

/// A pipeline barrier with one global barrier.
fn barrier(guest: &Guest, gpu: &Gpu) -> Vec<u8> {
    let commands = command_buffer(guest, gpu);
    let mut global = [vk::MemoryBarrier::default()];
    bytes(&command::CmdPipelineBarrier {
        command_buffer: Object::guest(commands),
        src_stage_mask: vk::PipelineStageFlags::TRANSFER,
        dst_stage_mask: vk::PipelineStageFlags::TRANSFER,
        dependency_flags: vk::DependencyFlags::default(),
        memory_barrier_count: 1,
        p_memory_barriers: global.as_mut_slice().into(),
        buffer_memory_barrier_count: 0,
        p_buffer_memory_barriers: Array::NULL,
        image_memory_barrier_count: 0,
        p_image_memory_barriers: Array::NULL,
    })
}

/// Update a descriptor set: one buffer.
fn update(guest: &Guest, gpu: &Gpu) -> Vec<u8> {
    let (_, set) = layout_and_set(guest, gpu);
    let buffer = guest.id();
    guest.call(command::CreateBuffer {
        device: Object::guest(gpu.device),
        p_create_info: &mut vk::BufferCreateInfo {
            size: 4096,
            usage: vk::BufferUsageFlags::STORAGE_BUFFER,
            ..Default::default()
        },
        p_buffer: &mut vk::Buffer(buffer),
    });
    let info = vk::DescriptorBufferInfo {
        buffer: vk::Buffer(buffer),
        offset: 0,
        range: 64,
    };
    let mut writes = [vk::WriteDescriptorSet {
        dst_set: vk::DescriptorSet(set),
        descriptor_count: 1,
        descriptor_type: vk::DescriptorType::STORAGE_BUFFER,
        p_buffer_info: &raw const info,
        ..Default::default()
    }];
    bytes(&command::UpdateDescriptorSets {
        device: Object::guest(gpu.device),
        descriptor_write_count: 1,
        p_descriptor_writes: writes.as_mut_slice().into(),
        descriptor_copy_count: 0,
        p_descriptor_copies: Array::NULL,
    })
}

/// A command buffer in the recording state.
fn command_buffer(guest: &Guest, gpu: &Gpu) -> u64 {
    let (pool, commands) = (guest.id(), guest.id());
    let device = Object::guest(gpu.device);
    guest.call(command::CreateCommandPool {
        device,
        p_create_info: &mut vk::CommandPoolCreateInfo::default(),
        p_command_pool: &mut vk::CommandPool(pool),
    });
    let mut info = vk::CommandBufferAllocateInfo {
        command_pool: vk::CommandPool(pool),
        command_buffer_count: 1,
        ..Default::default()
    };
    guest.call(command::AllocateCommandBuffers {
        device,
        p_allocate_info: &mut info,
        p_command_buffers: [vk::CommandBuffer(commands)].as_mut_slice().into(),
    });
    guest.send(&command::BeginCommandBuffer {
        command_buffer: Object::guest(commands),
        p_begin_info: &mut vk::CommandBufferBeginInfo::default(),
    });
    commands
}

/// A pipeline layout and a descriptor set.
fn layout_and_set(guest: &Guest, gpu: &Gpu) -> (u64, u64) {
    let (layout, set_layout) = (guest.id(), guest.id());
    let (pool, set) = (guest.id(), guest.id());
    let device = Object::guest(gpu.device);
    let binding = vk::DescriptorSetLayoutBinding {
        descriptor_type: vk::DescriptorType::STORAGE_BUFFER,
        descriptor_count: 1,
        stage_flags: vk::ShaderStageFlags::VERTEX,
        ..Default::default()
    };
    guest.call(command::CreateDescriptorSetLayout {
        device,
        p_create_info: &mut vk::DescriptorSetLayoutCreateInfo {
            binding_count: 1,
            p_bindings: &raw const binding,
            ..Default::default()
        },
        p_set_layout: &mut vk::DescriptorSetLayout(set_layout),
    });
    guest.call(command::CreatePipelineLayout {
        device,
        p_create_info: &mut vk::PipelineLayoutCreateInfo::default(),
        p_pipeline_layout: &mut vk::PipelineLayout(layout),
    });
    let mut info = vk::DescriptorPoolCreateInfo {
        max_sets: 1,
        ..Default::default()
    };
    guest.call(command::CreateDescriptorPool {
        device,
        p_create_info: &mut info,
        p_descriptor_pool: &mut vk::DescriptorPool(pool),
    });
    let of_set = vk::DescriptorSetLayout(set_layout);
    let mut info = vk::DescriptorSetAllocateInfo {
        descriptor_pool: vk::DescriptorPool(pool),
        descriptor_set_count: 1,
        p_set_layouts: &raw const of_set,
        ..Default::default()
    };
    guest.call(command::AllocateDescriptorSets {
        device,
        p_allocate_info: &mut info,
        p_descriptor_sets: [vk::DescriptorSet(set)].as_mut_slice().into(),
    });
    (layout, set)
}
