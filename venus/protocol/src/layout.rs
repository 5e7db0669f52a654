//! The schema: the types of the generated tables in `generated/schema`.
//!
//! A [`Layout`] describes a struct or a command's arguments: where each member is in memory, and
//! how it is sent. Its interpreters are [`crate::guest`] (the guest's side of the protocol),
//! [`crate::extent`], [`crate::features`], [`crate::trace`] and [`crate::sample`].

use std::fmt;

use crate::vk::HandleType;

/// Names of an enum's values or of flag bits.
pub(crate) type Names = &'static [(i64, &'static str)];

/// A struct, or the arguments of a command.
pub(crate) struct Layout {
    /// The C name.
    pub(crate) name: &'static str,
    /// Bytes in memory.
    pub(crate) size: usize,
    /// The sType, if it has one.
    pub(crate) stype: Option<i32>,
    /// The structs that its chain may hold.
    pub(crate) chain: &'static [&'static Layout],
    /// Members in wire order, without sType and pNext.
    pub(crate) fields: &'static [Field],
    /// The type of a command's return value.
    pub(crate) returns: Option<Value>,
}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The offset of pNext in every struct that has one.
pub(crate) const NEXT: usize = 8;

impl Layout {
    pub(crate) const fn new<T>(name: &'static str, fields: &'static [Field]) -> Self {
        Self {
            name,
            size: size_of::<T>(),
            stype: None,
            chain: &[],
            fields,
            returns: None,
        }
    }

    pub(crate) const fn chained(self, stype: i32, chain: &'static [&'static Layout]) -> Self {
        Self {
            stype: Some(stype),
            chain,
            ..self
        }
    }

    pub(crate) const fn returning(self, value: Value) -> Self {
        Self {
            returns: Some(value),
            ..self
        }
    }
}

/// A member or parameter.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) offset: usize,
    pub(crate) kind: Kind,
    /// Whether it is the length of an array.
    pub(crate) is_length: bool,
    /// Whether it is a command's output.
    pub(crate) is_out: bool,
    /// Whether it is a command's output that is also read.
    pub(crate) is_in_out: bool,
}

impl Field {
    pub(crate) const fn new(name: &'static str, offset: usize, kind: Kind) -> Self {
        Self {
            name,
            offset,
            kind,
            is_length: false,
            is_out: false,
            is_in_out: false,
        }
    }

    pub(crate) const fn length(self) -> Self {
        Self {
            is_length: true,
            ..self
        }
    }

    pub(crate) const fn out(self) -> Self {
        Self {
            is_out: true,
            ..self
        }
    }

    pub(crate) const fn in_out(self) -> Self {
        Self {
            is_out: true,
            is_in_out: true,
            ..self
        }
    }
}

/// How a member is sent. The flag of pointers and arrays: whether they may be null.
pub(crate) enum Kind {
    /// A pointer that is always null.
    Null,
    /// A pointer of which only the presence is sent.
    Marker,
    Value(Value),
    /// A handle. Only readers of the tables use its type.
    Handle(
        #[allow(dead_code, reason = "documents the tables")] HandleType,
        bool,
    ),
    Struct(&'static Layout),
    /// A union, and the offset of its selector in the struct.
    Union(&'static UnionLayout, Option<usize>),
    /// A static array.
    Fixed(Element, usize),
    Text(bool),
    Pointer(Element, bool),
    Array(Element, Len, bool),
    Texts(Len, bool),
    Arrays(Element, Len, Len, bool),
}

/// The type of what pointers and arrays refer to.
pub(crate) enum Element {
    Value(Value),
    Handle(
        #[allow(dead_code, reason = "documents the tables")] HandleType,
        bool,
    ),
    Struct(&'static Layout),
    Union(&'static UnionLayout),
}

impl Element {
    /// Bytes in memory.
    pub(crate) fn size(&self) -> usize {
        match self {
            Element::Value(value) => value.size(),
            Element::Handle(..) => 8,
            Element::Struct(layout) => layout.size,
            Element::Union(union) => union.size,
        }
    }
}

/// A number.
#[derive(Clone, Copy)]
pub(crate) enum Value {
    Char,
    U8,
    U16,
    U32,
    I32,
    F32,
    U64,
    Size,
    Bool,
    Enum(Names),
    Flags32(Names),
    Flags64(Names),
    /// No member has this type yet.
    #[allow(
        dead_code,
        reason = "the registry has them, a later version may use them"
    )]
    I64,
    /// No member has this type yet.
    #[allow(
        dead_code,
        reason = "the registry has them, a later version may use them"
    )]
    F64,
}

impl Value {
    /// Bytes in memory.
    pub(crate) fn size(self) -> usize {
        match self {
            Value::Char | Value::U8 => 1,
            Value::U16 => 2,
            Value::U32 | Value::I32 | Value::F32 | Value::Bool => 4,
            Value::Enum(_) | Value::Flags32(_) => 4,
            Value::U64 | Value::I64 | Value::F64 | Value::Size | Value::Flags64(_) => 8,
        }
    }
}

/// How long an array is. The numbers are offsets in the struct that holds it.
pub(crate) enum Len {
    /// The value of a member.
    Member(usize, Value),
    /// The number to which a member points.
    Pointee(usize, Value),
    /// The u32 at the second offset in the struct to which a member points.
    Through(usize, usize),
    Const(u64),
    /// A quarter of a member, which is a size.
    Quarter(usize),
    /// One word for each 32 of a member.
    Words(usize),
    /// For element i of the array to which a member points: the u32 at the last offset in it.
    PerElement(usize, usize, usize),
}

impl Len {
    /// The length of an array in the struct at `base`. `i` is the index of an inner array.
    ///
    /// # Safety
    /// `base` must point to the struct that the layout describes, with valid pointers.
    pub(crate) unsafe fn eval(&self, base: *const u8, i: usize) -> u64 {
        // SAFETY: by the contract, the layout's offsets are those of members of these types.
        unsafe {
            match self {
                Len::Member(offset, value) => value.number(base.add(*offset)),
                Len::Pointee(offset, value) => match pointer(base.add(*offset)) {
                    null if null.is_null() => 0,
                    place => value.number(place),
                },
                Len::Through(offset, inner) => match pointer(base.add(*offset)) {
                    null if null.is_null() => 0,
                    place => Value::U32.number(place.add(*inner)),
                },
                Len::Const(n) => *n,
                Len::Quarter(offset) => Value::Size.number(base.add(*offset)) / 4,
                Len::Words(offset) => Value::U32.number(base.add(*offset)).div_ceil(32),
                Len::PerElement(offset, stride, inner) => match pointer(base.add(*offset)) {
                    null if null.is_null() => 0,
                    place => Value::U32.number(place.add(i * stride + inner)),
                },
            }
        }
    }
}

impl Value {
    /// The value as an unsigned number.
    ///
    /// # Safety
    /// There must be a value of this type at `place`.
    pub(crate) unsafe fn number(self, place: *const u8) -> u64 {
        // SAFETY: as the caller promises.
        unsafe {
            match self.size() {
                1 => u64::from(place.read()),
                2 => u64::from(place.cast::<u16>().read_unaligned()),
                4 => u64::from(place.cast::<u32>().read_unaligned()),
                _ => place.cast::<u64>().read_unaligned(),
            }
        }
    }

    /// Writes the low bytes of `number`.
    ///
    /// # Safety
    /// There must be room for a value of this type at `place`.
    pub(crate) unsafe fn set(self, place: *mut u8, number: u64) {
        let bytes = number.to_le_bytes();
        // SAFETY: as the caller promises; no value has more than eight bytes.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), place, self.size()) };
    }
}

/// The pointer at `place`.
///
/// # Safety
/// There must be a pointer, or a reference, at `place`.
pub(crate) unsafe fn pointer(place: *const u8) -> *mut u8 {
    // SAFETY: as the caller promises.
    unsafe { place.cast::<*mut u8>().read_unaligned() }
}

/// A union.
pub(crate) struct UnionLayout {
    pub(crate) name: &'static str,
    pub(crate) size: usize,
    pub(crate) members: &'static [UnionMember],
}

/// A member of a union.
pub(crate) struct UnionMember {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) tags: &'static [i32],
    /// Whether guests send this member when there is no selector.
    pub(crate) is_default: bool,
}

impl UnionLayout {
    /// The member that `selector` selects, with its tag. Without a selector, the member that guests
    /// send.
    pub(crate) fn member(&self, selector: Option<i32>) -> Option<(&'static UnionMember, i32)> {
        match selector {
            Some(tag) => self
                .members
                .iter()
                .find(|m| m.tags.contains(&tag))
                .map(|member| (member, tag)),
            None => {
                let member = self.members.iter().find(|m| m.is_default)?;
                member.tags.first().map(|tag| (member, *tag))
            }
        }
    }
}

/// Defines a layout, with one line for each field.
macro_rules! layout {
    ($name:ident, $ty:ty, $c_name:literal, { $($extra:tt)* }
     $($c_field:literal, $offset:expr, $kind:expr $(, $mark:ident)*;)*) => {
        pub(crate) static $name: crate::layout::Layout = crate::layout::Layout::new::<$ty>(
            $c_name,
            &[$(crate::layout::Field::new($c_field, $offset, $kind)$(.$mark())*,)*],
        )$($extra)*;
    };
}
pub(crate) use layout;

/// Writes an enum's value by name, or as a number.
pub(crate) fn write_enum(f: &mut dyn fmt::Write, names: Names, value: i64) -> fmt::Result {
    match names.iter().find(|(v, _)| *v == value) {
        Some((_, name)) => f.write_str(name),
        None => write!(f, "{value}"),
    }
}

/// Writes flags by name, and unnamed bits in hexadecimal.
pub(crate) fn write_flags(f: &mut dyn fmt::Write, names: Names, value: u64) -> fmt::Result {
    if value == 0 {
        return f.write_str("0");
    }
    let mut rest = value;
    let mut separator = "";
    for (bits, name) in names {
        let bits = *bits as u64;
        if bits.count_ones() == 1 && rest & bits != 0 {
            write!(f, "{separator}{name}")?;
            separator = "|";
            rest &= !bits;
        }
    }
    if rest != 0 {
        write!(f, "{separator}{rest:#x}")?;
    }
    Ok(())
}
