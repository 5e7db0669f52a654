//! The driver of `hesper_mac_driver` with the exports of MoltenVK's library:
//! `vkGetInstanceProcAddr`, with which programs load it without Vulkan's loader, and the functions
//! that the loader calls.

use std::ffi::c_char;

use ash::vk;
use hesper_mac_driver::Function;

hesper_mac_driver::export_to_loader!();

/// The entry point for programs without Vulkan's loader. It needs no negotiation.
///
/// # Safety
/// The arguments are valid, as Vulkan requires: `name` ends with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn vkGetInstanceProcAddr(
    instance: vk::Instance,
    name: *const c_char,
) -> Option<Function> {
    // SAFETY: the caller's promise.
    unsafe { hesper_mac_driver::instance_function(instance, name) }
}

/// How many submissions wait for room; see [`hesper_mac_driver::WAITING`].
#[unsafe(no_mangle)]
pub extern "system" fn hesperMacDriverWaiting() -> u64 {
    hesper_mac_driver::waiting()
}
