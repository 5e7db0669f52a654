//! Commands as text, for debug logs.
//!
//! [`command`] writes one command with names, arguments and the guest's ids. It decodes the bytes
//! again, independently of the decoder that serves the command, so that tracing costs nothing while
//! it is off.

use std::ffi::{CStr, c_char};
use std::fmt::{self, Write};

use crate::layout::{
    Element, Field, Kind, Layout, NEXT, UnionLayout, Value, pointer, write_enum, write_flags,
};
use crate::runtime::{Arena, Decoder, Fatal, Result, Stopped};

/// Elements shown of each array in a log.
const SHOWN: usize = 16;

/// The first command of `stream` as text, and its length in bytes. The bytes are unchanged when it
/// returns.
///
/// # Errors
/// The errors of decoding, except that every id is valid.
pub fn command(stream: &mut [u8], arena: &mut Arena) -> Result<(String, usize), Fatal> {
    let result = one(stream, arena);
    arena.reset();
    result
}

fn one(stream: &mut [u8], arena: &Arena) -> Result<(String, usize), Fatal> {
    let mut decoder = Decoder::with_ids(stream, arena);
    let header = decoder.header()?;
    let mut text = String::new();
    if let Some(codec) = header.command.info().codec() {
        let args = decoder
            .or_fatal(arena.zeroed_bytes(codec.layout.size))
            .map_err(|Stopped| decoder.failure())?
            .as_ptr();
        // SAFETY: the arena's memory has the layout's size, and the decoder fills it.
        let decoded = unsafe { (codec.decode)(args, &mut decoder) };
        decoded.map_err(|Stopped| decoder.failure())?;
        let tracer = Tracer {
            shown: SHOWN,
            outputs: false,
        };
        // SAFETY: the arguments were just decoded for this layout. (Writing to a `String` cannot
        // fail.)
        let _ = unsafe { tracer.command(&mut text, codec.layout, args) };
    }
    if header.reply {
        text.push_str(" -> reply");
    }
    Ok((text, decoder.position()))
}

/// Writes values as text. Its functions take the address of a value and its layout. Callers must
/// ensure that they belong together and that pointers are null or valid.
pub(crate) struct Tracer {
    /// Elements shown of each array.
    pub(crate) shown: usize,
    /// Whether the contents of outputs are shown.
    pub(crate) outputs: bool,
}

impl Tracer {
    /// # Safety
    /// Address and layout must belong together; pointers must be null or valid for their lengths.
    pub(crate) unsafe fn command(
        &self,
        f: &mut dyn Write,
        layout: &Layout,
        args: *const u8,
    ) -> fmt::Result {
        write!(f, "{}(", layout.name)?;
        let mut separator = "";
        for field in layout
            .fields
            .iter()
            .filter(|field| !matches!(field.kind, Kind::Null))
        {
            write!(f, "{separator}{}=", field.name)?;
            separator = ", ";
            // SAFETY: as the caller promises.
            unsafe {
                if field.is_out && !field.is_in_out && !self.outputs && !has_ids(&field.kind) {
                    f.write_str(if pointer(args.add(field.offset)).is_null() {
                        "null"
                    } else {
                        "out"
                    })?;
                } else {
                    self.member(f, args, field)?;
                }
            }
        }
        f.write_char(')')
    }

    /// # Safety
    /// Address and layout must belong together; pointers must be null or valid for their lengths.
    unsafe fn structure(&self, f: &mut dyn Write, layout: &Layout, at: *const u8) -> fmt::Result {
        f.write_char('{')?;
        // SAFETY: as the caller promises.
        unsafe {
            self.members(f, layout, at)?;
            if layout.stype.is_some() {
                let mut next = pointer(at.add(NEXT));
                while !next.is_null() {
                    let stype = Value::I32.number(next) as i32;
                    if let Some(link) = layout.chain.iter().find(|l| l.stype == Some(stype)) {
                        write!(f, " + {}{{", link.name)?;
                        self.members(f, link, next)?;
                        f.write_char('}')?;
                    }
                    next = pointer(next.add(NEXT));
                }
            }
        }
        f.write_char('}')
    }

    /// # Safety
    /// Address and layout must belong together; pointers must be null or valid for their lengths.
    unsafe fn members(&self, f: &mut dyn Write, layout: &Layout, at: *const u8) -> fmt::Result {
        let mut separator = "";
        for field in layout
            .fields
            .iter()
            .filter(|field| !matches!(field.kind, Kind::Null))
        {
            write!(f, "{separator}{}=", field.name)?;
            separator = ", ";
            // SAFETY: as the caller promises.
            unsafe { self.member(f, at, field)? };
        }
        Ok(())
    }

    /// # Safety
    /// Address and layout must belong together; pointers must be null or valid for their lengths.
    unsafe fn member(&self, f: &mut dyn Write, base: *const u8, field: &Field) -> fmt::Result {
        // SAFETY: as the caller promises.
        unsafe {
            let at = base.add(field.offset);
            match &field.kind {
                Kind::Null => Ok(()),
                Kind::Marker => f.write_str(match pointer(at).is_null() {
                    true => "null",
                    false => "given",
                }),
                Kind::Value(value) => write_value(f, *value, at),
                Kind::Handle(..) => write!(f, "{:#x}", Value::U64.number(at)),
                Kind::Struct(layout) => self.structure(f, layout, at),
                Kind::Union(union, selector) => {
                    let selector = selector.map(|s| Value::I32.number(base.add(s)) as i32);
                    self.union(f, union, selector, at)
                }
                Kind::Fixed(element, n) => self.elements(f, element, at, *n as u64),
                Kind::Text(_) => write_text(f, pointer(at)),
                Kind::Pointer(element, _) => match pointer(at) {
                    null if null.is_null() => f.write_str("null"),
                    target => self.element(f, element, target),
                },
                Kind::Array(element, len, _) => match pointer(at) {
                    null if null.is_null() => f.write_str("null"),
                    target => self.elements(f, element, target, len.eval(base, 0)),
                },
                Kind::Texts(len, _) => {
                    self.list(f, pointer(at), len.eval(base, 0), |f, i, target| {
                        write_text(f, pointer(target.add(8 * i)))
                    })
                }
                Kind::Arrays(element, outer, inner, _) => {
                    self.list(f, pointer(at), outer.eval(base, 0), |f, i, target| {
                        let array = pointer(target.add(8 * i));
                        self.elements(f, element, array, inner.eval(base, i))
                    })
                }
            }
        }
    }

    fn list(
        &self,
        f: &mut dyn Write,
        target: *const u8,
        n: u64,
        mut one: impl FnMut(&mut dyn Write, usize, *const u8) -> fmt::Result,
    ) -> fmt::Result {
        if target.is_null() {
            return f.write_str("null");
        }
        f.write_char('[')?;
        for i in 0..self.shown.min(n as usize) {
            if i > 0 {
                f.write_str(", ")?;
            }
            one(f, i, target)?;
        }
        match n as usize > self.shown {
            true => write!(f, ", … {n} in all]"),
            false => f.write_char(']'),
        }
    }

    /// # Safety
    /// Address and layout must belong together; pointers must be null or valid for their lengths.
    unsafe fn elements(
        &self,
        f: &mut dyn Write,
        element: &Element,
        start: *const u8,
        n: u64,
    ) -> fmt::Result {
        // Names in fixed arrays are shown as text up to the NUL.
        if let Element::Value(Value::Char) = element {
            // SAFETY: as the caller promises.
            let bytes = unsafe { std::slice::from_raw_parts(start, n as usize) };
            let text = bytes.split(|b| *b == 0).next().unwrap_or(bytes);
            return write!(f, "{:?}", String::from_utf8_lossy(text));
        }
        self.list(f, start, n, |f, i, start| {
            // SAFETY: as the caller promises, there are n elements.
            unsafe { self.element(f, element, start.add(i * element.size())) }
        })
    }

    /// # Safety
    /// Address and layout must belong together; pointers must be null or valid for their lengths.
    unsafe fn element(&self, f: &mut dyn Write, element: &Element, at: *const u8) -> fmt::Result {
        // SAFETY: as the caller promises.
        unsafe {
            match element {
                Element::Value(value) => write_value(f, *value, at),
                Element::Handle(..) => write!(f, "{:#x}", Value::U64.number(at)),
                Element::Struct(layout) => self.structure(f, layout, at),
                Element::Union(union) => self.union(f, union, None, at),
            }
        }
    }

    /// # Safety
    /// Address and layout must belong together; pointers must be null or valid for their lengths.
    unsafe fn union(
        &self,
        f: &mut dyn Write,
        union: &UnionLayout,
        selector: Option<i32>,
        at: *const u8,
    ) -> fmt::Result {
        let Some((member, _)) = union.member(selector) else {
            return write!(f, "{}?", union.name);
        };
        write!(f, "{{{}=", member.name)?;
        // SAFETY: as the caller promises; the members of a union all begin at its start.
        unsafe {
            match &member.kind {
                Kind::Value(value) => write_value(f, *value, at)?,
                Kind::Struct(layout) => self.structure(f, layout, at)?,
                Kind::Union(inner, _) => self.union(f, inner, None, at)?,
                Kind::Fixed(element, n) => self.elements(f, element, at, *n as u64)?,
                Kind::Pointer(element, _) => match pointer(at) {
                    null if null.is_null() => f.write_str("null")?,
                    target => self.element(f, element, target)?,
                },
                _ => {}
            }
        }
        f.write_char('}')
    }
}

/// Whether requests contain this output's value: the ids of new objects.
fn has_ids(kind: &Kind) -> bool {
    matches!(
        kind,
        Kind::Pointer(Element::Handle(..), _) | Kind::Array(Element::Handle(..), ..)
    )
}

/// # Safety
/// `at` must hold a value of this type.
unsafe fn write_value(f: &mut dyn Write, value: Value, at: *const u8) -> fmt::Result {
    // SAFETY: as the caller promises.
    let number = unsafe { value.number(at) };
    match value {
        Value::I32 => write!(f, "{}", number as i32),
        Value::I64 => write!(f, "{}", number as i64),
        Value::F32 => write!(f, "{:?}", f32::from_bits(number as u32)),
        Value::F64 => write!(f, "{:?}", f64::from_bits(number)),
        Value::Bool => match number {
            0 => f.write_str("false"),
            1 => f.write_str("true"),
            other => write!(f, "{other}"),
        },
        Value::Enum(names) => write_enum(f, names, i64::from(number as i32)),
        Value::Flags32(names) | Value::Flags64(names) => write_flags(f, names, number),
        _ => write!(f, "{number}"),
    }
}

/// # Safety
/// `start` must be null or point to a string.
unsafe fn write_text(f: &mut dyn Write, start: *const u8) -> fmt::Result {
    if start.is_null() {
        return f.write_str("null");
    }
    // SAFETY: as the caller promises.
    write!(f, "{:?}", unsafe { CStr::from_ptr(start.cast::<c_char>()) })
}
