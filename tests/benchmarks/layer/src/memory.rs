//! Exportable memory from a driver that can only import host memory.
//!
//! An exportable allocation becomes a memfd. The driver imports our mapping of it
//! (`VK_EXT_external_memory_host`). `vkGetMemoryFdKHR` returns the memfd, as a dma-buf or as an
//! opaque descriptor. A memfd is no dma-buf, but a renderer that only maps it sees no difference.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_void};
use std::os::fd::{IntoRawFd, OwnedFd};
use std::ptr::{NonNull, null, null_mut};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ash::vk;
use rustix::fs::{MemfdFlags, ftruncate, memfd_create};
use rustix::io::fcntl_dupfd_cloexec;
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

use crate::chain::{NextInstance, of_device, of_instance};
use crate::{Function, function};

/// The alignment of imported host memory: lavapipe's limit, and the page size.
const ALIGNMENT: u64 = 4096;

/// The exportable handle types that this layer handles.
const EXPORTABLE: vk::ExternalMemoryHandleTypeFlags = vk::ExternalMemoryHandleTypeFlags::from_raw(
    vk::ExternalMemoryHandleTypeFlags::OPAQUE_FD.as_raw()
        | vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT.as_raw(),
);

/// The extension that the layer advertises even when the driver lacks it.
const DMA_BUF: &CStr = ash::ext::external_memory_dma_buf::NAME;
/// The driver's extension that the layer uses.
const HOST_MEMORY: &CStr = ash::ext::external_memory_host::NAME;

pub(crate) fn find(name: &CStr) -> Option<Function> {
    Some(match name.to_bytes() {
        b"vkEnumerateDeviceExtensionProperties" => {
            function!(
                list_extensions,
                vk::PFN_vkEnumerateDeviceExtensionProperties
            )
        }
        b"vkGetPhysicalDeviceExternalBufferProperties"
        | b"vkGetPhysicalDeviceExternalBufferPropertiesKHR" => function!(
            buffer_properties,
            vk::PFN_vkGetPhysicalDeviceExternalBufferProperties
        ),
        b"vkAllocateMemory" => function!(allocate, vk::PFN_vkAllocateMemory),
        b"vkFreeMemory" => function!(free, vk::PFN_vkFreeMemory),
        b"vkGetMemoryFdKHR" => function!(memory_fd, vk::PFN_vkGetMemoryFdKHR),
        _ => return None,
    })
}

/// A memfd and our mapping of it.
struct Pages {
    fd: OwnedFd,
    start: NonNull<c_void>,
    len: usize,
}

// SAFETY: the mapping is only passed on, never read or written here.
unsafe impl Send for Pages {}

impl Pages {
    fn new(size: u64) -> rustix::io::Result<Self> {
        let size = size.next_multiple_of(ALIGNMENT);
        let len = usize::try_from(size).map_err(|_| rustix::io::Errno::NOMEM)?;
        let fd = memfd_create(c"hesper-test-layer", MemfdFlags::CLOEXEC)?;
        ftruncate(&fd, size)?;
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping, placed where nothing else is.
        let start = unsafe { mmap(null_mut(), len, access, MapFlags::SHARED, &fd, 0) }?;
        let start = NonNull::new(start).ok_or(rustix::io::Errno::NOMEM)?;
        Ok(Self { fd, start, len })
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and the driver no longer uses it. Unmapping a whole mapping
        // cannot fail.
        let _ = unsafe { munmap(self.start.as_ptr(), self.len) };
    }
}

/// The exported memory of a device.
pub(crate) struct Memories {
    /// Memory types that are host-visible, as bits.
    visible: u32,
    pages: Mutex<HashMap<vk::DeviceMemory, Pages>>,
}

impl Memories {
    /// The bookkeeping for a device that is made from `physical`.
    ///
    /// # Safety
    /// The handle is valid.
    pub(crate) unsafe fn new(next: NextInstance, physical: vk::PhysicalDevice) -> Self {
        let mut properties = vk::PhysicalDeviceMemoryProperties::default();
        // SAFETY: the caller's promise.
        unsafe {
            if let Some(query) = next.typed::<vk::PFN_vkGetPhysicalDeviceMemoryProperties>(
                c"vkGetPhysicalDeviceMemoryProperties",
            ) {
                query(physical, &raw mut properties);
            }
        }
        let types = properties.memory_types_as_slice().iter().enumerate();
        let visible = types
            .filter(|(_, kind)| {
                let wanted = vk::MemoryPropertyFlags::HOST_VISIBLE;
                kind.property_flags.contains(wanted)
            })
            .fold(0, |bits, (index, _)| bits | 1 << index);
        Self {
            visible,
            pages: Mutex::default(),
        }
    }

    fn is_visible(&self, index: u32) -> bool {
        index < 32 && self.visible & 1 << index != 0
    }

    fn pages(&self) -> MutexGuard<'_, HashMap<vk::DeviceMemory, Pages>> {
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The driver's own extensions of a physical device.
///
/// # Safety
/// The handle is valid.
unsafe fn driver_extensions(
    next: NextInstance,
    physical: vk::PhysicalDevice,
) -> Result<Vec<vk::ExtensionProperties>, vk::Result> {
    let name = c"vkEnumerateDeviceExtensionProperties";
    // SAFETY: the caller's promise; the second call gets room for as many as the first one counted.
    unsafe {
        let list = next
            .typed::<vk::PFN_vkEnumerateDeviceExtensionProperties>(name)
            .ok_or(vk::Result::ERROR_INITIALIZATION_FAILED)?;
        let mut count = 0;
        list(physical, null(), &raw mut count, null_mut()).result()?;
        let mut all = vec![vk::ExtensionProperties::default(); count as usize];
        list(physical, null(), &raw mut count, all.as_mut_ptr()).result()?;
        Ok(all)
    }
}

fn has(all: &[vk::ExtensionProperties], name: &CStr) -> bool {
    all.iter()
        .any(|extension| extension.extension_name_as_c_str() == Ok(name))
}

/// The extensions to enable on the driver's device: those that the program asked for, without those
/// that only this layer has, and with host memory import.
///
/// # Safety
/// The handle and what `info` points to are valid.
pub(crate) unsafe fn device_extensions(
    next: NextInstance,
    physical: vk::PhysicalDevice,
    info: &vk::DeviceCreateInfo<'_>,
) -> Vec<*const c_char> {
    let wanted = match info.enabled_extension_count {
        0 => &[],
        // SAFETY: the caller's promise.
        count => unsafe {
            std::slice::from_raw_parts(info.pp_enabled_extension_names, count as usize)
        },
    };
    // SAFETY: the caller's promise.
    let drivers = unsafe { driver_extensions(next, physical) }.unwrap_or_default();
    let mut names: Vec<*const c_char> = wanted
        .iter()
        .copied()
        .filter(|&name| {
            // SAFETY: the caller's promise; names end with NUL.
            let name = unsafe { CStr::from_ptr(name) };
            name != HOST_MEMORY && (name != DMA_BUF || has(&drivers, DMA_BUF))
        })
        .collect();
    names.push(HOST_MEMORY.as_ptr());
    names
}

unsafe extern "system" fn list_extensions(
    physical: vk::PhysicalDevice,
    layer: *const c_char,
    count: *mut u32,
    out: *mut vk::ExtensionProperties,
) -> vk::Result {
    // SAFETY: the caller's promise.
    unsafe {
        let Some(next) = of_instance(physical) else {
            return vk::Result::ERROR_INITIALIZATION_FAILED;
        };
        // The caller asks for one layer's extensions. This layer has none of its own.
        if !layer.is_null() {
            let name = c"vkEnumerateDeviceExtensionProperties";
            return match next.typed::<vk::PFN_vkEnumerateDeviceExtensionProperties>(name) {
                Some(list) => list(physical, layer, count, out),
                None => vk::Result::ERROR_INITIALIZATION_FAILED,
            };
        }
        let mut all = match driver_extensions(next, physical) {
            Ok(all) => all,
            Err(error) => return error,
        };
        if !has(&all, DMA_BUF) {
            let extension = vk::ExtensionProperties::default().spec_version(1);
            // The name is shorter than the array.
            all.extend(extension.extension_name(DMA_BUF));
        }
        if out.is_null() {
            *count = all.len() as u32;
            return vk::Result::SUCCESS;
        }
        let room = all.len().min(*count as usize);
        out.copy_from_nonoverlapping(all.as_ptr(), room);
        *count = room as u32;
        if room < all.len() {
            vk::Result::INCOMPLETE
        } else {
            vk::Result::SUCCESS
        }
    }
}

unsafe extern "system" fn buffer_properties(
    physical: vk::PhysicalDevice,
    info: *const vk::PhysicalDeviceExternalBufferInfo<'_>,
    out: *mut vk::ExternalBufferProperties<'_>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let kind = (*info).handle_type;
        if EXPORTABLE.contains(kind) {
            (*out).external_memory_properties = vk::ExternalMemoryProperties {
                external_memory_features: vk::ExternalMemoryFeatureFlags::EXPORTABLE
                    | vk::ExternalMemoryFeatureFlags::IMPORTABLE,
                export_from_imported_handle_types: EXPORTABLE,
                compatible_handle_types: EXPORTABLE,
            };
            return;
        }
        let name = c"vkGetPhysicalDeviceExternalBufferProperties";
        let query = of_instance(physical).and_then(|next| {
            next.typed::<vk::PFN_vkGetPhysicalDeviceExternalBufferProperties>(name)
        });
        if let Some(query) = query {
            query(physical, info, out);
        }
    }
}

/// Finds the struct of type `kind` in a chain.
///
/// # Safety
/// The chain is valid, and `T` is the struct of type `kind`.
unsafe fn in_chain<'a, T>(chain: *const c_void, kind: vk::StructureType) -> Option<&'a T> {
    let mut at = chain.cast::<vk::BaseInStructure<'_>>();
    // SAFETY: the caller's promise.
    while let Some(link) = unsafe { at.as_ref() } {
        if link.s_type == kind {
            // SAFETY: the caller's promise.
            return unsafe { at.cast::<T>().as_ref() };
        }
        at = link.p_next;
    }
    None
}

unsafe extern "system" fn allocate(
    device: vk::Device,
    info: *const vk::MemoryAllocateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    out: *mut vk::DeviceMemory,
) -> vk::Result {
    // SAFETY: the caller's promise; the pages stay until the memory is freed.
    unsafe {
        let Some(next) = of_device(device) else {
            return vk::Result::ERROR_INITIALIZATION_FAILED;
        };
        let Some(allocate) = next
            .functions
            .typed::<vk::PFN_vkAllocateMemory>(c"vkAllocateMemory")
        else {
            return vk::Result::ERROR_INITIALIZATION_FAILED;
        };
        let chain = (*info).p_next;
        let export = in_chain::<vk::ExportMemoryAllocateInfo<'_>>(
            chain,
            vk::StructureType::EXPORT_MEMORY_ALLOCATE_INFO,
        );
        let is_exported = export.is_some_and(|export| export.handle_types.intersects(EXPORTABLE))
            && next.own.0.is_visible((*info).memory_type_index);
        if !is_exported {
            return allocate(device, info, allocator, out);
        }
        let Ok(pages) = Pages::new((*info).allocation_size) else {
            return vk::Result::ERROR_OUT_OF_HOST_MEMORY;
        };
        let mut import = vk::ImportMemoryHostPointerInfoEXT::default()
            .handle_type(vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT)
            .host_pointer(pages.start.as_ptr());
        let mut flags = vk::MemoryAllocateFlagsInfo::default();
        let mut ours = vk::MemoryAllocateInfo::default()
            .allocation_size(pages.len as u64)
            .memory_type_index((*info).memory_type_index)
            .push_next(&mut import);
        // Imported memory needs only this struct of the rest of the chain.
        let kind = vk::StructureType::MEMORY_ALLOCATE_FLAGS_INFO;
        if let Some(wanted) = in_chain::<vk::MemoryAllocateFlagsInfo<'_>>(chain, kind) {
            flags.flags = wanted.flags;
            flags.device_mask = wanted.device_mask;
            ours = ours.push_next(&mut flags);
        }
        let result = allocate(device, &raw const ours, allocator, out);
        if result == vk::Result::SUCCESS {
            next.own.0.pages().insert(*out, pages);
        }
        result
    }
}

unsafe extern "system" fn free(
    device: vk::Device,
    memory: vk::DeviceMemory,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let Some(next) = of_device(device) else {
            return;
        };
        // The pages leave the map before the handle can be reused, and are dropped after the driver
        // has released them.
        let pages = next.own.0.pages().remove(&memory);
        if let Some(free) = next
            .functions
            .typed::<vk::PFN_vkFreeMemory>(c"vkFreeMemory")
        {
            free(device, memory, allocator);
        }
        drop(pages);
    }
}

unsafe extern "system" fn memory_fd(
    device: vk::Device,
    info: *const vk::MemoryGetFdInfoKHR<'_>,
    out: *mut i32,
) -> vk::Result {
    // SAFETY: the caller's promise.
    unsafe {
        let Some(next) = of_device(device) else {
            return vk::Result::ERROR_INITIALIZATION_FAILED;
        };
        if let Some(pages) = next.own.0.pages().get(&(*info).memory) {
            return match fcntl_dupfd_cloexec(&pages.fd, 3) {
                Ok(fd) => {
                    *out = fd.into_raw_fd();
                    vk::Result::SUCCESS
                }
                Err(_) => vk::Result::ERROR_TOO_MANY_OBJECTS,
            };
        }
        match next
            .functions
            .typed::<vk::PFN_vkGetMemoryFdKHR>(c"vkGetMemoryFdKHR")
        {
            Some(get) => get(device, info, out),
            None => vk::Result::ERROR_INITIALIZATION_FAILED,
        }
    }
}
