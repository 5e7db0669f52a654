//! Values of enums, and single flags, that Vulkan does not have. Drivers use them as indices. The
//! null driver ends the process if it gets one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends with a panic"
)]

mod hostile;

use hesper_venus_protocol::runtime::Object;
use hesper_venus_protocol::{command, vk};
use hostile::numbers::appended;
use hostile::session::{Id, Session, image, object};
use hostile::{Bench, Outcome, Way, null_driver};

/// No enum has it.
const STRAY: i32 = 0x7c00_0000;

fn runs(more: impl FnOnce(&mut Session)) {
    let outcome = Bench::new(null_driver()).run(&appended(more), Way::Virtqueue);
    assert_eq!(outcome, Outcome::Fine);
}

#[test]
fn an_argument_struct_has_none() {
    let mut info = vk::CommandBufferAllocateInfo {
        command_pool: vk::CommandPool(Id::CommandPool as u64),
        level: vk::CommandBufferLevel(0x4c00_0000),
        command_buffer_count: 1,
        ..Default::default()
    };
    runs(|session| {
        session.push(
            &command::AllocateCommandBuffers {
                device: object(Id::Device),
                p_allocate_info: &mut info,
                p_command_buffers: [vk::CommandBuffer(Id::Next as u64)].as_mut_slice().into(),
            },
            true,
        );
    });
}

#[test]
fn a_format_becomes_undefined() {
    let mut info = vk::ImageCreateInfo {
        format: vk::Format(STRAY),
        ..image(vk::ImageUsageFlags::SAMPLED)
    };
    runs(|session| {
        session.push(
            &command::CreateImage {
                device: object(Id::Device),
                p_create_info: &mut info,
                p_image: &mut vk::Image(Id::Next as u64),
            },
            false,
        );
    });
}

/// A graphics pipeline with this stage, this format of a vertex attribute, and this dynamic state.
fn graphics(session: &mut Session, stage: u32, format: i32, state: i32) {
    let stage = vk::PipelineShaderStageCreateInfo {
        stage: vk::ShaderStageFlags(stage),
        module: vk::ShaderModule(Id::Shader as u64),
        p_name: c"main".as_ptr(),
        ..Default::default()
    };
    let binding = vk::VertexInputBindingDescription {
        stride: 4,
        input_rate: vk::VertexInputRate(STRAY),
        ..Default::default()
    };
    let attribute = vk::VertexInputAttributeDescription {
        format: vk::Format(format),
        ..Default::default()
    };
    let input = vk::PipelineVertexInputStateCreateInfo {
        vertex_binding_description_count: 1,
        p_vertex_binding_descriptions: &raw const binding,
        vertex_attribute_description_count: 1,
        p_vertex_attribute_descriptions: &raw const attribute,
        ..Default::default()
    };
    let states = [vk::DynamicState::LINE_WIDTH, vk::DynamicState(state)];
    let dynamic = vk::PipelineDynamicStateCreateInfo {
        dynamic_state_count: 2,
        p_dynamic_states: states.as_ptr(),
        ..Default::default()
    };
    let mut info = vk::GraphicsPipelineCreateInfo {
        stage_count: 1,
        p_stages: &raw const stage,
        p_vertex_input_state: &raw const input,
        p_dynamic_state: &raw const dynamic,
        layout: vk::PipelineLayout(Id::PipelineLayout as u64),
        ..Default::default()
    };
    session.push(
        &command::CreateGraphicsPipelines {
            device: object(Id::Device),
            pipeline_cache: Object::guest(0),
            create_info_count: 1,
            p_create_infos: std::slice::from_mut(&mut info).into(),
            p_pipelines: [vk::Pipeline(Id::Next as u64)].as_mut_slice().into(),
        },
        true,
    );
}

#[test]
fn arrays_of_structs_and_of_enums_have_none() {
    let format = vk::Format::R8G8B8A8_UNORM.0;
    let state = vk::DynamicState::BLEND_CONSTANTS.0;
    runs(|session| graphics(session, 1, STRAY, state));
    runs(|session| graphics(session, 1, format, STRAY));
    runs(|session| graphics(session, 1, -1, i32::MIN));
}

#[test]
fn one_flag_is_one_that_vulkan_has() {
    let format = vk::Format::R8G8B8A8_UNORM.0;
    let state = vk::DynamicState::BLEND_CONSTANTS.0;
    // The last is a valid stage.
    for stage in [0, 0x4000_0000, 0x8000_0000, 3, u32::MAX, 0x10] {
        runs(|session| graphics(session, stage, format, state));
    }
}

/// Zink leaves the number unwritten where Vulkan ignores it.
#[test]
fn a_pipeline_library_without_outputs_may_have_any_number_of_them() {
    let formats = [vk::Format::R8G8B8A8_UNORM];
    for (count, p_formats) in [(32_557, std::ptr::null()), (1, formats.as_ptr())] {
        runs(|session| {
            let library = vk::GraphicsPipelineLibraryCreateInfoEXT {
                flags: vk::GraphicsPipelineLibraryFlagsEXT::PRE_RASTERIZATION_SHADERS_EXT,
                ..Default::default()
            };
            let rendering = vk::PipelineRenderingCreateInfo {
                p_next: (&raw const library).cast(),
                color_attachment_count: count,
                p_color_attachment_formats: p_formats,
                ..Default::default()
            };
            let mut info = vk::GraphicsPipelineCreateInfo {
                p_next: (&raw const rendering).cast(),
                flags: vk::PipelineCreateFlags::LIBRARY_KHR,
                layout: vk::PipelineLayout(Id::PipelineLayout as u64),
                ..Default::default()
            };
            session.push(
                &command::CreateGraphicsPipelines {
                    device: object(Id::Device),
                    pipeline_cache: Object::guest(0),
                    create_info_count: 1,
                    p_create_infos: std::slice::from_mut(&mut info).into(),
                    p_pipelines: [vk::Pipeline(Id::Next as u64)].as_mut_slice().into(),
                },
                true,
            );
        });
    }
}
