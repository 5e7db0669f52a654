//! `VkQueue`: submissions one at a time, and fences of the guest's timelines that follow them.
//!
//! A guest binds a queue to a ring index (`VkDeviceQueueTimelineInfoMESA`). [`Queue::fence`] then means: tell the guest
//! when everything submitted so far is done. That is an empty submit with a `VkFence`; a thread, started with the first
//! such fence, waits for them in their order and costs nothing while there are none. When the device is lost or the context
//! ends, what is still open retires at once: nobody may wait for a queue that is gone.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use hesper_venus_protocol::call::{Call, DeviceTable};
use hesper_venus_protocol::command::{
    GetDeviceQueue, GetDeviceQueue2, QueueBindSparse, QueueSubmit, QueueSubmit2, QueueWaitIdle,
};
use hesper_venus_protocol::runtime::{Chained, find, unlink};
use hesper_venus_protocol::{CommandId, vk};

use crate::dispatch::{Session, call};
use crate::emulate::sparse;
use crate::fatal::Fatal;
use crate::object::device::RawDevice;
use crate::object::missing;
use crate::state::ContextState;
use crate::sync::Lock;

/// Ring indices that a guest may bind; 0 is the context's own timeline.
pub(crate) const RINGS: usize = 64;

/// A fence of the guest's, and what the driver signals for it.
struct Open {
    ring: u8,
    fence: u64,
    /// `None` when the driver could not be asked: done as soon as those before it are.
    host: Option<vk::Fence>,
}

#[derive(Default)]
struct Timeline {
    open: VecDeque<Open>,
    /// Fences of the driver's to be used again.
    spare: Vec<vk::Fence>,
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
    /// Vulkan wants one user of a queue at a time.
    submitting: Mutex<()>,
    timeline: Mutex<Timeline>,
    changed: Condvar,
    closing: AtomicBool,
}

impl Queue {
    /// A queue of `device`.
    pub(crate) fn new(
        device: Arc<RawDevice>,
        handle: vk::Queue,
        info: &vk::DeviceQueueInfo2,
    ) -> Self {
        Self {
            device,
            handle,
            family: info.queue_family_index,
            index: info.queue_index,
            flags: info.flags,
            submitting: Mutex::new(()),
            timeline: Mutex::default(),
            changed: Condvar::new(),
            closing: AtomicBool::new(false),
        }
    }

    /// Whether it is the queue that `info` names.
    pub(crate) fn is(&self, info: &vk::DeviceQueueInfo2) -> bool {
        (self.family, self.index, self.flags)
            == (info.queue_family_index, info.queue_index, info.flags)
    }

    /// Whether it belongs to this device of the driver's.
    pub(crate) fn is_of(&self, device: vk::Device) -> bool {
        self.device.handle == device
    }

    /// Waits for the right to use the queue.
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
        let Some(function) = self.functions().queue_submit else {
            return vk::Result::ERROR_INITIALIZATION_FAILED;
        };
        let submits = submit.map_or(std::ptr::null(), std::ptr::from_ref);
        let _queue = self.lock();
        // SAFETY: queue and fence are of this device, the submit is alive, and the lock keeps others away.
        unsafe { function(self.handle, u32::from(submit.is_some()), submits, fence) }
    }

    /// Retires `fence` on timeline `ring` when everything submitted so far is done, and not before those
    /// that were asked for earlier.
    pub(crate) fn fence(self: &Arc<Self>, state: &Arc<ContextState>, ring: u8, fence: u64) {
        let mut timeline = self.timeline.locked();
        if timeline.is_closed {
            drop(timeline);
            return state.retire(ring, fence);
        }
        let spare = timeline.spare.pop();
        let host = spare.or_else(|| self.device.create_fence());
        let host = host.filter(|host| self.submit_empty(None, *host) == vk::Result::SUCCESS);
        let is_done = host.is_none_or(|host| self.device.is_signalled(host));
        if is_done && timeline.open.is_empty() {
            timeline
                .spare
                .extend(host.filter(|host| self.device.reset_fence(*host)));
            drop(timeline);
            return state.retire(ring, fence);
        }
        timeline.open.push_back(Open { ring, fence, host });
        let mut orphans = VecDeque::new();
        if !timeline.has_thread {
            let (queue, context) = (Arc::clone(self), Arc::clone(state));
            let thread = std::thread::Builder::new()
                .name(format!("venus-{}-queue", state.id))
                .spawn(move || queue.watch(&context));
            timeline.has_thread = thread.is_ok();
            if let Err(error) = thread {
                // Without the thread the fences would never retire.
                log::error!("no thread to watch a queue: {error}; its fences retire at once");
                std::mem::swap(&mut orphans, &mut timeline.open);
            }
        }
        drop(timeline);
        self.changed.notify_all();
        for open in orphans {
            open.host
                .into_iter()
                .for_each(|host| self.device.abandon_fence(host));
            state.retire(open.ring, open.fence);
        }
    }

    /// The thread: retires fences in their order, until the queue is closed and none is left.
    fn watch(&self, state: &ContextState) {
        let mut timeline = self.timeline.locked();
        loop {
            let Some(next) = timeline.open.front().map(|open| open.host) else {
                if timeline.is_closed {
                    return;
                }
                timeline = self
                    .changed
                    .wait(timeline)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(timeline);
            // However the wait ends, the fence retires: done, lost, or told to stop.
            let ended = next.map(|host| (host, self.device.wait_fence(host, &self.closing)));
            timeline = self.timeline.locked();
            let Some(open) = timeline.open.pop_front() else {
                continue;
            };
            match ended {
                Some((host, vk::Result::SUCCESS)) if self.device.reset_fence(host) => {
                    timeline.spare.push(host);
                }
                Some((host, _)) => self.device.abandon_fence(host),
                None => {}
            }
            drop(timeline);
            state.retire(open.ring, open.fence);
            timeline = self.timeline.locked();
        }
    }

    /// Retires what is open and ends the thread.
    pub(crate) fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.timeline.locked().is_closed = true;
        self.changed.notify_all();
    }

    /// Waits until everything submitted so far is done, at most until `stop`.
    pub(crate) fn wait_idle(&self, stop: &AtomicBool) -> vk::Result {
        let Some(fence) = self.device.create_fence() else {
            return vk::Result::ERROR_OUT_OF_HOST_MEMORY;
        };
        let mut result = self.submit_empty(None, fence);
        if result == vk::Result::SUCCESS {
            result = self.device.wait_fence(fence, stop);
        }
        if result == vk::Result::TIMEOUT {
            // Told to stop: the fence is in use until the device goes, which frees it.
            self.device.abandon_fence(fence);
        } else {
            self.device.destroy_fence(fence);
        }
        result
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        let timeline = self
            .timeline
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        for fence in timeline.spare.drain(..) {
            self.device.destroy_fence(fence);
        }
    }
}

/// `vkGetDeviceQueue`: a queue without a timeline.
pub(crate) fn get(session: &mut Session<'_>, c: &mut GetDeviceQueue<'_>) -> Result<(), Fatal> {
    let info = vk::DeviceQueueInfo2 {
        queue_family_index: c.queue_family_index,
        queue_index: c.queue_index,
        ..Default::default()
    };
    bind(session, CommandId::GetDeviceQueue, &info, None, c.p_queue.0)
}

/// `vkGetDeviceQueue2`
pub(crate) fn get2(session: &mut Session<'_>, c: &mut GetDeviceQueue2<'_>) -> Result<(), Fatal> {
    // SAFETY: the chain was decoded, and nobody else uses it.
    let timeline = unsafe { find::<vk::DeviceQueueTimelineInfoMESA>(c.p_queue_info.p_next) };
    let ring = timeline.map(|timeline| timeline.ring_idx);
    // The driver must not see what only the protocol has.
    // SAFETY: as above.
    unsafe { unlink(&mut *c.p_queue_info, vk::DeviceQueueTimelineInfoMESA::STYPE) };
    let info = *c.p_queue_info;
    bind(
        session,
        CommandId::GetDeviceQueue2,
        &info,
        ring,
        c.p_queue.0,
    )
}

/// Gives a queue an id and, if asked for, a timeline.
fn bind(
    session: &mut Session<'_>,
    command: CommandId,
    info: &vk::DeviceQueueInfo2,
    ring: Option<u32>,
    id: u64,
) -> Result<(), Fatal> {
    let invalid = |reason| Fatal::Invalid {
        command: crate::dispatch::name(command),
        reason,
    };
    let device = Arc::clone(session.device(command)?);
    let queue = device
        .queue(info)
        .ok_or(invalid("the device was created without this queue"))?;
    let state = session.state;
    if let Some(ring) = ring {
        let ring = usize::try_from(ring)
            .ok()
            .filter(|ring| (1..RINGS).contains(ring));
        let ring = ring.ok_or(invalid("the ring index is not between 1 and 63"))?;
        if !state.timelines.bind(ring, &queue) {
            return Err(invalid("the ring index is bound to another queue"));
        }
    }
    state.objects.insert(device.owner, id, queue.handle)
}

/// The queue that the current command names.
fn named(
    session: &mut Session<'_>,
    command: CommandId,
    handle: vk::Queue,
) -> Result<Arc<Queue>, Fatal> {
    let found = session.device(command)?.known_queue(handle);
    found.ok_or(Fatal::NotHandled(crate::dispatch::name(command)))
}

/// A command that Vulkan wants to have the queue to itself.
fn alone<'m, C>(session: &mut Session<'_>, queue: vk::Queue, c: &mut C) -> Result<C::Return, Fatal>
where
    C: Call<'m, Table = DeviceTable>,
{
    let queue = named(session, C::ID, queue)?;
    let _queue = queue.lock();
    call(session, c)
}

/// `vkQueueSubmit`
pub(crate) fn submit(
    session: &mut Session<'_>,
    c: &mut QueueSubmit<'_>,
) -> Result<vk::Result, Fatal> {
    alone(session, c.queue.handle, c)
}

/// `vkQueueSubmit2`
pub(crate) fn submit2(
    session: &mut Session<'_>,
    c: &mut QueueSubmit2<'_>,
) -> Result<vk::Result, Fatal> {
    alone(session, c.queue.handle, c)
}

/// `vkQueueBindSparse`
pub(crate) fn bind_sparse(
    session: &mut Session<'_>,
    c: &mut QueueBindSparse<'_>,
) -> Result<vk::Result, Fatal> {
    let device = session.device(CommandId::QueueBindSparse)?;
    // A driver that cannot bind what is imported may take it for something else: lavapipe would map any file.
    if sparse::is_hidden(&device.physical) {
        return Err(Fatal::NotEnabled("vkQueueBindSparse"));
    }
    if let Some(bytes) = missing::bound_sparsely(device, &c.p_bind_info) {
        return session.refuse(bytes);
    }
    alone(session, c.queue.handle, c)
}

/// `vkQueueWaitIdle`
pub(crate) fn wait_idle(
    session: &mut Session<'_>,
    c: &mut QueueWaitIdle,
) -> Result<vk::Result, Fatal> {
    let queue = named(session, CommandId::QueueWaitIdle, c.queue.handle)?;
    session.publish();
    Ok(queue.wait_idle(session.state.stop_flag()))
}
