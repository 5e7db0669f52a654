//! What the generated code runs on: written by hand, and the only place with unsafe ideas.
//!
//! - [`Decoder`] reads requests into an [`Arena`], [`Encoder`] writes replies;
//! - [`HandleMap`] is how the renderer tells ids from handles;
//! - [`Array`], [`Object`], [`Objects`], [`Text`] are what arguments are made of.

mod arena;
mod argument;
mod chain;
mod decoder;
mod encoder;
mod error;
mod lookup;
mod output;
mod slots;
mod value;

pub use arena::{Arena, Meter};
pub use argument::{Array, Object, Objects, Text};
pub(crate) use chain::{InLink, MAX_LINKS, OutLink};
pub use chain::{find, find_mut, unlink};
pub use decoder::{Decoder, Header};
pub use encoder::Encoder;
pub use error::{EncodeError, Fatal, Reason, Result};
pub use slots::{Front, OWNERS, Slot};
pub use value::{Chained, Handle, HandleMap, Identity, Plain, Resolved, Zeroed};

pub(crate) use decoder::{OPTIONAL, REQUIRED, raw};

pub use crate::generated::numbers::CommandId;

/// A command as the host sees it. Implemented by every struct of [`crate::command`].
pub trait Command<'a>: Sized {
    /// Which command it is.
    const ID: CommandId;
    /// Whether there is more in its reply than a return value.
    const HAS_OUTPUTS: bool;
    /// What its handler gives back.
    type Return: Copy;

    /// Decodes the arguments: what follows the header in the stream.
    ///
    /// # Errors
    /// Whatever the guest got wrong; the stream can't be read on.
    fn decode(d: &mut Decoder<'a>) -> Result<Self>;

    /// Encodes the beginning of the reply: command type and return value.
    ///
    /// # Errors
    /// When that doesn't fit.
    fn encode_return(ret: Self::Return, e: &mut Encoder<'_>) -> Result<(), EncodeError>;

    /// Encodes the reply: command type, return value and outputs.
    ///
    /// # Errors
    /// When the reply doesn't fit; nothing after that point has been written.
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

/// Decoding of a value of an input: a struct or union.
pub(crate) trait Decode: Zeroed {
    fn decode(&mut self, d: &mut Decoder<'_>) -> Result<()>;
}

/// Decoding of a chained struct's own members.
pub(crate) trait DecodeBody: Chained {
    fn decode_body(&mut self, d: &mut Decoder<'_>) -> Result<()>;
}

/// Decoding of what a request says about an output struct.
pub(crate) trait DecodePartial: Zeroed {
    fn decode_partial(&mut self, d: &mut Decoder<'_>) -> Result<()>;
}

/// The same of a chained struct's own members.
pub(crate) trait DecodePartialBody: Chained {
    fn decode_partial_body(&mut self, d: &mut Decoder<'_>) -> Result<()>;
}

/// Encoding of an output struct.
pub(crate) trait Encode {
    /// # Safety
    /// Pointers reachable from `self` must be null or valid for their lengths.
    unsafe fn encode(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError>;
}

/// The same of a chained struct's own members.
pub(crate) trait EncodeBody: Chained {
    /// # Safety
    /// As [`Encode::encode`].
    unsafe fn encode_body(&self, e: &mut Encoder<'_>) -> Result<(), EncodeError>;
}
