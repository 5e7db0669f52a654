//! [`Fatal`]: why a context ends. The guest did what no correct driver does, or reached a limit.

use hesper_venus_protocol::PROVIDERS;
use hesper_venus_protocol::runtime::{self, EncodeError};

use crate::rules::Broken;

/// The reason; its text goes to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Fatal {
    /// The stream is malformed, or names an object that does not exist.
    #[error("{0}")]
    Stream(#[from] runtime::Fatal),
    /// A command that this renderer does not serve.
    #[error("{0} is not served by the renderer")]
    NotHandled(&'static str),
    /// The host's driver lacks the function, or the guest did not enable its extension.
    #[error(
        "{0} was called, but its device was created without {by}, or the host's driver lacks the function",
        by = providers(.0)
    )]
    NotEnabled(&'static str),
    /// Arguments that Vulkan forbids and that the driver may not survive.
    #[error("{command}: {reason}")]
    Invalid {
        /// The command.
        command: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
    /// Numbers beyond a limit of the device, or beyond what an object has.
    #[error("{command}: {broken}")]
    OutOfRange {
        /// The command.
        command: &'static str,
        /// What is wrong.
        broken: Broken,
    },
    /// A command that must come by a ring came by the virtqueue, or the other way round.
    #[error("{0} came by a ring instead of the virtqueue, or the other way round")]
    WrongPlace(&'static str),
    /// A reply was asked for before `vkSetReplyCommandStreamMESA`.
    #[error("{0} asks for a reply, but there is no reply stream")]
    NoReplyStream(&'static str),
    /// The reply does not fit.
    #[error("{command}: {error}")]
    Reply {
        /// The command.
        command: &'static str,
        /// What is wrong.
        error: EncodeError,
    },
    /// A resource that is not attached.
    #[error("resource {0} is not attached to the context")]
    NoResource(u32),
    /// A range that is not inside its resource.
    #[error("{size} bytes at offset {offset} are not inside resource {resource}")]
    Range {
        /// The resource.
        resource: u32,
        /// First byte.
        offset: usize,
        /// Number of bytes.
        size: usize,
    },
    /// A new object with the id of another, or 0.
    #[error("object id {0:#x} is taken")]
    IdTaken(u64),
    /// A new object of a device or instance that another thread has destroyed meanwhile.
    #[error("object id {0:#x} is for an object whose device or instance is being destroyed")]
    OwnerGone(u64),
    /// [`crate::Budget::objects`].
    #[error(
        "more Vulkan objects at one time than a program may have (Budget::objects, 4194304 by default), or than are left \
         of what all programs of the guest may have (GuestBudget::objects)"
    )]
    TooManyObjects,
    /// A ring that does not exist.
    #[error("there is no ring {0:#x}")]
    NoRing(u64),
    /// A ring with the id of another.
    #[error("ring id {0:#x} is taken")]
    RingTaken(u64),
    /// [`crate::Budget::rings`].
    #[error(
        "more than {0} rings, one for each thread of a program that makes pipelines; --rings allows more"
    )]
    TooManyRings(usize),
    /// The system has no more threads.
    #[error(
        "the context has {rings} rings, and the system has no thread for another: {kind}; the system's limits on processes allow no more (ulimit -u, \
         pids.max of the control group, kernel.threads-max)"
    )]
    NoThread {
        /// Rings that the context has.
        rings: usize,
        /// The system's error.
        kind: std::io::ErrorKind,
    },
    /// [`crate::GuestBudget::threads`].
    #[error(
        "the context has {0} rings, and all programs of the guest together have as many threads as they may; --rings allows more"
    )]
    NoGuestThread(usize),
    /// `vkCreateRingMESA` with an impossible layout.
    #[error("the ring's layout is impossible: {0}")]
    RingLayout(&'static str),
    /// `vkWriteRingExtraMESA` outside the extra region.
    #[error("offset {0} is not in the ring's extra region")]
    RingExtra(usize),
    /// The guest's tail is impossible.
    #[error("the ring's tail {tail} is further from its head {head} than its buffer is large")]
    RingTail {
        /// The renderer's position.
        head: u32,
        /// The guest's.
        tail: u32,
    },
    /// As [`Fatal::Stream`], in a stream of `vkExecuteCommandStreamsMESA`.
    #[error("{0}, in a stream that is executed")]
    Inner(runtime::Fatal),
    /// `vkExecuteCommandStreamsMESA` inside of a stream.
    #[error("a command stream executes command streams")]
    Nested,
    /// The GPU is lost, and the guest did not ask for the result.
    #[error("{0} lost the device, and the guest did not ask for the result")]
    DeviceLost(&'static str),
    /// The guest uses memory for which the host had no room, see `command::bind_memory`.
    #[error(
        "the host had no memory for an allocation of {0} bytes. The guest's driver did not wait for the result \
         (VN_PERF=no_async_mem_alloc in the guest makes it wait), and now it binds the memory"
    )]
    NoMemory(u64),
    /// [`crate::Budget::queued`] or [`crate::Budget::queued_bytes`].
    #[error("more calls or bytes of commands wait for the context than its budget allows")]
    MailboxFull,
    /// [`crate::Budget::command_bytes`], for a command that has no result to report it by.
    #[error(
        "{command} needs {wanted} bytes, which is more than is left of the {budget} that large commands may hold, or than the \
         system has; --command-memory allows more"
    )]
    CommandMemory {
        /// The command.
        command: &'static str,
        /// Bytes that it asked for last.
        wanted: u64,
        /// The budget.
        budget: u64,
    },
    /// Not an error: the context ends, and nothing more is carried out.
    #[error("the context ends")]
    Ended,
    /// A bug of this renderer, caught before it did damage.
    #[error("the renderer failed: a thread panicked")]
    Panic,
}

/// The extensions or versions that bring a command.
fn providers(command: &str) -> &'static str {
    let place = PROVIDERS.binary_search_by_key(&command, |(name, _)| name);
    let found = place.ok().and_then(|place| PROVIDERS.get(place));
    found.map_or("the protocol", |(_, providers)| providers)
}

impl Fatal {
    /// The same error, in a stream that began `offset` bytes earlier.
    pub(crate) fn moved(self, offset: usize) -> Self {
        match self {
            Self::Stream(fatal) => Self::Stream(runtime::Fatal {
                offset: fatal.offset + offset,
                ..fatal
            }),
            other => other,
        }
    }
}
