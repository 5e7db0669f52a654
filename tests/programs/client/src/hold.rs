//! `hold MAPS SECONDS FILE`: holds memory and waits for fences while a test does something to the
//! machine.
//!
//! It maps MAPS pieces of memory, and submits work on all of them that waits for a semaphore of the
//! host's. Before that, it keeps the GPU busy for SECONDS with a fence that the kernel waits for,
//! if the driver supports it. It prints `holding`, and then writes and reads its memory until FILE
//! exists. Then it signals the semaphore, waits for the GPU, and checks every word.

use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use ash::vk;
use rustix::event::{PollFd, PollFlags, poll};

use crate::gpu::Gpu;
use crate::outcome::{Stop, ensure, equal, need};
use crate::resources::Buffer;
use crate::spin::Spin;

/// The number of words in each piece. It is large enough that no driver puts several pieces into
/// one allocation.
const WORDS: usize = 1 << 15;
/// The word that the GPU writes into the second half.
const FILL: u32 = 0x5ee7_ab1e;
/// The extension for fences that the kernel waits for.
pub(crate) const KERNEL_FENCES: &std::ffi::CStr = ash::khr::external_fence_fd::NAME;

/// The word that the CPU writes at `index` of piece `piece` in `round`.
fn word(piece: usize, index: usize, round: u32) -> u32 {
    (piece as u32).wrapping_mul(0x9e37_79b9) ^ (index as u32) ^ round.wrapping_mul(0x85eb_ca6b)
}

fn write(pieces: &[Buffer<'_>], round: u32) {
    for (piece, buffer) in pieces.iter().enumerate() {
        for index in (0..WORDS / 2).step_by(509) {
            buffer.write(index, word(piece, index, round));
        }
    }
}

fn check(pieces: &[Buffer<'_>], round: u32) -> Result<(), Stop> {
    for (piece, buffer) in pieces.iter().enumerate() {
        for index in (0..WORDS / 2).step_by(509) {
            equal(
                &format!("word {index} of piece {piece}"),
                buffer.read(index),
                word(piece, index, round),
            )?;
        }
    }
    Ok(())
}

/// Runs the command; see the module.
pub(crate) fn hold(gpu: &Gpu<'_>, maps: usize, seconds: u32, file: &Path) -> Result<(), Stop> {
    need(
        "timelineSemaphore",
        gpu.features.v12.timeline_semaphore != 0,
    )?;
    let pieces: Vec<Buffer<'_>> = (0..maps)
        .map(|_| gpu.buffer(WORDS))
        .collect::<Result<_, _>>()?;
    write(&pieces, 0);

    // Keep the GPU busy, with a fence that the kernel waits for.
    let kernel_fences = gpu.host.has(KERNEL_FENCES);
    let spin = Spin::new(gpu)?;
    let mut export = vk::ExportFenceCreateInfo::default()
        .handle_types(vk::ExternalFenceHandleTypeFlags::SYNC_FD);
    let mut info = vk::FenceCreateInfo::default();
    if kernel_fences {
        info = info.push_next(&mut export);
    }
    // SAFETY: what `info` points to lives until the call has returned.
    let busy = unsafe { gpu.create_fence(&info, None) }?;
    let busy = gpu.own(busy, ash::Device::destroy_fence);
    spin.submit(seconds, busy)?;
    let waited_for = match kernel_fences {
        true => sync_file(gpu, busy)?,
        false => None,
    };

    // After it, submit the work that waits for the host.
    let timeline = gpu.timeline(0)?;
    let commands = gpu.record(|commands| {
        for piece in &pieces {
            let half = (WORDS * 2) as u64;
            // SAFETY: the buffer is of this device, and twice as long.
            unsafe { gpu.cmd_fill_buffer(commands, piece.handle, half, half, FILL) };
        }
        gpu.barrier(commands);
    })?;
    let done = gpu.fence(false)?;
    let (waits, values, stages) = ([timeline], [1], [vk::PipelineStageFlags::ALL_COMMANDS]);
    let commands = [commands];
    let mut values = vk::TimelineSemaphoreSubmitInfo::default().wait_semaphore_values(&values);
    let submit = vk::SubmitInfo::default()
        .wait_semaphores(&waits)
        .wait_dst_stage_mask(&stages)
        .command_buffers(&commands)
        .push_next(&mut values);
    // SAFETY: all handles are of this device.
    unsafe { gpu.queue_submit(gpu.queue, &[submit], done) }?;
    crate::say(&format!(
        "holding {maps}{}",
        if waited_for.is_some() {
            " and a sync file"
        } else {
            ""
        }
    ));

    let mut round = 0;
    while !file.exists() {
        check(&pieces, round)?;
        round += 1;
        write(&pieces, round);
        std::thread::sleep(Duration::from_millis(20));
    }
    // SAFETY: the fence is of this device.
    ensure("the work waits for the host", !unsafe {
        gpu.get_fence_status(done)
    }?)?;
    let signal = vk::SemaphoreSignalInfo::default()
        .semaphore(timeline)
        .value(1);
    // SAFETY: the semaphore is a timeline of this device, below 1.
    unsafe { gpu.signal_semaphore(&signal) }?;
    gpu.wait(done)?;
    if let Some(file) = waited_for {
        let mut fds = [PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN)];
        let ready = poll(
            &mut fds,
            Some(&rustix::event::Timespec {
                tv_sec: 60,
                tv_nsec: 0,
            }),
        );
        equal("sync files that are signalled", ready, Ok(1))?;
    }
    check(&pieces, round)?;
    for (piece, buffer) in pieces.iter().enumerate() {
        for index in (WORDS / 2..WORDS).step_by(509) {
            equal(
                &format!("word {index} of piece {piece}"),
                buffer.read(index),
                FILL,
            )?;
        }
    }
    Ok(())
}

/// Exports a submitted fence as a sync file; `None` if it is signalled already.
fn sync_file(gpu: &Gpu<'_>, fence: vk::Fence) -> Result<Option<OwnedFd>, Stop> {
    let functions = gpu.extension(ash::khr::external_fence_fd::Device::new);
    let info = vk::FenceGetFdInfoKHR::default()
        .fence(fence)
        .handle_type(vk::ExternalFenceHandleTypeFlags::SYNC_FD);
    // SAFETY: the fence is of this device, can be exported, and was submitted.
    let fd = unsafe { functions.get_fence_fd(&info) }?;
    // SAFETY: the driver returns a descriptor that we own, or -1.
    Ok((fd >= 0).then(|| unsafe { OwnedFd::from_raw_fd(fd) }))
}
