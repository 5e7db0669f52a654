//! A driver that is lavapipe until a shader asks it to crash, to abort or to hang (`misdeed`).
//!
//! Vulkan's loader finds it by a manifest that names the library. After a shader that asks for
//! something ` at submit` or ` in a thread`, the next submission of the process brings it about.

#[path = "../../lavapipe.rs"]
mod lavapipe;
#[path = "../../../../venus/tests/null-driver/src/misdeed.rs"]
mod misdeed;

use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use ash::vk;

use lavapipe::Function;
use misdeed::{Place, Request};

/// What the next submission does.
static NEXT: Mutex<Option<Request>> = Mutex::new(None);

type DeviceFunction = unsafe extern "system" fn(vk::Device, *const c_char) -> Option<Function>;
type CreateShader = unsafe extern "system" fn(
    u64,
    *const vk::ShaderModuleCreateInfo<'_>,
    *const c_void,
    *mut u64,
) -> vk::Result;
type Submit = unsafe extern "system" fn(u64, u32, *const c_void, u64) -> vk::Result;

/// lavapipe's functions that are replaced.
static DEVICE_FUNCTION: AtomicUsize = AtomicUsize::new(0);
static CREATE_SHADER: AtomicUsize = AtomicUsize::new(0);
static SUBMIT: [AtomicUsize; 3] = [const { AtomicUsize::new(0) }; 3];

/// lavapipe's function behind a replacement.
///
/// # Safety
/// `T` must be the type of the functions that are stored in `slot`.
unsafe fn original<T: Copy>(slot: &AtomicUsize) -> Option<T> {
    let address = slot.load(Ordering::Acquire);
    // SAFETY: the caller's promise; function pointers are as large as addresses.
    (address != 0).then(|| unsafe { std::mem::transmute_copy(&address) })
}

unsafe extern "system" fn create_shader(
    device: u64,
    info: *const vk::ShaderModuleCreateInfo<'_>,
    allocator: *const c_void,
    module: *mut u64,
) -> vk::Result {
    // SAFETY: the caller's promise: `info` and its code can be read.
    let code = unsafe { std::slice::from_raw_parts((*info).p_code.cast(), (*info).code_size) };
    match Request::of(code) {
        Some(request) if request.place == Place::Creation => request.fulfil(),
        Some(request) => *NEXT.lock().unwrap_or_else(PoisonError::into_inner) = Some(request),
        None => {}
    }
    // SAFETY: the type is that of the name.
    match unsafe { original::<CreateShader>(&CREATE_SHADER) } {
        // SAFETY: the caller's promise about the arguments.
        Some(create) => unsafe { create(device, info, allocator, module) },
        None => vk::Result::ERROR_INITIALIZATION_FAILED,
    }
}

unsafe extern "system" fn submit<const INDEX: usize>(
    queue: u64,
    count: u32,
    submits: *const c_void,
    fence: u64,
) -> vk::Result {
    let request = NEXT.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(request) = request {
        request.fulfil();
    }
    // SAFETY: the type is that of the names.
    let found = |slot| unsafe { original::<Submit>(slot) };
    match SUBMIT.get(INDEX).and_then(found) {
        // SAFETY: the caller's promise about the arguments.
        Some(submit) => unsafe { submit(queue, count, submits, fence) },
        None => vk::Result::ERROR_INITIALIZATION_FAILED,
    }
}

unsafe extern "system" fn device_function(
    device: vk::Device,
    name: *const c_char,
) -> Option<Function> {
    // SAFETY: the type is that of the name, which ends with NUL.
    unsafe {
        let get = original::<DeviceFunction>(&DEVICE_FUNCTION)?;
        replace(CStr::from_ptr(name), get(device, name))
    }
}

/// The replacement for `found`, which is lavapipe's function of that name; `found` itself if there
/// is none.
fn replace(name: &CStr, found: Option<Function>) -> Option<Function> {
    let found = found?;
    // SAFETY: a caller that asks by name casts it back to the type of that name.
    let submits = |submit: Submit| unsafe { std::mem::transmute::<Submit, Function>(submit) };
    let [first, second, third] = &SUBMIT;
    let (slot, ours) = match name.to_bytes() {
        b"vkGetDeviceProcAddr" => {
            let typed: DeviceFunction = device_function;
            // SAFETY: as above.
            (&DEVICE_FUNCTION, unsafe {
                std::mem::transmute::<DeviceFunction, Function>(typed)
            })
        }
        b"vkCreateShaderModule" => {
            let typed: CreateShader = create_shader;
            // SAFETY: as above.
            (&CREATE_SHADER, unsafe {
                std::mem::transmute::<CreateShader, Function>(typed)
            })
        }
        b"vkQueueSubmit" => (first, submits(submit::<0>)),
        b"vkQueueSubmit2" => (second, submits(submit::<1>)),
        b"vkQueueSubmit2KHR" => (third, submits(submit::<2>)),
        _ => return Some(found),
    };
    slot.store(found as usize, Ordering::Release);
    Some(ours)
}
