//! Numbers in what objects are made from: shaders, pipelines, images.

use hesper_venus_protocol::{command, vk};

use super::super::session::{Id, Session, object};
use super::{Case, add, appended};

pub(super) fn shaders(all: &mut Vec<Case>) {
    for (size, first, reason) in [
        (0usize, 0x0723_0203u32, "whole words"),
        (3, 0x0723_0203, "whole words"),
        (7, 0x0723_0203, "whole words"),
        (16, 0x0302_2307, "not SPIR-V"),
    ] {
        let code = [first, 0, 0, 0];
        let info = vk::ShaderModuleCreateInfo {
            code_size: size,
            p_code: code.as_ptr(),
            ..Default::default()
        };
        let stream = appended(|s| {
            s.push(
                &command::CreateShaderModule {
                    device: object(Id::Device),
                    p_create_info: &mut info.clone(),
                    p_shader_module: &mut vk::ShaderModule(Id::Next as u64),
                },
                false,
            );
        });
        add(all, format!("{size} bytes of shader"), reason, stream);
        let stream = appended(|s| {
            pipeline(
                s,
                &vk::PipelineShaderStageCreateInfo {
                    p_next: (&raw const info).cast(),
                    stage: vk::ShaderStageFlags::COMPUTE,
                    p_name: c"main".as_ptr(),
                    ..Default::default()
                },
            );
        });
        add(
            all,
            format!("{size} bytes of shader in a stage"),
            reason,
            stream,
        );
    }
    for (offset, size) in [(8u32, 4usize), (0, 9), (u32::MAX, 4), (0, usize::MAX)] {
        let entry = vk::SpecializationMapEntry {
            constant_id: 0,
            offset,
            size,
        };
        let constants = vk::SpecializationInfo {
            map_entry_count: 1,
            p_map_entries: &raw const entry,
            data_size: 8,
            p_data: [0u32; 2].as_ptr().cast(),
        };
        let stream = appended(|s| {
            pipeline(
                s,
                &vk::PipelineShaderStageCreateInfo {
                    stage: vk::ShaderStageFlags::COMPUTE,
                    module: vk::ShaderModule(Id::Shader as u64),
                    p_name: c"main".as_ptr(),
                    p_specialization_info: &raw const constants,
                    ..Default::default()
                },
            );
        });
        let name = format!("a constant of {size} bytes at {offset}");
        add(all, name, "specialization constants", stream);
    }
}

fn pipeline(s: &mut Session, stage: &vk::PipelineShaderStageCreateInfo) {
    let mut info = vk::ComputePipelineCreateInfo {
        stage: *stage,
        layout: vk::PipelineLayout(Id::PipelineLayout as u64),
        ..Default::default()
    };
    s.push(
        &command::CreateComputePipelines {
            device: object(Id::Device),
            pipeline_cache: hesper_venus_protocol::runtime::Object::guest(0),
            create_info_count: 1,
            p_create_infos: std::slice::from_mut(&mut info).into(),
            p_pipelines: [vk::Pipeline(Id::Next as u64)].as_mut_slice().into(),
        },
        false,
    );
}

pub(super) fn images(all: &mut Vec<Case>) {
    for (level, layer, x) in [(1u32, 0u32, 0i32), (0, 1, 0), (0, 0, 9), (u32::MAX, 0, 0)] {
        let mut region = vk::BufferImageCopy {
            image_subresource: vk::ImageSubresourceLayers {
                aspect_mask: vk::ImageAspectFlags::COLOR,
                mip_level: level,
                base_array_layer: layer,
                layer_count: 1,
            },
            image_offset: vk::Offset3D { x, y: 0, z: 0 },
            image_extent: vk::Extent3D {
                width: 8,
                height: 8,
                depth: 1,
            },
            ..Default::default()
        };
        let stream = appended(|s| copy_to_image(s, &mut region));
        let name = format!("a copy to level {level}, layer {layer}, column {x}");
        add(
            all,
            name,
            "that the image does not have|inside the image",
            stream,
        );
    }
    let mut region = vk::BufferImageCopy {
        buffer_offset: 4096,
        image_subresource: vk::ImageSubresourceLayers {
            aspect_mask: vk::ImageAspectFlags::COLOR,
            layer_count: 1,
            ..Default::default()
        },
        image_extent: vk::Extent3D {
            width: 8,
            height: 8,
            depth: 1,
        },
        ..Default::default()
    };
    let stream = appended(|s| copy_to_image(s, &mut region));
    let reason = "bytes that the buffer does not have";
    add(
        all,
        "an image from behind a buffer".to_owned(),
        reason,
        stream,
    );
    for (levels, layers, width, reason) in [
        (6u32, 1u32, 16u32, "mip levels"),
        (0, 1, 16, "mip levels"),
        (1, u32::MAX, 16, "array layers"),
        (1, 1, u32::MAX, "an image of this size"),
    ] {
        let stream = appended(|s| {
            let mut info = vk::ImageCreateInfo {
                image_type: vk::ImageType::TYPE_2D,
                format: vk::Format::R8G8B8A8_UNORM,
                extent: vk::Extent3D {
                    width,
                    height: 16,
                    depth: 1,
                },
                mip_levels: levels,
                array_layers: layers,
                samples: vk::SampleCountFlags::COUNT_1,
                usage: vk::ImageUsageFlags::SAMPLED,
                ..Default::default()
            };
            s.push(
                &command::CreateImage {
                    device: object(Id::Device),
                    p_create_info: &mut info,
                    p_image: &mut vk::Image(Id::Next as u64),
                },
                false,
            );
        });
        let name = format!("an image of {levels} levels, {layers} layers, {width} columns");
        add(all, name, reason, stream);
    }
}

fn copy_to_image(s: &mut Session, region: &mut vk::BufferImageCopy) {
    s.push(
        &command::BeginCommandBuffer {
            command_buffer: object(Id::Commands),
            p_begin_info: &mut vk::CommandBufferBeginInfo::default(),
        },
        false,
    );
    s.push(
        &command::CmdCopyBufferToImage {
            command_buffer: object(Id::Commands),
            src_buffer: object(Id::Buffer),
            dst_image: object(Id::Image),
            dst_image_layout: vk::ImageLayout::GENERAL,
            region_count: 1,
            p_regions: std::slice::from_mut(region).into(),
        },
        false,
    );
}
