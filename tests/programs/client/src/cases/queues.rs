//! Cases that use every queue of the device (up to four of a family).

use ash::vk;

use super::{Case, case};
use crate::gpu::{Gpu, queues_of};
use crate::outcome::{Outcome, Stop, ensure, equal};

pub(super) const CASES: &[Case] = &[
    case("queue-every", every),
    case("queue-wait-idle", wait_idle),
    case("queue-device-wait-idle", device_wait_idle),
    case("queue-between-queues", between_queues),
];

/// Finds all queues with vkGetDeviceQueue2, and their families.
fn all(gpu: &Gpu<'_>) -> Vec<(u32, vk::Queue)> {
    let mut queues = Vec::new();
    for (family, properties) in (0..).zip(&gpu.host.families) {
        for index in 0..queues_of(properties) {
            let info = vk::DeviceQueueInfo2::default()
                .queue_family_index(family)
                .queue_index(index);
            // SAFETY: the device was created with these queues of all families, without flags.
            queues.push((family, unsafe { gpu.get_device_queue2(&info) }));
        }
    }
    queues
}

fn fill(
    gpu: &Gpu<'_>,
    family: u32,
    buffer: vk::Buffer,
    value: u32,
) -> Result<[vk::CommandBuffer; 1], Stop> {
    let pool = gpu.pool(family)?;
    let commands = gpu.command_buffers(pool, vk::CommandBufferLevel::PRIMARY, 1)?[0];
    let once = vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT;
    // SAFETY: recording; the buffer is of this device.
    gpu.record_into(commands, once, |commands| unsafe {
        gpu.cmd_fill_buffer(commands, buffer, 0, vk::WHOLE_SIZE, value);
        gpu.barrier(commands);
    })?;
    Ok([commands])
}

/// Finds the queues whose family can fill a buffer.
fn filling(gpu: &Gpu<'_>) -> Vec<(u32, vk::Queue)> {
    let can = vk::QueueFlags::GRAPHICS | vk::QueueFlags::COMPUTE | vk::QueueFlags::TRANSFER;
    let mut queues = all(gpu);
    queues.retain(|&(family, _)| {
        gpu.host.families[family as usize]
            .queue_flags
            .intersects(can)
    });
    queues
}

fn every(gpu: &Gpu<'_>) -> Outcome {
    let queues = all(gpu);
    ensure(
        "no queue is null",
        queues.iter().all(|(_, queue)| *queue != vk::Queue::null()),
    )?;
    // SAFETY: family 0 has a queue.
    let first = unsafe { gpu.get_device_queue(gpu.family, 0) };
    equal("vkGetDeviceQueue's queue", first, gpu.queue)?;
    for (value, &(family, queue)) in (1..).zip(&filling(gpu)) {
        let buffer = gpu.buffer(4)?;
        let commands = fill(gpu, family, buffer.handle, value)?;
        let fence = gpu.fence(false)?;
        let submit = vk::SubmitInfo::default().command_buffers(&commands);
        // SAFETY: all handles are of this device.
        unsafe { gpu.queue_submit(queue, &[submit], fence) }?;
        gpu.wait(fence)?;
        equal("the words", buffer.read_all(), vec![value; 4])?;
    }
    Ok(format!(
        "{} families, {} queues",
        gpu.host.families.len(),
        queues.len()
    ))
}

fn wait_idle(gpu: &Gpu<'_>) -> Outcome {
    for (value, (family, queue)) in (1..).zip(filling(gpu)) {
        let buffer = gpu.buffer(1 << 16)?;
        let commands = fill(gpu, family, buffer.handle, value)?;
        let submit = vk::SubmitInfo::default().command_buffers(&commands);
        // SAFETY: all handles are of this device.
        unsafe {
            gpu.queue_wait_idle(queue)?;
            gpu.queue_submit(queue, &[submit], vk::Fence::null())?;
            gpu.queue_wait_idle(queue)?;
        }
        equal("the last word", buffer.read((1 << 16) - 1), value)?;
    }
    Ok(String::new())
}

fn device_wait_idle(gpu: &Gpu<'_>) -> Outcome {
    let queues = filling(gpu);
    let mut buffers = Vec::new();
    for (value, &(family, queue)) in (1..).zip(&queues) {
        let buffer = gpu.buffer(1 << 16)?;
        let commands = fill(gpu, family, buffer.handle, value)?;
        let submit = vk::SubmitInfo::default().command_buffers(&commands);
        // SAFETY: all handles are of this device.
        unsafe { gpu.queue_submit(queue, &[submit], vk::Fence::null()) }?;
        buffers.push((buffer, value));
    }
    // SAFETY: the device is alive, and no other thread uses its queues.
    unsafe { gpu.device_wait_idle() }?;
    for (buffer, value) in buffers {
        equal("the last word", buffer.read((1 << 16) - 1), value)?;
    }
    Ok(String::new())
}

fn between_queues(gpu: &Gpu<'_>) -> Outcome {
    // A chain of binary semaphores goes over all queues, twice around; the last fill wins.
    // Host-visible buffers are EXCLUSIVE, but filling a whole buffer needs nothing that another
    // family left there.
    let queues = filling(gpu);
    let buffer = gpu.buffer(16)?;
    let rounds = 2 * queues.len();
    let mut before: Option<vk::Semaphore> = None;
    let fence = gpu.fence(false)?;
    let stages = [vk::PipelineStageFlags::ALL_COMMANDS];
    for (step, &(family, queue)) in queues.iter().cycle().take(rounds).enumerate() {
        let commands = fill(gpu, family, buffer.handle, step as u32 + 1)?;
        let (waits, next) = (Vec::from_iter(before), [gpu.semaphore()?]);
        let last = step + 1 == rounds;
        let submit = vk::SubmitInfo::default()
            .wait_semaphores(&waits)
            .wait_dst_stage_mask(&stages[..waits.len()])
            .command_buffers(&commands)
            .signal_semaphores(if last { &[] } else { &next });
        let fence = if last { fence } else { vk::Fence::null() };
        // SAFETY: all handles are of this device.
        unsafe { gpu.queue_submit(queue, &[submit], fence) }?;
        before = Some(next[0]);
    }
    gpu.wait(fence)?;
    equal("the words", buffer.read_all(), vec![rounds as u32; 16])?;
    Ok(String::new())
}
