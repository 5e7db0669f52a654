//! What a guest can get wrong, and what can keep a reply from being written.

use crate::generated::numbers::COMMAND_NAMES;
use crate::vk::{HandleType, StructureType};

/// A violation of the protocol: the context that sent it can't go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{} at byte {offset}: {reason}", name(*.command))]
pub struct Fatal {
    /// What is wrong.
    pub reason: Reason,
    /// Where: bytes from the start of the stream.
    pub offset: usize,
    /// The number of the command, known or not.
    pub command: u32,
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
        /// Bytes asked for.
        needed: u64,
        /// Bytes there are.
        left: usize,
    },
    /// No command has this number.
    #[error("command number {0} does not exist")]
    UnknownCommand(u32),
    /// The command never crosses the wire.
    #[error("{0} cannot be sent: it deals in pointers or descriptors of the guest")]
    NotCodable(&'static str),
    /// A pointer that must not be null.
    #[error("null where a value is required")]
    Null,
    /// A pointer that must be null.
    #[error("an allocator or host pointer, which must be null")]
    NotNull,
    /// An array is longer or shorter than its length says.
    #[error("an array of {found} where its length is {expected}")]
    Count {
        /// Elements sent.
        found: u64,
        /// Elements the length asks for.
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
    /// A struct that this chain can't hold, or that nobody knows.
    #[error("{0:?} in a chain that cannot hold it")]
    Link(StructureType),
    /// No member of the union has this tag.
    #[error("union tag {0} selects no member")]
    Tag(u32),
    /// The tag and the member that selects disagree.
    #[error("union tag {tag} where the selector is {selector}")]
    Selector {
        /// The tag sent.
        tag: i32,
        /// The selector's value.
        selector: i32,
    },
    /// No such object, or one of another type.
    #[error("{} {id:#x} does not exist", .ty.name())]
    Handle {
        /// The type required.
        ty: HandleType,
        /// The id sent.
        id: u64,
    },
    /// An object that the driver did not make, and the guest does not know it.
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
    /// The command wants more memory than one may.
    #[error("{wanted} bytes wanted where the command may use {budget} in all")]
    Budget {
        /// Bytes of this allocation.
        wanted: u64,
        /// The budget.
        budget: u64,
    },
}

/// The result of decoding.
pub type Result<T, E = Fatal> = std::result::Result<T, E>;

/// What keeps a reply from being written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The guest gave less room than the reply needs.
    #[error("the reply needs {needed} more bytes where {left} are left in the reply stream")]
    Full {
        /// Bytes of the next piece.
        needed: u64,
        /// Bytes left.
        left: usize,
    },
    /// More structs in an output chain than the protocol knows.
    #[error("an output chain of more than {0} structs")]
    Chain(usize),
}
