//! A Vulkan layer for measurements. `tests/bench-vtest` writes its manifest and turns it on; by
//! hand:
//!
//! ```text
//! VK_ADD_LAYER_PATH=<folder of the manifest> VK_INSTANCE_LAYERS=VK_LAYER_HESPER_measure \
//!     HESPER_LAYER=memfd,null …
//! ```
//!
//! `HESPER_LAYER` names what it does:
//!
//! - `memfd`: memory that is to be exported becomes a memfd that the driver imports as host memory
//!   (`memory.rs`), and dma-buf export is advertised. The reference renderer needs that on a host
//!   without `/dev/udmabuf`, where lavapipe can export opaque descriptors only.
//! - `null`: commands are dropped, pipelines and descriptor sets are numbers (`null.rs`), so that
//!   what remains of a measurement is the renderer's and the client's share.
//!
//! Functions that the layer does not answer itself are the next layer's, called without a detour.
//! It is made for Linux, where the reference runs; elsewhere it is empty.
#![cfg(target_os = "linux")]

mod loader;
mod memory;
mod next;
mod null;

use std::ffi::{CStr, c_char};
use std::sync::LazyLock;

use ash::vk;

/// A function of Vulkan before it is cast to its own type.
type Function = unsafe extern "system" fn();

/// What the layer does.
struct Mode {
    memfd: bool,
    null: bool,
}

static MODE: LazyLock<Mode> = LazyLock::new(|| {
    let words = std::env::var("HESPER_LAYER").unwrap_or_default();
    let has = |wanted| words.split(',').any(|word| word == wanted);
    Mode {
        memfd: has("memfd"),
        null: has("null"),
    }
});

/// A function's address under the type that the tables have.
macro_rules! function {
    ($function:expr, $type:ty) => {{
        let typed: $type = $function;
        // SAFETY: who asks by name casts it back to the type of that name.
        unsafe { std::mem::transmute::<$type, crate::Function>(typed) }
    }};
}
pub(crate) use function;

/// The functions around instances and devices, which every layer has.
fn frame(name: &CStr) -> Option<Function> {
    Some(match name.to_bytes() {
        b"vkGetInstanceProcAddr" => function!(
            instance_function,
            unsafe extern "system" fn(vk::Instance, *const c_char) -> Option<Function>
        ),
        b"vkGetDeviceProcAddr" => function!(
            device_function,
            unsafe extern "system" fn(vk::Device, *const c_char) -> Option<Function>
        ),
        b"vkCreateInstance" => function!(next::create_instance, vk::PFN_vkCreateInstance),
        b"vkDestroyInstance" => function!(next::destroy_instance, vk::PFN_vkDestroyInstance),
        b"vkCreateDevice" => function!(next::create_device, vk::PFN_vkCreateDevice),
        b"vkDestroyDevice" => function!(next::destroy_device, vk::PFN_vkDestroyDevice),
        _ => return None,
    })
}

/// What the layer answers in place of the driver.
fn own(name: &CStr) -> Option<Function> {
    let memory = || MODE.memfd.then(|| memory::find(name)).flatten();
    let null = || MODE.null.then(|| null::find(name)).flatten();
    frame(name).or_else(memory).or_else(null)
}

/// The layer's `vkGetInstanceProcAddr`.
///
/// # Safety
/// As Vulkan says.
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
    unsafe { next::of_instance(instance)?.function(name) }
}

/// The layer's `vkGetDeviceProcAddr`: as the device says, a function that the device lacks is not
/// there.
///
/// # Safety
/// As Vulkan says.
unsafe extern "system" fn device_function(
    device: vk::Device,
    name: *const c_char,
) -> Option<Function> {
    // SAFETY: the caller's promise, for both.
    let (theirs, known) = unsafe {
        (
            next::of_device(device)?.function(name),
            own(CStr::from_ptr(name)),
        )
    };
    theirs.map(|theirs| known.unwrap_or(theirs))
}
