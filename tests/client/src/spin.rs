//! `spin SECONDS`: keeps the GPU busy with one submission that takes about that long, and waits for it.

use std::time::Instant;

use crate::gpu::Gpu;
use crate::outcome::Stop;

/// Rounds of one dispatch: a fraction of a second on a CPU's Vulkan, far less on a GPU.
const ROUNDS: u32 = 50_000_000;

/// Says `spinning` once the work is under way.
pub(crate) fn spin(gpu: &Gpu<'_>, seconds: u32) -> Result<(), Stop> {
    let program = gpu.scrambler([1, ROUNDS])?;
    let buffer = gpu.buffer(1)?;
    let set = gpu.storage_set(&program, &[buffer.handle])?;
    let once = |commands| gpu.dispatch(commands, &program, set, &[1, 1], [1, 1]);
    // The first one compiles, too.
    gpu.run(once)?;
    let begin = Instant::now();
    gpu.run(once)?;
    let count = f64::from(seconds) / begin.elapsed().as_secs_f64();
    let commands = gpu.record(|commands| (0..count.ceil() as u32).for_each(|_| once(commands)))?;
    let fence = gpu.fence(false)?;
    gpu.submit(&[commands], fence)?;
    crate::say("spinning");
    // SAFETY: the fence is of this device.
    Ok(unsafe { gpu.wait_for_fences(&[fence], true, u64::MAX) }?)
}
