//! [`Rules`]: what is demanded of the numbers in a command before the driver gets them.
//!
//! Host drivers check no numbers: they index arrays with them. `venus/codegen/data/rules.tsv` says
//! which numbers of which command follow which rule. The generator makes
//! [`Call::check`](crate::call::Call::check) and [`Call::keep`](crate::call::Call::keep) from it. A
//! renderer implements the rules, with the limits of its device and what it keeps of objects.

use crate::vk;

/// A number that a device limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `maxViewports`
    Viewports,
    /// `maxVertexInputBindings`
    VertexBindings,
    /// `maxColorAttachments`
    ColorAttachments,
    /// `maxTransformFeedbackBuffers`
    TransformFeedbackBuffers,
    /// `maxTransformFeedbackStreams`
    TransformFeedbackStreams,
    /// `maxTessellationPatchSize`
    PatchControlPoints,
    /// The number of queue families.
    QueueFamilies,
}

/// What is demanded of the numbers in a command. Each method is one rule; `Ok` means that a driver
/// may have the numbers.
pub trait Rules {
    /// What is wrong.
    type Broken;

    /// `count` numbers from `first` on are below a limit.
    fn within(&self, limit: Limit, first: u64, count: u64) -> Result<(), Self::Broken>;
    /// An index is below a limit, or is one of the special values at the end (unused, ignored, …).
    fn index(&self, limit: Limit, index: u64) -> Result<(), Self::Broken>;
    /// Push constants are within the limit, in words.
    fn push_constants(&self, offset: u64, size: u64) -> Result<(), Self::Broken>;
    /// Offsets of vertex buffers are inside of them. `sizes` may be empty.
    fn vertex_buffers(
        &self,
        buffers: &[vk::Buffer],
        offsets: &[u64],
        sizes: &[u64],
    ) -> Result<(), Self::Broken>;
    /// Dynamic vertex input names bindings and locations that exist.
    fn vertex_input(
        &self,
        bindings: &[vk::VertexInputBindingDescription2EXT],
        attributes: &[vk::VertexInputAttributeDescription2EXT],
    ) -> Result<(), Self::Broken>;
    /// Descriptor sets fit the pipeline layout, and there is an offset for each dynamic descriptor.
    fn sets(
        &self,
        layout: vk::PipelineLayout,
        first: u64,
        sets: &[vk::DescriptorSet],
        offsets: &[u32],
    ) -> Result<(), Self::Broken>;
    /// The pipeline layout has this set, and the writes are inside of it.
    fn pushed(
        &self,
        layout: vk::PipelineLayout,
        set: u64,
        writes: &[vk::WriteDescriptorSet],
    ) -> Result<(), Self::Broken>;
    /// Queue families of a transfer of ownership exist, or are special values.
    fn families(&self, from: u64, to: u64) -> Result<(), Self::Broken>;
    /// A write is inside its set.
    fn write(&self, write: &vk::WriteDescriptorSet) -> Result<(), Self::Broken>;
    /// A copy is inside its sets.
    fn copy(&self, copy: &vk::CopyDescriptorSet) -> Result<(), Self::Broken>;
    /// The pool has these queries.
    fn queries(&self, pool: vk::QueryPool, first: u64, count: u64) -> Result<(), Self::Broken>;
    /// Results of queries that are copied lie inside the buffer.
    fn results(
        &self,
        pool: vk::QueryPool,
        count: u64,
        buffer: vk::Buffer,
        offset: u64,
        stride: u64,
        flags: vk::QueryResultFlags,
    ) -> Result<(), Self::Broken>;
    /// An inline update is small and inside the buffer.
    fn update(&self, buffer: vk::Buffer, offset: u64, size: u64) -> Result<(), Self::Broken>;
    /// A part of a buffer is inside of it.
    fn part(&self, buffer: vk::Buffer, offset: u64, size: u64) -> Result<(), Self::Broken>;
    /// The same, where `VK_WHOLE_SIZE` stands for the rest. The buffer may be null.
    fn rest(&self, buffer: vk::Buffer, offset: u64, size: u64) -> Result<(), Self::Broken>;
    /// Counter values of transform feedback lie inside their buffers, which may be null.
    fn counters(
        &self,
        buffers: &[vk::Buffer],
        offsets: &[u64],
        sizes: &[u64],
    ) -> Result<(), Self::Broken>;
    /// `count` structs of `size` bytes at distance `stride` are inside the buffer.
    fn indirect(
        &self,
        buffer: vk::Buffer,
        offset: u64,
        count: u64,
        stride: u64,
        size: u64,
    ) -> Result<(), Self::Broken>;
    /// A copy between a buffer and an image is inside of both.
    fn buffer_image(
        &self,
        buffer: vk::Buffer,
        image: vk::Image,
        place: (u64, u64, u64),
        layers: &vk::ImageSubresourceLayers,
        offset: &vk::Offset3D,
        extent: &vk::Extent3D,
    ) -> Result<(), Self::Broken>;
    /// A region is inside an image.
    fn region(
        &self,
        image: vk::Image,
        layers: &vk::ImageSubresourceLayers,
        offset: &vk::Offset3D,
        extent: &vk::Extent3D,
    ) -> Result<(), Self::Broken>;
    /// The box between two corners is inside an image.
    fn corners(
        &self,
        image: vk::Image,
        layers: &vk::ImageSubresourceLayers,
        corners: &[vk::Offset3D; 2],
    ) -> Result<(), Self::Broken>;
    /// A copy between two images is inside of both. The extent is in texels of the source.
    fn copied(
        &self,
        from: vk::Image,
        to: vk::Image,
        source: (&vk::ImageSubresourceLayers, &vk::Offset3D),
        destination: (&vk::ImageSubresourceLayers, &vk::Offset3D),
        extent: &vk::Extent3D,
    ) -> Result<(), Self::Broken>;
    /// An image has these mip levels and layers.
    fn range(
        &self,
        image: vk::Image,
        range: &vk::ImageSubresourceRange,
    ) -> Result<(), Self::Broken>;
    /// An image has this mip level and layer.
    fn subresource(&self, image: vk::Image, level: u64, layer: u64) -> Result<(), Self::Broken>;
    /// The same for an image that is not made, which may be made with these numbers.
    fn device_layout(&self, info: &vk::DeviceImageSubresourceInfo) -> Result<(), Self::Broken>;
    /// An image whose requirements are asked may be made with these numbers.
    fn requirements(&self, info: &vk::DeviceImageMemoryRequirements) -> Result<(), Self::Broken>;
    /// Barriers are about families, mip levels and layers that exist.
    fn dependency(&self, info: &vk::DependencyInfo) -> Result<(), Self::Broken>;
    /// An image may be made with these numbers.
    fn image(&self, info: &vk::ImageCreateInfo) -> Result<(), Self::Broken>;
    /// Queue families that share a buffer exist.
    fn buffer(&self, info: &vk::BufferCreateInfo) -> Result<(), Self::Broken>;
    /// A view shows what its image has.
    fn view(&self, info: &vk::ImageViewCreateInfo) -> Result<(), Self::Broken>;
    /// Shader code is whole words, and begins as SPIR-V does.
    fn code(&self, size: u64, code: &[u32]) -> Result<(), Self::Broken>;
    /// A shader's constants are inside their data.
    fn stage(&self, stage: &vk::PipelineShaderStageCreateInfo) -> Result<(), Self::Broken>;
    /// The numbers of a graphics pipeline are within limits.
    fn graphics(&self, info: &vk::GraphicsPipelineCreateInfo) -> Result<(), Self::Broken>;
    /// The shader groups of a pipeline name shaders that it has.
    fn groups(&self, info: &vk::RayTracingPipelineCreateInfoKHR) -> Result<(), Self::Broken>;
    /// The bindings of a set layout are within what drivers count with.
    fn set_layout(&self, info: &vk::DescriptorSetLayoutCreateInfo) -> Result<(), Self::Broken>;
    /// A pipeline layout has no more sets and push constants than the device allows.
    fn pipeline_layout(&self, info: &vk::PipelineLayoutCreateInfo) -> Result<(), Self::Broken>;
    /// The entries of an update template are inside its set layout.
    fn template(&self, info: &vk::DescriptorUpdateTemplateCreateInfo) -> Result<(), Self::Broken>;
    /// Variable counts are at most those of the layouts.
    fn allocation(&self, info: &vk::DescriptorSetAllocateInfo) -> Result<(), Self::Broken>;
    /// Subpasses and dependencies name what the render pass has.
    fn pass(&self, info: &vk::RenderPassCreateInfo) -> Result<(), Self::Broken>;
    /// The same.
    fn pass2(&self, info: &vk::RenderPassCreateInfo2) -> Result<(), Self::Broken>;
    /// A framebuffer has the attachments of its render pass.
    fn framebuffer(&self, info: &vk::FramebufferCreateInfo) -> Result<(), Self::Broken>;
    /// A render pass begins with a clear value for each attachment that it clears.
    fn begin_pass(&self, info: &vk::RenderPassBeginInfo) -> Result<(), Self::Broken>;
    /// Dynamic rendering has no more attachments and views than the device allows.
    fn rendering(&self, info: &vk::RenderingInfo) -> Result<(), Self::Broken>;
    /// A secondary command buffer continues a subpass that exists.
    fn inheritance(&self, info: &vk::CommandBufferBeginInfo) -> Result<(), Self::Broken>;
    /// A sample mask has at most 64 bits.
    fn samples(&self, samples: vk::SampleCountFlags) -> Result<(), Self::Broken>;
    /// There are as many sample locations as the grid has.
    fn sample_locations(&self, info: &vk::SampleLocationsInfoEXT) -> Result<(), Self::Broken>;
    /// A buffer is bound inside the memory.
    fn buffer_memory(
        &self,
        memory: vk::DeviceMemory,
        offset: u64,
        buffer: vk::Buffer,
    ) -> Result<(), Self::Broken>;

    /// A cleared attachment exists, or is none.
    fn cleared(&self, attachment: &vk::ClearAttachment) -> Result<(), Self::Broken>;
    /// Memory that is bound sparsely is inside its memory object.
    fn sparse(&self, info: &vk::BindSparseInfo) -> Result<(), Self::Broken>;

    /// Keeps what is needed of a new buffer.
    fn buffer_made(&self, info: &vk::BufferCreateInfo, buffer: vk::Buffer);
    /// Keeps what is needed of a new image.
    fn image_made(&self, info: &vk::ImageCreateInfo, image: vk::Image);
    /// Keeps the size of new memory.
    fn memory_made(&self, info: &vk::MemoryAllocateInfo, memory: vk::DeviceMemory);
    /// Keeps the number of queries of a new pool.
    fn query_pool_made(&self, info: &vk::QueryPoolCreateInfo, pool: vk::QueryPool);
    /// Keeps the bindings of a new layout.
    fn set_layout_made(
        &self,
        info: &vk::DescriptorSetLayoutCreateInfo,
        layout: vk::DescriptorSetLayout,
    );
    /// Keeps the layouts of new sets.
    fn sets_made(&self, info: &vk::DescriptorSetAllocateInfo, sets: &[vk::DescriptorSet]);
    /// Keeps the sets of a new layout.
    fn pipeline_layout_made(&self, info: &vk::PipelineLayoutCreateInfo, layout: vk::PipelineLayout);
    /// Keeps what is needed of a new render pass.
    fn pass_made(&self, info: &vk::RenderPassCreateInfo, pass: vk::RenderPass);
    /// The same.
    fn pass2_made(&self, info: &vk::RenderPassCreateInfo2, pass: vk::RenderPass);
    /// Keeps the number of attachments of a new framebuffer.
    fn framebuffer_made(&self, info: &vk::FramebufferCreateInfo, framebuffer: vk::Framebuffer);
}

/// The elements of an array inside a decoded struct.
///
/// # Safety
/// `start` must be null or point to `count` valid elements that live for `'a`.
pub unsafe fn all<'a, T>(start: *const T, count: u32) -> &'a [T] {
    match start.is_null() {
        true => &[],
        // SAFETY: the caller's promise.
        false => unsafe { std::slice::from_raw_parts(start, count as usize) },
    }
}
