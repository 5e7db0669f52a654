//! Benchmarks of command buffers, from recording to the end of execution.

use std::thread;

use ash::vk;

use super::{Took, operations, rounds};
use crate::commands::LONG;
use crate::drawing::{Canvas, Painter, Style};
use crate::gpu::Gpu;
use crate::outcome::{Stop, fail};
use crate::resources::{Buffer, ImageKind};

/// The number of draws or dispatches in a round.
const COUNT: u32 = 2000;

const ONCE: vk::CommandBufferUsageFlags = vk::CommandBufferUsageFlags::ONE_TIME_SUBMIT;

/// The objects that the draws use. The canvas has 16×16 pixels, so that the driver's share is
/// small.
struct Scene<'g> {
    canvas: Canvas,
    painter: Painter,
    set: vk::DescriptorSet,
    vertices: Buffer<'g>,
    indices: Buffer<'g>,
}

fn scene<'g>(gpu: &'g Gpu<'_>) -> Result<Scene<'g>, Stop> {
    let canvas = gpu.canvas([16, 16], vk::SampleCountFlags::TYPE_1, false)?;
    let painter = gpu.painter(Style::Textured, &canvas, false)?;
    let texture = gpu.image(ImageKind::picture(4, 4))?;
    let readable = vk::ImageLayout::SHADER_READ_ONLY_OPTIMAL;
    gpu.run(|commands| gpu.transition(commands, &texture, vk::ImageLayout::UNDEFINED, readable))?;
    let kind = vk::DescriptorType::COMBINED_IMAGE_SAMPLER;
    let set = gpu.descriptor_set(painter.set_layout, &[kind])?;
    // SAFETY: the device is alive.
    let sampler = unsafe { gpu.create_sampler(&Default::default(), None) }?;
    let sampler = gpu.own(sampler, ash::Device::destroy_sampler);
    let picture = [vk::DescriptorImageInfo::default()
        .sampler(sampler)
        .image_view(texture.view)
        .image_layout(readable)];
    let write = vk::WriteDescriptorSet::default()
        .dst_set(set)
        .descriptor_type(kind)
        .image_info(&picture);
    // SAFETY: all handles are of this device, and the set is not in use.
    unsafe { gpu.update_descriptor_sets(&[write], &[]) };
    // All vertices are in one place, so nothing is rasterised.
    let (vertices, indices) = (gpu.buffer(64)?, gpu.buffer(3)?);
    Ok(Scene {
        canvas,
        painter,
        set,
        vertices,
        indices,
    })
}

/// Records a render pass of [`COUNT`] draws. `draw` records each of them.
fn pass(
    gpu: &Gpu<'_>,
    scene: &Scene<'_>,
    commands: vk::CommandBuffer,
    mut draw: impl FnMut(u32),
) -> Result<(), Stop> {
    gpu.record_into(commands, ONCE, |commands| {
        gpu.begin_pass(commands, &scene.canvas, vk::SubpassContents::INLINE);
        gpu.take_brush(commands, &scene.painter, &scene.canvas);
        let buffers = [scene.vertices.handle; 2];
        // SAFETY: recording; all handles are of this device.
        unsafe { gpu.cmd_bind_vertex_buffers(commands, 0, &buffers, &[0, 0]) };
        (0..COUNT).for_each(&mut draw);
        // SAFETY: the pass was begun above.
        unsafe { gpu.cmd_end_render_pass(commands) };
    })
}

/// Records 16 bytes of push constants that differ from draw to draw.
fn push(gpu: &Gpu<'_>, scene: &Scene<'_>, commands: vk::CommandBuffer, index: u32) {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&index.to_ne_bytes());
    let stages = vk::ShaderStageFlags::ALL;
    // SAFETY: recording; the layout has 32 bytes of push constants.
    unsafe { gpu.cmd_push_constants(commands, scene.painter.layout, stages, 0, &bytes) };
}

fn bind(gpu: &Gpu<'_>, scene: &Scene<'_>, commands: vk::CommandBuffer) {
    let (point, layout) = (vk::PipelineBindPoint::GRAPHICS, scene.painter.layout);
    // SAFETY: recording; all handles are of this device.
    unsafe { gpu.cmd_bind_descriptor_sets(commands, point, layout, 0, &[scene.set], &[]) };
}

/// Records draws of three commands each: push constants, one descriptor set, a draw.
fn simple(gpu: &Gpu<'_>, scene: &Scene<'_>, commands: vk::CommandBuffer) -> Result<(), Stop> {
    pass(gpu, scene, commands, |index| {
        push(gpu, scene, commands, index);
        bind(gpu, scene, commands);
        // SAFETY: recording inside a pass, with everything bound.
        unsafe { gpu.cmd_draw(commands, 3, 1, 0, 0) };
    })
}

/// Records draws of eight commands each: pipeline, viewport, scissor, set, vertex and index
/// buffers, push constants, draw.
fn mixed(gpu: &Gpu<'_>, scene: &Scene<'_>, commands: vk::CommandBuffer) -> Result<(), Stop> {
    let buffers = [scene.vertices.handle; 2];
    pass(gpu, scene, commands, |index| {
        gpu.take_brush(commands, &scene.painter, &scene.canvas);
        bind(gpu, scene, commands);
        push(gpu, scene, commands, index);
        // SAFETY: recording inside a pass, with everything bound; all handles are of this device.
        unsafe {
            gpu.cmd_bind_vertex_buffers(commands, 0, &buffers, &[0, 0]);
            gpu.cmd_bind_index_buffer(commands, scene.indices.handle, 0, vk::IndexType::UINT32);
            gpu.cmd_draw_indexed(commands, 3, 1, 0, 0, 0);
        }
    })
}

/// Submits `commands`, waits and resets the fence.
fn finish(gpu: &Gpu<'_>, commands: &[vk::CommandBuffer], fence: vk::Fence) -> Result<(), Stop> {
    gpu.submit(commands, fence)?;
    // SAFETY: the fence is of this device and was submitted.
    unsafe {
        gpu.wait_for_fences(&[fence], true, LONG)?;
        Ok(gpu.reset_fences(&[fence])?)
    }
}

type Record = fn(&Gpu<'_>, &Scene<'_>, vk::CommandBuffer) -> Result<(), Stop>;

fn drawn(gpu: &Gpu<'_>, record: Record) -> Result<Took, Stop> {
    let scene = scene(gpu)?;
    let pool = gpu.pool(gpu.family)?;
    let commands = gpu.command_buffers(pool, vk::CommandBufferLevel::PRIMARY, 1)?;
    let fence = gpu.fence(false)?;
    rounds(COUNT, |watch| {
        watch.count(|| {
            record(gpu, &scene, commands[0])?;
            finish(gpu, &commands, fence)
        })
    })
}

pub(super) fn draw(gpu: &Gpu<'_>) -> Result<Took, Stop> {
    drawn(gpu, simple)
}

pub(super) fn draw_mixed(gpu: &Gpu<'_>) -> Result<Took, Stop> {
    drawn(gpu, mixed)
}

/// Measures the draws of [`draw`] when `count` threads record them at once and one submission takes
/// them all. The result is the cost per draw.
pub(super) fn threads(gpu: &Gpu<'_>, count: u32) -> Result<Took, Stop> {
    let scene = &scene(gpu)?;
    let mut all = Vec::new();
    for _ in 0..count {
        let pool = gpu.pool(gpu.family)?;
        all.extend(gpu.command_buffers(pool, vk::CommandBufferLevel::PRIMARY, 1)?);
    }
    let fence = gpu.fence(false)?;
    rounds(COUNT * count, |watch| {
        watch.count(|| {
            thread::scope(|scope| {
                let recorded: Vec<_> = all
                    .iter()
                    .map(|&commands| scope.spawn(move || simple(gpu, scene, commands)))
                    .collect();
                for thread in recorded {
                    thread.join().map_err(|_| fail("a thread panicked"))??;
                }
                Ok::<_, Stop>(())
            })?;
            finish(gpu, &all, fence)
        })
    })
}

/// Measures a dispatch of one small workgroup with push constants and a barrier, 512 in a command
/// buffer.
pub(super) fn dispatch(gpu: &Gpu<'_>) -> Result<Took, Stop> {
    let program = gpu.scrambler([64, 1])?;
    let buffer = gpu.buffer(64)?;
    let set = gpu.storage_set(&program, &[buffer.handle])?;
    let pool = gpu.pool(gpu.family)?;
    let commands = gpu.command_buffers(pool, vk::CommandBufferLevel::PRIMARY, 1)?;
    let fence = gpu.fence(false)?;
    let took = operations(gpu, 1, || {
        gpu.record_into(commands[0], ONCE, |commands| {
            for seed in 0..512 {
                gpu.dispatch(commands, &program, set, &[64, seed], [1, 1]);
            }
        })?;
        finish(gpu, &commands, fence)
    })?;
    Ok(took.each(512))
}
