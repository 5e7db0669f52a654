//! The usual kinds of handlers, as macros that make the lists of a [`Family`].
//!
//! | macro | for | what happens |
//! |---|---|---|
//! | `forward!` | most commands | decode, call the driver, reply |
//! | `create!` | `vkCreate…` of one object of a device | enters the new handle |
//! | `destroy!` | `vkDestroy…` of such an object | takes the id out, then calls the driver |
//! | `of_extension!` | an extension's physical device queries | fails unless the driver has it |
//! | `special!` | everything else | decode, call the named function, reply |

use std::ffi::CStr;

use hesper_venus_protocol::call::Call;
use hesper_venus_protocol::runtime::Decoder;
use hesper_venus_protocol::{CommandId, vk};

use crate::fatal::Fatal;
use crate::session::{Handler, Outcome, Reach, Session, call, handle, name};

/// The commands of a file with their handlers: one list for each macro.
pub(super) type Family = &'static [&'static [(CommandId, Handler)]];

/// Gives a closure the type of a handler.
pub(super) const fn handler(handler: Handler) -> Handler {
    handler
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
        &[$((
            hesper_venus_protocol::CommandId::$command,
            $crate::command::shape::handler(|s, d| {
                $crate::command::shape::forwarded::<hesper_venus_protocol::command::$command>(s, d)
            }),
        )),*]
    };
}

/// Commands that create one object of a device. The name is the parameter with its id.
macro_rules! create {
    ($($command:ident => $parameter:ident),* $(,)?) => {
        &[$((
            hesper_venus_protocol::CommandId::$command,
            $crate::command::shape::handler(|s, d| {
                $crate::session::handle::<hesper_venus_protocol::command::$command>(s, d, |s, c| {
                    $crate::command::lifetime::create_object(
                        s,
                        c,
                        |c| &mut *c.$parameter,
                        |_, _| {},
                    )
                })
            }),
        )),*]
    };
}

/// Commands that destroy one object of a device. The name is the parameter with the object.
macro_rules! destroy {
    ($($command:ident => $parameter:ident),* $(,)?) => {
        &[$((
            hesper_venus_protocol::CommandId::$command,
            $crate::command::shape::handler(|s, d| {
                $crate::session::handle::<hesper_venus_protocol::command::$command>(s, d, |s, c| {
                    $crate::command::lifetime::destroy_object(
                        s,
                        hesper_venus_protocol::CommandId::$command,
                        c.$parameter,
                    )
                })
            }),
        )),*]
    };
}

/// Queries of a physical device, each with the extension that brings it.
macro_rules! of_extension {
    ($($command:ident => $extension:literal),* $(,)?) => {
        &[$((
            hesper_venus_protocol::CommandId::$command,
            $crate::command::shape::handler(|s, d| {
                $crate::session::handle::<hesper_venus_protocol::command::$command>(s, d, |s, c| {
                    $crate::command::shape::require(
                        s,
                        hesper_venus_protocol::CommandId::$command,
                        c.physical_device.handle,
                        $extension,
                    )?;
                    $crate::session::call(s, c)
                })
            }),
        )),*]
    };
}

/// Commands with a function of their own.
macro_rules! special {
    ($($command:ident => $function:ident),* $(,)?) => {
        &[$((
            hesper_venus_protocol::CommandId::$command,
            $crate::command::shape::handler(|s, d| {
                $crate::session::handle::<hesper_venus_protocol::command::$command>(s, d, |s, c| {
                    $function(s, c)
                })
            }),
        )),*]
    };
}

pub(super) use {create, destroy, forward, of_extension, special};
