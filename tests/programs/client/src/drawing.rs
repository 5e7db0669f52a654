//! Graphics pipelines and their targets: [`Canvas`], [`Style`] and [`Painter`].

use ash::vk;

use crate::gpu::Gpu;
use crate::outcome::Stop;
use crate::resources::{Buffer, Image, ImageKind};
use crate::shaders::{QUAD, SHADE, TEXTURE, TRIANGLE};

/// The format of every depth buffer of the cases. All drivers must support it.
pub(crate) const DEPTH: vk::Format = vk::Format::D16_UNORM;

/// A picture to draw to. It is cleared to dark blue when drawing begins, and is ready to copy from
/// when drawing ends.
pub(crate) struct Canvas {
    /// The picture, with one sample per texel.
    pub(crate) colour: Image,
    /// The multisampled image that is drawn to and resolved into `colour`, if there is one.
    pub(crate) samples: Option<Image>,
    /// The depth buffer, if there is one.
    pub(crate) depth: Option<Image>,
    /// A render pass with these attachments.
    pub(crate) pass: vk::RenderPass,
    /// A framebuffer with these attachments.
    pub(crate) framebuffer: vk::Framebuffer,
}

/// The clear values of a [`Canvas`], in the order of its attachments.
const CLEAR: [vk::ClearValue; 3] = {
    let depth = vk::ClearDepthStencilValue {
        depth: 1.0,
        stencil: 0,
    };
    let colour = vk::ClearValue {
        color: vk::ClearColorValue {
            float32: [0.0, 0.0, 0.25, 1.0],
        },
    };
    [
        colour,
        vk::ClearValue {
            depth_stencil: depth,
        },
        colour,
    ]
};

/// The whole area of a picture.
pub(crate) fn area(kind: &ImageKind) -> vk::Rect2D {
    let extent = vk::Extent2D {
        width: kind.size[0],
        height: kind.size[1],
    };
    vk::Rect2D {
        offset: vk::Offset2D::default(),
        extent,
    }
}

impl Canvas {
    /// The image that pipelines draw to.
    fn target(&self) -> &Image {
        self.samples.as_ref().unwrap_or(&self.colour)
    }
}

/// The shaders and vertices of a graphics pipeline.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    /// `triangle.vert` and `shade.frag`: no vertex buffers.
    Triangle,
    /// `quad.vert` and `texture.frag`: vertices and instances from buffers, a texture in set 0.
    Textured,
}

/// A graphics pipeline.
#[derive(Clone, Copy)]
pub(crate) struct Painter {
    /// The layout of its set 0: a combined image sampler.
    pub(crate) set_layout: vk::DescriptorSetLayout,
    pub(crate) layout: vk::PipelineLayout,
    pub(crate) pipeline: vk::Pipeline,
}

impl Gpu<'_> {
    /// Creates a canvas of this size.
    pub(crate) fn canvas(
        &self,
        size: [u32; 2],
        samples: vk::SampleCountFlags,
        with_depth: bool,
    ) -> Result<Canvas, Stop> {
        let picture = ImageKind::picture(size[0], size[1]);
        let colour = self.image(picture)?;
        let many = samples != vk::SampleCountFlags::TYPE_1;
        let drawn = ImageKind {
            samples,
            usage: vk::ImageUsageFlags::COLOR_ATTACHMENT,
            ..picture
        };
        let samples_image = if many { Some(self.image(drawn)?) } else { None };
        let deep = ImageKind {
            format: DEPTH,
            samples,
            usage: vk::ImageUsageFlags::DEPTH_STENCIL_ATTACHMENT,
            ..picture
        };
        let depth = if with_depth {
            Some(self.image(deep)?)
        } else {
            None
        };
        let pass = self.render_pass(samples, with_depth)?;
        let mut views = vec![samples_image.as_ref().unwrap_or(&colour).view];
        views.extend(depth.iter().map(|depth| depth.view));
        if many {
            views.push(colour.view);
        }
        let info = vk::FramebufferCreateInfo::default()
            .render_pass(pass)
            .attachments(&views)
            .width(size[0])
            .height(size[1])
            .layers(1);
        // SAFETY: pass and views are of this device and fit each other.
        let framebuffer = unsafe { self.create_framebuffer(&info, None) }?;
        let framebuffer = self.own(framebuffer, ash::Device::destroy_framebuffer);
        Ok(Canvas {
            colour,
            samples: samples_image,
            depth,
            pass,
            framebuffer,
        })
    }

    fn render_pass(
        &self,
        samples: vk::SampleCountFlags,
        with_depth: bool,
    ) -> Result<vk::RenderPass, Stop> {
        let many = samples != vk::SampleCountFlags::TYPE_1;
        let readable = vk::ImageLayout::TRANSFER_SRC_OPTIMAL;
        let writable = vk::ImageLayout::COLOR_ATTACHMENT_OPTIMAL;
        let deep = vk::ImageLayout::DEPTH_STENCIL_ATTACHMENT_OPTIMAL;
        let attachment = |format, samples, layout| {
            vk::AttachmentDescription::default()
                .format(format)
                .samples(samples)
                .load_op(vk::AttachmentLoadOp::CLEAR)
                .store_op(vk::AttachmentStoreOp::STORE)
                .stencil_load_op(vk::AttachmentLoadOp::DONT_CARE)
                .stencil_store_op(vk::AttachmentStoreOp::DONT_CARE)
                .final_layout(layout)
        };
        let format = vk::Format::R8G8B8A8_UNORM;
        let mut attachments = vec![attachment(
            format,
            samples,
            if many { writable } else { readable },
        )];
        if with_depth {
            attachments.push(attachment(DEPTH, samples, deep));
        }
        let resolve = [vk::AttachmentReference {
            attachment: u32::try_from(attachments.len()).unwrap_or(0),
            layout: writable,
        }];
        if many {
            let one = vk::SampleCountFlags::TYPE_1;
            attachments
                .push(attachment(format, one, readable).load_op(vk::AttachmentLoadOp::DONT_CARE));
        }
        let colours = [vk::AttachmentReference {
            attachment: 0,
            layout: writable,
        }];
        let depth = vk::AttachmentReference {
            attachment: 1,
            layout: deep,
        };
        let mut subpass = vk::SubpassDescription::default().color_attachments(&colours);
        if many {
            subpass = subpass.resolve_attachments(&resolve);
        }
        if with_depth {
            subpass = subpass.depth_stencil_attachment(&depth);
        }
        let subpasses = [subpass];
        let all = vk::PipelineStageFlags::ALL_COMMANDS;
        let access = vk::AccessFlags::MEMORY_READ | vk::AccessFlags::MEMORY_WRITE;
        let dependency = |src_subpass, dst_subpass| {
            vk::SubpassDependency::default()
                .src_subpass(src_subpass)
                .dst_subpass(dst_subpass)
                .src_stage_mask(all)
                .dst_stage_mask(all)
                .src_access_mask(access)
                .dst_access_mask(access)
        };
        let outside = vk::SUBPASS_EXTERNAL;
        let dependencies = [dependency(outside, 0), dependency(0, outside)];
        let info = vk::RenderPassCreateInfo::default()
            .attachments(&attachments)
            .subpasses(&subpasses)
            .dependencies(&dependencies);
        // SAFETY: all that `info` points to lives on this stack frame.
        let pass = unsafe { self.create_render_pass(&info, None) }?;
        Ok(self.own(pass, ash::Device::destroy_render_pass))
    }

    /// Creates a pipeline that draws to `canvas`: in its render pass, or in dynamic rendering if
    /// `dynamic` is set.
    pub(crate) fn painter(
        &self,
        style: Style,
        canvas: &Canvas,
        dynamic: bool,
    ) -> Result<Painter, Stop> {
        let types = [vk::DescriptorType::COMBINED_IMAGE_SAMPLER];
        let set_layout = self.set_layout(&types, Default::default())?;
        let layout = self.pipeline_layout(&[set_layout])?;
        let pipeline =
            self.drawing_pipeline(style, canvas, layout, dynamic, vk::PipelineCache::null())?;
        Ok(Painter {
            set_layout,
            layout,
            pipeline,
        })
    }

    /// Creates the pipeline of [`Gpu::painter`] with an existing layout.
    pub(crate) fn drawing_pipeline(
        &self,
        style: Style,
        canvas: &Canvas,
        layout: vk::PipelineLayout,
        dynamic: bool,
        cache: vk::PipelineCache,
    ) -> Result<vk::Pipeline, Stop> {
        let (vertex, fragment) = match style {
            Style::Triangle => (TRIANGLE, SHADE),
            Style::Textured => (QUAD, TEXTURE),
        };
        let modules = [self.shader(vertex)?, self.shader(fragment)?];
        let pipeline = self.bare_pipeline(style, modules, canvas, layout, dynamic, cache)?;
        Ok(self.own(pipeline, ash::Device::destroy_pipeline))
    }

    /// Creates the pipeline of [`Gpu::drawing_pipeline`] with existing modules. The caller destroys
    /// it.
    pub(crate) fn bare_pipeline(
        &self,
        style: Style,
        modules: [vk::ShaderModule; 2],
        canvas: &Canvas,
        layout: vk::PipelineLayout,
        dynamic: bool,
        cache: vk::PipelineCache,
    ) -> Result<vk::Pipeline, Stop> {
        let stage = |flag, module| {
            vk::PipelineShaderStageCreateInfo::default()
                .stage(flag)
                .module(module)
                .name(c"main")
        };
        let stages = [
            stage(vk::ShaderStageFlags::VERTEX, modules[0]),
            stage(vk::ShaderStageFlags::FRAGMENT, modules[1]),
        ];
        let bindings = [
            vk::VertexInputBindingDescription::default().stride(16),
            vk::VertexInputBindingDescription::default()
                .binding(1)
                .stride(8)
                .input_rate(vk::VertexInputRate::INSTANCE),
        ];
        let pair = |location, binding, offset| vk::VertexInputAttributeDescription {
            location,
            binding,
            format: vk::Format::R32G32_SFLOAT,
            offset,
        };
        let attributes = [pair(0, 0, 0), pair(1, 0, 8), pair(2, 1, 0)];
        let mut input = vk::PipelineVertexInputStateCreateInfo::default();
        if style == Style::Textured {
            input = input
                .vertex_binding_descriptions(&bindings)
                .vertex_attribute_descriptions(&attributes);
        }
        let assembly = vk::PipelineInputAssemblyStateCreateInfo::default()
            .topology(vk::PrimitiveTopology::TRIANGLE_LIST);
        let viewport = vk::PipelineViewportStateCreateInfo::default()
            .viewport_count(1)
            .scissor_count(1);
        let raster = vk::PipelineRasterizationStateCreateInfo::default().line_width(1.0);
        let multisample = vk::PipelineMultisampleStateCreateInfo::default()
            .rasterization_samples(canvas.target().kind.samples);
        let depth = vk::PipelineDepthStencilStateCreateInfo::default()
            .depth_test_enable(canvas.depth.is_some())
            .depth_write_enable(canvas.depth.is_some())
            .depth_compare_op(vk::CompareOp::LESS);
        let blend = [vk::PipelineColorBlendAttachmentState::default()
            .blend_enable(true)
            .src_color_blend_factor(vk::BlendFactor::SRC_ALPHA)
            .dst_color_blend_factor(vk::BlendFactor::ONE_MINUS_SRC_ALPHA)
            .src_alpha_blend_factor(vk::BlendFactor::ONE)
            .color_write_mask(vk::ColorComponentFlags::RGBA)];
        let blending = vk::PipelineColorBlendStateCreateInfo::default().attachments(&blend);
        let states = [vk::DynamicState::VIEWPORT, vk::DynamicState::SCISSOR];
        let dynamic_state = vk::PipelineDynamicStateCreateInfo::default().dynamic_states(&states);
        let formats = [canvas.colour.kind.format];
        let mut rendering =
            vk::PipelineRenderingCreateInfo::default().color_attachment_formats(&formats);
        if canvas.depth.is_some() {
            rendering = rendering.depth_attachment_format(DEPTH);
        }
        let mut info = vk::GraphicsPipelineCreateInfo::default()
            .stages(&stages)
            .vertex_input_state(&input)
            .input_assembly_state(&assembly)
            .viewport_state(&viewport)
            .rasterization_state(&raster)
            .multisample_state(&multisample)
            .depth_stencil_state(&depth)
            .color_blend_state(&blending)
            .dynamic_state(&dynamic_state)
            .layout(layout);
        info = match dynamic {
            true => info.push_next(&mut rendering),
            false => info.render_pass(canvas.pass),
        };
        // SAFETY: all handles are of this device, all pointers on this stack frame.
        let made = unsafe { self.create_graphics_pipelines(cache, &[info], None) };
        Ok(made.map_err(|(_, error)| error)?[0])
    }

    /// Begins the render pass of `canvas`.
    pub(crate) fn begin_pass(
        &self,
        commands: vk::CommandBuffer,
        canvas: &Canvas,
        contents: vk::SubpassContents,
    ) {
        // Without a depth buffer, the second clear value belongs to the resolve attachment, which
        // is not cleared.
        let info = vk::RenderPassBeginInfo::default()
            .render_pass(canvas.pass)
            .framebuffer(canvas.framebuffer)
            .render_area(area(&canvas.colour.kind))
            .clear_values(&CLEAR);
        // SAFETY: the command buffer is recording, pass and framebuffer are of this device.
        unsafe { self.cmd_begin_render_pass(commands, &info, contents) };
    }

    /// Binds `painter` and sets the viewport to the whole canvas.
    pub(crate) fn take_brush(
        &self,
        commands: vk::CommandBuffer,
        painter: &Painter,
        canvas: &Canvas,
    ) {
        let rect = area(&canvas.colour.kind);
        let viewport = vk::Viewport {
            width: canvas.colour.kind.size[0] as f32,
            height: canvas.colour.kind.size[1] as f32,
            max_depth: 1.0,
            ..Default::default()
        };
        let point = vk::PipelineBindPoint::GRAPHICS;
        // SAFETY: the command buffer is recording, the pipeline is of this device.
        unsafe {
            self.cmd_bind_pipeline(commands, point, painter.pipeline);
            self.cmd_set_viewport(commands, 0, &[viewport]);
            self.cmd_set_scissor(commands, 0, &[rect]);
        }
    }

    /// Draws one triangle with `triangle.vert`.
    pub(crate) fn triangle(
        &self,
        commands: vk::CommandBuffer,
        painter: &Painter,
        place: [f32; 4],
        colour: [f32; 4],
    ) {
        let values: Vec<u32> = place.into_iter().chain(colour).map(f32::to_bits).collect();
        self.push(commands, painter.layout, &values);
        // SAFETY: the command buffer is recording inside rendering, with a pipeline bound.
        unsafe { self.cmd_draw(commands, 3, 1, 0, 0) };
    }

    /// Records `draw` in the render pass of `canvas`, submits, waits and reads the picture.
    pub(crate) fn draw(
        &self,
        canvas: &Canvas,
        draw: impl FnOnce(vk::CommandBuffer),
    ) -> Result<Buffer<'_>, Stop> {
        self.run(|commands| {
            self.begin_pass(commands, canvas, vk::SubpassContents::INLINE);
            draw(commands);
            // SAFETY: the pass was begun above.
            unsafe { self.cmd_end_render_pass(commands) };
        })?;
        self.read_back(&canvas.colour, 0)
    }
}

/// The three triangles (place and colour) of the cases that draw the same picture in different
/// ways.
pub(crate) const SCENE: [([f32; 4], [f32; 4]); 3] = [
    ([0.0, 0.0, 0.9, 0.75], [1.0, 0.5, 0.25, 1.0]),
    ([0.2, -0.1, 0.6, 0.5], [0.25, 1.0, 0.5, 0.5]),
    ([-0.3, 0.4, 0.5, 0.25], [0.5, 0.25, 1.0, 0.75]),
];
