//! A trace: when each thread carried out commands, was in the driver, waited and slept, and how far
//! each fence was at which time.
//!
//! ```text
//! a renderer's threads ── Lane ──▶ Trace: records in shared memory ──▶ Recorded ──▶ TraceFile
//! ```
//!
//! A [`Lane`] is what one thread, or one line of fences, writes. Off, it costs one load for each
//! batch, wait and slow call of the driver, and nothing for a recorded command. A [`Trace`] may be
//! memory that another process writes: who reads it trusts nothing in it. [`TraceFile`] is the JSON
//! that Perfetto and Chrome read.

mod buffer;
mod file;
mod lane;

use hesper_venus_protocol::COMMANDS;

pub use buffer::{Recorded, Trace};
pub use file::TraceFile;
pub use lane::{Lane, Started};

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Span {
    /// A batch of commands is decoded and carried out. Arguments: bytes, commands.
    Batch = 1,
    /// A call of the driver that may take time.
    Driver,
    /// A command waits.
    Wait,
    /// A ring's thread looks for commands without a pause.
    Spinning,
    /// It looks, and lets other threads run in between.
    Yielding,
    /// It sleeps for a short time, since its guest may not notify yet.
    Dozing,
    /// It sleeps until it is notified.
    Asleep,
    /// From the guest's notification until the ring's thread runs.
    Wake,
    /// The thread of a queue waits for a fence. Arguments: fence, ring index.
    QueueWait,
    /// From the front end's call until the front end has been told. Arguments: fence, ring index.
    Fence,
    /// From the front end's call until the context's thread takes it. Arguments as above.
    FenceQueued,
    /// From the submission to the driver until it is signalled. Arguments as above.
    FenceDriver,
    /// The whole way of a fence as the main process sees it, if the context has a process of its
    /// own. Arguments as above.
    FenceOutside,
}

/// How a span is drawn, and what its numbers mean.
pub(crate) struct Look {
    /// Its name, unless a command gives it one.
    pub(crate) name: &'static str,
    /// Its category.
    pub(crate) category: &'static str,
    /// The names of its arguments.
    pub(crate) arguments: &'static [&'static str],
    /// Whether spans of this kind overlap, as those of fences do.
    pub(crate) overlaps: bool,
}

impl Span {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Batch,
        Self::Driver,
        Self::Wait,
        Self::Spinning,
        Self::Yielding,
        Self::Dozing,
        Self::Asleep,
        Self::Wake,
        Self::QueueWait,
        Self::Fence,
        Self::FenceQueued,
        Self::FenceDriver,
        Self::FenceOutside,
    ];

    fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|span| *span as u32 == number)
    }

    pub(crate) fn look(self) -> Look {
        const FENCE: &[&str] = &["fence", "ring_idx"];
        let (name, category, arguments, overlaps): (_, _, &[&str], _) = match self {
            Self::Batch => ("batch", "batch", &["bytes", "commands"], false),
            Self::Driver => ("driver", "driver", &[], false),
            Self::Wait => ("wait", "wait", &[], false),
            Self::Spinning => ("spinning", "idle", &[], false),
            Self::Yielding => ("yielding", "idle", &[], false),
            Self::Dozing => ("dozing", "idle", &[], false),
            Self::Asleep => ("asleep", "idle", &[], false),
            Self::Wake => ("wake", "wake", &[], false),
            Self::QueueWait => ("wait for a fence", "wait", FENCE, false),
            Self::Fence => ("fence", "fence", FENCE, true),
            Self::FenceQueued => ("queued", "fence", FENCE, true),
            Self::FenceDriver => ("driver", "fence", FENCE, true),
            Self::FenceOutside => ("fence, main process", "fence", FENCE, true),
        };
        Look {
            name,
            category,
            arguments,
            overlaps,
        }
    }
}

/// Whose time a record is: a line in the picture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Track {
    /// The context's own thread.
    #[default]
    Thread,
    /// The thread of the ring with this id of the guest's.
    Ring(u64),
    /// The thread of the queue with this ring index.
    Queue(u64),
    /// The fences of this ring index.
    Fences(u64),
}

impl Track {
    fn to_numbers(self) -> (u32, u64) {
        match self {
            Self::Thread => (1, 0),
            Self::Ring(id) => (2, id),
            Self::Queue(ring) => (3, ring),
            Self::Fences(ring) => (4, ring),
        }
    }

    fn from_numbers(kind: u32, number: u64) -> Option<Self> {
        match kind {
            1 => Some(Self::Thread),
            2 => Some(Self::Ring(number)),
            3 => Some(Self::Queue(number)),
            4 => Some(Self::Fences(number)),
            _ => None,
        }
    }
}

/// A record that was read. Its numbers may be anything, because the writer may be a guest's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it is about.
    pub span: Span,
    /// Whose time it is.
    pub track: Track,
    /// The context that the writer names.
    pub context: u32,
    /// The C name of the command, if the span is one of a command.
    pub command: Option<&'static str>,
    /// When it began, in nanoseconds of the system's monotonic clock.
    pub begin: u64,
    /// How long it took, in nanoseconds.
    pub duration: u64,
    /// What [`Span`] says.
    pub arguments: [u64; 2],
}

impl Event {
    /// The name that is drawn.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.command.unwrap_or_else(|| self.span.look().name)
    }

    /// When it ended.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.begin.saturating_add(self.duration)
    }
}

/// The C name of the command with this number.
fn command_name(number: u32) -> Option<&'static str> {
    let info = COMMANDS.get(usize::try_from(number).ok()?)?.as_ref()?;
    Some(info.name)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test ends with a panic")]
mod tests;
