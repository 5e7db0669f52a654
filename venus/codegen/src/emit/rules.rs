//! Emits the checks of numbers before a driver's function is called, and what is kept of new
//! objects for them, from `data/rules.tsv`.

use std::fmt::Write as _;

use crate::error::{Error, Result};
use crate::model::{Base, Command, Len, Member, Model, Scalar};
use crate::tables::{RuleRow, When};
use crate::wire::{Element, Kind, Rules};

/// Fails for a rule of a command that does not exist.
pub fn are_of_commands(model: &Model) -> Result<()> {
    for row in &model.rules {
        if model.commands.iter().all(|c| c.c_name != row.command) {
            return Err(wrong(row, &row.rule, "there is no such command"));
        }
    }
    Ok(())
}

/// The methods of a command's `Call` that follow the rules.
pub fn methods(rules: Rules<'_>, command: &Command) -> Result<String> {
    let mut out = String::new();
    let of = |when| {
        let rows = rules.model.rules.iter();
        rows.filter(move |row| row.command == command.c_name && row.when == when)
    };
    let mut checks = String::new();
    for row in of(When::Check) {
        checks.push_str(&one(rules, command, row)?);
    }
    if !checks.is_empty() {
        let _ = writeln!(
            out,
            "#[inline] fn check<R: Demands>(&self, rules: &R) -> Result<(), R::Broken> {{ {checks} Ok(()) }}"
        );
    }
    let mut made = String::new();
    for row in of(When::Made) {
        made.push_str(&one(rules, command, row)?);
    }
    if !made.is_empty() {
        let _ = writeln!(
            out,
            "#[inline] fn keep<R: Demands>(&self, result: vk::Result, rules: &R) {{ \
             if result == vk::Result::SUCCESS {{ {made} }} }}"
        );
    }
    Ok(out)
}

fn wrong(row: &RuleRow, argument: &str, reason: &str) -> Error {
    Error::Wire {
        owner: row.command.clone(),
        member: argument.to_owned(),
        reason: format!("{reason} (rules.tsv)"),
    }
}

/// The code that follows one rule.
fn one(rules: Rules<'_>, command: &Command, row: &RuleRow) -> Result<String> {
    let mut each = None;
    let mut arguments = Vec::new();
    for argument in &row.arguments {
        let group = argument.strip_prefix('(').and_then(|a| a.strip_suffix(')'));
        let parts = group.unwrap_or(argument).split(',');
        let parts = parts.map(|part| value(rules, command, row, part, &mut each));
        let parts = parts.collect::<Result<Vec<_>>>()?.join(",");
        arguments.push(match group {
            Some(_) => format!("({parts})"),
            None => parts,
        });
    }
    let end = if row.when == When::Check { "?;" } else { ";" };
    let call = format!("rules.{}({}){end}\n", row.rule, arguments.join(","));
    Ok(looped(each, call))
}

fn looped(each: Option<(String, String)>, body: String) -> String {
    match each {
        Some((_, array)) => format!("for v in {array} {{ {body} }}\n"),
        None => body,
    }
}

/// The code of an argument. `each` is the path of the array that the rule is repeated for, and its
/// code.
fn value(
    rules: Rules<'_>,
    command: &Command,
    row: &RuleRow,
    path: &str,
    each: &mut Option<(String, String)>,
) -> Result<String> {
    if path == "-" {
        return Ok("&[]".into());
    }
    if path.starts_with(|c: char| c.is_ascii_digit()) {
        return Ok(path.to_owned());
    }
    if path.starts_with(|c: char| c.is_ascii_uppercase()) {
        return Ok(format!("Limit::{path}"));
    }
    let mut members: &[Member] = &command.params;
    let (mut owner, mut place, mut done) =
        (command.c_name.as_str(), "self".to_owned(), String::new());
    let mut is_parameter = true;
    let mut segments = path.split('.').peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        let name = segment.trim_end_matches("[]");
        let repeats = name.len() < segment.len();
        let found = members.iter().find(|m| m.c_name == name);
        let member = found.ok_or_else(|| wrong(row, path, "there is no such member"))?;
        let field = format!("{place}.{}", member.name);
        let kind = rules.kind(owner, member)?;
        if !done.is_empty() {
            done.push('.');
        }
        done.push_str(segment);
        if repeats {
            let slice = slice(&place, member, &kind, is_parameter);
            let mut slice = slice.ok_or_else(|| wrong(row, path, "not an array"))?;
            if is_parameter {
                slice = format!("{}.iter()", slice.trim_start_matches('&'));
            }
            match each {
                Some((known, _)) if *known != done => {
                    return Err(wrong(row, path, "a second array that repeats"));
                }
                _ => *each = Some((done.clone(), slice)),
            }
            place = "v".into();
        } else if is_last {
            let code = last(&field, &place, member, &kind, is_parameter);
            return code.ok_or_else(|| wrong(row, path, "rules cannot take this"));
        } else {
            place = field;
        }
        if is_last {
            return Ok(match &member.base {
                Base::Struct(_) => place,
                base => number(base, "*v"),
            });
        }
        let Base::Struct(of) = &member.base else {
            return Err(wrong(row, path, "not a struct"));
        };
        let target = rules.model.structs.get(of);
        let target = target.ok_or_else(|| wrong(row, path, "an unknown struct"))?;
        (members, owner, is_parameter) = (&target.members, of, false);
    }
    Err(wrong(row, path, "is empty"))
}

/// A number as 64 bits; everything else as it is.
fn number(base: &Base, code: &str) -> String {
    match base {
        Base::Scalar(Scalar::U64) | Base::Alias(_, Scalar::U64) => code.to_owned(),
        Base::Scalar(Scalar::Size) => format!("({code}) as u64"),
        Base::Scalar(_) | Base::Alias(..) => format!("u64::from({code})"),
        _ => code.to_owned(),
    }
}

/// An array as a slice.
fn slice(place: &str, member: &Member, kind: &Kind, is_parameter: bool) -> Option<String> {
    let name = &member.name;
    match (kind, is_parameter) {
        (Kind::Array(..), true) => Some(format!("&{place}.{name}")),
        (Kind::Array(_, len, _), false) => {
            let count = match len {
                Len::Member(count) => format!("{place}.{count}"),
                Len::Quarter(count) => format!("({place}.{count} / 4) as u32"),
                _ => return None,
            };
            Some(format!(
                "{{ // SAFETY: the decoder made an array of this many elements, or a null pointer.\n\
                 unsafe {{ all({place}.{name}, {count}) }} }}"
            ))
        }
        _ => None,
    }
}

/// The value at the end of a path.
fn last(
    field: &str,
    place: &str,
    member: &Member,
    kind: &Kind,
    is_parameter: bool,
) -> Option<String> {
    Some(match kind {
        Kind::Handle(..) if is_parameter => format!("{field}.handle"),
        Kind::Plain(Base::Struct(_)) | Kind::Struct(_) => format!("&{field}"),
        Kind::Plain(base) => number(base, field),
        Kind::Handle(..) => field.to_owned(),
        Kind::PlainArray(..) => format!("&{field}"),
        Kind::Pointer(Element::Struct(_), false) if is_parameter => format!("&*{field}"),
        Kind::Pointer(Element::Plain(Base::Struct(_)), false) if is_parameter => {
            format!("&*{field}")
        }
        Kind::Pointer(Element::Plain(base), false) if is_parameter => {
            number(base, &format!("*{field}"))
        }
        Kind::Pointer(Element::Handle(..), false) if is_parameter => format!("*{field}"),
        Kind::Array(..) => slice(place, member, kind, is_parameter)?,
        _ => return None,
    })
}
