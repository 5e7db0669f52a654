//! The runtime of the generated code: written by hand, with nearly all of this crate's unsafe code.
//!
//! - [`Decoder`] reads requests into an [`Arena`], and [`Encoder`] writes replies.
//! - [`HandleMap`] is the renderer's object table: it maps ids to handles.
//! - [`Array`], [`Object`], [`Objects`] and [`Text`] are the types of arguments.

mod arena;
mod argument;
mod chain;
mod decoder;
mod encoder;
mod error;
mod lookup;
mod output;
mod row;
mod slots;
mod strays;
mod value;

pub use arena::{Arena, Meter};
pub use argument::{Array, Object, Objects, Text};
pub(crate) use chain::{InLink, MAX_LINKS, OutLink};
pub use chain::{find, find_mut, unlink};
pub use decoder::{Decoder, Header};
pub use encoder::Encoder;
pub use error::{EncodeError, Fatal, Reason, Result, Stopped};
pub use row::{Reader, Row, Simple};
pub use slots::{Front, OWNERS, Slot};
pub use strays::{Stray, Strays};
pub use value::{Chained, Handle, HandleMap, Identity, Plain, Resolved, Zeroed};

pub(crate) use decoder::{OPTIONAL, REQUIRED, raw};
pub(crate) use row::Source;
pub(crate) use strays::Flags;

pub use crate::generated::numbers::CommandId;

/// A command on the host's side. Every struct of [`crate::command`] implements it.
pub trait Command<'a>: Sized {
    /// The command's id.
    const ID: CommandId;
    /// Whether its reply has more than a return value.
    const HAS_OUTPUTS: bool;
    /// The type that its handler returns.
    type Return: Copy;

    /// Decodes the arguments: what follows the header in the stream.
    ///
    /// # Errors
    /// The decoder has met an error of the guest, and keeps it ([`Decoder::failure`]). The stream
    /// cannot be read any further.
    fn read(d: &mut Decoder<'a>) -> Result<Self>;

    /// The same, with the error.
    ///
    /// # Errors
    /// The guest's error.
    #[inline]
    fn decode(d: &mut Decoder<'a>) -> Result<Self, Fatal> {
        Self::read(d).map_err(|Stopped| d.failure())
    }

    /// Encodes the beginning of the reply: command type and return value.
    ///
    /// # Errors
    /// The reply does not fit.
    fn encode_return(ret: Self::Return, e: &mut Encoder<'_>) -> Result<(), EncodeError>;

    /// Encodes the reply: command type, return value and outputs.
    ///
    /// # Errors
    /// The reply does not fit; it may have been written in part.
    ///
    /// # Safety
    /// Pointers in output structs (pNext, arrays) must be as decoded, or point to as many valid
    /// elements as their length member says.
    unsafe fn encode_reply(
        &self,
        ret: Self::Return,
        e: &mut Encoder<'_>,
    ) -> Result<(), EncodeError>;
}

/// Decodes a struct or union of an input.
pub(crate) trait Decode: Zeroed {
    fn decode(&mut self, d: &mut Decoder<'_>) -> Result<()>;
}

/// Decodes a chained struct's own members.
pub(crate) trait DecodeBody: Chained {
    fn decode_body(&mut self, d: &mut Decoder<'_>) -> Result<()>;
}

/// Decodes what a request contains of an output struct.
pub(crate) trait DecodePartial: Zeroed {
    fn decode_partial(&mut self, d: &mut Decoder<'_>) -> Result<()>;
}

/// Decodes what a request contains of a chained output struct's own members.
pub(crate) trait DecodePartialBody: Chained {
    fn decode_partial_body(&mut self, d: &mut Decoder<'_>) -> Result<()>;
}

/// Encodes an output struct.
pub(crate) trait Encode {
    /// # Safety
    /// Pointers reachable from `self` must be null or valid for their lengths.
    unsafe fn encode(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError>;
}

/// Encodes a chained output struct's own members.
pub(crate) trait EncodeBody: Chained {
    /// # Safety
    /// The same as for [`Encode::encode`].
    unsafe fn encode_body(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError>;
}
