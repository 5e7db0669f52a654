//! Rows of recorded commands: a faster way through what programs send most.
//!
//! A row is what follows a command for a command buffer: further commands for the same one, of
//! which none wants a reply, removes an object, or waits. So that command buffer, the owner of all
//! objects and the device's functions need not be looked for again.
//!
//! Commands whose arguments are numbers, handles and arrays of them are [`Simple`]. They are read
//! by the same code as elsewhere, but from a [`Reader`]. It changes nothing before the whole
//! command has been read. When something is unusual (an object that is not in its slot, an error of
//! the guest), it just ends the row, and the command is read again in the ordinary way. So a
//! reader has no slow paths, and the code around the driver's call stays short.

use super::Command;
use super::argument::{Array, Object};
use super::decoder::{Decoder, Prefix};
use super::error::{Fatal, Result, Stopped};
use super::strays::Flags;
use super::value::{Handle, Plain};

/// Every command in a row begins at least so many bytes before the end of the stream.
const MARGIN: usize = 64;

/// Bytes of a command's header.
const HEADER: usize = size_of::<u64>();

/// A command whose arguments hold no structs but plain ones.
pub trait Simple<'a>: Command<'a> {
    /// Reads the arguments in a row.
    ///
    /// # Errors
    /// The command is to be read in the ordinary way. The stream is as before.
    fn read_in_row(reader: &mut Reader<'_, 'a>) -> Result<Self>;
}

/// What the arguments of simple commands are read from.
pub(crate) trait Source<'m> {
    /// The first bytes of the arguments.
    fn begin<const N: usize>(&mut self) -> Result<Prefix<'m, N>>;
    /// The next bytes.
    fn prefix<const N: usize>(&mut self) -> Result<Prefix<'m, N>>;
    /// See [`Decoder::first_object`].
    fn first_object<H: Handle>(&mut self, id: u64) -> Result<Object<H>>;
    /// See [`Decoder::required_object`].
    fn required_object<H: Handle>(&mut self, id: u64) -> Result<Object<H>>;
    /// See [`Decoder::object`].
    fn object<H: Handle>(&mut self, id: u64) -> Result<Object<H>>;
    /// See [`Decoder::known`].
    fn known<T: Plain>(&self, value: T) -> T;
    /// See [`Decoder::bit`].
    fn bit<F: Flags>(&self, flag: F, optional: bool) -> F;
    /// See [`Decoder::dimension`].
    fn dimension(&self, found: u64, expected: u64) -> Result<()>;
    /// See [`Decoder::plain_array`].
    fn plain_array<T: Plain>(
        &mut self,
        found: u64,
        expected: u64,
        optional: bool,
    ) -> Result<Array<'m, T>>;
    /// See [`Decoder::handles`].
    fn handles<H: Handle>(
        &mut self,
        found: u64,
        expected: u64,
        optional: bool,
        nulls: bool,
    ) -> Result<Array<'m, H>>;
    /// See [`Decoder::required_plain_pointer`].
    fn required_plain_pointer<T: Plain>(&mut self, present: u64) -> Result<&'m mut T>;
}

impl<'m> Source<'m> for Decoder<'m> {
    #[inline(always)]
    fn begin<const N: usize>(&mut self) -> Result<Prefix<'m, N>> {
        self.prefix()
    }
    #[inline(always)]
    fn prefix<const N: usize>(&mut self) -> Result<Prefix<'m, N>> {
        self.prefix()
    }
    #[inline(always)]
    fn first_object<H: Handle>(&mut self, id: u64) -> Result<Object<H>> {
        self.first_object(id)
    }
    #[inline(always)]
    fn required_object<H: Handle>(&mut self, id: u64) -> Result<Object<H>> {
        Decoder::required_object(self, id)
    }
    #[inline(always)]
    fn object<H: Handle>(&mut self, id: u64) -> Result<Object<H>> {
        Decoder::object(self, id)
    }
    #[inline(always)]
    fn known<T: Plain>(&self, value: T) -> T {
        self.known(value)
    }
    #[inline(always)]
    fn bit<F: Flags>(&self, flag: F, optional: bool) -> F {
        self.bit(flag, optional)
    }
    #[inline(always)]
    fn dimension(&self, found: u64, expected: u64) -> Result<()> {
        self.dimension(found, expected)
    }
    #[inline(always)]
    fn plain_array<T: Plain>(
        &mut self,
        found: u64,
        expected: u64,
        optional: bool,
    ) -> Result<Array<'m, T>> {
        self.plain_array(found, expected, optional)
    }
    #[inline(always)]
    fn handles<H: Handle>(
        &mut self,
        found: u64,
        expected: u64,
        optional: bool,
        nulls: bool,
    ) -> Result<Array<'m, H>> {
        self.handles(found, expected, optional, nulls)
    }
    #[inline(always)]
    fn required_plain_pointer<T: Plain>(&mut self, present: u64) -> Result<&'m mut T> {
        self.required_plain_pointer(present)
    }
}

/// Reads one simple command of a row.
pub struct Reader<'d, 'm> {
    decoder: &'d Decoder<'m>,
    /// The next byte of the stream.
    at: *mut u8,
}

impl<'m> Reader<'_, 'm> {
    /// Takes the next `n` bytes, if there are so many.
    #[inline(always)]
    fn advance(&mut self, n: usize) -> Result<*mut u8> {
        if self.decoder.end as usize - (self.at as usize) < n {
            return Err(Stopped);
        }
        let start = self.at;
        // SAFETY: the stream has n more bytes.
        self.at = unsafe { start.add(n) };
        Ok(start)
    }

    /// Takes the next `n` values: in place in the stream, or copied if they are not aligned there.
    #[inline(always)]
    fn values<T: Plain>(&mut self, n: usize) -> Result<&'m mut [T]> {
        // Unknown enums are replaced in the ordinary way.
        if T::HAS_ENUMS {
            return Err(Stopped);
        }
        let bytes = n.checked_mul(size_of::<T>()).ok_or(Stopped)?;
        const { assert!(size_of::<T>() > 0) };
        // Arrays end with whole words. A sum that would overflow is more than the stream has.
        let mut start = self.advance(bytes.saturating_add(3) & !3)?;
        if !start.cast::<T>().is_aligned() {
            let room = self.decoder.arena.room_at_hand(bytes).ok_or(Stopped)?;
            // SAFETY: the room is new and has this many bytes, as the stream has from `start` on.
            unsafe { std::ptr::copy_nonoverlapping(start, room, bytes) };
            start = room;
        }
        // SAFETY: the memory has `n` times the size of a value; any bytes are valid values, and
        // only this caller gets a reference to them. Stream and arena live as long as 'm.
        Ok(unsafe { std::slice::from_raw_parts_mut(start.cast(), n) })
    }
}

/// The handle of an object of the row's owner.
#[inline(always)]
fn handle<H: Handle>(decoder: &Decoder<'_>, id: u64) -> Result<H> {
    decoder.count_lookup();
    let found = decoder.front.find(decoder.owner_label, H::TYPE, id);
    found.map(H::from_raw).ok_or(Stopped)
}

#[inline(always)]
fn handle_or_null<H: Handle>(decoder: &Decoder<'_>, id: u64, nulls: bool) -> Result<H> {
    match nulls && id == 0 {
        true => Ok(H::ZERO),
        false => handle(decoder, id),
    }
}

/// The handles of `n` ids, in the arena.
///
/// # Safety
/// There must be n ids of eight bytes each.
#[inline(never)]
unsafe fn many_handles<'m, H: Handle>(
    decoder: &Decoder<'m>,
    ids: *const u8,
    n: usize,
    nulls: bool,
) -> Result<&'m mut [H]> {
    let bytes = n.checked_mul(8).ok_or(Stopped)?;
    let room = decoder.arena.room_at_hand(bytes).ok_or(Stopped)?;
    let room = room.cast::<H>();
    for i in 0..n {
        // SAFETY: the caller's promise, and there is room for n handles.
        unsafe {
            let id = ids.cast::<u64>().add(i).read_unaligned();
            room.add(i).write(handle_or_null(decoder, id, nulls)?);
        }
    }
    // SAFETY: all n were written, and the room is new and lives as long as 'm.
    Ok(unsafe { std::slice::from_raw_parts_mut(room, n) })
}

/// The length of an array that is sent as `found`.
#[inline(always)]
fn count(found: u64, expected: u64, optional: bool) -> Result<usize> {
    match found == expected || (optional && found == 0) {
        true => usize::try_from(found).map_err(|_| Stopped),
        false => Err(Stopped),
    }
}

impl<'m> Source<'m> for Reader<'_, 'm> {
    #[inline(always)]
    fn begin<const N: usize>(&mut self) -> Result<Prefix<'m, N>> {
        if const { HEADER + N > MARGIN } {
            return self.prefix();
        }
        let start = self.at;
        // SAFETY: the command begins at least `MARGIN` bytes before the end of the stream, so its
        // header and N more bytes are in there.
        self.at = unsafe { start.add(N) };
        // SAFETY: the same bytes. The stream lives as long as 'm, and nobody gets a mutable
        // reference to them.
        Ok(Prefix(unsafe { &*start.cast() }))
    }

    #[inline(always)]
    fn prefix<const N: usize>(&mut self) -> Result<Prefix<'m, N>> {
        let start = self.advance(N)?;
        // SAFETY: N bytes of the stream, which lives as long as 'm; nobody gets a mutable reference
        // to them.
        Ok(Prefix(unsafe { &*start.cast() }))
    }

    #[inline(always)]
    fn first_object<H: Handle>(&mut self, id: u64) -> Result<Object<H>> {
        const { assert!(matches!(H::TYPE, crate::vk::HandleType::CommandBuffer)) };
        // A row has a command buffer, whose id is not 0.
        let recording = &self.decoder.known.recording;
        match id == recording.id {
            true => Ok(Object {
                id,
                handle: H::from_raw(recording.handle),
            }),
            false => Err(Stopped),
        }
    }

    #[inline(always)]
    fn required_object<H: Handle>(&mut self, id: u64) -> Result<Object<H>> {
        let handle = handle(self.decoder, id)?;
        Ok(Object { id, handle })
    }

    #[inline(always)]
    fn object<H: Handle>(&mut self, id: u64) -> Result<Object<H>> {
        let handle = match id {
            0 => H::ZERO,
            id => handle(self.decoder, id)?,
        };
        Ok(Object { id, handle })
    }

    #[inline(always)]
    fn known<T: Plain>(&self, value: T) -> T {
        self.decoder.known(value)
    }

    #[inline(always)]
    fn bit<F: Flags>(&self, flag: F, optional: bool) -> F {
        self.decoder.bit(flag, optional)
    }

    #[inline(always)]
    fn dimension(&self, found: u64, expected: u64) -> Result<()> {
        count(found, expected, false).map(|_| ())
    }

    #[inline(always)]
    fn plain_array<T: Plain>(
        &mut self,
        found: u64,
        expected: u64,
        optional: bool,
    ) -> Result<Array<'m, T>> {
        let n = count(found, expected, optional)?;
        if n == 0 {
            return Ok(Array::NULL);
        }
        Ok(self.values::<T>(n)?.into())
    }

    #[inline(always)]
    fn handles<H: Handle>(
        &mut self,
        found: u64,
        expected: u64,
        optional: bool,
        nulls: bool,
    ) -> Result<Array<'m, H>> {
        let n = count(found, expected, optional)?;
        if n == 0 {
            return Ok(Array::NULL);
        }
        const { assert!(size_of::<H>() == 8) };
        // One handle is what most arrays have, and needs no loop.
        let handles = match n {
            1 => {
                let id = self.prefix::<8>()?.get::<u64, 0>();
                let handle = handle_or_null::<H>(self.decoder, id, nulls)?;
                // Not in place of the id, which may have to be read again.
                let room = self.decoder.arena.room_at_hand(8).ok_or(Stopped)?;
                let room = room.cast::<H>();
                // SAFETY: the room is new, is for one handle, and lives as long as 'm.
                unsafe {
                    room.write(handle);
                    std::slice::from_raw_parts_mut(room, 1)
                }
            }
            _ => {
                let bytes = n.checked_mul(8).ok_or(Stopped)?;
                let ids = self.advance(bytes)?;
                // SAFETY: there are n ids of eight bytes each.
                unsafe { many_handles(self.decoder, ids, n, nulls)? }
            }
        };
        Ok(handles.into())
    }

    #[inline(always)]
    fn required_plain_pointer<T: Plain>(&mut self, present: u64) -> Result<&'m mut T> {
        match present {
            0 => Err(Stopped),
            _ => self.values::<T>(1)?.first_mut().ok_or(Stopped),
        }
    }
}

/// One command of a row.
pub struct Row<'d, 'm> {
    decoder: &'d mut Decoder<'m>,
    /// Where the command begins.
    start: *mut u8,
}

impl<'d, 'm> Row<'d, 'm> {
    /// Reads the arguments of a simple command. `None` when the row ends here, and the command is
    /// to be read in the ordinary way.
    #[inline(always)]
    pub fn read<C: Simple<'m>>(&mut self) -> Option<C> {
        let mut reader = Reader {
            decoder: self.decoder,
            // SAFETY: the header is in the stream.
            at: unsafe { self.start.add(HEADER) },
        };
        let Ok(command) = C::read_in_row(&mut reader) else {
            self.decoder.stop();
            return None;
        };
        self.decoder.cursor = reader.at;
        Some(command)
    }

    /// The decoder after the command's header, to read a command that is not simple. `None` when it
    /// is for another command buffer, which may be another device's. Then the row ends here, and
    /// the command is to be read in the ordinary way.
    #[inline(always)]
    pub fn decoder(&mut self) -> Option<&mut Decoder<'m>> {
        const { assert!(HEADER + size_of::<u64>() <= MARGIN) };
        // SAFETY: the header is in the stream.
        let arguments = unsafe { self.start.add(HEADER) };
        // SAFETY: the command begins at least `MARGIN` bytes before the end of the stream. The
        // first argument of a recorded command is the command buffer.
        if unsafe { arguments.cast::<u64>().read_unaligned() } != self.decoder.known.recording.id {
            self.decoder.stop();
            return None;
        }
        self.decoder.cursor = arguments;
        // SAFETY: the number is the first half of the header.
        self.decoder.command = unsafe { self.start.cast::<u32>().read_unaligned() };
        Some(self.decoder)
    }

    /// Ends the row before this command, which is to be read in the ordinary way. Nothing of it may
    /// have been changed: it was read with [`Row::read`].
    #[cold]
    pub fn leave(self) {
        self.decoder.cursor = self.start;
        self.decoder.stop();
    }

    /// Why a command could not be read from [`Row::decoder`].
    #[cold]
    #[must_use]
    pub fn failure(&self) -> Fatal {
        self.decoder.failure()
    }

    /// Ends the row: the command has failed.
    #[cold]
    pub fn fail(self) {
        self.decoder.began = self.start;
        self.decoder.stop();
    }
}

impl<'m> Decoder<'m> {
    /// Begins a row, of commands that begin before byte `end` of the stream. It is empty unless
    /// [`Decoder::is_recording`].
    #[inline]
    pub fn begin_row(&mut self, end: usize) {
        let length = self.end as usize - self.start as usize;
        let most = match self.is_recording() {
            true => length.saturating_sub(MARGIN - 1),
            false => 0,
        };
        self.limit = self.start.wrapping_add(end.min(most));
        self.arena.make_room();
    }

    /// Whether the row was ended by its last command.
    #[inline]
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.limit.is_null()
    }

    #[cold]
    fn stop(&mut self) {
        self.limit = std::ptr::null_mut();
    }

    /// The next command of the row with its number and what `table` has for it. `None` when the
    /// row ends: with an unusual command, one that wants a reply, or one that the table does not
    /// have.
    #[inline(always)]
    pub fn next_in_row<T: Copy>(&mut self, table: &[Option<T>]) -> Option<(u32, T, Row<'_, 'm>)> {
        let start = self.cursor;
        if start >= self.limit {
            return None;
        }
        // SAFETY: a header is in the stream after each place before the limit.
        let header = unsafe { start.cast::<u64>().read_unaligned() };
        // The number is in the lower half. The upper half has the flag for a reply.
        let entry = (*table.get(usize::try_from(header).ok()?)?)?;
        let row = Row {
            decoder: self,
            start,
        };
        Some((header as u32, entry, row))
    }

    /// Where the command begins that has failed ([`Row::fail`]), in bytes from the start of the
    /// stream.
    #[must_use]
    pub fn failed_at(&self) -> usize {
        self.began as usize - self.start as usize
    }
}
