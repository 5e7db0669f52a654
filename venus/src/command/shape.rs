//! The usual kinds of handlers, as macros that make the lists of a [`Family`].
//!
//! | macro | for | what happens |
//! |---|---|---|
//! | `forward!` | most commands | decode, call the driver, reply |
//! | `record!`, `record_simple!` | commands that are recorded | the same, or in a row of them |
//! | `create!` | `vkCreate…` of one object of a device | enters the new handle |
//! | `destroy!` | `vkDestroy…` of such an object | takes the id out, then calls the driver |
//! | `of_extension!` | an extension's physical device queries | fails unless the driver has it |
//! | `special!` | everything else | decode, call the named function, reply |

use std::ffi::CStr;

use hesper_venus_protocol::call::Call;
use hesper_venus_protocol::runtime::Decoder;
use hesper_venus_protocol::{CommandId, vk};

use crate::fatal::Fatal;
use crate::session::{Handler, Outcome, Reach, Recorder, Session, call, handle, name};

/// A command with what carries it out.
#[derive(Clone, Copy)]
pub(super) struct Served {
    /// The command.
    pub(super) command: CommandId,
    /// Carries it out.
    pub(super) handler: Handler,
    /// Carries it out in a row of recorded commands.
    pub(super) recorder: Option<Recorder>,
}

/// The commands of a file: one list for each macro.
pub(super) type Family = &'static [&'static [Served]];

/// A command with its handler.
pub(super) const fn served(command: CommandId, handler: Handler) -> Served {
    Served {
        command,
        handler,
        recorder: None,
    }
}

/// A command that is recorded.
pub(super) const fn recorded(command: CommandId, handler: Handler, recorder: Recorder) -> Served {
    Served {
        command,
        handler,
        recorder: Some(recorder),
    }
}

/// Calls the driver.
#[inline]
pub(super) fn forwarded<'m, C: Call<'m>>(
    session: &mut Session<'_>,
    decoder: &mut Decoder<'m>,
) -> bool
where
    C::Return: Outcome,
    C::Table: Reach,
{
    handle::<C>(session, decoder, |session, c| call(session, c))
}

/// Fails unless the physical device has the extension of the current command.
///
/// Vulkan's loader has a function for every physical device command that it knows, even if the
/// driver has none. Such a function jumps to nothing.
pub(super) fn require(
    session: &mut Session<'_>,
    command: CommandId,
    handle: vk::PhysicalDevice,
    extension: &CStr,
) -> Result<(), Fatal> {
    match session.physical_device(command, handle)?.has(extension) {
        true => Ok(()),
        false => Err(Fatal::NotEnabled(name(command))),
    }
}

/// Commands that the driver carries out as they are.
macro_rules! forward {
    ($($command:ident),* $(,)?) => {
        &[$($crate::command::shape::served(
            hesper_venus_protocol::CommandId::$command,
            |s, d| {
                $crate::command::shape::forwarded::<hesper_venus_protocol::command::$command>(s, d)
            },
        )),*]
    };
}

/// Commands that the driver records in a command buffer as they are, without structs.
macro_rules! record_simple {
    ($($command:ident),* $(,)?) => {
        &[$($crate::command::shape::recorded(
            hesper_venus_protocol::CommandId::$command,
            |s, d| {
                $crate::command::shape::forwarded::<hesper_venus_protocol::command::$command>(s, d)
            },
            |row, recording| {
                $crate::session::record::<hesper_venus_protocol::command::$command>(row, recording);
            },
        )),*]
    };
}

/// Commands that are recorded in a command buffer: as they are, or by a function that is given the
/// device and the command.
macro_rules! record {
    ($($command:ident),* $(,)?) => {
        $crate::command::shape::record!($($command => call_recorded),*)
    };
    ($($command:ident => $function:ident),* $(,)?) => {
        &[$($crate::command::shape::recorded(
            hesper_venus_protocol::CommandId::$command,
            |s, d| {
                $crate::session::handle::<hesper_venus_protocol::command::$command>(s, d, |s, c| {
                    $function(s.device(hesper_venus_protocol::CommandId::$command)?, c)
                })
            },
            |row, recording| {
                $crate::session::record_with::<hesper_venus_protocol::command::$command>(
                    row,
                    recording,
                    |device, c| $function(device, c),
                );
            },
        )),*]
    };
}

/// Commands that create one object of a device. The name is the parameter with its id.
macro_rules! create {
    ($($command:ident => $parameter:ident),* $(,)?) => {
        &[$($crate::command::shape::served(
            hesper_venus_protocol::CommandId::$command,
            |s, d| {
                $crate::session::handle::<hesper_venus_protocol::command::$command>(s, d, |s, c| {
                    $crate::command::lifetime::create_object(
                        s,
                        c,
                        |c| &mut *c.$parameter,
                        |_, _| {},
                    )
                })
            },
        )),*]
    };
}

/// Commands that destroy one object of a device. The name is the parameter with the object.
macro_rules! destroy {
    ($($command:ident => $parameter:ident),* $(,)?) => {
        &[$($crate::command::shape::served(
            hesper_venus_protocol::CommandId::$command,
            |s, d| {
                $crate::session::handle::<hesper_venus_protocol::command::$command>(s, d, |s, c| {
                    $crate::command::lifetime::destroy_object(
                        s,
                        hesper_venus_protocol::CommandId::$command,
                        c.$parameter,
                    )
                })
            },
        )),*]
    };
}

/// Queries of a physical device, each with the extension that brings it.
macro_rules! of_extension {
    ($($command:ident => $extension:literal),* $(,)?) => {
        &[$($crate::command::shape::served(
            hesper_venus_protocol::CommandId::$command,
            |s, d| {
                $crate::session::handle::<hesper_venus_protocol::command::$command>(s, d, |s, c| {
                    $crate::command::shape::require(
                        s,
                        hesper_venus_protocol::CommandId::$command,
                        c.physical_device.handle,
                        $extension,
                    )?;
                    $crate::session::call(s, c)
                })
            },
        )),*]
    };
}

/// Commands with a function of their own.
macro_rules! special {
    ($($command:ident => $function:ident),* $(,)?) => {
        &[$($crate::command::shape::served(
            hesper_venus_protocol::CommandId::$command,
            |s, d| {
                $crate::session::handle::<hesper_venus_protocol::command::$command>(s, d, |s, c| {
                    $function(s, c)
                })
            },
        )),*]
    };
}

pub(super) use {create, destroy, forward, of_extension, record, record_simple, special};
