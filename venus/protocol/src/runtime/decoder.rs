//! The request decoder: a cursor over a command stream that leaves its finds in an arena.
//!
//! The stream is read once, front to back. Fixed-size runs are taken as a [`Prefix`] after one
//! bounds check; what varies in size is checked against the bytes that are left before anything
//! is allocated for it. Nesting is as deep as the types are, which the generator has shown to be
//! finite; chains are walked in a loop.

use std::ffi::c_char;

use super::arena::Arena;
use super::argument::{Array, Object, Objects};
use super::error::{Fatal, Reason, Result};
use super::value::{Handle, HandleMap, Plain, Zeroed};
use super::{CommandId, Decode, Identity};
use crate::generated::commands::COMMANDS;
use crate::vk::HandleType;

/// The pointer or array may be null.
pub(crate) const OPTIONAL: bool = true;
/// It may not, unless its length is 0.
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
    rest: &'m [u8],
    length: usize,
    pub(super) arena: &'m Arena,
    objects: &'m dyn HandleMap,
    command: u32,
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
    /// A decoder of `stream`, which must be private memory: what the guest could change while it
    /// is read has to be copied first.
    pub fn new(stream: &'m [u8], arena: &'m Arena, objects: &'m dyn HandleMap) -> Self {
        Self {
            rest: stream,
            length: stream.len(),
            arena,
            objects,
            command: u32::MAX,
        }
    }

    /// A decoder that takes ids for handles.
    pub fn with_ids(stream: &'m [u8], arena: &'m Arena) -> Self {
        Self::new(stream, arena, &Identity)
    }

    /// Bytes read so far.
    #[inline]
    pub fn position(&self) -> usize {
        self.length - self.rest.len()
    }

    /// Whether the stream is at its end.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Reads the next command's header.
    ///
    /// # Errors
    /// If the stream ends or the number is not that of a command with a codec.
    #[inline]
    pub fn header(&mut self) -> Result<Header> {
        let p = self.prefix::<8>()?;
        self.command = p.get::<u32, 0>();
        let flags = p.get::<u32, 4>();
        let known = usize::try_from(self.command)
            .ok()
            .and_then(|n| COMMANDS.get(n));
        match known.and_then(Option::as_ref) {
            Some(info) if info.is_codable() => Ok(Header {
                command: info.id,
                reply: flags & 1 != 0,
            }),
            other => Err(self.no_codec(other.map(|info| info.name))),
        }
    }

    #[cold]
    fn no_codec(&self, name: Option<&'static str>) -> Fatal {
        self.fatal(name.map_or(Reason::UnknownCommand(self.command), Reason::NotCodable))
    }

    /// An error at this place, for handlers that find fault with arguments.
    #[cold]
    pub fn fatal(&self, reason: Reason) -> Fatal {
        Fatal {
            reason,
            offset: self.position(),
            command: self.command,
        }
    }

    pub(crate) fn or_fatal<T>(&self, result: Result<T, Reason>) -> Result<T> {
        result.map_err(|reason| self.fatal(reason))
    }

    #[cold]
    fn truncated(&self, needed: u64) -> Fatal {
        self.fatal(Reason::Truncated {
            needed,
            left: self.rest.len(),
        })
    }

    /// The next N bytes.
    #[inline(always)]
    pub(crate) fn prefix<const N: usize>(&mut self) -> Result<Prefix<'m, N>> {
        match self.rest.split_first_chunk::<N>() {
            Some((head, rest)) => {
                self.rest = rest;
                Ok(Prefix(head))
            }
            None => Err(self.truncated(N as u64)),
        }
    }

    /// The next `n` bytes and the padding after them.
    #[inline]
    fn take(&mut self, n: u64) -> Result<&'m [u8]> {
        let padded = n
            .checked_add(3)
            .map(|n| n & !3)
            .and_then(|n| usize::try_from(n).ok());
        let Some((head, rest)) = padded.and_then(|n| self.rest.split_at_checked(n)) else {
            return Err(self.truncated(n));
        };
        self.rest = rest;
        // `n` is at most the padded length.
        Ok(head.get(..n as usize).unwrap_or(head))
    }

    /// The length that an array must have: as it says, or 0 where it may be null.
    #[inline]
    pub(super) fn count(&self, found: u64, expected: u64, optional: bool) -> Result<usize> {
        if found == expected || (found == 0 && optional) {
            // A count that is no usize is more than any stream or budget has room for.
            return Ok(usize::try_from(found).unwrap_or(usize::MAX));
        }
        Err(self.fatal(Reason::Count { found, expected }))
    }

    /// The count of a static array.
    #[inline]
    pub(crate) fn dimension(&self, found: u64, expected: u64) -> Result<()> {
        self.count(found, expected, REQUIRED).map(|_| ())
    }

    /// A pointer that must be null.
    #[inline]
    pub(crate) fn null(&self, present: u64) -> Result<()> {
        if present == 0 {
            Ok(())
        } else {
            Err(self.fatal(Reason::NotNull))
        }
    }

    /// Whether a pointer is there.
    #[inline]
    pub(super) fn present(&self, present: u64, optional: bool) -> Result<bool> {
        match present {
            0 if optional => Ok(false),
            0 => Err(self.fatal(Reason::Null)),
            _ => Ok(true),
        }
    }

    #[cold]
    pub(crate) fn bad_tag(&self, tag: u32) -> Fatal {
        self.fatal(Reason::Tag(tag))
    }

    /// The tag of a union with a selector, which says the same.
    pub(crate) fn same_tag(&self, tag: i32, selector: i32) -> Result<i32> {
        if tag == selector {
            Ok(tag)
        } else {
            Err(self.fatal(Reason::Selector { tag, selector }))
        }
    }

    #[inline]
    fn resolve(&self, ty: HandleType, id: u64) -> Result<(u64, usize)> {
        let found = self.objects.resolve(ty, id);
        if found.handle == 0 {
            return Err(self.fatal(Reason::Handle { ty, id }));
        }
        Ok((found.handle, found.tag))
    }

    /// A handle that may be null.
    #[inline]
    pub(crate) fn handle<H: Handle>(&self, id: u64) -> Result<H> {
        if id == 0 {
            return Ok(H::ZERO);
        }
        self.resolve(H::TYPE, id)
            .map(|(handle, _)| H::from_raw(handle))
    }

    /// A handle that may not.
    #[inline]
    pub(crate) fn required_handle<H: Handle>(&self, id: u64) -> Result<H> {
        match id {
            0 => Err(self.fatal(Reason::NullHandle(H::TYPE))),
            _ => self.handle(id),
        }
    }

    /// A handle argument that may be null.
    #[inline]
    pub(crate) fn object<H: Handle>(&self, id: u64) -> Result<Object<H>> {
        if id == 0 {
            return Ok(Object {
                id,
                handle: H::ZERO,
                tag: 0,
            });
        }
        let (handle, tag) = self.resolve(H::TYPE, id)?;
        Ok(Object {
            id,
            handle: H::from_raw(handle),
            tag,
        })
    }

    /// A handle argument that may not.
    #[inline]
    pub(crate) fn required_object<H: Handle>(&self, id: u64) -> Result<Object<H>> {
        match id {
            0 => Err(self.fatal(Reason::NullHandle(H::TYPE))),
            _ => self.object(id),
        }
    }

    /// An array of plain values.
    #[inline]
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
        let bytes = self.take((n as u64).saturating_mul(size_of::<T>() as u64))?;
        // SAFETY: any bytes are valid values of T, and there are n times its size.
        let values = unsafe { self.arena.copied::<T>(bytes, n) };
        Ok(self.or_fatal(values)?.into())
    }

    /// The words of an array of handles.
    fn ids_of(&mut self, n: usize) -> Result<&'m mut [u64]> {
        let bytes = self.take((n as u64).saturating_mul(8))?;
        // SAFETY: any bytes are valid numbers, and there are eight for each.
        self.or_fatal(unsafe { self.arena.copied::<u64>(bytes, n) })
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

    /// An array of handles.
    #[inline]
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
        let bytes = self.take((n as u64).saturating_mul(8))?;
        let room = self.or_fatal(self.arena.room::<H>(n))?;
        let (words, _) = bytes.as_chunks::<8>();
        for (slot, word) in room.iter_mut().zip(words) {
            let id = u64::from_le_bytes(*word);
            slot.write(if nulls {
                self.handle(id)?
            } else {
                self.required_handle(id)?
            });
        }
        // SAFETY: there are n words, so every slot was written.
        let handles = unsafe { std::slice::from_raw_parts_mut(room.as_mut_ptr().cast::<H>(), n) };
        Ok(handles.into())
    }

    /// An array of handles whose ids are kept.
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
        let ids = self.ids_of(n)?;
        let handles = self.resolve_all(ids, nulls)?;
        Ok(Objects::new(handles, ids))
    }

    /// Room for `n` values of which each takes at least a word of the stream.
    fn room_for<T: Zeroed>(&self, n: usize) -> Result<&'m mut [T]> {
        let least = (n as u64).saturating_mul(4);
        if least > self.rest.len() as u64 {
            return Err(self.truncated(least));
        }
        self.or_fatal(self.arena.zeroed(n))
    }

    /// An array of structs or unions.
    pub(crate) fn array<T: Decode>(
        &mut self,
        found: u64,
        expected: u64,
        optional: bool,
    ) -> Result<Array<'m, T>> {
        let n = self.count(found, expected, optional)?;
        if n == 0 {
            return Ok(Array::NULL);
        }
        let values = self.room_for::<T>(n)?;
        for value in values.iter_mut() {
            value.decode(self)?;
        }
        Ok(values.into())
    }

    /// An array of arrays of structs.
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

    /// An array of arrays of plain values.
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

    /// A string of `n` bytes with its NUL; 0 is null.
    pub(crate) fn text(&mut self, n: u64, optional: bool) -> Result<*const c_char> {
        if !self.present(n, optional)? {
            return Ok(std::ptr::null());
        }
        let bytes = self.take(n)?;
        if bytes.last() != Some(&0) {
            return Err(self.fatal(Reason::Unterminated));
        }
        // SAFETY: bytes are bytes.
        let text = unsafe { self.arena.copied::<c_char>(bytes, bytes.len()) };
        Ok(self.or_fatal(text)?.as_ptr())
    }

    /// An array of strings.
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

    /// A pointer to a plain value.
    pub(crate) fn plain_pointer<T: Plain>(
        &mut self,
        present: u64,
        optional: bool,
    ) -> Result<Option<&'m mut T>> {
        if !self.present(present, optional)? {
            return Ok(None);
        }
        let bytes = self.take(size_of::<T>() as u64)?;
        // SAFETY: any bytes are a valid T, and there are as many as it has.
        let value = unsafe { self.arena.copied::<T>(bytes, 1) };
        Ok(self.or_fatal(value)?.first_mut())
    }

    /// A pointer to a struct or union.
    pub(crate) fn pointer<T: Decode>(
        &mut self,
        present: u64,
        optional: bool,
    ) -> Result<Option<&'m mut T>> {
        if !self.present(present, optional)? {
            return Ok(None);
        }
        let Some(value) = self.or_fatal(self.arena.zeroed::<T>(1))?.first_mut() else {
            return Ok(None);
        };
        value.decode(self)?;
        Ok(Some(value))
    }

    /// A pointer that the arguments hold as a reference.
    pub(crate) fn required_plain_pointer<T: Plain>(&mut self, present: u64) -> Result<&'m mut T> {
        let value = self.plain_pointer(present, REQUIRED)?;
        value.ok_or_else(|| self.fatal(Reason::Null))
    }

    /// A pointer that the arguments hold as a reference.
    pub(crate) fn required_pointer<T: Decode>(&mut self, present: u64) -> Result<&'m mut T> {
        let value = self.pointer(present, REQUIRED)?;
        value.ok_or_else(|| self.fatal(Reason::Null))
    }
}

/// A reference as C has it.
pub(crate) fn raw<T>(value: Option<&mut T>) -> *mut T {
    value.map_or(std::ptr::null_mut(), std::ptr::from_mut)
}

/// N bytes of a stream, with values at known places.
#[derive(Clone, Copy)]
pub(crate) struct Prefix<'m, const N: usize>(&'m [u8; N]);

impl<const N: usize> Prefix<'_, N> {
    /// The value at byte AT; a lone byte or half is the low end of its word.
    #[inline(always)]
    pub(crate) fn get<T: Plain, const AT: usize>(self) -> T {
        const { assert!(AT + size_of::<T>() <= N) };
        // SAFETY: within the prefix as just asserted; any bytes are a valid T.
        unsafe { self.0.as_ptr().add(AT).cast::<T>().read_unaligned() }
    }
}
