//! The errors of guests, and the reasons why a reply cannot be written.

use crate::generated::numbers::COMMAND_NAMES;
use crate::vk::{HandleType, StructureType};

/// A violation of the protocol. The context that sent it is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{} at byte {offset}: {reason}", name(*.command))]
pub struct Fatal {
    /// What is wrong.
    pub reason: Reason,
    /// Its place, in bytes from the start of the stream.
    pub offset: usize,
    /// The number of the command, which may not exist.
    pub command: u32,
}

impl Fatal {
    /// What a decoder has that has met no error.
    pub(super) const NONE: Self = Self {
        reason: Reason::UnknownCommand(u32::MAX),
        offset: 0,
        command: u32::MAX,
    };
}

fn name(command: u32) -> &'static str {
    let known = usize::try_from(command)
        .ok()
        .and_then(|n| COMMAND_NAMES.get(n));
    known
        .and_then(Option::as_ref)
        .map_or("no command", |(_, name)| name)
}

/// What is wrong in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Fewer bytes than the command needs.
    #[error("the stream ends: {needed} more bytes needed, {left} left")]
    Truncated {
        /// Bytes that are needed.
        needed: u64,
        /// Bytes that are left.
        left: usize,
    },
    /// No command has this number.
    #[error("command number {0} does not exist")]
    UnknownCommand(u32),
    /// The command has no requests on the wire.
    #[error("{0} cannot be sent: its arguments are pointers or file descriptors of the guest")]
    NotCodable(&'static str),
    /// A pointer that must not be null is null.
    #[error("null where a value is required")]
    Null,
    /// A pointer that must be null is not.
    #[error("an allocator or host pointer, which must be null")]
    NotNull,
    /// The count of an array differs from its length member.
    #[error("an array of {found} where its length is {expected}")]
    Count {
        /// Elements sent.
        found: u64,
        /// Elements that the length member demands.
        expected: u64,
    },
    /// The wrong struct.
    #[error("a struct of type {found:?} where {expected:?} is required")]
    Type {
        /// The sType sent.
        found: StructureType,
        /// The sType required.
        expected: StructureType,
    },
    /// A struct that this chain cannot hold, or an unknown one.
    #[error("{0:?} in a chain that cannot hold it")]
    Link(StructureType),
    /// No member of the union has this tag.
    #[error("union tag {0} selects no member")]
    Tag(u32),
    /// The tag of a union differs from its selector.
    #[error("union tag {tag} where the selector is {selector}")]
    Selector {
        /// The tag sent.
        tag: i32,
        /// The selector's value.
        selector: i32,
    },
    /// There is no such object, or it has another type.
    #[error("{} {id:#x} does not exist", .ty.name())]
    Handle {
        /// The type required.
        ty: HandleType,
        /// The id sent.
        id: u64,
    },
    /// The driver failed to create the object, and the guest does not know that.
    #[error(
        "{} {id:#x} does not exist: the host's driver failed to make it, and Mesa does not wait for that answer",
        .ty.name()
    )]
    Failed {
        /// The type required.
        ty: HandleType,
        /// The id sent.
        id: u64,
    },
    /// A null handle where an object is required.
    #[error("a null {} where an object is required", .0.name())]
    NullHandle(HandleType),
    /// A string without its NUL.
    #[error("a string that does not end with NUL")]
    Unterminated,
    /// The command needs more memory than the budget has.
    #[error("{wanted} more bytes exceed the budget of {budget} bytes")]
    Budget {
        /// Bytes of this allocation.
        wanted: u64,
        /// The budget.
        budget: u64,
    },
}

/// A step of decoding has failed. What is wrong is in the decoder
/// ([`Decoder::failure`](super::Decoder::failure)), so that steps return nothing larger than this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped;

/// The result of a step of decoding.
pub type Result<T, E = Stopped> = std::result::Result<T, E>;

/// The reason why a reply cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The guest provided less room than the reply needs.
    #[error("the reply needs {needed} more bytes where {left} are left in the reply stream")]
    Full {
        /// Bytes of the next piece.
        needed: u64,
        /// Bytes left.
        left: usize,
    },
    /// An output chain has more structs than the protocol knows.
    #[error("an output chain of more than {0} structs")]
    Chain(usize),
}
