//! Benchmarks of round trips: fences, semaphores, submissions, calls with a reply.

use std::thread::sleep;
use std::time::Duration;

use ash::vk;

use super::{Took, Watch, operations, rounds};
use crate::commands::LONG;
use crate::gpu::Gpu;
use crate::outcome::{Stop, need};
use crate::resources::ImageKind;

/// Makes an empty submission with a fence, and waits for the fence.
fn round_trip(gpu: &Gpu<'_>, fence: vk::Fence) -> Result<(), Stop> {
    // SAFETY: the fence is of this device and in no other submission.
    unsafe {
        gpu.queue_submit(gpu.queue, &[], fence)?;
        gpu.wait_for_fences(&[fence], true, LONG)?;
        Ok(gpu.reset_fences(&[fence])?)
    }
}

pub(super) fn fence(gpu: &Gpu<'_>) -> Result<Took, Stop> {
    let fence = gpu.fence(false)?;
    operations(gpu, 100, || round_trip(gpu, fence))
}

pub(super) fn timeline(gpu: &Gpu<'_>) -> Result<Took, Stop> {
    need(
        "timelineSemaphore",
        gpu.features.v12.timeline_semaphore != 0,
    )?;
    let semaphores = [gpu.timeline(0)?];
    let mut value = 0;
    operations(gpu, 100, || {
        value += 1;
        let values = [value];
        let mut timeline =
            vk::TimelineSemaphoreSubmitInfo::default().signal_semaphore_values(&values);
        let submit = vk::SubmitInfo::default()
            .signal_semaphores(&semaphores)
            .push_next(&mut timeline);
        let wait = vk::SemaphoreWaitInfo::default()
            .semaphores(&semaphores)
            .values(&values);
        // SAFETY: the semaphore is of this device, and only this thread uses the queue.
        unsafe {
            gpu.queue_submit(gpu.queue, &[submit], vk::Fence::null())?;
            Ok(gpu.wait_semaphores(&wait, LONG)?)
        }
    })
}

/// Measures `operation` 25 times, each time after 4 ms of idleness.
fn after_idle(mut operation: impl FnMut() -> Result<(), Stop>) -> Result<Took, Stop> {
    rounds(25, |watch: &mut Watch| {
        for _ in 0..25 {
            sleep(Duration::from_millis(4));
            watch.count(&mut operation)?;
        }
        Ok(())
    })
}

pub(super) fn fence_after_idle(gpu: &Gpu<'_>) -> Result<Took, Stop> {
    let fence = gpu.fence(false)?;
    after_idle(|| round_trip(gpu, fence))
}

/// Measures 64 submissions of one small command buffer each. Every one has a fence, or only the
/// last one.
fn submit(gpu: &Gpu<'_>, each: bool) -> Result<Took, Stop> {
    let buffer = gpu.buffer(1)?;
    // SAFETY: recording; the buffer is of this device.
    let commands = gpu.record(|commands| unsafe {
        gpu.cmd_fill_buffer(commands, buffer.handle, 0, 4, 1);
    })?;
    let fences = (0..64)
        .map(|_| gpu.fence(false))
        .collect::<Result<Vec<_>, _>>()?;
    let used = if each { &fences[..] } else { &fences[63..] };
    rounds(64, |watch| {
        watch.count(|| {
            for (index, &fence) in fences.iter().enumerate() {
                let fence = if each || index == 63 {
                    fence
                } else {
                    vk::Fence::null()
                };
                gpu.submit(&[commands], fence)?;
            }
            // SAFETY: the fences are of this device and have been submitted.
            unsafe {
                gpu.wait_for_fences(used, true, LONG)?;
                Ok(gpu.reset_fences(used)?)
            }
        })
    })
}

pub(super) fn submit_fence_each(gpu: &Gpu<'_>) -> Result<Took, Stop> {
    submit(gpu, true)
}

pub(super) fn submit_fence_last(gpu: &Gpu<'_>) -> Result<Took, Stop> {
    submit(gpu, false)
}

/// Returns a query that a guest's driver must send to the host every time: the layout of a linear
/// image.
fn question(gpu: &Gpu<'_>) -> Result<impl Fn() -> Result<(), Stop>, Stop> {
    let kind = ImageKind::picture(64, 64);
    let info = vk::ImageCreateInfo::default()
        .image_type(vk::ImageType::TYPE_2D)
        .format(kind.format)
        .extent(vk::Extent3D {
            width: 64,
            height: 64,
            depth: 1,
        })
        .mip_levels(1)
        .array_layers(1)
        .samples(kind.samples)
        .tiling(vk::ImageTiling::LINEAR)
        .usage(vk::ImageUsageFlags::TRANSFER_SRC);
    // SAFETY: the device is alive, `info` holds no pointers.
    let image = unsafe { gpu.create_image(&info, None) }?;
    gpu.own(image, ash::Device::destroy_image);
    let part = vk::ImageSubresource {
        aspect_mask: vk::ImageAspectFlags::COLOR,
        ..Default::default()
    };
    Ok(move || {
        // SAFETY: the image is linear and of this device.
        let _ = std::hint::black_box(unsafe { gpu.get_image_subresource_layout(image, part) });
        Ok(())
    })
}

pub(super) fn reply(gpu: &Gpu<'_>) -> Result<Took, Stop> {
    operations(gpu, 1000, question(gpu)?)
}

pub(super) fn reply_after_idle(gpu: &Gpu<'_>) -> Result<Took, Stop> {
    after_idle(question(gpu)?)
}
