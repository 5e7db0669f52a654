//! Emits the schema: the wire rules of every struct and command as data.
//!
//! The guest's side of the protocol, the trace and the random samples interpret the schema. They
//! share the rules with the host's codecs but no code, so each tests the other.

use std::fmt::Write as _;

use crate::emit::commands::{Direction, MODULES, direction, held};
use crate::emit::file::{File, unknown};
use crate::emit::rust;
use crate::error::Result;
use crate::model::{Base, Command, Len, Member, Model, Scalar, Struct, Union};
use crate::names;
use crate::select::Area;
use crate::wire::{Element, Kind, Rules};

/// Emits the schema's files.
pub fn emit(model: &Model, files: &mut Vec<File>) -> Result<()> {
    let rules = Rules { model };
    let head = "use std::mem::offset_of;\n\
                use crate::layout::{Element, Kind, Len, UnionLayout, UnionMember, Value, layout};\n\
                use crate::vk;\nuse crate::vk::HandleType;\n\
                #[allow(unused_imports)] use super::*;\n";
    for area in Area::ALL {
        let mut out = String::from(head);
        for entry in model.structs.values().filter(|s| s.area == area) {
            structure(&mut out, rules, entry)?;
        }
        for entry in model.unions.values().filter(|u| u.area == area) {
            union(&mut out, rules, entry)?;
        }
        let path = format!("schema/{}.rs", area.module());
        files.push(File::new(
            &path,
            &format!("Structs of {} as data.", area.title()),
            out,
        ));
    }
    for (module, title) in MODULES {
        let mut out = String::from(head);
        out.push_str("use crate::command;\n");
        for entry in model.commands.iter().filter(|c| c.module == module) {
            command(&mut out, rules, entry)?;
        }
        let path = format!("schema/cmd_{module}.rs");
        files.push(File::new(&path, &format!("As data: {title}"), out));
    }
    let mut out = String::new();
    let modules = Area::ALL.iter().map(|a| a.module().to_owned());
    for module in modules.chain(MODULES.iter().map(|(m, _)| format!("cmd_{m}"))) {
        let _ = write!(out, "mod {module}; pub(crate) use {module}::*;");
    }
    files.push(File::new(
        "schema/mod.rs",
        "The wire rules of structs and commands as data.",
        out,
    ));
    Ok(())
}

/// The owner of members: its Rust type and its members.
struct Owner<'a> {
    c_name: &'a str,
    ty: String,
    members: &'a [Member],
}

impl Owner<'_> {
    fn offset(&self, member: &str) -> String {
        format!("offset_of!({}, {member})", self.ty)
    }

    fn len(&self, rules: Rules<'_>, len: &Len) -> String {
        let find = |name: &String| self.members.iter().find(|m| m.name == *name);
        match len {
            Len::Member(name) => {
                let member = find(name);
                let base = member.map_or("Value::U32".into(), |m| value(&m.base));
                let place = self.offset(name);
                if member.is_some_and(|m| m.depth > 0) {
                    format!("Len::Pointee({place}, {base})")
                } else {
                    format!("Len::Member({place}, {base})")
                }
            }
            Len::Through(pointer, name) => {
                let target = find(pointer)
                    .map(|m| rust::base(&m.base))
                    .unwrap_or_default();
                format!(
                    "Len::Through({}, offset_of!({target}, {name}))",
                    self.offset(pointer)
                )
            }
            Len::Const(n) => format!("Len::Const({n})"),
            Len::Quarter(name) => format!("Len::Quarter({})", self.offset(name)),
            Len::Words(name) => format!("Len::Words({})", self.offset(name)),
            Len::PerElement(array, name) => {
                let target = find(array).map(|m| rust::base(&m.base)).unwrap_or_default();
                let _ = rules;
                format!(
                    "Len::PerElement({}, size_of::<{target}>(), offset_of!({target}, {name}))",
                    self.offset(array)
                )
            }
            Len::Terminated => "Len::Const(0)".into(),
        }
    }

    fn kind(&self, rules: Rules<'_>, member: &Member, kind: &Kind) -> Result<String> {
        let element = |e: &Element| self.element(e);
        Ok(match kind {
            Kind::Type | Kind::Next => return Err(unknown(self.c_name, member)),
            Kind::Null => "Kind::Null".into(),
            Kind::Marker => "Kind::Marker".into(),
            Kind::Plain(Base::Struct(name)) | Kind::Struct(name) => {
                format!("Kind::Struct(&{})", names::screaming(name))
            }
            Kind::Plain(base) => format!("Kind::Value({})", value(base)),
            Kind::Handle(name, null) => {
                format!("Kind::Handle(HandleType::{}, {null})", names::plain(name))
            }
            Kind::PlainArray(Base::Struct(name), n) | Kind::StructArray(name, n) => {
                format!(
                    "Kind::Fixed(Element::Struct(&{}), {n})",
                    names::screaming(name)
                )
            }
            Kind::PlainArray(base, n) => {
                format!("Kind::Fixed(Element::Value({}), {n})", value(base))
            }
            Kind::HandleArray(name, n) => {
                format!(
                    "Kind::Fixed(Element::Handle(HandleType::{}, true), {n})",
                    names::plain(name)
                )
            }
            Kind::Union(name, selector) => {
                let selector = match selector {
                    Some(s) => format!("Some({})", self.offset(s)),
                    None => "None".into(),
                };
                format!("Kind::Union(&{}, {selector})", names::screaming(name))
            }
            Kind::Pointer(e, null) => format!("Kind::Pointer({}, {null})", element(e)),
            Kind::Array(e, len, null) => {
                format!(
                    "Kind::Array({}, {}, {null})",
                    element(e),
                    self.len(rules, len)
                )
            }
            Kind::Text(null) => format!("Kind::Text({null})"),
            Kind::Texts(len, null) => format!("Kind::Texts({}, {null})", self.len(rules, len)),
            Kind::Arrays(e, outer, inner, null) => format!(
                "Kind::Arrays({}, {}, {}, {null})",
                element(e),
                self.len(rules, outer),
                self.len(rules, inner)
            ),
        })
    }

    fn element(&self, element: &Element) -> String {
        match element {
            Element::Plain(Base::Struct(name)) | Element::Struct(name) => {
                format!("Element::Struct(&{})", names::screaming(name))
            }
            Element::Plain(base) => format!("Element::Value({})", value(base)),
            Element::Handle(name, null) => {
                format!(
                    "Element::Handle(HandleType::{}, {null})",
                    names::plain(name)
                )
            }
            Element::Union(name) => format!("Element::Union(&{})", names::screaming(name)),
        }
    }

    fn field(&self, rules: Rules<'_>, member: &Member, kind: &Kind) -> Result<String> {
        // An allocator is on the wire but not in the arguments.
        let has_place = !(self.ty.starts_with("command::") && *kind == Kind::Null);
        let offset = if has_place {
            self.offset(&member.name)
        } else {
            "0".into()
        };
        let mut text = format!(
            "    {:?}, {offset}, {}",
            member.c_name,
            self.kind(rules, member, kind)?
        );
        if Rules::is_length(self.members, &member.name) {
            text.push_str(", length");
        }
        Ok(text)
    }
}

fn value(base: &Base) -> String {
    let scalar = match base {
        Base::Alias("Bool32", _) => return "Value::Bool".into(),
        Base::Scalar(s) | Base::Alias(_, s) => *s,
        Base::Char => return "Value::Char".into(),
        Base::Enum(name) => return format!("Value::Enum(vk::{}::NAMES)", names::plain(name)),
        Base::Flags { name, wide } => {
            let width = if *wide { 64 } else { 32 };
            return format!("Value::Flags{width}(vk::{}::NAMES)", names::plain(name));
        }
        _ => Scalar::U8,
    };
    let name = match scalar {
        Scalar::U8 => "U8",
        Scalar::U16 => "U16",
        Scalar::U32 => "U32",
        Scalar::I32 => "I32",
        Scalar::F32 => "F32",
        Scalar::U64 => "U64",
        Scalar::I64 => "I64",
        Scalar::F64 => "F64",
        Scalar::Size => "Size",
    };
    format!("Value::{name}")
}

fn structure(out: &mut String, rules: Rules<'_>, entry: &Struct) -> Result<()> {
    let ty = format!("vk::{}", entry.name);
    let owner = Owner {
        c_name: &entry.c_name,
        ty,
        members: &entry.members,
    };
    let mut fields = String::new();
    for member in Rules::wire_order(entry) {
        let kind = rules.kind(&entry.c_name, member)?;
        if !matches!(kind, Kind::Type | Kind::Next) {
            let _ = writeln!(fields, "{};", owner.field(rules, member, &kind)?);
        }
    }
    let mut extra = String::new();
    if entry.stype.is_some() {
        let mut links: Vec<String> = entry
            .chain
            .iter()
            .map(|c| format!("&{}", names::screaming(c)))
            .collect();
        links.sort();
        let mut lines = String::new();
        for links in links.chunks(3) {
            let _ = write!(lines, "\n        {},", links.join(", "));
        }
        extra = format!(".chained({}, &[{lines}])", entry.stype_value);
    }
    layout(out, &entry.c_name, &owner.ty, &extra, &fields);
    Ok(())
}

/// One line for each field, inside a macro that rustfmt does not format.
fn layout(out: &mut String, c_name: &str, ty: &str, extra: &str, fields: &str) {
    let name = names::screaming(c_name);
    let _ = writeln!(
        out,
        "layout! {{ {name}, {ty}, {c_name:?}, {{ {extra} }}\n{fields}}}"
    );
}

fn union(out: &mut String, rules: Rules<'_>, entry: &Union) -> Result<()> {
    let ty = format!("vk::{}", entry.name);
    let owner = Owner {
        c_name: &entry.c_name,
        ty,
        members: &entry.members,
    };
    let mut members = String::new();
    for (index, member) in entry.members.iter().enumerate() {
        let kind = rules.kind(&entry.c_name, member)?;
        if kind == Kind::Null {
            continue;
        }
        let tags = match member.selection.as_slice() {
            [] => index.to_string(),
            selection => selection
                .iter()
                .map(|(_, v)| v.to_string())
                .collect::<Vec<_>>()
                .join(","),
        };
        let kind = owner.kind(rules, member, &kind)?;
        let is_default = entry.default == Some(index);
        let _ = write!(
            members,
            "UnionMember {{ name: {:?}, kind: {kind}, tags: &[{tags}], is_default: {is_default} }},",
            member.c_name
        );
    }
    let _ = write!(
        out,
        "pub(crate) static {}: UnionLayout = UnionLayout {{ name: {:?}, size: size_of::<{}>(), \
         members: &[{members}] }};",
        names::screaming(&entry.c_name),
        entry.c_name,
        owner.ty
    );
    Ok(())
}

fn command(out: &mut String, rules: Rules<'_>, entry: &Command) -> Result<()> {
    let ty = format!("command::{}", entry.name);
    let owner = Owner {
        c_name: &entry.c_name,
        ty,
        members: &entry.params,
    };
    let mut fields = String::new();
    for (index, param) in entry.params.iter().enumerate() {
        let mut kind = rules.kind(&entry.c_name, param)?;
        // The first object may never be null.
        if let (0, Kind::Handle(_, nullable)) = (index, &mut kind) {
            *nullable = false;
        }
        let direction = match direction(entry, param) {
            Direction::In => "",
            Direction::Out => ", out",
            Direction::InOut => ", in_out",
        };
        let _ = writeln!(fields, "{}{direction};", owner.field(rules, param, &kind)?);
    }
    let returns = match &entry.returns {
        Base::Void => String::new(),
        base => format!(".returning({})", value(base)),
    };
    let mut ty = owner.ty.clone();
    if held(rules, entry)
        .flatten()
        .any(|(_, kind)| has_lifetime(&kind))
    {
        ty.push_str("<'static>");
    }
    layout(out, &entry.c_name, &ty, &returns, &fields);
    Ok(())
}

fn has_lifetime(kind: &Kind) -> bool {
    !matches!(
        kind,
        Kind::Plain(_) | Kind::Handle(..) | Kind::PlainArray(..)
    )
}
