//! Buffers and images that may be bound to imported memory declare that when they are made.
//!
//! All memory that a guest can map is imported by host pointer (`command::memory`), which the guest
//! does not know. Vulkan wants the kind of import declared when a buffer or an image is made
//! (`VUID-VkBindBufferMemoryInfo-memory-02985`, `VUID-VkBindImageMemoryInfo-memory-02989`). So it
//! is declared here, if the driver says that it can import such memory for the object, and if
//! nothing else changes by it:
//!
//! - for buffers, if their memory requirements stay the same;
//! - for images with linear tiling; for other images only on a GPU that can import all of its
//!   memory, such as a software driver or a GPU that shares the processor's memory. A discrete GPU
//!   rarely puts images into such memory, and drivers do not compress shared images.
//!
//! Images with an initial layout cannot be declared. Drivers that refuse the declaration are not
//! given it ([`crate::memory::Declares`]).

use hesper_venus_protocol::runtime::find;
use hesper_venus_protocol::vk;

use crate::memory::HOST_ALLOCATION;
use crate::object::declarable::Recent;
use crate::object::device::Device;

/// The size of the buffer that the driver is asked about.
const SAMPLE: u64 = 0x1_0000;

/// Declares a buffer for imported memory, if that is possible and not done yet. `external` becomes
/// part of the chain, and must live until the driver has been called.
pub(crate) fn declare_buffer(
    device: &Device,
    info: &mut vk::BufferCreateInfo,
    external: &mut vk::ExternalMemoryBufferCreateInfo,
) {
    // SAFETY: the chain was decoded, and nobody else uses it.
    let is_declared = unsafe { find::<vk::ExternalMemoryBufferCreateInfo>(info.p_next) }.is_some();
    if is_declared || device.import.is_none() || !device.physical.facts.declares.buffers {
        return;
    }
    // SAFETY: as above.
    let usage2 = unsafe { find::<vk::BufferUsageFlags2CreateInfo>(info.p_next) };
    let usage2 = usage2.map(|usage| usage.usage);
    let kind = (
        info.flags.0,
        usage2.map_or(u64::from(info.usage.0), |usage| usage.0),
    );
    let key = Recent::key(kind.0, kind.1);
    let recent = key.and_then(|key| device.declarable.recent.find(key));
    let is_declarable = recent.unwrap_or_else(|| {
        let is_declarable = is_buffer_declarable(device, kind, info.usage, usage2);
        if let Some(key) = key {
            device.declarable.recent.keep(key, is_declarable);
        }
        is_declarable
    });
    if is_declarable {
        external.handle_types = HOST_ALLOCATION;
        external.p_next = info.p_next;
        info.p_next = std::ptr::from_mut(external).cast();
    }
}

/// What is known of a kind of buffer, else what the driver says of it.
#[cold]
#[inline(never)]
fn is_buffer_declarable(
    device: &Device,
    kind: (u32, u64),
    usage: vk::BufferUsageFlags,
    usage2: Option<vk::BufferUsageFlags2>,
) -> bool {
    device.declarable.buffer(kind, || {
        let flags = vk::BufferCreateFlags(kind.0);
        asks_nothing_else(device, flags, usage, usage2)
    })
}

/// Whether a kind of buffer can be declared and keeps its memory requirements.
fn asks_nothing_else(
    device: &Device,
    flags: vk::BufferCreateFlags,
    usage: vk::BufferUsageFlags,
    usage2: Option<vk::BufferUsageFlags2>,
) -> bool {
    let functions = device.instance().functions();
    let Some(properties_of) = functions.get_physical_device_external_buffer_properties else {
        return false;
    };
    let usage2 = usage2.map(|usage| vk::BufferUsageFlags2CreateInfo {
        usage,
        ..Default::default()
    });
    let chain = usage2
        .as_ref()
        .map_or(std::ptr::null(), |usage| std::ptr::from_ref(usage).cast());
    let mut asked = vk::PhysicalDeviceExternalBufferInfo {
        p_next: chain,
        flags,
        usage,
        handle_type: HOST_ALLOCATION,
        ..Default::default()
    };
    let mut answer = vk::ExternalBufferProperties::default();
    // SAFETY: the physical device is alive as long as the instance; both structs are valid, and so
    // is the chain.
    unsafe { properties_of(device.physical.handle, &raw mut asked, &raw mut answer) };
    if !is_importable(&answer.external_memory_properties) {
        return false;
    }
    let Some(requirements_of) = device.functions().get_device_buffer_memory_requirements else {
        // The requirements cannot be compared. With only one kind of memory, nothing can change.
        return is_all_importable(device);
    };
    let external = vk::ExternalMemoryBufferCreateInfo {
        p_next: chain,
        handle_types: HOST_ALLOCATION,
        ..Default::default()
    };
    let requirements = |p_next| {
        let info = vk::BufferCreateInfo {
            p_next,
            flags,
            size: SAMPLE,
            usage,
            ..Default::default()
        };
        let mut asked = vk::DeviceBufferMemoryRequirements {
            p_create_info: &raw const info,
            ..Default::default()
        };
        let mut answer = vk::MemoryRequirements2::default();
        // SAFETY: the device is alive; the structs are valid, and so are their chains.
        unsafe { requirements_of(device.handle(), &raw mut asked, &raw mut answer) };
        let all = answer.memory_requirements;
        (all.memory_type_bits, all.alignment, all.size)
    };
    requirements(chain) == requirements(std::ptr::from_ref(&external).cast())
}

/// Whether memory can be imported, for more than one object at a time.
fn is_importable(properties: &vk::ExternalMemoryProperties) -> bool {
    use vk::ExternalMemoryFeatureFlags as Features;
    let features = properties.external_memory_features;
    features.contains(Features::IMPORTABLE) && !features.contains(Features::DEDICATED_ONLY)
}

/// Whether all memory of the GPU can be imported.
fn is_all_importable(device: &Device) -> bool {
    *device.declarable.is_all_importable.get_or_init(|| {
        let functions = device.instance().functions();
        let Some(properties_of) = functions.get_physical_device_memory_properties else {
            return false;
        };
        let mut memory = vk::PhysicalDeviceMemoryProperties::default();
        // SAFETY: the physical device is alive as long as the instance.
        unsafe { properties_of(device.physical.handle, &raw mut memory) };
        let all = 1_u32
            .checked_shl(memory.memory_type_count)
            .map_or(u32::MAX, |next| next - 1);
        device.physical.facts.importable_types & all == all
    })
}

/// Whether images with optimal tiling may be bound to imported memory.
fn may_be_imported(device: &Device) -> bool {
    !device.physical.keeps_images_apart() && is_all_importable(device)
}

/// Declares an image for imported memory, if that is possible and not done yet. `external` becomes
/// part of the chain, and must live until the driver has been called.
pub(crate) fn declare_image(
    device: &Device,
    info: &mut vk::ImageCreateInfo,
    external: &mut vk::ExternalMemoryImageCreateInfo,
) {
    // SAFETY: the chain was decoded, and nobody else uses it.
    let is_declared = unsafe { find::<vk::ExternalMemoryImageCreateInfo>(info.p_next) }.is_some();
    if is_declared
        || device.import.is_none()
        || !device.physical.facts.declares.images
        || info.initial_layout != vk::ImageLayout::UNDEFINED
        || (info.tiling != vk::ImageTiling::LINEAR && !may_be_imported(device))
        || !is_image_importable(device, info)
    {
        return;
    }
    external.handle_types = HOST_ALLOCATION;
    external.p_next = info.p_next;
    info.p_next = std::ptr::from_mut(external).cast();
}

/// Whether the driver can import memory for exactly this image.
fn is_image_importable(device: &Device, info: &vk::ImageCreateInfo) -> bool {
    let functions = device.instance().functions();
    let Some(properties_of) = functions.get_physical_device_image_format_properties2 else {
        return false;
    };
    let mut chain: *const std::ffi::c_void = std::ptr::null();
    // SAFETY: the chain was decoded, and nobody else uses it.
    let list = unsafe { find::<vk::ImageFormatListCreateInfo>(info.p_next) };
    let list = list.map(|list| vk::ImageFormatListCreateInfo {
        p_next: chain,
        ..*list
    });
    if let Some(list) = &list {
        chain = std::ptr::from_ref(list).cast();
    }
    // SAFETY: as above.
    let stencil = unsafe { find::<vk::ImageStencilUsageCreateInfo>(info.p_next) };
    let stencil = stencil.map(|stencil| vk::ImageStencilUsageCreateInfo {
        p_next: chain,
        ..*stencil
    });
    if let Some(stencil) = &stencil {
        chain = std::ptr::from_ref(stencil).cast();
    }
    let kind = vk::PhysicalDeviceExternalImageFormatInfo {
        p_next: chain,
        handle_type: HOST_ALLOCATION,
        ..Default::default()
    };
    let mut asked = vk::PhysicalDeviceImageFormatInfo2 {
        p_next: std::ptr::from_ref(&kind).cast(),
        format: info.format,
        ty: info.image_type,
        tiling: info.tiling,
        usage: info.usage,
        flags: info.flags,
        ..Default::default()
    };
    let mut external = vk::ExternalImageFormatProperties::default();
    let mut answer = vk::ImageFormatProperties2 {
        p_next: std::ptr::from_mut(&mut external).cast(),
        ..Default::default()
    };
    // SAFETY: the physical device is alive as long as the instance; the structs are valid, and so
    // are their chains.
    let result = unsafe { properties_of(device.physical.handle, &raw mut asked, &raw mut answer) };
    let limits = answer.image_format_properties;
    result == vk::Result::SUCCESS
        && is_importable(&external.external_memory_properties)
        && info.extent.width <= limits.max_extent.width
        && info.extent.height <= limits.max_extent.height
        && info.extent.depth <= limits.max_extent.depth
        && info.mip_levels <= limits.max_mip_levels
        && info.array_layers <= limits.max_array_layers
        && limits.sample_counts.contains(info.samples)
}
