//! The layer's instances and devices, and the next layer of each.
//!
//! The layer for measurements (`tests/benchmarks/layer`) shares this file. Each of the two crates
//! says in its `OfDevice` what it keeps of a device, and how it changes what a device is created
//! with.

use std::collections::HashMap;
use std::ffi::{CStr, c_char};
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use ash::vk::{self, Handle};

use crate::loader::{DeviceLink, Find, InstanceLink, take_link};
use crate::{Function, OfDevice};

/// An instance or a device of the next layer.
#[derive(Clone, Copy)]
pub(crate) struct Next<H> {
    pub(crate) handle: H,
    find: Find<H>,
}

/// An instance of the next layer.
pub(crate) type NextInstance = Next<vk::Instance>;

/// A device of the next layer.
pub(crate) struct NextDevice {
    pub(crate) functions: Next<vk::Device>,
    /// What this layer keeps of it.
    pub(crate) own: OfDevice,
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

impl<H: Copy> Next<H> {
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
        let call = |info: &vk::DeviceCreateInfo<'_>| create(physical, info, allocator, out);
        let result = OfDevice::create(next, physical, &*info, call);
        if result == vk::Result::SUCCESS {
            let functions = Next {
                handle: *out,
                find: link.find,
            };
            let own = OfDevice::new(next, physical, functions);
            put(&DEVICES, key(*out), Arc::new(NextDevice { functions, own }));
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
        let Some(known) = take(&DEVICES, key(device)) else {
            return;
        };
        let next = known.functions;
        if let Some(destroy) = next.typed::<vk::PFN_vkDestroyDevice>(c"vkDestroyDevice") {
            destroy(device, allocator);
        }
    }
}
