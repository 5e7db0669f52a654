//! `VkDevice`: its functions, its queues, and what its objects have besides their handles.
//!
//! [`RawDevice`] is the driver's device and nothing else; queue threads hold it. [`Device`] is the
//! guest's device. When the guest destroys it, or its context ends, it waits for the GPU and
//! destroys what the guest left behind.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once, RwLock};
use std::time::Instant;

use hesper_system::sync::{Lock, SharedLock};
use hesper_venus_protocol::call::DeviceTable;
use hesper_venus_protocol::vk;
use hesper_venus_protocol::vk::HandleType as Kind;

use super::declarable::Declarable;
use super::facts::{Facts, Limits};
use super::freed_memory::{self, FreedMemory, Room, Use};
use super::host_copy::HostCopy;
use super::instance::Instance;
use super::mirrors::Mirrors;
use super::physical_device::{Allocated, PhysicalDevice};
use super::pools::Pools;
use super::queue::{FenceListener, Queue};
use super::raw_device::RawDevice;
use super::shader_groups::ShaderGroups;
use super::shared_objects::SharedObjects;
use super::sync_files::{Payload, SyncFiles};
use super::table::Entry;
use super::teardown;
use crate::host::queues::QueueRequest;
use crate::memory::{HostImport, SharedMemory};

/// What is kept about a `VkDeviceMemory`.
pub(crate) struct Memory {
    /// The pages, if the guest can map it.
    pub(crate) shared: Option<Arc<SharedMemory>>,
    /// The size in bytes of the failed allocation that it stands in for.
    pub(crate) stands_in_for: Option<u64>,
    /// Its bytes of its heap. `None` for memory of a resource, which counts where it was allocated.
    pub(crate) allocated: Option<Allocated>,
    /// For which allocations it can be used again. `None` for memory that cannot.
    pub(crate) reusable: Option<Use>,
}

/// A device of the guest.
pub(crate) struct Device {
    /// Its ordinal as an owner of objects.
    pub(crate) owner: u32,
    /// Set when it is removed. No object is entered after that.
    pub(crate) is_gone: AtomicBool,
    /// The physical device it was made from.
    pub(crate) physical: Arc<PhysicalDevice>,
    /// How host memory is imported. `None` when the driver cannot.
    pub(crate) import: Option<HostImport>,
    /// Memory objects by the driver's handles.
    pub(crate) memories: Mutex<HashMap<u64, Memory>>,
    /// Memory that the guest has freed, for its next allocations.
    pub(crate) freed: FreedMemory,
    /// How many of [`Device::memories`] are stand-ins, readable without the lock.
    pub(crate) stand_ins: AtomicUsize,
    /// Buffers and images whose memory the guest shares.
    pub(crate) shared_objects: SharedObjects,
    /// Images whose pictures are copied to shared memory.
    pub(crate) mirrors: Mirrors,
    /// The driver's answers about declaring buffers and images for imported memory.
    pub(crate) declarable: Declarable,
    /// What was allocated from descriptor and command pools.
    pub(crate) pools: Pools,
    /// Shader groups of ray tracing pipelines.
    pub(crate) shader_groups: ShaderGroups,
    /// Timeline semaphores, by the driver's handles.
    pub(crate) timeline_semaphores: Mutex<HashSet<u64>>,
    /// Semaphores with payloads from or for sync files.
    pub(crate) sync_files: SyncFiles,
    /// Copies between images and host memory.
    pub(crate) host_copy: HostCopy,
    /// Limits and sizes that the numbers of commands are checked with.
    pub(crate) facts: Facts,
    raw: Arc<RawDevice>,
    requested: Vec<QueueRequest>,
    queues: RwLock<Vec<Arc<Queue>>>,
    leftover: Mutex<Vec<(u64, Entry)>>,
}

impl Device {
    /// A device without objects; `owner` is fresh. What it keeps of freed memory takes `room`.
    #[expect(
        clippy::too_many_arguments,
        reason = "one caller, and each is another type"
    )]
    pub(crate) fn new(
        owner: u32,
        physical: Arc<PhysicalDevice>,
        raw: RawDevice,
        requested: Vec<QueueRequest>,
        import: Option<HostImport>,
        host_copy: HostCopy,
        limits: Limits,
        room: &Arc<Room>,
    ) -> Self {
        Self {
            owner,
            is_gone: AtomicBool::new(false),
            physical,
            import,
            memories: Mutex::default(),
            freed: FreedMemory::new(room),
            stand_ins: AtomicUsize::new(0),
            shared_objects: SharedObjects::default(),
            mirrors: Mirrors::default(),
            declarable: Declarable::default(),
            pools: Pools::default(),
            shader_groups: ShaderGroups::default(),
            timeline_semaphores: Mutex::default(),
            sync_files: SyncFiles::default(),
            host_copy,
            facts: Facts::new(limits),
            raw: Arc::new(raw),
            requested,
            queues: RwLock::default(),
            leftover: Mutex::default(),
        }
    }

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
        &self.raw.instance
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
        // Drivers of Vulkan 1.0 lack `vkGetDeviceQueue2`.
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

    /// Takes the payload of a binary semaphore for a sync file, so that it can be signalled again.
    /// What is submitted later does not wait for that.
    pub(crate) fn export_payload(&self, semaphore: vk::Semaphore) {
        let queue = match self.sync_files.export(semaphore) {
            Payload::Imported => return,
            Payload::On(queue) => self.known_queue(queue),
            Payload::Somewhere => self.queues.reading().first().cloned(),
        };
        let stage = vk::PipelineStageFlags::BOTTOM_OF_PIPE;
        let submit = vk::SubmitInfo {
            wait_semaphore_count: 1,
            p_wait_semaphores: &raw const semaphore,
            p_wait_dst_stage_mask: &raw const stage,
            ..Default::default()
        };
        let result = queue.map(|queue| queue.submit_empty(Some(&submit), vk::Fence::default()));
        if result != Some(vk::Result::SUCCESS) {
            // A guest can cause this as often as it likes.
            static LOGGED: Once = Once::new();
            LOGGED.call_once(|| {
                log::warn!(
                    "a semaphore stays as it is, because its device has no queue or is lost ({result:?}); logged once"
                );
            });
        }
    }

    /// Waits until all queues are done, or `stop`.
    pub(crate) fn wait_idle(&self, stop: &AtomicBool) -> vk::Result {
        let queues = self.queues.reading().clone();
        let results = queues.iter().map(|queue| queue.wait_idle(stop));
        results.fold(vk::Result::SUCCESS, |all, one| {
            if one == vk::Result::SUCCESS { all } else { one }
        })
    }

    /// Retires all open fences of its queues. Nobody submits to them any more.
    pub(crate) fn close_queues(&self, listener: &impl FenceListener) {
        let queues = self.queues.reading().clone();
        queues.iter().for_each(|queue| queue.retire_all(listener));
    }

    /// Destroys an object that was taken out of the table, and forgets what is kept about it. No
    /// thread uses its handle any more.
    #[inline(always)]
    pub(crate) fn destroy_now(&self, entry: &Entry) {
        // Before the driver is called: it may give the handle to a new object at once.
        let memory = match self.forget(entry) {
            Some(memory) => match self.keep_freed(entry.host, memory) {
                Some(memory) => Some(memory),
                None => return,
            },
            None => None,
        };
        let mirror = match entry.kind == Kind::Image as u32 {
            true => self.mirrors.take(entry.host),
            false => None,
        };
        teardown::destroy_one(&self.raw, entry);
        if let Some(mirror) = mirror {
            mirror.destroy(&self.raw);
        }
        // The pages are freed after the driver has released them.
        drop(memory);
    }

    /// Keeps freed memory for the next allocation. Gives back what cannot be kept.
    fn keep_freed(&self, host: u64, memory: Memory) -> Option<Memory> {
        let (refused, replaced) = self.freed.keep(host, memory, Instant::now());
        freed_memory::destroy(&self.raw, replaced);
        refused
    }

    /// Destroys freed memory that was kept since before `until`; all without it. Returns whether
    /// there was any.
    pub(crate) fn release_freed(&self, until: Option<Instant>) -> bool {
        let kept = self.freed.take_out(until);
        let is_any = !kept.is_empty();
        freed_memory::destroy(&self.raw, kept);
        is_any
    }

    /// Forgets what is kept about an object. Inlined, since callers usually know the kind.
    #[inline(always)]
    fn forget(&self, entry: &Entry) -> Option<Memory> {
        let host = entry.host;
        self.facts.forget(entry.kind, host);
        match entry.kind {
            kind if kind == Kind::Buffer as u32 => self.shared_objects.buffers.remove(host),
            kind if kind == Kind::Image as u32 => {
                self.shared_objects.images.remove(host);
                self.shared_objects.linear.remove(host);
            }
            kind if kind == Kind::DeviceMemory as u32 => {
                let memory = self.memories.locked().remove(&host);
                if memory.as_ref().is_some_and(|m| m.stands_in_for.is_some()) {
                    self.stand_ins.fetch_sub(1, Ordering::Release);
                }
                return memory;
            }
            kind if kind == Kind::Semaphore as u32 => {
                self.timeline_semaphores.locked().remove(&host);
                self.sync_files.remove(host);
            }
            kind if kind == Kind::Pipeline as u32 => {
                self.shader_groups.remove(vk::Pipeline(host));
            }
            kind if kind == Kind::CommandPool as u32 || kind == Kind::DescriptorPool as u32 => {
                self.pools.remove(host);
            }
            _ => {}
        }
        None
    }

    /// Takes over the objects that the guest has not destroyed. They are destroyed with the device.
    pub(crate) fn retire(&self, objects: Vec<(u64, Entry)>) {
        for queue in self.queues.reading().iter() {
            queue.close();
        }
        self.leftover.locked().extend(objects);
    }
}

/// How often waits of the GPU are ended again before the driver is left to wait without end. Each
/// time takes up to 50 ms.
const ROUNDS: usize = 20;

impl Device {
    /// How far ahead of its value a timeline semaphore may be signalled at once.
    fn timeline_reach(&self) -> u64 {
        let mut timeline = vk::PhysicalDeviceTimelineSemaphoreProperties::default();
        let mut properties = vk::PhysicalDeviceProperties2 {
            p_next: (&raw mut timeline).cast(),
            ..Default::default()
        };
        let functions = self.instance().functions();
        if let Some(get) = functions.get_physical_device_properties2 {
            // SAFETY: a physical device of this instance, and a chain of live structs.
            unsafe { get(self.physical.handle, &raw mut properties) };
        }
        let told = timeline.max_timeline_semaphore_value_difference;
        told.max(teardown::TIMELINE_STEP)
    }

    /// Ends what the GPU waits for, since it would never come now. A queue may have several such
    /// waits, one behind the other.
    fn end_waits(&self, objects: &[(u64, Entry)]) {
        let timelines = self.timeline_semaphores.locked();
        let reach = match timelines.is_empty() {
            true => teardown::TIMELINE_STEP,
            false => self.timeline_reach(),
        };
        teardown::end_waits(&self.raw, objects, &timelines, reach);
        if timelines.is_empty() {
            return;
        }
        let queues = self.queues.reading();
        let ends: Vec<vk::Fence> = queues.iter().filter_map(|queue| queue.mark_end()).collect();
        // One look of 50 ms each.
        let at_once = AtomicBool::new(true);
        let is_busy = |end: &vk::Fence| self.raw.wait_fence(*end, &at_once) == vk::Result::TIMEOUT;
        for _ in 0..ROUNDS {
            if !ends.iter().any(is_busy) {
                break;
            }
            teardown::end_waits(&self.raw, objects, &timelines, reach);
        }
        // Destroyed when the device is idle.
        ends.into_iter().for_each(|end| self.raw.abandon_fence(end));
    }
}

impl Drop for Device {
    /// May never return, if the driver does not: a GPU can wait for a binary semaphore that nobody
    /// signals. See `context::endings`.
    fn drop(&mut self) {
        let objects = std::mem::take(&mut *self.leftover.locked());
        self.end_waits(&objects);
        if let Some(function) = self.functions().device_wait_idle {
            let queues = self.queues.reading();
            // A thread that submits for fences may not have ended yet.
            let _taken: Vec<_> = queues.iter().map(|queue| queue.lock()).collect();
            // SAFETY: the device is alive, and nobody uses its queues while they are taken.
            unsafe { function(self.raw.handle) };
        }
        teardown::destroy_all(&self.raw, &objects);
        self.release_freed(None);
        self.mirrors.destroy_all(&self.raw);
    }
}
