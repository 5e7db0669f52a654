//! The guest's side of the protocol, as a guest's driver has it.
//!
//! Tests, fuzzers and mock guests speak Venus with it. Both sides use the same argument structs;
//! here their handles are ids ([`Object::guest`](crate::runtime::Object::guest)).
//!
//! ```
//! use hesper_venus_protocol::{command, guest, runtime::Object};
//!
//! let draw = command::CmdDraw {
//!     command_buffer: Object::guest(7),
//!     vertex_count: 3,
//!     instance_count: 1,
//!     first_vertex: 0,
//!     first_instance: 0,
//! };
//! let mut stream = Vec::new();
//! // SAFETY: there are no pointers in these arguments.
//! unsafe { guest::encode(&draw, false, &mut stream) };
//! assert_eq!(stream.len(), 32);
//! ```
//!
//! Both directions interpret the schema. The host's codecs are straight-line code, generated from
//! the same rules.

mod decode;
mod encode;

use crate::runtime::Command;

pub(crate) use decode::decode_reply_erased;
pub(crate) use encode::encode_erased;

/// What is wrong with a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The reply ends early.
    #[error("the reply ends at byte {0}")]
    Truncated(usize),
    /// The reply is for another command, or has another struct.
    #[error("the reply has {found} where {expected} is required")]
    Type {
        /// The type in the reply.
        found: i32,
        /// The type that is required.
        expected: i32,
    },
    /// The reply has more elements than there is room for, or an output that was not requested.
    #[error("the reply has {found} elements where there is room for {room}")]
    Room {
        /// How many elements the reply has.
        found: u64,
        /// How many elements there is room for.
        room: u64,
    },
}

/// Appends a command to a stream. With `reply`, the host must answer.
///
/// # Safety
/// Every pointer in the arguments' structs must be null or valid for its length.
pub unsafe fn encode<'a, C: Command<'a>>(args: &C, reply: bool, out: &mut Vec<u8>) {
    if let Some(codec) = C::ID.info().codec() {
        let place = std::ptr::from_ref(args).cast();
        // SAFETY: the layout is that of C, and the caller ensures that the pointers are valid.
        unsafe { encode_erased(C::ID, codec.layout, place, reply, out) };
    }
}

/// Decodes a reply into the outputs of the arguments of its request. Returns the bits of the return
/// value (0 for void) and the length of the reply.
///
/// # Errors
/// The reply does not fit the arguments.
///
/// # Safety
/// Every pointer in the arguments' outputs must be null or valid for its length.
pub unsafe fn decode_reply<'a, C: Command<'a>>(
    args: &mut C,
    reply: &[u8],
) -> Result<(u64, usize), ReplyError> {
    let Some(codec) = C::ID.info().codec() else {
        return Ok((0, 0));
    };
    let place = std::ptr::from_mut(args).cast();
    // SAFETY: the layout is that of C, and the caller ensures that the pointers are valid.
    unsafe { decode_reply_erased(C::ID, codec.layout, place, reply) }
}
