//! Benchmarks that create and destroy objects.

use ash::vk;

use super::{Took, operations};
use crate::compute::whole;
use crate::drawing::Style;
use crate::gpu::Gpu;
use crate::outcome::Stop;
use crate::resources::{ANY_USE, ImageKind};
use crate::shaders::{SCRAMBLE, SHADE, TRIANGLE};

pub(super) fn buffer(gpu: &Gpu<'_>) -> Result<Took, Stop> {
    let info = vk::BufferCreateInfo::default().size(4096).usage(ANY_USE);
    operations(gpu, 2000, || {
        // SAFETY: the buffer is destroyed unused.
        unsafe {
            let buffer = gpu.create_buffer(&info, None)?;
            gpu.destroy_buffer(buffer, None);
        }
        Ok(())
    })
}

pub(super) fn image(gpu: &Gpu<'_>) -> Result<Took, Stop> {
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
        .usage(kind.usage);
    operations(gpu, 500, || {
        // SAFETY: the image is destroyed unused.
        unsafe {
            let image = gpu.create_image(&info, None)?;
            let _ = std::hint::black_box(gpu.get_image_memory_requirements(image));
            gpu.destroy_image(image, None);
        }
        Ok(())
    })
}

pub(super) fn image_view(gpu: &Gpu<'_>) -> Result<Took, Stop> {
    let image = gpu.image(ImageKind::picture(64, 64))?;
    let info = vk::ImageViewCreateInfo::default()
        .image(image.handle)
        .view_type(vk::ImageViewType::TYPE_2D)
        .format(image.kind.format)
        .subresource_range(image.kind.whole());
    operations(gpu, 2000, || {
        // SAFETY: the view is destroyed unused.
        unsafe {
            let view = gpu.create_image_view(&info, None)?;
            gpu.destroy_image_view(view, None);
        }
        Ok(())
    })
}

pub(super) fn sampler(gpu: &Gpu<'_>) -> Result<Took, Stop> {
    operations(gpu, 2000, || {
        // SAFETY: the sampler is destroyed unused.
        unsafe {
            let sampler = gpu.create_sampler(&Default::default(), None)?;
            gpu.destroy_sampler(sampler, None);
        }
        Ok(())
    })
}

const STORAGE: vk::DescriptorType = vk::DescriptorType::STORAGE_BUFFER;

/// Allocates a set and writes its descriptor. The pool is reset after every 200 sets.
pub(super) fn descriptor_alloc_update(gpu: &Gpu<'_>) -> Result<Took, Stop> {
    let layouts = [gpu.set_layout(&[STORAGE], Default::default())?];
    let pool = gpu.descriptor_pool(200, &[STORAGE], 200, Default::default())?;
    let buffer = gpu.buffer(64)?;
    let took = operations(gpu, 1, || {
        for _ in 0..200 {
            let info = vk::DescriptorSetAllocateInfo::default()
                .descriptor_pool(pool)
                .set_layouts(&layouts);
            // SAFETY: pool and layout are of this device.
            let set = unsafe { gpu.allocate_descriptor_sets(&info) }?[0];
            gpu.write_buffer(set, 0, STORAGE, buffer.handle);
        }
        // SAFETY: no set of the pool is in use.
        Ok(unsafe { gpu.reset_descriptor_pool(pool, Default::default()) }?)
    })?;
    Ok(took.each(200))
}

pub(super) fn descriptor_update(gpu: &Gpu<'_>) -> Result<Took, Stop> {
    let layout = gpu.set_layout(&[STORAGE], Default::default())?;
    let set = gpu.descriptor_set(layout, &[STORAGE])?;
    let info = [whole(gpu.buffer(64)?.handle)];
    let write = [vk::WriteDescriptorSet::default()
        .dst_set(set)
        .descriptor_type(STORAGE)
        .buffer_info(&info)];
    operations(gpu, 5000, || {
        // SAFETY: set and buffer are of this device, and the set is not in use.
        unsafe { gpu.update_descriptor_sets(&write, &[]) };
        Ok(())
    })
}

pub(super) fn pipeline_compute(gpu: &Gpu<'_>) -> Result<Took, Stop> {
    let layout = gpu.pipeline_layout(&[gpu.set_layout(&[STORAGE], Default::default())?])?;
    let stage = vk::PipelineShaderStageCreateInfo::default()
        .stage(vk::ShaderStageFlags::COMPUTE)
        .module(gpu.shader(SCRAMBLE)?)
        .name(c"main");
    let info = [vk::ComputePipelineCreateInfo::default()
        .stage(stage)
        .layout(layout)];
    operations(gpu, 30, || {
        // SAFETY: all handles are of this device; the pipeline is destroyed unused.
        unsafe {
            let made = gpu.create_compute_pipelines(vk::PipelineCache::null(), &info, None);
            gpu.destroy_pipeline(made.map_err(|(_, error)| error)?[0], None);
        }
        Ok(())
    })
}

pub(super) fn pipeline_graphics(gpu: &Gpu<'_>) -> Result<Took, Stop> {
    let canvas = gpu.canvas([16, 16], vk::SampleCountFlags::TYPE_1, false)?;
    let layout = gpu.pipeline_layout(&[])?;
    let modules = [gpu.shader(TRIANGLE)?, gpu.shader(SHADE)?];
    operations(gpu, 30, || {
        let none = vk::PipelineCache::null();
        let pipeline = gpu.bare_pipeline(Style::Triangle, modules, &canvas, layout, false, none)?;
        // SAFETY: the pipeline is of this device and unused.
        unsafe { gpu.destroy_pipeline(pipeline, None) };
        Ok(())
    })
}
