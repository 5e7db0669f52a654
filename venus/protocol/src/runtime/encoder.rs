//! The reply encoder: writes to the guest's reply stream, and never reads from it.
//!
//! The guest can write to the reply stream at the same time, so it is accessed only through a raw
//! pointer.

use std::marker::PhantomData;
use std::ptr;

use super::Encode;
use super::error::EncodeError;
use super::value::{Handle, Plain};

type Result<T> = std::result::Result<T, EncodeError>;

/// Writes replies to memory, one after another.
#[derive(Debug)]
pub struct Encoder<'m> {
    start: *mut u8,
    cursor: *mut u8,
    left: usize,
    life: PhantomData<&'m mut [u8]>,
}

impl<'m> Encoder<'m> {
    /// An encoder into private memory.
    pub fn new(buffer: &'m mut [u8]) -> Self {
        let (start, left) = (buffer.as_mut_ptr(), buffer.len());
        Self {
            start,
            cursor: start,
            left,
            life: PhantomData,
        }
    }

    /// An encoder into memory shared with the guest.
    ///
    /// # Safety
    /// `size` bytes from `start` must be mapped for writing as long as the encoder lives.
    pub unsafe fn shared(start: *mut u8, size: usize) -> Self {
        Self {
            start,
            cursor: start,
            left: size,
            life: PhantomData,
        }
    }

    /// Bytes written so far.
    pub fn position(&self) -> usize {
        // The cursor starts there and only moves forward.
        self.cursor as usize - self.start as usize
    }

    #[cold]
    fn full(&self, needed: u64) -> EncodeError {
        EncodeError::Full {
            needed,
            left: self.left,
        }
    }

    #[inline]
    fn take(&mut self, n: usize) -> Result<*mut u8> {
        if n > self.left {
            return Err(self.full(n as u64));
        }
        let at = self.cursor;
        self.left -= n;
        // SAFETY: there were at least n bytes left.
        self.cursor = unsafe { at.add(n) };
        Ok(at)
    }

    /// Takes room for N bytes.
    #[inline(always)]
    pub(crate) fn prefix<const N: usize>(&mut self) -> Result<Slot<'_, N>> {
        Ok(Slot(self.take(N)?, PhantomData))
    }

    /// Writes an array of plain values, padded.
    pub(crate) fn plain<T: Plain>(&mut self, values: &[T]) -> Result<()> {
        let bytes = size_of_val(values);
        let padded = bytes.next_multiple_of(4);
        let at = self.take(padded)?;
        // SAFETY: there is room for `padded` bytes; a plain T has no padding to leak.
        unsafe {
            ptr::copy_nonoverlapping(values.as_ptr().cast::<u8>(), at, bytes);
            ptr::write_bytes(at.add(bytes), 0, padded - bytes);
        }
        Ok(())
    }

    /// Writes the ids of an array of handles.
    pub(crate) fn ids<H: Handle>(&mut self, handles: &[H]) -> Result<()> {
        for handle in handles {
            self.prefix::<8>()?.put::<u64, 0>(handle.raw());
        }
        Ok(())
    }

    /// Writes an array of plain values to which an output struct points.
    ///
    /// # Safety
    /// `values` must point to `n` values unless `n` is 0.
    pub(crate) unsafe fn raw_plain<T: Plain>(&mut self, values: *const T, n: u64) -> Result<()> {
        if n == 0 {
            return Ok(());
        }
        let count = usize::try_from(n).map_err(|_| self.full(n))?;
        // SAFETY: as the caller promises.
        self.plain(unsafe { std::slice::from_raw_parts(values, count) })
    }

    /// Writes an array of structs to which an output struct points.
    ///
    /// # Safety
    /// `values` must point to `n` valid structs unless `n` is 0.
    pub(crate) unsafe fn raw_array<T: Encode>(&mut self, values: *const T, n: u64) -> Result<()> {
        if n == 0 {
            return Ok(());
        }
        let count = usize::try_from(n).map_err(|_| self.full(n))?;
        // SAFETY: as the caller promises.
        for value in unsafe { std::slice::from_raw_parts(values, count) } {
            // SAFETY: as the caller promises.
            unsafe { value.encode(self)? };
        }
        Ok(())
    }
}

/// Room for N bytes of a reply.
pub(crate) struct Slot<'e, const N: usize>(*mut u8, PhantomData<&'e mut [u8; N]>);

impl<const N: usize> Slot<'_, N> {
    /// Writes a value at byte AT.
    #[inline(always)]
    pub(crate) fn put<T: Plain, const AT: usize>(&mut self, value: T) {
        const { assert!(AT + size_of::<T>() <= N) };
        // SAFETY: within the room, as asserted above.
        unsafe { self.0.add(AT).cast::<T>().write_unaligned(value) };
    }
}
