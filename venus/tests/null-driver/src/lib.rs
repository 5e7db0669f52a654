//! A Vulkan driver for tests: it draws nothing, and ends the process when a renderer breaks its
//! promises.
//!
//! A renderer loads the shared library like any driver (`vkGetInstanceProcAddr`). It has one GPU
//! with one queue family and the memory of a [`card`], of which a part imports host memory. A
//! renderer for hostile guests must never let certain calls through. They end the process with a
//! message (`violation`):
//!
//! - a handle that is null where it must not be, does not exist, was destroyed, or has another type
//!   (`objects`);
//! - a device, an instance or a pool that is destroyed while something of it is left;
//! - numbers beyond a limit of the GPU or beyond what an object has (`limits`);
//! - an array that is shorter than its count, a string without end, a broken chain. They are read
//!   to their ends (`memory`), which faults where nothing is mapped.
//!
//! Work is done as soon as it is submitted. Only these commands have an effect: `vkCmdFillBuffer`,
//! `vkCmdClearColorImage` and `vkCmdCopyImageToBuffer`. Renderers test shared memory with them. The
//! extra function [`LIVE`] tells how many objects are left, and calls can be made to [`hang`].
//!
//! The driver crashes, aborts or hangs when a shader asks for it (`misdeed`). That also works where
//! a test cannot call the driver, because it is in another process.

pub mod card;
mod device;
pub mod hang;
mod host_copy;
mod limits;
mod memory;
mod misdeed;
mod objects;
mod physical;
mod pipeline;
mod record;
mod resources;
mod sync;
pub mod version;

use std::ffi::{CStr, c_char};

use ash::vk;

/// Name of the function, `extern "system" fn() -> u64`, that counts live objects of all instances.
pub const LIVE: &CStr = c"hesperNullDriverLive";

/// Name of the function, `extern "system" fn(u32)`, that makes calls use their objects for longer.
/// Each call yields that many times for each object, and ends the process if the object was
/// destroyed meanwhile. Most waits for fences and semaphores time out then.
pub const LINGER: &CStr = c"hesperNullDriverLinger";

/// A function of Vulkan before it is cast to its own type.
type Function = unsafe extern "system" fn();

/// Ends the process: the renderer let through what it must not.
pub(crate) fn violation(what: &str) -> ! {
    eprintln!("null driver: {what}");
    std::process::abort();
}

/// Ends the process unless a value of an enum is one that Vulkan has.
pub(crate) fn known(what: &str, value: i32, is_known: bool) {
    if !is_known {
        violation(&format!("{what} is {value:#x}, which Vulkan does not have"));
    }
}

/// Checks a format. All of Vulkan's are far below this.
pub(crate) fn known_format(format: vk::Format) {
    let value = format.as_raw();
    known("a format", value, (0..2_000_000_000).contains(&value));
}

/// A function's address under the type that the tables have.
macro_rules! function {
    ($function:expr, ($($argument:ty),*) $(-> $result:ty)?) => {{
        let typed: unsafe extern "system" fn($($argument),*) $(-> $result)? = $function;
        // SAFETY: whoever asks by name casts it back to the type of that name.
        unsafe { std::mem::transmute::<unsafe extern "system" fn($($argument),*) $(-> $result)?, crate::Function>(typed) }
    }};
}
pub(crate) use function;

extern "system" fn live() -> u64 {
    objects::live()
}

extern "system" fn linger(times: u32) {
    objects::linger(times);
}

/// Stands for every function without an effect. It ignores its arguments; 0 is `VK_SUCCESS`.
extern "system" fn nothing() -> u64 {
    0
}

fn find(name: &CStr) -> Option<Function> {
    if name == LIVE {
        return Some(function!(live, () -> u64));
    }
    if name == LINGER {
        return Some(function!(linger, (u32)));
    }
    if name == version::PLAY_VERSION {
        return Some(function!(version::play, (*const version::Version)));
    }
    if name == hang::HANG {
        return Some(function!(hang::play, (u32)));
    }
    if name == hang::ARRIVED {
        return Some(function!(hang::arrived, () -> u64));
    }
    if name == card::PLAY {
        return Some(function!(card::play, (*const card::Card)));
    }
    let name = name.to_str().ok()?;
    physical::find(name)
        .or_else(|| resources::find(name))
        .or_else(|| sync::find(name))
        .or_else(|| device::find(name))
        .or_else(|| record::find(name))
        .or_else(|| host_copy::find(name))
        .or_else(|| {
            name.starts_with("vk")
                .then(|| function!(nothing, () -> u64))
        })
}

/// The entry into the driver.
///
/// # Safety
/// As Vulkan says: `name` ends with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "system" fn vkGetInstanceProcAddr(
    _instance: vk::Instance,
    name: *const c_char,
) -> Option<Function> {
    // SAFETY: the caller's promise.
    find(unsafe { CStr::from_ptr(name) })
}

/// `vkGetDeviceProcAddr`: a device has functions of extensions if it enables more than the renderer
/// itself needs.
pub(crate) unsafe extern "system" fn get_device_proc_addr(
    device: u64,
    name: *const c_char,
) -> Option<Function> {
    // SAFETY: the caller's promise.
    let name = unsafe { CStr::from_ptr(name) };
    // The renderer's own extension is enabled for every device.
    let is_of_extension = name != c"vkGetMemoryHostPointerPropertiesEXT"
        && name
            .to_bytes()
            .last_chunk::<3>()
            .is_some_and(|suffix| matches!(suffix, b"EXT" | b"KHR"));
    if is_of_extension && !device::has_extensions(device) || !version::has(name) {
        return None;
    }
    find(name)
}
