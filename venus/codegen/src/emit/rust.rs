//! Rust spellings of types and lengths, and the grouping of reads and writes.

use crate::model::{Base, Len, Member, Model};
use crate::names;

/// The type behind pointers and arrays, as a path from a generated module.
pub fn base(base: &Base) -> String {
    match base {
        Base::Void => "c_void".into(),
        Base::Char => "c_char".into(),
        Base::Scalar(s) => s.rust().into(),
        Base::Alias(name, _) => format!("vk::{name}"),
        Base::Enum(name) | Base::Handle(name) | Base::Struct(name) | Base::Union(name) => {
            format!("vk::{}", names::plain(name))
        }
        Base::Flags { name, .. } => format!("vk::{}", names::plain(name)),
    }
}

/// The type of a value. Strings in fixed arrays are bytes.
pub fn value(ty: &Base) -> String {
    match ty {
        Base::Char => "u8".into(),
        other => base(other),
    }
}

/// The type of a struct member, with C's layout.
pub fn member(m: &Member) -> String {
    let target = base(&m.base);
    match (m.depth, m.dim) {
        (0, None) => value(&m.base),
        (0, Some(n)) => format!("[{}; {n}]", value(&m.base)),
        (1, _) if m.is_const => format!("*const {target}"),
        (1, _) => format!("*mut {target}"),
        _ => format!("*const *const {target}"),
    }
}

/// The value of a length as a `u64`. `read` returns the code that reads a member.
pub fn length(len: &Len, read: &dyn Fn(&str) -> String) -> String {
    match len {
        Len::Member(name) => format!("{} as u64", read(name)),
        Len::Through(pointer, name) => format!("{pointer}.{name} as u64"),
        Len::Const(n) => n.to_string(),
        Len::Quarter(name) => format!("{} as u64 / 4", read(name)),
        Len::Words(name) => format!("(u64::from({}.0) + 31) / 32", read(name)),
        Len::Terminated | Len::PerElement(..) => unreachable_length(),
    }
}

/// The value of a length that has none: inner lengths and strings are handled where they occur.
fn unreachable_length() -> String {
    "compile_error!(\"this length has no value of its own\")".into()
}

/// A chain's structs, as a list of links in ascending order of their sTypes.
pub fn chain(model: &Model, chain: &[String], link: &str) -> String {
    let mut links: Vec<(i64, String)> = chain
        .iter()
        .filter_map(|c| model.structs.get(c))
        .map(|s| {
            // Outputs never repeat in the registry.
            let repeats = if s.repeats && link == "InLink" {
                ".repeating()"
            } else {
                ""
            };
            (
                s.stype_value,
                format!("{link}::of::<vk::{}>(){repeats}", s.name),
            )
        })
        .collect();
    links.sort();
    links.iter().map(|(_, text)| format!("{text},")).collect()
}

/// What is demanded of a member's plain values before a driver gets them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Knowledge {
    /// Its type says it: it is an enum, or a struct with such members.
    Type,
    /// One flag that has a name, or none at all if that is allowed or has a name, too.
    Bit(bool),
}

/// What is demanded of a member's plain values; `None` if every value is as good as another.
///
/// Types of external handles are not looked at: guests ask for types that no system here has, and
/// drivers compare them, but index nothing by them.
pub fn knowledge(model: &Model, member: &Member) -> Option<Knowledge> {
    match &member.base {
        Base::Enum(_) => Some(Knowledge::Type),
        Base::Flags { name, .. } if member.is_bit && !name.contains("HandleType") => {
            let has_none = model.enums.get(name).is_some_and(|e| e.known.contains(&0));
            let is_optional = member.optional || member.noautovalidity || has_none;
            Some(Knowledge::Bit(is_optional))
        }
        Base::Struct(name) => {
            let entry = model.structs.get(name)?;
            let mut members = entry.members.iter().map(|m| knowledge(model, m));
            members.any(|m| m.is_some()).then_some(Knowledge::Type)
        }
        _ => None,
    }
}

/// The code that reads a plain value of an input. `{at}` in it is the offset.
pub fn input(model: &Model, member: &Member) -> String {
    match knowledge(model, member) {
        Some(Knowledge::Type) => "d.known(p.get::<_, {at}>())".into(),
        Some(Knowledge::Bit(is_optional)) => {
            format!("d.bit(p.get::<_, {{at}}>(), {})", nullable(is_optional))
        }
        None => "p.get::<_, {at}>()".into(),
    }
}

/// A step of the generated code.
#[derive(Debug, Clone)]
pub enum Step {
    /// Reads or writes this many bytes. `{at}` in the code is the offset in the prefix.
    Fixed(u32, String),
    /// Accesses no bytes.
    Check(String),
    /// Reads or writes bytes by itself.
    Flow(String),
}

/// Writes the steps as code. Each run of fixed bytes needs only one bounds check.
pub fn write_steps(steps: &[Step], open: &dyn Fn(u32) -> String) -> String {
    let mut out = String::new();
    for run in steps.split_inclusive(|s| matches!(s, Step::Flow(_))) {
        let total: u32 = run
            .iter()
            .map(|s| if let Step::Fixed(n, _) = s { *n } else { 0 })
            .sum();
        if total > 0 {
            out.push_str(&open(total));
        }
        let mut at = 0;
        for step in run {
            match step {
                Step::Fixed(size, code) => {
                    out.push_str(&code.replace("{at}", &at.to_string()));
                    at += size;
                }
                Step::Check(code) | Step::Flow(code) => out.push_str(code),
            }
            out.push('\n');
        }
    }
    out
}

/// `OPTIONAL` or `REQUIRED`.
pub fn nullable(is_nullable: bool) -> &'static str {
    if is_nullable { "OPTIONAL" } else { "REQUIRED" }
}

/// Rounds up to a word.
pub fn padded(size: u32) -> u32 {
    size.next_multiple_of(4)
}
