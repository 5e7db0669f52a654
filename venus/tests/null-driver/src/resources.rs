//! Memory, and the buffers and images that are bound to it.

use std::ffi::c_void;

use ash::vk::{self, ObjectType};

use crate::card::table;
use crate::device::{BUFFER, DEVICE, create, destroy_one};
use crate::limits::within;
use crate::memory::{array, pages, touch, touch_info, walk};
use crate::objects::{check, destroy, make};
use crate::{Function, function, violation};

const MEMORY: i32 = ObjectType::DEVICE_MEMORY.as_raw();
const IMAGE: i32 = ObjectType::IMAGE.as_raw();

pub(crate) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "vkAllocateMemory" => {
            function!(allocate, (u64, *const vk::MemoryAllocateInfo<'_>, *const c_void, *mut u64) -> vk::Result)
        }
        "vkFreeMemory" => function!(free, (u64, u64, *const c_void)),
        "vkGetMemoryHostPointerPropertiesEXT" => {
            function!(host_pointer, (u64, u32, *const c_void, *mut vk::MemoryHostPointerPropertiesEXT<'_>) -> vk::Result)
        }
        "vkCreateBuffer" => {
            function!(create_buffer, (u64, *const vk::BufferCreateInfo<'_>, *const c_void, *mut u64) -> vk::Result)
        }
        "vkDestroyBuffer" => function!(destroy_buffer, (u64, u64, *const c_void)),
        "vkCreateImage" => {
            function!(create_image, (u64, *const vk::ImageCreateInfo<'_>, *const c_void, *mut u64) -> vk::Result)
        }
        "vkDestroyImage" => function!(destroy_image, (u64, u64, *const c_void)),
        "vkBindBufferMemory" => function!(bind_buffer, (u64, u64, u64, u64) -> vk::Result),
        "vkBindImageMemory" => function!(bind_image, (u64, u64, u64, u64) -> vk::Result),
        "vkGetBufferMemoryRequirements" => {
            function!(buffer_requirements, (u64, u64, *mut vk::MemoryRequirements))
        }
        "vkGetBufferMemoryRequirements2" => function!(
            buffer_requirements2,
            (
                u64,
                *const vk::BufferMemoryRequirementsInfo2<'_>,
                *mut vk::MemoryRequirements2<'_>
            )
        ),
        "vkGetImageMemoryRequirements" => {
            function!(image_requirements, (u64, u64, *mut vk::MemoryRequirements))
        }
        "vkGetImageMemoryRequirements2" => function!(
            image_requirements2,
            (
                u64,
                *const vk::ImageMemoryRequirementsInfo2<'_>,
                *mut vk::MemoryRequirements2<'_>
            )
        ),
        "vkGetDeviceBufferMemoryRequirements" => function!(
            device_buffer_requirements,
            (
                u64,
                *const vk::DeviceBufferMemoryRequirements<'_>,
                *mut vk::MemoryRequirements2<'_>
            )
        ),
        "vkGetDeviceImageMemoryRequirements" => function!(
            device_image_requirements,
            (
                u64,
                *const vk::DeviceImageMemoryRequirements<'_>,
                *mut vk::MemoryRequirements2<'_>
            )
        ),
        _ => return None,
    })
}

unsafe extern "system" fn allocate(
    device: u64,
    info: *const vk::MemoryAllocateInfo<'_>,
    _: *const c_void,
    out: *mut u64,
) -> vk::Result {
    check(DEVICE, device);
    let mut imported = None;
    // SAFETY: the caller's promise; structs are known by their types.
    unsafe {
        touch_info(info.cast());
        walk((*info).p_next, |link| {
            if (*link).s_type == vk::StructureType::IMPORT_MEMORY_HOST_POINTER_INFO_EXT {
                let import = link.cast::<vk::ImportMemoryHostPointerInfoEXT<'_>>();
                imported = Some((*import).p_host_pointer);
            }
        });
        let (size, index) = ((*info).allocation_size, (*info).memory_type_index);
        let mut table = table();
        if table.card.heap(index).is_none() {
            violation(&format!("there is no memory type {index}"));
        }
        if imported.is_some() && table.card.importable >> index & 1 == 0 {
            violation(&format!("host memory is imported as type {index}"));
        }
        // Imported pages of the host take nothing of a heap.
        if imported.is_none() && table.take(index, size).is_none() {
            return vk::Result::ERROR_OUT_OF_DEVICE_MEMORY;
        }
        *out = make(MEMORY, device);
        pages().sizes.insert(*out, size);
        if let Some(start) = imported {
            // Read only the ends: otherwise all pages in between would be made.
            touch(start.cast::<u8>(), 1);
            touch(
                start
                    .cast::<u8>()
                    .wrapping_add(size.saturating_sub(1) as usize),
                1,
            );
            pages().memories.insert(*out, (start as usize, size));
        } else {
            pages().taken.insert(*out, (index, size));
        }
    }
    vk::Result::SUCCESS
}

unsafe extern "system" fn free(device: u64, memory: u64, _: *const c_void) {
    check(DEVICE, device);
    if memory != 0 {
        destroy(MEMORY, memory, &[]);
        let taken = {
            let mut pages = pages();
            pages.memories.remove(&memory);
            pages.sizes.remove(&memory);
            pages.taken.remove(&memory)
        };
        if let Some((index, bytes)) = taken {
            table().give_back(index, bytes);
        }
    }
}

unsafe extern "system" fn host_pointer(
    device: u64,
    _kind: u32,
    pointer: *const c_void,
    out: *mut vk::MemoryHostPointerPropertiesEXT<'_>,
) -> vk::Result {
    check(DEVICE, device);
    // SAFETY: the caller's promise.
    unsafe {
        touch(pointer.cast::<u8>(), 1);
        (*out).memory_type_bits = table().card.importable;
    }
    vk::Result::SUCCESS
}

unsafe extern "system" fn create_buffer(
    device: u64,
    info: *const vk::BufferCreateInfo<'_>,
    allocator: *const c_void,
    out: *mut u64,
) -> vk::Result {
    // SAFETY: the caller's promise.
    unsafe {
        let result = create::<BUFFER>(device, info.cast(), allocator, out);
        // Otherwise it is ignored, whatever its count.
        if (*info).sharing_mode == vk::SharingMode::CONCURRENT
            && !(*info).p_queue_family_indices.is_null()
        {
            array(
                (*info).p_queue_family_indices,
                (*info).queue_family_index_count,
            );
        }
        pages().buffers.insert(*out, (*info).size);
        result
    }
}

unsafe extern "system" fn destroy_buffer(device: u64, buffer: u64, allocator: *const c_void) {
    // SAFETY: the caller's promise.
    unsafe { destroy_one::<BUFFER>(device, buffer, allocator) };
    let mut pages = pages();
    pages.buffers.remove(&buffer);
    pages.bindings.remove(&buffer);
}

/// Bytes of an image: four for each texel of its first level.
fn image_size(info: &vk::ImageCreateInfo<'_>) -> u64 {
    let extent = info.extent;
    [extent.height, extent.depth, info.array_layers, 4]
        .into_iter()
        .fold(u64::from(extent.width), |size, factor| {
            size.saturating_mul(factor.into())
        })
}

unsafe extern "system" fn create_image(
    device: u64,
    info: *const vk::ImageCreateInfo<'_>,
    allocator: *const c_void,
    out: *mut u64,
) -> vk::Result {
    // SAFETY: the caller's promise.
    unsafe {
        crate::known_format((*info).format);
        let result = create::<IMAGE>(device, info.cast(), allocator, out);
        pages().images.insert(*out, image_size(&*info));
        result
    }
}

unsafe extern "system" fn destroy_image(device: u64, image: u64, allocator: *const c_void) {
    // SAFETY: the caller's promise.
    unsafe { destroy_one::<IMAGE>(device, image, allocator) };
    let mut pages = pages();
    pages.images.remove(&image);
    pages.bindings.remove(&image);
}

/// Ends the process unless memory has room for what is bound to it.
fn bind(memory: u64, offset: u64, size: Option<u64>) {
    let known = pages().sizes.get(&memory).copied();
    let known = known.unwrap_or(0);
    within("bytes of a memory", offset, size.unwrap_or(0), known);
}

unsafe extern "system" fn bind_buffer(
    device: u64,
    buffer: u64,
    memory: u64,
    offset: u64,
) -> vk::Result {
    check(DEVICE, device);
    check(BUFFER, buffer);
    check(MEMORY, memory);
    let size = pages().buffers.get(&buffer).copied();
    bind(memory, offset, size);
    pages().bindings.insert(buffer, (memory, offset));
    vk::Result::SUCCESS
}

unsafe extern "system" fn bind_image(
    device: u64,
    image: u64,
    memory: u64,
    offset: u64,
) -> vk::Result {
    check(DEVICE, device);
    check(IMAGE, image);
    check(MEMORY, memory);
    let size = pages().images.get(&image).copied();
    bind(memory, offset, size);
    pages().bindings.insert(image, (memory, offset));
    vk::Result::SUCCESS
}

fn of_buffer(size: u64) -> vk::MemoryRequirements {
    vk::MemoryRequirements {
        size,
        alignment: 16,
        memory_type_bits: table().card.buffers,
    }
}

fn of_image(size: u64) -> vk::MemoryRequirements {
    vk::MemoryRequirements {
        size,
        alignment: 4096,
        memory_type_bits: table().card.images,
    }
}

unsafe extern "system" fn buffer_requirements(
    device: u64,
    buffer: u64,
    out: *mut vk::MemoryRequirements,
) {
    check(DEVICE, device);
    check(BUFFER, buffer);
    let size = pages().buffers.get(&buffer).copied().unwrap_or(0);
    // SAFETY: the caller's promise.
    unsafe { *out = of_buffer(size) };
}

unsafe extern "system" fn buffer_requirements2(
    device: u64,
    info: *const vk::BufferMemoryRequirementsInfo2<'_>,
    out: *mut vk::MemoryRequirements2<'_>,
) {
    use vk::Handle as _;
    // SAFETY: the caller's promise.
    unsafe {
        touch_info(info.cast());
        buffer_requirements(
            device,
            (*info).buffer.as_raw(),
            &raw mut (*out).memory_requirements,
        );
    }
}

unsafe extern "system" fn image_requirements(
    device: u64,
    image: u64,
    out: *mut vk::MemoryRequirements,
) {
    check(DEVICE, device);
    check(IMAGE, image);
    let size = pages().images.get(&image).copied().unwrap_or(0);
    // SAFETY: the caller's promise.
    unsafe { *out = of_image(size) };
}

unsafe extern "system" fn image_requirements2(
    device: u64,
    info: *const vk::ImageMemoryRequirementsInfo2<'_>,
    out: *mut vk::MemoryRequirements2<'_>,
) {
    use vk::Handle as _;
    // SAFETY: the caller's promise.
    unsafe {
        touch_info(info.cast());
        image_requirements(
            device,
            (*info).image.as_raw(),
            &raw mut (*out).memory_requirements,
        );
    }
}

unsafe extern "system" fn device_buffer_requirements(
    device: u64,
    info: *const vk::DeviceBufferMemoryRequirements<'_>,
    out: *mut vk::MemoryRequirements2<'_>,
) {
    check(DEVICE, device);
    // SAFETY: the caller's promise.
    unsafe {
        touch_info(info.cast());
        touch_info((*info).p_create_info.cast());
        (*out).memory_requirements = of_buffer((*(*info).p_create_info).size);
    }
}

unsafe extern "system" fn device_image_requirements(
    device: u64,
    info: *const vk::DeviceImageMemoryRequirements<'_>,
    out: *mut vk::MemoryRequirements2<'_>,
) {
    check(DEVICE, device);
    // SAFETY: the caller's promise.
    unsafe {
        touch_info(info.cast());
        touch_info((*info).p_create_info.cast());
        (*out).memory_requirements = of_image(image_size(&*(*info).p_create_info));
    }
}
