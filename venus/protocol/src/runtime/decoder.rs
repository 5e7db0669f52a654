//! The request decoder: a cursor over a command stream that stores what it reads in an arena.
//!
//! The stream is read once, front to back. Runs of fixed size are taken as a [`Prefix`] after one
//! bounds check. Whatever varies in size is checked against the bytes that are left before memory
//! is allocated for it. Recursion is as deep as types nest, which the generator has proved to be
//! finite. Chains are walked in a loop.

use std::cell::Cell;
use std::ffi::{c_char, c_void};
use std::marker::PhantomData;

use super::arena::Arena;
use super::argument::{Array, Objects};
use super::error::{Fatal, Reason, Result, Stopped};
use super::lookup::Known;
use super::slots::Front;
use super::strays::{Flags, Strays};
use super::value::{Handle, HandleMap, Plain, Zeroed};
use super::{CommandId, Decode, Identity};
use crate::generated::commands::COMMANDS;

/// The pointer or array may be null.
pub(crate) const OPTIONAL: bool = true;
/// The pointer or array may not be null, unless its length is 0.
pub(crate) const REQUIRED: bool = false;

/// The words before a command's arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The command.
    pub command: CommandId,
    /// Whether the guest waits for a reply.
    pub reply: bool,
}

/// Reads one stream of commands.
pub struct Decoder<'m> {
    pub(super) cursor: *mut u8,
    pub(super) end: *mut u8,
    pub(super) start: *mut u8,
    life: PhantomData<&'m mut [u8]>,
    pub(super) arena: &'m Arena,
    pub(super) front: Front<'m>,
    pub(super) objects: &'m dyn HandleMap,
    /// The owner of the first object of the current command, as a part of labels.
    pub(super) owner_label: u32,
    pub(super) command: u32,
    pub(super) known: Known,
    pub(super) lookups: Cell<u32>,
    strays: Strays,
    /// The last error.
    failure: Cell<Fatal>,
    /// Where [`Decoder::next_in_row`] ends, and where the command begins that ended it.
    pub(super) limit: *mut u8,
    pub(super) began: *mut u8,
}

impl std::fmt::Debug for Decoder<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let at = self.position();
        f.debug_struct("Decoder")
            .field("at", &at)
            .field("command", &self.command)
            .finish()
    }
}

impl<'m> Decoder<'m> {
    /// A decoder of `stream`, which must be private memory: bytes that the guest can still change
    /// must be copied before. Arguments may refer to the stream and be changed in place.
    pub fn new(stream: &'m mut [u8], arena: &'m Arena, objects: &'m dyn HandleMap) -> Self {
        let range = stream.as_mut_ptr_range();
        Self {
            cursor: range.start,
            end: range.end,
            start: range.start,
            life: PhantomData,
            arena,
            front: objects.front(),
            objects,
            owner_label: 0,
            command: u32::MAX,
            known: Known::nothing(),
            lookups: Cell::new(0),
            strays: Strays::default(),
            failure: Cell::new(Fatal::NONE),
            limit: range.start,
            began: range.start,
        }
    }

    /// The same decoder, but values of enums that Vulkan does not have are replaced: see
    /// [`Strays`].
    #[must_use]
    pub fn for_driver(mut self) -> Self {
        self.strays.replaces = true;
        self
    }

    /// Values of enums that were replaced.
    #[inline]
    pub fn strays(&self) -> &Strays {
        &self.strays
    }

    /// A plain value with enums that Vulkan has.
    #[inline(always)]
    pub(crate) fn known<T: Plain>(&self, mut value: T) -> T {
        value.make_known(&self.strays);
        value
    }

    /// A flag that Vulkan has. 0 is allowed if it is optional.
    #[inline(always)]
    pub(crate) fn bit<F: Flags>(&self, flag: F, optional: bool) -> F {
        self.strays.bit(flag, optional)
    }

    /// A decoder that uses ids as handles.
    pub fn with_ids(stream: &'m mut [u8], arena: &'m Arena) -> Self {
        Self::new(stream, arena, &Identity)
    }

    /// Bytes read so far.
    #[inline]
    pub fn position(&self) -> usize {
        self.cursor as usize - self.start as usize
    }

    /// Bytes that are left.
    #[inline(always)]
    fn left(&self) -> usize {
        self.end as usize - self.cursor as usize
    }

    /// Whether the stream is at its end.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.left() == 0
    }

    /// The part of the stream that is not read yet.
    pub fn rest(&mut self) -> &mut [u8] {
        // SAFETY: these bytes are in the stream, and nobody has a reference to them yet.
        unsafe { std::slice::from_raw_parts_mut(self.cursor, self.left()) }
    }

    /// The owner of the current command's objects: that of its first object.
    #[inline]
    pub fn owner(&self) -> u32 {
        self.owner_label >> 8
    }

    /// How many objects were looked up by their ids.
    #[inline]
    pub fn lookups(&self) -> u32 {
        self.lookups.get()
    }

    /// Takes the next `n` bytes, if there are so many.
    #[inline(always)]
    fn advance(&mut self, n: usize) -> Option<*mut u8> {
        if self.left() < n {
            return None;
        }
        let start = self.cursor;
        // SAFETY: the stream has n more bytes.
        self.cursor = unsafe { start.add(n) };
        Some(start)
    }

    /// Reads the next command's number, known or not, and whether the guest waits for a reply.
    ///
    /// # Errors
    /// The stream ends.
    #[inline(always)]
    pub fn raw_header(&mut self) -> Result<(u32, bool), Fatal> {
        self.forget_removed();
        let p = self.prefix::<8>().map_err(|Stopped| self.failure())?;
        self.command = p.get::<u32, 0>();
        Ok((self.command, p.get::<u32, 4>() & 1 != 0))
    }

    /// Reads the next command's header.
    ///
    /// # Errors
    /// The stream ends, or no command with a codec has this number.
    #[inline]
    pub fn header(&mut self) -> Result<Header, Fatal> {
        let (_, reply) = self.raw_header()?;
        let command = self.known_command()?;
        Ok(Header { command, reply })
    }

    /// The command whose header was just read.
    ///
    /// # Errors
    /// No command with a codec has this number.
    pub fn known_command(&self) -> Result<CommandId, Fatal> {
        let known = usize::try_from(self.command)
            .ok()
            .and_then(|n| COMMANDS.get(n));
        match known.and_then(Option::as_ref) {
            Some(info) if info.is_codable() => Ok(info.id),
            other => Err(self.no_codec(other.map(|info| info.name))),
        }
    }

    #[cold]
    fn no_codec(&self, name: Option<&'static str>) -> Fatal {
        let reason = name.map_or(Reason::UnknownCommand(self.command), Reason::NotCodable);
        let _ = self.fatal(reason);
        self.failure()
    }

    /// An error of the guest at this position. It is kept for [`Decoder::failure`].
    #[cold]
    #[inline(never)]
    pub(crate) fn fatal(&self, reason: Reason) -> Stopped {
        self.failure.set(Fatal {
            reason,
            offset: self.position(),
            command: self.command,
        });
        Stopped
    }

    /// The error of the step that has just failed.
    #[cold]
    pub fn failure(&self) -> Fatal {
        self.failure.get()
    }

    pub(crate) fn or_fatal<T>(&self, result: Result<T, Reason>) -> Result<T> {
        result.map_err(|reason| self.fatal(reason))
    }

    #[cold]
    #[inline(never)]
    fn truncated(&self, needed: u64) -> Stopped {
        self.fatal(Reason::Truncated {
            needed,
            left: self.left(),
        })
    }

    /// Takes the next N bytes.
    #[inline(always)]
    pub(crate) fn prefix<const N: usize>(&mut self) -> Result<Prefix<'m, N>> {
        match self.advance(N) {
            // SAFETY: N bytes of the stream, which lives as long as 'm; nobody gets a mutable
            // reference to them.
            Some(start) => Ok(Prefix(unsafe { &*start.cast() })),
            None => Err(self.truncated(N as u64)),
        }
    }

    /// Takes the next `n` bytes and skips the padding after them.
    #[inline]
    fn take(&mut self, n: u64) -> Result<&'m mut [u8]> {
        // A sum that would overflow is more than the stream has.
        let padded = n.saturating_add(3) & !3;
        let start = usize::try_from(padded)
            .ok()
            .and_then(|padded| self.advance(padded));
        match start {
            // SAFETY: at least `n` bytes of the stream, which lives as long as 'm; only this caller
            // gets a reference to them.
            Some(start) => Ok(unsafe { std::slice::from_raw_parts_mut(start, n as usize) }),
            None => Err(self.truncated(n)),
        }
    }

    /// Takes the next `n` values: in place in the stream, or copied if they are not aligned there.
    #[inline(always)]
    fn values<T: Plain>(&mut self, n: usize) -> Result<&'m mut [T]> {
        let bytes = self.take((n as u64).saturating_mul(size_of::<T>() as u64))?;
        let start = bytes.as_mut_ptr().cast::<T>();
        let values = if start.is_aligned() {
            // SAFETY: the memory has `n` times the size of a value; any bytes are valid values.
            unsafe { std::slice::from_raw_parts_mut(start, n) }
        } else {
            // SAFETY: the bytes hold `n` values, and any bytes are valid values.
            let values = unsafe { self.arena.copied::<T>(bytes, n) };
            self.or_fatal(values)?
        };
        if T::HAS_ENUMS {
            values.iter_mut().for_each(|v| v.make_known(&self.strays));
        }
        Ok(values)
    }

    /// Checks the length of an array: it must be `expected`, or 0 if the array may be null.
    #[inline(always)]
    pub(super) fn count(&self, found: u64, expected: u64, optional: bool) -> Result<usize> {
        if found == expected || (found == 0 && optional) {
            // A count that does not fit into usize is more than any stream or budget has room for.
            return Ok(usize::try_from(found).unwrap_or(usize::MAX));
        }
        Err(self.fatal(Reason::Count { found, expected }))
    }

    /// Checks the count of a static array.
    #[inline]
    pub(crate) fn dimension(&self, found: u64, expected: u64) -> Result<()> {
        self.count(found, expected, REQUIRED).map(|_| ())
    }

    /// Checks that a pointer is null.
    #[inline]
    pub(crate) fn null(&self, present: u64) -> Result<()> {
        if present == 0 {
            Ok(())
        } else {
            Err(self.fatal(Reason::NotNull))
        }
    }

    /// A pointer of which guests send only the presence. It then points to zeros, which nobody
    /// should read.
    #[inline]
    pub(crate) fn marker(&self, present: u64) -> *const c_void {
        static ZEROS: [u64; 32] = [0; 32];
        match present {
            0 => std::ptr::null(),
            _ => (&raw const ZEROS).cast(),
        }
    }

    /// Whether a pointer is present. A null pointer is an error unless it is optional.
    #[inline]
    pub(super) fn present(&self, present: u64, optional: bool) -> Result<bool> {
        match present {
            0 if optional => Ok(false),
            0 => Err(self.fatal(Reason::Null)),
            _ => Ok(true),
        }
    }

    #[cold]
    pub(crate) fn bad_tag(&self, tag: u32) -> Stopped {
        self.fatal(Reason::Tag(tag))
    }

    /// Checks that the tag of a union is that of its selector.
    pub(crate) fn same_tag(&self, tag: i32, selector: i32) -> Result<i32> {
        if tag == selector {
            Ok(tag)
        } else {
            Err(self.fatal(Reason::Selector { tag, selector }))
        }
    }

    /// Reads an array of plain values.
    #[inline(always)]
    pub(crate) fn plain_array<T: Plain>(
        &mut self,
        found: u64,
        expected: u64,
        optional: bool,
    ) -> Result<Array<'m, T>> {
        let n = self.count(found, expected, optional)?;
        if n == 0 {
            return Ok(Array::NULL);
        }
        Ok(self.values::<T>(n)?.into())
    }

    fn resolve_all<H: Handle>(&mut self, ids: &[u64], nulls: bool) -> Result<Array<'m, H>> {
        let handles = self.or_fatal(self.arena.zeroed::<H>(ids.len()))?;
        for (handle, id) in handles.iter_mut().zip(ids) {
            *handle = if nulls {
                self.handle(*id)?
            } else {
                self.required_handle(*id)?
            };
        }
        Ok(handles.into())
    }

    /// Reads an array of handles.
    #[inline(always)]
    pub(crate) fn handles<H: Handle>(
        &mut self,
        found: u64,
        expected: u64,
        optional: bool,
        nulls: bool,
    ) -> Result<Array<'m, H>> {
        let n = self.count(found, expected, optional)?;
        if n == 0 {
            return Ok(Array::NULL);
        }
        const { assert!(size_of::<H>() == 8) };
        let bytes = self.take((n as u64).saturating_mul(8))?;
        let ids = bytes.as_mut_ptr();
        let mut handles = ids.cast::<H>();
        if !handles.is_aligned() {
            handles = self.or_fatal(self.arena.room::<H>(n))?.as_mut_ptr().cast();
        }
        for i in 0..n {
            // SAFETY: there are n ids of eight bytes each.
            let id = unsafe { ids.cast::<u64>().add(i).read_unaligned() };
            let handle = if nulls {
                self.handle(id)?
            } else {
                self.required_handle(id)?
            };
            // SAFETY: there is room for n handles. If it is in place of the ids, this handle's id
            // has been read.
            unsafe { handles.add(i).write(handle) };
        }
        // SAFETY: all n were written.
        Ok(unsafe { std::slice::from_raw_parts_mut(handles, n) }.into())
    }

    /// Reads an array of handles and keeps the ids.
    pub(crate) fn objects<H: Handle>(
        &mut self,
        found: u64,
        expected: u64,
        optional: bool,
        nulls: bool,
    ) -> Result<Objects<'m, H>> {
        let n = self.count(found, expected, optional)?;
        if n == 0 {
            return Ok(Objects::NULL);
        }
        let ids = self.values::<u64>(n)?;
        let handles = self.resolve_all(ids, nulls)?;
        Ok(Objects::new(handles, ids))
    }

    /// Allocates `n` values that each take at least a word of the stream.
    fn room_for<T: Zeroed>(&self, n: usize) -> Result<&'m mut [T]> {
        let least = (n as u64).saturating_mul(4);
        if least > self.left() as u64 {
            return Err(self.truncated(least));
        }
        self.or_fatal(self.arena.zeroed(n))
    }

    /// Reads an array of structs or unions.
    #[inline(always)]
    pub(crate) fn array<T: Decode>(
        &mut self,
        found: u64,
        expected: u64,
        optional: bool,
    ) -> Result<Array<'m, T>> {
        match self.count(found, expected, optional)? {
            0 => Ok(Array::NULL),
            n => Ok(self.structs::<T>(n)?.into()),
        }
    }

    fn structs<T: Decode>(&mut self, n: usize) -> Result<&'m mut [T]> {
        // One is what most arrays have, and needs no loop.
        if n == 1 {
            let value = self.or_fatal(self.arena.zeroed_one::<T>())?;
            value.decode(self)?;
            return Ok(std::slice::from_mut(value));
        }
        let values = self.room_for::<T>(n)?;
        for value in values.iter_mut() {
            value.decode(self)?;
        }
        Ok(values)
    }

    /// Reads an array of arrays of structs.
    pub(crate) fn arrays<T: Decode>(
        &mut self,
        found: u64,
        expected: u64,
        optional: bool,
        inner: impl Fn(usize) -> u64,
    ) -> Result<Array<'m, *const T>> {
        self.arrays_with(found, expected, optional, |d, i| {
            let n = d.prefix::<8>()?.get::<u64, 0>();
            Ok(d.array(n, inner(i), REQUIRED)?.into_raw())
        })
    }

    /// Reads an array of arrays of plain values.
    pub(crate) fn plain_arrays<T: Plain>(
        &mut self,
        found: u64,
        expected: u64,
        optional: bool,
        inner: impl Fn(usize) -> u64,
    ) -> Result<Array<'m, *const T>> {
        self.arrays_with(found, expected, optional, |d, i| {
            let n = d.prefix::<8>()?.get::<u64, 0>();
            Ok(d.plain_array(n, inner(i), REQUIRED)?.into_raw())
        })
    }

    fn arrays_with<T>(
        &mut self,
        found: u64,
        expected: u64,
        optional: bool,
        mut one: impl FnMut(&mut Self, usize) -> Result<*mut T>,
    ) -> Result<Array<'m, *const T>> {
        let n = self.count(found, expected, optional)?;
        if n == 0 {
            return Ok(Array::NULL);
        }
        let pointers = self.room_for::<*const T>(n)?;
        for (i, pointer) in pointers.iter_mut().enumerate() {
            *pointer = one(self, i)?;
        }
        Ok(pointers.into())
    }

    /// Reads a string of `n` bytes with its NUL; 0 is a null pointer.
    pub(crate) fn text(&mut self, n: u64, optional: bool) -> Result<*const c_char> {
        if !self.present(n, optional)? {
            return Ok(std::ptr::null());
        }
        let bytes = self.take(n)?;
        if bytes.last() != Some(&0) {
            return Err(self.fatal(Reason::Unterminated));
        }
        Ok(bytes.as_ptr().cast())
    }

    /// Reads an array of strings.
    pub(crate) fn texts(
        &mut self,
        found: u64,
        expected: u64,
        optional: bool,
    ) -> Result<*const *const c_char> {
        let pointers = self.arrays_with(found, expected, optional, |d, _| {
            let n = d.prefix::<8>()?.get::<u64, 0>();
            d.text(n, REQUIRED).map(<*const c_char>::cast_mut)
        })?;
        Ok(pointers.into_raw().cast_const())
    }

    /// Reads a pointer to a plain value.
    pub(crate) fn plain_pointer<T: Plain>(
        &mut self,
        present: u64,
        optional: bool,
    ) -> Result<Option<&'m mut T>> {
        if !self.present(present, optional)? {
            return Ok(None);
        }
        Ok(self.values::<T>(1)?.first_mut())
    }

    /// Reads a pointer to a struct or union.
    pub(crate) fn pointer<T: Decode>(
        &mut self,
        present: u64,
        optional: bool,
    ) -> Result<Option<&'m mut T>> {
        if !self.present(present, optional)? {
            return Ok(None);
        }
        let value = self.or_fatal(self.arena.zeroed_one::<T>())?;
        value.decode(self)?;
        Ok(Some(value))
    }

    /// Reads a pointer to a plain value that may not be null.
    pub(crate) fn required_plain_pointer<T: Plain>(&mut self, present: u64) -> Result<&'m mut T> {
        let value = self.plain_pointer(present, REQUIRED)?;
        value.ok_or_else(|| self.fatal(Reason::Null))
    }

    /// Reads a pointer to a struct or union that may not be null.
    pub(crate) fn required_pointer<T: Decode>(&mut self, present: u64) -> Result<&'m mut T> {
        let value = self.pointer(present, REQUIRED)?;
        value.ok_or_else(|| self.fatal(Reason::Null))
    }
}

/// A reference as a C pointer.
pub(crate) fn raw<T>(value: Option<&mut T>) -> *mut T {
    value.map_or(std::ptr::null_mut(), std::ptr::from_mut)
}

/// N bytes of a stream, with values at known offsets.
#[derive(Clone, Copy)]
pub(crate) struct Prefix<'m, const N: usize>(pub(super) &'m [u8; N]);

impl<const N: usize> Prefix<'_, N> {
    /// The value at byte AT. A single value of one or two bytes is in the low bytes of its word.
    #[inline(always)]
    pub(crate) fn get<T: Plain, const AT: usize>(self) -> T {
        const { assert!(AT + size_of::<T>() <= N) };
        // SAFETY: within the prefix, as asserted above; any bytes are a valid T.
        unsafe { self.0.as_ptr().add(AT).cast::<T>().read_unaligned() }
    }
}
