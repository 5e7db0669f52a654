//! The guest's reply decoder: interprets the schema and fills outputs in place.
//!
//! # Safety
//! The same conditions as in [`mod@super::encode`].

use std::slice;

use super::ReplyError;
use crate::CommandId;
use crate::layout::{Element, Field, Kind, Layout, Len, NEXT, Value, pointer};

type Result<T> = std::result::Result<T, ReplyError>;

/// Decodes a reply into the outputs of `args`.
///
/// # Safety
/// Address and layout must belong together; pointers must be null or valid for their lengths.
pub(crate) unsafe fn decode_reply_erased(
    id: CommandId,
    layout: &Layout,
    args: *mut u8,
    reply: &[u8],
) -> Result<(u64, usize)> {
    let mut reader = Reader {
        rest: reply,
        length: reply.len(),
    };
    let found = reader.word()? as i32;
    let expected = id.number() as i32;
    if found != expected {
        return Err(ReplyError::Type { found, expected });
    }
    let ret = match layout.returns {
        None => 0,
        Some(value) if value.size() == 8 => reader.long()?,
        Some(_) => u64::from(reader.word()?),
    };
    for field in layout.fields.iter().filter(|f| f.is_out) {
        // SAFETY: as the caller promises.
        unsafe { reader.output(args, field)? };
    }
    Ok((ret, reply.len() - reader.rest.len()))
}

struct Reader<'r> {
    rest: &'r [u8],
    length: usize,
}

impl<'r> Reader<'r> {
    fn take(&mut self, n: usize) -> Result<&'r [u8]> {
        let at = self.length - self.rest.len();
        let split = self.rest.split_at_checked(n.next_multiple_of(4));
        let (head, rest) = split.ok_or(ReplyError::Truncated(at))?;
        self.rest = rest;
        Ok(head.get(..n).unwrap_or(head))
    }

    fn word(&mut self) -> Result<u32> {
        let bytes = self.take(4)?;
        Ok(bytes.first_chunk().map_or(0, |b| u32::from_le_bytes(*b)))
    }

    fn long(&mut self) -> Result<u64> {
        let bytes = self.take(8)?;
        Ok(bytes.first_chunk().map_or(0, |b| u64::from_le_bytes(*b)))
    }

    /// # Safety
    /// Address and layout must belong together; pointers must be null or valid for their lengths.
    unsafe fn output(&mut self, args: *mut u8, field: &Field) -> Result<()> {
        // SAFETY: as the caller promises.
        unsafe {
            let at = args.add(field.offset);
            let target = pointer(at);
            let (element, room) = match &field.kind {
                Kind::Pointer(element, _) => (element, 1),
                // The pointer and the length of an `Array`.
                Kind::Array(element, ..) => (element, Value::U64.number(at.add(8))),
                _ => return Ok(()),
            };
            let room = if target.is_null() { 0 } else { room };
            let n = self.long()?;
            if n > room {
                return Err(ReplyError::Room { found: n, room });
            }
            self.elements(element, target, n as usize)
        }
    }

    /// # Safety
    /// Address and layout must belong together; pointers must be null or valid for their lengths.
    unsafe fn elements(&mut self, element: &Element, start: *mut u8, n: usize) -> Result<()> {
        // SAFETY: as the caller promises.
        unsafe {
            match element {
                // A single number takes at least a word; its padding follows it.
                Element::Value(_) | Element::Handle(..) => {
                    let bytes = self.take(n * element.size())?;
                    if !bytes.is_empty() {
                        slice::from_raw_parts_mut(start, bytes.len()).copy_from_slice(bytes);
                    }
                }
                Element::Struct(layout) => {
                    for i in 0..n {
                        self.structure(layout, start.add(i * layout.size))?;
                    }
                }
                // Outputs have no unions.
                Element::Union(_) => {}
            }
        }
        Ok(())
    }

    /// # Safety
    /// Address and layout must belong together; pointers must be null or valid for their lengths.
    unsafe fn structure(&mut self, layout: &Layout, at: *mut u8) -> Result<()> {
        if let Some(expected) = layout.stype {
            let found = self.word()? as i32;
            if found != expected {
                return Err(ReplyError::Type { found, expected });
            }
            // The structs of this chain that the protocol has. The host sends them back.
            let mut links: Vec<(&Layout, *mut u8)> = Vec::new();
            // SAFETY: as the caller promises.
            let mut next = unsafe { pointer(at.add(NEXT)) };
            while !next.is_null() {
                // SAFETY: as the caller promises.
                let stype = unsafe { Value::I32.number(next) } as i32;
                links.extend(
                    layout
                        .chain
                        .iter()
                        .find(|l| l.stype == Some(stype))
                        .map(|l| (*l, next)),
                );
                // SAFETY: as the caller promises.
                next = unsafe { pointer(next.add(NEXT)) };
            }
            for (link, _) in &links {
                let expected = link.stype.unwrap_or(0);
                let found = if self.long()? == 0 {
                    0
                } else {
                    self.word()? as i32
                };
                if found != expected {
                    return Err(ReplyError::Type { found, expected });
                }
            }
            match self.long()? {
                0 => {}
                found => return Err(ReplyError::Room { found, room: 0 }),
            }
            for (link, at) in links.iter().rev() {
                // SAFETY: as the caller promises.
                unsafe { self.members(link, *at)? };
            }
        }
        // SAFETY: as the caller promises.
        unsafe { self.members(layout, at) }
    }

    /// # Safety
    /// Address and layout must belong together; pointers must be null or valid for their lengths.
    unsafe fn members(&mut self, layout: &Layout, at: *mut u8) -> Result<()> {
        // Lengths hold the available room until they are overwritten with the used room.
        let rooms: Vec<u64> = layout
            .fields
            .iter()
            .map(|field| match &field.kind {
                // SAFETY: as the caller promises.
                Kind::Array(_, len, _) => unsafe { room(len, at, field.offset) },
                _ => 0,
            })
            .collect();
        for (field, room) in layout.fields.iter().zip(rooms) {
            // SAFETY: as the caller promises.
            unsafe { self.member(at, field, room)? };
        }
        Ok(())
    }

    /// # Safety
    /// Address and layout must belong together; pointers must be null or valid for their lengths.
    unsafe fn member(&mut self, base: *mut u8, field: &Field, room: u64) -> Result<()> {
        // SAFETY: as the caller promises.
        unsafe {
            let at = base.add(field.offset);
            match &field.kind {
                Kind::Value(value) if value.size() == 8 => value.set(at, self.long()?),
                Kind::Value(value) => value.set(at, u64::from(self.word()?)),
                Kind::Handle(..) => Value::U64.set(at, self.long()?),
                Kind::Struct(layout) => self.structure(layout, at)?,
                Kind::Fixed(element, n) => match self.long()? {
                    found if found == *n as u64 => self.elements(element, at, *n)?,
                    found => {
                        return Err(ReplyError::Room {
                            found,
                            room: *n as u64,
                        });
                    }
                },
                Kind::Array(element, ..) => {
                    let n = self.long()?;
                    if n > room {
                        return Err(ReplyError::Room { found: n, room });
                    }
                    self.elements(element, pointer(at), n as usize)?;
                }
                // Outputs have no members of other kinds.
                _ => {}
            }
        }
        Ok(())
    }
}

/// # Safety
/// Address and layout must belong together; pointers must be null or valid for their lengths.
unsafe fn room(len: &Len, base: *const u8, offset: usize) -> u64 {
    // SAFETY: as the caller promises.
    unsafe {
        if pointer(base.add(offset)).is_null() {
            0
        } else {
            len.eval(base, 0)
        }
    }
}
