//! The driver of `hesper_mac_driver` as MoltenVK's library has it: with `vkGetInstanceProcAddr`, by which programs load it
//! without Vulkan's loader. The functions that the loader calls are there, too.

use std::ffi::c_char;

use ash::vk;
use hesper_mac_driver::Function;

/// The way into the driver for programs that have no loader. It needs no negotiation.
///
/// # Safety
/// As Vulkan says: `name` ends with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn vkGetInstanceProcAddr(
    instance: vk::Instance,
    name: *const c_char,
) -> Option<Function> {
    // SAFETY: the caller's promise.
    unsafe { hesper_mac_driver::instance_function(instance, name) }
}

/// The loader's way into the driver.
///
/// # Safety
/// As Vulkan says: `name` ends with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn vk_icdGetInstanceProcAddr(
    instance: vk::Instance,
    name: *const c_char,
) -> Option<Function> {
    // SAFETY: the caller's promise.
    unsafe { hesper_mac_driver::loaders_function(instance, name) }
}

/// What has to be called before that.
///
/// # Safety
/// As the loader says: `version` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn vk_icdNegotiateLoaderICDInterfaceVersion(
    version: *mut u32,
) -> vk::Result {
    // SAFETY: the caller's promise.
    unsafe { hesper_mac_driver::negotiate(version) }
}

/// See [`hesper_mac_driver::WAITING`].
#[unsafe(no_mangle)]
pub extern "system" fn hesperMacDriverWaiting() -> u64 {
    hesper_mac_driver::waiting()
}
