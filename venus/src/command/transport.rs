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

use crate::command_stream::ResourceStream;
use crate::fatal::Fatal;
use crate::reply_stream::ReplyStream;
use crate::ring::{Layout, Request, Ring};
use crate::session::Session;

/// `vkSetReplyCommandStreamMESA`
pub(crate) fn set_reply(
    session: &mut Session<'_>,
    c: &mut SetReplyCommandStreamMESA<'_>,
) -> Result<(), Fatal> {
    let vk::CommandStreamDescriptionMESA {
        resource_id: resource,
        offset,
        size,
        ..
    } = *c.p_stream;
    // Before looking: what is detached in the meantime is looked for again the next time.
    let state = (resource, session.state.attachments());
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
    let memory = session.state.resource(resource)?.memory;
    session.reply_stream = Some(ReplyStream::new(memory, offset, size).ok_or(outside)?);
    session.reply_resource = state;
    Ok(())
}

/// `vkSeekReplyCommandStreamMESA`
pub(crate) fn seek_reply(
    session: &mut Session<'_>,
    c: &mut SeekReplyCommandStreamMESA,
) -> Result<(), Fatal> {
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

/// `vkExecuteCommandStreamsMESA`: streams are copied before they are read, since the guest can change them.
pub(crate) fn execute(
    session: &mut Session<'_>,
    c: &mut ExecuteCommandStreamsMESA<'_>,
) -> Result<(), Fatal> {
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
        let memory = session.state.resource(resource)?.memory;
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
pub(crate) fn create_ring(
    session: &mut Session<'_>,
    c: &mut CreateRingMESA<'_>,
) -> Result<(), Fatal> {
    let info = &*c.p_create_info;
    let memory = session.state.resource(info.resource_id)?.memory;
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
    let ring = Ring::new(layout, Duration::from_nanos(info.idle_timeout), period);
    session.state.start_ring(c.ring, Arc::new(ring))
}

/// `vkDestroyRingMESA`
pub(crate) fn destroy_ring(
    session: &mut Session<'_>,
    c: &mut DestroyRingMESA,
) -> Result<(), Fatal> {
    session.state.rings.remove(c.ring)
}

/// `vkNotifyRingMESA`
pub(crate) fn notify_ring(session: &mut Session<'_>, c: &mut NotifyRingMESA) -> Result<(), Fatal> {
    session
        .state
        .rings
        .get(c.ring)
        .map(|ring| session.state.notify(&ring))
}

/// `vkWriteRingExtraMESA`
pub(crate) fn write_extra(
    session: &mut Session<'_>,
    c: &mut WriteRingExtraMESA,
) -> Result<(), Fatal> {
    session
        .state
        .rings
        .get(c.ring)?
        .write_extra(c.offset, c.value)
}

/// `vkSubmitVirtqueueSeqnoMESA`
pub(crate) fn submit_virtqueue_seqno(
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
pub(crate) fn wait_virtqueue_seqno(
    session: &mut Session<'_>,
    c: &mut WaitVirtqueueSeqnoMESA,
) -> Result<(), Fatal> {
    session.publish();
    let ring = session
        .ring()
        .ok_or(Fatal::WrongPlace("vkWaitVirtqueueSeqnoMESA"))?;
    ring.wait_virtqueue(c.seqno);
    Ok(())
}

/// `vkWaitRingSeqnoMESA`
pub(crate) fn wait_ring_seqno(
    session: &mut Session<'_>,
    c: &mut WaitRingSeqnoMESA,
) -> Result<(), Fatal> {
    if session.ring().is_some() {
        return Err(Fatal::WrongPlace("vkWaitRingSeqnoMESA"));
    }
    // A ring's positions are 32 bits wide and wrap; the command has room for more.
    session.state.rings.get(c.ring)?.wait_seqno(c.seqno as u32);
    Ok(())
}
