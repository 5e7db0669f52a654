//! A Vulkan layer for guests: `vkWaitForFences` and `vkWaitSemaphores` look for a while themselves
//! before they let Mesa's Venus wait.
//!
//! Venus looks at a fence some 15 times, and then sleeps for 160 µs and more. Work that takes 20 µs
//! is then known to be done after 200. This layer asks the driver with a timeout of 0, again and
//! again, as long as that has paid before (`wait.rs`). Results are those of the driver. With one
//! processor, and for devices of other drivers, it does nothing.
//!
//! The layer is implicit: the loader finds its manifest (`VkLayer_hesper_waits.json`) in
//! `/usr/share/vulkan/implicit_layer.d`, and `HESPER_DISABLE_WAITS_LAYER=1` turns it off. It works
//! with any renderer of Venus.
#![cfg(unix)]

mod chain;
mod loader;
mod wait;

use std::ffi::{CStr, c_char};

use ash::vk;

/// A Vulkan function pointer before it is cast to its own type.
type Function = unsafe extern "system" fn();

/// Casts a function to the type that the function tables use.
macro_rules! function {
    ($function:expr, $type:ty) => {{
        let typed: $type = $function;
        // SAFETY: a caller that asks by name casts it back to the type of that name.
        unsafe { std::mem::transmute::<$type, crate::Function>(typed) }
    }};
}

/// The layer's own function of this name.
fn own(name: &CStr) -> Option<Function> {
    Some(match name.to_bytes() {
        b"vkGetInstanceProcAddr" => function!(
            instance_function,
            unsafe extern "system" fn(vk::Instance, *const c_char) -> Option<Function>
        ),
        b"vkGetDeviceProcAddr" => function!(
            device_function,
            unsafe extern "system" fn(vk::Device, *const c_char) -> Option<Function>
        ),
        b"vkCreateInstance" => function!(chain::create_instance, vk::PFN_vkCreateInstance),
        b"vkDestroyInstance" => function!(chain::destroy_instance, vk::PFN_vkDestroyInstance),
        b"vkCreateDevice" => function!(chain::create_device, vk::PFN_vkCreateDevice),
        b"vkDestroyDevice" => function!(chain::destroy_device, vk::PFN_vkDestroyDevice),
        b"vkWaitForFences" => function!(wait_for_fences, vk::PFN_vkWaitForFences),
        b"vkWaitSemaphores" | b"vkWaitSemaphoresKHR" => {
            function!(wait_semaphores, vk::PFN_vkWaitSemaphores)
        }
        _ => return None,
    })
}

/// The layer's `vkGetInstanceProcAddr`.
///
/// # Safety
/// The arguments are valid, as Vulkan requires.
unsafe extern "system" fn instance_function(
    instance: vk::Instance,
    name: *const c_char,
) -> Option<Function> {
    // SAFETY: the caller's promise.
    let known = own(unsafe { CStr::from_ptr(name) });
    if known.is_some() || instance == vk::Instance::null() {
        return known;
    }
    // SAFETY: the caller's promise.
    unsafe { chain::of_instance(instance)?.function(name) }
}

/// The layer's `vkGetDeviceProcAddr`. It returns nothing for a function that the device lacks, and
/// the driver's own function for one that the layer has no use for.
///
/// # Safety
/// The arguments are valid, as Vulkan requires.
unsafe extern "system" fn device_function(
    device: vk::Device,
    name: *const c_char,
) -> Option<Function> {
    // SAFETY: the caller's promise, for all.
    let (next, known) = unsafe { (chain::of_device(device)?, own(CStr::from_ptr(name))) };
    // SAFETY: the caller's promise.
    let theirs = unsafe { next.function(name) }?;
    let is_wait = |name: &CStr| name.to_bytes().starts_with(b"vkWait");
    // SAFETY: the caller's promise.
    let is_used = next.looks || !is_wait(unsafe { CStr::from_ptr(name) });
    Some(known.filter(|_| is_used).unwrap_or(theirs))
}

/// `vkWaitForFences`
unsafe extern "system" fn wait_for_fences(
    device: vk::Device,
    count: u32,
    fences: *const vk::Fence,
    all: vk::Bool32,
    timeout: u64,
) -> vk::Result {
    // SAFETY: the caller's promise. The device has the function, or the caller has none.
    unsafe {
        let Some(next) = chain::of_device(device) else {
            return vk::Result::ERROR_DEVICE_LOST;
        };
        let Some(wait) = next.wait_for_fences else {
            return vk::Result::ERROR_DEVICE_LOST;
        };
        let call = |timeout| wait(device, count, fences, all, timeout);
        match next.looks {
            true => next.waits.wait(timeout, call),
            false => call(timeout),
        }
    }
}

/// `vkWaitSemaphores`
unsafe extern "system" fn wait_semaphores(
    device: vk::Device,
    info: *const vk::SemaphoreWaitInfo<'_>,
    timeout: u64,
) -> vk::Result {
    // SAFETY: as above.
    unsafe {
        let Some(next) = chain::of_device(device) else {
            return vk::Result::ERROR_DEVICE_LOST;
        };
        let Some(wait) = next.wait_semaphores else {
            return vk::Result::ERROR_DEVICE_LOST;
        };
        let call = |timeout| wait(device, info, timeout);
        match next.looks {
            true => next.waits.wait(timeout, call),
            false => call(timeout),
        }
    }
}
