//! The project's own data files (`venus/codegen/data/*.tsv`): what vk.xml does not have.
//!
//! They are tab-separated. `#` starts a comment, and the first other line names the columns. They
//! are compiled into the generator, so that its output depends on nothing else but the registry.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::reader::{CommandDecl, Declaration, EnumValue};

/// A command's number and properties.
#[derive(Debug, Clone)]
pub struct CommandRow {
    /// `VkCommandTypeEXT`.
    pub number: u32,
    /// `vk…`.
    pub name: String,
    /// Its other names, from the extensions from which it was promoted.
    pub aliases: Vec<String>,
    /// Whether the command has requests and replies on the wire.
    pub codable: bool,
}

/// An extension that the protocol supports.
#[derive(Debug, Clone)]
pub struct ExtensionRow {
    /// `VK_…`.
    pub name: String,
    /// Its number in the registry, which is its bit in the capset's mask.
    pub number: u32,
    /// The highest `specVersion` to report.
    pub spec_version: u32,
    /// Whether the reference reports the extension if the host has it. The guest's driver
    /// implements the others itself.
    pub advertised: bool,
    /// Instance, device or private.
    pub kind: String,
}

/// A struct of `VK_MESA_venus_protocol`.
#[derive(Debug, Clone)]
pub struct PrivateStruct {
    /// `Vk…MESA`.
    pub name: String,
    /// The sType, if it has one.
    pub stype: Option<EnumValue>,
    /// Structs whose chain may hold it.
    pub extends: Vec<String>,
    /// Members in order.
    pub members: Vec<Declaration>,
}

/// A rule for the numbers of a command.
#[derive(Debug, Clone)]
pub struct RuleRow {
    /// `vk…`.
    pub command: String,
    /// Before the driver is called, or after it made an object.
    pub when: When,
    /// The method of the protocol's `Rules`.
    pub rule: String,
    /// What it gets.
    pub arguments: Vec<String>,
}

/// When a rule is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Before the driver is called.
    Check,
    /// After the driver made an object.
    Made,
}

/// Everything in `data/`.
#[derive(Debug)]
pub struct Tables {
    /// All command numbers in order.
    pub commands: Vec<CommandRow>,
    /// All extensions in order of their numbers.
    pub extensions: Vec<ExtensionRow>,
    /// Private structs.
    pub structs: Vec<PrivateStruct>,
    /// Private commands.
    pub private: BTreeMap<String, CommandDecl>,
    /// Private flag bits by enum.
    pub bits: BTreeMap<String, Vec<EnumValue>>,
    /// Private flag types.
    pub flags: Vec<String>,
    /// Structs that are left out.
    pub excluded: Vec<String>,
    /// The member that guests send for a union without a selector.
    pub unions: BTreeMap<String, String>,
    /// Inner lengths: (command, parameter) → (array, member).
    pub lengths: BTreeMap<(String, String), (String, String)>,
    /// The (command, parameter) pairs of pointers that are read and written.
    pub inout: Vec<(String, String)>,
    /// The (owner, member) pairs of arrays whose elements may be null.
    pub nullable: Vec<(String, String)>,
    /// The (owner, member) pairs of pointers of which only the presence is sent.
    pub markers: Vec<(String, String)>,
    /// What is demanded of numbers.
    pub rules: Vec<RuleRow>,
}

/// A line of a table.
struct Row<'a> {
    file: &'static str,
    line: usize,
    columns: Vec<&'a str>,
}

impl<'a> Row<'a> {
    fn error(&self, reason: impl Into<String>) -> Error {
        Error::Table {
            file: self.file,
            line: self.line,
            reason: reason.into(),
        }
    }

    fn get(&self, column: usize) -> Result<&'a str> {
        let missing = || self.error(format!("column {} is missing", column + 1));
        self.columns.get(column).copied().ok_or_else(missing)
    }

    fn number<T: std::str::FromStr>(&self, column: usize) -> Result<T> {
        let text = self.get(column)?;
        text.parse()
            .map_err(|_| self.error(format!("`{text}` is not a number")))
    }
}

fn rows<'a>(file: &'static str, text: &'a str) -> Vec<Row<'a>> {
    text.lines()
        .enumerate()
        .filter(|(_, line)| !line.starts_with('#') && !line.trim().is_empty())
        .skip(1)
        .map(|(i, line)| Row {
            file,
            line: i + 1,
            columns: line.split('\t').collect(),
        })
        .collect()
}

/// Reads all tables.
pub fn load() -> Result<Tables> {
    let mut commands = Vec::new();
    for row in rows("commands.tsv", include_str!("../data/commands.tsv")) {
        commands.push(CommandRow {
            number: row.number(0)?,
            name: row.get(1)?.to_owned(),
            aliases: match row.get(2)? {
                "-" => Vec::new(),
                names => names.split(',').map(str::to_owned).collect(),
            },
            codable: row.get(4)? == "serialize",
        });
    }
    let mut extensions = Vec::new();
    for row in rows("extensions.tsv", include_str!("../data/extensions.tsv")) {
        extensions.push(ExtensionRow {
            name: row.get(0)?.to_owned(),
            number: row.number(1)?,
            spec_version: row.number(4)?,
            advertised: row.get(5)? == "yes",
            kind: row.get(6)?.to_owned(),
        });
    }
    let mut tables = Tables {
        commands,
        extensions,
        structs: Vec::new(),
        private: BTreeMap::new(),
        bits: BTreeMap::new(),
        flags: Vec::new(),
        excluded: Vec::new(),
        unions: BTreeMap::new(),
        lengths: BTreeMap::new(),
        inout: Vec::new(),
        nullable: Vec::new(),
        markers: Vec::new(),
        rules: Vec::new(),
    };
    for row in rows(
        "private-structs.tsv",
        include_str!("../data/private-structs.tsv"),
    ) {
        read_private(&row, &mut tables)?;
    }
    for row in rows("excluded.tsv", include_str!("../data/excluded.tsv")) {
        tables.excluded.push(row.get(0)?.to_owned());
    }
    for row in rows("unions.tsv", include_str!("../data/unions.tsv")) {
        tables
            .unions
            .insert(row.get(0)?.to_owned(), row.get(1)?.to_owned());
    }
    for row in rows("lengths.tsv", include_str!("../data/lengths.tsv")) {
        let inner = row.get(2)?;
        let (array, member) = inner
            .split_once("[i].")
            .ok_or_else(|| row.error(format!("`{inner}` is not of the form array[i].member")))?;
        let place = (row.get(0)?.to_owned(), row.get(1)?.to_owned());
        tables
            .lengths
            .insert(place, (array.to_owned(), member.to_owned()));
    }
    for row in rows("inout.tsv", include_str!("../data/inout.tsv")) {
        tables
            .inout
            .push((row.get(0)?.to_owned(), row.get(1)?.to_owned()));
    }
    for row in rows("nullable.tsv", include_str!("../data/nullable.tsv")) {
        tables
            .nullable
            .push((row.get(0)?.to_owned(), row.get(1)?.to_owned()));
    }
    for row in rows("markers.tsv", include_str!("../data/markers.tsv")) {
        tables
            .markers
            .push((row.get(0)?.to_owned(), row.get(1)?.to_owned()));
    }
    for row in rows("rules.tsv", include_str!("../data/rules.tsv")) {
        tables.rules.push(RuleRow {
            command: row.get(0)?.to_owned(),
            when: match row.get(1)? {
                "check" => When::Check,
                "made" => When::Made,
                other => return Err(row.error(format!("`{other}` is not a time of a rule"))),
            },
            rule: row.get(2)?.to_owned(),
            arguments: row.get(3)?.split(' ').map(str::to_owned).collect(),
        });
    }
    Ok(tables)
}

fn read_private(row: &Row<'_>, tables: &mut Tables) -> Result<()> {
    let name = row.get(1)?.to_owned();
    match row.get(0)? {
        "struct" => {
            let stype = match row.get(2)? {
                "-" => None,
                stype => Some(EnumValue {
                    name: stype.to_owned(),
                    value: row.number(3)?,
                }),
            };
            let extends = match row.get(4)? {
                "-" => Vec::new(),
                parents => parents.split(',').map(str::to_owned).collect(),
            };
            let mut members = read_members(row)?;
            if let (Some(first), Some(stype)) = (members.first_mut(), &stype) {
                first.values = Some(stype.name.clone());
            }
            tables.structs.push(PrivateStruct {
                name,
                stype,
                extends,
                members,
            });
        }
        "command" => {
            let returns = row.get(2)?.to_owned();
            let params = read_members(row)?;
            tables.private.insert(name, CommandDecl { returns, params });
        }
        "enum" => {
            let text = row.get(3)?;
            let value = i64::from_str_radix(text.trim_start_matches("0x"), 16)
                .map_err(|_| row.error(format!("`{text}` is not a hexadecimal number")))?;
            let value = EnumValue {
                name: row.get(2)?.to_owned(),
                value,
            };
            tables.bits.entry(name).or_default().push(value);
        }
        "flags" => tables.flags.push(name),
        kind => return Err(row.error(format!("`{kind}` is not a kind of private definition"))),
    }
    Ok(())
}

/// Reads `const VkX* pY {len=n;optional} | …` as declarations.
fn read_members(row: &Row<'_>) -> Result<Vec<Declaration>> {
    let mut members = Vec::new();
    for text in row.get(5)?.split(" | ") {
        let (text, attributes) = match text.split_once(" {") {
            Some((text, rest)) => (text, rest.trim_end_matches('}')),
            None => (text, ""),
        };
        let (ty, name) = text
            .rsplit_once(' ')
            .ok_or_else(|| row.error(format!("`{text}` is not a member")))?;
        let mut member = Declaration {
            name: name.to_owned(),
            depth: ty.matches('*').count(),
            is_const: ty.starts_with("const "),
            ty: ty
                .trim_start_matches("const ")
                .replace('*', "")
                .trim()
                .to_owned(),
            ..Declaration::default()
        };
        for attribute in attributes.split(';').filter(|a| !a.is_empty()) {
            match attribute.split_once('=') {
                Some(("len", len)) => member.len.push(len.to_owned()),
                None if attribute == "optional" => member.optional.push(true),
                _ => return Err(row.error(format!("`{attribute}` is not an attribute"))),
            }
        }
        members.push(member);
    }
    Ok(members)
}
