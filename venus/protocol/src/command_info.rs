//! The properties of commands: a row of the table [`COMMANDS`], with the command's codec without
//! its types.

use std::fmt;

use crate::generated::commands::COMMANDS;
use crate::generated::numbers::{COMMAND_NAMES, CommandId};
use crate::layout::Layout;
use crate::runtime::Simple;
use crate::runtime::{Command, Decoder, Result};
#[cfg(test)]
use crate::runtime::{EncodeError, Encoder, Row};

/// The properties of a command.
#[derive(Debug)]
pub struct CommandInfo {
    /// The command's id, for dispatch.
    pub id: CommandId,
    /// The C name.
    pub name: &'static str,
    codec: Option<Codec>,
}

/// A command's codec without its types, for code that treats all commands alike.
#[derive(Clone, Copy)]
pub(crate) struct Codec {
    pub(crate) layout: &'static Layout,
    /// Decodes the arguments into memory of the layout's size.
    pub(crate) decode: unsafe fn(*mut u8, &mut Decoder<'_>) -> Result<()>,
    /// For tests: encodes the reply from such memory. The second pointer is to the return value.
    #[cfg(test)]
    pub(crate) reply: unsafe fn(*const u8, *const u64, &mut Encoder<'_>) -> Result<(), EncodeError>,
    /// For tests: reads the arguments of a simple command in a row. False when the row ends.
    #[cfg(test)]
    pub(crate) read: Option<unsafe fn(*mut u8, &mut Row<'_, '_>) -> bool>,
}

impl fmt::Debug for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.layout.fmt(f)
    }
}

impl CommandInfo {
    pub(crate) const fn reserved(id: CommandId, name: &'static str) -> Self {
        Self {
            id,
            name,
            codec: None,
        }
    }

    /// Whether the command has requests and replies on the wire. The others have only a number,
    /// because their arguments are pointers or file descriptors of the guest.
    pub const fn is_codable(&self) -> bool {
        self.codec.is_some()
    }

    pub(crate) fn codec(&self) -> Option<Codec> {
        self.codec
    }
}

impl CommandId {
    /// The number on the wire.
    #[inline]
    pub const fn number(self) -> u32 {
        self as u32
    }

    /// The command with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        let known = usize::try_from(number)
            .ok()
            .and_then(|n| COMMAND_NAMES.get(n));
        known.and_then(Option::as_ref).map(|(id, _)| *id)
    }

    /// The command's properties.
    pub fn info(self) -> &'static CommandInfo {
        const NONE: CommandInfo = CommandInfo::reserved(CommandId::CreateInstance, "");
        // The table has an entry for every id.
        COMMANDS
            .get(self as usize)
            .and_then(Option::as_ref)
            .unwrap_or(&NONE)
    }

    /// The C name.
    pub fn name(self) -> &'static str {
        self.info().name
    }
}

/// A row of the table for the command with the arguments `A`.
pub(crate) const fn info<A: for<'a> Args<'a>>(
    name: &'static str,
    layout: &'static Layout,
) -> CommandInfo {
    CommandInfo {
        id: <A as Args<'static>>::Command::ID,
        name,
        codec: Some(Codec {
            layout,
            decode: decode_erased::<A>,
            #[cfg(test)]
            reply: reply_erased::<A>,
            #[cfg(test)]
            read: None,
        }),
    }
}

/// The same for a simple command.
pub(crate) const fn simple_info<A>(name: &'static str, layout: &'static Layout) -> CommandInfo
where
    A: for<'a> Args<'a, Command: Simple<'a>>,
{
    #[cfg_attr(
        not(test),
        expect(unused_mut, reason = "only tests read commands by their row")
    )]
    let mut info = info::<A>(name, layout);
    #[cfg(test)]
    if let Some(codec) = &mut info.codec {
        codec.read = Some(read_erased::<A>);
    }
    info
}

/// The command with this number. The table uses it to name a command without a lifetime.
pub(crate) struct Of<const NUMBER: u32>;

/// The arguments of a command at any lifetime.
pub(crate) trait Args<'a> {
    type Command: Command<'a>;
}

/// # Safety
/// `place` must be writable memory for the arguments of A.
unsafe fn decode_erased<A: for<'a> Args<'a>>(place: *mut u8, d: &mut Decoder<'_>) -> Result<()> {
    fn decode<'m, A: Args<'m>>(d: &mut Decoder<'m>) -> Result<A::Command> {
        A::Command::read(d)
    }
    let args = decode::<A>(d)?;
    // SAFETY: by the contract, `place` is writable memory for these arguments.
    unsafe { place.cast::<<A as Args<'_>>::Command>().write(args) };
    Ok(())
}

/// # Safety
/// `place` must be writable memory for the arguments of A.
#[cfg(test)]
unsafe fn read_erased<A>(place: *mut u8, row: &mut Row<'_, '_>) -> bool
where
    A: for<'a> Args<'a, Command: Simple<'a>>,
{
    fn read<'m, A: Args<'m, Command: Simple<'m>>>(row: &mut Row<'_, 'm>) -> Option<A::Command> {
        row.read()
    }
    let Some(args) = read::<A>(row) else {
        return false;
    };
    // SAFETY: by the contract, `place` is writable memory for these arguments.
    unsafe { place.cast::<<A as Args<'_>>::Command>().write(args) };
    true
}

/// # Safety
/// `place` must hold the arguments of A, with valid outputs. `ret` must hold a return value in its
/// low bytes.
#[cfg(test)]
unsafe fn reply_erased<A: for<'a> Args<'a>>(
    place: *const u8,
    ret: *const u64,
    e: &mut Encoder<'_>,
) -> Result<(), EncodeError> {
    type Decoded<'a, A> = <A as Args<'a>>::Command;
    // SAFETY: by the contract, both pointers hold such values; every return type is a number of at
    // most eight bytes.
    unsafe {
        let args = &*place.cast::<Decoded<'_, A>>();
        let ret = ret.cast::<<Decoded<'_, A> as Command<'_>>::Return>().read();
        args.encode_reply(ret, e)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_finds_its_row() {
        for (number, row) in COMMANDS.iter().enumerate() {
            let Some(row) = row else { continue };
            assert_eq!(row.id as usize, number);
            assert_eq!(row.id.info().name, row.name);
            assert_eq!(CommandId::from_number(number as u32), Some(row.id));
        }
    }
}
