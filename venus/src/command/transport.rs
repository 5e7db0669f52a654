//! Commands of the protocol itself (`VK_MESA_venus_protocol`): rings, streams, positions.

use std::sync::Arc;
use std::time::Duration;

use hesper_venus_protocol::command::{
    CreateRingMESA, DestroyRingMESA, ExecuteCommandStreamsMESA, NotifyRingMESA,
    SeekReplyCommandStreamMESA, SetReplyCommandStreamMESA, SubmitVirtqueueSeqnoMESA,
    WaitRingSeqnoMESA, WaitVirtqueueSeqnoMESA, WriteRingExtraMESA,
};
use hesper_venus_protocol::runtime::find;
use hesper_venus_protocol::vk;

use super::shape::{Family, special};
use crate::command_stream::ResourceStream;
use crate::counters::{add, sub};
use crate::fatal::Fatal;
use crate::reply_stream::ReplyStream;
use crate::ring::{Bell, Layout, Request, Ring};
use crate::session::Session;
use crate::trace::Track;

/// The commands of this file.
pub(super) const HANDLERS: Family = &[special!(
    SetReplyCommandStreamMESA => set_reply,
    SeekReplyCommandStreamMESA => seek_reply,
    ExecuteCommandStreamsMESA => execute,
    CreateRingMESA => create_ring,
    DestroyRingMESA => destroy_ring,
    NotifyRingMESA => notify_ring,
    WriteRingExtraMESA => write_extra,
    SubmitVirtqueueSeqnoMESA => submit_virtqueue_seqno,
    WaitVirtqueueSeqnoMESA => wait_virtqueue_seqno,
    WaitRingSeqnoMESA => wait_ring_seqno,
)];

/// `vkSetReplyCommandStreamMESA`
fn set_reply(
    session: &mut Session<'_>,
    c: &mut SetReplyCommandStreamMESA<'_>,
) -> Result<(), Fatal> {
    let vk::CommandStreamDescriptionMESA {
        resource_id: resource,
        offset,
        size,
        ..
    } = *c.p_stream;
    // Read before the look-up: a resource that is detached in the meantime is looked up again the
    // next time.
    let state = (resource, session.state.resources.serial());
    let outside = Fatal::Range {
        resource,
        offset,
        size,
    };
    // Guests move through one resource, reply by reply.
    if let Some(stream) = &mut session.reply_stream
        && session.reply_resource == state
    {
        return stream.move_to(offset, size).ok_or(outside);
    }
    let memory = session.state.resources.get(resource)?.memory;
    session.reply_stream = Some(ReplyStream::new(memory, offset, size).ok_or(outside)?);
    session.reply_resource = state;
    Ok(())
}

/// `vkSeekReplyCommandStreamMESA`
fn seek_reply(session: &mut Session<'_>, c: &mut SeekReplyCommandStreamMESA) -> Result<(), Fatal> {
    seek(session, c.position, "vkSeekReplyCommandStreamMESA")
}

fn seek(session: &mut Session<'_>, position: usize, command: &'static str) -> Result<(), Fatal> {
    let stream = session
        .reply_stream
        .as_mut()
        .ok_or(Fatal::NoReplyStream(command))?;
    stream.seek(position).ok_or(Fatal::Invalid {
        command,
        reason: "a position behind the reply stream",
    })
}

/// `vkExecuteCommandStreamsMESA`: streams are copied before they are read, since the guest can
/// change them.
fn execute(session: &mut Session<'_>, c: &mut ExecuteCommandStreamsMESA<'_>) -> Result<(), Fatal> {
    let command = "vkExecuteCommandStreamsMESA";
    if c.dependency_count > 0 {
        return Err(Fatal::Invalid {
            command,
            reason: "dependencies between streams, which nobody sends",
        });
    }
    for (index, stream) in c.p_streams.iter().enumerate() {
        if let Some(position) = c.p_reply_positions.get(index) {
            seek(session, *position, command)?;
        }
        let vk::CommandStreamDescriptionMESA {
            resource_id: resource,
            offset,
            size,
            ..
        } = *stream;
        let memory = session.state.resources.get(resource)?.memory;
        let outside = Fatal::Range {
            resource,
            offset,
            size,
        };
        let stream = ResourceStream::new(memory, offset, size).ok_or(outside)?;
        session.run_nested(&stream)?;
    }
    Ok(())
}

/// `vkCreateRingMESA`
fn create_ring(session: &mut Session<'_>, c: &mut CreateRingMESA<'_>) -> Result<(), Fatal> {
    let info = &*c.p_create_info;
    let memory = session.state.resources.get(info.resource_id)?.memory;
    let request = Request {
        offset: info.offset,
        size: info.size,
        head: info.head_offset,
        tail: info.tail_offset,
        status: info.status_offset,
        buffer: info.buffer_offset,
        buffer_size: info.buffer_size,
        extra: info.extra_offset,
        extra_size: info.extra_size,
    };
    // SAFETY: the chain was decoded, and nobody else uses it.
    let monitor = unsafe { find::<vk::RingMonitorInfoMESA>(info.p_next) };
    let period = monitor
        .map(|monitor| Duration::from_micros(monitor.max_reporting_period_microseconds.into()));
    let layout = Layout::new(memory, &request)?;
    let timeout = Duration::from_nanos(info.idle_timeout);
    let lane = session.state.lane.with(Track::Ring(c.ring));
    let bell = Bell::new(session.state.bells.as_ref(), c.ring);
    let ring = Ring::new(layout, timeout, period, bell, lane);
    // It may wait until the thread of another ring has ended.
    session.at_rest(|session| start_ring(session, c.ring, Arc::new(ring)))
}

/// `vkDestroyRingMESA`
fn destroy_ring(session: &mut Session<'_>, c: &mut DestroyRingMESA) -> Result<(), Fatal> {
    session.state.rings.remove(c.ring)
}

/// `vkNotifyRingMESA`
fn notify_ring(session: &mut Session<'_>, c: &mut NotifyRingMESA) -> Result<(), Fatal> {
    session
        .state
        .rings
        .get(c.ring)
        .map(|ring| session.state.notify(&ring))
}

/// `vkWriteRingExtraMESA`
fn write_extra(session: &mut Session<'_>, c: &mut WriteRingExtraMESA) -> Result<(), Fatal> {
    session
        .state
        .rings
        .get(c.ring)?
        .write_extra(c.offset, c.value)
}

/// `vkSubmitVirtqueueSeqnoMESA`
fn submit_virtqueue_seqno(
    session: &mut Session<'_>,
    c: &mut SubmitVirtqueueSeqnoMESA,
) -> Result<(), Fatal> {
    if session.ring().is_some() {
        return Err(Fatal::WrongPlace("vkSubmitVirtqueueSeqnoMESA"));
    }
    session
        .state
        .rings
        .get(c.ring)
        .map(|ring| ring.submit_virtqueue(c.seqno))
}

/// `vkWaitVirtqueueSeqnoMESA`
fn wait_virtqueue_seqno(
    session: &mut Session<'_>,
    c: &mut WaitVirtqueueSeqnoMESA,
) -> Result<(), Fatal> {
    session.publish();
    let ring = session
        .ring()
        .ok_or(Fatal::WrongPlace("vkWaitVirtqueueSeqnoMESA"))?;
    let ring = Arc::clone(ring);
    session.at_rest(|_| ring.wait_virtqueue(c.seqno));
    Ok(())
}

/// `vkWaitRingSeqnoMESA`
fn wait_ring_seqno(session: &mut Session<'_>, c: &mut WaitRingSeqnoMESA) -> Result<(), Fatal> {
    if session.ring().is_some() {
        return Err(Fatal::WrongPlace("vkWaitRingSeqnoMESA"));
    }
    // Positions of a ring are 32 bits wide and wrap; the command has 64 bits.
    let ring = session.state.rings.get(c.ring)?;
    session.at_rest(|_| ring.wait_seqno(c.seqno as u32));
    Ok(())
}

/// Stack of a ring's thread. The driver's compilers run on it. Natively they have the stack of a
/// program's thread, 8 MiB by default on Linux. Only touched pages cost memory, and a ring that
/// sleeps gives them back.
const RING_STACK: usize = 8 << 20;

/// Makes a ring known and starts its thread. Also starts the thread that watches rings, if a ring
/// asks for it.
fn start_ring(session: &Session<'_>, id: u64, ring: Arc<Ring>) -> Result<(), Fatal> {
    let (state, run_ring) = (session.state, session.run_ring);
    let start = || {
        let place = state.shares.thread();
        let place = place.ok_or(std::io::ErrorKind::QuotaExceeded)?;
        let (of_thread, ring) = (Arc::clone(state), Arc::clone(&ring));
        // Counted before the thread starts, so that whoever knows of the ring finds it counted.
        add(&state.tally.rings, 1);
        let started = std::thread::Builder::new()
            .name(format!("venus-{}-ring", state.id))
            .stack_size(RING_STACK)
            .spawn(move || {
                run_ring(&of_thread, Arc::clone(&ring));
                sub(&of_thread.tally.rings, 1);
                drop(place);
                of_thread.rings.thread_ended();
            });
        started.inspect_err(|_| sub(&state.tally.rings, 1))
    };
    state
        .rings
        .insert(id, Arc::clone(&ring), state.budget.rings, start)?;
    if state.rings.needs_monitor() {
        let name = format!("venus-{}-alive", state.id);
        let watched = Arc::clone(state);
        let place = state.shares.thread().ok_or(Fatal::NoGuestThread(1))?;
        let started = std::thread::Builder::new().name(name).spawn(move || {
            watched.rings.watch();
            drop(place);
        });
        started.map_err(|error| Fatal::NoThread {
            rings: 1,
            kind: error.kind(),
        })?;
    }
    Ok(())
}
