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

use chain::{Next, NextInstance};
use wait::Waits;

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

/// What the layer keeps of a device.
struct OfDevice {
    /// Whether the layer does anything for this device.
    looks: bool,
    /// What is known of its waits.
    waits: Waits,
    wait_for_fences: Option<vk::PFN_vkWaitForFences>,
    wait_semaphores: Option<vk::PFN_vkWaitSemaphores>,
}

impl OfDevice {
    /// Calls `create` with what the device is created with.
    fn create(
        _: NextInstance,
        _: vk::PhysicalDevice,
        info: &vk::DeviceCreateInfo<'_>,
        create: impl FnOnce(&vk::DeviceCreateInfo<'_>) -> vk::Result,
    ) -> vk::Result {
        create(info)
    }

    /// # Safety
    /// The handles are valid.
    unsafe fn new(
        instance: NextInstance,
        physical: vk::PhysicalDevice,
        device: Next<vk::Device>,
    ) -> Self {
        // SAFETY: the caller's promise; these are the functions' types.
        unsafe {
            let semaphores = device.typed(c"vkWaitSemaphores");
            Self {
                looks: is_venus(instance, physical) && has_processors(),
                waits: Waits::default(),
                wait_for_fences: device.typed(c"vkWaitForFences"),
                wait_semaphores: semaphores.or_else(|| device.typed(c"vkWaitSemaphoresKHR")),
            }
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
    let theirs = unsafe { next.functions.function(name) }?;
    let is_wait = |name: &CStr| name.to_bytes().starts_with(b"vkWait");
    // SAFETY: the caller's promise.
    let is_used = next.own.looks || !is_wait(unsafe { CStr::from_ptr(name) });
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
        let Some(wait) = next.own.wait_for_fences else {
            return vk::Result::ERROR_DEVICE_LOST;
        };
        let call = |timeout| wait(device, count, fences, all, timeout);
        match next.own.looks {
            true => next.own.waits.wait(timeout, call),
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
        let Some(wait) = next.own.wait_semaphores else {
            return vk::Result::ERROR_DEVICE_LOST;
        };
        let call = |timeout| wait(device, info, timeout);
        match next.own.looks {
            true => next.own.waits.wait(timeout, call),
            false => call(timeout),
        }
    }
}
