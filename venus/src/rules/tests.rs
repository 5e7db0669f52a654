//! What the rules allow and what they do not, at the edges of valid usage.

use super::*;
use crate::object::facts::Limits;
use vk::DescriptorType as Type;
use vk::ImageAspectFlags as Aspects;

fn facts() -> Facts {
    let core = vk::PhysicalDeviceLimits {
        max_image_dimension1d: 4096,
        max_image_dimension2d: 4096,
        max_image_dimension3d: 256,
        max_image_dimension_cube: 4096,
        max_image_array_layers: 256,
        max_push_constants_size: 128,
        max_bound_descriptor_sets: 4,
        max_descriptor_set_uniform_buffers_dynamic: 8,
        max_descriptor_set_storage_buffers_dynamic: 4,
        max_vertex_input_attributes: 16,
        max_vertex_input_bindings: 16,
        max_viewports: 16,
        max_color_attachments: 8,
        ..vk::PhysicalDeviceLimits::default()
    };
    Facts::new(Limits {
        core,
        queue_families: 2,
        views: 6,
        ..Limits::default()
    })
}

const SET: vk::DescriptorSet = vk::DescriptorSet(7);
const LAYOUT: vk::DescriptorSetLayout = vk::DescriptorSetLayout(8);
const PIPELINE_LAYOUT: vk::PipelineLayout = vk::PipelineLayout(9);

fn binding(binding: u32, ty: Type, count: u32) -> vk::DescriptorSetLayoutBinding {
    vk::DescriptorSetLayoutBinding {
        binding,
        descriptor_type: ty,
        descriptor_count: count,
        ..Default::default()
    }
}

/// A set with these bindings, and a pipeline layout with it.
fn with_set(bindings: &[vk::DescriptorSetLayoutBinding], variable: Option<u32>) -> Facts {
    let facts = facts();
    let mut flags = vec![vk::DescriptorBindingFlags::default(); bindings.len()];
    if variable.is_some() {
        *flags.last_mut().unwrap() = vk::DescriptorBindingFlags::VARIABLE_DESCRIPTOR_COUNT;
    }
    let flags = vk::DescriptorSetLayoutBindingFlagsCreateInfo {
        binding_count: flags.len() as u32,
        p_binding_flags: flags.as_ptr(),
        ..Default::default()
    };
    let info = vk::DescriptorSetLayoutCreateInfo {
        p_next: (&raw const flags).cast(),
        binding_count: bindings.len() as u32,
        p_bindings: bindings.as_ptr(),
        ..Default::default()
    };
    facts.set_layout(&info).unwrap();
    facts.set_layout_made(&info, LAYOUT);
    let layouts = [LAYOUT];
    let info = vk::PipelineLayoutCreateInfo {
        set_layout_count: 1,
        p_set_layouts: layouts.as_ptr(),
        ..Default::default()
    };
    facts.pipeline_layout(&info).unwrap();
    facts.pipeline_layout_made(&info, PIPELINE_LAYOUT);
    let count = variable.unwrap_or(0);
    let counts = vk::DescriptorSetVariableDescriptorCountAllocateInfo {
        descriptor_set_count: 1,
        p_descriptor_counts: &raw const count,
        ..Default::default()
    };
    let info = vk::DescriptorSetAllocateInfo {
        p_next: (&raw const counts).cast(),
        descriptor_set_count: 1,
        p_set_layouts: layouts.as_ptr(),
        ..Default::default()
    };
    facts.allocation(&info).unwrap();
    facts.sets_made(&info, &[SET]);
    facts
}

fn writes(facts: &Facts, place: (u32, u32), count: u32, ty: Type) -> bool {
    let write = vk::WriteDescriptorSet {
        dst_set: SET,
        dst_binding: place.0,
        dst_array_element: place.1,
        descriptor_count: count,
        descriptor_type: ty,
        ..Default::default()
    };
    facts.write(&write).is_ok()
}

#[test]
fn a_write_goes_on_in_the_next_bindings_of_its_type() {
    let facts = with_set(
        &[
            binding(9, Type::SAMPLER, 1),
            binding(1, Type::SAMPLED_IMAGE, 2),
            binding(3, Type::SAMPLED_IMAGE, 0),
            binding(4, Type::SAMPLED_IMAGE, 3),
        ],
        None,
    );
    let image = Type::SAMPLED_IMAGE;
    assert!(writes(&facts, (1, 0), 5, image));
    assert!(writes(&facts, (1, 1), 4, image));
    assert!(writes(&facts, (4, 2), 1, image));
    assert!(!writes(&facts, (1, 0), 6, image), "the next is a sampler");
    assert!(!writes(&facts, (4, 2), 2, image));
    assert!(!writes(&facts, (2, 0), 1, image), "no such binding");
    assert!(!writes(&facts, (9, 1), 1, Type::SAMPLER));
    assert!(!writes(&facts, (9, 0), 1, image));
    assert!(writes(&facts, (9, 0), 1, Type::SAMPLER));
}

#[test]
fn a_mutable_descriptor_takes_any_type() {
    let facts = with_set(&[binding(0, Type(1_000_351_000), 2)], None);
    assert!(writes(&facts, (0, 1), 1, Type::SAMPLED_IMAGE));
    assert!(writes(&facts, (0, 0), 2, Type::STORAGE_IMAGE));
    assert!(!writes(&facts, (0, 1), 2, Type::STORAGE_IMAGE));
}

#[test]
fn a_variable_count_is_that_of_the_set() {
    let bindings = [binding(0, Type::SAMPLER, 1), binding(1, Type::SAMPLER, 100)];
    let facts = with_set(&bindings, Some(10));
    assert!(writes(&facts, (1, 9), 1, Type::SAMPLER));
    assert!(!writes(&facts, (1, 10), 1, Type::SAMPLER));
    assert!(!writes(&facts, (0, 0), 12, Type::SAMPLER));
    assert!(writes(&facts, (0, 0), 11, Type::SAMPLER));
}

#[test]
fn each_dynamic_descriptor_has_its_offset() {
    let facts = with_set(&[binding(0, Type::UNIFORM_BUFFER_DYNAMIC, 3)], None);
    let bind = |first, offsets: &[u32]| facts.sets(PIPELINE_LAYOUT, first, &[SET], offsets);
    assert!(bind(0, &[0; 3]).is_ok());
    assert!(bind(0, &[0; 2]).is_err());
    assert!(bind(0, &[]).is_err());
    assert!(bind(0, &[0; 4]).is_err());
    assert!(bind(1, &[0; 3]).is_err(), "the layout has one set");
    assert!(bind(4, &[]).is_err());
    let none = [vk::DescriptorSet(0)];
    assert!(facts.sets(PIPELINE_LAYOUT, 0, &none, &[]).is_ok());
    let many = [binding(0, Type::UNIFORM_BUFFER_DYNAMIC, 13)];
    let info = vk::DescriptorSetLayoutCreateInfo {
        binding_count: 1,
        p_bindings: many.as_ptr(),
        ..Default::default()
    };
    assert!(facts.set_layout(&info).is_err());
}

#[test]
fn pushed_descriptors_are_those_of_the_pipeline_layout() {
    let facts = with_set(&[binding(2, Type::SAMPLER, 2)], None);
    let write = |binding| vk::WriteDescriptorSet {
        dst_binding: binding,
        descriptor_count: 1,
        descriptor_type: Type::SAMPLER,
        ..Default::default()
    };
    assert!(facts.pushed(PIPELINE_LAYOUT, 0, &[write(2)]).is_ok());
    assert!(facts.pushed(PIPELINE_LAYOUT, 0, &[write(3)]).is_err());
    assert!(facts.pushed(PIPELINE_LAYOUT, 1, &[write(2)]).is_err());
}

fn image(image_type: vk::ImageType, extent: [u32; 3], layers: u32) -> vk::ImageCreateInfo {
    let [width, height, depth] = extent;
    vk::ImageCreateInfo {
        image_type,
        format: vk::Format::R8G8B8A8_UNORM,
        extent: vk::Extent3D {
            width,
            height,
            depth,
        },
        mip_levels: 3,
        array_layers: layers,
        samples: vk::SampleCountFlags::COUNT_1,
        ..Default::default()
    }
}

fn layers(level: u32, first: u32, count: u32) -> vk::ImageSubresourceLayers {
    vk::ImageSubresourceLayers {
        aspect_mask: Aspects::COLOR,
        mip_level: level,
        base_array_layer: first,
        layer_count: count,
    }
}

fn at(x: i32, y: i32, z: i32) -> vk::Offset3D {
    vk::Offset3D { x, y, z }
}

fn sized(width: u32, height: u32, depth: u32) -> vk::Extent3D {
    vk::Extent3D {
        width,
        height,
        depth,
    }
}

#[test]
fn slices_of_a_volume_are_copied_to_layers_and_blocks_to_texels() {
    let facts = facts();
    let (flat, volume, blocks) = (vk::Image(1), vk::Image(2), vk::Image(3));
    facts.image_made(&image(vk::ImageType::TYPE_2D, [16, 16, 1], 8), flat);
    facts.image_made(&image(vk::ImageType::TYPE_3D, [16, 16, 8], 1), volume);
    let compressed = vk::ImageCreateInfo {
        format: vk::Format::BC1_RGBA_UNORM_BLOCK,
        ..image(vk::ImageType::TYPE_2D, [10, 10, 1], 1)
    };
    facts.image_made(&compressed, blocks);
    let copy = |(from, to), (source, start), (target, place), extent| {
        facts.copied(from, to, (&source, &start), (&target, &place), &extent)
    };
    let (one, origin) = (layers(0, 0, 1), at(0, 0, 0));
    let eight = (layers(0, 0, 8), origin);
    assert!(copy((flat, volume), eight, (one, origin), sized(16, 16, 8)).is_ok());
    assert!(copy((volume, flat), (one, origin), eight, sized(16, 16, 8)).is_ok());
    assert!(copy((flat, flat), eight, eight, sized(16, 16, 1)).is_ok());
    let shifted = (one, at(0, 0, 1));
    assert!(copy((flat, volume), eight, shifted, sized(16, 16, 8)).is_err());
    assert!(copy((flat, flat), eight, eight, sized(17, 16, 1)).is_err());
    let beyond = (layers(0, 1, 8), origin);
    assert!(copy((flat, flat), eight, beyond, sized(16, 16, 1)).is_err());
    // Three blocks are three texels of the other image.
    let whole = (one, origin);
    assert!(
        copy(
            (blocks, flat),
            whole,
            (one, at(13, 13, 0)),
            sized(10, 10, 1)
        )
        .is_ok()
    );
    assert!(
        copy(
            (blocks, flat),
            whole,
            (one, at(14, 13, 0)),
            sized(10, 10, 1)
        )
        .is_err()
    );
    assert!(copy((flat, blocks), whole, whole, sized(3, 3, 1)).is_ok());
    assert!(copy((flat, blocks), whole, whole, sized(4, 3, 1)).is_err());
    // Nothing is known of an image whose format the protocol does not have.
    assert!(copy((vk::Image(4), flat), whole, whole, sized(99, 9, 1)).is_ok());
}

#[test]
fn corners_of_a_blit_may_be_mirrored_and_lie_inside() {
    let facts = facts();
    facts.image_made(&image(vk::ImageType::TYPE_2D, [16, 8, 1], 2), vk::Image(1));
    let blit = |level, corners| facts.corners(vk::Image(1), &layers(level, 0, 2), &corners);
    assert!(blit(0, [at(0, 0, 0), at(16, 8, 1)]).is_ok());
    assert!(blit(0, [at(16, 0, 0), at(0, 8, 1)]).is_ok());
    assert!(blit(1, [at(0, 0, 0), at(8, 4, 1)]).is_ok());
    assert!(blit(1, [at(0, 0, 0), at(9, 4, 1)]).is_err());
    assert!(blit(0, [at(-1, 0, 0), at(16, 8, 1)]).is_err());
    assert!(blit(3, [at(0, 0, 0), at(1, 1, 1)]).is_err());
}

#[test]
fn ranges_reach_to_the_last_level_and_layer() {
    let facts = facts();
    let (flat, volume) = (vk::Image(1), vk::Image(2));
    facts.image_made(&image(vk::ImageType::TYPE_2D, [16, 16, 1], 4), flat);
    facts.image_made(&image(vk::ImageType::TYPE_3D, [16, 16, 8], 1), volume);
    let range = |image, levels: (u32, u32), layers: (u32, u32)| {
        let range = vk::ImageSubresourceRange {
            aspect_mask: Aspects::COLOR,
            base_mip_level: levels.0,
            level_count: levels.1,
            base_array_layer: layers.0,
            layer_count: layers.1,
        };
        facts.range(image, &range).is_ok()
    };
    assert!(range(flat, (0, 3), (0, 4)));
    assert!(range(flat, (2, !0), (3, !0)));
    assert!(!range(flat, (3, !0), (0, 1)));
    assert!(!range(flat, (0, 4), (0, 1)));
    assert!(!range(flat, (0, 1), (4, !0)));
    assert!(range(volume, (0, 1), (0, 8)), "slices as layers of a view");
    assert!(!range(volume, (0, 1), (0, 9)));
}

#[test]
fn images_are_made_within_the_limits() {
    let facts = facts();
    assert!(
        facts
            .image(&image(vk::ImageType::TYPE_2D, [4096, 1, 1], 256))
            .is_ok()
    );
    assert!(
        facts
            .image(&image(vk::ImageType::TYPE_2D, [4097, 1, 1], 1))
            .is_err()
    );
    assert!(
        facts
            .image(&image(vk::ImageType::TYPE_2D, [16, 16, 1], 257))
            .is_err()
    );
    assert!(
        facts
            .image(&image(vk::ImageType::TYPE_2D, [2, 2, 1], 1))
            .is_err(),
        "3 levels"
    );
    assert!(
        facts
            .image(&image(vk::ImageType::TYPE_3D, [16, 16, 256], 1))
            .is_ok()
    );
    assert!(
        facts
            .image(&image(vk::ImageType::TYPE_3D, [16, 16, 16], 2))
            .is_err()
    );
    assert!(
        facts
            .image(&image(vk::ImageType::TYPE_2D, [16, 0, 1], 1))
            .is_err()
    );
    assert!(
        facts
            .image(&image(vk::ImageType(7), [16, 16, 1], 1))
            .is_err()
    );
}

fn attachment(load_op: vk::AttachmentLoadOp) -> vk::AttachmentDescription {
    vk::AttachmentDescription {
        format: vk::Format::R8G8B8A8_UNORM,
        load_op,
        ..Default::default()
    }
}

/// A render pass of three attachments, of which the second clears, and a subpass that draws to one.
fn pass(colour: u32, dependency: (u32, u32)) -> Result<Facts, Broken> {
    let facts = facts();
    let attachments = [
        attachment(vk::AttachmentLoadOp::LOAD),
        attachment(vk::AttachmentLoadOp::CLEAR),
        attachment(vk::AttachmentLoadOp::LOAD),
    ];
    let colour = vk::AttachmentReference {
        attachment: colour,
        ..Default::default()
    };
    let subpass = vk::SubpassDescription {
        color_attachment_count: 1,
        p_color_attachments: &raw const colour,
        ..Default::default()
    };
    let dependency = vk::SubpassDependency {
        src_subpass: dependency.0,
        dst_subpass: dependency.1,
        ..Default::default()
    };
    let info = vk::RenderPassCreateInfo {
        attachment_count: 3,
        p_attachments: attachments.as_ptr(),
        subpass_count: 1,
        p_subpasses: &raw const subpass,
        dependency_count: 1,
        p_dependencies: &raw const dependency,
        ..Default::default()
    };
    facts.pass(&info)?;
    facts.pass_made(&info, vk::RenderPass(1));
    Ok(facts)
}

#[test]
fn a_render_pass_names_its_own_attachments_and_subpasses() {
    assert!(pass(2, (!0, 0)).is_ok());
    assert!(pass(!0, (0, !0)).is_ok(), "unused");
    assert!(pass(3, (!0, 0)).is_err());
    assert!(pass(2, (1, 0)).is_err());
    assert!(pass(2, (0, 1)).is_err());
}

#[test]
fn a_render_pass_begins_with_its_attachments_and_clear_values() {
    let facts = pass(0, (!0, 0)).unwrap();
    let framebuffer = |count| vk::FramebufferCreateInfo {
        render_pass: vk::RenderPass(1),
        attachment_count: count,
        ..Default::default()
    };
    assert!(facts.framebuffer(&framebuffer(3)).is_ok());
    assert!(facts.framebuffer(&framebuffer(2)).is_err());
    facts.framebuffer_made(&framebuffer(3), vk::Framebuffer(1));
    facts.framebuffer_made(&framebuffer(2), vk::Framebuffer(2));
    // Of a compatible render pass that also resolves.
    facts.framebuffer_made(&framebuffer(4), vk::Framebuffer(3));
    let begin = |framebuffer, clears| {
        facts.begin_pass(&vk::RenderPassBeginInfo {
            render_pass: vk::RenderPass(1),
            framebuffer: vk::Framebuffer(framebuffer),
            clear_value_count: clears,
            ..Default::default()
        })
    };
    assert!(begin(1, 2).is_ok());
    assert!(begin(1, 9).is_ok());
    assert!(begin(1, 1).is_err());
    assert!(begin(2, 2).is_err());
    assert!(begin(3, 2).is_ok());
}

#[test]
fn an_attachment_matters_only_where_a_colour_is_cleared() {
    let cleared = |aspect_mask, color_attachment| {
        facts().cleared(&vk::ClearAttachment {
            aspect_mask,
            color_attachment,
            ..Default::default()
        })
    };
    assert!(cleared(Aspects::COLOR, 7).is_ok());
    assert!(cleared(Aspects::COLOR, !0).is_ok(), "unused");
    assert!(cleared(Aspects::COLOR, 8).is_err());
    // Mesa's zink leaves the number uninitialised there.
    assert!(cleared(Aspects::DEPTH | Aspects::STENCIL, 21964).is_ok());
}

#[test]
fn families_that_do_not_exist_are_fine_only_where_nothing_is_transferred() {
    let facts = facts();
    assert!(facts.families(0, 1).is_ok());
    assert!(facts.families(9, 9).is_ok());
    assert!(
        facts.families(0xffff_fffe, 1).is_ok(),
        "VK_QUEUE_FAMILY_EXTERNAL"
    );
    assert!(facts.families(0, 2).is_err());
    assert!(facts.families(2, 0).is_err());
}

#[test]
fn shader_groups_name_shaders_of_their_pipeline() {
    let stage = vk::PipelineShaderStageCreateInfo {
        stage: vk::ShaderStageFlags(0x100),
        ..Default::default()
    };
    let groups = |general_shader| {
        let group = vk::RayTracingShaderGroupCreateInfoKHR {
            general_shader,
            closest_hit_shader: !0,
            any_hit_shader: !0,
            intersection_shader: !0,
            ..Default::default()
        };
        facts().groups(&vk::RayTracingPipelineCreateInfoKHR {
            stage_count: 1,
            p_stages: &raw const stage,
            group_count: 1,
            p_groups: &raw const group,
            ..Default::default()
        })
    };
    assert!(groups(0).is_ok());
    assert!(groups(!0).is_ok());
    assert!(groups(1).is_err());
}

#[test]
fn results_of_queries_need_room_for_their_values() {
    let facts = facts();
    let (pool, buffer) = (vk::QueryPool(1), vk::Buffer(1));
    let info = vk::QueryPoolCreateInfo {
        query_type: vk::QueryType::PIPELINE_STATISTICS,
        query_count: 4,
        pipeline_statistics: vk::QueryPipelineStatisticFlags(3),
        ..Default::default()
    };
    facts.query_pool_made(&info, pool);
    facts.buffer_made(
        &vk::BufferCreateInfo {
            size: 88,
            ..Default::default()
        },
        buffer,
    );
    let flags = vk::QueryResultFlags::RESULT_64 | vk::QueryResultFlags::WITH_AVAILABILITY;
    assert!(facts.results(pool, 3, buffer, 0, 32, flags).is_ok());
    assert!(facts.results(pool, 3, buffer, 8, 32, flags).is_err());
    assert!(facts.results(pool, 0, buffer, 88, 32, flags).is_ok());
    assert!(facts.results(pool, 3, buffer, 0, u64::MAX, flags).is_err());
}
