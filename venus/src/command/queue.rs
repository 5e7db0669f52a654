//! Commands of `VkQueue`: queues get their ids and ring indices, and submissions are made one at a
//! time.

use std::sync::Arc;

use hesper_venus_protocol::call::{Call, DeviceTable};
use hesper_venus_protocol::command::{
    GetDeviceQueue, GetDeviceQueue2, QueueBindSparse, QueueSubmit, QueueSubmit2, QueueWaitIdle,
};
use hesper_venus_protocol::runtime::{Chained, find, unlink};
use hesper_venus_protocol::{CommandId, vk};

use super::bind_memory;
use super::shape::{Family, special};
use crate::emulate::sparse;
use crate::fatal::Fatal;
use crate::object::queue::{Queue, RINGS};
use crate::object::sync_files::Submission;
use crate::session::{Outcome, Session, call, name};

/// The commands of this file.
pub(super) const HANDLERS: Family = &[special!(
    GetDeviceQueue => get,
    GetDeviceQueue2 => get2,
    QueueSubmit => submit,
    QueueSubmit2 => submit2,
    QueueBindSparse => bind_sparse,
    QueueWaitIdle => wait_idle,
)];

/// `vkGetDeviceQueue`: a queue without a timeline.
fn get(session: &mut Session<'_>, c: &mut GetDeviceQueue<'_>) -> Result<(), Fatal> {
    let info = vk::DeviceQueueInfo2 {
        queue_family_index: c.queue_family_index,
        queue_index: c.queue_index,
        ..Default::default()
    };
    bind(session, CommandId::GetDeviceQueue, &info, None, c.p_queue.0)
}

/// `vkGetDeviceQueue2`
fn get2(session: &mut Session<'_>, c: &mut GetDeviceQueue2<'_>) -> Result<(), Fatal> {
    // SAFETY: the chain was decoded, and nobody else uses it.
    let timeline = unsafe { find::<vk::DeviceQueueTimelineInfoMESA>(c.p_queue_info.p_next) };
    let ring = timeline.map(|timeline| timeline.ring_idx);
    // This struct exists in the protocol only; the driver must not see it.
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

/// Gives a queue an id and, if the guest asks for it, a timeline.
fn bind(
    session: &mut Session<'_>,
    command: CommandId,
    info: &vk::DeviceQueueInfo2,
    ring: Option<u32>,
    id: u64,
) -> Result<(), Fatal> {
    let invalid = |reason| Fatal::Invalid {
        command: name(command),
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
        if !state.queues.bind(ring, &queue) {
            return Err(invalid("the ring index is bound to another queue"));
        }
    }
    state
        .objects
        .insert(device.owner, id, queue.handle, &device.is_gone)
}

/// The queue that the current command names.
fn named(
    session: &mut Session<'_>,
    command: CommandId,
    handle: vk::Queue,
) -> Result<Arc<Queue>, Fatal> {
    let found = session.device(command)?.known_queue(handle);
    found.ok_or(Fatal::NotHandled(name(command)))
}

/// Carries out a command for which Vulkan demands that nobody else uses the queue.
fn alone<'m, C>(session: &mut Session<'_>, queue: vk::Queue, c: &mut C) -> Result<C::Return, Fatal>
where
    C: Call<'m, Table = DeviceTable>,
    C::Return: Outcome,
{
    let queue = named(session, C::ID, queue)?;
    let lock = queue.lock();
    queue.submit_wanted(&lock);
    call(session, c)
}

/// Carries out a command that submits, without waits for payloads that the driver knows nothing of.
fn submit_with<'m, C, S>(
    session: &mut Session<'_>,
    queue: vk::Queue,
    c: &mut C,
    submissions: impl FnOnce(&mut C) -> &mut [S],
) -> Result<vk::Result, Fatal>
where
    C: Call<'m, Table = DeviceTable, Return = vk::Result>,
    S: Submission,
{
    let device = session.device(C::ID)?;
    let taken = device.sync_files.submit(queue, submissions(c));
    let result = alone(session, queue, c)?;
    if result != vk::Result::SUCCESS {
        // The semaphores are as before a submission that failed.
        let files = &session.device(C::ID)?.sync_files;
        taken
            .into_iter()
            .for_each(|semaphore| files.import(semaphore));
    }
    Ok(result)
}

/// `vkQueueSubmit`
fn submit(session: &mut Session<'_>, c: &mut QueueSubmit<'_>) -> Result<vk::Result, Fatal> {
    submit_with(session, c.queue.handle, c, |c| &mut c.p_submits)
}

/// `vkQueueSubmit2`
fn submit2(session: &mut Session<'_>, c: &mut QueueSubmit2<'_>) -> Result<vk::Result, Fatal> {
    submit_with(session, c.queue.handle, c, |c| &mut c.p_submits)
}

/// `vkQueueBindSparse`
fn bind_sparse(
    session: &mut Session<'_>,
    c: &mut QueueBindSparse<'_>,
) -> Result<vk::Result, Fatal> {
    let device = session.device(CommandId::QueueBindSparse)?;
    // A driver that cannot bind imported memory sparsely may mistake it for other memory: lavapipe
    // would map any file.
    if sparse::is_hidden(&device.physical) {
        return Err(Fatal::NotEnabled("vkQueueBindSparse"));
    }
    if let Some(bytes) = bind_memory::bound_sparsely(device, &c.p_bind_info) {
        return session.refuse(bytes);
    }
    submit_with(session, c.queue.handle, c, |c| &mut c.p_bind_info)
}

/// `vkQueueWaitIdle`
fn wait_idle(session: &mut Session<'_>, c: &mut QueueWaitIdle) -> Result<vk::Result, Fatal> {
    let queue = named(session, CommandId::QueueWaitIdle, c.queue.handle)?;
    session.publish();
    Ok(session.at_rest(|session| queue.wait_idle(session.state.stop_flag())))
}
