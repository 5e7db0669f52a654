//! Loads lavapipe's library and its functions.

use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use ash::vk;

use crate::{Function, complain};

/// The wrapped driver, by the name that the dynamic linker finds.
const WRAPPED: &CStr = c"libvulkan_lvp.so";

type GetInstanceFunction =
    unsafe extern "system" fn(vk::Instance, *const c_char) -> Option<Function>;
type Negotiate = unsafe extern "system" fn(*mut u32) -> vk::Result;

/// A function that lavapipe's library exports; null when there is no lavapipe.
fn exported(name: &CStr) -> *mut c_void {
    static LIBRARY: OnceLock<usize> = OnceLock::new();
    // SAFETY: the name ends with NUL; lavapipe's initialisers are those of any driver.
    let open = || unsafe { libc::dlopen(WRAPPED.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    let library = *LIBRARY.get_or_init(|| open().addr()) as *mut c_void;
    if library.is_null() {
        complain(format_args!("there is no {WRAPPED:?}"));
        return library;
    }
    // SAFETY: the library is open and stays so.
    unsafe { libc::dlsym(library, name.as_ptr()) }
}

/// lavapipe's `vk_icdNegotiateLoaderICDInterfaceVersion`.
///
/// # Safety
/// `version` can be written.
pub(crate) unsafe fn negotiate(version: *mut u32) -> vk::Result {
    let negotiate = exported(c"vk_icdNegotiateLoaderICDInterfaceVersion");
    // SAFETY: a function of this name has this type; null is `None`.
    let negotiate: Option<Negotiate> = unsafe { std::mem::transmute(negotiate) };
    match negotiate {
        // SAFETY: the caller's promise.
        Some(negotiate) => unsafe { negotiate(version) },
        None => vk::Result::ERROR_INCOMPATIBLE_DRIVER,
    }
}

/// lavapipe's function of this name, for an instance that is null or alive.
pub(crate) fn instance_function(instance: vk::Instance, name: &CStr) -> Option<Function> {
    let get = exported(c"vk_icdGetInstanceProcAddr");
    // SAFETY: a function of this name has this type; null is `None`.
    let get: Option<GetInstanceFunction> = unsafe { std::mem::transmute(get) };
    // SAFETY: the caller's promise: the instance is null or alive.
    unsafe { get?(instance, name.as_ptr()) }
}

/// lavapipe's instance functions. They are the same for all instances.
pub(crate) struct Instance {
    pub(crate) core: ash::InstanceFnV1_0,
    pub(crate) core11: ash::InstanceFnV1_1,
    pub(crate) surface: ash::khr::surface::InstanceFn,
}

static INSTANCE: RwLock<Option<Arc<Instance>>> = RwLock::new(None);

/// Loads the functions of a new instance.
pub(crate) fn remember_instance(instance: vk::Instance) {
    let get = |name: &CStr| {
        let found = instance_function(instance, name);
        found.map_or(std::ptr::null(), |found| found as *const c_void)
    };
    let loaded = Instance {
        core: ash::InstanceFnV1_0::load(get),
        core11: ash::InstanceFnV1_1::load(get),
        surface: ash::khr::surface::InstanceFn::load(get),
    };
    *INSTANCE.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::new(loaded));
}

/// The functions of the newest instance.
pub(crate) fn instance() -> Arc<Instance> {
    let known = INSTANCE.read().unwrap_or_else(PoisonError::into_inner);
    match &*known {
        Some(known) => Arc::clone(known),
        None => {
            complain(format_args!("a physical device without an instance"));
            std::process::abort()
        }
    }
}

/// lavapipe's function of this name, for a device that is alive.
pub(crate) fn device_function(device: vk::Device, name: &CStr) -> Option<Function> {
    let instance = instance();
    let get = instance.core.get_device_proc_addr;
    // SAFETY: the device is alive, and the name ends with NUL.
    unsafe { get(device, name.as_ptr()) }
}

/// lavapipe's device functions.
pub(crate) struct Functions {
    pub(crate) core: ash::DeviceFnV1_0,
    pub(crate) core11: ash::DeviceFnV1_1,
    pub(crate) core13: ash::DeviceFnV1_3,
    pub(crate) host_memory: ash::ext::external_memory_host::DeviceFn,
    pub(crate) swapchain: ash::khr::swapchain::DeviceFn,
    pub(crate) map2: ash::khr::map_memory2::DeviceFn,
    pub(crate) labels: ash::ext::debug_utils::DeviceFn,
}

impl Functions {
    pub(crate) fn load(device: vk::Device) -> Self {
        let named = |name: &CStr| {
            let found = device_function(device, name);
            found.map_or(std::ptr::null(), |found| found as *const c_void)
        };
        // Falls back to the extension's name, for a program that asked for a Vulkan version without
        // this function in its core.
        let get = |name: &CStr| {
            let found = named(name);
            let older = [name.to_bytes(), b"KHR"].concat();
            match CString::new(older) {
                Ok(older) if found.is_null() => named(&older),
                _ => found,
            }
        };
        // Falls back to the core name, which the function has since Vulkan 1.4.
        let newer = |name: &CStr| {
            let found = named(name);
            let core = name.to_bytes().strip_suffix(b"KHR").map(CString::new);
            match core {
                Some(Ok(core)) if found.is_null() => named(&core),
                _ => found,
            }
        };
        Self {
            core: ash::DeviceFnV1_0::load(get),
            core11: ash::DeviceFnV1_1::load(get),
            core13: ash::DeviceFnV1_3::load(get),
            host_memory: ash::ext::external_memory_host::DeviceFn::load(named),
            swapchain: ash::khr::swapchain::DeviceFn::load(named),
            map2: ash::khr::map_memory2::DeviceFn::load(newer),
            labels: ash::ext::debug_utils::DeviceFn::load(named),
        }
    }
}
