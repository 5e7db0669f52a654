//! Emits the command and extension tables.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use crate::emit::calls;
use crate::emit::commands::is_simple;
use crate::emit::file::File;
use crate::error::Result;
use crate::model::{Model, Provider};
use crate::names;
use crate::wire::Rules;

/// Emits the tables' files.
pub fn emit(model: &Model, files: &mut Vec<File>) -> Result<()> {
    let rules = Rules { model };
    let mut simple = BTreeSet::new();
    for command in &model.commands {
        if is_simple(rules, command)? {
            simple.insert(command.number);
        }
    }
    let highest = model.numbers.iter().map(|c| c.number).max().unwrap_or(0);
    let mut ids = String::from(
        "/// A command by its name. Its value is the number on the wire.\n\
         #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]\n#[repr(u16)]\n\
         pub enum CommandId {",
    );
    for row in &model.numbers {
        let name = names::plain(&row.name);
        let _ = write!(ids, "/// `{}`\n{name} = {},", row.name, row.number);
    }
    let _ = write!(
        ids,
        "}}\n/// One more than the highest command number.\npub const COMMAND_COUNT: usize = {};\n\
         /// Each command and its C name, by its number.\n\
         pub(crate) static COMMAND_NAMES: [Option<(CommandId, &str)>; COMMAND_COUNT] = [",
        highest + 1
    );
    for number in 0..=highest {
        let _ = match model.numbers.iter().find(|r| r.number == number) {
            Some(row) => {
                let name = names::plain(&row.name);
                write!(ids, "Some((CommandId::{name}, {:?})),", row.name)
            }
            None => write!(ids, "None,"),
        };
    }
    ids.push_str("];\n");
    files.push(File::new("numbers.rs", "Command numbers and names.", ids));

    let mut ids = String::from(
        "use super::numbers::{COMMAND_COUNT, CommandId}; use crate::schema; \
         use crate::command_info::{CommandInfo, Of, info, simple_info};\n\
         /// The properties of each command, by its number.\n\
         pub static COMMANDS: [Option<CommandInfo>; COMMAND_COUNT] = [",
    );
    for number in 0..=highest {
        let Some(row) = model.numbers.iter().find(|r| r.number == number) else {
            ids.push_str("None,");
            continue;
        };
        let name = names::plain(&row.name);
        let _ = match row.codable {
            true => write!(
                ids,
                "Some({}::<Of<{number}>>({:?}, &schema::{})),",
                match simple.contains(&number) {
                    true => "simple_info",
                    false => "info",
                },
                row.name,
                names::screaming(&row.name)
            ),
            false => write!(
                ids,
                "Some(CommandInfo::reserved(CommandId::{name}, {:?})),",
                row.name
            ),
        };
    }
    ids.push_str("];\n");
    files.push(File::new("commands.rs", "The table of commands.", ids));

    let mut out = String::from(
        "use crate::table::{Extension, ExtensionKind};\n\
         /// Extensions that the protocol supports, by number.\n\
         pub static EXTENSIONS: &[Extension] = &[",
    );
    for e in &model.extensions {
        let kind = match e.kind.as_str() {
            "instance" => "Instance",
            "device" => "Device",
            _ => "Private",
        };
        let _ = write!(
            out,
            "Extension {{ name: c{:?}, number: {}, spec_version: {}, kind: ExtensionKind::{kind}, \
             advertised: {} }},",
            e.name, e.number, e.spec_version, e.advertised
        );
    }
    out.push_str("];\n");
    files.push(File::new("extensions.rs", "The table of extensions.", out));
    files.push(core(model));
    Ok(())
}

/// The versions and extensions that provide the command of this name.
fn providers<'m>(model: &'m Model, command: &'m str) -> impl Iterator<Item = &'m Provider> {
    let all = model.providers.iter();
    all.filter(move |(name, _)| name == command)
        .map(|(_, provider)| provider)
}

/// Emits the table of device commands that were added to Vulkan's core in 1.1 or later.
fn core(model: &Model) -> File {
    let mut out = String::from(
        "use crate::table::CoreCommand;\n\
         /// Device commands added in Vulkan 1.1 or later, by the version's minor number.\n\
         pub static CORE_COMMANDS: &[CoreCommand] = &[",
    );
    let mut rows = Vec::new();
    for command in model.commands.iter().filter(|c| calls::is_of_device(c)) {
        let minor = providers(model, &command.c_name).find_map(|provider| match provider {
            Provider::Core(minor) => Some(*minor),
            Provider::Extension(_) => None,
        });
        let Some(minor) = minor.filter(|minor| *minor > 0) else {
            continue;
        };
        let row = model.numbers.iter().find(|r| r.number == command.number);
        let aliases = row.map(|r| r.aliases.as_slice()).unwrap_or_default();
        let older: String = aliases
            .iter()
            .flat_map(|alias| {
                providers(model, alias).filter_map(move |provider| match provider {
                    Provider::Extension(name) => Some(format!("(c{alias:?}, c{name:?}),")),
                    Provider::Core(_) => None,
                })
            })
            .collect();
        rows.push((
            minor,
            format!(
                "CoreCommand {{ name: c{:?}, minor: {minor}, older: &[{older}] }},",
                command.c_name
            ),
        ));
    }
    rows.sort();
    out.extend(rows.into_iter().map(|(_, row)| row));
    out.push_str("];\n");
    out.push_str(
        "/// The Vulkan versions and extensions that provide a command, sorted by its C name.\n\
         pub static PROVIDERS: &[(&str, &str)] = &[",
    );
    let mut names: Vec<_> = model.commands.iter().map(|c| c.c_name.as_str()).collect();
    names.sort_unstable();
    for name in names {
        let mut all: Vec<String> = Vec::new();
        let row = model.numbers.iter().find(|row| row.name == name);
        let older = row.into_iter().flat_map(|row| &row.aliases);
        let spelled = std::iter::once(name).chain(older.map(String::as_str));
        for provider in spelled.flat_map(|name| providers(model, name)) {
            let text = match provider {
                Provider::Core(minor) => format!("Vulkan 1.{minor}"),
                Provider::Extension(name) => name.clone(),
            };
            if !all.contains(&text) {
                all.push(text);
            }
        }
        if !all.is_empty() {
            let _ = write!(out, "({name:?}, {:?}),", all.join(", "));
        }
    }
    out.push_str("];\n");
    File::new(
        "core.rs",
        "The providers of commands: core versions and extensions.",
        out,
    )
}
