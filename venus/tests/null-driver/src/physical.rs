//! The instance and its one GPU.

use std::ffi::{CStr, c_void};

use ash::vk::{self, ObjectType};

use crate::limits::limits;
use crate::memory::{array, touch_info, touch_text, walk};
use crate::objects::{check, destroy, make, only};
use crate::{Function, card, function, version};

/// `deviceUUID`.
const UUID: [u8; 16] = *b"hesper-null-gpu!";
/// Extensions of the GPU: the one that renderers need, and some of each kind for guests.
const EXTENSIONS: [&CStr; 8] = [
    c"VK_EXT_external_memory_host",
    c"VK_EXT_extended_dynamic_state3",
    c"VK_EXT_host_image_copy",
    c"VK_EXT_memory_budget",
    c"VK_EXT_multi_draw",
    c"VK_EXT_transform_feedback",
    c"VK_KHR_acceleration_structure",
    c"VK_KHR_push_descriptor",
];
const INSTANCE: i32 = ObjectType::INSTANCE.as_raw();
const PHYSICAL_DEVICE: i32 = ObjectType::PHYSICAL_DEVICE.as_raw();

pub(crate) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "vkEnumerateInstanceVersion" => function!(loader_version, (*mut u32) -> vk::Result),
        "vkCreateInstance" => {
            function!(create, (*const vk::InstanceCreateInfo<'_>, *const c_void, *mut u64) -> vk::Result)
        }
        "vkDestroyInstance" => function!(destroy_instance, (u64, *const c_void)),
        "vkEnumeratePhysicalDevices" => {
            function!(enumerate, (u64, *mut u32, *mut u64) -> vk::Result)
        }
        "vkEnumeratePhysicalDeviceGroups" => {
            function!(groups, (u64, *mut u32, *mut vk::PhysicalDeviceGroupProperties<'_>) -> vk::Result)
        }
        "vkEnumerateInstanceExtensionProperties" => {
            function!(no_extensions, (*const c_void, *mut u32, *mut c_void) -> vk::Result)
        }
        "vkEnumerateDeviceExtensionProperties" => {
            function!(extensions, (u64, *const c_void, *mut u32, *mut vk::ExtensionProperties) -> vk::Result)
        }
        "vkGetPhysicalDeviceProperties" => {
            function!(properties, (u64, *mut vk::PhysicalDeviceProperties))
        }
        "vkGetPhysicalDeviceProperties2" => {
            function!(properties2, (u64, *mut vk::PhysicalDeviceProperties2<'_>))
        }
        "vkGetPhysicalDeviceImageFormatProperties2" => {
            function!(image_format, (u64, *const vk::PhysicalDeviceImageFormatInfo2<'_>, *mut vk::ImageFormatProperties2<'_>) -> vk::Result)
        }
        "vkGetPhysicalDeviceMemoryProperties" => {
            function!(memory, (u64, *mut vk::PhysicalDeviceMemoryProperties))
        }
        "vkGetPhysicalDeviceMemoryProperties2" => {
            function!(memory2, (u64, *mut vk::PhysicalDeviceMemoryProperties2<'_>))
        }
        "vkGetPhysicalDeviceQueueFamilyProperties" => {
            function!(families, (u64, *mut u32, *mut vk::QueueFamilyProperties))
        }
        _ => return None,
    })
}

/// Images of every kind can lie in imported memory, as with most drivers. None of any size exists.
unsafe extern "system" fn image_format(
    _: u64,
    _: *const vk::PhysicalDeviceImageFormatInfo2<'_>,
    out: *mut vk::ImageFormatProperties2<'_>,
) -> vk::Result {
    // SAFETY: the caller's promise; structs are known by their types.
    unsafe {
        walk((*out).p_next, |link| {
            if (*link).s_type == vk::StructureType::EXTERNAL_IMAGE_FORMAT_PROPERTIES {
                let external = link
                    .cast_mut()
                    .cast::<vk::ExternalImageFormatProperties<'_>>();
                (*external)
                    .external_memory_properties
                    .external_memory_features = vk::ExternalMemoryFeatureFlags::IMPORTABLE;
            }
        });
    }
    vk::Result::SUCCESS
}

unsafe extern "system" fn loader_version(out: *mut u32) -> vk::Result {
    // SAFETY: the caller's promise.
    unsafe { *out = version::of_loader() };
    vk::Result::SUCCESS
}

unsafe extern "system" fn create(
    info: *const vk::InstanceCreateInfo<'_>,
    _: *const c_void,
    instance: *mut u64,
) -> vk::Result {
    // SAFETY: the caller's promise.
    unsafe {
        touch_info(info.cast());
        let info = &*info;
        for name in array(
            info.pp_enabled_extension_names,
            info.enabled_extension_count,
        ) {
            touch_text(*name);
        }
        version::asked(
            info.p_application_info
                .as_ref()
                .map_or(vk::API_VERSION_1_0, |application| application.api_version),
        );
        if let Some(application) = info.p_application_info.as_ref()
            && !application.p_application_name.is_null()
        {
            touch_text(application.p_application_name);
        }
        *instance = make(INSTANCE, 0);
    }
    vk::Result::SUCCESS
}

unsafe extern "system" fn destroy_instance(instance: u64, _: *const c_void) {
    destroy(INSTANCE, instance, &[ObjectType::PHYSICAL_DEVICE]);
}

/// Answers Vulkan's two calls for a list.
unsafe fn list<T: Copy>(all: &[T], count: *mut u32, room: *mut T) -> vk::Result {
    // SAFETY: the caller's promise: there is room for as many as the count says.
    unsafe {
        if room.is_null() {
            *count = all.len() as u32;
            return vk::Result::SUCCESS;
        }
        let written = all.len().min(*count as usize);
        for (index, value) in all.iter().take(written).enumerate() {
            room.add(index).write(*value);
        }
        *count = written as u32;
        if written < all.len() {
            vk::Result::INCOMPLETE
        } else {
            vk::Result::SUCCESS
        }
    }
}

unsafe extern "system" fn enumerate(
    instance: u64,
    count: *mut u32,
    devices: *mut u64,
) -> vk::Result {
    check(INSTANCE, instance);
    // SAFETY: the caller's promise.
    unsafe { list(&[only(PHYSICAL_DEVICE, instance)], count, devices) }
}

unsafe extern "system" fn groups(
    instance: u64,
    count: *mut u32,
    groups: *mut vk::PhysicalDeviceGroupProperties<'_>,
) -> vk::Result {
    check(INSTANCE, instance);
    let mut group = vk::PhysicalDeviceGroupProperties {
        physical_device_count: 1,
        ..Default::default()
    };
    if let Some(first) = group.physical_devices.first_mut() {
        *first = vk::Handle::from_raw(only(PHYSICAL_DEVICE, instance));
    }
    // SAFETY: the caller's promise.
    unsafe { list(&[group], count, groups) }
}

unsafe extern "system" fn no_extensions(
    _: *const c_void,
    count: *mut u32,
    _: *mut c_void,
) -> vk::Result {
    // SAFETY: the caller's promise.
    unsafe { *count = 0 };
    vk::Result::SUCCESS
}

unsafe extern "system" fn extensions(
    device: u64,
    _: *const c_void,
    count: *mut u32,
    room: *mut vk::ExtensionProperties,
) -> vk::Result {
    check(PHYSICAL_DEVICE, device);
    let all = EXTENSIONS.map(|name| {
        let mut property = vk::ExtensionProperties::default().spec_version(1);
        for (to, from) in property.extension_name.iter_mut().zip(name.to_bytes()) {
            *to = from.cast_signed() as _;
        }
        property
    });
    // SAFETY: the caller's promise.
    unsafe { list(&all, count, room) }
}

unsafe extern "system" fn properties(device: u64, out: *mut vk::PhysicalDeviceProperties) {
    check(PHYSICAL_DEVICE, device);
    let mut properties = vk::PhysicalDeviceProperties {
        api_version: version::of_driver(),
        device_type: vk::PhysicalDeviceType::OTHER,
        limits: limits(),
        ..Default::default()
    };
    for (to, from) in properties.device_name.iter_mut().zip(b"null") {
        *to = from.cast_signed() as _;
    }
    // SAFETY: the caller's promise.
    unsafe { *out = properties };
}

unsafe extern "system" fn properties2(device: u64, out: *mut vk::PhysicalDeviceProperties2<'_>) {
    // SAFETY: the caller's promise; structs are known by their types.
    unsafe {
        properties(device, &raw mut (*out).properties);
        walk((*out).p_next, |link| match (*link).s_type {
            vk::StructureType::PHYSICAL_DEVICE_ID_PROPERTIES => {
                let id = link.cast_mut().cast::<vk::PhysicalDeviceIDProperties<'_>>();
                (*id).device_uuid = UUID;
            }
            vk::StructureType::PHYSICAL_DEVICE_EXTERNAL_MEMORY_HOST_PROPERTIES_EXT => {
                let host = link
                    .cast_mut()
                    .cast::<vk::PhysicalDeviceExternalMemoryHostPropertiesEXT<'_>>();
                (*host).min_imported_host_pointer_alignment = 4096;
            }
            _ => {}
        });
    }
}

unsafe extern "system" fn memory(device: u64, out: *mut vk::PhysicalDeviceMemoryProperties) {
    check(PHYSICAL_DEVICE, device);
    // SAFETY: the caller's promise.
    unsafe { *out = card::memory_properties() };
}

unsafe extern "system" fn memory2(device: u64, out: *mut vk::PhysicalDeviceMemoryProperties2<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        memory(device, &raw mut (*out).memory_properties);
        card::answer_chain((*out).p_next);
    }
}

unsafe extern "system" fn families(
    device: u64,
    count: *mut u32,
    room: *mut vk::QueueFamilyProperties,
) {
    check(PHYSICAL_DEVICE, device);
    let family = vk::QueueFamilyProperties {
        queue_flags: vk::QueueFlags::GRAPHICS | vk::QueueFlags::COMPUTE | vk::QueueFlags::TRANSFER,
        queue_count: 1,
        ..Default::default()
    };
    // SAFETY: the caller's promise.
    let _ = unsafe { list(&[family], count, room) };
}
