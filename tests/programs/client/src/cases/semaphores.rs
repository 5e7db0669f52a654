//! Cases of timeline and binary semaphores.

use std::thread;
use std::time::Duration;

use ash::vk;

use super::{Case, case};
use crate::commands::LONG;
use crate::gpu::Gpu;
use crate::outcome::{Outcome, Stop, ensure, equal, fail, need};

pub(super) const CASES: &[Case] = &[
    case("timeline-host", host_signal),
    case("timeline-device", device_signal),
    case("timeline-wait-before-signal", wait_before_signal),
    case("timeline-queue-waits-for-host", queue_waits_for_host),
    case("timeline-wait-any", wait_any),
    case("binary-chain-over-two-submits", binary_chain),
    case("binary-ring", binary_ring),
];

fn need_timelines(gpu: &Gpu<'_>) -> Result<(), Stop> {
    need(
        "timelineSemaphore",
        gpu.features.v12.timeline_semaphore != 0,
    )
}

/// Waits until `semaphore` reaches `value`.
fn wait(gpu: &Gpu<'_>, semaphore: vk::Semaphore, value: u64, limit: u64) -> Result<(), vk::Result> {
    let (semaphores, values) = ([semaphore], [value]);
    let info = vk::SemaphoreWaitInfo::default()
        .semaphores(&semaphores)
        .values(&values);
    // SAFETY: the semaphore is a timeline of this device.
    unsafe { gpu.wait_semaphores(&info, limit) }
}

fn signal(gpu: &Gpu<'_>, semaphore: vk::Semaphore, value: u64) -> Result<(), Stop> {
    let info = vk::SemaphoreSignalInfo::default()
        .semaphore(semaphore)
        .value(value);
    // SAFETY: the semaphore is a timeline of this device, below `value`.
    Ok(unsafe { gpu.signal_semaphore(&info) }?)
}

fn value(gpu: &Gpu<'_>, semaphore: vk::Semaphore) -> Result<u64, Stop> {
    // SAFETY: the semaphore is a timeline of this device.
    Ok(unsafe { gpu.get_semaphore_counter_value(semaphore) }?)
}

/// Submits `commands` between a wait and a signal. Each is a semaphore and its value (0 for a
/// binary one).
fn submit(
    gpu: &Gpu<'_>,
    before: Option<(vk::Semaphore, u64)>,
    commands: &[vk::CommandBuffer],
    after: Option<(vk::Semaphore, u64)>,
    fence: vk::Fence,
) -> Result<(), Stop> {
    let stages = [vk::PipelineStageFlags::ALL_COMMANDS];
    let split = |one: Option<(vk::Semaphore, u64)>| -> (Vec<_>, Vec<_>) { one.into_iter().unzip() };
    let ((waits, wait_values), (signals, signal_values)) = (split(before), split(after));
    let mut timeline = vk::TimelineSemaphoreSubmitInfo::default()
        .wait_semaphore_values(&wait_values)
        .signal_semaphore_values(&signal_values);
    let mut info = vk::SubmitInfo::default()
        .wait_semaphores(&waits)
        .wait_dst_stage_mask(&stages[..waits.len()])
        .command_buffers(commands)
        .signal_semaphores(&signals);
    if gpu.features.v12.timeline_semaphore != 0 {
        info = info.push_next(&mut timeline);
    }
    // SAFETY: all handles are of this device.
    Ok(unsafe { gpu.queue_submit(gpu.queue, &[info], fence) }?)
}

fn host_signal(gpu: &Gpu<'_>) -> Outcome {
    need_timelines(gpu)?;
    let timeline = gpu.timeline(5)?;
    equal("the first value", value(gpu, timeline)?, 5)?;
    equal("a wait for the present", wait(gpu, timeline, 5, 0), Ok(()))?;
    let future = wait(gpu, timeline, 6, 5_000_000);
    equal("a wait for the future", future, Err(vk::Result::TIMEOUT))?;
    for step in [6, 7, 1 << 20, (1 << 31) + 5, 1 << 32] {
        // maxTimelineSemaphoreValueDifference is at least 2^31-1, and some drivers support no more.
        if step - value(gpu, timeline)? > 0x7fff_ffff {
            signal(gpu, timeline, step / 2)?;
        }
        signal(gpu, timeline, step)?;
        equal("the value", value(gpu, timeline)?, step)?;
        equal("a wait for it", wait(gpu, timeline, step, LONG), Ok(()))?;
    }
    Ok(String::new())
}

fn device_signal(gpu: &Gpu<'_>) -> Outcome {
    need_timelines(gpu)?;
    let timeline = gpu.timeline(0)?;
    for step in 1..=100 {
        submit(
            gpu,
            Some((timeline, step - 1)),
            &[],
            Some((timeline, step)),
            vk::Fence::null(),
        )?;
        if step % 10 == 0 {
            wait(gpu, timeline, step, LONG)?;
            equal("the value", value(gpu, timeline)?, step)?;
        }
    }
    Ok(String::new())
}

fn wait_before_signal(gpu: &Gpu<'_>) -> Outcome {
    need_timelines(gpu)?;
    let buffer = gpu.buffer(1)?;
    let timeline = gpu.timeline(0)?;
    // SAFETY: recording; the buffer is of this device.
    let commands = gpu.record(|commands| unsafe {
        gpu.cmd_fill_buffer(commands, buffer.handle, 0, 4, 99);
        gpu.barrier(commands);
    })?;
    thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let waited = wait(gpu, timeline, 3, LONG);
            (waited, buffer.read(0))
        });
        thread::sleep(Duration::from_millis(20));
        ensure("the wait goes on", !waiter.is_finished())?;
        signal(gpu, timeline, 1)?;
        thread::sleep(Duration::from_millis(5));
        ensure("the wait still goes on", !waiter.is_finished())?;
        submit(
            gpu,
            None,
            &[commands],
            Some((timeline, 3)),
            vk::Fence::null(),
        )?;
        let seen = waiter
            .join()
            .map_err(|_| fail("the waiting thread panicked"))?;
        equal("the wait and what it saw", seen, (Ok(()), 99))?;
        Ok(String::new())
    })
}

fn queue_waits_for_host(gpu: &Gpu<'_>) -> Outcome {
    need_timelines(gpu)?;
    let buffer = gpu.buffer(1)?;
    // Use two semaphores: Mesa 25.0's Venus notes a host signal only after it has sent it, and may
    // so overwrite the device's next signal on the same semaphore.
    let (gate, done) = (gpu.timeline(0)?, gpu.timeline(0)?);
    // SAFETY: recording; the buffer is of this device.
    let commands = gpu.record(|commands| unsafe {
        gpu.cmd_fill_buffer(commands, buffer.handle, 0, 4, 5);
        gpu.barrier(commands);
    })?;
    submit(
        gpu,
        Some((gate, 10)),
        &[commands],
        Some((done, 11)),
        vk::Fence::null(),
    )?;
    thread::sleep(Duration::from_millis(10));
    equal("the word before the signal", buffer.read(0), 0)?;
    thread::scope(|scope| {
        let signaller = scope.spawn(|| {
            thread::sleep(Duration::from_millis(10));
            signal(gpu, gate, 10)
        });
        let waited = wait(gpu, done, 11, LONG);
        signaller
            .join()
            .map_err(|_| fail("the signalling thread panicked"))??;
        equal("the wait", waited, Ok(()))
    })?;
    equal("the word after it", buffer.read(0), 5)?;
    Ok(String::new())
}

fn wait_any(gpu: &Gpu<'_>) -> Outcome {
    need_timelines(gpu)?;
    let semaphores = [gpu.timeline(0)?, gpu.timeline(0)?];
    let info = vk::SemaphoreWaitInfo::default()
        .flags(vk::SemaphoreWaitFlags::ANY)
        .semaphores(&semaphores)
        .values(&[4, 2]);
    // SAFETY: the semaphores are timelines of this device.
    unsafe {
        let none = gpu.wait_semaphores(&info, 2_000_000);
        equal("a wait on none", none, Err(vk::Result::TIMEOUT))?;
        submit(gpu, None, &[], Some((semaphores[1], 2)), vk::Fence::null())?;
        gpu.wait_semaphores(&info, LONG)?;
    }
    equal(
        "the values",
        [value(gpu, semaphores[0])?, value(gpu, semaphores[1])?],
        [0, 2],
    )?;
    Ok(String::new())
}

fn binary_chain(gpu: &Gpu<'_>) -> Outcome {
    let buffer = gpu.buffer(2)?;
    let semaphore = gpu.semaphore()?;
    // SAFETY: recording; the buffer is of this device.
    let first = gpu.record(|commands| unsafe {
        gpu.cmd_fill_buffer(commands, buffer.handle, 0, 4, 41);
        gpu.barrier(commands);
    })?;
    // SAFETY: as above.
    let second = gpu.record(|commands| unsafe {
        let copy = vk::BufferCopy {
            src_offset: 0,
            dst_offset: 4,
            size: 4,
        };
        gpu.cmd_copy_buffer(commands, buffer.handle, buffer.handle, &[copy]);
        gpu.barrier(commands);
    })?;
    let fence = gpu.fence(false)?;
    for round in 0..20 {
        buffer.write(1, round);
        submit(gpu, None, &[first], Some((semaphore, 0)), vk::Fence::null())?;
        submit(gpu, Some((semaphore, 0)), &[second], None, fence)?;
        gpu.wait(fence)?;
        equal("the copied word", buffer.read(1), 41)?;
        // SAFETY: the fence is not in use.
        unsafe { gpu.reset_fences(&[fence]) }?;
    }
    Ok(String::new())
}

fn binary_ring(gpu: &Gpu<'_>) -> Outcome {
    // Submit 64 times without a wait on the CPU, with three semaphores in turn.
    let buffer = gpu.buffer(65)?;
    buffer.write(0, 1234);
    let semaphores = [gpu.semaphore()?, gpu.semaphore()?, gpu.semaphore()?];
    let fence = gpu.fence(false)?;
    let mut before = None;
    for step in 0..64 {
        // SAFETY: recording; the buffer is of this device.
        let commands = gpu.record(|commands| unsafe {
            let at = step as u64 * 4;
            let copy = vk::BufferCopy {
                src_offset: at,
                dst_offset: at + 4,
                size: 4,
            };
            gpu.cmd_copy_buffer(commands, buffer.handle, buffer.handle, &[copy]);
            gpu.barrier(commands);
        })?;
        let last = step == 63;
        let after = (!last).then(|| (semaphores[step % 3], 0));
        submit(
            gpu,
            before,
            &[commands],
            after,
            if last { fence } else { vk::Fence::null() },
        )?;
        before = after;
    }
    gpu.wait(fence)?;
    ensure(
        "the word went all the way",
        buffer.read_all().iter().all(|&word| word == 1234),
    )?;
    Ok(String::new())
}
