//! Streams to decode, and an object table as a renderer might have it.

use std::sync::atomic::AtomicU64;

use hesper_venus_protocol::runtime::{
    Arena, Array, Command, Decoder, Front, HandleMap, Object, Resolved, Slot,
};
use hesper_venus_protocol::vk::{self, HandleType};
use hesper_venus_protocol::{command, guest};

/// Ids are slots.
pub(crate) struct Slots {
    slots: Vec<Slot>,
    removals: AtomicU64,
}

impl Slots {
    /// All objects that the streams name.
    pub(crate) fn new() -> Self {
        let slots: Vec<Slot> = std::iter::repeat_with(Slot::default).take(64).collect();
        for (id, ty) in [
            (1, HandleType::Device),
            (2, HandleType::CommandBuffer),
            (3, HandleType::PipelineLayout),
            (4, HandleType::DescriptorSet),
            (5, HandleType::Buffer),
        ] {
            if let Some(slot) = slots.get(id) {
                let object = Resolved {
                    handle: 0x7f00_0000_1000 + id as u64,
                    owner: 1,
                };
                slot.put(id as u64, ty as u32, object);
            }
        }
        Self {
            slots,
            removals: AtomicU64::new(0),
        }
    }
}

impl HandleMap for Slots {
    /// Everything that exists is in its slot.
    fn resolve(&self, _: HandleType, _: u64) -> Resolved {
        Resolved::UNKNOWN
    }

    fn front(&self) -> Front<'_> {
        Front::new(&self.slots, &self.removals)
    }
}

/// The names of the streams.
pub(crate) const NAMES: [&str; 5] = [
    "draw",
    "push_constants",
    "bind_descriptor_sets",
    "bind_vertex_buffers",
    "create_buffer",
];

/// One command as the guest sends it.
pub(crate) fn stream(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let command_buffer = Object::guest(2);
    let mut bytes = [0u8; 64];
    let mut sets = [vk::DescriptorSet(4)];
    let mut buffers = [vk::Buffer(5); 4];
    let mut offsets = [0u64; 4];
    let mut info = vk::BufferCreateInfo {
        size: 4096,
        ..Default::default()
    };
    let mut buffer = vk::Buffer(9);
    // SAFETY: all arguments are valid.
    unsafe {
        match name {
            "draw" => guest::encode(
                &command::CmdDraw {
                    command_buffer,
                    vertex_count: 3,
                    instance_count: 1,
                    first_vertex: 0,
                    first_instance: 0,
                },
                false,
                &mut out,
            ),
            "push_constants" => guest::encode(
                &command::CmdPushConstants {
                    command_buffer,
                    layout: Object::guest(3),
                    stage_flags: vk::ShaderStageFlags::VERTEX,
                    offset: 0,
                    size: 64,
                    p_values: Array::from(&mut bytes[..]),
                },
                false,
                &mut out,
            ),
            "bind_descriptor_sets" => guest::encode(
                &command::CmdBindDescriptorSets {
                    command_buffer,
                    pipeline_bind_point: vk::PipelineBindPoint::GRAPHICS,
                    layout: Object::guest(3),
                    first_set: 0,
                    descriptor_set_count: 1,
                    p_descriptor_sets: Array::from(&mut sets[..]),
                    dynamic_offset_count: 0,
                    p_dynamic_offsets: Array::NULL,
                },
                false,
                &mut out,
            ),
            "bind_vertex_buffers" => guest::encode(
                &command::CmdBindVertexBuffers {
                    command_buffer,
                    first_binding: 0,
                    binding_count: 4,
                    p_buffers: Array::from(&mut buffers[..]),
                    p_offsets: Array::from(&mut offsets[..]),
                },
                false,
                &mut out,
            ),
            _ => guest::encode(
                &command::CreateBuffer {
                    device: Object::guest(1),
                    p_create_info: &mut info,
                    p_buffer: &mut buffer,
                },
                true,
                &mut out,
            ),
        }
    }
    out
}

/// Decodes one command, as a renderer's loop does: header, dispatch, arguments, reset.
#[inline(never)]
pub(crate) fn decode(stream: &[u8], arena: &mut Arena, slots: &Slots) -> u64 {
    use hesper_venus_protocol::CommandId as Id;
    // As a ring does; decoding may change the bytes.
    let mut copy = [0; 512];
    let Some(copy) = copy.get_mut(..stream.len()) else {
        return 0;
    };
    copy.copy_from_slice(stream);
    let mut d = Decoder::new(copy, arena, slots);
    let Ok(header) = d.header() else { return 0 };
    let sum = match header.command {
        Id::CmdDraw => command::CmdDraw::decode(&mut d)
            .map(|a| a.command_buffer.handle.0 + u64::from(a.vertex_count)),
        Id::CmdPushConstants => command::CmdPushConstants::decode(&mut d)
            .map(|a| a.layout.handle.0 + a.p_values.len() as u64),
        Id::CmdBindDescriptorSets => command::CmdBindDescriptorSets::decode(&mut d)
            .map(|a| a.layout.handle.0 + a.p_descriptor_sets.len() as u64),
        Id::CmdBindVertexBuffers => command::CmdBindVertexBuffers::decode(&mut d)
            .map(|a| a.command_buffer.handle.0 + a.p_buffers.len() as u64),
        Id::CreateBuffer => {
            command::CreateBuffer::decode(&mut d).map(|a| a.device.handle.0 + a.p_create_info.size)
        }
        _ => Ok(0),
    };
    let sum = sum.unwrap_or(0);
    arena.reset();
    sum
}
