//! [`RawDevice`]: the driver's device and nothing else. Threads of queues hold it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hesper_system::sync::Lock;
use hesper_venus_protocol::call::DeviceTable;
use hesper_venus_protocol::vk;

use super::instance::Instance;
use crate::host::queues::QueueShare;

/// How often a wait checks whether it must stop.
const WAIT_SLICE: Duration = Duration::from_millis(50);

/// Signalled fences are destroyed each time so many have been abandoned.
const ABANDONED_AT_ONCE: usize = 16;

/// No correct guest has so many abandoned fences that are not signalled.
const MOST_ABANDONED: usize = 4096;

/// The driver's device; destroyed on drop.
pub(crate) struct RawDevice {
    /// The driver's handle.
    pub(crate) handle: vk::Device,
    /// The driver's functions that are enabled.
    pub(crate) functions: DeviceTable,
    /// Fences that may still be in use when their queue is destroyed.
    abandoned: Mutex<Vec<vk::Fence>>,
    /// The instance it was made from.
    pub(super) instance: Arc<Instance>,
    _queues: QueueShare,
}

impl RawDevice {
    /// A device that the driver has made from `instance`, with its part of the GPU's queues.
    pub(crate) fn new(
        handle: vk::Device,
        functions: DeviceTable,
        instance: Arc<Instance>,
        queues: QueueShare,
    ) -> Self {
        Self {
            handle,
            functions,
            abandoned: Mutex::default(),
            instance,
            _queues: queues,
        }
    }

    /// A new fence.
    pub(crate) fn create_fence(&self) -> Option<vk::Fence> {
        let function = self.functions.create_fence?;
        let mut info = vk::FenceCreateInfo::default();
        let mut fence = vk::Fence::default();
        // SAFETY: the device is alive, the info is of a fence without a chain.
        let result =
            unsafe { function(self.handle, &raw mut info, std::ptr::null(), &raw mut fence) };
        (result == vk::Result::SUCCESS).then_some(fence)
    }

    /// Destroys a fence that no queue uses.
    pub(crate) fn destroy_fence(&self, fence: vk::Fence) {
        if let Some(function) = self.functions.destroy_fence {
            // SAFETY: the fence is of this device, and the caller says that it is not in use.
            unsafe { function(self.handle, fence, std::ptr::null()) };
        }
    }

    /// Keeps a fence that a queue may use until it is signalled or the device is destroyed.
    pub(crate) fn abandon_fence(&self, fence: vk::Fence) {
        let mut abandoned = self.abandoned.locked();
        abandoned.push(fence);
        if abandoned.len().is_multiple_of(ABANDONED_AT_ONCE) {
            abandoned.retain(|fence| {
                let is_done = self.is_signalled(*fence);
                if is_done {
                    self.destroy_fence(*fence);
                }
                !is_done
            });
        }
    }

    /// Whether there are more abandoned fences that are not signalled than a correct guest has.
    pub(crate) fn has_too_many_abandoned(&self) -> bool {
        self.abandoned.locked().len() >= MOST_ABANDONED
    }

    /// Resets a fence. False when the driver cannot.
    pub(crate) fn reset_fence(&self, fence: vk::Fence) -> bool {
        let Some(function) = self.functions.reset_fences else {
            return false;
        };
        // SAFETY: one fence of this device, not in use.
        let result = unsafe { function(self.handle, 1, &raw const fence) };
        result == vk::Result::SUCCESS
    }

    /// Whether a fence is signalled, or will never be.
    pub(crate) fn is_signalled(&self, fence: vk::Fence) -> bool {
        // SAFETY: a fence of this device.
        let status = self
            .functions
            .get_fence_status
            .map(|f| unsafe { f(self.handle, fence) });
        status.is_none_or(|status| status != vk::Result::NOT_READY)
    }

    /// Waits for a fence, or until `stop`, which gives `TIMEOUT`.
    pub(crate) fn wait_fence(&self, fence: vk::Fence, stop: &AtomicBool) -> vk::Result {
        let Some(function) = self.functions.wait_for_fences else {
            return vk::Result::ERROR_INITIALIZATION_FAILED;
        };
        wait_sliced(u64::MAX, stop, |timeout| {
            // SAFETY: one fence of this device.
            unsafe { function(self.handle, 1, &raw const fence, 1, timeout) }
        })
    }
}

impl Drop for RawDevice {
    fn drop(&mut self) {
        if let Some(function) = self.functions.device_wait_idle {
            // SAFETY: whoever uses the device or one of its queues holds this value, and this is
            // its last user. A thread of a queue may have submitted for a fence since the guest's
            // device was destroyed, so the device need not be idle.
            unsafe { function(self.handle) };
        }
        let abandoned = std::mem::take(&mut *self.abandoned.locked());
        abandoned
            .into_iter()
            .for_each(|fence| self.destroy_fence(fence));
        if let Some(function) = self.functions.destroy_device {
            // SAFETY: as above, and it is idle. `Device` has destroyed the guest's objects before
            // it let go of this value, and `Queue` its fences; the abandoned ones went above. What
            // the driver keeps of an object that was not destroyed goes with the device.
            unsafe { function(self.handle, std::ptr::null()) };
        }
    }
}

/// Waits in slices, so that the end of the context ends the wait. `wait` gets a timeout in
/// nanoseconds.
pub(crate) fn wait_sliced(
    timeout: u64,
    stop: &AtomicBool,
    mut wait: impl FnMut(u64) -> vk::Result,
) -> vk::Result {
    let slice = u64::try_from(WAIT_SLICE.as_nanos()).unwrap_or(u64::MAX);
    let start = std::time::Instant::now();
    loop {
        let passed = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let left = timeout.saturating_sub(if timeout == u64::MAX { 0 } else { passed });
        let result = wait(left.min(slice));
        if result != vk::Result::TIMEOUT || left <= slice || stop.load(Ordering::Acquire) {
            return result;
        }
    }
}
