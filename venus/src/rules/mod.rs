//! What is demanded of the numbers that guests send, before the driver gets them.
//!
//! Host drivers check nothing: a number beyond a limit, or beyond what an object has, makes them
//! read and write memory that is not theirs. Which numbers of which command follow which rule says
//! `venus/codegen/data/rules.tsv`; [`Rules`] lists the rules. Here they are, one file for each
//! subject. A rule costs one comparison with a limit where that is enough for the driver's safety,
//! and a look at [`Facts`] elsewhere.
//!
//! The rules are parts of Vulkan's valid usage, so a correct program never breaks one. Where valid
//! usage depends on features, the rule is the most generous.

mod buffers;
mod checked;
mod descriptors;
mod images;
mod passes;
mod pipelines;
#[cfg(test)]
mod tests;

use hesper_venus_protocol::rules::{Limit, Rules};
use hesper_venus_protocol::vk;

pub(crate) use checked::Broken;
use checked::{Checked, SPECIAL, broken, demand, gone, within};
pub(crate) use pipelines::ignores_attachments;

use crate::object::facts::{Facts, Queries};

impl Rules for Facts {
    type Broken = Broken;

    #[inline]
    fn within(&self, limit: Limit, first: u64, count: u64) -> Checked {
        let (what, most) = self.limit(limit);
        within(what, first, count, most.into())
    }

    #[inline]
    fn index(&self, limit: Limit, index: u64) -> Checked {
        match index >= SPECIAL {
            true => Ok(()),
            false => self.within(limit, index, 1),
        }
    }

    #[inline]
    fn families(&self, from: u64, to: u64) -> Checked {
        if from == to {
            return Ok(());
        }
        self.index(Limit::QueueFamilies, from)?;
        self.index(Limit::QueueFamilies, to)
    }

    #[inline]
    fn push_constants(&self, offset: u64, size: u64) -> Checked {
        let most = u64::from(self.limits.core.max_push_constants_size);
        // One branch, since this is recorded for most draws. Both are 32-bit numbers.
        match offset.wrapping_add(size) <= most && (offset | size) & 3 == 0 {
            true => Ok(()),
            false => Err(broken(
                "push constants beyond maxPushConstantsSize, or not whole words",
                offset,
                size,
                most,
            )),
        }
    }

    fn vertex_buffers(&self, buffers: &[vk::Buffer], offsets: &[u64], sizes: &[u64]) -> Checked {
        self.check_parts(buffers, offsets, sizes)
    }

    fn vertex_input(
        &self,
        bindings: &[vk::VertexInputBindingDescription2EXT],
        attributes: &[vk::VertexInputAttributeDescription2EXT],
    ) -> Checked {
        let bindings = bindings.iter().map(|binding| binding.binding);
        let attributes = attributes.iter().map(|a| (a.location, a.binding));
        pipelines::vertex_input(self, bindings, attributes)
    }

    #[inline]
    fn sets(
        &self,
        layout: vk::PipelineLayout,
        first: u64,
        sets: &[vk::DescriptorSet],
        offsets: &[u32],
    ) -> Checked {
        // One comparison for most draws. Both are 32-bit numbers.
        match first.wrapping_add(sets.len() as u64) <= self.plain_sets() && offsets.is_empty() {
            true => Ok(()),
            false => descriptors::bound(self, layout, first, sets, offsets),
        }
    }

    fn pushed(
        &self,
        layout: vk::PipelineLayout,
        set: u64,
        writes: &[vk::WriteDescriptorSet],
    ) -> Checked {
        descriptors::pushed(self, layout, set, writes)
    }

    fn write(&self, write: &vk::WriteDescriptorSet) -> Checked {
        descriptors::write(self, write)
    }

    fn copy(&self, copy: &vk::CopyDescriptorSet) -> Checked {
        descriptors::copy(self, copy)
    }

    fn queries(&self, pool: vk::QueryPool, first: u64, count: u64) -> Checked {
        self.has_queries(pool, first, count).map(drop)
    }

    fn results(
        &self,
        pool: vk::QueryPool,
        count: u64,
        buffer: vk::Buffer,
        offset: u64,
        stride: u64,
        flags: vk::QueryResultFlags,
    ) -> Checked {
        let queries = self.has_queries(pool, 0, 0)?;
        self.check_indirect(buffer, offset, count, stride, queries.size(flags))
    }

    fn update(&self, buffer: vk::Buffer, offset: u64, size: u64) -> Checked {
        const MOST: u64 = 65536;
        within("an update of more than 65536 bytes", 0, size, MOST)?;
        let what = "an update that is not of whole words";
        demand((offset | size).is_multiple_of(4), what, offset | size, MOST)?;
        self.part(buffer, offset, size)
    }

    fn part(&self, buffer: vk::Buffer, offset: u64, size: u64) -> Checked {
        self.check_part(buffer, offset, size)
    }

    fn rest(&self, buffer: vk::Buffer, offset: u64, size: u64) -> Checked {
        self.check_rest(buffer, offset, size)
    }

    fn counters(&self, buffers: &[vk::Buffer], offsets: &[u64], _sizes: &[u64]) -> Checked {
        self.check_counters(buffers, offsets)
    }

    fn indirect(
        &self,
        buffer: vk::Buffer,
        offset: u64,
        count: u64,
        stride: u64,
        size: u64,
    ) -> Checked {
        self.check_indirect(buffer, offset, count, stride, size)
    }

    fn buffer_image(
        &self,
        buffer: vk::Buffer,
        image: vk::Image,
        place: (u64, u64, u64),
        layers: &vk::ImageSubresourceLayers,
        offset: &vk::Offset3D,
        extent: &vk::Extent3D,
    ) -> Checked {
        images::buffer_image(self, (buffer, image), place, (layers, offset, extent))
    }

    fn region(
        &self,
        image: vk::Image,
        layers: &vk::ImageSubresourceLayers,
        offset: &vk::Offset3D,
        extent: &vk::Extent3D,
    ) -> Checked {
        images::region(self, image, layers, offset, extent)
    }

    fn corners(
        &self,
        image: vk::Image,
        layers: &vk::ImageSubresourceLayers,
        corners: &[vk::Offset3D; 2],
    ) -> Checked {
        images::corners(self, image, layers, corners)
    }

    fn copied(
        &self,
        from: vk::Image,
        to: vk::Image,
        source: (&vk::ImageSubresourceLayers, &vk::Offset3D),
        destination: (&vk::ImageSubresourceLayers, &vk::Offset3D),
        extent: &vk::Extent3D,
    ) -> Checked {
        images::copied(self, (from, to), source, destination, extent)
    }

    fn range(&self, image: vk::Image, range: &vk::ImageSubresourceRange) -> Checked {
        images::range(self, image, range)
    }

    fn subresource(&self, image: vk::Image, level: u64, layer: u64) -> Checked {
        images::subresource(self, image, level, layer)
    }

    fn device_layout(&self, info: &vk::DeviceImageSubresourceInfo) -> Checked {
        images::device_layout(self, info)
    }

    fn requirements(&self, info: &vk::DeviceImageMemoryRequirements) -> Checked {
        // SAFETY: decoded as null or a valid struct.
        match unsafe { info.p_create_info.as_ref() } {
            Some(info) => images::create(self, info),
            None => Ok(()),
        }
    }

    fn dependency(&self, info: &vk::DependencyInfo) -> Checked {
        images::dependency(self, info)
    }

    fn image(&self, info: &vk::ImageCreateInfo) -> Checked {
        images::create(self, info)
    }

    fn buffer(&self, info: &vk::BufferCreateInfo) -> Checked {
        buffers::create(self, info)
    }

    fn view(&self, info: &vk::ImageViewCreateInfo) -> Checked {
        images::range(self, info.image, &info.subresource_range)
    }

    fn code(&self, size: u64, code: &[u32]) -> Checked {
        pipelines::code(size, code)
    }

    fn stage(&self, stage: &vk::PipelineShaderStageCreateInfo) -> Checked {
        pipelines::stage(stage, vk::ShaderStageFlags::COMPUTE)
    }

    fn graphics(&self, info: &vk::GraphicsPipelineCreateInfo) -> Checked {
        pipelines::graphics(self, info)
    }

    fn groups(&self, info: &vk::RayTracingPipelineCreateInfoKHR) -> Checked {
        pipelines::groups(info)
    }

    fn set_layout(&self, info: &vk::DescriptorSetLayoutCreateInfo) -> Checked {
        descriptors::layout(self, info).map(drop)
    }

    fn pipeline_layout(&self, info: &vk::PipelineLayoutCreateInfo) -> Checked {
        descriptors::pipeline_layout(self, info)
    }

    fn template(&self, info: &vk::DescriptorUpdateTemplateCreateInfo) -> Checked {
        descriptors::template(self, info)
    }

    fn allocation(&self, info: &vk::DescriptorSetAllocateInfo) -> Checked {
        descriptors::allocation(self, info)
    }

    fn pass(&self, info: &vk::RenderPassCreateInfo) -> Checked {
        passes::create(self, info)
    }

    fn pass2(&self, info: &vk::RenderPassCreateInfo2) -> Checked {
        passes::create2(self, info)
    }

    fn framebuffer(&self, info: &vk::FramebufferCreateInfo) -> Checked {
        passes::framebuffer(self, info)
    }

    fn begin_pass(&self, info: &vk::RenderPassBeginInfo) -> Checked {
        passes::begin(self, info)
    }

    fn rendering(&self, info: &vk::RenderingInfo) -> Checked {
        passes::rendering(self, info.color_attachment_count, info.view_mask)
    }

    fn cleared(&self, attachment: &vk::ClearAttachment) -> Checked {
        // Ignored where no colour is cleared, and then perhaps not initialised.
        match attachment.aspect_mask.contains(vk::ImageAspectFlags::COLOR) {
            true => self.index(Limit::ColorAttachments, attachment.color_attachment.into()),
            false => Ok(()),
        }
    }

    fn inheritance(&self, info: &vk::CommandBufferBeginInfo) -> Checked {
        passes::inheritance(self, info)
    }

    fn samples(&self, samples: vk::SampleCountFlags) -> Checked {
        pipelines::samples(samples)
    }

    fn sample_locations(&self, info: &vk::SampleLocationsInfoEXT) -> Checked {
        pipelines::sample_locations(self, info)
    }

    fn buffer_memory(&self, memory: vk::DeviceMemory, offset: u64, buffer: vk::Buffer) -> Checked {
        let size = self.buffers.get(buffer).ok_or_else(|| gone(buffer.0))?;
        self.check_memory(memory, offset, size)
    }

    fn sparse(&self, info: &vk::BindSparseInfo) -> Checked {
        buffers::sparse(self, info)
    }

    fn buffer_made(&self, info: &vk::BufferCreateInfo, buffer: vk::Buffer) {
        self.buffers.insert(buffer, info.size);
    }

    fn image_made(&self, info: &vk::ImageCreateInfo, image: vk::Image) {
        images::keep(self, info, image);
    }

    fn memory_made(&self, info: &vk::MemoryAllocateInfo, memory: vk::DeviceMemory) {
        self.memories.insert(memory, info.allocation_size);
    }

    fn query_pool_made(&self, info: &vk::QueryPoolCreateInfo, pool: vk::QueryPool) {
        let queries = Queries {
            count: info.query_count,
            values: values_per_query(info),
        };
        self.query_pools.insert(pool, queries);
    }

    fn set_layout_made(
        &self,
        info: &vk::DescriptorSetLayoutCreateInfo,
        layout: vk::DescriptorSetLayout,
    ) {
        descriptors::keep_layout(self, info, layout);
    }

    fn sets_made(&self, info: &vk::DescriptorSetAllocateInfo, sets: &[vk::DescriptorSet]) {
        descriptors::keep_sets(self, info, sets);
    }

    fn pipeline_layout_made(
        &self,
        info: &vk::PipelineLayoutCreateInfo,
        layout: vk::PipelineLayout,
    ) {
        descriptors::keep_pipeline_layout(self, info, layout);
    }

    fn pass_made(&self, info: &vk::RenderPassCreateInfo, pass: vk::RenderPass) {
        self.passes.insert(pass, passes::of(info));
    }

    fn pass2_made(&self, info: &vk::RenderPassCreateInfo2, pass: vk::RenderPass) {
        self.passes.insert(pass, passes::of2(info));
    }

    fn framebuffer_made(&self, info: &vk::FramebufferCreateInfo, framebuffer: vk::Framebuffer) {
        self.framebuffers.insert(framebuffer, info.attachment_count);
    }
}

/// How many values one query of a pool has, without its availability.
fn values_per_query(info: &vk::QueryPoolCreateInfo) -> u32 {
    match info.query_type {
        vk::QueryType::PIPELINE_STATISTICS => info.pipeline_statistics.0.count_ones(),
        vk::QueryType::TRANSFORM_FEEDBACK_STREAM_EXT => 2,
        _ => 1,
    }
}
