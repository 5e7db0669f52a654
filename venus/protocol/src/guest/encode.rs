//! The guest's request encoder: an interpreter of the schema.
//!
//! # Safety
//! All functions here take the address of a value and its layout. Callers must ensure that they
//! belong together and that pointers in the value are null or valid for their lengths.

use std::ffi::{CStr, c_char};
use std::slice;

use crate::CommandId;
use crate::layout::{Element, Field, Kind, Layout, Len, NEXT, UnionLayout, Value, pointer};

/// How much of a struct is sent.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// All members.
    Full,
    /// Only what the host needs to allocate memory for it.
    Partial,
}

/// Appends a command.
///
/// # Safety
/// Address and layout must belong together; pointers must be null or valid for their lengths.
pub(crate) unsafe fn encode_erased(
    id: CommandId,
    layout: &Layout,
    args: *const u8,
    reply: bool,
    out: &mut Vec<u8>,
) {
    let mut writer = Writer { out };
    writer.word(id.number());
    writer.word(u32::from(reply));
    for field in layout.fields {
        // SAFETY: as the caller promises.
        unsafe { writer.param(args, field) };
    }
}

struct Writer<'v> {
    out: &'v mut Vec<u8>,
}

impl Writer<'_> {
    fn word(&mut self, word: u32) {
        self.out.extend_from_slice(&word.to_le_bytes());
    }

    fn long(&mut self, long: u64) {
        self.out.extend_from_slice(&long.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
        self.out.resize(self.out.len().next_multiple_of(4), 0);
    }

    /// # Safety
    /// Address and layout must belong together; pointers must be null or valid for their lengths.
    unsafe fn param(&mut self, args: *const u8, field: &Field) {
        // SAFETY: as the caller promises.
        unsafe {
            let at = args.add(field.offset);
            if !field.is_out || field.is_in_out {
                return self.member(args, field, Mode::Full);
            }
            match &field.kind {
                Kind::Pointer(element, _) => {
                    let target = pointer(at);
                    self.long(u64::from(!target.is_null()));
                    if !target.is_null() {
                        self.output(element, target, 1);
                    }
                }
                Kind::Array(element, len, _) => {
                    let target = pointer(at);
                    let n = if target.is_null() {
                        0
                    } else {
                        len.eval(args, 0)
                    };
                    self.long(n);
                    self.output(element, target, n as usize);
                }
                _ => {}
            }
        }
    }

    /// Writes the elements of an output: ids in full, structs in part, numbers not at all.
    ///
    /// # Safety
    /// Address and layout must belong together; pointers must be null or valid for their lengths.
    unsafe fn output(&mut self, element: &Element, start: *const u8, n: usize) {
        for i in 0..n {
            // SAFETY: within the array.
            let at = unsafe { start.add(i * element.size()) };
            // SAFETY: as the caller promises.
            unsafe {
                match element {
                    Element::Handle(..) => self.long(Value::U64.number(at)),
                    Element::Struct(layout) => self.structure(layout, at, Mode::Partial),
                    Element::Value(_) | Element::Union(_) => {}
                }
            }
        }
    }

    /// # Safety
    /// Address and layout must belong together; pointers must be null or valid for their lengths.
    unsafe fn member(&mut self, base: *const u8, field: &Field, mode: Mode) {
        let is_full = mode == Mode::Full;
        // SAFETY: as the caller promises.
        unsafe {
            let at = base.add(field.offset);
            match &field.kind {
                Kind::Null => self.long(0),
                Kind::Marker => self.long(u64::from(!pointer(at).is_null())),
                Kind::Value(value) if is_full || field.is_length => self.value(*value, at),
                Kind::Value(_) => {}
                Kind::Handle(..) => self.long(Value::U64.number(at)),
                Kind::Struct(layout) => self.structure(layout, at, mode),
                Kind::Union(union, selector) => {
                    let selector = selector.map(|s| Value::I32.number(base.add(s)) as i32);
                    self.union(union, selector, at);
                }
                Kind::Fixed(Element::Value(_), _) if !is_full => {}
                Kind::Fixed(element, n) => {
                    self.long(*n as u64);
                    self.elements(element, at, *n, mode);
                }
                Kind::Text(_) => self.text(pointer(at)),
                Kind::Pointer(element, _) => {
                    let target = pointer(at);
                    self.long(u64::from(!target.is_null()));
                    if !target.is_null() && is_full {
                        self.elements(element, target, 1, mode);
                    }
                }
                Kind::Array(element, len, _) => {
                    let target = pointer(at);
                    let n = if target.is_null() {
                        0
                    } else {
                        len.eval(base, 0)
                    };
                    self.long(n);
                    if is_full {
                        self.elements(element, target, n as usize, mode);
                    }
                }
                Kind::Texts(len, _) => {
                    let target = pointer(at);
                    let n = if target.is_null() {
                        0
                    } else {
                        len.eval(base, 0)
                    };
                    self.long(n);
                    for i in 0..n as usize {
                        self.text(pointer(target.add(8 * i)));
                    }
                }
                Kind::Arrays(element, outer, inner, _) => {
                    self.arrays((base, at), element, outer, inner);
                }
            }
        }
    }

    /// # Safety
    /// Address and layout must belong together; pointers must be null or valid for their lengths.
    unsafe fn arrays(
        &mut self,
        (base, at): (*const u8, *const u8),
        element: &Element,
        outer: &Len,
        inner: &Len,
    ) {
        // SAFETY: as the caller promises.
        unsafe {
            let target = pointer(at);
            let n = if target.is_null() {
                0
            } else {
                outer.eval(base, 0)
            };
            self.long(n);
            for i in 0..n as usize {
                let array = pointer(target.add(8 * i));
                let count = inner.eval(base, i);
                self.long(count);
                self.elements(element, array, count as usize, Mode::Full);
            }
        }
    }

    /// # Safety
    /// Address and layout must belong together; pointers must be null or valid for their lengths.
    unsafe fn value(&mut self, value: Value, at: *const u8) {
        // SAFETY: as the caller promises.
        let number = unsafe { value.number(at) };
        match value.size() {
            8 => self.long(number),
            _ => self.word(number as u32),
        }
    }

    /// # Safety
    /// Address and layout must belong together; pointers must be null or valid for their lengths.
    unsafe fn elements(&mut self, element: &Element, start: *const u8, n: usize, mode: Mode) {
        if n == 0 {
            return;
        }
        // SAFETY: as the caller promises.
        unsafe {
            match element {
                Element::Value(value) => {
                    self.bytes(slice::from_raw_parts(start, n * value.size()));
                }
                Element::Handle(..) => self.bytes(slice::from_raw_parts(start, n * 8)),
                Element::Struct(layout) => {
                    for i in 0..n {
                        self.structure(layout, start.add(i * layout.size), mode);
                    }
                }
                Element::Union(union) => {
                    for i in 0..n {
                        self.union(union, None, start.add(i * union.size));
                    }
                }
            }
        }
    }

    /// # Safety
    /// Address and layout must belong together; pointers must be null or valid for their lengths.
    unsafe fn text(&mut self, start: *const u8) {
        if start.is_null() {
            return self.long(0);
        }
        // SAFETY: as the caller promises.
        let text = unsafe { CStr::from_ptr(start.cast::<c_char>()) };
        let bytes = text.to_bytes_with_nul();
        self.long(bytes.len() as u64);
        self.bytes(bytes);
    }

    /// # Safety
    /// Address and layout must belong together; pointers must be null or valid for their lengths.
    unsafe fn union(&mut self, union: &UnionLayout, selector: Option<i32>, at: *const u8) {
        let Some((member, tag)) = union.member(selector) else {
            // No tag is valid here. The host will report this one as an error.
            return self.word(u32::MAX);
        };
        self.word(tag as u32);
        // The members of a union all begin at its start.
        // SAFETY: as the caller promises.
        unsafe {
            match &member.kind {
                Kind::Value(value) => self.value(*value, at),
                Kind::Struct(layout) => self.structure(layout, at, Mode::Full),
                Kind::Union(inner, _) => self.union(inner, None, at),
                Kind::Fixed(element, n) => {
                    self.long(*n as u64);
                    self.elements(element, at, *n, Mode::Full);
                }
                Kind::Pointer(element, _) => {
                    let target = pointer(at);
                    self.long(u64::from(!target.is_null()));
                    self.elements(element, target, usize::from(!target.is_null()), Mode::Full);
                }
                _ => {}
            }
        }
    }

    /// # Safety
    /// Address and layout must belong together; pointers must be null or valid for their lengths.
    unsafe fn structure(&mut self, layout: &Layout, at: *const u8, mode: Mode) {
        if let Some(stype) = layout.stype {
            self.word(stype as u32);
            let mut links: Vec<(&Layout, *const u8)> = Vec::new();
            // SAFETY: as the caller promises.
            let mut next = unsafe { pointer(at.add(NEXT)) };
            while !next.is_null() {
                // SAFETY: as the caller promises.
                let stype = unsafe { Value::I32.number(next) } as i32;
                if let Some(link) = layout.chain.iter().find(|l| l.stype == Some(stype)) {
                    self.long(1);
                    self.word(stype as u32);
                    links.push((link, next));
                }
                // SAFETY: as the caller promises.
                next = unsafe { pointer(next.add(NEXT)) };
            }
            self.long(0);
            for (link, at) in links.iter().rev() {
                for field in link.fields {
                    // SAFETY: as the caller promises.
                    unsafe { self.member(*at, field, mode) };
                }
            }
        }
        for field in layout.fields {
            // SAFETY: as the caller promises.
            unsafe { self.member(at, field, mode) };
        }
    }
}
