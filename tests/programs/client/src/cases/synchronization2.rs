//! Cases of synchronization2's commands.

use ash::vk;

use super::{Case, case};
use crate::commands::LONG;
use crate::gpu::Gpu;
use crate::outcome::{Outcome, Stop, equal, need};

pub(super) const CASES: &[Case] = &[
    case("sync2-submit", submit),
    case("sync2-barriers", barriers),
];

fn need_it(gpu: &Gpu<'_>) -> Result<(), Stop> {
    need("synchronization2", gpu.features.v13.synchronization2 != 0)?;
    need(
        "timelineSemaphore",
        gpu.features.v12.timeline_semaphore != 0,
    )
}

fn submit(gpu: &Gpu<'_>) -> Outcome {
    need_it(gpu)?;
    let buffer = gpu.buffer(1)?;
    // Use two timelines; `timeline-queue-waits-for-host` says why.
    let (gate, timeline, binary) = (gpu.timeline(0)?, gpu.timeline(0)?, gpu.semaphore()?);
    let fill = |value| {
        // SAFETY: recording; the buffer is of this device.
        gpu.record(|commands| unsafe {
            gpu.cmd_fill_buffer(commands, buffer.handle, 0, 4, value);
            gpu.barrier(commands);
        })
    };
    let all = vk::PipelineStageFlags2::ALL_COMMANDS;
    let at = |semaphore, value| {
        [vk::SemaphoreSubmitInfo::default()
            .semaphore(semaphore)
            .value(value)
            .stage_mask(all)]
    };
    // The second submission waits for the gate, because a binary semaphore must not depend on a
    // signal that is not submitted yet.
    let (link, done) = (at(binary, 0), at(timeline, 2));
    let both = [at(binary, 0), at(gate, 1)].concat();
    let first = [vk::CommandBufferSubmitInfo::default().command_buffer(fill(1)?)];
    let second = [vk::CommandBufferSubmitInfo::default().command_buffer(fill(2)?)];
    let submits = [
        vk::SubmitInfo2::default()
            .command_buffer_infos(&first)
            .signal_semaphore_infos(&link),
        vk::SubmitInfo2::default()
            .wait_semaphore_infos(&both)
            .command_buffer_infos(&second)
            .signal_semaphore_infos(&done),
    ];
    let fence = gpu.fence(false)?;
    // SAFETY: all handles are of this device.
    unsafe {
        gpu.queue_submit2(gpu.queue, &submits, fence)?;
        let blocked = gpu.wait_for_fences(&[fence], true, 10_000_000);
        equal(
            "a wait before the signal",
            blocked,
            Err(vk::Result::TIMEOUT),
        )?;
        gpu.signal_semaphore(&vk::SemaphoreSignalInfo::default().semaphore(gate).value(1))?;
        gpu.wait(fence)?;
        // lavapipe may signal the fence first.
        let (timelines, values) = ([timeline], [2]);
        let reached = vk::SemaphoreWaitInfo::default()
            .semaphores(&timelines)
            .values(&values);
        gpu.wait_semaphores(&reached, LONG)?;
        equal(
            "the timeline",
            gpu.get_semaphore_counter_value(timeline)?,
            2,
        )?;
    }
    equal("the word", buffer.read(0), 2)?;
    Ok(String::new())
}

fn barriers(gpu: &Gpu<'_>) -> Outcome {
    need_it(gpu)?;
    let buffer = gpu.buffer(64)?;
    let copies = vk::PipelineStageFlags2::COPY | vk::PipelineStageFlags2::CLEAR;
    let between = [vk::BufferMemoryBarrier2::default()
        .src_stage_mask(copies)
        .src_access_mask(vk::AccessFlags2::TRANSFER_WRITE)
        .dst_stage_mask(copies)
        .dst_access_mask(vk::AccessFlags2::TRANSFER_READ | vk::AccessFlags2::TRANSFER_WRITE)
        .src_queue_family_index(vk::QUEUE_FAMILY_IGNORED)
        .dst_queue_family_index(vk::QUEUE_FAMILY_IGNORED)
        .buffer(buffer.handle)
        .size(vk::WHOLE_SIZE)];
    let dependency = vk::DependencyInfo::default().buffer_memory_barriers(&between);
    // SAFETY: `run` records; the buffer is of this device.
    gpu.run(|commands| unsafe {
        gpu.cmd_fill_buffer(commands, buffer.handle, 0, 4, 0x5151);
        for step in 0..6 {
            gpu.cmd_pipeline_barrier2(commands, &dependency);
            let size = 4 << step;
            let copies = [vk::BufferCopy2::default().dst_offset(size).size(size)];
            let copy = vk::CopyBufferInfo2::default()
                .src_buffer(buffer.handle)
                .dst_buffer(buffer.handle)
                .regions(&copies);
            gpu.cmd_copy_buffer2(commands, &copy);
        }
        gpu.barrier(commands);
    })?;
    equal("the words", buffer.read_all(), vec![0x5151; 64])?;
    Ok(String::new())
}
