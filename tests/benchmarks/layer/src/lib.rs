//! A Vulkan layer for measurements. `tests/bench-vtest` writes its manifest and enables it. To
//! enable it by hand:
//!
//! ```text
//! VK_ADD_LAYER_PATH=<folder of the manifest> VK_INSTANCE_LAYERS=VK_LAYER_HESPER_measure \
//!     HESPER_LAYER=memfd,null …
//! ```
//!
//! `HESPER_LAYER` selects what the layer does:
//!
//! - `memfd`: exportable memory becomes a memfd that the driver imports as host memory
//!   (`memory.rs`), and the layer advertises dma-buf export. The reference renderer needs this on a
//!   host without `/dev/udmabuf`, where lavapipe can export opaque descriptors only.
//! - `null`: the layer drops commands, and fakes pipelines and descriptor sets as plain numbers
//!   (`null.rs`). What remains of a measurement is the cost of the renderer and the client.
//!
//! A function that the layer does not replace goes straight to the next layer. The layer is for
//! Linux, where the reference renderer runs; on other systems the crate is empty.
#![cfg(target_os = "linux")]

#[path = "../../../../venus/guest-layer/src/chain.rs"]
mod chain;
#[path = "../../../../venus/guest-layer/src/loader.rs"]
mod loader;
mod memory;
mod null;

use std::ffi::{CStr, c_char};
use std::sync::LazyLock;

use ash::vk;

use chain::{Next, NextInstance};
use memory::Memories;

/// A Vulkan function pointer before it is cast to its own type.
type Function = unsafe extern "system" fn();

/// What the layer does, as `HESPER_LAYER` says.
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

/// Casts a function to the type that the function tables use.
macro_rules! function {
    ($function:expr, $type:ty) => {{
        let typed: $type = $function;
        // SAFETY: a caller that asks by name casts it back to the type of that name.
        unsafe { std::mem::transmute::<$type, crate::Function>(typed) }
    }};
}
pub(crate) use function;

/// What the layer keeps of a device: its exported memory.
struct OfDevice(Memories);

impl OfDevice {
    /// Calls `create` with what the device is created with.
    ///
    /// # Safety
    /// The handles are valid.
    unsafe fn create(
        instance: NextInstance,
        physical: vk::PhysicalDevice,
        info: &vk::DeviceCreateInfo<'_>,
        create: impl FnOnce(&vk::DeviceCreateInfo<'_>) -> vk::Result,
    ) -> vk::Result {
        if !MODE.memfd {
            return create(info);
        }
        // SAFETY: the caller's promise.
        let names = unsafe { memory::device_extensions(instance, physical, info) };
        create(&(*info).enabled_extension_names(&names))
    }

    /// # Safety
    /// The handles are valid.
    unsafe fn new(
        instance: NextInstance,
        physical: vk::PhysicalDevice,
        _: Next<vk::Device>,
    ) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { Memories::new(instance, physical) })
    }
}

/// The entry points that every layer must have.
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
        b"vkCreateInstance" => function!(chain::create_instance, vk::PFN_vkCreateInstance),
        b"vkDestroyInstance" => function!(chain::destroy_instance, vk::PFN_vkDestroyInstance),
        b"vkCreateDevice" => function!(chain::create_device, vk::PFN_vkCreateDevice),
        b"vkDestroyDevice" => function!(chain::destroy_device, vk::PFN_vkDestroyDevice),
        _ => return None,
    })
}

/// The layer's own function of this name, if it replaces the driver's.
fn own(name: &CStr) -> Option<Function> {
    let memory = || MODE.memfd.then(|| memory::find(name)).flatten();
    let null = || MODE.null.then(|| null::find(name)).flatten();
    frame(name).or_else(memory).or_else(null)
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

/// The layer's `vkGetDeviceProcAddr`. It returns nothing for a function that the device lacks.
///
/// # Safety
/// The arguments are valid, as Vulkan requires.
unsafe extern "system" fn device_function(
    device: vk::Device,
    name: *const c_char,
) -> Option<Function> {
    // SAFETY: the caller's promise, for both.
    let (theirs, known) = unsafe {
        (
            chain::of_device(device)?.functions.function(name),
            own(CStr::from_ptr(name)),
        )
    };
    theirs.map(|theirs| known.unwrap_or(theirs))
}
