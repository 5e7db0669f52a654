//! The images that are drawn into frames: the picture, the cursor and the labels, as they were last
//! copied.

use std::sync::Arc;

use ash::vk;

use super::gpu::Gpu;
use super::memory::{COLOR, COLOR_LAYER, Image};
use super::pipeline::{Pipeline, Samplings};
use crate::picture::Rect;
use crate::presenter::PresenterEnd;

/// The format of all textures: the four bytes of a pixel as they lie in memory. The shader puts
/// them in order. Every Vulkan driver can copy to, sample and smooth this format.
const FORMAT: vk::Format = vk::Format::R8G8B8A8_UNORM;

/// An image that can be drawn and partly updated.
pub(super) struct Texture {
    gpu: Arc<Gpu>,
    pub(super) samplings: Samplings,
    image: Option<Image>,
    /// Something has been copied into it.
    filled: bool,
}

impl Texture {
    pub(super) fn new(gpu: &Arc<Gpu>, pipeline: &Pipeline) -> Result<Texture, PresenterEnd> {
        let samplings = pipeline.samplings()?;
        Ok(Texture {
            gpu: gpu.clone(),
            samplings,
            image: None,
            filled: false,
        })
    }

    /// Sets the size. The contents are kept only if the size stays the same; returns whether they
    /// are. The GPU must not be using the texture.
    pub(super) fn resize(
        &mut self,
        size: (u32, u32),
        pipeline: &Pipeline,
    ) -> Result<bool, PresenterEnd> {
        if self.image.as_ref().is_some_and(|image| image.size == size) {
            return Ok(self.filled);
        }
        // The old image is freed first: there may not be room for both.
        self.image = None;
        self.filled = false;
        let usage = vk::ImageUsageFlags::TRANSFER_DST | vk::ImageUsageFlags::SAMPLED;
        let image = Image::new(&self.gpu, size, FORMAT, usage)?;
        pipeline.show(self.samplings, image.view);
        self.image = Some(image);
        Ok(false)
    }

    /// Records copying `regions` of `buffer` into the texture. The first copy must fill all of it.
    pub(super) fn copy(
        &mut self,
        commands: vk::CommandBuffer,
        buffer: vk::Buffer,
        regions: &[vk::BufferImageCopy],
    ) {
        let Some(image) = &self.image else { return };
        if regions.is_empty() {
            return;
        }
        let sampled = vk::ImageLayout::SHADER_READ_ONLY_OPTIMAL;
        let written = vk::ImageLayout::TRANSFER_DST_OPTIMAL;
        let before = if self.filled {
            sampled
        } else {
            vk::ImageLayout::UNDEFINED
        };
        let barrier = |from, to, source, destination| {
            [vk::ImageMemoryBarrier::default()
                .image(image.raw)
                .subresource_range(COLOR)
                .old_layout(from)
                .new_layout(to)
                .src_access_mask(source)
                .dst_access_mask(destination)
                .src_queue_family_index(vk::QUEUE_FAMILY_IGNORED)
                .dst_queue_family_index(vk::QUEUE_FAMILY_IGNORED)]
        };
        let (copy, read) = (
            vk::AccessFlags::TRANSFER_WRITE,
            vk::AccessFlags::SHADER_READ,
        );
        let to_copy = barrier(before, written, vk::AccessFlags::empty(), copy);
        let to_read = barrier(written, sampled, copy, read);
        let transfer = vk::PipelineStageFlags::TRANSFER;
        let shading = vk::PipelineStageFlags::FRAGMENT_SHADER;
        let none = vk::DependencyFlags::empty();
        let device = &self.gpu.device;
        // SAFETY: the command buffer is being recorded, outside a render pass. The regions lie
        // inside buffer and image: their maker clips them to the picture.
        unsafe {
            device.cmd_pipeline_barrier(commands, shading, transfer, none, &[], &[], &to_copy);
            device.cmd_copy_buffer_to_image(commands, buffer, image.raw, written, regions);
            device.cmd_pipeline_barrier(commands, transfer, shading, none, &[], &[], &to_read);
        }
        self.filled = true;
    }
}

/// A copy of `rect`. Its pixels start at byte `offset` of the buffer, in rows of `row_pixels`.
pub(super) fn region(rect: Rect, offset: u64, row_pixels: u32) -> vk::BufferImageCopy {
    vk::BufferImageCopy {
        buffer_offset: offset,
        buffer_row_length: row_pixels,
        // 0 means the height of the rectangle.
        buffer_image_height: 0,
        image_subresource: COLOR_LAYER,
        // At most MAX_SIZE.
        image_offset: vk::Offset3D {
            x: rect.x as i32,
            y: rect.y as i32,
            z: 0,
        },
        image_extent: vk::Extent3D {
            width: rect.width,
            height: rect.height,
            depth: 1,
        },
    }
}
