//! Commands whose numbers are beyond a limit or beyond what an object has. Each is valid but for
//! that one number, and no driver may see it.

mod made;

use hesper_venus_protocol::runtime::Array;
use hesper_venus_protocol::{CommandId, command, vk};

use super::session::{Id, Session, object};

/// A stream that must end its context, and a part of the reason.
pub struct Case {
    pub name: String,
    pub stream: Vec<u8>,
    pub reason: &'static str,
}

/// The whole session with more commands before `vkEndCommandBuffer`.
pub fn spliced(more: &Session) -> Vec<u8> {
    let whole = Session::whole();
    let number = CommandId::EndCommandBuffer.number().to_le_bytes();
    let mut starts = whole.starts.iter();
    let end = *starts
        .find(|at| whole.stream[**at..].starts_with(&number))
        .unwrap();
    [&whole.stream[..end], &more.stream[..], &whole.stream[end..]].concat()
}

/// The whole session with more commands after it.
pub fn appended(more: impl FnOnce(&mut Session)) -> Vec<u8> {
    let mut session = Session::whole();
    more(&mut session);
    session.stream
}

/// All cases.
pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    recorded(&mut all);
    buffers(&mut all);
    queries(&mut all);
    descriptors(&mut all);
    made::shaders(&mut all);
    made::images(&mut all);
    all
}

fn add(all: &mut Vec<Case>, name: String, reason: &'static str, stream: Vec<u8>) {
    all.push(Case {
        name,
        stream,
        reason,
    });
}

fn one(record: impl FnOnce(&mut Session)) -> Vec<u8> {
    let mut session = Session::default();
    record(&mut session);
    spliced(&session)
}

fn recorded(all: &mut Vec<Case>) {
    for (offset, size) in [
        (0u32, 4096u32),
        (0, 65536),
        (0x7fff_0000, 4096),
        (0xffff_f000, 4096),
    ] {
        let stream = one(|s| {
            s.push(
                &command::CmdPushConstants {
                    command_buffer: object(Id::Commands),
                    layout: object(Id::PipelineLayout),
                    stage_flags: vk::ShaderStageFlags::COMPUTE,
                    offset,
                    size,
                    p_values: vec![0x41u8; size as usize].as_mut_slice().into(),
                },
                false,
            );
        });
        let name = format!("{size} bytes of push constants at {offset}");
        add(all, name, "maxPushConstantsSize", stream);
    }
    for (first, count) in [(0u32, 200u32), (0, 2500), (1 << 20, 16), (u32::MAX, 16)] {
        let mut viewports = vec![vk::Viewport::default(); count as usize];
        let mut scissors = vec![vk::Rect2D::default(); count as usize];
        let (viewports, scissors) = (viewports.as_mut_slice(), scissors.as_mut_slice());
        let stream = one(|s| {
            s.push(
                &command::CmdSetViewport {
                    command_buffer: object(Id::Commands),
                    first_viewport: first,
                    viewport_count: count,
                    p_viewports: viewports.into(),
                },
                false,
            );
        });
        let name = format!("{count} viewports from {first}");
        add(all, name, "maxViewports", stream);
        let stream = one(|s| {
            s.push(
                &command::CmdSetScissor {
                    command_buffer: object(Id::Commands),
                    first_scissor: first,
                    scissor_count: count,
                    p_scissors: scissors.into(),
                },
                false,
            );
        });
        let name = format!("{count} scissors from {first}");
        add(all, name, "maxViewports", stream);
    }
    for first in [64u32, 4096, 1 << 24, 0x7fff_ffff, u32::MAX] {
        let stream = one(|s| vertex_buffer(s, first, 0));
        let name = format!("vertex buffer {first}");
        add(all, name, "maxVertexInputBindings", stream);
        let stream = one(|s| bind_set(s, first, 0));
        add(
            all,
            format!("set {first}"),
            "maxBoundDescriptorSets",
            stream,
        );
    }
    let stream = one(|s| vertex_buffer(s, 0, 5000));
    let name = "a vertex buffer from behind its end".to_owned();
    add(all, name, "bytes that the buffer does not have", stream);
    let stream = one(|s| bind_set(s, 0, 3));
    let name = "dynamic offsets for a set without dynamic descriptors".to_owned();
    add(all, name, "dynamic offsets", stream);
}

fn vertex_buffer(s: &mut Session, first_binding: u32, offset: u64) {
    s.push(
        &command::CmdBindVertexBuffers {
            command_buffer: object(Id::Commands),
            first_binding,
            binding_count: 1,
            p_buffers: [vk::Buffer(Id::Buffer as u64)].as_mut_slice().into(),
            p_offsets: [offset].as_mut_slice().into(),
        },
        false,
    );
}

fn bind_set(s: &mut Session, first_set: u32, offsets: usize) {
    let mut offsets = vec![0u32; offsets];
    s.push(
        &command::CmdBindDescriptorSets {
            command_buffer: object(Id::Commands),
            pipeline_bind_point: vk::PipelineBindPoint::COMPUTE,
            layout: object(Id::PipelineLayout),
            first_set,
            descriptor_set_count: 1,
            p_descriptor_sets: [vk::DescriptorSet(Id::DescriptorSet as u64)]
                .as_mut_slice()
                .into(),
            dynamic_offset_count: offsets.len() as u32,
            p_dynamic_offsets: offsets.as_mut_slice().into(),
        },
        false,
    );
}

fn buffers(all: &mut Vec<Case>) {
    let reason = "bytes that the buffer does not have";
    for offset in [4096u64, 8192, 1 << 30, 1 << 40, u64::MAX - 7] {
        let stream = one(|s| {
            s.push(
                &command::CmdUpdateBuffer {
                    command_buffer: object(Id::Commands),
                    dst_buffer: object(Id::Buffer),
                    dst_offset: offset & !3,
                    data_size: 16,
                    p_data: [7u8; 16].as_mut_slice().into(),
                },
                false,
            );
        });
        add(all, format!("an update at {offset}"), reason, stream);
        let stream = one(|s| {
            s.push(
                &command::CmdFillBuffer {
                    command_buffer: object(Id::Commands),
                    dst_buffer: object(Id::Buffer),
                    dst_offset: offset & !3,
                    size: 16,
                    data: 7,
                },
                false,
            );
        });
        add(all, format!("a fill at {offset}"), reason, stream);
        for is_source in [true, false] {
            let mut region = vk::BufferCopy {
                src_offset: if is_source { offset } else { 0 },
                dst_offset: if is_source { 0 } else { offset },
                size: 16,
            };
            let stream = one(|s| {
                s.push(
                    &command::CmdCopyBuffer {
                        command_buffer: object(Id::Commands),
                        src_buffer: object(Id::Buffer),
                        dst_buffer: object(Id::Buffer),
                        region_count: 1,
                        p_regions: std::slice::from_mut(&mut region).into(),
                    },
                    false,
                );
            });
            let name = format!("a copy at {offset}, of the source: {is_source}");
            add(all, name, reason, stream);
        }
    }
    let large = 65540;
    let stream = one(|s| {
        s.push(
            &command::CmdUpdateBuffer {
                command_buffer: object(Id::Commands),
                dst_buffer: object(Id::Buffer),
                dst_offset: 0,
                data_size: large,
                p_data: vec![7u8; large as usize].as_mut_slice().into(),
            },
            false,
        );
    });
    add(all, "a large update".to_owned(), "65536", stream);
    for (offset, count, stride) in [(4090u64, 1u32, 16u32), (0, 1000, 16), (0, 2, u32::MAX)] {
        let stream = one(|s| {
            s.push(
                &command::CmdDrawIndirect {
                    command_buffer: object(Id::Commands),
                    buffer: object(Id::Buffer),
                    offset,
                    draw_count: count,
                    stride,
                },
                false,
            );
        });
        let name = format!("{count} indirect draws at {offset}, {stride} apart");
        add(all, name, reason, stream);
    }
    let stream = appended(|s| {
        let mut info = vk::BufferCreateInfo {
            size: 8192,
            usage: vk::BufferUsageFlags::TRANSFER_DST,
            ..Default::default()
        };
        s.push(
            &command::CreateBuffer {
                device: object(Id::Device),
                p_create_info: &mut info,
                p_buffer: &mut vk::Buffer(Id::Next as u64),
            },
            false,
        );
        s.push(
            &command::BindBufferMemory {
                device: object(Id::Device),
                buffer: object(Id::Next),
                memory: object(Id::Memory),
                memory_offset: 0,
            },
            false,
        );
    });
    let reason = "bytes that the memory does not have";
    add(
        all,
        "a buffer larger than its memory".to_owned(),
        reason,
        stream,
    );
}

fn queries(all: &mut Vec<Case>) {
    let reason = "queries that the pool does not have";
    for (first, count) in [(4u32, 1u32), (0, 5), (1 << 28, 1), (u32::MAX, 2)] {
        let stream = appended(|s| {
            let size = count as usize * 8;
            s.push(
                &command::GetQueryPoolResults {
                    device: object(Id::Device),
                    query_pool: object(Id::QueryPool),
                    first_query: first,
                    query_count: count,
                    data_size: size,
                    p_data: vec![0; size].as_mut_slice().into(),
                    stride: 8,
                    flags: vk::QueryResultFlags::RESULT_64,
                },
                false,
            );
        });
        add(
            all,
            format!("results of {count} queries from {first}"),
            reason,
            stream,
        );
        let stream = appended(|s| {
            s.push(
                &command::ResetQueryPool {
                    device: object(Id::Device),
                    query_pool: object(Id::QueryPool),
                    first_query: first,
                    query_count: count,
                },
                false,
            );
        });
        add(
            all,
            format!("a reset of {count} queries from {first}"),
            reason,
            stream,
        );
        let stream = appended(|s| {
            s.push(
                &command::BeginCommandBuffer {
                    command_buffer: object(Id::Commands),
                    p_begin_info: &mut vk::CommandBufferBeginInfo::default(),
                },
                false,
            );
            s.push(
                &command::CmdResetQueryPool {
                    command_buffer: object(Id::Commands),
                    query_pool: object(Id::QueryPool),
                    first_query: first,
                    query_count: count,
                },
                false,
            );
        });
        let name = format!("a recorded reset of {count} queries from {first}");
        add(all, name, reason, stream);
    }
}

fn descriptors(all: &mut Vec<Case>) {
    for (binding, element, count, reason) in [
        (1u32, 0u32, 1, "a binding that the set does not have"),
        (100_000, 0, 1, "a binding that the set does not have"),
        (0x1000_0000, 0, 1, "a binding that the set does not have"),
        (
            0,
            0x1000_0000,
            1,
            "descriptors that the binding does not have",
        ),
        (0, u32::MAX, 1, "descriptors that the binding does not have"),
        (0, 0, 2, "descriptors that the binding does not have"),
    ] {
        let stream = appended(|s| write(s, binding, element, &[whole(); 2][..count]));
        let name = format!("{count} descriptors of binding {binding} from {element}");
        add(all, name, reason, stream);
        let stream = appended(|s| {
            let mut copy = vk::CopyDescriptorSet {
                src_set: vk::DescriptorSet(Id::DescriptorSet as u64),
                dst_set: vk::DescriptorSet(Id::DescriptorSet as u64),
                dst_binding: binding,
                dst_array_element: element,
                descriptor_count: 1,
                ..Default::default()
            };
            s.push(
                &command::UpdateDescriptorSets {
                    device: object(Id::Device),
                    descriptor_write_count: 0,
                    p_descriptor_writes: Array::NULL,
                    descriptor_copy_count: 1,
                    p_descriptor_copies: std::slice::from_mut(&mut copy).into(),
                },
                false,
            );
        });
        if count == 1 {
            let name = format!("a copy to binding {binding}, element {element}");
            add(all, name, reason, stream);
        }
    }
    let large = vk::DescriptorBufferInfo {
        range: 5000,
        ..whole()
    };
    let stream = appended(|s| write(s, 0, 0, &[large]));
    let reason = "bytes that the buffer does not have";
    add(
        all,
        "a descriptor larger than its buffer".to_owned(),
        reason,
        stream,
    );
    for (number, count, reason) in [
        (u32::MAX, 1u32, "a binding number"),
        (0, u32::MAX, "descriptors of a set"),
    ] {
        let stream = appended(|s| {
            let binding = vk::DescriptorSetLayoutBinding {
                binding: number,
                descriptor_type: vk::DescriptorType::STORAGE_BUFFER,
                descriptor_count: count,
                stage_flags: vk::ShaderStageFlags::COMPUTE,
                ..Default::default()
            };
            let mut info = vk::DescriptorSetLayoutCreateInfo {
                binding_count: 1,
                p_bindings: &raw const binding,
                ..Default::default()
            };
            s.push(
                &command::CreateDescriptorSetLayout {
                    device: object(Id::Device),
                    p_create_info: &mut info,
                    p_set_layout: &mut vk::DescriptorSetLayout(Id::Next as u64),
                },
                false,
            );
        });
        let name = format!("{count} descriptors of binding {number} of a layout");
        add(all, name, reason, stream);
    }
}

/// All of the session's buffer.
fn whole() -> vk::DescriptorBufferInfo {
    vk::DescriptorBufferInfo {
        buffer: vk::Buffer(Id::Buffer as u64),
        offset: 0,
        range: 4096,
    }
}

fn write(s: &mut Session, binding: u32, element: u32, buffers: &[vk::DescriptorBufferInfo]) {
    let mut write = vk::WriteDescriptorSet {
        dst_set: vk::DescriptorSet(Id::DescriptorSet as u64),
        dst_binding: binding,
        dst_array_element: element,
        descriptor_count: buffers.len() as u32,
        descriptor_type: vk::DescriptorType::STORAGE_BUFFER,
        p_buffer_info: buffers.as_ptr(),
        ..Default::default()
    };
    s.push(
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
