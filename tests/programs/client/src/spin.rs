//! `spin SECONDS`: keeps the GPU busy for about that long with one submission, and waits for it.

use std::time::{Duration, Instant};

use ash::vk;

use crate::compute::Program;
use crate::gpu::Gpu;
use crate::outcome::Stop;

/// The number of rounds of one dispatch. It takes a fraction of a second on a CPU driver, and far
/// less on a GPU.
const ROUNDS: u32 = 50_000_000;

/// Work of known duration.
pub(crate) struct Spin<'g> {
    gpu: &'g Gpu<'g>,
    program: Program,
    set: vk::DescriptorSet,
    /// The duration of one round.
    once: Duration,
}

impl<'g> Spin<'g> {
    pub(crate) fn new(gpu: &'g Gpu<'_>) -> Result<Self, Stop> {
        let program = gpu.scrambler([1, ROUNDS])?;
        let buffer = gpu.buffer(1)?;
        let set = gpu.storage_set(&program, &[buffer.handle])?;
        let mut spin = Self {
            gpu,
            program,
            set,
            once: Duration::ZERO,
        };
        // The first round also compiles the shader.
        gpu.run(|commands| spin.round(commands))?;
        let begin = Instant::now();
        gpu.run(|commands| spin.round(commands))?;
        spin.once = begin.elapsed();
        Ok(spin)
    }

    fn round(&self, commands: vk::CommandBuffer) {
        self.gpu
            .dispatch(commands, &self.program, self.set, &[1, 1], [1, 1]);
    }

    /// Submits about `seconds` seconds of work.
    pub(crate) fn submit(&self, seconds: u32, fence: vk::Fence) -> Result<(), Stop> {
        let count = f64::from(seconds) / self.once.as_secs_f64();
        let commands = self
            .gpu
            .record(|commands| (0..count.ceil() as u32).for_each(|_| self.round(commands)))?;
        self.gpu.submit(&[commands], fence)
    }
}

/// Runs the command; prints `spinning` once the work is submitted.
pub(crate) fn spin(gpu: &Gpu<'_>, seconds: u32) -> Result<(), Stop> {
    let spin = Spin::new(gpu)?;
    let fence = gpu.fence(false)?;
    spin.submit(seconds, fence)?;
    crate::say("spinning");
    // SAFETY: the fence is of this device.
    Ok(unsafe { gpu.wait_for_fences(&[fence], true, u64::MAX) }?)
}
