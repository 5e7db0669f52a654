//! Cases of drawing: the same picture drawn in several ways, equal bit for bit, and its parts.

use ash::vk;

use super::{Case, case};
use crate::drawing::{Canvas, Painter, SCENE, Style, area};
use crate::gpu::Gpu;
use crate::outcome::{Outcome, Stop, ensure, equal, need};
use crate::resources::{Buffer, ImageKind};

pub(super) const CASES: &[Case] = &[
    case("draw-render-pass", render_pass),
    case("draw-dynamic-rendering", dynamic_rendering),
    case("draw-secondary", secondary),
    case("draw-nested-secondaries", many_secondaries),
    case("draw-depth", depth),
    case("draw-multisampled", multisampled),
    case("draw-indirect", indirect),
    case("draw-textured-instances", textured),
    case("draw-1000-triangles", thousand),
    case("draw-render-pass-2", render_pass_2),
];

const ONE: vk::SampleCountFlags = vk::SampleCountFlags::TYPE_1;

fn scene(gpu: &Gpu<'_>, commands: vk::CommandBuffer, painter: &Painter, canvas: &Canvas) {
    gpu.take_brush(commands, painter, canvas);
    for ([x, y, scale, depth], colour) in SCENE {
        gpu.triangle(commands, painter, [x, y, scale, depth], colour);
    }
}

/// Draws the scene in the plainest way.
fn plain<'g>(gpu: &'g Gpu<'_>) -> Result<Buffer<'g>, Stop> {
    let canvas = gpu.canvas([128, 96], ONE, false)?;
    let painter = gpu.painter(Style::Triangle, &canvas, false)?;
    gpu.draw(&canvas, |commands| scene(gpu, commands, &painter, &canvas))
}

/// Fails unless `picture` equals the picture of [`plain`].
fn as_plain(gpu: &Gpu<'_>, picture: &Buffer<'_>) -> Outcome {
    ensure(
        "the picture is the plain one",
        picture.read_all() == plain(gpu)?.read_all(),
    )?;
    Ok(format!("{:016x}", picture.digest()))
}

fn render_pass(gpu: &Gpu<'_>) -> Outcome {
    let picture = plain(gpu)?;
    let clear = picture.read(127);
    let [r, g, b, a] = clear.to_le_bytes();
    ensure(
        "the last texel of the first row is dark blue",
        r == 0 && g == 0 && a == 255,
    )?;
    ensure("… a quarter of blue", b.abs_diff(64) <= 1)?;
    ensure("the middle is drawn", picture.read(48 * 128 + 40) != clear)?;
    ensure(
        "the lower right corner is not",
        picture.read(96 * 128 - 1) == clear,
    )?;
    Ok(format!("{:016x}", picture.digest()))
}

fn dynamic_rendering(gpu: &Gpu<'_>) -> Outcome {
    need("dynamicRendering", gpu.features.v13.dynamic_rendering != 0)?;
    let canvas = gpu.canvas([128, 96], ONE, false)?;
    let painter = gpu.painter(Style::Triangle, &canvas, true)?;
    let layout = vk::ImageLayout::COLOR_ATTACHMENT_OPTIMAL;
    let colour = vk::ClearColorValue {
        float32: [0.0, 0.0, 0.25, 1.0],
    };
    let attachments = [vk::RenderingAttachmentInfo::default()
        .image_view(canvas.colour.view)
        .image_layout(layout)
        .load_op(vk::AttachmentLoadOp::CLEAR)
        .store_op(vk::AttachmentStoreOp::STORE)
        .clear_value(vk::ClearValue { color: colour })];
    let info = vk::RenderingInfo::default()
        .render_area(area(&canvas.colour.kind))
        .layer_count(1)
        .color_attachments(&attachments);
    // SAFETY: `run` records; the view is of this device.
    gpu.run(|commands| unsafe {
        gpu.transition(commands, &canvas.colour, vk::ImageLayout::UNDEFINED, layout);
        gpu.cmd_begin_rendering(commands, &info);
        scene(gpu, commands, &painter, &canvas);
        gpu.cmd_end_rendering(commands);
        let readable = vk::ImageLayout::TRANSFER_SRC_OPTIMAL;
        gpu.transition(commands, &canvas.colour, layout, readable);
    })?;
    as_plain(gpu, &gpu.read_back(&canvas.colour, 0)?)
}

/// Records secondary command buffers inside the pass of `canvas`, one for each call of `body`.
fn secondaries(
    gpu: &Gpu<'_>,
    canvas: &Canvas,
    count: u32,
    body: impl Fn(vk::CommandBuffer, usize),
) -> Result<Vec<vk::CommandBuffer>, Stop> {
    let inherited = vk::CommandBufferInheritanceInfo::default()
        .render_pass(canvas.pass)
        .framebuffer(canvas.framebuffer);
    let info = vk::CommandBufferBeginInfo::default()
        .flags(vk::CommandBufferUsageFlags::RENDER_PASS_CONTINUE)
        .inheritance_info(&inherited);
    let pool = gpu.pool(gpu.family)?;
    let all = gpu.command_buffers(pool, vk::CommandBufferLevel::SECONDARY, count)?;
    for (index, &commands) in all.iter().enumerate() {
        // SAFETY: the command buffer is new, pass and framebuffer are of this device.
        unsafe {
            gpu.begin_command_buffer(commands, &info)?;
            body(commands, index);
            gpu.end_command_buffer(commands)?;
        }
    }
    Ok(all)
}

fn execute(gpu: &Gpu<'_>, canvas: &Canvas, secondaries: &[vk::CommandBuffer]) -> Result<(), Stop> {
    // SAFETY: `run` records; the command buffers were recorded for this pass.
    gpu.run(|commands| unsafe {
        let contents = vk::SubpassContents::SECONDARY_COMMAND_BUFFERS;
        gpu.begin_pass(commands, canvas, contents);
        gpu.cmd_execute_commands(commands, secondaries);
        gpu.cmd_end_render_pass(commands);
    })
}

fn secondary(gpu: &Gpu<'_>) -> Outcome {
    let canvas = gpu.canvas([128, 96], ONE, false)?;
    let painter = gpu.painter(Style::Triangle, &canvas, false)?;
    let recorded = secondaries(gpu, &canvas, 1, |commands, _| {
        scene(gpu, commands, &painter, &canvas);
    })?;
    execute(gpu, &canvas, &recorded)?;
    as_plain(gpu, &gpu.read_back(&canvas.colour, 0)?)
}

fn many_secondaries(gpu: &Gpu<'_>) -> Outcome {
    let canvas = gpu.canvas([128, 96], ONE, false)?;
    let painter = gpu.painter(Style::Triangle, &canvas, false)?;
    let recorded = secondaries(gpu, &canvas, 3, |commands, index| {
        gpu.take_brush(commands, &painter, &canvas);
        let (place, colour) = SCENE[index];
        gpu.triangle(commands, &painter, place, colour);
    })?;
    execute(gpu, &canvas, &recorded)?;
    as_plain(gpu, &gpu.read_back(&canvas.colour, 0)?)
}

fn depth(gpu: &Gpu<'_>) -> Outcome {
    let canvas = gpu.canvas([64, 64], ONE, true)?;
    let painter = gpu.painter(Style::Triangle, &canvas, false)?;
    let draw = |order: [usize; 2]| {
        let triangles = [
            ([0.0, 0.0, 1.0, 0.5], [1.0, 0.0, 0.0, 1.0]),
            ([0.0, 0.0, 1.0, 0.25], [0.0, 1.0, 0.0, 1.0]),
        ];
        gpu.draw(&canvas, |commands| {
            gpu.take_brush(commands, &painter, &canvas);
            for index in order {
                let (place, colour) = triangles[index];
                gpu.triangle(commands, &painter, place, colour);
            }
        })
    };
    let (there, back) = (draw([0, 1])?, draw([1, 0])?);
    ensure(
        "the order does not matter",
        there.read_all() == back.read_all(),
    )?;
    equal(
        "the red of a drawn texel",
        there.read(10 * 64 + 10) & 0xff,
        0,
    )?;
    Ok(format!("{:016x}", there.digest()))
}

fn multisampled(gpu: &Gpu<'_>) -> Outcome {
    let canvas = gpu.canvas([128, 96], vk::SampleCountFlags::TYPE_4, true)?;
    let painter = gpu.painter(Style::Triangle, &canvas, false)?;
    let picture = gpu.draw(&canvas, |commands| scene(gpu, commands, &painter, &canvas))?;
    let colours: std::collections::BTreeSet<u32> = picture.read_all().into_iter().collect();
    ensure("edges are smooth", colours.len() > 20)?;
    Ok(format!("{:016x}", picture.digest()))
}

fn indirect(gpu: &Gpu<'_>) -> Outcome {
    let canvas = gpu.canvas([64, 64], ONE, false)?;
    let painter = gpu.painter(Style::Triangle, &canvas, false)?;
    let arguments = gpu.buffer(10)?;
    for (index, value) in [0, 0, 0, 0, 3, 1, 0, 0, 0, 0].into_iter().enumerate() {
        arguments.write(index, value);
    }
    let place = [0.1_f32, 0.0, 0.75, 0.5].into_iter().chain([1.0; 4]);
    let values: Vec<u32> = place.map(f32::to_bits).collect();
    // SAFETY: `draw` records; all handles are of this device.
    let picture = gpu.draw(&canvas, |commands| unsafe {
        gpu.take_brush(commands, &painter, &canvas);
        gpu.push(commands, painter.layout, &values);
        gpu.cmd_draw_indirect(commands, arguments.handle, 16, 1, 0);
    })?;
    let direct = gpu.draw(&canvas, |commands| {
        gpu.take_brush(commands, &painter, &canvas);
        gpu.triangle(commands, &painter, [0.1, 0.0, 0.75, 0.5], [1.0; 4]);
    })?;
    ensure(
        "the picture is that of a direct draw",
        picture.read_all() == direct.read_all(),
    )?;
    Ok(format!("{:016x}", picture.digest()))
}

fn textured(gpu: &Gpu<'_>) -> Outcome {
    let canvas = gpu.canvas([96, 96], ONE, false)?;
    let painter = gpu.painter(Style::Textured, &canvas, false)?;

    let texture = gpu.image(ImageKind::picture(8, 8))?;
    let texels = gpu.buffer(64)?;
    texels.fill_with(|i| u32::from_le_bytes([i, 63 - i, i, 63].map(|part| part as u8 * 4)));
    let sampler = vk::SamplerCreateInfo::default()
        .mag_filter(vk::Filter::LINEAR)
        .address_mode_u(vk::SamplerAddressMode::REPEAT)
        .address_mode_v(vk::SamplerAddressMode::MIRRORED_REPEAT);
    // SAFETY: the device is alive, `sampler` holds no pointers.
    let sampler = unsafe { gpu.create_sampler(&sampler, None) }?;
    let sampler = gpu.own(sampler, ash::Device::destroy_sampler);
    let kind = vk::DescriptorType::COMBINED_IMAGE_SAMPLER;
    let set = gpu.descriptor_set(painter.set_layout, &[kind])?;
    let readable = vk::ImageLayout::SHADER_READ_ONLY_OPTIMAL;
    let picture = [vk::DescriptorImageInfo::default()
        .sampler(sampler)
        .image_view(texture.view)
        .image_layout(readable)];
    let write = vk::WriteDescriptorSet::default()
        .dst_set(set)
        .descriptor_type(kind)
        .image_info(&picture);

    let (vertices, offsets) = (gpu.buffer(16)?, gpu.buffer(8)?);
    let corners = [
        [-0.4, -0.4, 0.0, 0.0],
        [0.4, -0.4, 2.0, 0.0],
        [-0.4, 0.4, 0.0, 2.0],
        [0.4, 0.4, 2.0, 2.0],
    ];
    vertices.fill_with(|i| f32::to_bits(corners.as_flattened()[i as usize]));
    let places = [[-0.5, -0.5], [0.5, -0.5], [-0.5, 0.5], [0.45, 0.55]];
    offsets.fill_with(|i| f32::to_bits(places.as_flattened()[i as usize]));
    let indices = gpu.buffer(6)?;
    indices.fill_with(|i| [0, 1, 2, 2, 1, 3][i as usize]);

    let target = vk::ImageLayout::TRANSFER_DST_OPTIMAL;
    let region = vk::BufferImageCopy::default()
        .image_subresource(texture.kind.level(0))
        .image_extent(vk::Extent3D {
            width: 8,
            height: 8,
            depth: 1,
        });
    // SAFETY: `run` and `draw` record; all handles are of this device, and the set is not in use.
    let drawn = unsafe {
        gpu.update_descriptor_sets(&[write], &[]);
        gpu.run(|commands| {
            gpu.transition(commands, &texture, vk::ImageLayout::UNDEFINED, target);
            let (from, to) = (texels.handle, texture.handle);
            gpu.cmd_copy_buffer_to_image(commands, from, to, target, &[region]);
            gpu.transition(commands, &texture, target, readable);
        })?;
        gpu.draw(&canvas, |commands| {
            gpu.take_brush(commands, &painter, &canvas);
            let point = vk::PipelineBindPoint::GRAPHICS;
            gpu.cmd_bind_descriptor_sets(commands, point, painter.layout, 0, &[set], &[]);
            let buffers = [vertices.handle, offsets.handle];
            gpu.cmd_bind_vertex_buffers(commands, 0, &buffers, &[0, 0]);
            gpu.cmd_bind_index_buffer(commands, indices.handle, 0, vk::IndexType::UINT32);
            gpu.cmd_draw_indexed(commands, 6, 4, 0, 0, 0);
        })?
    };
    let clear = drawn.read(96 * 48 + 48);
    ensure("there is a gap between the squares", clear & 0xffff == 0)?;
    ensure(
        "the first square is drawn",
        drawn.read(96 * 24 + 24) != clear,
    )?;
    Ok(format!("{:016x}", drawn.digest()))
}

fn thousand(gpu: &Gpu<'_>) -> Outcome {
    let canvas = gpu.canvas([128, 128], ONE, false)?;
    let painter = gpu.painter(Style::Triangle, &canvas, false)?;
    let picture = gpu.draw(&canvas, |commands| {
        gpu.take_brush(commands, &painter, &canvas);
        for index in 0..1000_u32 {
            let (x, y) = (
                (index % 40) as f32 / 20.0 - 1.0,
                (index / 40) as f32 / 12.5 - 1.0,
            );
            let colour = [x.abs(), y.abs(), 1.0 - x.abs(), 0.5];
            gpu.triangle(commands, &painter, [x, y, 0.05, 0.5], colour);
        }
    })?;
    Ok(format!("{:016x}", picture.digest()))
}

fn render_pass_2(gpu: &Gpu<'_>) -> Outcome {
    need(
        "Vulkan 1.2",
        gpu.host.properties.api_version >= vk::API_VERSION_1_2,
    )?;
    let canvas = gpu.canvas([128, 96], ONE, false)?;
    let painter = gpu.painter(Style::Triangle, &canvas, false)?;
    let colour = vk::ClearColorValue {
        float32: [0.0, 0.0, 0.25, 1.0],
    };
    let clear = [vk::ClearValue { color: colour }];
    let begin = vk::RenderPassBeginInfo::default()
        .render_pass(canvas.pass)
        .framebuffer(canvas.framebuffer)
        .render_area(area(&canvas.colour.kind))
        .clear_values(&clear);
    // SAFETY: `run` records; pass and framebuffer are of this device.
    gpu.run(|commands| unsafe {
        gpu.cmd_begin_render_pass2(commands, &begin, &vk::SubpassBeginInfo::default());
        scene(gpu, commands, &painter, &canvas);
        gpu.cmd_end_render_pass2(commands, &vk::SubpassEndInfo::default());
    })?;
    as_plain(gpu, &gpu.read_back(&canvas.colour, 0)?)
}
