//! Emits the driver's function tables, and for each command the call of its function.
//!
//! A table holds the functions of one `vkGet*ProcAddr`: the functions of no object, of an instance
//! or of a device. A function that the driver does not have, or that is not enabled, is `None`
//! there.

use std::fmt::Write as _;

use crate::emit::file::{File, unknown};
use crate::emit::{rules, rust};
use crate::error::Result;
use crate::model::{Base, Command, Member, Model};
use crate::names;
use crate::wire::{Kind, Rules};

/// The tables: name, documentation.
const TABLES: [(&str, &str); 3] = [
    ("EntryTable", "Functions of no object."),
    (
        "InstanceTable",
        "Functions of an instance and its physical devices.",
    ),
    (
        "DeviceTable",
        "Functions of a device, its queues and command buffers.",
    ),
];

/// Emits the file with tables and calls.
pub fn emit(model: &Model, files: &mut Vec<File>) -> Result<()> {
    let rules = Rules { model };
    let mut out = String::from(
        "use std::ffi::{CStr, c_char, c_void}; use std::ptr;\n\
         use crate::call::{Call, Function}; use crate::command; use crate::rules::{Limit, Rules as Demands, all}; use crate::vk;\n",
    );
    rules::are_of_commands(model)?;
    for (table, title) in TABLES {
        let (mut fields, mut loads) = (String::new(), String::new());
        for command in model.commands.iter().filter(|c| table_of(c) == Some(table)) {
            let field = names::snake(&command.name);
            let types = signature(rules, command)?;
            let aliases = model.numbers.iter().find(|r| r.number == command.number);
            let all =
                std::iter::once(&command.c_name).chain(aliases.iter().flat_map(|r| &r.aliases));
            let spelled: String = all.map(|name| format!("c{name:?},")).collect();
            let _ = write!(
                fields,
                "/// `{}`\npub {field}: Option<unsafe extern \"system\" fn({}) {}>,",
                command.c_name,
                types.join(", "),
                returns(command)
            );
            // The SAFETY comments in the generated text name what the caller of `load` must ensure.
            let _ = write!(
                loads,
                "{field}: first(get, &[{spelled}]).map(|f| {{ \
                 // SAFETY: the caller ensures that the function has this name, and so this type.\n\
                 unsafe {{ std::mem::transmute::<Function, unsafe extern \"system\" fn({}) {}>(f) }} }}),",
                types.join(", "),
                returns(command)
            );
        }
        let _ = write!(
            out,
            "/// {title}\n#[derive(Clone)]\npub struct {table} {{ {fields} }}\n\
             impl {table} {{ /// Gets every function from `get`, by its core name or else by its extensions' names.\n\
             ///\n/// # Safety\n/// What `get` returns must be the Vulkan function of that name.\n\
             pub unsafe fn load(get: &mut dyn FnMut(&CStr) -> Option<Function>) -> Self {{ \
             Self {{ {loads} }} }} }}\n"
        );
    }
    out.push_str(
        "fn first(get: &mut dyn FnMut(&CStr) -> Option<Function>, names: &[&CStr]) -> \
         Option<Function> { names.iter().find_map(|name| get(name)) }\n",
    );
    for command in &model.commands {
        if let Some(table) = table_of(command) {
            call(&mut out, rules, command, table)?;
        }
    }
    files.push(File::new(
        "calls.rs",
        "The driver's functions, and their calls.",
        out,
    ));
    Ok(())
}

/// The table of a command's function. Commands of `VK_MESA_venus_protocol` have no function.
fn table_of(command: &Command) -> Option<&'static str> {
    if command.module == "mesa" {
        return None;
    }
    let first = command.params.first().map(|p| &p.base);
    Some(match first {
        Some(Base::Handle(name)) if name == "VkInstance" || name == "VkPhysicalDevice" => {
            "InstanceTable"
        }
        Some(Base::Handle(_)) => "DeviceTable",
        _ => "EntryTable",
    })
}

/// Whether the command's function comes from a device.
pub(super) fn is_of_device(command: &Command) -> bool {
    table_of(command) == Some("DeviceTable")
}

fn returns(command: &Command) -> String {
    match &command.returns {
        Base::Void => String::new(),
        base => format!("-> {}", rust::base(base)),
    }
}

fn signature(rules: Rules<'_>, command: &Command) -> Result<Vec<String>> {
    let types = command
        .params
        .iter()
        .map(|p| Ok(parameter(rules, command, p)?.0));
    types.collect()
}

/// A parameter's C type, and its value from the arguments in `self`.
fn parameter(rules: Rules<'_>, command: &Command, param: &Member) -> Result<(String, String)> {
    let kind = rules.kind(&command.c_name, param)?;
    let (target, name) = (rust::value(&param.base), &param.name);
    let elements = if param.base == Base::Void {
        "u8".to_owned()
    } else {
        target.clone()
    };
    Ok(match &kind {
        Kind::Null => ("*const c_void".into(), "ptr::null()".into()),
        Kind::Plain(_) => (target, format!("self.{name}")),
        Kind::Handle(..) => (target, format!("self.{name}.handle")),
        Kind::PlainArray(_, n) => (
            format!("*const [{target}; {n}]"),
            format!("&raw const self.{name}"),
        ),
        Kind::Pointer(_, true) => (
            format!("*mut {target}"),
            format!("self.{name}.as_deref_mut().map_or(ptr::null_mut(), ptr::from_mut)"),
        ),
        Kind::Pointer(_, false) => (format!("*mut {target}"), format!("&raw mut *self.{name}")),
        Kind::Array(..) if param.is_const => (
            format!("*const {elements}"),
            format!("self.{name}.as_ptr()"),
        ),
        Kind::Array(..) => (
            format!("*mut {elements}"),
            format!("self.{name}.as_mut_ptr()"),
        ),
        Kind::Text(_) => ("*const c_char".into(), format!("self.{name}.as_ptr()")),
        Kind::Arrays(..) => (
            format!("*const *const {target}"),
            format!("self.{name}.as_ptr()"),
        ),
        _ => return Err(unknown(&command.c_name, param)),
    })
}

fn call(out: &mut String, rules: Rules<'_>, command: &Command, table: &str) -> Result<()> {
    let mut values = String::new();
    for param in &command.params {
        let (_, value) = parameter(rules, command, param)?;
        let _ = write!(values, "{value},");
    }
    let name = &command.name;
    let field = names::snake(name);
    let life = if borrows(rules, command)? { "<'a>" } else { "" };
    let followed = rules::methods(rules, command)?;
    let _ = write!(
        out,
        "impl<'a> Call<'a> for command::{name}{life} {{ type Table = {table};\n\
         #[inline] unsafe fn call(&mut self, table: &{table}) -> Option<Self::Return> {{ \
         let function = table.{field}?;\n\
         // SAFETY: the arguments have the function's types, and the caller ensures that the\n\
         // driver may be called with them.\n\
         Some(unsafe {{ function({values}) }}) }} {followed} }}\n"
    );
    Ok(())
}

/// Whether the arguments borrow from the arena, by the same rule as in `command`.
fn borrows(rules: Rules<'_>, command: &Command) -> Result<bool> {
    for param in &command.params {
        let kind = rules.kind(&command.c_name, param)?;
        if !matches!(
            kind,
            Kind::Null | Kind::Plain(_) | Kind::Handle(..) | Kind::PlainArray(..)
        ) {
            return Ok(true);
        }
    }
    Ok(false)
}
