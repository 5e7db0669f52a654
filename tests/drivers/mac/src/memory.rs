//! Memory: its types, what can be imported and mapped, and where images lie.

use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ash::vk::{self, Handle};

use crate::device::Device;
use crate::{ALIGNMENT, Function, Mode, chain, complain, function};

/// MoltenVK's memory types on Apple's processors.
const PRIVATE: u32 = 0;
const SHARED: u32 = 1;
const MEMORYLESS: u32 = 2;

pub(crate) fn find(name: &str) -> Option<Function> {
    match name {
        "vkAllocateMemory" => function!(allocate, vk::PFN_vkAllocateMemory),
        "vkFreeMemory" => function!(free, vk::PFN_vkFreeMemory),
        "vkMapMemory" => function!(map, vk::PFN_vkMapMemory),
        "vkMapMemory2" | "vkMapMemory2KHR" => function!(map2, vk::PFN_vkMapMemory2KHR),
        "vkGetMemoryHostPointerPropertiesEXT" => {
            function!(host_pointer, vk::PFN_vkGetMemoryHostPointerPropertiesEXT)
        }
        "vkCreateBuffer" => function!(create_buffer, vk::PFN_vkCreateBuffer),
        "vkCreateImage" => function!(create_image, vk::PFN_vkCreateImage),
        "vkDestroyImage" => function!(destroy_image, vk::PFN_vkDestroyImage),
        "vkBindImageMemory" => function!(bind_image, vk::PFN_vkBindImageMemory),
        "vkBindImageMemory2" | "vkBindImageMemory2KHR" => {
            function!(bind_images, vk::PFN_vkBindImageMemory2)
        }
        "vkGetBufferMemoryRequirements" => {
            function!(of_buffer, vk::PFN_vkGetBufferMemoryRequirements)
        }
        "vkGetBufferMemoryRequirements2" | "vkGetBufferMemoryRequirements2KHR" => {
            function!(of_buffer2, vk::PFN_vkGetBufferMemoryRequirements2)
        }
        "vkGetDeviceBufferMemoryRequirements" | "vkGetDeviceBufferMemoryRequirementsKHR" => {
            function!(of_new_buffer, vk::PFN_vkGetDeviceBufferMemoryRequirements)
        }
        "vkGetImageMemoryRequirements" => {
            function!(of_image, vk::PFN_vkGetImageMemoryRequirements)
        }
        "vkGetImageMemoryRequirements2" | "vkGetImageMemoryRequirements2KHR" => {
            function!(of_image2, vk::PFN_vkGetImageMemoryRequirements2)
        }
        "vkGetDeviceImageMemoryRequirements" | "vkGetDeviceImageMemoryRequirementsKHR" => {
            function!(of_new_image, vk::PFN_vkGetDeviceImageMemoryRequirements)
        }
        _ => None,
    }
}

/// The type that can be mapped and imported.
fn shared_type() -> u32 {
    match Mode::get().is_moltenvk() {
        true => SHARED,
        false => 0,
    }
}

/// Replaces lavapipe's only memory type by the played driver's types.
pub(crate) fn change_types(properties: &mut vk::PhysicalDeviceMemoryProperties) {
    use vk::MemoryPropertyFlags as Flags;
    let shared =
        Flags::DEVICE_LOCAL | Flags::HOST_VISIBLE | Flags::HOST_COHERENT | Flags::HOST_CACHED;
    let types = match Mode::get().is_moltenvk() {
        true => &[
            Flags::DEVICE_LOCAL,
            shared,
            Flags::DEVICE_LOCAL | Flags::LAZILY_ALLOCATED,
        ][..],
        false => &[shared],
    };
    properties.memory_types = Default::default();
    properties.memory_type_count = types.len() as u32;
    for (to, flags) in properties.memory_types.iter_mut().zip(types) {
        to.property_flags = *flags;
    }
    if let Some(heap) = properties.memory_heaps.first_mut() {
        heap.flags = vk::MemoryHeapFlags::DEVICE_LOCAL;
    }
}

struct Memory {
    kind: u32,
    is_imported: bool,
}

struct Image {
    is_optimal: bool,
    /// Whether its planes are bound separately.
    is_disjoint: bool,
    types: u32,
    /// The image's own memory, if it does not lie in the memory it was bound to.
    own: Option<vk::DeviceMemory>,
}

/// What the driver knows about a device's memory and images.
#[derive(Default)]
pub(crate) struct Kept {
    memories: Mutex<HashMap<u64, Memory>>,
    images: Mutex<HashMap<u64, Image>>,
}

impl Kept {
    fn memories(&self) -> MutexGuard<'_, HashMap<u64, Memory>> {
        self.memories.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn images(&self) -> MutexGuard<'_, HashMap<u64, Image>> {
        self.images.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frees the images' own memory.
    ///
    /// # Safety
    /// Nobody uses the device any more.
    pub(crate) unsafe fn free(&self, device: &Device) {
        for own in self.images().drain().filter_map(|(_, image)| image.own) {
            // SAFETY: the caller's promise.
            unsafe { (device.next.core.free_memory)(device.handle, own, std::ptr::null()) };
        }
    }
}

unsafe extern "system" fn allocate(
    handle: vk::Device,
    info: *const vk::MemoryAllocateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    memory: *mut vk::DeviceMemory,
) -> vk::Result {
    let device = Device::get(handle);
    // SAFETY: the caller's promise.
    unsafe {
        let mut info = *info;
        let kind = info.memory_type_index;
        let import = chain::find::<vk::ImportMemoryHostPointerInfoEXT>(info.p_next);
        if let Some(import) = &import {
            let pointer = import.p_host_pointer.addr() as u64;
            let size = info.allocation_size;
            let is_aligned = pointer.is_multiple_of(ALIGNMENT) && size.is_multiple_of(ALIGNMENT);
            if kind != shared_type() || !is_aligned {
                complain(format_args!(
                    "{size} bytes at {pointer:#x} cannot be imported as memory of type {kind}"
                ));
                return vk::Result::ERROR_INVALID_EXTERNAL_HANDLE;
            }
        }
        let export = chain::find::<vk::ExportMemoryAllocateInfo>(info.p_next);
        if export.is_some_and(|export| !export.handle_types.is_empty()) {
            complain(format_args!("vkAllocateMemory of memory to be exported"));
            return vk::Result::ERROR_INITIALIZATION_FAILED;
        }
        let is_imported = import.is_some();
        info.memory_type_index = 0;
        let allocate = device.next.core.allocate_memory;
        let result = allocate(handle, &raw const info, allocator, memory);
        if result == vk::Result::SUCCESS {
            let kept = Memory { kind, is_imported };
            device.kept.memories().insert((*memory).as_raw(), kept);
        }
        result
    }
}

unsafe extern "system" fn free(
    handle: vk::Device,
    memory: vk::DeviceMemory,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    let device = Device::get(handle);
    device.kept.memories().remove(&memory.as_raw());
    // SAFETY: the caller's promise.
    unsafe { (device.next.core.free_memory)(handle, memory, allocator) };
}

fn can_be_mapped(device: &Device, memory: vk::DeviceMemory) -> bool {
    let kind = device
        .kept
        .memories()
        .get(&memory.as_raw())
        .map(|memory| memory.kind);
    let is_shared = kind == Some(shared_type());
    if !is_shared {
        complain(format_args!("memory of type {kind:?} cannot be mapped"));
    }
    is_shared
}

unsafe extern "system" fn map(
    handle: vk::Device,
    memory: vk::DeviceMemory,
    offset: vk::DeviceSize,
    size: vk::DeviceSize,
    flags: vk::MemoryMapFlags,
    to: *mut *mut c_void,
) -> vk::Result {
    let device = Device::get(handle);
    if !can_be_mapped(&device, memory) {
        return vk::Result::ERROR_MEMORY_MAP_FAILED;
    }
    // SAFETY: the caller's promise.
    unsafe { (device.next.core.map_memory)(handle, memory, offset, size, flags, to) }
}

unsafe extern "system" fn map2(
    handle: vk::Device,
    info: *const vk::MemoryMapInfoKHR<'_>,
    to: *mut *mut c_void,
) -> vk::Result {
    let device = Device::get(handle);
    // SAFETY: the caller's promise.
    unsafe {
        if !can_be_mapped(&device, (*info).memory) {
            return vk::Result::ERROR_MEMORY_MAP_FAILED;
        }
        (device.next.map2.map_memory2_khr)(handle, info, to)
    }
}

unsafe extern "system" fn host_pointer(
    handle: vk::Device,
    kind: vk::ExternalMemoryHandleTypeFlags,
    pointer: *const c_void,
    properties: *mut vk::MemoryHostPointerPropertiesEXT<'_>,
) -> vk::Result {
    let device = Device::get(handle);
    if !(pointer.addr() as u64).is_multiple_of(ALIGNMENT) {
        complain(format_args!("{pointer:p} is no multiple of {ALIGNMENT}"));
        return vk::Result::ERROR_INVALID_EXTERNAL_HANDLE;
    }
    let ask = device
        .next
        .host_memory
        .get_memory_host_pointer_properties_ext;
    // SAFETY: the caller's promise.
    unsafe {
        let result = ask(handle, kind, pointer, properties);
        (*properties).memory_type_bits = 1 << shared_type();
        result
    }
}

/// The driver's answer when a buffer or an image is declared for external memory of this kind.
fn declared(what: &str, kind: vk::ExternalMemoryHandleTypeFlags) -> vk::Result {
    let is_host = kind == vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT;
    match Mode::get() {
        _ if kind.is_empty() => vk::Result::SUCCESS,
        Mode::MoltenVk140 if is_host => vk::Result::ERROR_FEATURE_NOT_PRESENT,
        Mode::KosmicKrisp if is_host && what == "an image" => {
            complain(format_args!(
                "{what} is declared for memory of kind {kind:?}"
            ));
            vk::Result::ERROR_FEATURE_NOT_PRESENT
        }
        _ if is_host => vk::Result::SUCCESS,
        _ => {
            complain(format_args!(
                "{what} is declared for memory of kind {kind:?}"
            ));
            vk::Result::ERROR_FEATURE_NOT_PRESENT
        }
    }
}

unsafe extern "system" fn create_buffer(
    handle: vk::Device,
    info: *const vk::BufferCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    buffer: *mut vk::Buffer,
) -> vk::Result {
    let device = Device::get(handle);
    // SAFETY: the caller's promise.
    unsafe {
        let external = chain::find::<vk::ExternalMemoryBufferCreateInfo>((*info).p_next);
        let kind = external.map_or(Default::default(), |external| external.handle_types);
        match declared("a buffer", kind) {
            vk::Result::SUCCESS => {
                (device.next.core.create_buffer)(handle, info, allocator, buffer)
            }
            error => error,
        }
    }
}

/// The memory types that an image can be bound to, as bits.
fn types_of_image(info: &vk::ImageCreateInfo<'_>) -> u32 {
    if !Mode::get().is_moltenvk() {
        return 1;
    }
    let has = |usage| info.usage.intersects(usage);
    let mut types = match info.tiling {
        vk::ImageTiling::LINEAR => 1 << SHARED,
        // The host reads and writes such an image.
        _ if has(vk::ImageUsageFlags::HOST_TRANSFER_EXT) => 1 << SHARED,
        _ if has(vk::ImageUsageFlags::DEPTH_STENCIL_ATTACHMENT) => 1 << PRIVATE,
        _ => 1 << PRIVATE | 1 << SHARED,
    };
    if has(vk::ImageUsageFlags::TRANSIENT_ATTACHMENT) {
        types |= 1 << MEMORYLESS;
    }
    types
}

unsafe extern "system" fn create_image(
    handle: vk::Device,
    info: *const vk::ImageCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    image: *mut vk::Image,
) -> vk::Result {
    let device = Device::get(handle);
    // SAFETY: the caller's promise.
    unsafe {
        let external = chain::find::<vk::ExternalMemoryImageCreateInfo>((*info).p_next);
        let kind = external.map_or(Default::default(), |external| external.handle_types);
        let result = declared("an image", kind);
        if result != vk::Result::SUCCESS {
            return result;
        }
        let result = (device.next.core.create_image)(handle, info, allocator, image);
        if result == vk::Result::SUCCESS {
            let kept = Image {
                is_optimal: (*info).tiling != vk::ImageTiling::LINEAR,
                is_disjoint: (*info).flags.contains(vk::ImageCreateFlags::DISJOINT),
                types: types_of_image(&*info),
                own: None,
            };
            device.kept.images().insert((*image).as_raw(), kept);
        }
        result
    }
}

unsafe extern "system" fn destroy_image(
    handle: vk::Device,
    image: vk::Image,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    let device = Device::get(handle);
    let kept = device.kept.images().remove(&image.as_raw());
    // SAFETY: the caller's promise; only this image uses its own memory.
    unsafe {
        (device.next.core.destroy_image)(handle, image, allocator);
        if let Some(own) = kept.and_then(|kept| kept.own) {
            (device.next.core.free_memory)(handle, own, std::ptr::null());
        }
    }
}

/// The memory and the offset where an image really lies after it is bound to `memory` at `offset`.
fn place(
    device: &Device,
    image: vk::Image,
    memory: vk::DeviceMemory,
    offset: vk::DeviceSize,
) -> Result<(vk::DeviceMemory, vk::DeviceSize), vk::Result> {
    let (kind, is_imported) = match device.kept.memories().get(&memory.as_raw()) {
        Some(memory) => (memory.kind, memory.is_imported),
        // The memory is a swapchain's.
        None => return Ok((memory, offset)),
    };
    let mut images = device.kept.images();
    let Some(kept) = images.get_mut(&image.as_raw()) else {
        return Ok((memory, offset));
    };
    if kept.types & 1 << kind == 0 {
        complain(format_args!(
            "an image of types {:#b} is bound to memory of type {kind}",
            kept.types
        ));
        return Err(vk::Result::ERROR_UNKNOWN);
    }
    if !is_imported || !kept.is_optimal || kept.is_disjoint {
        return Ok((memory, offset));
    }
    if !Mode::get().is_moltenvk() {
        complain(format_args!(
            "an image with optimal tiling is bound to imported memory: it has no texture"
        ));
        return Err(vk::Result::ERROR_UNKNOWN);
    }
    let mut needs = vk::MemoryRequirements::default();
    let mut own = vk::DeviceMemory::null();
    let core = &device.next.core;
    // SAFETY: the image is of this device, and the structs are valid.
    unsafe {
        (core.get_image_memory_requirements)(device.handle, image, &raw mut needs);
        let info = vk::MemoryAllocateInfo::default().allocation_size(needs.size);
        let allocate = core.allocate_memory;
        match allocate(
            device.handle,
            &raw const info,
            std::ptr::null(),
            &raw mut own,
        ) {
            vk::Result::SUCCESS => {
                kept.own = Some(own);
                Ok((own, 0))
            }
            error => Err(error),
        }
    }
}

unsafe extern "system" fn bind_image(
    handle: vk::Device,
    image: vk::Image,
    memory: vk::DeviceMemory,
    offset: vk::DeviceSize,
) -> vk::Result {
    let device = Device::get(handle);
    match place(&device, image, memory, offset) {
        // SAFETY: the caller's promise.
        Ok((memory, offset)) => unsafe {
            (device.next.core.bind_image_memory)(handle, image, memory, offset)
        },
        Err(error) => error,
    }
}

unsafe extern "system" fn bind_images(
    handle: vk::Device,
    count: u32,
    infos: *const vk::BindImageMemoryInfo<'_>,
) -> vk::Result {
    let device = Device::get(handle);
    // SAFETY: the caller's promise.
    let mut infos = unsafe { std::slice::from_raw_parts(infos, count as usize) }.to_vec();
    for info in &mut infos {
        match place(&device, info.image, info.memory, info.memory_offset) {
            Ok((memory, offset)) => (info.memory, info.memory_offset) = (memory, offset),
            Err(error) => return error,
        }
    }
    // SAFETY: as above.
    unsafe { (device.next.core11.bind_image_memory2)(handle, count, infos.as_ptr()) }
}

/// The memory types that a buffer can be bound to, as bits.
fn types_of_buffer() -> u32 {
    match Mode::get().is_moltenvk() {
        true => 1 << PRIVATE | 1 << SHARED,
        false => 1,
    }
}

unsafe extern "system" fn of_buffer(
    handle: vk::Device,
    buffer: vk::Buffer,
    needs: *mut vk::MemoryRequirements,
) {
    let device = Device::get(handle);
    // SAFETY: the caller's promise.
    unsafe {
        (device.next.core.get_buffer_memory_requirements)(handle, buffer, needs);
        (*needs).memory_type_bits = types_of_buffer();
    }
}

unsafe extern "system" fn of_buffer2(
    handle: vk::Device,
    info: *const vk::BufferMemoryRequirementsInfo2<'_>,
    needs: *mut vk::MemoryRequirements2<'_>,
) {
    let device = Device::get(handle);
    // SAFETY: the caller's promise.
    unsafe {
        (device.next.core11.get_buffer_memory_requirements2)(handle, info, needs);
        (*needs).memory_requirements.memory_type_bits = types_of_buffer();
    }
}

unsafe extern "system" fn of_new_buffer(
    handle: vk::Device,
    info: *const vk::DeviceBufferMemoryRequirements<'_>,
    needs: *mut vk::MemoryRequirements2<'_>,
) {
    let device = Device::get(handle);
    // SAFETY: the caller's promise.
    unsafe {
        (device.next.core13.get_device_buffer_memory_requirements)(handle, info, needs);
        (*needs).memory_requirements.memory_type_bits = types_of_buffer();
    }
}

/// The memory types of an image that exists.
fn types_of(device: &Device, image: vk::Image) -> u32 {
    let kept = device.kept.images();
    kept.get(&image.as_raw())
        .map_or(types_of_buffer(), |image| image.types)
}

unsafe extern "system" fn of_image(
    handle: vk::Device,
    image: vk::Image,
    needs: *mut vk::MemoryRequirements,
) {
    let device = Device::get(handle);
    // SAFETY: the caller's promise.
    unsafe {
        (device.next.core.get_image_memory_requirements)(handle, image, needs);
        (*needs).memory_type_bits = types_of(&device, image);
    }
}

unsafe extern "system" fn of_image2(
    handle: vk::Device,
    info: *const vk::ImageMemoryRequirementsInfo2<'_>,
    needs: *mut vk::MemoryRequirements2<'_>,
) {
    let device = Device::get(handle);
    // SAFETY: the caller's promise.
    unsafe {
        (device.next.core11.get_image_memory_requirements2)(handle, info, needs);
        (*needs).memory_requirements.memory_type_bits = types_of(&device, (*info).image);
    }
}

unsafe extern "system" fn of_new_image(
    handle: vk::Device,
    info: *const vk::DeviceImageMemoryRequirements<'_>,
    needs: *mut vk::MemoryRequirements2<'_>,
) {
    let device = Device::get(handle);
    // SAFETY: the caller's promise.
    unsafe {
        (device.next.core13.get_device_image_memory_requirements)(handle, info, needs);
        let types = types_of_image(&*(*info).p_create_info);
        (*needs).memory_requirements.memory_type_bits = types;
    }
}
