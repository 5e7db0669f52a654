//! lavapipe, for drivers that wrap it. They include this file, and their function `replace` gets
//! each function of lavapipe with its name, and returns what the loader gets instead.

use std::ffi::{CStr, c_char, c_void};
use std::sync::OnceLock;

use ash::vk;

/// The wrapped driver, by the name that the dynamic linker finds.
const WRAPPED: &CStr = c"libvulkan_lvp.so";

/// A function of Vulkan before it is cast to its own type.
pub(crate) type Function = unsafe extern "system" fn();
type GetFunction = unsafe extern "system" fn(vk::Instance, *const c_char) -> Option<Function>;
type Negotiate = unsafe extern "system" fn(*mut u32) -> vk::Result;

/// A function that lavapipe's library exports; null when there is no lavapipe.
fn exported(name: &CStr) -> *mut c_void {
    static LIBRARY: OnceLock<usize> = OnceLock::new();
    // SAFETY: the name ends with NUL; lavapipe's initialisers are those of any driver.
    let open = || unsafe { libc::dlopen(WRAPPED.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    let library = *LIBRARY.get_or_init(|| open().addr()) as *mut c_void;
    if library.is_null() {
        return library;
    }
    // SAFETY: the library is open and stays so.
    unsafe { libc::dlsym(library, name.as_ptr()) }
}

/// The loader's entry point into the driver.
///
/// # Safety
/// The arguments are valid, as Vulkan requires: `name` ends with NUL.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "system" fn vk_icdGetInstanceProcAddr(
    instance: vk::Instance,
    name: *const c_char,
) -> Option<Function> {
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) };
    crate::replace(name, instance_function(instance, name))
}

/// lavapipe's function of this name.
fn instance_function(instance: vk::Instance, name: &CStr) -> Option<Function> {
    function(c"vk_icdGetInstanceProcAddr", instance, name)
}

/// What a function of lavapipe's library finds by name.
fn function(finder: &CStr, instance: vk::Instance, name: &CStr) -> Option<Function> {
    let get = exported(finder);
    // SAFETY: the finders have this type; null is `None`.
    let get: Option<GetFunction> = unsafe { std::mem::transmute(get) };
    // SAFETY: the caller's promise: the instance is null or alive.
    unsafe { get?(instance, name.as_ptr()) }
}

/// Negotiates the interface version, as lavapipe does.
///
/// # Safety
/// `version` can be read and written, as the loader guarantees.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "system" fn vk_icdNegotiateLoaderICDInterfaceVersion(
    version: *mut u32,
) -> vk::Result {
    let negotiate = exported(c"vk_icdNegotiateLoaderICDInterfaceVersion");
    // SAFETY: a function of this name has this type; null is `None`.
    let negotiate: Option<Negotiate> = unsafe { std::mem::transmute(negotiate) };
    match negotiate {
        // SAFETY: the caller's promise.
        Some(negotiate) => unsafe { negotiate(version) },
        None => vk::Result::ERROR_INCOMPATIBLE_DRIVER,
    }
}

/// The physical devices' functions, which are lavapipe's.
///
/// # Safety
/// The arguments are valid, as Vulkan requires: `name` ends with NUL.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "system" fn vk_icdGetPhysicalDeviceProcAddr(
    instance: vk::Instance,
    name: *const c_char,
) -> Option<Function> {
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) };
    function(c"vk_icdGetPhysicalDeviceProcAddr", instance, name)
}
