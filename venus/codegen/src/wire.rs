//! Fourth stage: the wire rules. Each member or parameter becomes one [`Kind`].
//!
//! The stream is little endian and everything in it is a multiple of four bytes:
//! - numbers, enums, flags: their own size, at least four bytes;
//! - handles: the u64 id;
//! - a pointer to one: u64 present, then the pointee;
//! - an array: u64 count, then the elements, packed, padded to four bytes at the end;
//! - a static array: u64 count, which is the dimension, then the elements;
//! - a string: an array of bytes with its NUL;
//! - a struct without sType: its members; with sType: sType, chain, other members;
//! - a chain: u64 1, sType, rest of the chain, members of this element; or u64 0;
//! - a union: the tag, then the member.
//!
//! For an output, a request contains only what the renderer must know to make room ("partial"): see
//! [`Rules::partial`].

use crate::error::{Error, Result};
use crate::model::{Base, Len, Member, Model, Struct};

/// How a member is sent.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// sType: part of the head of a chained struct.
    Type,
    /// pNext: part of the head of a chained struct.
    Next,
    /// A pointer that must be null.
    Null,
    /// A pointer of which only the presence is sent.
    Marker,
    /// A value with the same bytes on the wire as in memory.
    Plain(Base),
    /// A handle, and whether it may be null.
    Handle(String, bool),
    /// A static array of plain values.
    PlainArray(Base, u32),
    /// A static array of handles.
    HandleArray(String, u32),
    /// A struct by value.
    Struct(String),
    /// A static array of structs.
    StructArray(String, u32),
    /// A union by value, and the member that selects.
    Union(String, Option<String>),
    /// A pointer to one value, and whether it may be null.
    Pointer(Element, bool),
    /// A pointer to several values, their number, and whether it may be null.
    Array(Element, Len, bool),
    /// A string, and whether it may be null.
    Text(bool),
    /// An array of strings.
    Texts(Len, bool),
    /// An array of arrays: outer length, inner length.
    Arrays(Element, Len, Len, bool),
}

/// The type of what pointers and arrays refer to.
#[derive(Debug, Clone, PartialEq)]
pub enum Element {
    /// Plain values.
    Plain(Base),
    /// Handles, and whether elements may be null.
    Handle(String, bool),
    /// Structs.
    Struct(String),
    /// Unions.
    Union(String),
}

/// The rules, applied to a model.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The model.
    pub model: &'a Model,
}

impl<'a> Rules<'a> {
    /// The kind of a member of `owner`.
    pub fn kind(&self, owner: &str, member: &Member) -> Result<Kind> {
        let wrong = |reason: &str| Error::Wire {
            owner: owner.to_owned(),
            member: member.c_name.clone(),
            reason: reason.to_owned(),
        };
        // What the registry leaves to valid usage may be absent on the wire, too.
        let nullable = member.optional || member.noautovalidity;
        match (member.depth, member.dim) {
            (0, None) => match &member.base {
                Base::Enum(name) if member.c_name == "sType" && name == "VkStructureType" => {
                    Ok(Kind::Type)
                }
                Base::Void | Base::Char => Err(wrong("a bare void or char")),
                Base::Handle(name) => Ok(Kind::Handle(name.clone(), nullable)),
                Base::Struct(name) if self.plain_size(&member.base).is_none() => {
                    Ok(Kind::Struct(name.clone()))
                }
                Base::Union(name) => Ok(Kind::Union(name.clone(), member.selector.clone())),
                base => Ok(Kind::Plain(base.clone())),
            },
            (0, Some(n)) => match &member.base {
                Base::Handle(name) => Ok(Kind::HandleArray(name.clone(), n)),
                Base::Struct(name) if self.plain_size(&member.base).is_none() => {
                    Ok(Kind::StructArray(name.clone(), n))
                }
                Base::Union(_) | Base::Void => Err(wrong("a static array of unions")),
                base => Ok(Kind::PlainArray(base.clone(), n)),
            },
            (_, Some(_)) => Err(wrong("a static array of pointers")),
            (1, None) => self
                .pointer(member, nullable)
                .ok_or_else(|| wrong("an unknown pointer")),
            (2, None) => match (&member.base, member.len.as_slice()) {
                (Base::Char, [outer, Len::Terminated]) => Ok(Kind::Texts(outer.clone(), nullable)),
                (_, [outer, inner]) => {
                    let element = self
                        .element(member)
                        .ok_or_else(|| wrong("unknown elements"))?;
                    Ok(Kind::Arrays(
                        element,
                        outer.clone(),
                        inner.clone(),
                        nullable,
                    ))
                }
                _ => Err(wrong("an array of pointers without lengths")),
            },
            _ => Err(wrong("too many pointers")),
        }
    }

    fn pointer(&self, member: &Member, nullable: bool) -> Option<Kind> {
        if member.c_name == "pNext" {
            return Some(Kind::Next);
        }
        match (&member.base, member.len.as_slice()) {
            // A pointer without a length cannot be sent. Structs with function pointers cannot be
            // sent either.
            (Base::Void, []) if member.marker => Some(Kind::Marker),
            (Base::Void, []) => Some(Kind::Null),
            (Base::Struct(name), _) if !self.model.structs.contains_key(name) => Some(Kind::Null),
            (Base::Char, [Len::Terminated]) => Some(Kind::Text(nullable)),
            (_, []) => Some(Kind::Pointer(self.element(member)?, nullable)),
            (_, [len]) => Some(Kind::Array(self.element(member)?, len.clone(), nullable)),
            _ => None,
        }
    }

    fn element(&self, member: &Member) -> Option<Element> {
        Some(match &member.base {
            Base::Void => Element::Plain(Base::Scalar(crate::model::Scalar::U8)),
            Base::Char => return None,
            Base::Handle(name) => Element::Handle(
                name.clone(),
                member.element_optional || member.noautovalidity,
            ),
            Base::Union(name) => Element::Union(name.clone()),
            Base::Struct(name) if self.plain_size(&member.base).is_none() => {
                Element::Struct(name.clone())
            }
            base => Element::Plain(base.clone()),
        })
    }

    /// The size of a value with the same bytes on the wire as in memory: numbers of at least four
    /// bytes, and structs of such numbers without padding, sType or arrays.
    pub fn plain_size(&self, base: &Base) -> Option<u32> {
        match base {
            Base::Scalar(s) | Base::Alias(_, s) => Some(s.size()),
            Base::Enum(_) => Some(4),
            Base::Flags { wide, .. } => Some(if *wide { 8 } else { 4 }),
            Base::Char => Some(1),
            Base::Struct(name) => {
                let entry = self.model.structs.get(name)?;
                let mut size = 0;
                let mut align = 4;
                for member in &entry.members {
                    let bytes = self.plain_size(&member.base).filter(|bytes| *bytes >= 4)?;
                    let member_align = self.align(&member.base);
                    let is_value = member.depth == 0 && member.dim.is_none();
                    if !is_value || size % member_align != 0 || entry.stype.is_some() {
                        return None;
                    }
                    align = align.max(member_align);
                    size += bytes;
                }
                (size % align == 0).then_some(size)
            }
            _ => None,
        }
    }

    fn align(&self, base: &Base) -> u32 {
        match base {
            Base::Struct(name) => {
                let members = self.model.structs.get(name).map(|s| s.members.iter());
                members
                    .into_iter()
                    .flatten()
                    .map(|m| self.align(&m.base))
                    .max()
                    .unwrap_or(4)
            }
            other => self.plain_size(other).unwrap_or(8),
        }
    }

    /// The size of a plain value on the wire. A value of one or two bytes takes a word.
    pub fn wire_size(&self, base: &Base) -> u32 {
        self.plain_size(base).unwrap_or(0).max(4)
    }

    /// Whether a member is the length of another dynamic array of the struct or command.
    pub fn is_length(members: &[Member], name: &str) -> bool {
        members
            .iter()
            .flat_map(|m| &m.len)
            .any(|len| matches!(len, Len::Member(m) | Len::Quarter(m) | Len::Words(m) if m == name))
    }

    /// Members in wire order: the declared order, but a length precedes the array that needs it.
    pub fn wire_order(entry: &'a Struct) -> Vec<&'a Member> {
        let mut order: Vec<&Member> = Vec::new();
        for member in &entry.members {
            if order.iter().any(|m| m.name == member.name) {
                continue;
            }
            for len in &member.len {
                if let Len::Member(name) | Len::Quarter(name) | Len::Words(name) = len
                    && let Some(length) = entry.members.iter().find(|m| m.name == *name)
                    && order.iter().all(|m| m.name != *name)
                {
                    order.push(length);
                }
            }
            order.push(member);
        }
        order
    }

    /// What a request contains of an output struct's member: lengths of other arrays, ids, and the
    /// room for arrays, but no plain values.
    pub fn partial(&self, entry: &Struct, member: &Member, kind: &Kind) -> Partial {
        match kind {
            Kind::Plain(base) if Self::is_length(&entry.members, &member.name) => {
                Partial::Full(base.clone())
            }
            Kind::PlainArray(Base::Struct(_), n) => Partial::Count(*n),
            Kind::Plain(_) | Kind::PlainArray(..) | Kind::Type | Kind::Next => Partial::Nothing,
            Kind::Handle(..) => Partial::Handle,
            Kind::HandleArray(_, n) => Partial::HandleArray(*n),
            Kind::Struct(name) => Partial::Struct(name.clone()),
            Kind::StructArray(name, n) => Partial::StructArray(name.clone(), *n),
            Kind::Array(element, len, nullable) => {
                Partial::Room(element.clone(), len.clone(), *nullable)
            }
            _ => Partial::Unknown,
        }
    }
}

/// What a request contains of an output struct's member.
#[derive(Debug, Clone, PartialEq)]
pub enum Partial {
    /// Nothing: the renderer fills it.
    Nothing,
    /// The whole value, which is a length.
    Full(Base),
    /// The id.
    Handle,
    /// The count and the ids.
    HandleArray(u32),
    /// Only the count, because nothing is sent of plain structs.
    Count(u32),
    /// The struct, in part.
    Struct(String),
    /// The count, then each struct, in part.
    StructArray(String, u32),
    /// The count, which is the room for elements.
    Room(Element, Len, bool),
    /// Not supported: no output has such a member yet.
    Unknown,
}
