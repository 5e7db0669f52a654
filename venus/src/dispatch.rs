//! From bytes to handlers: [`Executor`] decodes a stream command by command and calls each one's handler.
//!
//! Every decoding thread (the context's own, and each ring's) has an executor. What a handler needs of its thread is
//! [`Session`]: the context, the guest's objects, the reply stream, and where the commands come from.
//!
//! Nothing is allocated per command: arguments live in an arena that is reset before the next one, handles
//! are found without a lock, and the device is looked up once per batch.

use std::cell::Cell;
use std::sync::Arc;

use hesper_venus_protocol::call::{Call, DeviceTable, InstanceTable};
use hesper_venus_protocol::runtime::{Arena, Command, Decoder, HandleMap, Resolved};
use hesper_venus_protocol::{COMMANDS, CommandId, trace, vk};

use crate::counters::add;
use crate::fatal::Fatal;
use crate::handlers::HANDLERS;
use crate::object::Objects;
use crate::object::device::Device;
use crate::object::instance::Instance;
use crate::object::table::{Entry, View};
use crate::ring::{Consumer, Ring};
use crate::state::ContextState;
use crate::stream::ReplyStream;

/// Commands are published at least this often, in bytes, so that a full ring has room again soon.
const PUBLISH_EVERY: usize = 4096;

/// Bytes of commands that share an arena.
const GROUP: usize = 4096;

/// Log target of the trace of commands; its level is debug.
const TRACE: &str = "hesper_venus::commands";

/// Handles one command: decodes the arguments, acts, and replies when the guest wants it.
pub(crate) type Handler = for<'m> fn(&mut Session<'_>, &mut Decoder<'m>, bool) -> Result<(), Fatal>;

/// How the decoder finds objects: by id, type and owner.
///
/// The first object of a command decides the owner (an instance or a device); all others must have the same.
pub(crate) struct Handles<'s> {
    view: View<'s>,
    owner: Cell<u32>,
    /// Since they were last counted.
    lookups: Cell<u64>,
}

impl<'s> Handles<'s> {
    /// The handles of a context's objects, for one thread.
    pub(crate) fn new(objects: &'s Objects) -> Self {
        Self {
            view: objects.table.view(),
            owner: Cell::new(0),
            lookups: Cell::new(0),
        }
    }

    /// The object with this id, whatever it is.
    pub(crate) fn get(&self, id: u64) -> Option<Entry> {
        self.view.get(id).filter(|entry| entry.host != 0)
    }

    /// The owner of the objects that the current command names; 0 if it named none.
    #[inline]
    pub(crate) fn owner(&self) -> u32 {
        self.owner.get()
    }
}

impl Handles<'_> {
    /// The object if it is of that type and of the command's owner.
    #[inline(always)]
    fn checked(&self, entry: Entry, ty: vk::HandleType) -> Resolved {
        let owner = self.owner.get();
        if entry.kind != ty as u32 || (owner != entry.owner && owner != 0) {
            return Resolved::UNKNOWN;
        }
        self.owner.set(entry.owner);
        Resolved {
            handle: entry.host,
            tag: 0,
        }
    }

    /// The rare case, apart so that the common one needs no stack.
    #[cold]
    #[inline(never)]
    fn resolve_slowly(&self, ty: vk::HandleType, id: u64) -> Resolved {
        let found = self.view.get_slowly(id);
        found.map_or(Resolved::UNKNOWN, |entry| self.checked(entry, ty))
    }
}

impl HandleMap for Handles<'_> {
    #[inline]
    fn resolve(&self, ty: vk::HandleType, id: u64) -> Resolved {
        self.lookups.set(self.lookups.get().wrapping_add(1));
        match self.view.get_quickly(id) {
            Some(entry) => self.checked(entry, ty),
            None => self.resolve_slowly(ty, id),
        }
    }
}

/// Where commands come from.
#[derive(Clone)]
pub(crate) enum Place {
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
    pub(crate) reply: Option<ReplyStream>,
    place: Place,
    /// The last device and instance that commands were for.
    device: Option<Arc<Device>>,
    instance: Option<Arc<Instance>>,
    /// Memory for streams inside of streams, kept for the next one.
    pub(crate) stream_buffer: Vec<u8>,
    nested_arena: Option<Arena>,
    /// Bytes of the batch that are done, and that the guest was told of.
    done: usize,
    published: usize,
    is_nested: bool,
    /// Commands since the last [`Session::count`].
    commands: u64,
}

/// Decodes and carries out streams.
pub(crate) struct Executor<'s> {
    session: Session<'s>,
    arena: Arena,
}

impl<'s> Executor<'s> {
    /// An executor for one thread.
    pub(crate) fn new(
        state: &'s Arc<ContextState>,
        handles: &'s Handles<'s>,
        place: Place,
    ) -> Self {
        let session = Session {
            state,
            handles,
            reply: None,
            place,
            device: None,
            instance: None,
            stream_buffer: Vec::new(),
            nested_arena: None,
            done: 0,
            published: 0,
            is_nested: false,
            commands: 0,
        };
        Self {
            session,
            arena: Arena::default(),
        }
    }

    /// Carries out a batch of commands.
    pub(crate) fn execute(&mut self, commands: &[u8]) -> Result<(), Fatal> {
        self.session.done = 0;
        self.session.published = 0;
        let ended = self.session.run(commands, &mut self.arena);
        // Between batches nothing may keep a device alive that the guest destroyed.
        self.session.forget_domain();
        self.session.count(commands.len());
        ended
    }
}

impl Consumer for Executor<'_> {
    fn consume(&mut self, commands: &[u8], start: u32) -> Result<(), Fatal> {
        if let Place::Ring { head, .. } = &mut self.session.place {
            *head = start;
        }
        self.execute(commands)
    }
}

impl<'s> Session<'s> {
    fn run(&mut self, commands: &[u8], arena: &mut Arena) -> Result<(), Fatal> {
        let mut at = 0;
        while let Some(rest) = commands.get(at..).filter(|rest| !rest.is_empty()) {
            arena.reset();
            let mut decoder = Decoder::new(rest, arena, self.handles);
            let ended = self.group(rest, &mut decoder, at);
            at += decoder.position();
            ended.map_err(|fatal| fatal.moved(at - decoder.position()))?;
        }
        Ok(())
    }

    /// Carries out commands that share an arena: few enough that it stays small, and none after one with outputs.
    /// `start` is where they begin in the batch.
    fn group(
        &mut self,
        commands: &[u8],
        decoder: &mut Decoder<'_>,
        start: usize,
    ) -> Result<(), Fatal> {
        let is_traced = log::log_enabled!(target: TRACE, log::Level::Debug);
        loop {
            self.handles.owner.set(0);
            if is_traced {
                self.trace(commands.get(decoder.position()..).unwrap_or_default());
            }
            let begin = start + decoder.position();
            let header = decoder.header()?;
            let Some(Some(handler)) = HANDLERS.get(header.command as usize) else {
                return Err(self.fail_at(begin, Fatal::NotHandled(name(header.command))));
            };
            handler(self, decoder, header.reply).map_err(|fatal| self.fail_at(begin, fatal))?;
            self.commands += 1;
            let read = decoder.position();
            if !self.is_nested {
                self.done = start + read;
                if header.reply || self.done - self.published >= PUBLISH_EVERY {
                    self.publish();
                }
            }
            if header.reply || read >= GROUP || decoder.is_empty() {
                return Ok(());
            }
        }
    }

    /// Ends the context for what is wrong with the command that begins at that byte of the batch.
    #[cold]
    fn fail_at(&self, begin: usize, fatal: Fatal) -> Fatal {
        // An error of the decoder says more exactly where.
        if !matches!(fatal, Fatal::Stream(_)) {
            self.state.fail_at(fatal, begin);
        }
        fatal
    }

    /// Says in the log what the next command is.
    #[cold]
    fn trace(&self, commands: &[u8]) {
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

    /// Hands over what this thread counted.
    fn count(&mut self, bytes: usize) {
        let tally = &self.state.tally;
        add(&tally.commands, std::mem::take(&mut self.commands));
        add(&tally.lookups, self.handles.lookups.take());
        add(&tally.command_bytes, bytes as u64);
        add(&tally.batches, 1);
    }

    /// Runs a stream inside of a stream.
    pub(crate) fn run_nested(&mut self, commands: &[u8]) -> Result<(), Fatal> {
        if self.is_nested {
            return Err(Fatal::Nested);
        }
        self.is_nested = true;
        // The outer command's arguments are still in use, so this needs an arena of its own.
        let mut arena = self.nested_arena.take().unwrap_or_default();
        let ended = self.run(commands, &mut arena);
        self.nested_arena = Some(arena);
        self.is_nested = false;
        ended
    }

    /// Tells a guest that waits for the ring how far it is. To be called before anything that may block.
    pub(crate) fn publish(&mut self) {
        if let Place::Ring { ring, head } = &self.place
            && self.done > self.published
        {
            // A batch is at most as large as the ring's buffer, which is below 2^31.
            ring.publish(head.wrapping_add(self.done as u32));
            self.published = self.done;
        }
    }

    /// The ring that the commands come from.
    pub(crate) fn ring(&self) -> Option<&Arc<Ring>> {
        match &self.place {
            Place::Virtqueue => None,
            Place::Ring { ring, .. } => Some(ring),
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
        let owner = self.handles.owner();
        if self
            .device
            .as_ref()
            .is_none_or(|device| device.owner != owner)
        {
            self.device = self.state.objects.device(owner);
        }
        // The objects were found a moment ago: if the device is not, another thread has just destroyed it.
        self.device.as_ref().ok_or_else(|| gone(command))
    }

    /// The instance that the current command is for.
    pub(crate) fn instance(&mut self, command: CommandId) -> Result<&Arc<Instance>, Fatal> {
        let owner = self.handles.owner();
        if self
            .instance
            .as_ref()
            .is_none_or(|instance| instance.owner != owner)
        {
            self.instance = self.state.objects.instance(owner);
        }
        self.instance.as_ref().ok_or_else(|| gone(command))
    }

    /// Replies if the guest wants it; else sees to it that a lost device does not go unnoticed.
    #[inline]
    pub(crate) fn finish<'m, C: Command<'m>>(
        &mut self,
        command: &C,
        result: C::Return,
        wants_reply: bool,
    ) -> Result<(), Fatal>
    where
        C::Return: Outcome,
    {
        if !wants_reply {
            return match result.is_device_lost() {
                true => Err(Fatal::DeviceLost(name(C::ID))),
                false => Ok(()),
            };
        }
        let stream = self
            .reply
            .as_mut()
            .ok_or(Fatal::NoReplyStream(name(C::ID)))?;
        let written = stream.write(|encoder| {
            // SAFETY: outputs are as decoded, but for what the driver wrote there, which is valid for the
            // lengths it wrote.
            unsafe { command.encode_reply(result, encoder) }
        });
        written.map_err(|error| Fatal::Reply {
            command: name(C::ID),
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

/// Decodes a command, lets `act` carry it out, and replies.
#[inline]
pub(crate) fn handle<'m, C: Command<'m>>(
    session: &mut Session<'_>,
    decoder: &mut Decoder<'m>,
    wants_reply: bool,
    act: impl FnOnce(&mut Session<'_>, &mut C) -> Result<C::Return, Fatal>,
) -> Result<(), Fatal>
where
    C::Return: Outcome,
{
    let mut command = C::decode(decoder)?;
    let result = act(session, &mut command)?;
    session.finish(&command, result, wants_reply)
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
