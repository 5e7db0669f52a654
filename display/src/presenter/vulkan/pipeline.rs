//! The one drawing operation: fills a rectangle from an image, opaque or blended.

use std::sync::Arc;

use ash::vk;

use super::gpu::Gpu;
use crate::layout::Area;
use crate::picture::Channels;
use crate::presenter::PresenterEnd;

const VERTEX: &[u8] = include_bytes!("shaders/quad.vert.spv");
const FRAGMENT: &[u8] = include_bytes!("shaders/quad.frag.spv");

/// Bytes of the shaders' push constants: an area and a channel order.
const CONSTANTS: usize = 32;

/// How many images can be drawn: the picture, the cursor, and two labels.
const IMAGES: u32 = 4;

/// How a rectangle is combined with the pixels under it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blending {
    Opaque,
    /// Colours are premultiplied with alpha.
    Blended,
}

/// The pipelines and their layout, for one target format.
pub(super) struct Pipeline {
    gpu: Arc<Gpu>,
    /// Clears the target and leaves it ready to be presented.
    pub(super) to_window: vk::RenderPass,
    /// Clears the target and leaves it ready to be copied.
    pub(super) to_copy: vk::RenderPass,
    set_layout: vk::DescriptorSetLayout,
    layout: vk::PipelineLayout,
    opaque: vk::Pipeline,
    blended: vk::Pipeline,
    nearest: vk::Sampler,
    linear: vk::Sampler,
    pool: vk::DescriptorPool,
}

/// The two ways to sample an image.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Samplings {
    pub(super) nearest: vk::DescriptorSet,
    pub(super) linear: vk::DescriptorSet,
}

impl Pipeline {
    pub(super) fn new(gpu: &Arc<Gpu>, format: vk::Format) -> Result<Pipeline, PresenterEnd> {
        // Everything is null at first: dropping a half-made pipeline frees what there is.
        let mut pipeline = Pipeline {
            gpu: gpu.clone(),
            to_window: vk::RenderPass::null(),
            to_copy: vk::RenderPass::null(),
            set_layout: vk::DescriptorSetLayout::null(),
            layout: vk::PipelineLayout::null(),
            opaque: vk::Pipeline::null(),
            blended: vk::Pipeline::null(),
            nearest: vk::Sampler::null(),
            linear: vk::Sampler::null(),
            pool: vk::DescriptorPool::null(),
        };
        pipeline.build(format).map_err(|error| gpu.end(error))?;
        Ok(pipeline)
    }

    fn build(&mut self, format: vk::Format) -> Result<(), vk::Result> {
        self.to_window = self.render_pass(format, vk::ImageLayout::PRESENT_SRC_KHR)?;
        self.to_copy = self.render_pass(format, vk::ImageLayout::TRANSFER_SRC_OPTIMAL)?;
        self.nearest = self.sampler(vk::Filter::NEAREST)?;
        self.linear = self.sampler(vk::Filter::LINEAR)?;
        let binding = [vk::DescriptorSetLayoutBinding::default()
            .descriptor_type(vk::DescriptorType::COMBINED_IMAGE_SAMPLER)
            .descriptor_count(1)
            .stage_flags(vk::ShaderStageFlags::FRAGMENT)];
        let info = vk::DescriptorSetLayoutCreateInfo::default().bindings(&binding);
        // SAFETY: valid descriptions, here and below; each object is made once.
        self.set_layout = unsafe { self.gpu.device.create_descriptor_set_layout(&info, None) }?;
        let sets = [self.set_layout];
        let constants = [vk::PushConstantRange::default()
            .stage_flags(vk::ShaderStageFlags::VERTEX | vk::ShaderStageFlags::FRAGMENT)
            .size(CONSTANTS as u32)];
        let info = vk::PipelineLayoutCreateInfo::default()
            .set_layouts(&sets)
            .push_constant_ranges(&constants);
        // SAFETY: as above.
        self.layout = unsafe { self.gpu.device.create_pipeline_layout(&info, None) }?;
        let sizes = [vk::DescriptorPoolSize {
            ty: vk::DescriptorType::COMBINED_IMAGE_SAMPLER,
            descriptor_count: 2 * IMAGES,
        }];
        let info = vk::DescriptorPoolCreateInfo::default()
            .max_sets(2 * IMAGES)
            .pool_sizes(&sizes);
        // SAFETY: as above.
        self.pool = unsafe { self.gpu.device.create_descriptor_pool(&info, None) }?;
        let vertex = ShaderModule::new(&self.gpu, VERTEX)?;
        let fragment = ShaderModule::new(&self.gpu, FRAGMENT)?;
        self.opaque = self.pipeline(&vertex, &fragment, Blending::Opaque)?;
        self.blended = self.pipeline(&vertex, &fragment, Blending::Blended)?;
        Ok(())
    }

    fn render_pass(
        &self,
        format: vk::Format,
        ends_as: vk::ImageLayout,
    ) -> Result<vk::RenderPass, vk::Result> {
        let targets = [vk::AttachmentDescription::default()
            .format(format)
            .samples(vk::SampleCountFlags::TYPE_1)
            .load_op(vk::AttachmentLoadOp::CLEAR)
            .store_op(vk::AttachmentStoreOp::STORE)
            .stencil_load_op(vk::AttachmentLoadOp::DONT_CARE)
            .stencil_store_op(vk::AttachmentStoreOp::DONT_CARE)
            .initial_layout(vk::ImageLayout::UNDEFINED)
            .final_layout(ends_as)];
        let colors = [vk::AttachmentReference {
            attachment: 0,
            layout: vk::ImageLayout::COLOR_ATTACHMENT_OPTIMAL,
        }];
        let subpasses = [vk::SubpassDescription::default()
            .pipeline_bind_point(vk::PipelineBindPoint::GRAPHICS)
            .color_attachments(&colors)];
        let stage = vk::PipelineStageFlags::COLOR_ATTACHMENT_OUTPUT;
        let dependencies = [
            // The target changes its layout only after the semaphore of its acquisition has been
            // signalled. This stage waits for that semaphore.
            vk::SubpassDependency::default()
                .src_subpass(vk::SUBPASS_EXTERNAL)
                .dst_subpass(0)
                .src_stage_mask(stage)
                .dst_stage_mask(stage)
                .dst_access_mask(vk::AccessFlags::COLOR_ATTACHMENT_WRITE),
            // A copy that follows sees what was drawn. Presenting has its own semaphore.
            vk::SubpassDependency::default()
                .src_subpass(0)
                .dst_subpass(vk::SUBPASS_EXTERNAL)
                .src_stage_mask(stage)
                .dst_stage_mask(vk::PipelineStageFlags::TRANSFER)
                .src_access_mask(vk::AccessFlags::COLOR_ATTACHMENT_WRITE)
                .dst_access_mask(vk::AccessFlags::TRANSFER_READ),
        ];
        let info = vk::RenderPassCreateInfo::default()
            .attachments(&targets)
            .subpasses(&subpasses)
            .dependencies(&dependencies);
        // SAFETY: a valid description.
        unsafe { self.gpu.device.create_render_pass(&info, None) }
    }

    fn sampler(&self, filter: vk::Filter) -> Result<vk::Sampler, vk::Result> {
        let edge = vk::SamplerAddressMode::CLAMP_TO_EDGE;
        let info = vk::SamplerCreateInfo::default()
            .mag_filter(filter)
            .min_filter(filter)
            .address_mode_u(edge)
            .address_mode_v(edge)
            .address_mode_w(edge);
        // SAFETY: a valid description.
        unsafe { self.gpu.device.create_sampler(&info, None) }
    }

    fn pipeline(
        &self,
        vertex: &ShaderModule,
        fragment: &ShaderModule,
        mode: Blending,
    ) -> Result<vk::Pipeline, vk::Result> {
        let stage = |stage, module: &ShaderModule| {
            vk::PipelineShaderStageCreateInfo::default()
                .stage(stage)
                .module(module.raw)
                .name(c"main")
        };
        let stages = [
            stage(vk::ShaderStageFlags::VERTEX, vertex),
            stage(vk::ShaderStageFlags::FRAGMENT, fragment),
        ];
        let vertices = vk::PipelineVertexInputStateCreateInfo::default();
        let assembly = vk::PipelineInputAssemblyStateCreateInfo::default()
            .topology(vk::PrimitiveTopology::TRIANGLE_STRIP);
        let viewport = vk::PipelineViewportStateCreateInfo::default()
            .viewport_count(1)
            .scissor_count(1);
        let raster = vk::PipelineRasterizationStateCreateInfo::default()
            .polygon_mode(vk::PolygonMode::FILL)
            .cull_mode(vk::CullModeFlags::NONE)
            .line_width(1.0);
        let samples = vk::PipelineMultisampleStateCreateInfo::default()
            .rasterization_samples(vk::SampleCountFlags::TYPE_1);
        let blend = [vk::PipelineColorBlendAttachmentState::default()
            .blend_enable(mode == Blending::Blended)
            .src_color_blend_factor(vk::BlendFactor::ONE)
            .dst_color_blend_factor(vk::BlendFactor::ONE_MINUS_SRC_ALPHA)
            .color_blend_op(vk::BlendOp::ADD)
            .src_alpha_blend_factor(vk::BlendFactor::ONE)
            .dst_alpha_blend_factor(vk::BlendFactor::ONE_MINUS_SRC_ALPHA)
            .alpha_blend_op(vk::BlendOp::ADD)
            .color_write_mask(vk::ColorComponentFlags::RGBA)];
        let blend = vk::PipelineColorBlendStateCreateInfo::default().attachments(&blend);
        let dynamic = [vk::DynamicState::VIEWPORT, vk::DynamicState::SCISSOR];
        let dynamic = vk::PipelineDynamicStateCreateInfo::default().dynamic_states(&dynamic);
        let info = [vk::GraphicsPipelineCreateInfo::default()
            .stages(&stages)
            .vertex_input_state(&vertices)
            .input_assembly_state(&assembly)
            .viewport_state(&viewport)
            .rasterization_state(&raster)
            .multisample_state(&samples)
            .color_blend_state(&blend)
            .dynamic_state(&dynamic)
            .layout(self.layout)
            // The other pass differs only in its final layout, so it is compatible.
            .render_pass(self.to_window)];
        let (device, cache) = (&self.gpu.device, vk::PipelineCache::null());
        // SAFETY: a valid description; its parts live through the call.
        let made = unsafe { device.create_graphics_pipelines(cache, &info, None) };
        let made = made.map_err(|(_, error)| error)?;
        made.first()
            .copied()
            .ok_or(vk::Result::ERROR_INITIALIZATION_FAILED)
    }

    /// Allocates two descriptor sets. Can be called [`IMAGES`] times.
    pub(super) fn samplings(&self) -> Result<Samplings, PresenterEnd> {
        let layouts = [self.set_layout; 2];
        let info = vk::DescriptorSetAllocateInfo::default()
            .descriptor_pool(self.pool)
            .set_layouts(&layouts);
        // SAFETY: the pool is used by this presenter's thread only.
        let sets = unsafe { self.gpu.device.allocate_descriptor_sets(&info) }
            .map_err(|error| self.gpu.end(error))?;
        match sets.as_slice() {
            [nearest, linear] => Ok(Samplings {
                nearest: *nearest,
                linear: *linear,
            }),
            _ => Err(PresenterEnd::Failed(
                "the driver gave too few descriptor sets".to_owned(),
            )),
        }
    }

    /// Makes the sets sample `view`. The GPU must not be using them.
    pub(super) fn show(&self, samplings: Samplings, view: vk::ImageView) {
        let image = |sampler| {
            [vk::DescriptorImageInfo {
                sampler,
                image_view: view,
                image_layout: vk::ImageLayout::SHADER_READ_ONLY_OPTIMAL,
            }]
        };
        let (nearest, linear) = (image(self.nearest), image(self.linear));
        let write = |set, image| {
            vk::WriteDescriptorSet::default()
                .dst_set(set)
                .descriptor_type(vk::DescriptorType::COMBINED_IMAGE_SAMPLER)
                .image_info(image)
        };
        let writes = [
            write(samplings.nearest, &nearest),
            write(samplings.linear, &linear),
        ];
        // SAFETY: sets of our pool, not in use; the view lives until it is replaced here.
        unsafe { self.gpu.device.update_descriptor_sets(&writes, &[]) };
    }

    /// A framebuffer that draws to `view`.
    pub(super) fn framebuffer(
        &self,
        view: vk::ImageView,
        size: vk::Extent2D,
    ) -> Result<vk::Framebuffer, PresenterEnd> {
        let views = [view];
        let info = vk::FramebufferCreateInfo::default()
            .render_pass(self.to_window)
            .attachments(&views)
            .width(size.width)
            .height(size.height)
            .layers(1);
        // SAFETY: the view is of the render pass's format and of this size.
        unsafe { self.gpu.device.create_framebuffer(&info, None) }.map_err(|e| self.gpu.end(e))
    }

    /// Records drawing an image over `area` of a target of `size` pixels. A render pass must have
    /// begun, and the scissor must be set.
    pub(super) fn draw(
        &self,
        commands: vk::CommandBuffer,
        mode: Blending,
        image: vk::DescriptorSet,
        channels: Channels,
        (area, size): (Area, vk::Extent2D),
    ) {
        let pipeline = if mode == Blending::Blended {
            self.blended
        } else {
            self.opaque
        };
        let constants = constants(area, size, channels);
        let stages = vk::ShaderStageFlags::VERTEX | vk::ShaderStageFlags::FRAGMENT;
        let point = vk::PipelineBindPoint::GRAPHICS;
        let device = &self.gpu.device;
        // SAFETY: the command buffer is being recorded, inside a compatible render pass; pipeline,
        // set and constants agree with the layout they were made for.
        unsafe {
            device.cmd_bind_pipeline(commands, point, pipeline);
            device.cmd_bind_descriptor_sets(commands, point, self.layout, 0, &[image], &[]);
            device.cmd_push_constants(commands, self.layout, stages, 0, &constants);
            device.cmd_draw(commands, 4, 1, 0, 0);
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        let device = &self.gpu.device;
        // SAFETY: all are ours (or null, which is allowed), and the GPU is done with them.
        unsafe {
            device.destroy_pipeline(self.opaque, None);
            device.destroy_pipeline(self.blended, None);
            device.destroy_descriptor_pool(self.pool, None);
            device.destroy_pipeline_layout(self.layout, None);
            device.destroy_descriptor_set_layout(self.set_layout, None);
            device.destroy_sampler(self.nearest, None);
            device.destroy_sampler(self.linear, None);
            device.destroy_render_pass(self.to_window, None);
            device.destroy_render_pass(self.to_copy, None);
        }
    }
}

/// The shaders' push constants.
fn constants(area: Area, size: vk::Extent2D, channels: Channels) -> [u8; CONSTANTS] {
    let across = |x: f32| (x / size.width as f32 * 2.0 - 1.0).to_ne_bytes();
    let down = |y: f32| (y / size.height as f32 * 2.0 - 1.0).to_ne_bytes();
    let channel = |channel: u8| i32::from(channel).to_ne_bytes();
    let words = [
        across(area.left),
        down(area.top),
        across(area.right),
        down(area.bottom),
        channel(channels.red),
        channel(channels.green),
        channel(channels.blue),
        channels.alpha.map_or((-1i32).to_ne_bytes(), channel),
    ];
    let mut bytes = [0; CONSTANTS];
    bytes.as_chunks_mut::<4>().0.copy_from_slice(&words);
    bytes
}

/// A compiled shader, needed only while pipelines are made.
struct ShaderModule {
    gpu: Arc<Gpu>,
    raw: vk::ShaderModule,
}

impl ShaderModule {
    fn new(gpu: &Arc<Gpu>, spirv: &[u8]) -> Result<ShaderModule, vk::Result> {
        let (words, _) = spirv.as_chunks::<4>();
        // SPIR-V files are little-endian, whatever the host is.
        let words: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
        let info = vk::ShaderModuleCreateInfo::default().code(&words);
        // SAFETY: the code passed spirv-val when it was made (shaders/make.sh).
        let raw = unsafe { gpu.device.create_shader_module(&info, None) }?;
        Ok(ShaderModule {
            gpu: gpu.clone(),
            raw,
        })
    }
}

impl Drop for ShaderModule {
    fn drop(&mut self) {
        // SAFETY: it is ours; pipelines keep what they need.
        unsafe { self.gpu.device.destroy_shader_module(self.raw, None) };
    }
}
