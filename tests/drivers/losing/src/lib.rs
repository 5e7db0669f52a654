//! A driver that is lavapipe until the file named by [`VARIABLE`] exists. From then on its devices
//! are lost.
//!
//! Vulkan's loader finds the driver by a manifest that names the library. Calls go to lavapipe.
//! After the loss, calls that submit, wait, or query fences, semaphores and idle queues return
//! `VK_ERROR_DEVICE_LOST`. A wait that has begun ends soon after the loss, as on a GPU that is
//! pulled out.
//!
//! [`SURFACE_VARIABLE`] names a file that makes a swapchain fail: the next call that acquires an
//! image removes the file and fails as its text says.

#[path = "../../lavapipe.rs"]
mod lavapipe;

use std::ffi::{CStr, c_char, c_void};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use ash::vk;

use lavapipe::Function;

/// The environment variable with the path of the file that means loss.
pub const VARIABLE: &str = "HESPER_LOSE_WHEN";

/// The environment variable with the path of the file that makes one acquisition of a swapchain
/// image fail. The call removes the file. If the file's text is `surface`, the surface is lost;
/// otherwise the swapchain is out of date.
pub const SURFACE_VARIABLE: &str = "HESPER_LOSE_SURFACE_WHEN";

/// How often a wait checks whether the device is lost, in nanoseconds.
const SLICE: u64 = 10_000_000;

type GetDeviceFunction = unsafe extern "system" fn(vk::Device, *const c_char) -> Option<Function>;

fn is_lost() -> bool {
    std::env::var_os(VARIABLE).is_some_and(|path| Path::new(&path).exists())
}

/// lavapipe's own functions, for those that are replaced.
static ORIGINALS: [AtomicUsize; 14] = [const { AtomicUsize::new(0) }; 14];

/// lavapipe's function for a replaced one.
///
/// # Safety
/// `T` must be the type of function number `index`, and the function must have been looked up by
/// name before.
unsafe fn original<T: Copy>(index: usize) -> Option<T> {
    let address = ORIGINALS.get(index)?.load(Ordering::Acquire);
    // SAFETY: the caller's promise; function pointers are as large as addresses.
    (address != 0).then(|| unsafe { std::mem::transmute_copy(&address) })
}

/// Defines replacements for functions that return a result and fail on a lost device: index, name,
/// parameters.
macro_rules! failing {
    ($($index:literal $name:literal $function:ident($($argument:ident: $ty:ty),*) $call:ident;)*) => {
        $(
            unsafe extern "system" fn $function($($argument: $ty),*) -> vk::Result {
                // SAFETY: the type is that of the name. The function was looked up, or nobody could
                // call this replacement.
                let original = unsafe { original::<unsafe extern "system" fn($($ty),*) -> vk::Result>($index) };
                $call(original, |original| {
                    // SAFETY: the caller's promise about the arguments.
                    unsafe { original($($argument),*) }
                })
            }
        )*
        fn replaced(name: &CStr) -> Option<(usize, Function)> {
            $(
                if name.to_bytes() == $name.as_bytes() {
                    type Typed = unsafe extern "system" fn($($ty),*) -> vk::Result;
                    // SAFETY: a caller that asks by name casts it back to the type of that name.
                    return Some(($index, unsafe { std::mem::transmute::<Typed, Function>($function) }));
                }
            )*
            None
        }
    };
}

/// Calls the original unless the device is lost.
fn once<T>(original: Option<T>, call: impl Fn(T) -> vk::Result) -> vk::Result {
    match original.filter(|_| !is_lost()) {
        Some(original) => call(original),
        None => vk::Result::ERROR_DEVICE_LOST,
    }
}

/// Calls the original, unless the file of [`SURFACE_VARIABLE`] exists.
fn surface<T>(original: Option<T>, call: impl Fn(T) -> vk::Result) -> vk::Result {
    let file = std::env::var_os(SURFACE_VARIABLE);
    let text = file.as_ref().and_then(|file| std::fs::read(file).ok());
    match (text, file, original) {
        (Some(text), Some(file), _) if std::fs::remove_file(&file).is_ok() => {
            if text == b"surface" {
                vk::Result::ERROR_SURFACE_LOST_KHR
            } else {
                vk::Result::ERROR_OUT_OF_DATE_KHR
            }
        }
        (_, _, Some(original)) => call(original),
        _ => vk::Result::ERROR_SURFACE_LOST_KHR,
    }
}

failing! {
    0 "vkQueueSubmit" submit(queue: u64, count: u32, submits: *const c_void, fence: u64) once;
    1 "vkQueueSubmit2" submit2(queue: u64, count: u32, submits: *const c_void, fence: u64) once;
    2 "vkQueueSubmit2KHR" submit2_khr(queue: u64, count: u32, submits: *const c_void, fence: u64) once;
    3 "vkQueueBindSparse" bind_sparse(queue: u64, count: u32, binds: *const c_void, fence: u64) once;
    4 "vkQueueWaitIdle" queue_idle(queue: u64) once;
    5 "vkDeviceWaitIdle" device_idle(device: u64) once;
    6 "vkGetFenceStatus" fence_status(device: u64, fence: u64) once;
    7 "vkGetSemaphoreCounterValue" counter(device: u64, semaphore: u64, value: *mut u64) once;
    8 "vkGetSemaphoreCounterValueKHR" counter_khr(device: u64, semaphore: u64, value: *mut u64) once;
    13 "vkAcquireNextImageKHR" acquire(device: u64, swapchain: u64, timeout: u64, semaphore: u64, fence: u64, index: *mut u32) surface;
}

type WaitForFences = unsafe extern "system" fn(u64, u32, *const u64, u32, u64) -> vk::Result;
type WaitSemaphores = unsafe extern "system" fn(u64, *const c_void, u64) -> vk::Result;
const WAIT_FOR_FENCES: usize = 9;
const WAIT_SEMAPHORES: usize = 10;
const WAIT_SEMAPHORES_KHR: usize = 11;

/// Waits in short slices, so that the wait ends when the device is lost.
fn sliced(timeout: u64, wait: impl Fn(u64) -> vk::Result) -> vk::Result {
    let mut left = timeout;
    loop {
        if is_lost() {
            return vk::Result::ERROR_DEVICE_LOST;
        }
        let slice = left.min(SLICE);
        left = left.saturating_sub(slice);
        match wait(slice) {
            vk::Result::TIMEOUT if left > 0 => {}
            ended => return ended,
        }
    }
}

unsafe extern "system" fn wait_for_fences(
    device: u64,
    count: u32,
    fences: *const u64,
    all: u32,
    timeout: u64,
) -> vk::Result {
    // SAFETY: the type is that of the name.
    let Some(original) = (unsafe { original::<WaitForFences>(WAIT_FOR_FENCES) }) else {
        return vk::Result::ERROR_DEVICE_LOST;
    };
    // SAFETY: the caller's promise about the arguments.
    sliced(timeout, |slice| unsafe {
        original(device, count, fences, all, slice)
    })
}

unsafe extern "system" fn wait_semaphores<const INDEX: usize>(
    device: u64,
    info: *const c_void,
    timeout: u64,
) -> vk::Result {
    // SAFETY: the type is that of the name.
    let Some(original) = (unsafe { original::<WaitSemaphores>(INDEX) }) else {
        return vk::Result::ERROR_DEVICE_LOST;
    };
    // SAFETY: the caller's promise about the arguments.
    sliced(timeout, |slice| unsafe { original(device, info, slice) })
}

unsafe extern "system" fn device_function(
    device: vk::Device,
    name: *const c_char,
) -> Option<Function> {
    // SAFETY: the type is that of the name, which ends with NUL.
    let (get, name) = unsafe {
        (
            original::<GetDeviceFunction>(DEVICE_FUNCTION)?,
            CStr::from_ptr(name),
        )
    };
    // SAFETY: the caller's promise.
    replace(name, unsafe { get(device, name.as_ptr()) })
}

const DEVICE_FUNCTION: usize = 12;

/// The replacement for `found`, which is lavapipe's function of that name; `found` itself if there
/// is none.
fn replace(name: &CStr, found: Option<Function>) -> Option<Function> {
    let found = found?;
    // SAFETY: a caller that asks by name casts it back to the type of that name.
    let waits =
        |wait: WaitSemaphores| unsafe { std::mem::transmute::<WaitSemaphores, Function>(wait) };
    let (index, ours) = match name.to_bytes() {
        b"vkWaitForFences" => {
            let typed: WaitForFences = wait_for_fences;
            // SAFETY: as above.
            (WAIT_FOR_FENCES, unsafe {
                std::mem::transmute::<WaitForFences, Function>(typed)
            })
        }
        b"vkWaitSemaphores" => (WAIT_SEMAPHORES, waits(wait_semaphores::<WAIT_SEMAPHORES>)),
        b"vkWaitSemaphoresKHR" => (
            WAIT_SEMAPHORES_KHR,
            waits(wait_semaphores::<WAIT_SEMAPHORES_KHR>),
        ),
        b"vkGetDeviceProcAddr" => {
            let typed: GetDeviceFunction = device_function;
            // SAFETY: as above.
            (DEVICE_FUNCTION, unsafe {
                std::mem::transmute::<GetDeviceFunction, Function>(typed)
            })
        }
        _ => match replaced(name) {
            Some(replaced) => replaced,
            None => return Some(found),
        },
    };
    if let Some(slot) = ORIGINALS.get(index) {
        slot.store(found as usize, Ordering::Release);
    }
    Some(ours)
}
