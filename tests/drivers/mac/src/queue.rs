//! Queues: several families of one queue each, all on lavapipe's only queue, with a limit on
//! unfinished command buffers.
//!
//! lavapipe executes the work of all queues in the order of submission. A queue that waits for work
//! submitted later to another queue therefore waits for ever. On a Mac it does not.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use ash::vk::{self, Handle};

use crate::device::Device;
use crate::{Function, Mode, complain, function};

/// The number of queue families.
pub(crate) fn families() -> u32 {
    match Mode::get() {
        Mode::MoltenVk | Mode::MoltenVk140 => 4,
        Mode::KosmicKrisp => 1,
    }
}

/// MoltenVK's environment variable for [`LIMIT`].
const LIMIT_VARIABLE: &str = "MVK_CONFIG_MAX_ACTIVE_METAL_COMMAND_BUFFERS_PER_QUEUE";

/// The largest number of unfinished command buffers of a queue.
static LIMIT: LazyLock<usize> = LazyLock::new(|| {
    let text = std::env::var(LIMIT_VARIABLE).ok();
    let number = text.and_then(|text| text.parse().ok());
    match Mode::get() {
        Mode::MoltenVk | Mode::MoltenVk140 => number.unwrap_or(64),
        Mode::KosmicKrisp => usize::MAX,
    }
});

/// The number of submissions that wait for room in their queue.
pub(crate) static WAITING: AtomicU64 = AtomicU64::new(0);

/// The value that Vulkan's loader expects in the word where it writes its table.
const LOADER_MAGIC: usize = 0x01CD_C0DE;

/// A queue as programs see it. Its handle is its address.
#[repr(C)]
pub(crate) struct Queue {
    /// The loader's dispatch table.
    table: usize,
    device: Arc<Device>,
    /// Fences of submissions that may be unfinished, with the number of command buffers of each.
    unfinished: Mutex<VecDeque<(vk::Fence, usize)>>,
}

pub(crate) fn find(name: &str) -> Option<Function> {
    match name {
        "vkGetDeviceQueue" => function!(get, vk::PFN_vkGetDeviceQueue),
        "vkGetDeviceQueue2" => function!(get2, vk::PFN_vkGetDeviceQueue2),
        "vkQueueSubmit" => function!(submit, vk::PFN_vkQueueSubmit),
        "vkQueueSubmit2" | "vkQueueSubmit2KHR" => function!(submit2, vk::PFN_vkQueueSubmit2),
        "vkQueueWaitIdle" => function!(wait_idle, vk::PFN_vkQueueWaitIdle),
        "vkQueueBindSparse" => function!(bind_sparse, vk::PFN_vkQueueBindSparse),
        "vkQueuePresentKHR" => function!(present, vk::PFN_vkQueuePresentKHR),
        "vkDeviceWaitIdle" => function!(device_wait_idle, vk::PFN_vkDeviceWaitIdle),
        "vkQueueBeginDebugUtilsLabelEXT" | "vkQueueInsertDebugUtilsLabelEXT" => {
            function!(label, vk::PFN_vkQueueBeginDebugUtilsLabelEXT)
        }
        "vkQueueEndDebugUtilsLabelEXT" => {
            function!(end_label, vk::PFN_vkQueueEndDebugUtilsLabelEXT)
        }
        "vkSetPrivateData" | "vkSetPrivateDataEXT" => {
            function!(set_private_data, vk::PFN_vkSetPrivateData)
        }
        "vkGetPrivateData" | "vkGetPrivateDataEXT" => {
            function!(get_private_data, vk::PFN_vkGetPrivateData)
        }
        _ => None,
    }
}

impl Queue {
    /// The queue with this handle.
    ///
    /// # Safety
    /// The handle's device is alive.
    unsafe fn of<'a>(handle: vk::Queue) -> &'a Self {
        // SAFETY: handles are addresses of queues in boxes, which live as long as their device.
        unsafe { &*(handle.as_raw() as *const Self) }
    }

    /// Locks lavapipe's queue.
    fn real(&self) -> MutexGuard<'_, vk::Queue> {
        let real = self.device.real_queue.lock();
        real.unwrap_or_else(PoisonError::into_inner)
    }

    fn unfinished(&self) -> MutexGuard<'_, VecDeque<(vk::Fence, usize)>> {
        let unfinished = self.unfinished.lock();
        unfinished.unwrap_or_else(PoisonError::into_inner)
    }

    /// Calls `submit`, which submits `buffers` command buffers, once there is room for them.
    fn submit(
        &self,
        buffers: usize,
        submit: impl FnOnce(&Device, vk::Queue) -> vk::Result,
    ) -> vk::Result {
        let (device, core) = (&*self.device, &self.device.next.core);
        // One caller at a time submits to a queue, so no submission is added during this wait.
        let mut unfinished = self.unfinished();
        // SAFETY: all handles are of this device, and each fence is submitted once.
        unsafe {
            loop {
                let count: usize = unfinished.iter().map(|(_, buffers)| buffers).sum();
                let Some(&(oldest, _)) = unfinished.front() else {
                    break;
                };
                let is_done =
                    (core.get_fence_status)(device.handle, oldest) != vk::Result::NOT_READY;
                if !is_done && count + buffers <= *LIMIT {
                    break;
                }
                // The result does not matter: on a lost device there is nothing to wait for.
                let wait = core.wait_for_fences;
                WAITING.fetch_add(u64::from(!is_done), Ordering::SeqCst);
                let _ = wait(device.handle, 1, &raw const oldest, vk::TRUE, u64::MAX);
                WAITING.fetch_sub(u64::from(!is_done), Ordering::SeqCst);
                (core.destroy_fence)(device.handle, oldest, std::ptr::null());
                unfinished.pop_front();
            }
            let real = self.real();
            let result = submit(device, *real);
            if result != vk::Result::SUCCESS || *LIMIT == usize::MAX {
                return result;
            }
            let mut fence = vk::Fence::null();
            let info = vk::FenceCreateInfo::default();
            let make = core.create_fence;
            let made = make(
                device.handle,
                &raw const info,
                std::ptr::null(),
                &raw mut fence,
            );
            if made == vk::Result::SUCCESS {
                match (core.queue_submit)(*real, 0, std::ptr::null(), fence) {
                    vk::Result::SUCCESS => unfinished.push_back((fence, buffers)),
                    _ => (core.destroy_fence)(device.handle, fence, std::ptr::null()),
                }
            }
            result
        }
    }

    /// Destroys the fences. None of them may be in use.
    pub(crate) fn destroy_fences(&self) {
        for (fence, _) in self.unfinished().drain(..) {
            let destroy = self.device.next.core.destroy_fence;
            // SAFETY: the caller promises that the fence is not in use; the device is alive.
            unsafe { destroy(self.device.handle, fence, std::ptr::null()) };
        }
    }
}

/// The queue of a family; null if the device was created without it.
fn queue(handle: vk::Device, family: u32, index: u32) -> vk::Queue {
    let device = Device::get(handle);
    if !device.families.contains(&family) || index != 0 {
        complain(format_args!(
            "vkGetDeviceQueue of queue {index} of family {family}, without which the device was created"
        ));
        return vk::Queue::null();
    }
    let mut queues = device.queues.lock().unwrap_or_else(PoisonError::into_inner);
    let queue = queues.entry(family).or_insert_with(|| {
        Box::new(Queue {
            table: LOADER_MAGIC,
            device: Arc::clone(&device),
            unfinished: Mutex::default(),
        })
    });
    // The loader writes its table into the queue, through this pointer.
    vk::Queue::from_raw(std::ptr::from_mut(&mut **queue).expose_provenance() as u64)
}

unsafe extern "system" fn get(device: vk::Device, family: u32, index: u32, to: *mut vk::Queue) {
    // SAFETY: the caller's promise.
    unsafe { *to = queue(device, family, index) };
}

unsafe extern "system" fn get2(
    device: vk::Device,
    info: *const vk::DeviceQueueInfo2<'_>,
    to: *mut vk::Queue,
) {
    // SAFETY: the caller's promise.
    unsafe { *to = queue(device, (*info).queue_family_index, (*info).queue_index) };
}

unsafe extern "system" fn submit(
    queue: vk::Queue,
    count: u32,
    submits: *const vk::SubmitInfo<'_>,
    fence: vk::Fence,
) -> vk::Result {
    // SAFETY: the caller's promise.
    unsafe {
        let all = (0..count as usize).map(|index| (*submits.add(index)).command_buffer_count);
        let buffers = all.sum::<u32>().max(1) as usize;
        Queue::of(queue).submit(buffers, |device, real| {
            (device.next.core.queue_submit)(real, count, submits, fence)
        })
    }
}

unsafe extern "system" fn submit2(
    queue: vk::Queue,
    count: u32,
    submits: *const vk::SubmitInfo2<'_>,
    fence: vk::Fence,
) -> vk::Result {
    // SAFETY: the caller's promise.
    unsafe {
        let all = (0..count as usize).map(|index| (*submits.add(index)).command_buffer_info_count);
        let buffers = all.sum::<u32>().max(1) as usize;
        Queue::of(queue).submit(buffers, |device, real| {
            (device.next.core13.queue_submit2)(real, count, submits, fence)
        })
    }
}

unsafe extern "system" fn wait_idle(queue: vk::Queue) -> vk::Result {
    // SAFETY: the caller's promise.
    let queue = unsafe { Queue::of(queue) };
    let real = queue.real();
    // SAFETY: lavapipe's queue, which nobody else uses.
    unsafe { (queue.device.next.core.queue_wait_idle)(*real) }
}

unsafe extern "system" fn device_wait_idle(handle: vk::Device) -> vk::Result {
    let device = Device::get(handle);
    let _real = device
        .real_queue
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the device is alive, and nobody else uses its queue.
    unsafe { (device.next.core.device_wait_idle)(handle) }
}

unsafe extern "system" fn bind_sparse(
    _: vk::Queue,
    _: u32,
    _: *const vk::BindSparseInfo<'_>,
    _: vk::Fence,
) -> vk::Result {
    complain(format_args!("vkQueueBindSparse, which no queue can"));
    vk::Result::ERROR_UNKNOWN
}

unsafe extern "system" fn present(
    queue: vk::Queue,
    info: *const vk::PresentInfoKHR<'_>,
) -> vk::Result {
    // SAFETY: the caller's promise.
    let queue = unsafe { Queue::of(queue) };
    let real = queue.real();
    // SAFETY: as above; nobody else uses lavapipe's queue.
    unsafe { (queue.device.next.swapchain.queue_present_khr)(*real, info) }
}

unsafe extern "system" fn label(queue: vk::Queue, info: *const vk::DebugUtilsLabelEXT<'_>) {
    // SAFETY: the caller's promise.
    let queue = unsafe { Queue::of(queue) };
    let real = queue.real();
    // SAFETY: as above; nobody else uses lavapipe's queue.
    unsafe { (queue.device.next.labels.queue_insert_debug_utils_label_ext)(*real, info) };
}

unsafe extern "system" fn end_label(_: vk::Queue) {}

/// lavapipe's handle of an object.
fn real_object(device: &Device, kind: vk::ObjectType, object: u64) -> u64 {
    match kind {
        vk::ObjectType::QUEUE => {
            let real = device
                .real_queue
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            real.as_raw()
        }
        _ => object,
    }
}

unsafe extern "system" fn set_private_data(
    handle: vk::Device,
    kind: vk::ObjectType,
    object: u64,
    slot: vk::PrivateDataSlot,
    data: u64,
) -> vk::Result {
    let device = Device::get(handle);
    let object = real_object(&device, kind, object);
    // SAFETY: the caller's promise.
    unsafe { (device.next.core13.set_private_data)(handle, kind, object, slot, data) }
}

unsafe extern "system" fn get_private_data(
    handle: vk::Device,
    kind: vk::ObjectType,
    object: u64,
    slot: vk::PrivateDataSlot,
    data: *mut u64,
) {
    let device = Device::get(handle);
    let object = real_object(&device, kind, object);
    // SAFETY: the caller's promise.
    unsafe { (device.next.core13.get_private_data)(handle, kind, object, slot, data) }
}

/// The loader's table pointer must be the queue's first field.
const _: () = assert!(std::mem::offset_of!(Queue, table) == 0);
const _: () = assert!(size_of::<usize>() == size_of::<*mut c_void>());
