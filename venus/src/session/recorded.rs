//! Rows of recorded commands: what programs send most, with as little as possible around each call
//! of the driver.
//!
//! When a command was for a command buffer, the next ones are usually recorded in it, too, and no
//! reply is wanted. They are carried out in a [`Row`]: the device is looked up once for all of
//! them. Nothing in a row removes an object or waits, so what was found at its beginning stays
//! valid: another thread that destroys it waits until this one has passed a boundary
//! ([`crate::object::reclamation`]).

use hesper_venus_protocol::COMMAND_COUNT;
use hesper_venus_protocol::call::{Call, DeviceTable};
use hesper_venus_protocol::runtime::{Command, Decoder, Row, Simple};

use super::Session;
use super::call::{not_enabled, out_of_range};
use crate::fatal::Fatal;
use crate::object::device::Device;

/// Carries out one command of a row: reads the arguments and calls the driver. An error ends the
/// row.
pub(crate) type Recorder = for<'m> fn(Row<'_, 'm>, &mut Recording<'_>);

/// What the commands of a row have in common.
pub(crate) struct Recording<'d> {
    device: &'d Device,
    functions: &'d DeviceTable,
    /// Why the last command failed.
    failure: Option<Fatal>,
}

/// The recorders, by command number.
pub(crate) type Recorders = [Option<Recorder>; COMMAND_COUNT];

impl Session<'_> {
    /// Carries out commands that are recorded in the command buffer of the last command, as far as
    /// they begin before byte `end` of the decoder's stream.
    #[inline]
    pub(super) fn record(&mut self, end: usize, decoder: &mut Decoder<'_>) -> Result<(), Fatal> {
        let owner = decoder.owner();
        let device = self.device.as_ref().filter(|device| device.owner == owner);
        let Some(device) = device else {
            return Ok(());
        };
        let mut recording = Recording {
            device,
            functions: device.functions(),
            failure: None,
        };
        let mut commands = 0;
        decoder.begin_row(end);
        while let Some((number, recorder, row)) = decoder.next_in_row(&self.handlers.recorders) {
            self.activity.begin(number);
            recorder(row, &mut recording);
            commands += 1;
        }
        // The last one was not carried out here if it ended the row.
        self.commands += commands - u64::from(decoder.is_stopped());
        match recording.failure {
            None => Ok(()),
            Some(fatal) => {
                self.group_done = decoder.failed_at();
                Err(self.fail_here(fatal))
            }
        }
    }
}

/// Lets the driver record a simple command as it is.
#[inline(always)]
pub(crate) fn record<'m, C>(mut row: Row<'_, 'm>, recording: &mut Recording<'_>)
where
    C: Call<'m, Table = DeviceTable, Return = ()> + Simple<'m>,
{
    let Some(mut command) = row.read::<C>() else {
        return;
    };
    if command.check(&recording.device.facts).is_err() {
        return refuse::<C>(row, recording);
    }
    // SAFETY: the same as in `session::call`.
    if unsafe { command.call(recording.functions) }.is_none() {
        fail_without_function::<C>(row, recording);
    }
}

/// Records any command with `act`, which calls the driver.
#[inline(always)]
pub(crate) fn record_with<'m, C>(
    mut row: Row<'_, 'm>,
    recording: &mut Recording<'_>,
    act: impl FnOnce(&Device, &mut C) -> Result<(), Fatal>,
) where
    C: Command<'m, Return = ()>,
{
    let Some(decoder) = row.decoder() else {
        return;
    };
    let Ok(mut command) = C::read(decoder) else {
        return fail_to_read(row, recording);
    };
    if let Err(fatal) = act(recording.device, &mut command) {
        fail(row, recording, fatal);
    }
}

// The failures are functions of their own, which keeps everything around them short.

#[cold]
#[inline(never)]
fn fail_to_read(row: Row<'_, '_>, recording: &mut Recording<'_>) {
    let fatal = row.failure().into();
    fail(row, recording, fatal);
}

/// Says why a command's numbers are refused. Reads and checks them again: to keep the reason of the
/// first time would cost every command.
#[cold]
#[inline(never)]
fn refuse<'m, C>(mut row: Row<'_, 'm>, recording: &mut Recording<'_>)
where
    C: Call<'m> + Simple<'m>,
{
    let checked = row
        .read::<C>()
        .map(|command| command.check(&recording.device.facts));
    match checked {
        Some(Err(broken)) => fail(row, recording, out_of_range(C::ID, broken)),
        // Another thread has changed what is known of an object meanwhile.
        _ => row.leave(),
    }
}

#[cold]
#[inline(never)]
fn fail_without_function<'m, C: Command<'m>>(row: Row<'_, '_>, recording: &mut Recording<'_>) {
    fail(row, recording, not_enabled(C::ID));
}

#[cold]
#[inline(never)]
fn fail(row: Row<'_, '_>, recording: &mut Recording<'_>, fatal: Fatal) {
    recording.failure = Some(fatal);
    row.fail();
}
