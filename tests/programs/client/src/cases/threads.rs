//! Cases with eight threads at once, and with many more.

use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;

use ash::vk;

use super::{Case, case};
use crate::gpu::Gpu;
use crate::outcome::{Outcome, Stop, equal, fail, need};
use crate::resources::ANY_USE;
use crate::shaders::{SCRAMBLE, scramble};

pub(super) const CASES: &[Case] = &[
    case("threads-record-and-submit", record_and_submit),
    case("threads-make-and-destroy", make_and_destroy),
    case("threads-wait", wait),
    case("threads-make-pipelines", make_pipelines),
    case("threads-80-make-pipelines", |gpu| {
        pipelines_at_once(gpu, 80)
    }),
    case("threads-256-make-pipelines", |gpu| {
        pipelines_at_once(gpu, 256)
    }),
    case("threads-2000-short-lived", short_lived),
];

const THREADS: u32 = 8;

/// Runs `body` on eight threads, each with its number. Returns the first failure, if any.
fn all(body: impl Fn(u32) -> Result<(), Stop> + Sync) -> Outcome {
    on(THREADS, body)
}

/// Runs `body` on `count` threads in the same way.
fn on(count: u32, body: impl Fn(u32) -> Result<(), Stop> + Sync) -> Outcome {
    thread::scope(|scope| {
        let body = &body;
        let threads: Vec<_> = (0..count)
            .map(|number| scope.spawn(move || body(number)))
            .collect();
        let ends: Vec<_> = threads
            .into_iter()
            .map(thread::ScopedJoinHandle::join)
            .collect();
        for end in ends {
            end.map_err(|_| fail("a thread panicked"))??;
        }
        Ok(String::new())
    })
}

fn record_and_submit(gpu: &Gpu<'_>) -> Outcome {
    let program = gpu.scrambler([64, 2])?;
    let queue = Mutex::new(gpu.queue);
    all(|number| {
        let buffer = gpu.buffer(512)?;
        let set = gpu.storage_set(&program, &[buffer.handle])?;
        let pool = gpu.pool(gpu.family)?;
        let commands = gpu.command_buffers(pool, vk::CommandBufferLevel::PRIMARY, 1)?;
        let fence = gpu.fence(false)?;
        let mut expected = 0;
        for round in 0..30 {
            let seed = number * 1000 + round;
            let once = vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT;
            gpu.record_into(commands[0], once, |commands| {
                for step in 0..4 {
                    gpu.dispatch(commands, &program, set, &[512, seed + step], [8, 1]);
                }
            })?;
            let submit = vk::SubmitInfo::default().command_buffers(&commands);
            {
                let queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                // SAFETY: all handles are of this device; the lock serialises use of the queue.
                unsafe { gpu.queue_submit(*queue, &[submit], fence) }?;
            }
            gpu.wait(fence)?;
            // SAFETY: the fence is not in use.
            unsafe { gpu.reset_fences(&[fence]) }?;
            expected = (0..4).fold(expected, |word, step| scramble(word, seed + step, 2));
            equal("the first word", buffer.read(0), expected)?;
            equal("the last word", buffer.read(511), expected)?;
        }
        Ok(())
    })
}

fn make_and_destroy(gpu: &Gpu<'_>) -> Outcome {
    all(|number| {
        for round in 0..200 {
            let size = u64::from(64 + number * 100 + round);
            let info = vk::BufferCreateInfo::default().size(size).usage(ANY_USE);
            // SAFETY: everything is created and destroyed here by the same thread, and never used.
            unsafe {
                let buffer = gpu.create_buffer(&info, None)?;
                let needs = gpu.get_buffer_memory_requirements(buffer);
                let sampler = gpu.create_sampler(&Default::default(), None)?;
                let fence = gpu.create_fence(&Default::default(), None)?;
                gpu.destroy_buffer(buffer, None);
                gpu.destroy_fence(fence, None);
                gpu.destroy_sampler(sampler, None);
                equal(
                    "whether the memory is large enough",
                    needs.size >= size,
                    true,
                )?;
            }
        }
        Ok(())
    })
}

/// Creates and uses pipelines in all threads at the same time. Mesa's Venus has a ring for each
/// thread that creates pipelines, and keeps it until the thread ends.
fn make_pipelines(gpu: &Gpu<'_>) -> Outcome {
    let queue = Mutex::new(gpu.queue);
    let together = Barrier::new(THREADS as usize);
    all(|number| {
        let buffer = gpu.buffer(256)?;
        let mut expected = 0;
        let mut outcome = Ok(());
        for round in 0..8 {
            // All threads wait here in every round, even after a failure.
            together.wait();
            if outcome.is_ok() {
                outcome = (|| {
                    let rounds = 1 + number + round * THREADS;
                    let program = gpu.scrambler([64, rounds])?;
                    let set = gpu.storage_set(&program, &[buffer.handle])?;
                    let commands = [gpu.record(|commands| {
                        gpu.dispatch(commands, &program, set, &[256, number], [4, 1]);
                    })?];
                    let fence = gpu.fence(false)?;
                    let submit = vk::SubmitInfo::default().command_buffers(&commands);
                    {
                        let queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
                        // SAFETY: all handles are of this device; the lock serialises use of the
                        // queue.
                        unsafe { gpu.queue_submit(*queue, &[submit], fence) }?;
                    }
                    gpu.wait(fence)?;
                    expected = scramble(expected, number, rounds);
                    equal("the words", buffer.read_all(), vec![expected; 256])
                })();
            }
        }
        together.wait();
        outcome
    })
}

/// Creates a pipeline that no other thread has created.
fn own_pipeline(gpu: &Gpu<'_>, layout: vk::PipelineLayout, number: u32) -> Result<(), Stop> {
    let constants = [64, 1 + number];
    gpu.compute_pipeline(SCRAMBLE, layout, constants, vk::PipelineCache::null())
        .map(|_| ())
}

/// Creates a pipeline in each thread while all other threads exist with theirs.
fn pipelines_at_once(gpu: &Gpu<'_>, count: u32) -> Outcome {
    let set_layout = gpu.set_layout(&[vk::DescriptorType::STORAGE_BUFFER], Default::default())?;
    let layout = gpu.pipeline_layout(&[set_layout])?;
    let together = Barrier::new(count as usize);
    on(count, |number| {
        together.wait();
        let made = own_pipeline(gpu, layout, number);
        together.wait();
        made
    })
}

/// Runs threads that create one pipeline and end, sixteen at a time.
fn short_lived(gpu: &Gpu<'_>) -> Outcome {
    const LANES: u32 = 16;
    const EACH: u32 = 2000 / LANES;
    let set_layout = gpu.set_layout(&[vk::DescriptorType::STORAGE_BUFFER], Default::default())?;
    let layout = gpu.pipeline_layout(&[set_layout])?;
    on(LANES, |lane| {
        for number in 0..EACH {
            let one = || own_pipeline(gpu, layout, lane * EACH + number);
            let made = thread::scope(|scope| scope.spawn(one).join());
            made.map_err(|_| fail("a thread panicked"))??;
        }
        Ok(())
    })
}

fn wait(gpu: &Gpu<'_>) -> Outcome {
    // All threads wait for one fence. Its submission waits for one of the threads.
    need(
        "timelineSemaphore",
        gpu.features.v12.timeline_semaphore != 0,
    )?;
    let (gate, fence) = (gpu.timeline(0)?, gpu.fence(false)?);
    gpu.submit_behind(gate, &[], fence)?;
    all(|number| {
        if number == 0 {
            thread::sleep(std::time::Duration::from_millis(20));
            let signal = vk::SemaphoreSignalInfo::default().semaphore(gate).value(1);
            // SAFETY: the semaphore is a timeline of this device, at 0.
            unsafe { gpu.signal_semaphore(&signal) }?;
        }
        gpu.wait(fence)
    })
}
