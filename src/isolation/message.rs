//! What the main process and a worker tell each other. Their bytes are in [`super::encoding`].
//!
//! A worker may belong to the guest, so the main process trusts no field of a [`FromWorker`].

use hesper_venus::{BlobRequest, Caching, DisplayServer};

/// A message to a worker. The number of descriptors that travel with it stands with each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ToWorker {
    /// The first message, with [`hesper_venus::host::Findings`] or nothing. Three descriptors:
    /// the memory of a [`hesper_venus::Report`], of a [`hesper_venus::trace::Trace`] and of
    /// [`hesper_venus::Bells`].
    Configure(Vec<u8>),
    /// The worker now is this context. The name is the guest's and untrusted.
    Begin {
        /// The front end's id, for logs.
        id: u32,
        /// The guest's name, for logs.
        name: String,
        /// To what its program presents.
        server: DisplayServer,
    },
    /// Consume these commands.
    Submit(Vec<u8>),
    /// Make a fence.
    Fence {
        /// Timeline.
        ring: u8,
        /// The front end's id.
        fence: u64,
    },
    /// Make a blob; [`FromWorker::BlobCreated`] answers.
    CreateBlob {
        /// The front end's id.
        resource: u32,
        /// What is wanted.
        request: BlobRequest,
    },
    /// Attach a blob that another context made. One descriptor.
    Attach {
        /// The front end's id.
        resource: u32,
        /// The memory.
        memory: Piece,
    },
    /// Attach memory of the guest's own. One descriptor for each file, at most [`MOST_FILES`].
    AttachGuest {
        /// The front end's id.
        resource: u32,
        /// The pages in their order.
        runs: Vec<Run>,
    },
    /// Detach a resource.
    Detach {
        /// The front end's id.
        resource: u32,
        /// Unless 0, [`FromWorker::Detached`] answers when guest memory is given back.
        ticket: u32,
    },
    /// The main process has dropped a blob of [`FromWorker::BlobCreated`]: nobody whom it knows
    /// uses the memory any more.
    Returned {
        /// Which one.
        serial: u64,
        /// Somebody may have its descriptor and use it nevertheless.
        is_given_away: bool,
    },
    /// Give all guest memory back; [`FromWorker::Detached`] answers.
    GiveBack {
        /// Never 0.
        ticket: u32,
    },
    /// End the context and the process.
    End,
}

/// A piece of shared memory: a part of the file that travels with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Where it begins in the file, in bytes: whole pages.
    pub(super) offset: u64,
    /// Its size in bytes: whole pages.
    pub(super) size: u64,
    /// Caching of the mapping.
    pub(super) caching: Caching,
}

/// Pages of guest memory: a part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    /// Which of the descriptors.
    pub(super) file: u32,
    /// Where it begins in the file, in bytes.
    pub(super) offset: u64,
    /// Its size in bytes.
    pub(super) size: u64,
}

/// Why a blob was refused; the kinds of [`hesper_venus::BlobError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The request is not valid.
    Invalid,
    /// Memory is short.
    OutOfMemory,
    /// The context was lost before.
    Lost,
}

/// A message from a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FromWorker {
    /// The driver is loaded.
    Ready,
    /// The driver cannot serve, or no context can be made: why. The worker ends.
    Unable(String),
    /// A fence is signalled.
    FenceRetired {
        /// Timeline.
        ring: u8,
        /// The front end's id.
        fence: u64,
    },
    /// A blob was made. One descriptor.
    BlobCreated {
        /// The front end's id.
        resource: u32,
        /// The worker's number for this blob, for [`ToWorker::Returned`].
        serial: u64,
        /// The memory.
        memory: Piece,
    },
    /// A blob was refused.
    BlobRefused {
        /// The front end's id.
        resource: u32,
        /// The kind of reason.
        kind: Refusal,
        /// The reason.
        reason: String,
    },
    /// There is a ring. One descriptor: its memory.
    RingCreated {
        /// The guest's id.
        ring: u64,
        /// Where its word `VkRingStatusFlagsMESA` is in the file, in bytes.
        status: u64,
    },
    /// A ring is gone.
    RingDestroyed {
        /// The guest's id.
        ring: u64,
    },
    /// So many bytes of commands were consumed since the last such message. Batches of less than
    /// [`SMALL_BATCH`] do not count.
    Consumed {
        /// Bytes of [`ToWorker::Submit`].
        bytes: u64,
    },
    /// The answer to [`ToWorker::Detach`] and [`ToWorker::GiveBack`].
    Detached {
        /// That of the call.
        ticket: u32,
    },
    /// The guest broke the protocol: why. The rings know already.
    Lost(String),
    /// A line for the log.
    Log {
        /// 1 (error) to 5 (trace), as `log::Level`.
        level: u8,
        /// `target` and text, with a zero byte between them.
        line: String,
    },
    /// All is destroyed: the process ends now.
    Ended,
}

/// A message about budgets. These travel on a socket of their own, on which the worker's threads
/// wait for answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Budget {
    /// Worker: grant me this much more; [`Budget::Granted`] answers.
    Ask {
        /// Which pool, as [`hesper_venus::Resource`].
        pool: u8,
        /// How much.
        amount: u64,
    },
    /// Main process: it is granted, or 0.
    Granted {
        /// At least what was asked for, or 0.
        amount: u64,
    },
    /// Worker: this much is not needed any more. Nothing answers.
    GiveBack {
        /// Which pool.
        pool: u8,
        /// How much.
        amount: u64,
    },
    /// Worker: how much more could be granted? [`Budget::Granted`] answers.
    Left {
        /// Which pool.
        pool: u8,
    },
}

/// The most files that guest memory of one resource may come from.
pub(super) const MOST_FILES: usize = 16;

/// The largest text of a worker that is read; the rest is cut off by the worker.
pub(super) const LONGEST_TEXT: usize = 4096;

/// The smallest batch of commands, in bytes, that [`FromWorker::Consumed`] counts.
pub(super) const SMALL_BATCH: usize = 4096;
