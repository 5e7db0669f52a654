//! [`Session`]: what a handler has of the thread that it runs on.
//!
//! That is the context, the guest's objects, the reply stream, and where the commands come from. A session also runs streams:
//! it decodes them command by command, and calls for each the handler that it was made with (see
//! [`crate::executor::Executor`]).

mod buffers;
mod streams;

use std::sync::Arc;

use hesper_venus_protocol::call::{Call, DeviceTable, InstanceTable};
use hesper_venus_protocol::runtime::{
    Arena, Command, Decoder, EncodeError, Encoder, Front, Handle, HandleMap, Resolved,
};
use hesper_venus_protocol::{COMMAND_COUNT, COMMANDS, CommandId, trace, vk};

pub(crate) use buffers::Buffers;

use crate::command_stream::Stream;
use crate::context::state::ContextState;
use crate::counters::add;
use crate::fatal::Fatal;
use crate::object::Objects;
use crate::object::device::Device;
use crate::object::failed_ids::FailedIds;
use crate::object::instance::Instance;
use crate::object::physical_device::PhysicalDevice;
use crate::object::table::{Entry, View};
use crate::reply_stream::ReplyStream;
use crate::ring::Ring;

/// Commands are published at least this often, in bytes, so that a full ring has room again soon.
const PUBLISH_EVERY: usize = 4096;

/// Bytes of commands that share an arena.
const GROUP: usize = 4096;

/// Log target of the trace of commands; its level is debug.
const TRACE: &str = "hesper_venus::commands";

/// Handles one command: decodes the arguments, acts, and replies when the guest wants it. False when the context cannot go
/// on, for the reason that [`Session::failure`] then has: a result of that size is dear to hand through.
pub(crate) type Handler = for<'m> fn(&mut Session<'_>, &mut Decoder<'m>) -> bool;

/// The handlers, by command number.
pub(crate) type Handlers = [Option<Handler>; COMMAND_COUNT];

/// What the thread of a ring does: carries out what comes in the ring until that is stopped.
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

    /// The object with this id, whatever it is.
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
    /// A ring; `head` is the position at which the batch began.
    Ring {
        /// The ring.
        ring: Arc<Ring>,
        /// Where the batch began.
        head: u32,
    },
}

/// What handlers have of the thread they run on.
pub(crate) struct Session<'s> {
    /// The context.
    pub(crate) state: &'s Arc<ContextState>,
    handles: &'s Handles<'s>,
    /// Where replies go.
    pub(crate) reply_stream: Option<ReplyStream>,
    /// In which resource that lies, and the state of the context's resources then.
    pub(crate) reply_resource: (u32, u64),
    source: Source,
    /// Who carries commands out, by their numbers.
    handlers: &'static Handlers,
    /// What the thread of a ring does.
    pub(crate) run_ring: RunRing,
    /// The last device and instance that commands were for.
    device: Option<Arc<Device>>,
    instance: Option<Arc<Instance>>,
    /// Memory for streams inside of streams, kept for the next one.
    nested: Option<Buffers>,
    /// What the current command's objects belong to.
    owner: u32,
    /// The guest wants a reply to the current command.
    wants_reply: bool,
    /// Why a handler gave up.
    failure: Option<Fatal>,
    /// The number of the last command that a piece did not hold whole.
    cut: u32,
    /// Bytes of the batch before the current group, those of the group before the current command, and those that the
    /// guest was told of.
    group_start: usize,
    group_done: usize,
    published: usize,
    /// Bytes of the outer stream that are done while the current commands are those of a stream inside.
    outer_done: Option<usize>,
    /// Commands, and objects looked up for them, since the last [`Session::count`].
    commands: u64,
    lookups: u64,
}

impl<'s> Session<'s> {
    /// A session for one thread, which gets its commands from `source`. What it does with them is handed in: `handlers` carry
    /// out commands, `run_ring` is for the threads of rings that it makes.
    pub(crate) fn new(
        state: &'s Arc<ContextState>,
        handles: &'s Handles<'s>,
        source: Source,
        handlers: &'static Handlers,
        run_ring: RunRing,
    ) -> Self {
        Self {
            state,
            handles,
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
        }
    }

    /// A batch that begins at position `head` of the session's ring comes next.
    #[inline]
    pub(crate) fn begin_ring_batch(&mut self, position: u32) {
        if let Source::Ring { head, .. } = &mut self.source {
            *head = position;
        }
    }

    /// Gives back the memory that is kept for the next commands.
    pub(crate) fn release(&mut self) {
        self.nested = None;
    }

    /// Carries out commands that begin at byte `base` of their stream, which errors then tell.
    #[inline]
    fn run(&mut self, commands: &mut [u8], base: usize, arena: &mut Arena) -> Result<(), Fatal> {
        let mut at = 0;
        while let Some(rest) = commands.get_mut(at..).filter(|rest| !rest.is_empty()) {
            arena.reset();
            let length = rest.len();
            let mut decoder = Decoder::new(rest, arena, self.handles);
            self.group_start = base + at;
            let ended = self.group(length, &mut decoder);
            let read = decoder.position();
            self.lookups += u64::from(decoder.lookups());
            ended.map_err(|fatal| fatal.moved(base + at))?;
            at += read;
        }
        Ok(())
    }

    /// Carries out commands that share an arena: few enough that it stays small, and none after one with outputs. `length` is
    /// that of what the decoder reads.
    fn group(&mut self, length: usize, decoder: &mut Decoder<'_>) -> Result<(), Fatal> {
        let is_traced = log::log_enabled!(target: TRACE, log::Level::Debug);
        // Whatever ends a group also tells the guest how far it is.
        const { assert!(GROUP <= PUBLISH_EVERY) };
        let end = GROUP.min(length);
        self.group_done = 0;
        loop {
            if is_traced {
                self.trace(decoder.rest());
            }
            let (number, reply) = decoder.raw_header()?;
            let Some(Some(handler)) = self.handlers.get(number as usize) else {
                let command = decoder.known_command()?;
                return Err(self.fail_here(Fatal::NotHandled(name(command))));
            };
            self.wants_reply = reply;
            if !handler(self, decoder) {
                let failure = self.failure.take().unwrap_or(Fatal::Panic);
                return Err(self.fail_here(failure));
            }
            self.commands += 1;
            self.group_done = decoder.position();
            // Not both in one, which would cost more.
            if self.group_done >= end {
                break;
            }
            if self.wants_reply {
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

    /// Ends the context for what is wrong with the current command, and says in which byte of the stream that begins.
    #[cold]
    fn fail_here(&self, fatal: Fatal) -> Fatal {
        // An error of the decoder says more exactly where.
        if !matches!(fatal, Fatal::Stream(_)) {
            self.state
                .fail_at(fatal, self.group_start + self.group_done);
        }
        fatal
    }

    /// Says in the log what the next command is.
    #[cold]
    fn trace(&self, commands: &mut [u8]) {
        let from = if self.ring().is_some() {
            "ring"
        } else {
            "virtqueue"
        };
        // What cannot be read will be an error in a moment.
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

    /// Hands over what this thread counted.
    pub(crate) fn count(&mut self, bytes: usize) {
        let tally = &self.state.tally;
        add(&tally.commands, std::mem::take(&mut self.commands));
        add(&tally.lookups, std::mem::take(&mut self.lookups));
        add(&tally.command_bytes, bytes as u64);
        add(&tally.batches, 1);
    }

    /// Runs a stream inside of a stream.
    pub(crate) fn run_nested(&mut self, stream: &impl Stream) -> Result<(), Fatal> {
        if self.outer_done.is_some() {
            return Err(Fatal::Nested);
        }
        let outer = (self.group_start, self.group_done, self.wants_reply);
        self.outer_done = Some(self.done());
        // The outer command's arguments are still in use, so this needs memory of its own.
        let mut buffers = self
            .nested
            .take()
            .unwrap_or_else(|| Buffers::new(self.state));
        let ended = self.run_pieces(stream, &mut buffers);
        buffers.settle();
        self.nested = Some(buffers);
        self.outer_done = None;
        (self.group_start, self.group_done, self.wants_reply) = outer;
        // Of the outer stream nothing is missing or refused: what it has executed must not be executed again.
        ended.map_err(|fatal| match fatal {
            Fatal::Stream(inner) => Fatal::Inner(inner),
            other => other,
        })
    }

    /// Tells a guest that waits for the ring how far it is. To be called before anything that may block.
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

    /// The object with this id, whatever it is.
    pub(crate) fn find(&self, id: u64) -> Option<Entry> {
        self.handles.get(id)
    }

    /// Lets go of the device or instance that the current command is for.
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
        // The objects were found a moment ago: if the device is not, another thread has just destroyed it.
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

    /// The driver did not make an object for the current command. A guest that does not ask for the result destroys it nevertheless.
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

    /// The result of a command that uses memory of so many `bytes` that the host did not have.
    pub(crate) fn refuse(&self, bytes: u64) -> Result<vk::Result, Fatal> {
        match self.wants_reply {
            true => Ok(vk::Result::ERROR_OUT_OF_DEVICE_MEMORY),
            false => Err(Fatal::NoMemory(bytes)),
        }
    }

    /// Replies if the guest wants it; else sees to it that a lost device does not go unnoticed.
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
            // Only a command with outputs must lie in memory until here.
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
            // SAFETY: outputs are as decoded, but for what the driver wrote there, which is valid for the
            // lengths it wrote.
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

/// What a command returns, as far as everyone must look at it.
pub(crate) trait Outcome: Copy {
    /// Whether it says that the GPU is lost.
    fn is_device_lost(self) -> bool {
        false
    }
}

impl Outcome for () {}

impl Outcome for u32 {}

impl Outcome for u64 {}

impl Outcome for vk::Result {
    #[inline]
    fn is_device_lost(self) -> bool {
        self == vk::Result::ERROR_DEVICE_LOST
    }
}

/// The function table of a command, wherever it is.
pub(crate) trait Reach {
    /// The table for the current command.
    fn reach<'t>(session: &'t mut Session<'_>, command: CommandId) -> Result<&'t Self, Fatal>;
}

impl Reach for DeviceTable {
    #[inline]
    fn reach<'t>(session: &'t mut Session<'_>, command: CommandId) -> Result<&'t Self, Fatal> {
        session.device(command).map(|device| device.functions())
    }
}

impl Reach for InstanceTable {
    fn reach<'t>(session: &'t mut Session<'_>, command: CommandId) -> Result<&'t Self, Fatal> {
        session
            .instance(command)
            .map(|instance| instance.functions())
    }
}

/// Calls the host's driver with a command's arguments.
#[inline]
pub(crate) fn call<'m, C: Call<'m>>(
    session: &mut Session<'_>,
    command: &mut C,
) -> Result<C::Return, Fatal>
where
    C::Table: Reach,
{
    let table = C::Table::reach(session, C::ID)?;
    // SAFETY: the decoder has replaced every id by the handle of a live object of this table's driver, and checked
    // counts and pointers. What remains is the API's own valid usage, which the driver's memory safety
    // must not depend on more than it does for any other client.
    let result = unsafe { command.call(table) };
    result.ok_or(Fatal::NotEnabled(name(C::ID)))
}

/// Decodes a command, lets `act` carry it out, and replies. For what comes back see [`Handler`].
#[inline(always)]
pub(crate) fn handle<'m, C: Command<'m>>(
    session: &mut Session<'_>,
    decoder: &mut Decoder<'m>,
    act: impl FnOnce(&mut Session<'_>, &mut C) -> Result<C::Return, Fatal>,
) -> bool
where
    C::Return: Outcome,
{
    let mut command = match C::decode(decoder) {
        Ok(command) => command,
        Err(fatal) => return session.give_up(fatal.into()),
    };
    session.owner = decoder.owner();
    let result = match act(session, &mut command) {
        Ok(result) => result,
        Err(fatal) => return session.give_up(fatal),
    };
    match session.finish(&command, result) {
        Ok(()) => true,
        Err(fatal) => session.give_up(fatal),
    }
}

/// The owner of a command's objects has gone.
#[cold]
fn gone(command: CommandId) -> Fatal {
    Fatal::Invalid {
        command: name(command),
        reason: "what its objects belong to is being destroyed, or is not what it is for",
    }
}

/// The C name of a command.
#[cold]
pub(crate) fn name(command: CommandId) -> &'static str {
    let info = COMMANDS.get(command as usize).and_then(Option::as_ref);
    info.map_or("?", |info| info.name)
}
