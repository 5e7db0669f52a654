//! [`Session`]: what a handler has of the thread that it runs on.
//!
//! That is the context, the guest's objects, the reply stream, and where the commands come from. A
//! session also runs streams: it decodes them command by command, and calls the handlers that it
//! was made with (see [`crate::executor::Executor`]).

mod buffers;
mod call;
mod recorded;
mod streams;
mod waits;

use std::sync::Arc;

use hesper_venus_protocol::runtime::{
    Arena, Command, Decoder, EncodeError, Encoder, Front, Handle, HandleMap, Resolved,
};
use hesper_venus_protocol::{COMMAND_COUNT, COMMANDS, CommandId, trace, vk};

pub(crate) use buffers::Buffers;
pub(crate) use call::{Outcome, Reach, call, call_recorded, handle};
pub(crate) use recorded::{Recorder, Recorders, record, record_with};

use crate::command_stream::Stream;
use crate::context::state::ContextState;
use crate::counters::add;
use crate::fatal::Fatal;
use crate::object::Objects;
use crate::object::device::Device;
use crate::object::failed_ids::FailedIds;
use crate::object::instance::Instance;
use crate::object::physical_device::PhysicalDevice;
use crate::object::reclamation::{Class, Last, Member};
use crate::object::table::{Entry, View};
use crate::reply_stream::ReplyStream;
use crate::report::Activity;
use crate::ring::Ring;
use crate::trace::{Lane, Span, Started};

/// The ring's head is published at least once in so many bytes, so that a full ring has room again
/// soon.
const PUBLISH_EVERY: usize = 4096;

/// Bytes of commands that share an arena.
const GROUP: usize = 4096;

/// Log target of the trace of commands; its level is debug.
const TRACE: &str = "hesper_venus::commands";

/// Handles one command: decodes the arguments, acts, and replies if the guest wants it.
///
/// False when the context cannot go on; [`Session::failure`] then holds the reason. Returning the
/// error itself is too expensive on this path.
pub(crate) type Handler = for<'m> fn(&mut Session<'_>, &mut Decoder<'m>) -> bool;

/// What carries out commands.
pub(crate) struct Handlers {
    /// By command number.
    pub(crate) all: [Option<Handler>; COMMAND_COUNT],
    /// Of commands that are recorded, for those that want no reply.
    pub(crate) recorders: Recorders,
}

/// What the thread of a ring does: carries out the ring's commands until the ring is stopped.
pub(crate) type RunRing = fn(&Arc<ContextState>, Arc<Ring>);

/// How the decoder finds objects: by id and type.
pub(crate) struct Handles<'s> {
    view: View<'s>,
    failed: &'s FailedIds,
}

impl<'s> Handles<'s> {
    /// The handles of a context's objects, for one thread.
    pub(crate) fn new(objects: &'s Objects) -> Self {
        Self {
            view: objects.table.view(),
            failed: &objects.failed,
        }
    }

    /// The object with this id, of any type.
    pub(crate) fn get(&self, id: u64) -> Option<Entry> {
        self.view.get(id)
    }
}

impl HandleMap for Handles<'_> {
    fn resolve(&self, ty: vk::HandleType, id: u64) -> Resolved {
        let found = self.view.get_slowly(id);
        found.map_or(Resolved::UNKNOWN, |entry| entry.resolved(ty as u32))
    }

    fn has_failed(&self, ty: vk::HandleType, id: u64) -> bool {
        self.failed.has(ty as u32, id)
    }

    fn front(&self) -> Front<'_> {
        self.view.front()
    }
}

/// Where commands come from.
#[derive(Clone)]
pub(crate) enum Source {
    /// The context's own thread.
    Virtqueue,
    /// A ring.
    Ring {
        /// The ring.
        ring: Arc<Ring>,
        /// The position at which the batch began.
        head: u32,
    },
}

/// What handlers have of the thread they run on.
pub(crate) struct Session<'s> {
    /// The context.
    pub(crate) state: &'s Arc<ContextState>,
    handles: &'s Handles<'s>,
    /// Shows which command this thread carries out.
    activity: Activity<'s>,
    /// Says when this thread uses handles.
    member: Member<'s>,
    /// Where replies go.
    pub(crate) reply_stream: Option<ReplyStream>,
    /// The resource of the reply stream, and
    /// [`Resources::serial`](crate::context::resources::Resources::serial) when it was looked up.
    pub(crate) reply_resource: (u32, u64),
    source: Source,
    /// The handlers of commands, by number.
    handlers: &'static Handlers,
    /// What the thread of a new ring does.
    pub(crate) run_ring: RunRing,
    /// The last device and instance that a command was for.
    device: Option<Arc<Device>>,
    instance: Option<Arc<Instance>>,
    /// Memory for a stream inside a stream, kept for the next one.
    nested: Option<Buffers>,
    /// The device or instance of the current command's objects.
    owner: u32,
    /// The guest wants a reply to the current command.
    wants_reply: bool,
    /// Why a handler failed.
    failure: Option<Fatal>,
    /// The number of the last command that was not whole in its piece.
    cut: u32,
    /// Bytes of the batch before the current group, bytes of the group before the current command,
    /// and bytes that the guest was told of.
    group_start: usize,
    group_done: usize,
    published: usize,
    /// Bytes of the outer stream that are done, while a stream inside it is carried out.
    outer_done: Option<usize>,
    /// Commands, and objects looked up for them, since the last [`Session::count`].
    commands: u64,
    lookups: u64,
    /// What this thread records.
    lane: Lane,
    /// When the batch began.
    batch_began: Started,
}

impl<'s> Session<'s> {
    /// A session for one thread, which takes its commands from `source`. The `handlers` carry them
    /// out, and `run_ring` is the work of threads for new rings. Both are handed in, so that the
    /// session does not depend on the commands.
    pub(crate) fn new(
        state: &'s Arc<ContextState>,
        handles: &'s Handles<'s>,
        source: Source,
        handlers: &'static Handlers,
        run_ring: RunRing,
    ) -> Self {
        let lane = match &source {
            Source::Virtqueue => state.lane.clone(),
            Source::Ring { ring, .. } => ring.lane().clone(),
        };
        Self {
            state,
            handles,
            activity: state.record.activity(),
            member: state.objects.reclamation.join(),
            reply_stream: None,
            reply_resource: (0, 0),
            source,
            handlers,
            run_ring,
            device: None,
            instance: None,
            nested: None,
            owner: 0,
            wants_reply: false,
            failure: None,
            cut: u32::MAX,
            group_start: 0,
            group_done: 0,
            published: 0,
            outer_done: None,
            commands: 0,
            lookups: 0,
            lane,
            batch_began: Started::NOT,
        }
    }

    /// Begins a batch, at `position` if it is of a ring.
    #[inline]
    pub(crate) fn begin_batch(&mut self, position: u32) {
        if let Source::Ring { head, .. } = &mut self.source {
            *head = position;
        }
        self.batch_began = self.lane.begin();
        self.member.begin();
    }

    /// Ends the batch of `bytes` bytes, also one that failed.
    #[inline]
    pub(crate) fn end_batch(&mut self, bytes: usize) {
        // Between batches, nothing may keep a device alive that the guest destroyed.
        self.forget_domain();
        self.member.end();
        self.activity.end();
        let began = std::mem::take(&mut self.batch_began);
        self.lane
            .end(began, Span::Batch, [bytes as u64, self.commands]);
        self.count(bytes);
    }

    /// Waits until no other thread has the handle of an object of this class that is out of the
    /// table. False when the context ends. The caller must hold no lock.
    pub(crate) fn synchronize(&self, class: Class) -> bool {
        self.member.synchronize(class, || self.state.is_stopping())
    }

    /// Does the last thing with an object of the current command's device, once no other thread
    /// uses it.
    #[inline]
    pub(crate) fn retire(
        &mut self,
        command: CommandId,
        last: impl FnOnce(u32) -> Last,
    ) -> Result<(), Fatal> {
        self.device(command)?;
        if let Some(device) = &self.device {
            self.member.retire(device, last(device.owner));
        }
        Ok(())
    }

    /// Gives back memory that is kept for the next commands.
    pub(crate) fn release(&mut self) {
        self.nested = None;
    }

    /// Carries out commands that begin at byte `base` of their stream. Errors name that position.
    #[inline]
    fn run(&mut self, commands: &mut [u8], base: usize, arena: &mut Arena) -> Result<(), Fatal> {
        let mut at = 0;
        while let Some(rest) = commands.get_mut(at..).filter(|rest| !rest.is_empty()) {
            self.go_on()?;
            arena.reset();
            self.member.boundary(|| self.state.is_stopping());
            let length = rest.len();
            let mut decoder = Decoder::new(rest, arena, self.handles).for_driver();
            self.group_start = base + at;
            let ended = self.group(length, &mut decoder);
            let read = decoder.position();
            self.lookups += u64::from(decoder.lookups());
            if let Some(stray) = decoder.strays().first() {
                self.state.note_strays(stray, decoder.strays().count());
            }
            ended.map_err(|fatal| fatal.moved(base + at))?;
            at += read;
        }
        Ok(())
    }

    /// An error when the context ends. A batch may be as long as the guest likes, and its end must
    /// come soon: this is asked before each group, and before each call of the driver that may take
    /// long.
    #[inline]
    fn go_on(&self) -> Result<(), Fatal> {
        match self.state.is_stopping() {
            true => Err(Fatal::Ended),
            false => Ok(()),
        }
    }

    /// Carries out commands that share an arena: few enough to keep it small, and none after one
    /// with outputs. `length` is the length of the decoder's bytes.
    fn group(&mut self, length: usize, decoder: &mut Decoder<'_>) -> Result<(), Fatal> {
        let is_traced = log::log_enabled!(target: TRACE, log::Level::Debug);
        // The end of a group also publishes the ring's head.
        const { assert!(GROUP <= PUBLISH_EVERY) };
        let end = GROUP.min(length);
        self.group_done = 0;
        loop {
            if is_traced {
                self.trace(decoder.rest());
            }
            let (number, reply) = decoder.raw_header()?;
            let Some(Some(handler)) = self.handlers.all.get(number as usize) else {
                let command = decoder.known_command()?;
                return Err(self.fail_here(Fatal::NotHandled(name(command))));
            };
            self.wants_reply = reply;
            self.activity.begin(number);
            if !handler(self, decoder) {
                let failure = self.failure.take().unwrap_or(Fatal::Panic);
                return Err(self.fail_here(failure));
            }
            self.commands += 1;
            self.group_done = decoder.position();
            if self.wants_reply {
                break;
            }
            if decoder.is_recording() && !is_traced {
                self.record(end, decoder)?;
                self.group_done = decoder.position();
            }
            if self.group_done >= end {
                break;
            }
        }
        if self.outer_done.is_none()
            && (self.wants_reply || self.done() - self.published >= PUBLISH_EVERY)
        {
            self.publish();
        }
        Ok(())
    }

    /// Bytes of the batch that are done.
    fn done(&self) -> usize {
        self.outer_done
            .unwrap_or(self.group_start + self.group_done)
    }

    /// Ends the context for an error of the current command, and names the byte of the stream at
    /// which that begins.
    #[cold]
    fn fail_here(&self, fatal: Fatal) -> Fatal {
        // An error of the decoder names a more exact position.
        if !matches!(fatal, Fatal::Stream(_)) {
            self.state
                .fail_at(fatal, self.group_start + self.group_done);
        }
        fatal
    }

    /// Logs the next command.
    #[cold]
    fn trace(&self, commands: &mut [u8]) {
        let from = if self.ring().is_some() {
            "ring"
        } else {
            "virtqueue"
        };
        // A command that cannot be read fails in a moment anyway.
        if let Ok((text, _)) = trace::command(commands, &mut Arena::default()) {
            log::debug!(target: TRACE, "context {} {from}: {text}", self.state.id);
        }
    }

    #[cold]
    #[inline(never)]
    fn give_up(&mut self, fatal: Fatal) -> bool {
        self.failure = Some(fatal);
        false
    }

    /// Adds what this thread counted to the shared counters.
    fn count(&mut self, bytes: usize) {
        let tally = &self.state.tally;
        add(&tally.commands, std::mem::take(&mut self.commands));
        add(&tally.lookups, std::mem::take(&mut self.lookups));
        add(&tally.command_bytes, bytes as u64);
        add(&tally.batches, 1);
    }

    /// Runs a stream inside a stream.
    pub(crate) fn run_nested(&mut self, stream: &impl Stream) -> Result<(), Fatal> {
        if self.outer_done.is_some() {
            return Err(Fatal::Nested);
        }
        // Streams may be empty, and there may be many.
        self.go_on()?;
        let outer = (self.group_start, self.group_done, self.wants_reply);
        let command = self.activity.command();
        self.outer_done = Some(self.done());
        // The outer command's arguments are still in use, so this needs its own memory.
        let mut buffers = self
            .nested
            .take()
            .unwrap_or_else(|| Buffers::new(self.state));
        let ended = self.run_pieces(stream, &mut buffers);
        buffers.settle();
        self.nested = Some(buffers);
        self.outer_done = None;
        self.activity.begin(command);
        (self.group_start, self.group_done, self.wants_reply) = outer;
        // For the outer stream, no bytes are missing and nothing is refused: what it has executed
        // must not run again.
        ended.map_err(|fatal| match fatal {
            Fatal::Stream(inner) => Fatal::Inner(inner),
            other => other,
        })
    }

    /// Publishes how far the session is, for a guest that waits for the ring. Call it before
    /// anything that may block.
    pub(crate) fn publish(&mut self) {
        let done = self.done();
        if let Source::Ring { ring, head } = &self.source
            && done > self.published
        {
            // A batch is at most as large as the ring's buffer, which is below 2^31.
            ring.publish(head.wrapping_add(done as u32));
            self.published = done;
        }
    }

    /// The ring that the commands come from.
    pub(crate) fn ring(&self) -> Option<&Arc<Ring>> {
        match &self.source {
            Source::Virtqueue => None,
            Source::Ring { ring, .. } => Some(ring),
        }
    }

    /// The object with this id, of any type.
    pub(crate) fn find(&self, id: u64) -> Option<Entry> {
        self.handles.get(id)
    }

    /// Forgets the device and instance of the current command.
    pub(crate) fn forget_domain(&mut self) {
        self.device = None;
        self.instance = None;
    }

    /// The device that the current command is for.
    #[inline]
    pub(crate) fn device(&mut self, command: CommandId) -> Result<&Arc<Device>, Fatal> {
        let owner = self.owner;
        if self
            .device
            .as_ref()
            .is_none_or(|device| device.owner != owner)
        {
            self.look_up_device();
        }
        // The objects were found a moment ago. If the device is gone, another thread has just
        // destroyed it.
        self.device.as_ref().ok_or_else(|| gone(command))
    }

    #[cold]
    #[inline(never)]
    fn look_up_device(&mut self) {
        self.device = self.state.objects.device(self.owner);
    }

    /// The instance that the current command is for.
    pub(crate) fn instance(&mut self, command: CommandId) -> Result<&Arc<Instance>, Fatal> {
        let owner = self.owner;
        if self
            .instance
            .as_ref()
            .is_none_or(|instance| instance.owner != owner)
        {
            self.instance = self.state.objects.instance(owner);
        }
        self.instance.as_ref().ok_or_else(|| gone(command))
    }

    /// The physical device of the current command.
    pub(crate) fn physical_device(
        &mut self,
        command: CommandId,
        handle: vk::PhysicalDevice,
    ) -> Result<Arc<PhysicalDevice>, Fatal> {
        let found = self.instance(command)?.physical_device(handle);
        found.ok_or(Fatal::Invalid {
            command: name(command),
            reason: "the physical device is not one that was enumerated",
        })
    }

    /// Remembers that the driver did not make an object for the current command. A guest that did
    /// not ask for the result destroys the object nevertheless.
    #[inline]
    pub(crate) fn remember_failed<H: Handle>(&self, id: H) {
        if !self.wants_reply {
            self.state.objects.failed.add(H::TYPE as u32, id.raw());
        }
    }

    /// Whether the guest wants the result of the current command.
    pub(crate) fn is_asked(&self) -> bool {
        self.wants_reply
    }

    /// The result of a command that uses memory of `bytes` bytes for which the host had no room.
    pub(crate) fn refuse(&self, bytes: u64) -> Result<vk::Result, Fatal> {
        match self.wants_reply {
            true => Ok(vk::Result::ERROR_OUT_OF_DEVICE_MEMORY),
            false => Err(Fatal::NoMemory(bytes)),
        }
    }

    /// Replies if the guest wants it. Otherwise ends the context if the device is lost, so that
    /// this does not go unnoticed.
    #[inline]
    pub(crate) fn finish<'m, C: Command<'m>>(
        &mut self,
        command: &C,
        result: C::Return,
    ) -> Result<(), Fatal>
    where
        C::Return: Outcome,
    {
        if self.wants_reply {
            // Only a command with outputs must stay in memory until here.
            return match C::HAS_OUTPUTS {
                true => self.reply(command, result),
                false => self.reply_without_outputs::<C>(result),
            };
        }
        match result.is_device_lost() {
            true => Err(Fatal::DeviceLost(name(C::ID))),
            false => Ok(()),
        }
    }

    #[inline(never)]
    fn reply<'m, C: Command<'m>>(&mut self, command: &C, result: C::Return) -> Result<(), Fatal> {
        self.write_reply(C::ID, |encoder| {
            // SAFETY: outputs are as decoded, or as the driver wrote them, which is valid for the
            // lengths that it wrote.
            unsafe { command.encode_reply(result, encoder) }
        })
    }

    #[inline(never)]
    fn reply_without_outputs<'m, C: Command<'m>>(
        &mut self,
        result: C::Return,
    ) -> Result<(), Fatal> {
        self.write_reply(C::ID, |encoder| C::encode_return(result, encoder))
    }

    #[inline]
    fn write_reply(
        &mut self,
        command: CommandId,
        write: impl FnOnce(&mut Encoder<'_>) -> Result<(), EncodeError>,
    ) -> Result<(), Fatal> {
        let stream = self
            .reply_stream
            .as_mut()
            .ok_or(Fatal::NoReplyStream(name(command)))?;
        stream.write(write).map_err(|error| Fatal::Reply {
            command: name(command),
            error,
        })
    }
}

/// The error for a command whose device or instance has gone.
#[cold]
fn gone(command: CommandId) -> Fatal {
    Fatal::Invalid {
        command: name(command),
        reason: "the device or instance of its objects is being destroyed, or has the wrong type",
    }
}

/// The C name of a command.
#[cold]
pub(crate) fn name(command: CommandId) -> &'static str {
    let info = COMMANDS.get(command as usize).and_then(Option::as_ref);
    info.map_or("?", |info| info.name)
}
