//! Sparse binding, where the driver has it.

use ash::vk;

use super::{Case, case};
use crate::gpu::Gpu;
use crate::outcome::{Outcome, equal, need};
use crate::resources::ANY_USE;

pub(super) const CASES: &[Case] = &[case("sparse-buffer", buffer)];

fn buffer(gpu: &Gpu<'_>) -> Outcome {
    need("sparseBinding", gpu.features.core.sparse_binding != 0)?;
    let sparse = vk::QueueFlags::SPARSE_BINDING;
    let families = gpu.host.families.iter();
    let family = families
        .enumerate()
        .position(|(_, f)| f.queue_flags.contains(sparse));
    need("queue family that binds sparse memory", family.is_some())?;
    let family = family.map_or(0, |family| family as u32);
    let info = vk::BufferCreateInfo::default()
        .flags(vk::BufferCreateFlags::SPARSE_BINDING)
        .size(1 << 20)
        .usage(ANY_USE);
    let read = gpu.buffer(2)?;
    let (bound, fence) = (gpu.semaphore()?, gpu.fence(false)?);
    // SAFETY: all handles are of this device; the ranges bound are those of the buffer, two halves swapped.
    unsafe {
        let queue = gpu.get_device_queue(family, 0);
        let buffer = gpu.own(gpu.create_buffer(&info, None)?, ash::Device::destroy_buffer);
        let needs = gpu.get_buffer_memory_requirements(buffer);
        let local = vk::MemoryPropertyFlags::DEVICE_LOCAL;
        let memory = gpu.allocate(needs.size, gpu.memory_type(needs.memory_type_bits, local)?)?;
        let half = (needs.size / 2).next_multiple_of(needs.alignment);
        let bind = |resource_offset, size, memory_offset| {
            vk::SparseMemoryBind::default()
                .resource_offset(resource_offset)
                .size(size)
                .memory(memory)
                .memory_offset(memory_offset)
        };
        let rest = needs.size - half;
        let binds = [bind(0, half, rest), bind(half, rest, 0)];
        let buffers = [vk::SparseBufferMemoryBindInfo::default()
            .buffer(buffer)
            .binds(&binds)];
        let signals = [bound];
        let binding = vk::BindSparseInfo::default()
            .buffer_binds(&buffers)
            .signal_semaphores(&signals);
        gpu.queue_bind_sparse(queue, &[binding], vk::Fence::null())?;
        let commands = [gpu.record(|commands| {
            gpu.cmd_fill_buffer(commands, buffer, 0, 1 << 19, 0x11);
            gpu.cmd_fill_buffer(commands, buffer, 1 << 19, 1 << 19, 0x22);
            gpu.barrier(commands);
            let copies = [
                vk::BufferCopy {
                    src_offset: (1 << 19) - 4,
                    dst_offset: 0,
                    size: 4,
                },
                vk::BufferCopy {
                    src_offset: (1 << 20) - 4,
                    dst_offset: 4,
                    size: 4,
                },
            ];
            gpu.cmd_copy_buffer(commands, buffer, read.handle, &copies);
            gpu.barrier(commands);
        })?];
        let stages = [vk::PipelineStageFlags::ALL_COMMANDS];
        let submit = vk::SubmitInfo::default()
            .wait_semaphores(&signals)
            .wait_dst_stage_mask(&stages)
            .command_buffers(&commands);
        gpu.queue_submit(gpu.queue, &[submit], fence)?;
    }
    gpu.wait(fence)?;
    equal("the words", read.read_all(), vec![0x11, 0x22])?;
    Ok(String::new())
}
