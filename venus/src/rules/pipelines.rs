//! Rules for shaders and pipelines.

use hesper_venus_protocol::rules::{Limit, Rules, all};
use hesper_venus_protocol::runtime::find;
use hesper_venus_protocol::vk;
use vk::ShaderStageFlags as Stages;

use super::checked::{Checked, broken, demand, within};
use super::passes;
use crate::object::facts::Facts;

/// The first word of SPIR-V.
const MAGIC: u32 = 0x0723_0203;

/// `VK_SHADER_UNUSED_KHR`
const UNUSED: u32 = !0;

/// Stages of graphics pipelines.
const GRAPHICS: Stages = Stages(0xdf);
/// Stages of ray tracing pipelines.
const RAY_TRACING: Stages = Stages(0x3f00);

pub(super) fn code(size: u64, code: &[u32]) -> Checked {
    let is_whole = size > 0 && size.is_multiple_of(4);
    demand(is_whole, "shader code that is not whole words", 0, size)?;
    match code.first() {
        Some(&MAGIC) => Ok(()),
        first => {
            let word = first.copied().unwrap_or(0);
            Err(broken(
                "shader code that is not SPIR-V",
                word.into(),
                1,
                MAGIC.into(),
            ))
        }
    }
}

/// Fails unless a stage is one of `possible`, and its code and constants are whole.
pub(super) fn stage(stage: &vk::PipelineShaderStageCreateInfo, possible: Stages) -> Checked {
    // Drivers take the number of the bit as an index.
    let is_one = stage.stage.0.is_power_of_two() && possible.contains(stage.stage);
    demand(
        is_one,
        "a shader stage",
        stage.stage.0.into(),
        possible.0.into(),
    )?;
    // SAFETY: the chain was decoded, and nobody else uses it.
    if let Some(module) = unsafe { find::<vk::ShaderModuleCreateInfo>(stage.p_next) } {
        // SAFETY: the decoder made an array of this many elements, or a null pointer.
        let words = unsafe { all(module.p_code, (module.code_size / 4) as u32) };
        code(module.code_size as u64, words)?;
    }
    // SAFETY: decoded as null or a valid struct.
    let Some(constants) = (unsafe { stage.p_specialization_info.as_ref() }) else {
        return Ok(());
    };
    let most = match constants.p_data.is_null() {
        true => 0,
        false => constants.data_size as u64,
    };
    // SAFETY: as above.
    let mut entries = unsafe { all(constants.p_map_entries, constants.map_entry_count) }.iter();
    entries.try_for_each(|entry| {
        let what = "specialization constants beyond their data";
        within(what, entry.offset.into(), entry.size as u64, most)
    })
}

pub(super) fn samples(samples: vk::SampleCountFlags) -> Checked {
    let is_one = samples.0.is_power_of_two() && samples.0 <= 64;
    demand(is_one, "a number of samples", samples.0.into(), 64)
}

pub(super) fn sample_locations(facts: &Facts, info: &vk::SampleLocationsInfoEXT) -> Checked {
    let (grid, most) = (
        info.sample_location_grid_size,
        facts.limits.sample_location_grid,
    );
    within(
        "columns of sample locations",
        0,
        grid.width.into(),
        most.width.into(),
    )?;
    within(
        "rows of sample locations",
        0,
        grid.height.into(),
        most.height.into(),
    )?;
    let pixels = u64::from(grid.width) * u64::from(grid.height);
    let wanted = pixels.saturating_mul(info.sample_locations_per_pixel.0.into());
    let count = u64::from(info.sample_locations_count);
    demand(
        count == wanted && count <= pixels * 64,
        "sample locations",
        count,
        wanted,
    )
}

pub(super) fn vertex_input(
    facts: &Facts,
    mut bindings: impl ExactSizeIterator<Item = u32>,
    mut attributes: impl ExactSizeIterator<Item = (u32, u32)>,
) -> Checked {
    let most = u64::from(facts.limits.core.max_vertex_input_attributes);
    let what = "vertex attributes beyond maxVertexInputAttributes";
    facts.within(Limit::VertexBindings, 0, bindings.len() as u64)?;
    within(what, 0, attributes.len() as u64, most)?;
    bindings.try_for_each(|binding| facts.within(Limit::VertexBindings, binding.into(), 1))?;
    attributes.try_for_each(|(location, binding)| {
        within(what, location.into(), 1, most)?;
        facts.within(Limit::VertexBindings, binding.into(), 1)
    })
}

pub(super) fn graphics(facts: &Facts, info: &vk::GraphicsPipelineCreateInfo) -> Checked {
    // SAFETY: the decoder made arrays of as many elements as their counts say, valid structs, or
    // null pointers. The chains were decoded, and nobody else uses them.
    unsafe {
        let mut stages = all(info.p_stages, info.stage_count).iter();
        stages.try_for_each(|one| stage(one, GRAPHICS))?;
        if let Some(input) = info.p_vertex_input_state.as_ref() {
            let bindings = all(
                input.p_vertex_binding_descriptions,
                input.vertex_binding_description_count,
            );
            let attributes = all(
                input.p_vertex_attribute_descriptions,
                input.vertex_attribute_description_count,
            );
            let attributes = attributes.iter().map(|a| (a.location, a.binding));
            vertex_input(facts, bindings.iter().map(|b| b.binding), attributes)?;
            let divisors = find::<vk::PipelineVertexInputDivisorStateCreateInfo>(input.p_next);
            for divisor in divisors.map_or(&[][..], |divisors| {
                all(
                    divisors.p_vertex_binding_divisors,
                    divisors.vertex_binding_divisor_count,
                )
            }) {
                facts.within(Limit::VertexBindings, divisor.binding.into(), 1)?;
            }
        }
        if let Some(viewport) = info.p_viewport_state.as_ref() {
            facts.within(Limit::Viewports, 0, viewport.viewport_count.into())?;
            facts.within(Limit::Viewports, 0, viewport.scissor_count.into())?;
        }
        if let Some(rasterization) = info.p_rasterization_state.as_ref()
            && let Some(stream) =
                find::<vk::PipelineRasterizationStateStreamCreateInfoEXT>(rasterization.p_next)
        {
            let stream = stream.rasterization_stream;
            facts.within(Limit::TransformFeedbackStreams, stream.into(), 1)?;
        }
        if let Some(multisample) = info.p_multisample_state.as_ref() {
            // Ignored where it is dynamic, and then perhaps 0.
            if multisample.rasterization_samples.0 != 0 {
                samples(multisample.rasterization_samples)?;
            }
            let locations =
                find::<vk::PipelineSampleLocationsStateCreateInfoEXT>(multisample.p_next);
            if let Some(locations) = locations.filter(|l| l.sample_locations_enable != 0) {
                let info = &locations.sample_locations_info;
                // Ignored where they are dynamic, and then perhaps none.
                if info.sample_locations_count != 0 {
                    sample_locations(facts, info)?;
                }
            }
        }
        if let Some(blend) = info.p_color_blend_state.as_ref() {
            facts.within(Limit::ColorAttachments, 0, blend.attachment_count.into())?;
        }
        // Ignored where there is a render pass.
        if let Some(dynamic) = find::<vk::PipelineRenderingCreateInfo>(info.p_next)
            && info.render_pass.0 == 0
        {
            let colours = match ignores_attachments(info, dynamic) {
                true => 0,
                false => dynamic.color_attachment_count,
            };
            passes::rendering(facts, colours, dynamic.view_mask)?;
        }
    }
    passes::subpass(facts, info.render_pass, info.subpass)
}

/// Whether Vulkan ignores the number of colour attachments, which may then be anything: a pipeline
/// library without a fragment output interface has none. Zink leaves the number unwritten there,
/// beside a null pointer.
pub(crate) fn ignores_attachments(
    info: &vk::GraphicsPipelineCreateInfo,
    rendering: &vk::PipelineRenderingCreateInfo,
) -> bool {
    const OUTPUT: vk::GraphicsPipelineLibraryFlagsEXT =
        vk::GraphicsPipelineLibraryFlagsEXT::FRAGMENT_OUTPUT_INTERFACE_EXT;
    // SAFETY: the chain was decoded, and nobody else uses it.
    let library = unsafe { find::<vk::GraphicsPipelineLibraryCreateInfoEXT>(info.p_next) };
    rendering.p_color_attachment_formats.is_null()
        || library.is_some_and(|library| !library.flags.contains(OUTPUT))
}

pub(super) fn groups(info: &vk::RayTracingPipelineCreateInfoKHR) -> Checked {
    // SAFETY: the decoder made arrays of as many elements as their counts say, or null pointers.
    let (stages, groups) = unsafe {
        (
            all(info.p_stages, info.stage_count),
            all(info.p_groups, info.group_count),
        )
    };
    stages.iter().try_for_each(|one| stage(one, RAY_TRACING))?;
    for group in groups {
        let shaders = [
            group.general_shader,
            group.closest_hit_shader,
            group.any_hit_shader,
            group.intersection_shader,
        ];
        for shader in shaders.into_iter().filter(|shader| *shader != UNUSED) {
            let what = "a shader that the pipeline does not have";
            within(what, shader.into(), 1, info.stage_count.into())?;
        }
    }
    Ok(())
}
