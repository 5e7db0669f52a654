//! Emits the command and extension tables.

use std::fmt::Write as _;

use crate::emit::File;
use crate::model::Model;
use crate::names;

/// The tables' files.
pub fn emit(model: &Model, files: &mut Vec<File>) {
    let highest = model.numbers.iter().map(|c| c.number).max().unwrap_or(0);
    let mut ids = String::from(
        "/// A command by name; its value is the number on the wire.\n\
         #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]\n#[repr(u16)]\n\
         pub enum CommandId {",
    );
    for row in &model.numbers {
        let name = names::plain(&row.name);
        let _ = write!(ids, "/// `{}`\n{name} = {},", row.name, row.number);
    }
    let _ = write!(
        ids,
        "}}\n/// One more than the highest command number.\npub const COMMAND_COUNT: usize = {};\n",
        highest + 1
    );
    ids.push_str(
        "use crate::schema; use crate::table::{CommandInfo, Of, info};\n\
         /// What is known about each command, by its number.\n\
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
                "Some(info::<Of<{number}>>({:?}, &schema::{})),",
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
    files.push(File::new(
        "commands.rs",
        "Command numbers and the table of commands.",
        ids,
    ));

    let mut out = String::from(
        "use crate::table::{Extension, ExtensionKind};\n\
         /// Extensions that the protocol can carry, by number.\n\
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
}
