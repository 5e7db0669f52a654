//! Eight threads at once, and many more.

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

/// Runs `body` on eight threads, each with its number; the first failure is the result.
fn all(body: impl Fn(u32) -> Result<(), Stop> + Sync) -> Outcome {
    on(THREADS, body)
}

/// The same on that many threads.
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
            // SAFETY: everything made here is destroyed here, by the same thread, and never used.
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

/// Each thread makes pipelines and uses them, all at the same time. Mesa's Venus has a ring of its
/// own for each thread that makes pipelines, and keeps it until the thread ends.
fn make_pipelines(gpu: &Gpu<'_>) -> Outcome {
    let queue = Mutex::new(gpu.queue);
    let together = Barrier::new(THREADS as usize);
    all(|number| {
        let buffer = gpu.buffer(256)?;
        let mut expected = 0;
        let mut outcome = Ok(());
        for round in 0..8 {
            // All threads come here as often, also when something went wrong.
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

/// A pipeline of a thread's own, that nothing else has made.
fn own_pipeline(gpu: &Gpu<'_>, layout: vk::PipelineLayout, number: u32) -> Result<(), Stop> {
    let constants = [64, 1 + number];
    gpu.compute_pipeline(SCRAMBLE, layout, constants, vk::PipelineCache::null())
        .map(|_| ())
}

/// Each thread makes a pipeline while all others are there with theirs.
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

/// Threads that make one pipeline and end, sixteen at a time.
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
    // All threads wait for one fence, whose submission waits for one of them.
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
