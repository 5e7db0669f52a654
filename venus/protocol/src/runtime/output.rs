//! Decodes what a request contains of outputs: mainly how much room they need.
//!
//! Outputs are in the arena and ready for the driver to write to. They are zero except for sType,
//! pNext and lengths. The outputs for new objects hold the ids that the guest chose.

use super::DecodePartial;
use super::argument::Array;
use super::decoder::{Decoder, REQUIRED};
use super::error::{Reason, Result};
use super::value::{Handle, Zeroed};

impl<'m> Decoder<'m> {
    /// Allocates a plain output.
    pub(crate) fn out<T: Zeroed>(
        &mut self,
        present: u64,
        optional: bool,
    ) -> Result<Option<&'m mut T>> {
        if !self.present(present, optional)? {
            return Ok(None);
        }
        Ok(self.or_fatal(self.arena.zeroed::<T>(1))?.first_mut())
    }

    /// Allocates a plain output that may not be null.
    pub(crate) fn required_out<T: Zeroed>(&mut self, present: u64) -> Result<&'m mut T> {
        let value = self.out(present, REQUIRED)?;
        value.ok_or_else(|| self.fatal(Reason::Null))
    }

    /// Reads the id of a new object.
    pub(crate) fn required_out_handle<H: Handle>(&mut self, present: u64) -> Result<&'m mut H> {
        let value = self.required_out::<H>(present)?;
        *value = H::from_raw(self.prefix::<8>()?.get::<u64, 0>());
        Ok(value)
    }

    /// Allocates an output struct.
    pub(crate) fn partial<T: DecodePartial>(
        &mut self,
        present: u64,
        optional: bool,
    ) -> Result<Option<&'m mut T>> {
        let Some(value) = self.out::<T>(present, optional)? else {
            return Ok(None);
        };
        value.decode_partial(self)?;
        Ok(Some(value))
    }

    /// Allocates an output struct that may not be null.
    pub(crate) fn required_partial<T: DecodePartial>(&mut self, present: u64) -> Result<&'m mut T> {
        let value = self.partial(present, REQUIRED)?;
        value.ok_or_else(|| self.fatal(Reason::Null))
    }

    /// Allocates an array of plain outputs.
    pub(crate) fn room<T: Zeroed>(
        &mut self,
        found: u64,
        expected: u64,
        optional: bool,
    ) -> Result<Array<'m, T>> {
        match self.count(found, expected, optional)? {
            0 => Ok(Array::NULL),
            n => Ok(self.or_fatal(self.arena.zeroed::<T>(n))?.into()),
        }
    }

    /// Reads the ids of new objects.
    pub(crate) fn ids<H: Handle>(
        &mut self,
        found: u64,
        expected: u64,
        optional: bool,
    ) -> Result<Array<'m, H>> {
        let ids = self.plain_array::<u64>(found, expected, optional)?;
        let mut handles = self.room::<H>(ids.len() as u64, ids.len() as u64, optional)?;
        for (handle, id) in handles.iter_mut().zip(ids.iter()) {
            *handle = H::from_raw(*id);
        }
        Ok(handles)
    }

    /// Allocates an array of output structs.
    pub(crate) fn partial_array<T: DecodePartial>(
        &mut self,
        found: u64,
        expected: u64,
        optional: bool,
    ) -> Result<Array<'m, T>> {
        let mut values = self.room::<T>(found, expected, optional)?;
        for value in values.iter_mut() {
            value.decode_partial(self)?;
        }
        Ok(values)
    }
}
