//! The other side of the protocol: what a guest's driver does.
//!
//! Our tests, fuzzers and mock guests speak Venus with it. The same argument structs serve both
//! sides; here their handles are ids ([`Object::guest`](crate::runtime::Object::guest)).
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
//! Both directions interpret the schema; the host's codecs are straight-line
//! code from the same rules.

mod decode;
mod encode;

use crate::runtime::Command;

pub(crate) use decode::decode_reply_erased;
pub(crate) use encode::encode_erased;

/// What is wrong with a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// It ends early.
    #[error("the reply ends at byte {0}")]
    Truncated(usize),
    /// It answers another command, or holds another struct.
    #[error("the reply has {found} where {expected} is required")]
    Type {
        /// What it has.
        found: i32,
        /// What it should have.
        expected: i32,
    },
    /// It has more elements than there is room for, or an output nobody asked for.
    #[error("the reply has {found} elements where there is room for {room}")]
    Room {
        /// What it has.
        found: u64,
        /// What there is room for.
        room: u64,
    },
}

/// Appends a command to a stream; `reply` asks the host to answer.
///
/// # Safety
/// Every pointer in the arguments' structs must be null or valid for its length.
pub unsafe fn encode<'a, C: Command<'a>>(args: &C, reply: bool, out: &mut Vec<u8>) {
    if let Some(codec) = C::ID.info().codec() {
        let place = std::ptr::from_ref(args).cast();
        // SAFETY: the layout is that of C, and the caller vouches for pointers.
        unsafe { encode_erased(C::ID, codec.layout, place, reply, out) };
    }
}

/// Decodes a reply into the outputs of the arguments that asked for it; gives back the return
/// value's bits (0 for void) and the length of the reply.
///
/// # Errors
/// If the reply doesn't fit the arguments.
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
    // SAFETY: the layout is that of C, and the caller vouches for pointers.
    unsafe { decode_reply_erased(C::ID, codec.layout, place, reply) }
}
