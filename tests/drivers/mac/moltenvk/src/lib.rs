//! The driver of `hesper_mac_driver` as MoltenVK's library has it: with `vkGetInstanceProcAddr`, by
//! which programs load it without Vulkan's loader. The functions that the loader calls are there,
//! too.

use std::ffi::c_char;

use ash::vk;
use hesper_mac_driver::Function;

hesper_mac_driver::export_to_loader!();

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

/// See [`hesper_mac_driver::WAITING`].
#[unsafe(no_mangle)]
pub extern "system" fn hesperMacDriverWaiting() -> u64 {
    hesper_mac_driver::waiting()
}
