//! The driver of `hesper_mac_driver` as KosmicKrisp's library has it: with the functions that Vulkan's loader calls, and no other.

use std::ffi::c_char;

use ash::vk;
use hesper_mac_driver::Function;

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
