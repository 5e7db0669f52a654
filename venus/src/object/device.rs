//! `VkDevice`: its functions, its queues, and what its objects have besides their handles.
//!
//! [`RawDevice`] is the driver's device and nothing else; queue threads hold it. [`Device`] is the guest's: when the
//! guest destroys it, or its context ends, it waits for the GPU and destroys what the guest left behind.

use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString, c_char};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError, RwLock};
use std::time::Duration;

use hesper_venus_protocol::CommandId;
use hesper_venus_protocol::call::{Call, DeviceTable, Function};
use hesper_venus_protocol::command::{
    CreateDevice, DestroyDevice, DeviceWaitIdle, GetPhysicalDeviceFeatures2,
};
use hesper_venus_protocol::features;
use hesper_venus_protocol::runtime::{Handle, Object};
use hesper_venus_protocol::vk;

use crate::command::ray_tracing::{ShaderGroups, wants_replay};
use crate::emulate::dma_buf::SharedObjects;
use crate::emulate::host_allocation::Declarable;
use crate::emulate::{extensions, sparse};
use crate::fatal::Fatal;
use crate::host::queues::{QueueRequest, QueueShare};
use crate::memory::{HostImport, SharedMemory};
use crate::object::host_copy::HostCopy;
use crate::object::instance::{self, Instance};
use crate::object::physical_device::{Allocated, PhysicalDevice, described};
use crate::object::queue::Queue;
use crate::object::table::Entry;
use crate::object::{Domain, teardown};
use crate::session::Session;
use crate::sync::{Lock, SharedLock};

/// The longest that a wait does not look whether it shall stop.
const WAIT_SLICE: Duration = Duration::from_millis(50);

/// After so many abandoned fences those that are signalled are destroyed.
const ABANDONED_AT_ONCE: usize = 16;
/// So many abandoned fences that are not signalled no correct guest has.
const MOST_ABANDONED: usize = 4096;

/// The driver's device; destroyed on drop.
pub(crate) struct RawDevice {
    /// The driver's handle.
    pub(crate) handle: vk::Device,
    /// The driver's functions, as far as they are enabled.
    pub(crate) functions: DeviceTable,
    /// Fences that may still be in use when their queue goes.
    abandoned: Mutex<Vec<vk::Fence>>,
    _instance: Arc<Instance>,
    _queues: QueueShare,
}

impl RawDevice {
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

    /// Keeps a fence that a queue may use until it is signalled or the device goes.
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

    /// Whether more fences were abandoned, and are not signalled, than a correct guest has.
    pub(crate) fn has_too_many_abandoned(&self) -> bool {
        self.abandoned.locked().len() >= MOST_ABANDONED
    }

    /// Makes a fence unsignalled; false when the driver cannot.
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

    /// Waits for a fence, or until `stop`, which makes it `TIMEOUT`.
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

/// Waits in slices, so that the end of the context ends the wait: `wait` gets a timeout in nanoseconds.
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

impl Drop for RawDevice {
    fn drop(&mut self) {
        if let Some(function) = self.functions.device_wait_idle {
            // SAFETY: nobody else uses the device any more.
            unsafe { function(self.handle) };
        }
        let abandoned = std::mem::take(
            self.abandoned
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner),
        );
        abandoned
            .into_iter()
            .for_each(|fence| self.destroy_fence(fence));
        if let Some(function) = self.functions.destroy_device {
            // SAFETY: nobody else uses the device, and everything made from it is destroyed.
            unsafe { function(self.handle, std::ptr::null()) };
        }
    }
}

/// What is kept about a `VkDeviceMemory`.
pub(crate) struct Memory {
    /// The pages, if the guest can map it.
    pub(crate) shared: Option<Arc<SharedMemory>>,
    /// That it stands in for an allocation of so many bytes, which failed.
    pub(crate) missing: Option<u64>,
    /// What it takes of its heap; nothing if the memory is a resource's, which counts where it was allocated.
    pub(crate) _allocated: Option<Allocated>,
}

/// A device of the guest's.
pub(crate) struct Device {
    /// Its ordinal as an owner of objects.
    pub(crate) owner: u32,
    /// The physical device it was made from.
    pub(crate) physical: Arc<PhysicalDevice>,
    /// How host memory is imported; `None` where the driver cannot.
    pub(crate) import: Option<HostImport>,
    /// Memory objects by the driver's handles.
    pub(crate) memories: Mutex<HashMap<u64, Memory>>,
    /// How many of them stand in for memory that the host did not have, to be looked at without the lock.
    pub(crate) missing: AtomicUsize,
    /// Buffers and images whose memory the guest shares.
    pub(crate) shared_objects: SharedObjects,
    /// What the driver said about declaring buffers and images for imported memory.
    pub(crate) declarable: Declarable,
    /// What was allocated from descriptor and command pools, by the guest's ids of pool and child.
    pub(crate) pools: Mutex<HashMap<u64, HashSet<u64>>>,
    /// How many values each query of a pool has, by the driver's handles.
    pub(crate) queries: Mutex<HashMap<u64, u32>>,
    /// Shader groups of ray tracing pipelines.
    pub(crate) shader_groups: ShaderGroups,
    /// Timeline semaphores, by the driver's handles.
    pub(crate) timeline_semaphores: Mutex<HashSet<u64>>,
    /// Copies between images and host memory.
    pub(crate) host_copy: HostCopy,
    raw: Arc<RawDevice>,
    instance: Arc<Instance>,
    requested: Vec<QueueRequest>,
    queues: RwLock<Vec<Arc<Queue>>>,
    leftover: Mutex<Vec<(u64, Entry)>>,
}

impl Device {
    /// The driver's functions.
    #[inline]
    pub(crate) fn functions(&self) -> &DeviceTable {
        &self.raw.functions
    }

    /// The driver's handle.
    pub(crate) fn handle(&self) -> vk::Device {
        self.raw.handle
    }

    /// The driver's device.
    pub(crate) fn raw(&self) -> &RawDevice {
        &self.raw
    }

    /// The instance it was made from.
    pub(crate) fn instance(&self) -> &Instance {
        &self.instance
    }

    /// The queue that `info` names, if the device was created with it.
    pub(crate) fn queue(&self, info: &vk::DeviceQueueInfo2) -> Option<Arc<Queue>> {
        let mut queues = self.queues.writing();
        if let Some(queue) = queues.iter().find(|queue| queue.is(info)) {
            return Some(Arc::clone(queue));
        }
        let is_there = self.requested.iter().any(|queues| {
            (queues.flags, queues.family) == (info.flags, info.queue_family_index)
                && info.queue_index < queues.count
        });
        if !is_there {
            return None;
        }
        let mut handle = vk::Queue::default();
        let (device, functions) = (self.handle(), self.functions());
        // `vkGetDeviceQueue2` cannot be had from every driver below Vulkan 1.1's own queues.
        match (
            info.flags.is_empty(),
            functions.get_device_queue,
            functions.get_device_queue2,
        ) {
            (true, Some(get), _) => {
                // SAFETY: the device has this queue, as checked above.
                unsafe {
                    get(
                        device,
                        info.queue_family_index,
                        info.queue_index,
                        &raw mut handle,
                    )
                };
            }
            (_, _, Some(get)) => {
                let mut info = vk::DeviceQueueInfo2 {
                    p_next: std::ptr::null(),
                    ..*info
                };
                // SAFETY: as above.
                unsafe { get(device, &raw mut info, &raw mut handle) };
            }
            _ => return None,
        }
        if handle.0 == 0 {
            return None;
        }
        let is_bounded = self.physical.facts.gpu.bounds_submissions();
        let raw = Arc::clone(&self.raw);
        let queue = Arc::new(Queue::new(raw, handle, info, is_bounded));
        queues.push(Arc::clone(&queue));
        Some(queue)
    }

    /// The queue with this handle, if the guest has asked for it.
    pub(crate) fn known_queue(&self, handle: vk::Queue) -> Option<Arc<Queue>> {
        let queues = self.queues.reading();
        queues.iter().find(|queue| queue.handle == handle).cloned()
    }

    /// Signals a binary semaphore, which nothing else is about to signal.
    pub(crate) fn signal_now(&self, semaphore: vk::Semaphore) {
        let submit = vk::SubmitInfo {
            signal_semaphore_count: 1,
            p_signal_semaphores: &raw const semaphore,
            ..Default::default()
        };
        self.submit_empty(&submit);
    }

    /// Waits, on the GPU, for a binary semaphore, so that it can be signalled again.
    pub(crate) fn consume_signal(&self, semaphore: vk::Semaphore) {
        let stage = vk::PipelineStageFlags::ALL_COMMANDS;
        let submit = vk::SubmitInfo {
            wait_semaphore_count: 1,
            p_wait_semaphores: &raw const semaphore,
            p_wait_dst_stage_mask: &raw const stage,
            ..Default::default()
        };
        self.submit_empty(&submit);
    }

    /// An empty submit on the first queue that the guest has asked for.
    fn submit_empty(&self, submit: &vk::SubmitInfo) {
        let first = self.queues.reading().first().cloned();
        let result = first.map(|queue| queue.submit_empty(Some(submit), vk::Fence::default()));
        if result != Some(vk::Result::SUCCESS) {
            // A guest can bring this about as often as it likes.
            static SAID: Once = Once::new();
            SAID.call_once(|| {
                log::warn!(
                    "a semaphore without a queue or on a lost device stays as it is: {result:?}; said once"
                );
            });
        }
    }

    /// Waits until all queues are done, or `stop`.
    fn wait_idle(&self, stop: &AtomicBool) -> vk::Result {
        let queues = self.queues.reading().clone();
        let results = queues.iter().map(|queue| queue.wait_idle(stop));
        results.fold(vk::Result::SUCCESS, |all, one| {
            if one == vk::Result::SUCCESS { all } else { one }
        })
    }

    /// Takes over the objects that the guest has not destroyed, to be destroyed with the device.
    pub(crate) fn retire(&self, objects: Vec<(u64, Entry)>) {
        for queue in self.queues.reading().iter() {
            queue.close();
        }
        self.leftover.locked().extend(objects);
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let objects = std::mem::take(
            self.leftover
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner),
        );
        // What the GPU waits for would never come now.
        teardown::release_waits(&self.raw, &objects, &self.timeline_semaphores.locked());
        if let Some(function) = self.functions().device_wait_idle {
            // SAFETY: this was the last user of the device but for threads that only wait for fences.
            unsafe { function(self.raw.handle) };
        }
        teardown::destroy(&self.raw, &objects);
    }
}

/// `vkCreateDevice`
pub(crate) fn create(
    session: &mut Session<'_>,
    c: &mut CreateDevice<'_>,
) -> Result<vk::Result, Fatal> {
    let id = CommandId::CreateDevice;
    let physical = described(session, id, c.physical_device.handle)?;
    let instance = Arc::clone(session.instance(id)?);
    let guest_id = c.p_device.0;
    let info = &mut *c.p_create_info;
    let names = match enabled_extensions(info, &physical, session) {
        Ok(names) => names,
        Err(unseen) => {
            session.state.complain(format_args!(
                "vkCreateDevice fails: extension {} is not offered to guests on this GPU; a program that looks for it before it enables \
                 it would not ask",
                unseen.to_string_lossy()
            ));
            return Ok(vk::Result::ERROR_EXTENSION_NOT_PRESENT);
        }
    };
    // SAFETY: the chain was decoded, and nobody else uses it.
    if sparse::wants_hidden(info, &physical) || unsafe { wants_replay(info.p_next) } {
        return Ok(vk::Result::ERROR_FEATURE_NOT_PRESENT);
    }
    let pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    info.enabled_extension_count = u32::try_from(pointers.len()).unwrap_or(0);
    info.pp_enabled_extension_names = pointers.as_ptr();
    info.enabled_layer_count = 0;
    let requested = requested_queues(info);
    let share = match physical.facts.queues.take(&requested) {
        Ok(share) => share,
        Err(result) => return Ok(result),
    };
    // What the driver has of the portability subset; guests know no other Vulkan than a whole one.
    let mut subset = physical.facts.subset.map(|subset| subset.enabled());
    if let Some(subset) = &mut subset {
        subset.p_next = info.p_next.cast_mut();
        info.p_next = std::ptr::from_mut(subset).cast();
    }
    // SAFETY: ids are replaced by handles, counts and pointers were checked or set above.
    let result =
        unsafe { c.call(instance.functions()) }.ok_or(Fatal::NotEnabled("vkCreateDevice"))?;
    let handle = std::mem::replace(c.p_device, vk::Device::from_raw(guest_id));
    if result != vk::Result::SUCCESS {
        complain(session, c, &instance, result, &names);
        return Ok(result);
    }
    let (functions, host_copy) = load(&instance, handle)?;
    let raw = RawDevice {
        handle,
        functions,
        abandoned: Mutex::default(),
        _instance: Arc::clone(&instance),
        _queues: share,
    };
    let import = names
        .iter()
        .any(|name| name.as_c_str() == ash::ext::external_memory_host::NAME)
        .then(|| {
            // The guest rounds a blob up to its alignment: the pages must be there.
            let unit = session.state.blob_alignment;
            HostImport::load(&instance, handle, physical.facts.alignment, unit)
        })
        .flatten();
    let owner = session.state.objects.new_owner()?;
    let device = Device {
        owner,
        physical,
        import,
        memories: Mutex::default(),
        missing: AtomicUsize::new(0),
        shared_objects: SharedObjects::default(),
        declarable: Declarable::default(),
        pools: Mutex::default(),
        queries: Mutex::default(),
        shader_groups: ShaderGroups::default(),
        timeline_semaphores: Mutex::default(),
        host_copy,
        raw: Arc::new(raw),
        instance,
        requested,
        queues: RwLock::default(),
        leftover: Mutex::default(),
    };
    let domain = Domain::Device(Arc::new(device));
    session
        .state
        .objects
        .insert_domain(owner, guest_id, handle, domain)?;
    Ok(result)
}

/// Says why the host makes no device.
fn complain(
    session: &Session<'_>,
    c: &CreateDevice<'_>,
    instance: &Instance,
    result: vk::Result,
    names: &[CString],
) {
    if result != vk::Result::ERROR_FEATURE_NOT_PRESENT {
        return session.state.complain(format_args!(
            "vkCreateDevice fails on the host with {result:?}, asked for {names:?}"
        ));
    }
    let physical_device = Object {
        id: 0,
        handle: c.physical_device.handle,
    };
    let ask = |features: &mut vk::PhysicalDeviceFeatures2| {
        let mut command = GetPhysicalDeviceFeatures2 {
            physical_device,
            p_features: features,
        };
        // SAFETY: the physical device is alive, the chain is of valid structs. Without the function nothing is filled in.
        unsafe { command.call(instance.functions()) };
    };
    // SAFETY: the info was decoded; the driver fills in features only.
    let missing = unsafe { features::missing(c.p_create_info, ask) };
    session.state.complain(format_args!(
        "vkCreateDevice fails: this GPU lacks {missing:?}; a program that looks for features before it enables them would not ask"
    ));
}

/// What to enable on the host, or what the guest wants although it was not offered it.
fn enabled_extensions<'i>(
    info: &'i vk::DeviceCreateInfo,
    physical: &PhysicalDevice,
    session: &Session<'_>,
) -> Result<Vec<CString>, &'i CStr> {
    // SAFETY: the decoder made an array of as many pointers to NUL-terminated strings as the count says, or a null pointer.
    let wanted = unsafe {
        instance::names(
            info.pp_enabled_extension_names,
            info.enabled_extension_count,
        )
    };
    let mut names = extensions::enabled(
        wanted.into_iter(),
        &physical.extensions,
        session.state.policy,
    )?;
    for needed in &physical.facts.core_extensions {
        if !names.iter().any(|name| name.as_c_str() == *needed) {
            names.push((*needed).to_owned());
        }
    }
    Ok(names)
}

/// The queues that a device is created with.
fn requested_queues(info: &vk::DeviceCreateInfo) -> Vec<QueueRequest> {
    let count = info.queue_create_info_count as usize;
    if info.p_queue_create_infos.is_null() {
        return Vec::new();
    }
    // SAFETY: the decoder made an array of `count` structs, or a null pointer.
    let queues = unsafe { std::slice::from_raw_parts(info.p_queue_create_infos, count) };
    queues
        .iter()
        .map(|queue| QueueRequest {
            flags: queue.flags,
            family: queue.queue_family_index,
            count: queue.queue_count,
        })
        .collect()
}

fn load(instance: &Instance, device: vk::Device) -> Result<(DeviceTable, HostCopy), Fatal> {
    let get = instance
        .host()
        .instance_function(instance.handle(), c"vkGetDeviceProcAddr");
    let get = get.ok_or(Fatal::NotEnabled("vkGetDeviceProcAddr"))?;
    // SAFETY: the loader answers by name, and this is the type of that function.
    let get = unsafe {
        std::mem::transmute::<
            Function,
            unsafe extern "system" fn(vk::Device, *const c_char) -> Option<Function>,
        >(get)
    };
    // SAFETY: the device is alive, the name ends with NUL.
    let mut by_name = |name: &CStr| unsafe { get(device, name.as_ptr()) };
    // SAFETY: the driver answers by name.
    let functions = unsafe { DeviceTable::load(&mut by_name) };
    Ok((functions, HostCopy::load(&mut by_name)))
}

/// `vkDestroyDevice`
pub(crate) fn destroy(session: &mut Session<'_>, c: &mut DestroyDevice) -> Result<(), Fatal> {
    if c.device.is_null() {
        return Ok(());
    }
    let owner = session.device(CommandId::DestroyDevice)?.owner;
    session.forget_domain();
    session.state.timelines.release(c.device.handle);
    session.state.objects.remove_device(owner);
    Ok(())
}

/// `vkDeviceWaitIdle`
pub(crate) fn wait(
    session: &mut Session<'_>,
    _c: &mut DeviceWaitIdle,
) -> Result<vk::Result, Fatal> {
    let device = Arc::clone(session.device(CommandId::DeviceWaitIdle)?);
    session.publish();
    Ok(device.wait_idle(session.state.stop_flag()))
}
