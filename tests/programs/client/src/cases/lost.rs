//! The case of a lost device: calls return the loss, and waits end.
//!
//! It needs the driver of `tests/drivers/losing`, which loses its device when the file named by
//! [`VARIABLE`] appears.

use std::fs::File;
use std::thread;
use std::time::Duration;

use ash::vk;

use super::{Case, case};
use crate::commands::LONG;
use crate::gpu::Gpu;
use crate::outcome::{Outcome, ensure, equal, fail, need, skip};

pub(super) const CASES: &[Case] = &[case("lost-device", device)];

/// The environment variable with the path of the file that means loss.
const VARIABLE: &str = "HESPER_LOSE_WHEN";

/// Whether a wait ended correctly: with the loss, or as if the work were done. Since Mesa 26.2,
/// Venus waits for the kernel's signal, which can end only the second way.
fn ended(result: Result<(), vk::Result>) -> bool {
    matches!(result, Ok(()) | Err(vk::Result::ERROR_DEVICE_LOST))
}

fn device(gpu: &Gpu<'_>) -> Outcome {
    let file = std::env::var_os(VARIABLE).ok_or_else(|| skip(VARIABLE))?;
    need(
        "timelineSemaphore",
        gpu.features.v12.timeline_semaphore != 0,
    )?;
    // Submit work that is unfinished when the device is lost.
    let (gate, fence) = (gpu.timeline(0)?, gpu.fence(false)?);
    gpu.submit_behind(gate, &[], fence)?;
    let lost = Err(vk::Result::ERROR_DEVICE_LOST);
    thread::scope(|scope| {
        // SAFETY: the fence is of this device.
        let waiter = scope.spawn(|| unsafe { gpu.wait_for_fences(&[fence], true, LONG) });
        thread::sleep(Duration::from_millis(50));
        ensure("the wait goes on before the loss", !waiter.is_finished())?;
        File::create(&file).map_err(|error| fail(&format!("{file:?}: {error}")))?;
        let waited = waiter
            .join()
            .map_err(|_| fail("the waiting thread panicked"))?;
        ensure("the wait that was going on ends", ended(waited))
    })?;
    let late = gpu.fence(false)?;
    // This submission has work, because Mesa 26.2 lets the kernel signal the fence of an empty one.
    let commands = [gpu.record(|_| {})?];
    let work = vk::SubmitInfo::default().command_buffers(&commands);
    // SAFETY: as above.
    unsafe {
        let submitted = gpu.queue_submit(gpu.queue, &[work], late);
        equal("a submission after the loss", submitted, lost)?;
        ensure("a wait for idleness ends", ended(gpu.device_wait_idle()))?;
        let status = gpu.get_fence_status(fence).map(|_| ());
        ensure("the status of the fence is known", ended(status))?;
        // Let the waiting work end. Otherwise it blocks the driver's own thread, which takes part
        // in destroying the device.
        gpu.signal_semaphore(&vk::SemaphoreSignalInfo::default().semaphore(gate).value(1))?;
    }
    Ok(String::new())
}
