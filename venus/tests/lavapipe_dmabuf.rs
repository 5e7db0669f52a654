//! The WSI policy "dmabuf" on a real driver, with guests that are this test: memory that one
//! context exports and another imports, and images with the modifier `LINEAR`.
//!
//! ```text
//! export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=tests/env/run
//! cargo test -p hesper-venus --test lavapipe_dmabuf
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends with a panic"
)]

mod guest;

use ash::vk as host;
use guest::settled::Settled;
use guest::{Gpu, Guest, RING, VenusGuest as _};
use hesper_venus::{Renderer, RendererOptions, WsiPolicy};
use hesper_venus_protocol::runtime::Object;
use hesper_venus_protocol::{command, vk};

const SIZE: u64 = 1 << 20;
const SUCCESS: u64 = 0;
const DMA_BUF: vk::ExternalMemoryHandleTypeFlags = vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT;
const BGRA: vk::Format = vk::Format(host::Format::B8G8R8A8_UNORM.as_raw());
const LINEAR: u64 = 0;

fn renderer(wsi: WsiPolicy) -> Settled {
    Settled::new(RendererOptions {
        wsi,
        ..Default::default()
    })
}

/// The bits of an error.
fn bits(result: vk::Result) -> u64 {
    i64::from(result.0) as u64 & 0xffff_ffff
}

/// A buffer that is declared for a dma-buf, and the memory types that it can have.
fn external_buffer(guest: &Guest, gpu: &Gpu) -> (u64, u32) {
    let buffer = guest.id();
    let external = vk::ExternalMemoryBufferCreateInfo {
        handle_types: DMA_BUF,
        ..Default::default()
    };
    let result = guest.call(command::CreateBuffer {
        device: Object::guest(gpu.device),
        p_create_info: &mut vk::BufferCreateInfo {
            p_next: (&raw const external).cast(),
            size: SIZE,
            usage: vk::BufferUsageFlags::TRANSFER_DST,
            ..Default::default()
        },
        p_buffer: &mut vk::Buffer(buffer),
    });
    assert_eq!(result, SUCCESS);
    let mut requirements = vk::MemoryRequirements::default();
    guest.call(command::GetBufferMemoryRequirements {
        device: Object::guest(gpu.device),
        buffer: Object::guest(buffer),
        p_memory_requirements: &mut requirements,
    });
    (buffer, requirements.memory_type_bits)
}

/// Memory with this chain: its id and the result.
fn allocate(guest: &Guest, gpu: &Gpu, p_next: *const std::ffi::c_void, index: u32) -> (u64, u64) {
    let memory = guest.id();
    let result = guest.call(command::AllocateMemory {
        device: Object::guest(gpu.device),
        p_allocate_info: &mut vk::MemoryAllocateInfo {
            p_next,
            allocation_size: SIZE,
            memory_type_index: index,
            ..Default::default()
        },
        p_memory: &mut vk::DeviceMemory(memory),
    });
    (memory, result)
}

#[test]
fn memory_that_one_context_exports_is_the_same_pages_where_another_imports_it() {
    let renderer = renderer(WsiPolicy::Dmabuf);
    let exporter = Guest::new(&renderer, "exporter");
    let gpu = exporter.gpu();
    let (_, types) = external_buffer(&exporter, &gpu);
    assert_ne!(types, 0);
    let export = vk::ExportMemoryAllocateInfo {
        handle_types: DMA_BUF,
        ..Default::default()
    };
    let index = types.trailing_zeros();
    let (memory, result) = allocate(&exporter, &gpu, (&raw const export).cast(), index);
    assert_eq!(result, SUCCESS);
    let (_, blob) = exporter.blob(memory, SIZE).unwrap();

    let importer = Guest::new(&renderer, "importer");
    let gpu = importer.gpu();
    let resource = 77;
    importer.context.attach_resource(resource, &blob);
    let mut size = vk::MemoryResourceAllocationSizePropertiesMESA::default();
    let mut properties = vk::MemoryResourcePropertiesMESA {
        p_next: (&raw mut size).cast(),
        ..Default::default()
    };
    let result = importer.call(command::GetMemoryResourcePropertiesMESA {
        device: Object::guest(gpu.device),
        resource_id: resource,
        p_memory_resource_properties: &mut properties,
    });
    assert_eq!(result, SUCCESS);
    assert_ne!(properties.memory_type_bits & types, 0);
    assert_eq!(size.allocation_size, SIZE);
    let import = vk::ImportMemoryResourceInfoMESA {
        resource_id: resource,
        ..Default::default()
    };
    let (memory, result) = allocate(&importer, &gpu, (&raw const import).cast(), index);
    assert_eq!(result, SUCCESS);
    let (buffer, _) = external_buffer(&importer, &gpu);
    let result = importer.call(command::BindBufferMemory {
        device: Object::guest(gpu.device),
        buffer: Object::guest(buffer),
        memory: Object::guest(memory),
        memory_offset: 0,
    });
    assert_eq!(result, SUCCESS);
    let (commands, _) = importer.fill(&gpu, buffer, 0x5678_1234);
    importer.submit(&gpu, &[commands]);
    importer.wait_fence(RING);
    let mut seen = vec![0; SIZE as usize];
    blob.memory.read(0, &mut seen).unwrap();
    let expected = u32::to_le_bytes(0x5678_1234);
    assert!(seen.chunks(4).all(|word| word == expected));
}

#[test]
fn importing_what_cannot_be_named_fails_and_ends_nobody() {
    let renderer = renderer(WsiPolicy::Dmabuf);
    let guest = Guest::new(&renderer, "importer");
    let gpu = guest.gpu();
    let refused = bits(vk::Result::ERROR_INVALID_EXTERNAL_HANDLE);
    let import = vk::ImportMemoryResourceInfoMESA {
        resource_id: 999,
        ..Default::default()
    };
    let (_, result) = allocate(&guest, &gpu, (&raw const import).cast(), 0);
    assert_eq!(result, refused);
    let result = guest.call(command::GetMemoryResourcePropertiesMESA {
        device: Object::guest(gpu.device),
        resource_id: 999,
        p_memory_resource_properties: &mut vk::MemoryResourcePropertiesMESA::default(),
    });
    assert_eq!(result, refused);
    let (_, result) = allocate(&guest, &gpu, std::ptr::null(), 0);
    assert_eq!(result, SUCCESS);
}

/// Creates an image with a modifier. Returns the id and the result.
fn image(guest: &Guest, gpu: &Gpu, modifier: *const std::ffi::c_void) -> (u64, u64) {
    let id = guest.id();
    let external = vk::ExternalMemoryImageCreateInfo {
        p_next: modifier,
        handle_types: DMA_BUF,
        ..Default::default()
    };
    let result = guest.call(command::CreateImage {
        device: Object::guest(gpu.device),
        p_create_info: &mut vk::ImageCreateInfo {
            p_next: (&raw const external).cast(),
            image_type: vk::ImageType(host::ImageType::TYPE_2D.as_raw()),
            format: BGRA,
            extent: vk::Extent3D {
                width: 100,
                height: 50,
                depth: 1,
            },
            mip_levels: 1,
            array_layers: 1,
            samples: vk::SampleCountFlags(1),
            tiling: vk::ImageTiling::DRM_FORMAT_MODIFIER_EXT,
            usage: vk::ImageUsageFlags::TRANSFER_DST,
            ..Default::default()
        },
        p_image: &mut vk::Image(id),
    });
    (id, result)
}

fn explicit(layout: &vk::SubresourceLayout) -> vk::ImageDrmFormatModifierExplicitCreateInfoEXT {
    vk::ImageDrmFormatModifierExplicitCreateInfoEXT {
        drm_format_modifier: LINEAR,
        drm_format_modifier_plane_count: 1,
        p_plane_layouts: layout,
        ..Default::default()
    }
}

#[test]
fn an_image_is_made_with_the_linear_modifier_and_again_from_its_layout() {
    let renderer = renderer(WsiPolicy::Dmabuf);
    let guest = Guest::new(&renderer, "images");
    let gpu = guest.gpu();
    let modifiers = [1 << 56 | 1, LINEAR];
    let list = vk::ImageDrmFormatModifierListCreateInfoEXT {
        drm_format_modifier_count: 2,
        p_drm_format_modifiers: modifiers.as_ptr(),
        ..Default::default()
    };
    let (id, result) = image(&guest, &gpu, (&raw const list).cast());
    assert_eq!(result, SUCCESS);
    let mut properties = vk::ImageDrmFormatModifierPropertiesEXT {
        drm_format_modifier: 9,
        ..Default::default()
    };
    guest.call(command::GetImageDrmFormatModifierPropertiesEXT {
        device: Object::guest(gpu.device),
        image: Object::guest(id),
        p_properties: &mut properties,
    });
    assert_eq!(properties.drm_format_modifier, LINEAR);
    let mut layout = vk::SubresourceLayout::default();
    guest.call(command::GetImageSubresourceLayout {
        device: Object::guest(gpu.device),
        image: Object::guest(id),
        p_subresource: &mut vk::ImageSubresource {
            aspect_mask: vk::ImageAspectFlags::MEMORY_PLANE_0_EXT,
            ..Default::default()
        },
        p_layout: &mut layout,
    });
    assert!(layout.row_pitch >= 400, "{}", layout.row_pitch);

    let mut mirrored = vk::SubresourceLayout::default();
    let same = vk::SubresourceLayout { size: 0, ..layout };
    let same = explicit(&same);
    let (_, result) = image(&guest, &gpu, (&raw const same).cast());
    assert_eq!(result, SUCCESS);
    let other = vk::SubresourceLayout {
        row_pitch: layout.row_pitch + 64,
        ..layout
    };
    let other = explicit(&other);
    let (id, result) = image(&guest, &gpu, (&raw const other).cast());
    assert_eq!(result, SUCCESS, "it has a mirror with this pitch");
    guest.call(command::GetImageSubresourceLayout {
        device: Object::guest(gpu.device),
        image: Object::guest(id),
        p_subresource: &mut vk::ImageSubresource {
            aspect_mask: vk::ImageAspectFlags::MEMORY_PLANE_0_EXT,
            ..Default::default()
        },
        p_layout: &mut mirrored,
    });
    assert_eq!(mirrored.row_pitch, layout.row_pitch + 64);
    let broken = vk::SubresourceLayout {
        row_pitch: layout.row_pitch + 2,
        ..layout
    };
    let broken = explicit(&broken);
    let (_, result) = image(&guest, &gpu, (&raw const broken).cast());
    let refused = vk::Result::ERROR_INVALID_DRM_FORMAT_MODIFIER_PLANE_LAYOUT_EXT;
    assert_eq!(result, bits(refused));
}

/// What can be shared of images of a format and tiling: the result, and what can be done with
/// external memory.
fn image_properties(renderer: &Renderer, tiling: vk::ImageTiling) -> (u64, u32) {
    let guest = Guest::new(renderer, "formats");
    let gpu = guest.gpu();
    let modifier = vk::PhysicalDeviceImageDrmFormatModifierInfoEXT::default();
    let external = vk::PhysicalDeviceExternalImageFormatInfo {
        p_next: match tiling {
            vk::ImageTiling::DRM_FORMAT_MODIFIER_EXT => (&raw const modifier).cast(),
            _ => std::ptr::null(),
        },
        handle_type: DMA_BUF,
        ..Default::default()
    };
    let mut properties = vk::ExternalImageFormatProperties::default();
    let result = guest.call(command::GetPhysicalDeviceImageFormatProperties2 {
        physical_device: Object::guest(gpu.physical),
        p_image_format_info: &mut vk::PhysicalDeviceImageFormatInfo2 {
            p_next: (&raw const external).cast(),
            format: BGRA,
            ty: vk::ImageType(host::ImageType::TYPE_2D.as_raw()),
            tiling,
            usage: vk::ImageUsageFlags::TRANSFER_DST,
            ..Default::default()
        },
        p_image_format_properties: &mut vk::ImageFormatProperties2 {
            p_next: (&raw mut properties).cast(),
            ..Default::default()
        },
    });
    let external = properties.external_memory_properties;
    (result, external.external_memory_features.0)
}

#[test]
fn only_linear_images_can_be_shared_and_only_under_this_policy() {
    use vk::ExternalMemoryFeatureFlags as Features;
    let both = (Features::EXPORTABLE | Features::IMPORTABLE).0;
    let modifier = vk::ImageTiling::DRM_FORMAT_MODIFIER_EXT;
    let refused = bits(vk::Result::ERROR_FORMAT_NOT_SUPPORTED);
    let shares = renderer(WsiPolicy::Dmabuf);
    assert_eq!(image_properties(&shares, modifier), (SUCCESS, both));
    let (result, _) = image_properties(&shares, vk::ImageTiling::OPTIMAL);
    assert_eq!(result, refused);
    let copies = renderer(WsiPolicy::Software);
    let (result, _) = image_properties(&copies, modifier);
    assert_eq!(result, refused);
}

#[test]
fn a_format_lists_its_modifier_in_the_order_of_the_guest_s_chain() {
    let renderer = renderer(WsiPolicy::Dmabuf);
    let guest = Guest::new(&renderer, "formats");
    let gpu = guest.gpu();
    let mut entries = [vk::DrmFormatModifierPropertiesEXT::default(); 2];
    let mut list = vk::DrmFormatModifierPropertiesListEXT {
        drm_format_modifier_count: 2,
        p_drm_format_modifier_properties: entries.as_mut_ptr(),
        ..Default::default()
    };
    let mut all = vk::FormatProperties3 {
        p_next: (&raw mut list).cast(),
        ..Default::default()
    };
    let mut properties = vk::FormatProperties2 {
        p_next: (&raw mut all).cast(),
        ..Default::default()
    };
    guest.call(command::GetPhysicalDeviceFormatProperties2 {
        physical_device: Object::guest(gpu.physical),
        format: BGRA,
        p_format_properties: &mut properties,
    });
    assert_eq!(list.drm_format_modifier_count, 1);
    assert_eq!(entries[0].drm_format_modifier_plane_count, 1);
    assert_eq!(
        entries[0].drm_format_modifier_tiling_features,
        properties.format_properties.linear_tiling_features
    );
    assert_ne!(all.linear_tiling_features.0, 0);
}
