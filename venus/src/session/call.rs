//! How a command reaches the driver: decoded, checked, called, answered.

use hesper_venus_protocol::call::{Call, DeviceTable, InstanceTable};
use hesper_venus_protocol::runtime::{Command, Decoder};
use hesper_venus_protocol::{CommandId, vk};

use super::{Session, name};
use crate::fatal::Fatal;
use crate::object::device::Device;
use crate::rules::Broken;
use crate::trace::{Span, Started};

/// What a command returns, as far as every command must look at it.
pub(crate) trait Outcome: Copy {
    /// Whether a command that returns it may take long. Commands that are only recorded, and
    /// queries, return nothing or a number.
    const TAKES_TIME: bool = false;

    /// Whether it says that the GPU is lost.
    fn is_device_lost(self) -> bool {
        false
    }
}

impl Outcome for () {}

impl Outcome for u32 {}

impl Outcome for u64 {}

impl Outcome for vk::Result {
    const TAKES_TIME: bool = true;

    #[inline]
    fn is_device_lost(self) -> bool {
        self == vk::Result::ERROR_DEVICE_LOST
    }
}

/// The function table that a command is called through.
pub(crate) trait Reach: Sized {
    /// Checks a command's numbers and calls its function in the current command's table.
    ///
    /// # Safety
    /// Handles must be live objects of the driver, and counts and pointers must be valid.
    unsafe fn call<'m, C: Call<'m, Table = Self>>(
        session: &mut Session<'_>,
        command: &mut C,
    ) -> Result<C::Return, Fatal>;
}

impl Reach for DeviceTable {
    #[inline(always)]
    unsafe fn call<'m, C: Call<'m, Table = Self>>(
        session: &mut Session<'_>,
        command: &mut C,
    ) -> Result<C::Return, Fatal> {
        let device = session.device(C::ID)?;
        // SAFETY: the caller's promise.
        unsafe { on_device(device, command) }
    }
}

/// Checks a command's numbers, and calls its function of a device.
///
/// # Safety
/// The same as for [`Reach::call`].
#[inline(always)]
unsafe fn on_device<'m, C: Call<'m, Table = DeviceTable>>(
    device: &Device,
    command: &mut C,
) -> Result<C::Return, Fatal> {
    if let Err(broken) = command.check(&device.facts) {
        return Err(out_of_range(C::ID, broken));
    }
    // SAFETY: the caller's promise.
    match unsafe { command.call(device.functions()) } {
        Some(result) => {
            command.keep(result, &device.facts);
            Ok(result)
        }
        None => Err(not_enabled(C::ID)),
    }
}

/// Lets the driver of a device record a command, after its numbers were checked.
#[inline(always)]
pub(crate) fn call_recorded<'m, C>(device: &Device, command: &mut C) -> Result<(), Fatal>
where
    C: Call<'m, Table = DeviceTable, Return = ()>,
{
    // SAFETY: the same as in `call`.
    unsafe { on_device(device, command) }
}

impl Reach for InstanceTable {
    unsafe fn call<'m, C: Call<'m, Table = Self>>(
        session: &mut Session<'_>,
        command: &mut C,
    ) -> Result<C::Return, Fatal> {
        let instance = session.instance(C::ID)?;
        // SAFETY: the caller's promise.
        unsafe { command.call(instance.functions()) }.ok_or_else(|| not_enabled(C::ID))
    }
}

/// The error for a function that the driver does not have, or that is not enabled.
#[cold]
pub(super) fn not_enabled(command: CommandId) -> Fatal {
    Fatal::NotEnabled(name(command))
}

/// The error for numbers that a driver must not see.
#[cold]
pub(super) fn out_of_range(command: CommandId, broken: Broken) -> Fatal {
    Fatal::OutOfRange {
        command: name(command),
        broken,
    }
}

/// Calls the host's driver with a command's arguments, after their numbers were checked
/// ([`crate::rules`]).
#[inline]
pub(crate) fn call<'m, C: Call<'m>>(
    session: &mut Session<'_>,
    command: &mut C,
) -> Result<C::Return, Fatal>
where
    C::Table: Reach,
    C::Return: Outcome,
{
    let began = match C::Return::TAKES_TIME {
        true => {
            session.go_on()?;
            session.lane.begin()
        }
        false => Started::NOT,
    };
    // SAFETY: the decoder has replaced every id by the handle of an object of this table's driver,
    // and checked counts and pointers. The object lives until this thread passes a boundary, even
    // if another thread takes it out of the table (`object::reclamation`). What remains is the rest
    // of the API's valid usage.
    let result = unsafe { C::Table::call(session, command) };
    if C::Return::TAKES_TIME {
        session.lane.end_command(began, Span::Driver, C::ID as u32);
    }
    result
}

/// Decodes a command, lets `act` carry it out, and replies. [`super::Handler`] says what is
/// returned.
#[inline(always)]
pub(crate) fn handle<'m, C: Command<'m>>(
    session: &mut Session<'_>,
    decoder: &mut Decoder<'m>,
    act: impl FnOnce(&mut Session<'_>, &mut C) -> Result<C::Return, Fatal>,
) -> bool
where
    C::Return: Outcome,
{
    let Ok(mut command) = C::read(decoder) else {
        return session.give_up(decoder.failure().into());
    };
    session.owner = decoder.owner();
    let result = match act(session, &mut command) {
        Ok(result) => result,
        Err(fatal) => return session.give_up(fatal),
    };
    match session.finish(&command, result) {
        Ok(()) => true,
        Err(fatal) => session.give_up(fatal),
    }
}
