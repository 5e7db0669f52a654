//! Random but valid commands, for fuzzers and property tests.
//!
//! ```
//! use hesper_venus_protocol::{CommandId, runtime::Arena, sample, trace};
//!
//! let mut arena = Arena::default();
//! let mut stream = sample::request(CommandId::CreateImage, 42, &mut arena);
//! let (text, length) = trace::command(&mut stream, &mut arena).unwrap();
//! assert!(text.starts_with("vkCreateImage(device="));
//! assert_eq!(length, stream.len());
//! ```

use crate::CommandId;
use crate::guest;
use crate::layout::{Element, Field, Kind, Layout, Len, NEXT, UnionLayout, Value, pointer};
use crate::runtime::Arena;

/// A request of this command with random arguments; empty if the command has no codec.
///
/// The same seed gives the same request. Handles are random ids, so a decoder needs
/// [`Decoder::with_ids`](crate::runtime::Decoder::with_ids) or a map that knows them all.
pub fn request(id: CommandId, seed: u64, arena: &mut Arena) -> Vec<u8> {
    let mut out = Vec::new();
    if let Some(codec) = id.info().codec() {
        let mut sampler = Sampler::new(seed, arena);
        let args = sampler.args(codec.layout);
        let reply = sampler.chance(50);
        // SAFETY: the sampler filled arguments of this layout.
        unsafe { guest::encode_erased(id, codec.layout, args, reply, &mut out) };
    }
    arena.reset();
    out
}

/// Structs deeper than this get no chain and no optional parts, so that samples stay small.
const DEEP: usize = 3;

/// Fills values by their layout, in memory of an arena.
pub(crate) struct Sampler<'a> {
    state: u64,
    arena: &'a Arena,
    depth: usize,
}

impl<'a> Sampler<'a> {
    pub(crate) fn new(seed: u64, arena: &'a Arena) -> Self {
        Self {
            state: seed,
            arena,
            depth: 0,
        }
    }

    /// The next random number, by SplitMix64: small, and good enough for test data.
    pub(crate) fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.random() % n.max(1)
    }

    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// Memory for a value; null when the arena has none. Samples are small, so that does not
    /// happen.
    fn room(&self, size: usize) -> *mut u8 {
        self.arena
            .zeroed_bytes(size)
            .map_or(std::ptr::null_mut(), |p| p.as_ptr())
    }

    /// Random arguments.
    pub(crate) fn args(&mut self, layout: &Layout) -> *mut u8 {
        let args = self.room(layout.size);
        // SAFETY: memory of the layout's size.
        unsafe { self.members(layout, args) };
        for field in layout.fields {
            // Sets the length next to the pointer of an `Array`.
            if let Kind::Array(_, len, _) = &field.kind {
                // SAFETY: filled by `members`; arguments hold arrays as pointer and length.
                unsafe {
                    let at = args.add(field.offset);
                    let n = if pointer(at).is_null() {
                        0
                    } else {
                        len.eval(args, 0)
                    };
                    Value::U64.set(at.add(8), n);
                }
            }
        }
        args
    }

    /// # Safety
    /// `at` must be zeroed memory of the layout's size.
    unsafe fn structure(&mut self, layout: &Layout, at: *mut u8) {
        self.depth += 1;
        if let Some(stype) = layout.stype {
            let mut last = at;
            // SAFETY: within the struct, and each link has its own memory.
            unsafe {
                Value::I32.set(at, stype as u64);
                for link in layout.chain {
                    let percent = if self.depth > DEEP {
                        0
                    } else {
                        300 / layout.chain.len() as u64
                    };
                    if !self.chance(percent.min(40)) {
                        continue;
                    }
                    let next = self.room(link.size);
                    Value::I32.set(next, link.stype.unwrap_or(0) as u64);
                    last.add(NEXT).cast::<*mut u8>().write_unaligned(next);
                    self.members(link, next);
                    last = next;
                }
            }
        }
        // SAFETY: as the caller promises.
        unsafe { self.members(layout, at) };
        self.depth -= 1;
    }

    /// Fills numbers first, because arrays need their lengths.
    ///
    /// # Safety
    /// The same as for [`Self::structure`].
    unsafe fn members(&mut self, layout: &Layout, at: *mut u8) {
        // SAFETY: as the caller promises.
        unsafe {
            for field in layout.fields {
                if let Kind::Value(value) = &field.kind {
                    self.value(*value, field.is_length, at.add(field.offset));
                }
            }
            for field in layout.fields {
                self.member(at, field);
            }
        }
    }

    /// # Safety
    /// The same as for [`Self::structure`].
    unsafe fn value(&mut self, value: Value, is_length: bool, at: *mut u8) {
        let random = self.random();
        let number = match (value, is_length) {
            // A sample count, the only length that is a bit.
            (Value::Flags32(_), true) => 1 << (random % 7),
            // Sizes may be divided by four.
            (Value::Size, true) => random % 4 * 4,
            (_, true) => random % 4,
            (Value::Enum(names), false) if random & 3 != 0 => {
                let name = names.get(random as usize / 4 % names.len().max(1));
                name.map_or(random, |(v, _)| *v as u64)
            }
            (Value::Bool, false) => random & 1,
            // NaN has many bit patterns but only one text.
            (Value::F32, false) => u64::from((random as u16 as f32).to_bits()),
            (Value::F64, false) => (random as u32 as f64).to_bits(),
            _ => random,
        };
        // SAFETY: as the caller promises.
        unsafe { value.set(at, number) };
    }

    fn id(&mut self, nullable: bool) -> u64 {
        if nullable && self.chance(25) {
            0
        } else {
            self.random() | 1
        }
    }

    fn skip(&mut self, optional: bool) -> bool {
        optional && (self.depth > DEEP || self.chance(30))
    }

    /// # Safety
    /// The same as for [`Self::structure`].
    unsafe fn member(&mut self, base: *mut u8, field: &Field) {
        // SAFETY: as the caller promises.
        unsafe {
            let at = base.add(field.offset);
            let place = at.cast::<*mut u8>();
            match &field.kind {
                Kind::Null | Kind::Value(_) => {}
                Kind::Marker => {
                    if self.chance(30) {
                        place.write(base);
                    }
                }
                Kind::Handle(_, nullable) => {
                    let id = self.id(*nullable);
                    Value::U64.set(at, id);
                }
                Kind::Struct(layout) => self.structure(layout, at),
                Kind::Union(union, selector) => {
                    self.union(union, selector.map(|s| base.add(s)), at);
                }
                Kind::Fixed(element, n) => self.elements(element, at, *n),
                Kind::Text(optional) => {
                    if !self.skip(*optional) {
                        place.write_unaligned(self.text());
                    }
                }
                Kind::Pointer(element, optional) => {
                    if !self.skip(*optional) {
                        let target = self.room(element.size());
                        place.write_unaligned(target);
                        match element {
                            // An output that is also read: the length of an array.
                            Element::Value(value) => self.value(*value, field.is_length, target),
                            element => self.elements(element, target, 1),
                        }
                    }
                }
                Kind::Array(element, len, optional) => {
                    if let Len::Through(pointer_at, inner) = len {
                        // A number that only this command uses as a length.
                        let holder = pointer(base.add(*pointer_at));
                        let small = Value::U32.number(holder.add(*inner)) % 4;
                        Value::U32.set(holder.add(*inner), small);
                    }
                    let n = len.eval(base, 0) as usize;
                    if n > 0 && !self.skip(*optional) {
                        let target = self.room(n * element.size());
                        place.write_unaligned(target);
                        self.elements(element, target, n);
                    }
                }
                Kind::Texts(len, optional) => {
                    let n = len.eval(base, 0) as usize;
                    if n > 0 && !self.skip(*optional) {
                        let target = self.room(n * 8);
                        place.write_unaligned(target);
                        for i in 0..n {
                            target
                                .add(8 * i)
                                .cast::<*mut u8>()
                                .write_unaligned(self.text());
                        }
                    }
                }
                Kind::Arrays(element, outer, inner, optional) => {
                    let n = outer.eval(base, 0) as usize;
                    if n > 0 && !self.skip(*optional) {
                        let target = self.room(n * 8);
                        place.write_unaligned(target);
                        for i in 0..n {
                            let count = inner.eval(base, i) as usize;
                            if count == 0 {
                                continue;
                            }
                            let array = self.room(count * element.size());
                            target.add(8 * i).cast::<*mut u8>().write_unaligned(array);
                            self.elements(element, array, count);
                        }
                    }
                }
            }
        }
    }

    fn text(&mut self) -> *mut u8 {
        let length = self.below(9) as usize;
        let start = self.room(length + 1);
        for i in 0..length {
            let letter = b'a' + self.below(26) as u8;
            // SAFETY: there is room for the letters and a NUL.
            unsafe { start.add(i).write(letter) };
        }
        start
    }

    /// # Safety
    /// The same as for [`Self::structure`], for `n` elements.
    unsafe fn elements(&mut self, element: &Element, start: *mut u8, n: usize) {
        for i in 0..n {
            // SAFETY: as the caller promises.
            unsafe {
                let at = start.add(i * element.size());
                match element {
                    Element::Value(value) => self.value(*value, false, at),
                    Element::Handle(_, nullable) => {
                        let id = self.id(*nullable);
                        Value::U64.set(at, id);
                    }
                    Element::Struct(layout) => self.structure(layout, at),
                    Element::Union(union) => self.union(union, None, at),
                }
            }
        }
    }

    /// # Safety
    /// The same as for [`Self::structure`]. `selector` is the address of the selector.
    unsafe fn union(&mut self, union: &UnionLayout, selector: Option<*mut u8>, at: *mut u8) {
        let chosen = match selector {
            None => union.member(None),
            Some(selector) => {
                let index = self.below(union.members.len() as u64) as usize;
                let member = union.members.get(index);
                let chosen = member.and_then(|m| {
                    let tag = m.tags.get(self.below(m.tags.len() as u64) as usize)?;
                    Some((m, *tag))
                });
                if let Some((_, tag)) = chosen {
                    // SAFETY: as the caller promises.
                    unsafe { Value::I32.set(selector, tag as u64) };
                }
                chosen
            }
        };
        let Some((member, _)) = chosen else { return };
        // SAFETY: by the contract; the members of a union all begin at its start.
        unsafe {
            match &member.kind {
                Kind::Value(value) => self.value(*value, false, at),
                Kind::Struct(layout) => self.structure(layout, at),
                Kind::Union(inner, _) => self.union(inner, None, at),
                Kind::Fixed(element, n) => self.elements(element, at, *n),
                Kind::Pointer(element, optional) if !self.skip(*optional) => {
                    let target = self.room(element.size());
                    at.cast::<*mut u8>().write_unaligned(target);
                    self.elements(element, target, 1);
                }
                _ => {}
            }
        }
    }
}
