//! Calls that do not return, as of a driver that has a bug or a GPU that waits for a signal that
//! nobody sends.

use std::ffi::CStr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Name of the function, `extern "system" fn(u32)`, that says which calls hang from now on. Calls
/// that hang and are not named any more return.
pub const HANG: &CStr = c"hesperNullDriverHang";

/// Name of the function, `extern "system" fn() -> u64`, that tells how many calls of those kinds
/// there were, whether they hung or not.
pub const ARRIVED: &CStr = c"hesperNullDriverArrived";

/// `vkDeviceWaitIdle`, for [`HANG`].
pub const DEVICE_WAIT_IDLE: u32 = 1;
/// `vkCreateShaderModule`.
pub const CREATE_SHADER: u32 = 2;

struct Hanging {
    calls: u32,
    arrived: u64,
}

static HANGING: Mutex<Hanging> = Mutex::new(Hanging {
    calls: 0,
    arrived: 0,
});
static CHANGED: Condvar = Condvar::new();

fn hanging() -> MutexGuard<'static, Hanging> {
    HANGING.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) extern "system" fn play(calls: u32) {
    hanging().calls = calls;
    CHANGED.notify_all();
}

pub(crate) extern "system" fn arrived() -> u64 {
    hanging().arrived
}

/// Returns when calls of this kind need not hang.
pub(crate) fn pass(call: u32) {
    let mut hanging = hanging();
    hanging.arrived += 1;
    while hanging.calls & call != 0 {
        hanging = CHANGED
            .wait(hanging)
            .unwrap_or_else(PoisonError::into_inner);
    }
}
