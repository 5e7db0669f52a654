//! Instances, and the properties of the played GPU apart from its features.

use std::ffi::{CStr, c_char};

use ash::vk;

use crate::{ALIGNMENT, Function, Mode, chain, complain, function, memory, next, queue};

/// lavapipe's extensions that a Mac's drivers do not have.
const HIDDEN: &[&CStr] = &[
    c"VK_EXT_external_memory_dma_buf",
    c"VK_EXT_image_drm_format_modifier",
    c"VK_EXT_mesh_shader",
    c"VK_EXT_physical_device_drm",
    c"VK_EXT_queue_family_foreign",
    c"VK_EXT_transform_feedback",
    c"VK_KHR_acceleration_structure",
    c"VK_KHR_external_fence_fd",
    c"VK_KHR_external_memory_fd",
    c"VK_KHR_external_semaphore_fd",
    c"VK_KHR_ray_query",
    c"VK_KHR_ray_tracing_maintenance1",
    c"VK_KHR_ray_tracing_pipeline",
    c"VK_KHR_ray_tracing_position_fetch",
];

/// The extension of drivers that lack parts of Vulkan.
pub(crate) const SUBSET: &CStr = ash::khr::portability_subset::NAME;
const ENUMERATION: &CStr = ash::khr::portability_enumeration::NAME;

pub(crate) fn find(name: &str) -> Option<Function> {
    match name {
        "vkCreateInstance" => function!(create_instance, vk::PFN_vkCreateInstance),
        "vkEnumerateInstanceExtensionProperties" => function!(
            instance_extensions,
            vk::PFN_vkEnumerateInstanceExtensionProperties
        ),
        "vkEnumerateDeviceExtensionProperties" => function!(
            device_extensions,
            vk::PFN_vkEnumerateDeviceExtensionProperties
        ),
        "vkGetPhysicalDeviceProperties" => {
            function!(properties, vk::PFN_vkGetPhysicalDeviceProperties)
        }
        "vkGetPhysicalDeviceProperties2" | "vkGetPhysicalDeviceProperties2KHR" => {
            function!(properties2, vk::PFN_vkGetPhysicalDeviceProperties2)
        }
        "vkGetPhysicalDeviceMemoryProperties" => {
            function!(
                memory_properties,
                vk::PFN_vkGetPhysicalDeviceMemoryProperties
            )
        }
        "vkGetPhysicalDeviceMemoryProperties2" | "vkGetPhysicalDeviceMemoryProperties2KHR" => {
            function!(
                memory_properties2,
                vk::PFN_vkGetPhysicalDeviceMemoryProperties2
            )
        }
        "vkGetPhysicalDeviceQueueFamilyProperties" => {
            function!(families, vk::PFN_vkGetPhysicalDeviceQueueFamilyProperties)
        }
        "vkGetPhysicalDeviceQueueFamilyProperties2"
        | "vkGetPhysicalDeviceQueueFamilyProperties2KHR" => {
            function!(families2, vk::PFN_vkGetPhysicalDeviceQueueFamilyProperties2)
        }
        "vkGetPhysicalDeviceImageFormatProperties" => function!(
            image_format,
            vk::PFN_vkGetPhysicalDeviceImageFormatProperties
        ),
        "vkGetPhysicalDeviceImageFormatProperties2"
        | "vkGetPhysicalDeviceImageFormatProperties2KHR" => function!(
            image_format2,
            vk::PFN_vkGetPhysicalDeviceImageFormatProperties2
        ),
        "vkGetPhysicalDeviceExternalBufferProperties"
        | "vkGetPhysicalDeviceExternalBufferPropertiesKHR" => function!(
            external_buffer,
            vk::PFN_vkGetPhysicalDeviceExternalBufferProperties
        ),
        "vkGetPhysicalDeviceSurfaceSupportKHR" => {
            function!(
                surface_support,
                vk::PFN_vkGetPhysicalDeviceSurfaceSupportKHR
            )
        }
        _ => None,
    }
}

unsafe extern "system" fn create_instance(
    info: *const vk::InstanceCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    instance: *mut vk::Instance,
) -> vk::Result {
    let create = next::instance_function(vk::Instance::null(), c"vkCreateInstance");
    // SAFETY: a function of this name has this type.
    let create: Option<vk::PFN_vkCreateInstance> = unsafe { std::mem::transmute(create) };
    let Some(create) = create else {
        return vk::Result::ERROR_INITIALIZATION_FAILED;
    };
    // SAFETY: the caller's promise about all arguments.
    unsafe {
        let mut info = *info;
        let mut names = names(
            info.pp_enabled_extension_names,
            info.enabled_extension_count,
        );
        names.retain(|name| CStr::from_ptr(*name) != ENUMERATION || !lists_enumeration());
        info.pp_enabled_extension_names = names.as_ptr();
        info.enabled_extension_count = names.len() as u32;
        info.flags &= !vk::InstanceCreateFlags::ENUMERATE_PORTABILITY_KHR;
        let result = create(&raw const info, allocator, instance);
        if result == vk::Result::SUCCESS {
            next::remember_instance(*instance);
        }
        result
    }
}

/// The strings of an array of `count` pointers.
///
/// # Safety
/// `names` has `count` elements.
pub(crate) unsafe fn names(names: *const *const c_char, count: u32) -> Vec<*const c_char> {
    match count {
        0 => Vec::new(),
        // SAFETY: the caller's promise.
        _ => unsafe { std::slice::from_raw_parts(names, count as usize) }.to_vec(),
    }
}

/// Whether the driver lists `VK_KHR_portability_enumeration`. MoltenVK lists it, although it is the
/// loader's, and ignores it.
fn lists_enumeration() -> bool {
    Mode::get().is_moltenvk()
}

/// Makes an extension's entry in a list.
fn entry(name: &CStr) -> vk::ExtensionProperties {
    let mut entry = vk::ExtensionProperties {
        spec_version: 1,
        ..Default::default()
    };
    for (to, from) in entry.extension_name.iter_mut().zip(name.to_bytes()) {
        *to = *from as c_char;
    }
    entry
}

/// Answers a call that enumerates `all`.
///
/// # Safety
/// As Vulkan requires, `room` is null or has room for `count` elements.
unsafe fn fill<T: Copy>(all: &[T], count: *mut u32, room: *mut T) -> vk::Result {
    let total = all.len() as u32;
    // SAFETY: the caller's promise.
    unsafe {
        if room.is_null() {
            *count = total;
            return vk::Result::SUCCESS;
        }
        let fits = total.min(*count);
        std::ptr::copy_nonoverlapping(all.as_ptr(), room, fits as usize);
        *count = fits;
        match fits < total {
            true => vk::Result::INCOMPLETE,
            false => vk::Result::SUCCESS,
        }
    }
}

/// Returns everything that `list` enumerates.
fn all(
    list: impl Fn(*mut u32, *mut vk::ExtensionProperties) -> vk::Result,
) -> Vec<vk::ExtensionProperties> {
    let mut count = 0;
    if list(&raw mut count, std::ptr::null_mut()) != vk::Result::SUCCESS {
        return Vec::new();
    }
    let mut all = vec![vk::ExtensionProperties::default(); count as usize];
    if list(&raw mut count, all.as_mut_ptr()) != vk::Result::SUCCESS {
        return Vec::new();
    }
    all.truncate(count as usize);
    all
}

unsafe extern "system" fn instance_extensions(
    layer: *const c_char,
    count: *mut u32,
    room: *mut vk::ExtensionProperties,
) -> vk::Result {
    let name = c"vkEnumerateInstanceExtensionProperties";
    let list = next::instance_function(vk::Instance::null(), name);
    // SAFETY: a function of this name has this type.
    let list: Option<vk::PFN_vkEnumerateInstanceExtensionProperties> =
        unsafe { std::mem::transmute(list) };
    let Some(list) = list else {
        return vk::Result::ERROR_INITIALIZATION_FAILED;
    };
    // SAFETY: the caller's promise about the layer; there is room for what is asked for.
    let mut known = all(|count, room| unsafe { list(layer, count, room) });
    if lists_enumeration() {
        known.push(entry(ENUMERATION));
    }
    // SAFETY: the caller's promise.
    unsafe { fill(&known, count, room) }
}

/// Whether the driver hides this extension of lavapipe's.
pub(crate) fn is_hidden(name: &CStr) -> bool {
    HIDDEN.contains(&name)
}

unsafe extern "system" fn device_extensions(
    gpu: vk::PhysicalDevice,
    layer: *const c_char,
    count: *mut u32,
    room: *mut vk::ExtensionProperties,
) -> vk::Result {
    let list = next::instance().core.enumerate_device_extension_properties;
    // SAFETY: the caller's promise about the other arguments.
    let mut known = all(|count, room| unsafe { list(gpu, layer, count, room) });
    known.retain(|one| {
        one.extension_name_as_c_str()
            .is_ok_and(|name| !is_hidden(name))
    });
    if Mode::get().is_moltenvk() {
        known.push(entry(SUBSET));
    }
    // SAFETY: the caller's promise.
    unsafe { fill(&known, count, room) }
}

/// Writes text into an array that ends with NUL.
fn write(to: &mut [c_char], text: &str) {
    to.fill(0);
    for (to, from) in to.iter_mut().zip(text.bytes()) {
        *to = from as c_char;
    }
}

fn change(properties: &mut vk::PhysicalDeviceProperties) {
    write(&mut properties.device_name, "Apple M0 (played by llvmpipe)");
    properties.device_type = vk::PhysicalDeviceType::INTEGRATED_GPU;
    properties.vendor_id = 0x106b;
    properties.sparse_properties = vk::PhysicalDeviceSparseProperties::default();
    let limits = &mut properties.limits;
    limits.sparse_address_space_size = 0;
    limits.max_geometry_shader_invocations = 0;
    limits.max_geometry_input_components = 0;
    limits.max_geometry_output_components = 0;
    limits.max_geometry_output_vertices = 0;
    limits.max_geometry_total_output_components = 0;
    limits.line_width_range = [1.0, 1.0];
    limits.line_width_granularity = 0.0;
}

unsafe extern "system" fn properties(
    gpu: vk::PhysicalDevice,
    properties: *mut vk::PhysicalDeviceProperties,
) {
    // SAFETY: the caller's promise.
    unsafe {
        (next::instance().core.get_physical_device_properties)(gpu, properties);
        change(&mut *properties);
    }
}

unsafe extern "system" fn properties2(
    gpu: vk::PhysicalDevice,
    properties: *mut vk::PhysicalDeviceProperties2<'_>,
) {
    let (id, name, info) = match Mode::get() {
        Mode::MoltenVk => (vk::DriverId::MOLTENVK, "MoltenVK", "1.4.1 (played)"),
        Mode::MoltenVk140 => (vk::DriverId::MOLTENVK, "MoltenVK", "1.4.0 (played)"),
        // 28 is VK_DRIVER_ID_MESA_KOSMICKRISP, which ash lacks.
        Mode::KosmicKrisp => (vk::DriverId::from_raw(28), "KosmicKrisp", "(played)"),
    };
    // SAFETY: the caller's promise.
    unsafe {
        (next::instance().core11.get_physical_device_properties2)(gpu, properties);
        change(&mut (*properties).properties);
        let chain = (*properties).p_next.cast_const();
        let host = chain::find::<vk::PhysicalDeviceExternalMemoryHostPropertiesEXT>(chain);
        if let Some(host) = host {
            host.min_imported_host_pointer_alignment = ALIGNMENT;
        }
        if let Some(driver) = chain::find::<vk::PhysicalDeviceDriverProperties>(chain) {
            driver.driver_id = id;
            write(&mut driver.driver_name, name);
            write(&mut driver.driver_info, info);
        }
        if let Some(driver) = chain::find::<vk::PhysicalDeviceVulkan12Properties>(chain) {
            driver.driver_id = id;
            write(&mut driver.driver_name, name);
            write(&mut driver.driver_info, info);
        }
        let subset = chain::find::<vk::PhysicalDevicePortabilitySubsetPropertiesKHR>(chain);
        if let Some(subset) = subset.filter(|_| Mode::get().is_moltenvk()) {
            subset.min_vertex_input_binding_stride_alignment = 4;
        }
    }
}

unsafe extern "system" fn memory_properties(
    gpu: vk::PhysicalDevice,
    properties: *mut vk::PhysicalDeviceMemoryProperties,
) {
    // SAFETY: the caller's promise.
    unsafe {
        (next::instance().core.get_physical_device_memory_properties)(gpu, properties);
        memory::change_types(&mut *properties);
    }
}

unsafe extern "system" fn memory_properties2(
    gpu: vk::PhysicalDevice,
    properties: *mut vk::PhysicalDeviceMemoryProperties2<'_>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        (next::instance()
            .core11
            .get_physical_device_memory_properties2)(gpu, properties);
        memory::change_types(&mut (*properties).memory_properties);
    }
}

unsafe extern "system" fn families(
    gpu: vk::PhysicalDevice,
    count: *mut u32,
    room: *mut vk::QueueFamilyProperties,
) {
    let mut family = vk::QueueFamilyProperties::default();
    let mut one = 1;
    // SAFETY: room for one; the caller's promise about the rest.
    unsafe {
        let list = next::instance()
            .core
            .get_physical_device_queue_family_properties;
        list(gpu, &raw mut one, &raw mut family);
        family.queue_flags &= !vk::QueueFlags::SPARSE_BINDING;
        family.queue_count = 1;
        // The call has no result that could tell that there are more families.
        let _ = fill(&vec![family; queue::families() as usize], count, room);
    }
}

unsafe extern "system" fn families2(
    gpu: vk::PhysicalDevice,
    count: *mut u32,
    room: *mut vk::QueueFamilyProperties2<'_>,
) {
    let total = queue::families();
    // SAFETY: the caller's promise.
    unsafe {
        if room.is_null() {
            *count = total;
            return;
        }
        *count = total.min(*count);
        let list = next::instance()
            .core11
            .get_physical_device_queue_family_properties2;
        for index in 0..*count as usize {
            let (family, mut one) = (room.add(index), 1);
            list(gpu, &raw mut one, family);
            let family = &mut (*family).queue_family_properties;
            family.queue_flags &= !vk::QueueFlags::SPARSE_BINDING;
            family.queue_count = 1;
        }
    }
}

/// Whether the flags are for sparse images.
fn is_sparse(flags: vk::ImageCreateFlags) -> bool {
    flags.intersects(
        vk::ImageCreateFlags::SPARSE_BINDING
            | vk::ImageCreateFlags::SPARSE_RESIDENCY
            | vk::ImageCreateFlags::SPARSE_ALIASED,
    )
}

unsafe extern "system" fn image_format(
    gpu: vk::PhysicalDevice,
    format: vk::Format,
    ty: vk::ImageType,
    tiling: vk::ImageTiling,
    usage: vk::ImageUsageFlags,
    flags: vk::ImageCreateFlags,
    properties: *mut vk::ImageFormatProperties,
) -> vk::Result {
    if is_sparse(flags) {
        return vk::Result::ERROR_FORMAT_NOT_SUPPORTED;
    }
    let ask = next::instance()
        .core
        .get_physical_device_image_format_properties;
    // SAFETY: the caller's promise.
    unsafe { ask(gpu, format, ty, tiling, usage, flags, properties) }
}

/// The properties of memory that is imported by host pointer.
const IMPORTABLE: vk::ExternalMemoryProperties = vk::ExternalMemoryProperties {
    external_memory_features: vk::ExternalMemoryFeatureFlags::IMPORTABLE,
    export_from_imported_handle_types: vk::ExternalMemoryHandleTypeFlags::empty(),
    compatible_handle_types: vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT,
};

unsafe extern "system" fn image_format2(
    gpu: vk::PhysicalDevice,
    info: *const vk::PhysicalDeviceImageFormatInfo2<'_>,
    properties: *mut vk::ImageFormatProperties2<'_>,
) -> vk::Result {
    // SAFETY: the caller's promise.
    unsafe {
        let mut info = *info;
        if is_sparse(info.flags) {
            return vk::Result::ERROR_FORMAT_NOT_SUPPORTED;
        }
        let external = chain::find::<vk::PhysicalDeviceExternalImageFormatInfo>(info.p_next);
        let kind = external.map_or(Default::default(), |external| external.handle_type);
        // MoltenVK says that every image can lie in such memory, even with optimal tiling.
        // KosmicKrisp says that none can.
        let is_host = kind == vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT;
        if !kind.is_empty() && (!is_host || !Mode::get().is_moltenvk()) {
            return vk::Result::ERROR_FORMAT_NOT_SUPPORTED;
        }
        let hidden =
            chain::Hidden::take::<vk::PhysicalDeviceExternalImageFormatInfo>(&mut info.p_next);
        let ask = next::instance()
            .core11
            .get_physical_device_image_format_properties2;
        let result = ask(gpu, &raw const info, properties);
        drop(hidden);
        let chain = (*properties).p_next.cast_const();
        if let Some(external) = chain::find::<vk::ExternalImageFormatProperties>(chain) {
            external.external_memory_properties = match is_host {
                true => IMPORTABLE,
                false => vk::ExternalMemoryProperties::default(),
            };
        }
        result
    }
}

unsafe extern "system" fn external_buffer(
    _: vk::PhysicalDevice,
    info: *const vk::PhysicalDeviceExternalBufferInfo<'_>,
    properties: *mut vk::ExternalBufferProperties<'_>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let is_host = (*info).handle_type == vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT;
        (*properties).external_memory_properties = match is_host {
            true => IMPORTABLE,
            false => vk::ExternalMemoryProperties::default(),
        };
    }
}

unsafe extern "system" fn surface_support(
    gpu: vk::PhysicalDevice,
    family: u32,
    surface: vk::SurfaceKHR,
    supported: *mut vk::Bool32,
) -> vk::Result {
    if family >= queue::families() {
        complain(format_args!("there is no queue family {family}"));
        return vk::Result::ERROR_UNKNOWN;
    }
    let ask = next::instance()
        .surface
        .get_physical_device_surface_support_khr;
    // SAFETY: the caller's promise; lavapipe's only family presents.
    unsafe { ask(gpu, 0, surface, supported) }
}
