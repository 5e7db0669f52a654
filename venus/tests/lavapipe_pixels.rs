//! Host image copies, sparse binding and ray tracing pipelines on lavapipe: unusual requests of a
//! guest.
//!
//! The test client's cases compare what programs see of these, natively and through real Mesa.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends with a panic"
)]

mod guest;

use std::ffi::CStr;

use guest::{Gpu, Guest, VenusGuest as _, bytes, renderer};
use hesper_venus_protocol::runtime::{Array, Object};
use hesper_venus_protocol::{command, vk};

const EDGE: u32 = 16;
const LAYERS: u32 = 3;
const REMAINING: u32 = !0;
const LAYER: usize = (EDGE * EDGE * 4) as usize;
const OUT_OF_HOST_MEMORY: u64 = vk::Result::ERROR_OUT_OF_HOST_MEMORY.0 as u64;

/// A guest with a device and a layered image in the general layout.
struct Copier {
    guest: Guest,
    device: u64,
    image: u64,
}

impl Copier {
    fn new(renderer: &hesper_venus::Renderer, name: &str, usage: vk::ImageUsageFlags) -> Self {
        let guest = Guest::new(renderer, name);
        let physical = guest.gpu().physical;
        let device = guest.device_with(physical, &[c"VK_EXT_host_image_copy"]);
        let (image, memory) = (guest.id(), guest.id());
        let mut info = vk::ImageCreateInfo {
            image_type: vk::ImageType::TYPE_2D,
            format: vk::Format::R8G8B8A8_UNORM,
            extent: whole(),
            mip_levels: 1,
            array_layers: LAYERS,
            samples: vk::SampleCountFlags::COUNT_1,
            usage,
            ..Default::default()
        };
        let result = guest.call(command::CreateImage {
            device: Object::guest(device),
            p_create_info: &mut info,
            p_image: &mut vk::Image(image),
        });
        assert_eq!(result, 0);
        let mut info = vk::MemoryAllocateInfo {
            allocation_size: 1 << 20,
            ..Default::default()
        };
        guest.call(command::AllocateMemory {
            device: Object::guest(device),
            p_allocate_info: &mut info,
            p_memory: &mut vk::DeviceMemory(memory),
        });
        guest.call(command::BindImageMemory {
            device: Object::guest(device),
            image: Object::guest(image),
            memory: Object::guest(memory),
            memory_offset: 0,
        });
        let mut transition = vk::HostImageLayoutTransitionInfo {
            image: vk::Image(image),
            new_layout: vk::ImageLayout::GENERAL,
            subresource_range: vk::ImageSubresourceRange {
                aspect_mask: vk::ImageAspectFlags::COLOR,
                level_count: REMAINING,
                layer_count: REMAINING,
                ..Default::default()
            },
            ..Default::default()
        };
        let result = guest.call(command::TransitionImageLayout {
            device: Object::guest(device),
            transition_count: 1,
            p_transitions: std::slice::from_mut(&mut transition).into(),
        });
        assert_eq!(result, 0);
        Self {
            guest,
            device,
            image,
        }
    }

    fn write(&self, texels: &[u8], region: vk::MemoryToImageCopyMESA) -> u64 {
        let region = vk::MemoryToImageCopyMESA {
            data_size: texels.len(),
            p_data: texels.as_ptr().cast(),
            ..region
        };
        let mut info = vk::CopyMemoryToImageInfoMESA {
            dst_image: vk::Image(self.image),
            dst_image_layout: vk::ImageLayout::GENERAL,
            region_count: 1,
            p_regions: &raw const region,
            ..Default::default()
        };
        self.guest.call(command::CopyMemoryToImageMESA {
            device: Object::guest(self.device),
            p_copy_memory_to_image_info: &mut info,
        })
    }

    fn info(&self, layers: [u32; 2]) -> vk::CopyImageToMemoryInfoMESA {
        vk::CopyImageToMemoryInfoMESA {
            src_image: vk::Image(self.image),
            src_image_layout: vk::ImageLayout::GENERAL,
            image_subresource: colour(layers),
            image_extent: whole(),
            ..Default::default()
        }
    }

    fn read(&self, mut info: vk::CopyImageToMemoryInfoMESA, size: usize) -> (u64, Vec<u8>) {
        let mut seen = vec![0; size];
        let result = self.guest.call(command::CopyImageToMemoryMESA {
            device: Object::guest(self.device),
            p_copy_image_to_memory_info: &mut info,
            data_size: size,
            p_data: seen.as_mut_slice().into(),
        });
        (result, seen)
    }
}

fn whole() -> vk::Extent3D {
    vk::Extent3D {
        width: EDGE,
        height: EDGE,
        depth: 1,
    }
}

fn colour([base_array_layer, layer_count]: [u32; 2]) -> vk::ImageSubresourceLayers {
    vk::ImageSubresourceLayers {
        aspect_mask: vk::ImageAspectFlags::COLOR,
        base_array_layer,
        layer_count,
        ..Default::default()
    }
}

fn noise(count: usize) -> Vec<u8> {
    (0..count).map(|i| (i * 7 % 251) as u8).collect()
}

#[test]
fn remaining_layers_of_a_host_copy_are_those_of_the_image() {
    let renderer = renderer();
    let copier = Copier::new(&renderer, "remaining", vk::ImageUsageFlags::HOST_TRANSFER);
    let texels = noise(LAYER * LAYERS as usize);
    let all = vk::MemoryToImageCopyMESA {
        image_subresource: colour([0, REMAINING]),
        image_extent: whole(),
        ..Default::default()
    };
    assert_eq!(copier.write(&texels, all), 0);
    let (result, seen) = copier.read(copier.info([0, REMAINING]), texels.len());
    assert!(result == 0 && seen == texels);
    let (result, seen) = copier.read(copier.info([1, REMAINING]), 2 * LAYER);
    assert!(result == 0 && seen == texels[LAYER..]);
    // Bytes between rows were never written, so they hold no byte of this process.
    let spread = vk::CopyImageToMemoryInfoMESA {
        memory_row_length: EDGE + 4,
        ..copier.info([0, 1])
    };
    let (result, seen) = copier.read(spread, 20 * 16 * 4 - 16);
    assert_eq!(result, 0);
    for (row, expected) in seen.chunks(80).zip(texels.chunks(64)) {
        assert_eq!(&row[..64], expected);
        assert!(row[64..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_host_copy_that_touches_more_than_the_guest_named_is_refused_and_nothing_else() {
    let renderer = renderer();
    let copier = Copier::new(&renderer, "too small", vk::ImageUsageFlags::HOST_TRANSFER);
    let texels = noise(LAYER);
    let one = vk::MemoryToImageCopyMESA {
        image_subresource: colour([0, 1]),
        image_extent: whole(),
        ..Default::default()
    };
    assert_eq!(copier.write(&texels, one), 0);
    let far = vk::MemoryToImageCopyMESA {
        memory_row_length: u32::MAX,
        ..one
    };
    for refused in [
        copier.write(&texels[1..], one),
        copier.write(&texels, far),
        copier.read(copier.info([0, 1]), LAYER - 1).0,
        copier.read(copier.info([0, 2]), LAYER).0,
    ] {
        assert_eq!(refused as u32, OUT_OF_HOST_MEMORY as u32);
    }
    let (result, seen) = copier.read(copier.info([0, 1]), LAYER);
    assert!(result == 0 && seen == texels, "{result}");
}

#[test]
fn a_host_copy_out_of_the_image_ends_the_context() {
    let renderer = renderer();
    let usage = vk::ImageUsageFlags::HOST_TRANSFER;
    type Crime = fn(&mut vk::CopyImageToMemoryInfoMESA);
    let crimes: [(&str, vk::ImageUsageFlags, Crime); 6] = [
        ("layer", usage, |info| {
            info.image_subresource.base_array_layer = LAYERS + 1
        }),
        ("layer", usage, |info| {
            info.image_subresource.layer_count = LAYERS + 1
        }),
        ("mip level", usage, |info| {
            info.image_subresource.mip_level = 1
        }),
        ("not inside the image", usage, |info| {
            info.image_offset.x = -1
        }),
        ("aspect", usage, |info| {
            info.image_subresource.aspect_mask = vk::ImageAspectFlags::DEPTH;
        }),
        ("HOST_TRANSFER", vk::ImageUsageFlags::TRANSFER_SRC, |_| {}),
    ];
    for (expected, usage, crime) in crimes {
        let copier = Copier::new(&renderer, "criminal", usage);
        let mut info = copier.info([0, 1]);
        crime(&mut info);
        let mut room = vec![0; LAYER * 8];
        let stream = bytes(&command::CopyImageToMemoryMESA {
            device: Object::guest(copier.device),
            p_copy_image_to_memory_info: &mut info,
            data_size: room.len(),
            p_data: room.as_mut_slice().into(),
        });
        let reason = copier.guest.dies_of(stream);
        assert!(
            reason.contains(expected),
            "{reason} does not say {expected}"
        );
    }
}

/// Whether the renderer hides sparse binding. On lavapipe 26.1 it must.
fn hides_sparse(renderer: &hesper_venus::Renderer) -> bool {
    renderer.gpus().any(|gpu| gpu.hidden_sparse.is_some())
}

fn create_device(guest: &Guest, gpu: &Gpu, features: &mut vk::PhysicalDeviceFeatures2) -> u32 {
    let priority = 1.0;
    let queues = vk::DeviceQueueCreateInfo {
        queue_count: 1,
        p_queue_priorities: &raw const priority,
        ..Default::default()
    };
    let mut info = vk::DeviceCreateInfo {
        p_next: (&raw mut *features).cast(),
        queue_create_info_count: 1,
        p_queue_create_infos: &raw const queues,
        ..Default::default()
    };
    guest.call(command::CreateDevice {
        physical_device: Object::guest(gpu.physical),
        p_create_info: &mut info,
        p_device: &mut vk::Device(guest.id()),
    }) as u32
}

#[test]
fn sparse_binding_that_the_host_gets_wrong_is_not_offered() {
    let renderer = renderer();
    let guest = Guest::new(&renderer, "sparse");
    let gpu = guest.gpu();
    let physical = || Object::guest(gpu.physical);
    let is_hidden = hides_sparse(&renderer);
    let mut features = vk::PhysicalDeviceFeatures::default();
    guest.call(command::GetPhysicalDeviceFeatures {
        physical_device: physical(),
        p_features: &mut features,
    });
    let mut features2 = vk::PhysicalDeviceFeatures2::default();
    guest.call(command::GetPhysicalDeviceFeatures2 {
        physical_device: physical(),
        p_features: &mut features2,
    });
    let mut properties = vk::PhysicalDeviceProperties::default();
    guest.call(command::GetPhysicalDeviceProperties {
        physical_device: physical(),
        p_properties: &mut properties,
    });
    let (mut count, mut families) = (1, [vk::QueueFamilyProperties::default()]);
    guest.call(command::GetPhysicalDeviceQueueFamilyProperties {
        physical_device: physical(),
        p_queue_family_property_count: &mut count,
        p_queue_family_properties: families.as_mut_slice().into(),
    });
    let mut formats = 99;
    guest.call(command::GetPhysicalDeviceSparseImageFormatProperties {
        physical_device: physical(),
        format: vk::Format::R8G8B8A8_UNORM,
        ty: vk::ImageType::TYPE_2D,
        samples: vk::SampleCountFlags::COUNT_1,
        usage: vk::ImageUsageFlags::SAMPLED,
        tiling: vk::ImageTiling::OPTIMAL,
        p_property_count: &mut formats,
        p_properties: Array::NULL,
    });
    let mut image = vk::ImageFormatProperties::default();
    let sparse_image = guest.call(command::GetPhysicalDeviceImageFormatProperties {
        physical_device: physical(),
        format: vk::Format::R8G8B8A8_UNORM,
        ty: vk::ImageType::TYPE_2D,
        tiling: vk::ImageTiling::OPTIMAL,
        usage: vk::ImageUsageFlags::SAMPLED,
        flags: vk::ImageCreateFlags::SPARSE_BINDING,
        p_image_format_properties: &mut image,
    });
    let offered = [
        features.sparse_binding != 0,
        features.sparse_residency_buffer != 0,
        features2.features.sparse_binding != 0,
        features2.features.sparse_residency_aliased != 0,
        properties.limits.sparse_address_space_size != 0,
        families[0]
            .queue_flags
            .contains(vk::QueueFlags::SPARSE_BINDING),
        formats != 0,
        sparse_image == 0,
    ];
    assert_eq!(offered, [!is_hidden; 8]);
    let mut wanted = vk::PhysicalDeviceFeatures2::default();
    wanted.features.sparse_binding = 1;
    let result = create_device(&guest, &gpu, &mut wanted);
    let expected = match is_hidden {
        true => vk::Result::ERROR_FEATURE_NOT_PRESENT,
        false => vk::Result::SUCCESS,
    };
    assert_eq!(result, expected.0 as u32);
    if is_hidden {
        let reason = guest.dies_of(bytes(&command::QueueBindSparse {
            queue: Object::guest(gpu.queue),
            bind_info_count: 0,
            p_bind_info: Array::NULL,
            fence: Object::guest(0),
        }));
        assert!(reason.contains("vkQueueBindSparse"), "{reason}");
    }
}

/// What ray tracing needs of a device.
const RAY_TRACING: &[&CStr] = &[
    c"VK_KHR_acceleration_structure",
    c"VK_KHR_ray_tracing_pipeline",
];

#[test]
fn replayed_group_handles_fail_with_a_result_and_their_features_are_hidden() {
    let renderer = renderer();
    let guest = Guest::new(&renderer, "replay");
    let gpu = guest.gpu();
    let mut tracing = vk::PhysicalDeviceRayTracingPipelineFeaturesKHR::default();
    let mut features = vk::PhysicalDeviceFeatures2 {
        p_next: (&raw mut tracing).cast(),
        ..Default::default()
    };
    guest.call(command::GetPhysicalDeviceFeatures2 {
        physical_device: Object::guest(gpu.physical),
        p_features: &mut features,
    });
    assert_eq!(tracing.ray_tracing_pipeline, 1);
    assert_eq!(
        tracing.ray_tracing_pipeline_shader_group_handle_capture_replay,
        0
    );
    let mut wanted = vk::PhysicalDeviceRayTracingPipelineFeaturesKHR {
        ray_tracing_pipeline_shader_group_handle_capture_replay: 1,
        ..Default::default()
    };
    let mut features = vk::PhysicalDeviceFeatures2 {
        p_next: (&raw mut wanted).cast(),
        ..Default::default()
    };
    let result = create_device(&guest, &gpu, &mut features);
    assert_eq!(result, vk::Result::ERROR_FEATURE_NOT_PRESENT.0 as u32);

    let device = guest.device_with(gpu.physical, RAY_TRACING);
    // The protocol only tells that there is a handle.
    let handle = [0_u8; 32];
    let group = vk::RayTracingShaderGroupCreateInfoKHR {
        general_shader: 0,
        closest_hit_shader: !0,
        any_hit_shader: !0,
        intersection_shader: !0,
        p_shader_group_capture_replay_handle: handle.as_ptr().cast(),
        ..Default::default()
    };
    let layout = guest.id();
    let mut info = vk::PipelineLayoutCreateInfo::default();
    guest.call(command::CreatePipelineLayout {
        device: Object::guest(device),
        p_create_info: &mut info,
        p_pipeline_layout: &mut vk::PipelineLayout(layout),
    });
    let mut info = [vk::RayTracingPipelineCreateInfoKHR {
        group_count: 1,
        p_groups: &raw const group,
        max_pipeline_ray_recursion_depth: 1,
        layout: vk::PipelineLayout(layout),
        ..Default::default()
    }];
    let mut pipelines = [vk::Pipeline(guest.id())];
    let result = guest.call(command::CreateRayTracingPipelinesKHR {
        device: Object::guest(device),
        deferred_operation: Object::guest(0),
        pipeline_cache: Object::guest(0),
        create_info_count: 1,
        p_create_infos: info.as_mut_slice().into(),
        p_pipelines: pipelines.as_mut_slice().into(),
    });
    let expected = vk::Result::ERROR_INVALID_OPAQUE_CAPTURE_ADDRESS;
    assert_eq!(result as u32, expected.0 as u32);
    assert_eq!(pipelines, [vk::Pipeline(0)]);
    // The context lives on.
    guest.wait_fence(0);
}
