//! `VkQueue`: makes submissions one at a time, and retires the guest's fences after them.
//!
//! A guest binds a queue to a ring index (`VkDeviceQueueTimelineInfoMESA`), which [`BoundQueues`]
//! keeps. [`Queue::fence`] then means: tell the guest when everything submitted so far is done. The
//! queue makes an empty submit with a `VkFence`. A thread waits for these fences in their order. It
//! is started with the first fence, and costs nothing while there are none.
//!
//! A driver may let a submission wait until others are done (MoltenVK does beyond 64 command
//! buffers). The caller of [`Queue::fence`] never waits for that. When the device is lost or the
//! context ends, all open fences retire at once: nobody may wait for a queue that is gone.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, RwLock};
use std::time::Duration;

use hesper_system::LogLimit;
use hesper_system::budget::Charge;
use hesper_system::sync::{Lock, SharedLock, Wait};
use hesper_venus_protocol::call::DeviceTable;
use hesper_venus_protocol::vk;

use super::raw_device::RawDevice;
use crate::trace::{Lane, Span, Started};

/// How long the thread waits before it tries again to take a queue that somebody else uses.
const BRIEFLY: Duration = Duration::from_millis(1);

/// Limits the log lines about threads that could not be started. A guest can cause them.
static NO_THREAD: LogLimit = LogLimit::new("hesper_venus");

/// Ring indices that a guest may bind. 0 is the context's own timeline.
pub(crate) const RINGS: usize = 64;

/// Is told which fences of the guest's timelines are done.
pub(crate) trait FenceListener: Send + Sync + 'static {
    /// The context's id, for the names of threads.
    fn context_id(&self) -> u32;

    /// Takes one of the guest's threads, as long as the value lives. `None` when it has all that it
    /// may have.
    fn thread(&self) -> Option<Charge>;

    /// Where the steps of fences are recorded.
    fn lane(&self) -> &Lane;

    /// Reports a fence as signalled.
    fn retire(&self, fence: GuestFence);
}

/// A fence of the guest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GuestFence {
    /// Its timeline.
    pub(crate) ring: u8,
    /// The front end's id.
    pub(crate) id: u64,
    /// When the front end asked for it.
    pub(crate) sent: Started,
}

impl GuestFence {
    /// Records a step of its way, which ends now.
    pub(crate) fn end_step(&self, lane: &Lane, began: Started, step: Span) {
        lane.end_fence(began, step, self.ring, self.id);
    }
}

/// A fence of the guest, and what the driver signals for it.
struct PendingFence {
    guest: GuestFence,
    host: HostFence,
    /// When the driver was asked to signal it.
    submitted: Started,
}

/// What the driver signals for a fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HostFence {
    /// Nothing yet. Whoever submits to the queue next submits for this fence first.
    Wanted,
    /// It is being submitted, by whoever has this number.
    Submitting(u64),
    /// This one.
    Fence(vk::Fence),
    /// Nothing, because the driver could not be asked. It is done as soon as those before it are.
    Nothing,
}

#[derive(Default)]
struct Timeline {
    open: VecDeque<PendingFence>,
    /// Fences of the driver's to be used again.
    spare: Vec<vk::Fence>,
    /// Numbers of those that are being submitted.
    submitting: u64,
    has_thread: bool,
    is_closed: bool,
}

/// A queue of a device.
pub(crate) struct Queue {
    device: Arc<RawDevice>,
    /// The driver's handle.
    pub(crate) handle: vk::Queue,
    family: u32,
    index: u32,
    flags: vk::DeviceQueueCreateFlags,
    /// Vulkan allows one user of a queue at a time.
    submitting: Mutex<()>,
    /// The driver may let a submission wait until earlier ones are done.
    is_bounded: bool,
    timeline: Mutex<Timeline>,
    /// How many fences are [`HostFence::Wanted`], readable without the lock.
    wanted: AtomicUsize,
    changed: Condvar,
    closing: AtomicBool,
}

impl Queue {
    /// A queue of `device`. If it `is_bounded`, its driver may let submissions wait.
    pub(crate) fn new(
        device: Arc<RawDevice>,
        handle: vk::Queue,
        info: &vk::DeviceQueueInfo2,
        is_bounded: bool,
    ) -> Self {
        Self {
            device,
            handle,
            family: info.queue_family_index,
            index: info.queue_index,
            flags: info.flags,
            submitting: Mutex::new(()),
            is_bounded,
            timeline: Mutex::default(),
            wanted: AtomicUsize::new(0),
            changed: Condvar::new(),
            closing: AtomicBool::new(false),
        }
    }

    /// Whether it is the queue that `info` names.
    pub(crate) fn is(&self, info: &vk::DeviceQueueInfo2) -> bool {
        (self.family, self.index, self.flags)
            == (info.queue_family_index, info.queue_index, info.flags)
    }

    /// Whether it belongs to this device of the driver.
    pub(crate) fn is_of(&self, device: vk::Device) -> bool {
        self.device.handle == device
    }

    /// Takes the queue, for submitting.
    pub(crate) fn lock(&self) -> MutexGuard<'_, ()> {
        self.submitting.locked()
    }

    fn functions(&self) -> &DeviceTable {
        &self.device.functions
    }

    /// Submits nothing but waits, signals or a fence.
    pub(crate) fn submit_empty(
        &self,
        submit: Option<&vk::SubmitInfo>,
        fence: vk::Fence,
    ) -> vk::Result {
        let queue = self.lock();
        self.submit_locked(&queue, submit, fence)
    }

    /// The same, for a caller that has taken the queue.
    fn submit_locked(
        &self,
        _queue: &MutexGuard<'_, ()>,
        submit: Option<&vk::SubmitInfo>,
        fence: vk::Fence,
    ) -> vk::Result {
        let Some(function) = self.functions().queue_submit else {
            return vk::Result::ERROR_INITIALIZATION_FAILED;
        };
        let submits = submit.map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: queue and fence are of this device, the submit is alive, and the lock keeps
        // others away.
        unsafe { function(self.handle, u32::from(submit.is_some()), submits, fence) }
    }

    /// Retires `fence` on its timeline when everything submitted so far is done, and after the
    /// fences that were asked for before.
    ///
    /// Never waits for the driver: the caller has other queues to serve, and a submission may wait
    /// for what the guest does next. If submitting might wait, the fence is left to whoever submits
    /// next, or else to the thread.
    pub(crate) fn fence(self: &Arc<Self>, listener: &Arc<impl FenceListener>, fence: GuestFence) {
        let submitted = listener.lane().begin();
        let mut timeline = self.timeline.locked();
        if timeline.is_closed {
            drop(timeline);
            return listener.retire(fence);
        }
        let is_in_order = self.wanted.load(Ordering::Acquire) == 0;
        let queue = match is_in_order && !self.is_bounded {
            true => self.submitting.try_lock().ok(),
            false => None,
        };
        let host = match queue {
            Some(queue) => {
                let spare = timeline.spare.pop();
                let host = spare.or_else(|| self.device.create_fence());
                let host = host
                    .filter(|host| self.submit_locked(&queue, None, *host) == vk::Result::SUCCESS);
                drop(queue);
                let is_done = host.is_none_or(|host| self.device.is_signalled(host));
                if is_done && timeline.open.is_empty() {
                    timeline
                        .spare
                        .extend(host.filter(|host| self.device.reset_fence(*host)));
                    drop(timeline);
                    fence.end_step(listener.lane(), submitted, Span::FenceDriver);
                    return listener.retire(fence);
                }
                host.map_or(HostFence::Nothing, HostFence::Fence)
            }
            None => {
                self.wanted.fetch_add(1, Ordering::AcqRel);
                HostFence::Wanted
            }
        };
        timeline.open.push_back(PendingFence {
            guest: fence,
            host,
            submitted,
        });
        let mut orphans = VecDeque::new();
        if !timeline.has_thread {
            let (queue, context) = (Arc::clone(self), Arc::clone(listener));
            let place = listener.thread();
            let place = place.ok_or_else(|| std::io::ErrorKind::QuotaExceeded.into());
            let thread = place.and_then(|place| {
                std::thread::Builder::new()
                    .name(format!("venus-{}-queue", listener.context_id()))
                    .spawn(move || {
                        queue.watch(&*context);
                        drop(place);
                    })
            });
            timeline.has_thread = thread.is_ok();
            if let Err(error) = thread {
                // Without the thread the fences would never retire.
                let what =
                    format_args!("no thread to watch a queue: {error}; its fences retire at once");
                NO_THREAD.log(log::Level::Error, what);
                std::mem::swap(&mut orphans, &mut timeline.open);
            }
        }
        drop(timeline);
        self.changed.notify_all();
        for open in orphans {
            self.forget(open.host);
            listener.retire(open.guest);
        }
    }

    /// Stops using what the driver may still signal.
    fn forget(&self, host: HostFence) {
        match host {
            HostFence::Fence(host) => self.device.abandon_fence(host),
            HostFence::Wanted => {
                self.wanted.fetch_sub(1, Ordering::AcqRel);
            }
            // The thread that submits it will find that nobody waits for it any more.
            HostFence::Submitting(_) | HostFence::Nothing => {}
        }
    }

    /// Submits for the wanted fences, in their order. The caller has taken the queue, and calls
    /// this before it submits itself.
    pub(crate) fn submit_wanted(&self, queue: &MutexGuard<'_, ()>) {
        while self.wanted.load(Ordering::Acquire) != 0 {
            let mut timeline = self.timeline.locked();
            let number = timeline.submitting.wrapping_add(1);
            let mut open = timeline.open.iter_mut();
            let Some(next) = open.find(|open| open.host == HostFence::Wanted) else {
                return;
            };
            next.host = HostFence::Submitting(number);
            timeline.submitting = number;
            self.wanted.fetch_sub(1, Ordering::AcqRel);
            let spare = timeline.spare.pop();
            // The driver may be slow, and others ask for fences meanwhile.
            drop(timeline);
            let host = spare.or_else(|| self.device.create_fence());
            let host =
                host.filter(|host| self.submit_locked(queue, None, *host) == vk::Result::SUCCESS);
            let mut timeline = self.timeline.locked();
            let mut open = timeline.open.iter_mut();
            match open.find(|open| open.host == HostFence::Submitting(number)) {
                Some(open) => {
                    open.host = host.map_or(HostFence::Nothing, HostFence::Fence);
                    open.submitted = open.submitted.again();
                }
                None => {
                    drop(timeline);
                    host.into_iter()
                        .for_each(|host| self.device.abandon_fence(host));
                }
            }
            self.changed.notify_all();
        }
    }

    /// The thread: retires fences in their order, until the queue is closed and none is left.
    fn watch(&self, listener: &impl FenceListener) {
        let mut timeline = self.timeline.locked();
        loop {
            let next = timeline.open.front().map(|open| (open.host, open.guest));
            let is_closed = timeline.is_closed;
            let ended = match next {
                None if is_closed => return,
                Some((HostFence::Wanted, _)) if !is_closed => {
                    drop(timeline);
                    if let Ok(queue) = self.submitting.try_lock() {
                        self.submit_wanted(&queue);
                        timeline = self.timeline.locked();
                        continue;
                    }
                    // Another thread uses the queue, maybe for long. The fence must not wait for it
                    // after the queue is closed, so look again soon.
                    timeline = self.wait_briefly(self.timeline.locked());
                    continue;
                }
                Some((HostFence::Submitting(_), _)) if !is_closed => {
                    timeline = self.wait_briefly(timeline);
                    continue;
                }
                None => {
                    timeline = self.changed.waited(timeline);
                    continue;
                }
                // The fence retires in any case: done, lost, or told to stop.
                Some((HostFence::Fence(host), guest)) => {
                    drop(timeline);
                    let began = listener.lane().begin();
                    let ended = self.device.wait_fence(host, &self.closing);
                    guest.end_step(listener.lane(), began, Span::QueueWait);
                    timeline = self.timeline.locked();
                    Some(ended)
                }
                Some((HostFence::Wanted | HostFence::Submitting(_) | HostFence::Nothing, _)) => {
                    None
                }
            };
            let Some(open) = timeline.open.pop_front() else {
                continue;
            };
            match open.host {
                HostFence::Fence(host)
                    if ended == Some(vk::Result::SUCCESS) && self.device.reset_fence(host) =>
                {
                    timeline.spare.push(host);
                }
                other => self.forget(other),
            }
            drop(timeline);
            open.guest
                .end_step(listener.lane(), open.submitted, Span::FenceDriver);
            listener.retire(open.guest);
            timeline = self.timeline.locked();
        }
    }

    /// Waits until something changes, but only briefly: nothing tells when another thread has
    /// released the queue.
    fn wait_briefly<'t>(&self, timeline: MutexGuard<'t, Timeline>) -> MutexGuard<'t, Timeline> {
        self.changed.waited_for(timeline, BRIEFLY).0
    }

    /// Lets the thread retire all open fences and end.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.timeline.locked().is_closed = true;
        self.changed.notify_all();
    }

    /// Retires all open fences in their order, without the thread, which ends. Later ones retire at
    /// once.
    pub(crate) fn retire_all(&self, listener: &impl FenceListener) {
        self.close();
        let open = std::mem::take(&mut self.timeline.locked().open);
        for open in open {
            self.forget(open.host);
            listener.retire(open.guest);
        }
    }

    /// A fence that is signalled when everything submitted so far is done. `None` when the driver
    /// makes none.
    pub(crate) fn mark_end(&self) -> Option<vk::Fence> {
        let fence = self.device.create_fence()?;
        let result = self.submit_empty(None, fence);
        if result != vk::Result::SUCCESS {
            self.device.destroy_fence(fence);
        }
        (result == vk::Result::SUCCESS).then_some(fence)
    }

    /// Waits until everything submitted so far is done, or until `stop`.
    pub(crate) fn wait_idle(&self, stop: &AtomicBool) -> vk::Result {
        let Some(fence) = self.device.create_fence() else {
            return vk::Result::ERROR_OUT_OF_HOST_MEMORY;
        };
        let mut result = self.submit_empty(None, fence);
        if result == vk::Result::SUCCESS {
            result = self.device.wait_fence(fence, stop);
        }
        if result == vk::Result::TIMEOUT {
            // Told to stop: the fence is in use until the device is destroyed, which frees it.
            self.device.abandon_fence(fence);
        } else {
            self.device.destroy_fence(fence);
        }
        result
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        for fence in self.timeline.locked().spare.drain(..) {
            self.device.destroy_fence(fence);
        }
    }
}

/// The queues of a context that are bound to a ring index.
pub(crate) struct BoundQueues {
    queues: RwLock<[Option<Arc<Queue>>; RINGS]>,
}

impl BoundQueues {
    /// A map in which no ring index is bound.
    pub(crate) fn new() -> Self {
        Self {
            queues: RwLock::new([const { None }; RINGS]),
        }
    }

    /// Binds `ring` to `queue`. False when another queue has it.
    pub(crate) fn bind(&self, ring: usize, queue: &Arc<Queue>) -> bool {
        match self.queues.writing().get_mut(ring) {
            Some(slot @ None) => {
                *slot = Some(Arc::clone(queue));
                true
            }
            Some(Some(bound)) => Arc::ptr_eq(bound, queue),
            None => false,
        }
    }

    /// The queue bound to `ring`.
    pub(crate) fn get(&self, ring: u8) -> Option<Arc<Queue>> {
        self.queues.reading().get(usize::from(ring))?.clone()
    }

    /// Unbinds the queues of a device.
    pub(crate) fn release(&self, device: vk::Device) {
        for slot in self.queues.writing().iter_mut() {
            slot.take_if(|queue| queue.is_of(device));
        }
    }

    /// Unbinds all queues.
    pub(crate) fn clear(&self) {
        self.queues
            .writing()
            .iter_mut()
            .for_each(|slot| *slot = None);
    }
}
