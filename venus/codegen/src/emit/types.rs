//! Emits enums, flags, handles, structs and unions.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::emit::file::File;
use crate::emit::rust::{self, Knowledge, nullable};
use crate::error::Result;
use crate::model::{Enum, Member, Model, Struct, Union};
use crate::names;
use crate::select::Area;
use crate::wire::Rules;

/// Emits all files with types.
pub fn emit(model: &Model, files: &mut Vec<File>) -> Result<()> {
    let (flags, enums): (Vec<&Enum>, Vec<&Enum>) = model.enums.values().partition(|e| e.flags != 0);
    let mut out = String::new();
    for entry in enums {
        constants(&mut out, "enumeration", "i32", entry);
    }
    files.push(File::new(
        "types/enums.rs",
        "Enums: any value is valid, and known values have names.",
        out,
    ));
    let mut out = String::new();
    for entry in flags {
        let repr = if entry.flags == 64 { "u64" } else { "u32" };
        constants(&mut out, "flags", repr, entry);
    }
    files.push(File::new(
        "types/flags.rs",
        "Sets of flags: any bits are valid.",
        out,
    ));
    files.push(handles(model));
    for area in Area::ALL {
        let mut out = String::from("use std::ffi::{c_char, c_void};\nuse crate::vk;\n");
        for entry in model.structs.values().filter(|s| s.area == area) {
            structure(&mut out, model, entry);
        }
        for entry in model.unions.values().filter(|u| u.area == area) {
            union(&mut out, entry);
        }
        let path = format!("types/{}.rs", area.module());
        files.push(File::new(
            &path,
            &format!("Structs of {}.", area.title()),
            out,
        ));
    }
    let mut out = String::new();
    for module in ["enums", "flags", "handles"] {
        let _ = write!(out, "mod {module}; pub use {module}::*;");
    }
    for area in Area::ALL {
        let _ = write!(out, "mod {0}; pub use {0}::*;", area.module());
    }
    files.push(File::new(
        "types/mod.rs",
        "Vulkan's types, laid out as in C.",
        out,
    ));
    Ok(())
}

/// One line for each constant, because rustfmt does not format these macros.
fn constants(out: &mut String, kind: &str, repr: &str, entry: &Enum) {
    let name = names::plain(&entry.c_name);
    let known = match entry.flags {
        0 => ranges(&entry.known),
        _ => {
            // Names for several flags together are no flags.
            let bits = entry.known.iter().filter(|bit| bit.count_ones() == 1);
            format!("{:#x}", bits.fold(0, |all, bit| all | bit))
        }
    };
    let _ = writeln!(
        out,
        "crate::macros::{kind}! {{ {name}: {repr}, {:?}, [{known}] {{",
        entry.c_name
    );
    for (constant, value) in &entry.values {
        let _ = match entry.flags {
            0 => writeln!(out, "    {constant} = {value},"),
            _ => writeln!(out, "    {constant} = {value:#x},"),
        };
    }
    out.push_str("}}\n");
}

/// Values as ranges, with commas between them.
fn ranges(values: &BTreeSet<i64>) -> String {
    let mut ranges: Vec<(i64, i64)> = Vec::new();
    for &value in values {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == value => *last = value,
            _ => ranges.push((value, value)),
        }
    }
    let texts = ranges.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}..={last}"),
    });
    texts.collect::<Vec<_>>().join(", ")
}

fn handles(model: &Model) -> File {
    let mut out = String::from("crate::macros::handles! {\n");
    for (name, object) in &model.handles {
        let _ = writeln!(out, "    {} = {object}, {name:?};", names::plain(name));
    }
    out.push_str("}\n");
    File::new("types/handles.rs", "Object handles and their types.", out)
}

fn structure(out: &mut String, model: &Model, entry: &Struct) {
    let _ = write!(
        out,
        "/// `{}`\n#[repr(C)]\n#[derive(Clone, Copy)]\npub struct {} {{",
        entry.c_name, entry.name
    );
    for member in &entry.members {
        let _ = write!(out, "pub {}: {},", member.name, rust::member(member));
    }
    out.push_str("}\n");
    let name = &entry.name;
    let is_plain = Rules { model }
        .plain_size(&crate::model::Base::Struct(entry.c_name.clone()))
        .is_some();
    let _ = match &entry.stype {
        Some(stype) => writeln!(out, "crate::macros::structure!({name}, {stype});"),
        None if is_plain => {
            let members: String = entry.members.iter().map(|m| known(model, m)).collect();
            let members = match members.trim_end() {
                "" => String::new(),
                members => format!(" {{ {members} }}"),
            };
            writeln!(out, "crate::macros::structure!(plain {name}{members});")
        }
        None => writeln!(out, "crate::macros::structure!({name});"),
    };
}

/// A member of a plain struct whose values are demanded to be known.
fn known(model: &Model, member: &Member) -> String {
    match rust::knowledge(model, member) {
        Some(Knowledge::Type) => format!("{}; ", member.name),
        Some(Knowledge::Bit(is_optional)) => format!("{} {}; ", member.name, nullable(is_optional)),
        None => String::new(),
    }
}

fn union(out: &mut String, entry: &Union) {
    let _ = write!(
        out,
        "/// `{}`\n#[repr(C)]\n#[derive(Clone, Copy)]\npub union {} {{",
        entry.c_name, entry.name
    );
    for member in &entry.members {
        let _ = write!(out, "pub {}: {},", member.name, rust::member(member));
    }
    let _ = write!(out, "}}\ncrate::macros::structure!({});", entry.name);
}
