//! The layer's instances and devices, and the next layer of each.

use std::collections::HashMap;
use std::ffi::{CStr, c_char};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use ash::vk::{self, Handle};

use crate::Function;
use crate::loader::{DeviceLink, Find, InstanceLink, take_link};
use crate::wait::Waits;

/// An instance of the next layer.
#[derive(Clone, Copy)]
pub(crate) struct NextInstance {
    pub(crate) handle: vk::Instance,
    find: Find<vk::Instance>,
}

/// A device of the next layer.
pub(crate) struct NextDevice {
    handle: vk::Device,
    find: Find<vk::Device>,
    /// Whether the layer does anything for this device.
    pub(crate) looks: bool,
    /// What is known of its waits.
    pub(crate) waits: Waits,
    pub(crate) wait_for_fences: Option<vk::PFN_vkWaitForFences>,
    pub(crate) wait_semaphores: Option<vk::PFN_vkWaitSemaphores>,
}

type Map<T> = LazyLock<RwLock<HashMap<usize, T>>>;
static INSTANCES: Map<NextInstance> = LazyLock::new(RwLock::default);
static DEVICES: Map<Arc<NextDevice>> = LazyLock::new(RwLock::default);

/// The loader's dispatch key: the first word of a dispatchable handle. All handles of one instance,
/// or of one device, have the same.
///
/// # Safety
/// The handle is valid, and came from the loader.
unsafe fn key(handle: impl Handle) -> usize {
    // SAFETY: the caller's promise.
    unsafe { *(handle.as_raw() as *const usize) }
}

fn get<T: Clone>(map: &Map<T>, key: usize) -> Option<T> {
    let map = map.read().unwrap_or_else(PoisonError::into_inner);
    map.get(&key).cloned()
}

fn put<T>(map: &Map<T>, key: usize, value: T) {
    let mut map = map.write().unwrap_or_else(PoisonError::into_inner);
    map.insert(key, value);
}

fn take<T>(map: &Map<T>, key: usize) -> Option<T> {
    let mut map = map.write().unwrap_or_else(PoisonError::into_inner);
    map.remove(&key)
}

/// The next layer of an instance or of one of its physical devices.
///
/// # Safety
/// The handle is valid.
pub(crate) unsafe fn of_instance(handle: impl Handle) -> Option<NextInstance> {
    // SAFETY: the caller's promise.
    get(&INSTANCES, unsafe { key(handle) })
}

/// The next layer of a device.
///
/// # Safety
/// The handle is valid.
pub(crate) unsafe fn of_device(device: vk::Device) -> Option<Arc<NextDevice>> {
    // SAFETY: the caller's promise.
    get(&DEVICES, unsafe { key(device) })
}

impl NextInstance {
    /// The next layer's function of this name.
    ///
    /// # Safety
    /// `name` ends with NUL.
    pub(crate) unsafe fn function(&self, name: *const c_char) -> Option<Function> {
        // SAFETY: the handle is alive as long as it is in the map.
        unsafe { (self.find)(self.handle, name) }
    }

    /// The next layer's function of this name, cast to its own type.
    ///
    /// # Safety
    /// `F` is the type of the function `name`.
    pub(crate) unsafe fn typed<F>(&self, name: &CStr) -> Option<F> {
        // SAFETY: the caller's promise; both are function pointers.
        unsafe {
            self.function(name.as_ptr())
                .map(|f| std::mem::transmute_copy(&f))
        }
    }
}

impl NextDevice {
    /// # Safety
    /// `find` finds functions of this device.
    unsafe fn new(handle: vk::Device, find: Find<vk::Device>, looks: bool) -> Self {
        let mut device = Self {
            handle,
            find,
            looks,
            waits: Waits::default(),
            wait_for_fences: None,
            wait_semaphores: None,
        };
        // SAFETY: these are the functions' types.
        unsafe {
            device.wait_for_fences = device.typed(c"vkWaitForFences");
            let semaphores = device.typed(c"vkWaitSemaphores");
            device.wait_semaphores = semaphores.or_else(|| device.typed(c"vkWaitSemaphoresKHR"));
        }
        device
    }

    /// The next layer's function of this name.
    ///
    /// # Safety
    /// `name` ends with NUL.
    pub(crate) unsafe fn function(&self, name: *const c_char) -> Option<Function> {
        // SAFETY: the handle is alive as long as it is in the map.
        unsafe { (self.find)(self.handle, name) }
    }

    /// The next layer's function of this name, cast to its own type.
    ///
    /// # Safety
    /// `F` is the type of the function `name`.
    pub(crate) unsafe fn typed<F>(&self, name: &CStr) -> Option<F> {
        // SAFETY: the caller's promise; both are function pointers.
        unsafe {
            self.function(name.as_ptr())
                .map(|f| std::mem::transmute_copy(&f))
        }
    }
}

pub(crate) unsafe extern "system" fn create_instance(
    info: *const vk::InstanceCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    out: *mut vk::Instance,
) -> vk::Result {
    // SAFETY: the caller is the loader or a layer before this one, and follows Vulkan's rules.
    unsafe {
        let Some(link) = take_link::<InstanceLink>((*info).p_next) else {
            return vk::Result::ERROR_INITIALIZATION_FAILED;
        };
        let create = (link.find)(vk::Instance::null(), c"vkCreateInstance".as_ptr());
        let Some(create) = create else {
            return vk::Result::ERROR_INITIALIZATION_FAILED;
        };
        let create = std::mem::transmute::<Function, vk::PFN_vkCreateInstance>(create);
        let result = create(info, allocator, out);
        if result == vk::Result::SUCCESS {
            let next = NextInstance {
                handle: *out,
                find: link.find,
            };
            put(&INSTANCES, key(*out), next);
        }
        result
    }
}

pub(crate) unsafe extern "system" fn destroy_instance(
    instance: vk::Instance,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    if instance == vk::Instance::null() {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let Some(next) = take(&INSTANCES, key(instance)) else {
            return;
        };
        if let Some(destroy) = next.typed::<vk::PFN_vkDestroyInstance>(c"vkDestroyInstance") {
            destroy(instance, allocator);
        }
    }
}

/// Whether Mesa's Venus drives the GPU. It says so in the GPU's name.
///
/// # Safety
/// The handle is valid.
unsafe fn is_venus(instance: NextInstance, physical: vk::PhysicalDevice) -> bool {
    // SAFETY: the caller's promise; this is the function's type.
    unsafe {
        let name = c"vkGetPhysicalDeviceProperties";
        let get = instance.typed::<vk::PFN_vkGetPhysicalDeviceProperties>(name);
        let Some(get) = get else {
            return false;
        };
        let mut properties = vk::PhysicalDeviceProperties::default();
        get(physical, &raw mut properties);
        let name = properties.device_name_as_c_str();
        name.is_ok_and(|name| name.to_bytes().starts_with(b"Virtio-GPU Venus"))
    }
}

/// Whether a thread can look while another one does the work.
fn has_processors() -> bool {
    std::thread::available_parallelism().is_ok_and(|processors| processors.get() > 1)
}

pub(crate) unsafe extern "system" fn create_device(
    physical: vk::PhysicalDevice,
    info: *const vk::DeviceCreateInfo<'_>,
    allocator: *const vk::AllocationCallbacks<'_>,
    out: *mut vk::Device,
) -> vk::Result {
    // SAFETY: as for instances. The link is taken first, because the loader relies on that.
    unsafe {
        let link = take_link::<DeviceLink>((*info).p_next);
        let (Some(link), Some(next)) = (link, of_instance(physical)) else {
            return vk::Result::ERROR_INITIALIZATION_FAILED;
        };
        let create = (link.find_instance)(next.handle, c"vkCreateDevice".as_ptr());
        let Some(create) = create else {
            return vk::Result::ERROR_INITIALIZATION_FAILED;
        };
        let create = std::mem::transmute::<Function, vk::PFN_vkCreateDevice>(create);
        let result = create(physical, info, allocator, out);
        if result == vk::Result::SUCCESS {
            let looks = is_venus(next, physical) && has_processors();
            let device = NextDevice::new(*out, link.find, looks);
            put(&DEVICES, key(*out), Arc::new(device));
        }
        result
    }
}

pub(crate) unsafe extern "system" fn destroy_device(
    device: vk::Device,
    allocator: *const vk::AllocationCallbacks<'_>,
) {
    if device == vk::Device::null() {
        return;
    }
    // SAFETY: the caller's promise.
    unsafe {
        let Some(next) = take(&DEVICES, key(device)) else {
            return;
        };
        if let Some(destroy) = next.typed::<vk::PFN_vkDestroyDevice>(c"vkDestroyDevice") {
            destroy(device, allocator);
        }
    }
}
