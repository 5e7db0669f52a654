//! Fences, semaphores, events and query pools: they are checked, and nothing waits for them.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use ash::vk::{self, Handle, ObjectType};

use crate::device::{DEVICE, FENCE};
use crate::memory::array;
use crate::objects::{check, lingers};
use crate::{Function, function};

const EVENT: i32 = ObjectType::EVENT.as_raw();
const SEMAPHORE: i32 = ObjectType::SEMAPHORE.as_raw();
const QUERY_POOL: i32 = ObjectType::QUERY_POOL.as_raw();

/// The longest wait for what is never signalled.
const WAIT: u64 = 1_000_000;

pub(crate) fn find(name: &str) -> Option<Function> {
    Some(match name {
        "vkWaitForFences" => {
            function!(wait_fences, (u64, u32, *const u64, u32, u64) -> vk::Result)
        }
        "vkResetFences" => function!(fences, (u64, u32, *const u64) -> vk::Result),
        "vkGetFenceStatus" => function!(status::<FENCE>, (u64, u64) -> vk::Result),
        "vkGetEventStatus" | "vkSetEvent" | "vkResetEvent" => {
            function!(status::<EVENT>, (u64, u64) -> vk::Result)
        }
        "vkResetQueryPool" => function!(status::<QUERY_POOL>, (u64, u64) -> vk::Result),
        "vkGetSemaphoreCounterValue" => {
            function!(counter, (u64, u64, *mut u64) -> vk::Result)
        }
        "vkSignalSemaphore" => {
            function!(signal, (u64, *const vk::SemaphoreSignalInfo<'_>) -> vk::Result)
        }
        "vkWaitSemaphores" => {
            function!(wait_semaphores, (u64, *const vk::SemaphoreWaitInfo<'_>, u64) -> vk::Result)
        }
        _ => return None,
    })
}

/// A command about one object, whatever comes after it.
pub(crate) unsafe extern "system" fn status<const KIND: i32>(
    device: u64,
    object: u64,
) -> vk::Result {
    check(DEVICE, device);
    check(KIND, object);
    vk::Result::SUCCESS
}

unsafe extern "system" fn fences(device: u64, count: u32, fences: *const u64) -> vk::Result {
    check(DEVICE, device);
    // SAFETY: the caller's promise.
    for fence in unsafe { array(fences, count) } {
        check(FENCE, *fence);
    }
    vk::Result::SUCCESS
}

/// While calls linger, every fourth wait is for something that is signalled. Otherwise all are.
fn waited(timeout: u64, check: impl Fn() -> vk::Result) -> vk::Result {
    static WAITS: AtomicU32 = AtomicU32::new(0);
    let result = check();
    if !lingers() || WAITS.fetch_add(1, Ordering::Relaxed).is_multiple_of(4) {
        return result;
    }
    std::thread::sleep(Duration::from_nanos(timeout.min(WAIT)));
    let _ = check();
    vk::Result::TIMEOUT
}

unsafe extern "system" fn wait_fences(
    device: u64,
    count: u32,
    waited_for: *const u64,
    _all: u32,
    timeout: u64,
) -> vk::Result {
    // SAFETY: the caller's promise.
    waited(timeout, || unsafe { fences(device, count, waited_for) })
}

unsafe extern "system" fn wait_semaphores(
    device: u64,
    info: *const vk::SemaphoreWaitInfo<'_>,
    timeout: u64,
) -> vk::Result {
    waited(timeout, || {
        check(DEVICE, device);
        // SAFETY: the caller's promise.
        for semaphore in unsafe { array((*info).p_semaphores, (*info).semaphore_count) } {
            check(SEMAPHORE, semaphore.as_raw());
        }
        vk::Result::SUCCESS
    })
}

unsafe extern "system" fn counter(device: u64, semaphore: u64, value: *mut u64) -> vk::Result {
    check(DEVICE, device);
    check(SEMAPHORE, semaphore);
    // SAFETY: the caller's promise.
    unsafe { *value = 0 };
    vk::Result::SUCCESS
}

unsafe extern "system" fn signal(
    device: u64,
    info: *const vk::SemaphoreSignalInfo<'_>,
) -> vk::Result {
    check(DEVICE, device);
    // SAFETY: the caller's promise.
    check(SEMAPHORE, unsafe { (*info).semaphore }.as_raw());
    vk::Result::SUCCESS
}
