//! Reads a frame back for a screenshot. This is not a hot path: everything is made for one
//! screenshot and freed after it.

use std::sync::Arc;

use ash::vk;

use super::gpu::Gpu;
use super::memory::{Buffer, COLOR_LAYER, Image};
use super::pipeline::Pipeline;
use crate::frame_image::FrameImage;
use crate::presenter::PresenterEnd;

/// A target of a window's size and format that can be read back.
pub(super) struct Readback {
    gpu: Arc<Gpu>,
    image: Image,
    buffer: Buffer,
    pub(super) framebuffer: vk::Framebuffer,
    pub(super) extent: vk::Extent2D,
    /// Blue is the first byte in memory.
    bgr: bool,
}

impl Readback {
    pub(super) fn new(
        gpu: &Arc<Gpu>,
        pipeline: &Pipeline,
        format: vk::Format,
        extent: vk::Extent2D,
    ) -> Result<Readback, PresenterEnd> {
        let size = (extent.width, extent.height);
        let usage = vk::ImageUsageFlags::COLOR_ATTACHMENT | vk::ImageUsageFlags::TRANSFER_SRC;
        let image = Image::new(gpu, size, format, usage)?;
        let bytes = u64::from(size.0) * u64::from(size.1) * 4;
        let buffer = Buffer::mapped(gpu, bytes, vk::BufferUsageFlags::TRANSFER_DST)?;
        let framebuffer = pipeline.framebuffer(image.view, extent)?;
        let bgr = format == vk::Format::B8G8R8A8_UNORM;
        Ok(Readback {
            gpu: gpu.clone(),
            image,
            buffer,
            framebuffer,
            extent,
            bgr,
        })
    }

    /// Records copying the drawn image to memory that the CPU can read.
    pub(super) fn copy(&self, commands: vk::CommandBuffer) {
        let all = [vk::BufferImageCopy {
            image_subresource: COLOR_LAYER,
            image_extent: vk::Extent3D {
                width: self.extent.width,
                height: self.extent.height,
                depth: 1,
            },
            ..Default::default()
        }];
        let visible = [vk::MemoryBarrier::default()
            .src_access_mask(vk::AccessFlags::TRANSFER_WRITE)
            .dst_access_mask(vk::AccessFlags::HOST_READ)];
        let layout = vk::ImageLayout::TRANSFER_SRC_OPTIMAL;
        let (transfer, host) = (
            vk::PipelineStageFlags::TRANSFER,
            vk::PipelineStageFlags::HOST,
        );
        let none = vk::DependencyFlags::empty();
        let device = &self.gpu.device;
        // SAFETY: the command buffer is being recorded, after the render pass that left the image
        // in this layout; the buffer has room for all of it.
        unsafe {
            let (image, buffer) = (self.image.raw, self.buffer.raw);
            device.cmd_copy_image_to_buffer(commands, image, layout, buffer, &all);
            device.cmd_pipeline_barrier(commands, transfer, host, none, &visible, &[], &[]);
        }
    }

    /// The image of the frame. The GPU must have finished it.
    pub(super) fn shot(&mut self) -> FrameImage {
        let bgr = self.bgr;
        let (pixels, _) = self.buffer.bytes().as_chunks::<4>();
        let rgb = pixels.iter().flat_map(|[first, green, last, _]| {
            if bgr {
                [*last, *green, *first]
            } else {
                [*first, *green, *last]
            }
        });
        FrameImage {
            width: self.extent.width,
            height: self.extent.height,
            rgb: rgb.collect(),
        }
    }
}

impl Drop for Readback {
    fn drop(&mut self) {
        // If a frame fails half-way, the GPU may still be drawing to this.
        let _ = self.gpu.wait_idle();
        // SAFETY: it is ours, and the GPU has finished with it.
        unsafe { self.gpu.device.destroy_framebuffer(self.framebuffer, None) };
    }
}
