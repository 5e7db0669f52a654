//! Benchmarks of memory: mapped access, allocation, uploads.

use std::sync::atomic::Ordering;

use ash::vk;

use super::{Took, operations};
use crate::commands::LONG;
use crate::gpu::Gpu;
use crate::outcome::Stop;
use crate::resources::{ANY_USE, Buffer, COHERENT, ImageKind};

/// The number of words in 1 MiB.
const MEBIBYTE: usize = 1 << 18;

fn write(buffer: &Buffer<'_>, value: u32) {
    for word in buffer.words {
        word.store(value, Ordering::Relaxed);
    }
}

pub(super) fn map_write(gpu: &Gpu<'_>) -> Result<Took, Stop> {
    let buffer = gpu.buffer(MEBIBYTE)?;
    let mut value = 0;
    operations(gpu, 32, || {
        value += 1;
        write(&buffer, value);
        Ok(())
    })
}

pub(super) fn map_read(gpu: &Gpu<'_>) -> Result<Took, Stop> {
    let buffer = gpu.buffer(MEBIBYTE)?;
    operations(gpu, 32, || {
        let words = buffer.words.iter().map(|word| word.load(Ordering::Relaxed));
        std::hint::black_box(words.fold(0_u32, u32::wrapping_add));
        Ok(())
    })
}

/// What `size` bytes that can be mapped are allocated with.
fn mappable(gpu: &Gpu<'_>, size: u64) -> Result<vk::MemoryAllocateInfo<'static>, Stop> {
    let (_, needs) = gpu.bare_buffer(size, ANY_USE)?;
    Ok(vk::MemoryAllocateInfo::default()
        .allocation_size(size)
        .memory_type_index(gpu.memory_type(needs.memory_type_bits, COHERENT)?))
}

/// Allocates memory, maps it, writes one word and frees it.
fn allocate_map_and_free(gpu: &Gpu<'_>, info: &vk::MemoryAllocateInfo<'_>) -> Result<(), Stop> {
    // SAFETY: the write is inside the mapping, and nothing else uses the memory.
    unsafe {
        let memory = gpu.allocate_memory(info, None)?;
        let at = gpu.map_memory(memory, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty())?;
        at.cast::<u32>().write_volatile(1);
        gpu.unmap_memory(memory);
        gpu.free_memory(memory, None);
    }
    Ok(())
}

/// Does this with `size` bytes again and again.
pub(super) fn alloc_map_free(gpu: &Gpu<'_>, size: u64) -> Result<Took, Stop> {
    let info = mappable(gpu, size)?;
    operations(gpu, 50, || allocate_map_and_free(gpu, &info))
}

/// The same with another size each time, up to 3 MiB less. A driver that keeps freed memory for
/// allocations of the same size has none that fits.
pub(super) fn alloc_map_free_fresh(gpu: &Gpu<'_>, size: u64) -> Result<Took, Stop> {
    let info = mappable(gpu, size)?;
    let mut less = 0;
    operations(gpu, 50, || {
        less = (less + 1) % 48;
        allocate_map_and_free(gpu, &info.allocation_size(size - less * (64 << 10)))
    })
}

/// As [`alloc_map_free`], while so many other allocations of this size are mapped.
pub(super) fn alloc_map_free_beside(gpu: &Gpu<'_>, size: u64, others: usize) -> Result<Took, Stop> {
    let info = mappable(gpu, size)?;
    let mut live = Vec::with_capacity(others);
    // SAFETY: nothing else uses the memory.
    let mut fill = || unsafe {
        while live.len() < others {
            live.push(gpu.allocate_memory(&info, None)?);
            let last = live.last().copied().unwrap_or_default();
            gpu.map_memory(last, 0, vk::WHOLE_SIZE, vk::MemoryMapFlags::empty())?;
        }
        Ok(())
    };
    let took = fill().and_then(|()| alloc_map_free(gpu, size));
    for memory in live {
        // SAFETY: nothing uses the memory any more. This also unmaps it.
        unsafe { gpu.free_memory(memory, None) };
    }
    took
}

/// Writes `staging`, submits `commands`, which copy from it, and waits.
fn upload_with(
    gpu: &Gpu<'_>,
    staging: &Buffer<'_>,
    commands: vk::CommandBuffer,
    count: u32,
) -> Result<Took, Stop> {
    let fence = gpu.fence(false)?;
    let mut value = 0;
    operations(gpu, count, || {
        value += 1;
        write(staging, value);
        gpu.submit(&[commands], fence)?;
        // SAFETY: the fence is of this device and was submitted.
        unsafe {
            gpu.wait_for_fences(&[fence], true, LONG)?;
            Ok(gpu.reset_fences(&[fence])?)
        }
    })
}

/// Uploads `size` bytes through a staging buffer.
pub(super) fn upload(gpu: &Gpu<'_>, size: usize) -> Result<Took, Stop> {
    let staging = gpu.buffer(size / 4)?;
    let target = gpu.local_buffer(size as u64)?;
    let copy = vk::BufferCopy {
        size: size as u64,
        ..Default::default()
    };
    // SAFETY: recording; the buffers are of this device.
    let commands = gpu.record(|commands| unsafe {
        gpu.cmd_copy_buffer(commands, staging.handle, target, &[copy]);
        gpu.barrier(commands);
    })?;
    upload_with(gpu, &staging, commands, if size > 1 << 20 { 4 } else { 50 })
}

/// Uploads a 1024×1024 picture through a staging buffer.
pub(super) fn upload_image(gpu: &Gpu<'_>) -> Result<Took, Stop> {
    let staging = gpu.buffer(4 * MEBIBYTE)?;
    let image = gpu.image(ImageKind::picture(1024, 1024))?;
    let region = vk::BufferImageCopy::default()
        .image_subresource(image.kind.level(0))
        .image_extent(vk::Extent3D {
            width: 1024,
            height: 1024,
            depth: 1,
        });
    let target = vk::ImageLayout::TRANSFER_DST_OPTIMAL;
    // SAFETY: recording; the buffer holds the picture, and both are of this device.
    let commands = gpu.record(|commands| unsafe {
        gpu.transition(commands, &image, vk::ImageLayout::UNDEFINED, target);
        gpu.cmd_copy_buffer_to_image(commands, staging.handle, image.handle, target, &[region]);
    })?;
    upload_with(gpu, &staging, commands, 8)
}
