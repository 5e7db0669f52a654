//! Cases of submissions and fences.

use std::time::{Duration, Instant};

use ash::vk;

use super::{Case, case};
use crate::commands::LONG;
use crate::gpu::Gpu;
use crate::outcome::{Outcome, ensure, equal, need};

pub(super) const CASES: &[Case] = &[
    case("submit-empty", empty),
    case("submit-one", one),
    case("submit-64-in-flight", many_in_flight),
    case("submit-batches", batches),
    case("fence-reset-and-reuse", reset_and_reuse),
    case("fence-made-signalled", made_signalled),
    case("fence-timeout", timeout),
    case(
        "fence-timeout-of-a-blocked-queue",
        timeout_of_a_blocked_queue,
    ),
    case("fence-wait-any", wait_any),
];

fn empty(gpu: &Gpu<'_>) -> Outcome {
    let fence = gpu.fence(false)?;
    for _ in 0..10 {
        // SAFETY: the fence is not in use.
        unsafe {
            gpu.queue_submit(gpu.queue, &[], fence)?;
            gpu.wait(fence)?;
            equal("the fence", gpu.get_fence_status(fence)?, true)?;
            gpu.reset_fences(&[fence])?;
        }
    }
    Ok(String::new())
}

fn one(gpu: &Gpu<'_>) -> Outcome {
    let buffer = gpu.buffer(256)?;
    // SAFETY: `run` records; the buffer is of this device.
    gpu.run(|commands| unsafe {
        gpu.cmd_fill_buffer(commands, buffer.handle, 0, vk::WHOLE_SIZE, 0x1234_5678);
        gpu.barrier(commands);
    })?;
    ensure(
        "every word is filled",
        buffer.read_all().iter().all(|&word| word == 0x1234_5678),
    )?;
    Ok(String::new())
}

fn many_in_flight(gpu: &Gpu<'_>) -> Outcome {
    const COUNT: u32 = 64;
    let buffer = gpu.buffer(COUNT as usize)?;
    let mut fences = Vec::new();
    for index in 0..COUNT {
        // Each submission continues the work of the one before: it copies word index-1 to word
        // index, then overwrites the old word.
        //
        // SAFETY: recording; the buffer is of this device.
        let commands = gpu.record(|commands| unsafe {
            let at = u64::from(index) * 4;
            if index > 0 {
                let copy = vk::BufferCopy {
                    src_offset: at - 4,
                    dst_offset: at,
                    size: 4,
                };
                gpu.cmd_copy_buffer(commands, buffer.handle, buffer.handle, &[copy]);
                gpu.barrier(commands);
                gpu.cmd_fill_buffer(commands, buffer.handle, at - 4, 4, index);
            } else {
                gpu.cmd_fill_buffer(commands, buffer.handle, 0, 4, 0xabcd);
            }
            gpu.barrier(commands);
        })?;
        let fence = gpu.fence(false)?;
        gpu.submit(&[commands], fence)?;
        fences.push(fence);
    }
    // Wait for the last fence first. Then all others must be signalled too, because a queue works
    // in order.
    gpu.wait(fences[fences.len() - 1])?;
    // SAFETY: the fences are of this device.
    unsafe { gpu.wait_for_fences(&fences, true, LONG) }?;
    for (index, word) in (1..).zip(buffer.read_all()) {
        equal("a word", word, if index == COUNT { 0xabcd } else { index })?;
    }
    Ok(format!("{:016x}", buffer.digest()))
}

fn batches(gpu: &Gpu<'_>) -> Outcome {
    let buffer = gpu.buffer(8)?;
    let mut commands = Vec::new();
    for index in 0..8 {
        // SAFETY: recording; the buffer is of this device.
        commands.push(gpu.record(|commands| unsafe {
            gpu.cmd_fill_buffer(commands, buffer.handle, 0, 4 * (8 - index), index as u32);
            gpu.barrier(commands);
        })?);
    }
    let (first, rest) = commands.split_at(3);
    let submits = [
        vk::SubmitInfo::default().command_buffers(first),
        vk::SubmitInfo::default(),
        vk::SubmitInfo::default().command_buffers(rest),
    ];
    let fence = gpu.fence(false)?;
    // SAFETY: all handles are of this device.
    unsafe { gpu.queue_submit(gpu.queue, &submits, fence) }?;
    gpu.wait(fence)?;
    equal("the words", buffer.read_all(), (0..8).rev().collect())?;
    Ok(String::new())
}

fn reset_and_reuse(gpu: &Gpu<'_>) -> Outcome {
    let buffer = gpu.buffer(1)?;
    let fence = gpu.fence(false)?;
    let pool = gpu.pool(gpu.family)?;
    let commands = gpu.command_buffers(pool, vk::CommandBufferLevel::PRIMARY, 1)?[0];
    for round in 1..=100 {
        let once = vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT;
        // SAFETY: recording; the buffer is of this device.
        gpu.record_into(commands, once, |commands| unsafe {
            gpu.cmd_fill_buffer(commands, buffer.handle, 0, 4, round);
            gpu.barrier(commands);
        })?;
        gpu.submit(&[commands], fence)?;
        gpu.wait(fence)?;
        equal("the word", buffer.read(0), round)?;
        // SAFETY: the fence is not in use.
        unsafe {
            gpu.reset_fences(&[fence])?;
            equal(
                "the fence after its reset",
                gpu.get_fence_status(fence)?,
                false,
            )?;
        }
    }
    Ok(String::new())
}

fn made_signalled(gpu: &Gpu<'_>) -> Outcome {
    let fence = gpu.fence(true)?;
    // SAFETY: the fence is of this device and not in use.
    unsafe {
        equal("the fence", gpu.get_fence_status(fence)?, true)?;
        gpu.wait_for_fences(&[fence], true, 0)?;
        gpu.reset_fences(&[fence])?;
        equal(
            "the fence after its reset",
            gpu.get_fence_status(fence)?,
            false,
        )?;
        gpu.queue_submit(gpu.queue, &[], fence)?;
    }
    gpu.wait(fence)?;
    Ok(String::new())
}

fn timeout(gpu: &Gpu<'_>) -> Outcome {
    let fence = gpu.fence(false)?;
    let begin = Instant::now();
    // SAFETY: the fence is of this device and not in use.
    unsafe {
        let zero = gpu.wait_for_fences(&[fence], true, 0);
        equal("a wait of 0 ns", zero, Err(vk::Result::TIMEOUT))?;
        let short = gpu.wait_for_fences(&[fence], true, 30_000_000);
        equal("a wait of 30 ms", short, Err(vk::Result::TIMEOUT))?;
        ensure(
            "30 ms have gone by",
            begin.elapsed() >= Duration::from_millis(30),
        )?;
        gpu.queue_submit(gpu.queue, &[], fence)?;
    }
    gpu.wait(fence)?;
    Ok(String::new())
}

fn timeout_of_a_blocked_queue(gpu: &Gpu<'_>) -> Outcome {
    need(
        "timelineSemaphore",
        gpu.features.v12.timeline_semaphore != 0,
    )?;
    let gate = gpu.timeline(0)?;
    let buffer = gpu.buffer(1)?;
    // SAFETY: recording; the buffer is of this device.
    let commands = gpu.record(|commands| unsafe {
        gpu.cmd_fill_buffer(commands, buffer.handle, 0, 4, 7);
        gpu.barrier(commands);
    })?;
    let fence = gpu.fence(false)?;
    gpu.submit_behind(gate, &[commands], fence)?;
    // SAFETY: fence and semaphore are of this device.
    unsafe {
        let blocked = gpu.wait_for_fences(&[fence], true, 20_000_000);
        equal(
            "a wait on the blocked queue",
            blocked,
            Err(vk::Result::TIMEOUT),
        )?;
        equal("the blocked fence", gpu.get_fence_status(fence)?, false)?;
        equal("the word before", buffer.read(0), 0)?;
        gpu.signal_semaphore(&vk::SemaphoreSignalInfo::default().semaphore(gate).value(1))?;
    }
    gpu.wait(fence)?;
    equal("the word after", buffer.read(0), 7)?;
    Ok(String::new())
}

fn wait_any(gpu: &Gpu<'_>) -> Outcome {
    let fences = [gpu.fence(false)?, gpu.fence(false)?, gpu.fence(false)?];
    // SAFETY: the fences are of this device.
    unsafe {
        let none = gpu.wait_for_fences(&fences, false, 1_000_000);
        equal("a wait on none", none, Err(vk::Result::TIMEOUT))?;
        gpu.queue_submit(gpu.queue, &[], fences[1])?;
        gpu.wait_for_fences(&fences, false, LONG)?;
        equal("the one submitted", gpu.get_fence_status(fences[1])?, true)?;
        let all = gpu.wait_for_fences(&fences, true, 1_000_000);
        equal("a wait on all", all, Err(vk::Result::TIMEOUT))?;
        gpu.queue_submit(gpu.queue, &[], fences[0])?;
        gpu.queue_submit(gpu.queue, &[], fences[2])?;
        gpu.wait_for_fences(&fences, true, LONG)?;
    }
    Ok(String::new())
}
