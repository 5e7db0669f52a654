//! Emits the arguments of commands, their decoders and the encoders of their replies.

use std::fmt::Write as _;

use crate::emit::file::{File, unknown};
use crate::emit::rust::{self, Step, nullable, padded, write_steps};
use crate::emit::structs::put_plain;
use crate::error::{Error, Result};
use crate::model::{Base, Command, Len, Member, Model};
use crate::wire::{Element, Kind, Rules};

/// Modules of commands, with their titles.
pub const MODULES: [(&str, &str); 5] = [
    (
        "object",
        "Commands of Vulkan's core that create, destroy, query and submit.",
    ),
    (
        "record",
        "Commands of Vulkan's core that record into a command buffer.",
    ),
    ("khr", "Commands of VK_KHR extensions."),
    ("ext", "Commands of VK_EXT and vendor extensions."),
    ("mesa", "Commands of VK_MESA_venus_protocol."),
];

/// The direction of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From the guest to the host.
    In,
    /// From the host to the guest.
    Out,
    /// To the host, and back with a new value.
    InOut,
}

/// A parameter's direction. Pointers to what is not const are outputs. If such a pointer is also
/// the length of another parameter, it goes both ways.
pub fn direction(command: &Command, param: &Member) -> Direction {
    if param.depth == 0 || param.is_const {
        Direction::In
    } else if param.inout || Rules::is_length(&command.params, &param.name) {
        Direction::InOut
    } else {
        Direction::Out
    }
}

/// The parameters that the arguments hold: all but allocators, which are always null.
pub fn held<'a>(
    rules: Rules<'a>,
    command: &'a Command,
) -> impl Iterator<Item = Result<(&'a Member, Kind)>> {
    command
        .params
        .iter()
        .map(move |p| rules.kind(&command.c_name, p).map(|k| (p, k)))
        .filter(|r| !matches!(r, Ok((_, Kind::Null))))
}

/// Emits all files with commands.
pub fn emit(model: &Model, files: &mut Vec<File>) -> Result<()> {
    let rules = Rules { model };
    for (module, title) in MODULES {
        let mut out = String::from(
            "use crate::runtime::{Array, Command, CommandId, Decoder, Encode, EncodeError, Encoder, \
             OPTIONAL, Object, Objects, REQUIRED, Reader, Result, Simple, Source, Text};\nuse crate::vk;\n",
        );
        for command in model.commands.iter().filter(|c| c.module == module) {
            one(&mut out, rules, command)?;
        }
        files.push(File::new(&format!("command/{module}.rs"), title, out));
    }
    let mut out = String::new();
    for (module, _) in MODULES {
        let _ = write!(out, "mod {module}; pub use {module}::*;");
    }
    files.push(File::new(
        "command/mod.rs",
        "The arguments of every command, by its name.",
        out,
    ));
    Ok(())
}

/// The type of an argument.
fn argument(command: &Command, param: &Member, kind: &Kind) -> Result<String> {
    let target = rust::value(&param.base);
    let elements = if param.base == Base::Void {
        "u8".to_owned()
    } else {
        target.clone()
    };
    Ok(match kind {
        Kind::Plain(_) => target,
        Kind::Handle(..) => format!("Object<{target}>"),
        Kind::PlainArray(_, n) => format!("[{target}; {n}]"),
        Kind::Pointer(_, true) => format!("Option<&'a mut {target}>"),
        Kind::Pointer(_, false) => format!("&'a mut {target}"),
        Kind::Array(Element::Handle(..), ..) if keeps_ids(command, param) => {
            format!("Objects<'a, {target}>")
        }
        Kind::Array(..) => format!("Array<'a, {elements}>"),
        Kind::Text(_) => "Text<'a>".into(),
        Kind::Arrays(..) => format!("Array<'a, *const {target}>"),
        _ => return Err(unknown(&command.c_name, param)),
    })
}

/// Whether the guest's ids of an array of handles are kept. Commands that are recorded need only
/// the handles.
fn keeps_ids(command: &Command, param: &Member) -> bool {
    param.is_const && !is_recorded(command)
}

/// Whether the command is recorded into a command buffer.
fn is_recorded(command: &Command) -> bool {
    command.c_name.starts_with("vkCmd")
}

/// Whether the command is recorded, and its arguments hold no structs but plain ones.
pub fn is_simple(rules: Rules<'_>, command: &Command) -> Result<bool> {
    for param in &command.params {
        let is_simple = match rules.kind(&command.c_name, param)? {
            Kind::Plain(_) | Kind::Handle(..) | Kind::PlainArray(..) => true,
            Kind::Array(element, ..) => {
                matches!(element, Element::Plain(_) | Element::Handle(..))
            }
            Kind::Pointer(element, optional) => matches!(element, Element::Plain(_)) && !optional,
            _ => false,
        };
        if !is_simple || direction(command, param) != Direction::In {
            return Ok(false);
        }
    }
    Ok(is_recorded(command) && command.returns == Base::Void)
}

fn one(out: &mut String, rules: Rules<'_>, command: &Command) -> Result<()> {
    let mut fields = String::new();
    let mut names = String::new();
    for held in held(rules, command) {
        let (param, kind) = held?;
        let ty = argument(command, param, &kind)?;
        let _ = write!(fields, "/// `{}`\npub {}: {ty},", param.c_name, param.name);
        let _ = write!(names, "{},", param.name);
    }
    let (name, c_name) = (&command.name, &command.c_name);
    let life = if fields.contains("'a") { "<'a>" } else { "" };
    let returns = match &command.returns {
        Base::Void => "()".to_owned(),
        base => rust::base(base),
    };
    let mut decode = decode(rules, command)?;
    let answer = answer(rules, command);
    let reply = reply(rules, command)?;
    let has_outputs = has_outputs(command);
    let d = if decode.is_empty() { "_d" } else { "d" };
    if is_simple(rules, command)? {
        decode = decode.replacen("d.prefix::<", "d.begin::<", 1);
    }
    let returned = format!("{decode} Ok(Self {{ {names} }})");
    // A recorded command is read in two places. One of them reads simple commands in another way.
    let inline = match is_recorded(command) && !is_simple(rules, command)? {
        true => "inline(always)",
        false => "inline",
    };
    let (read, simple) = match is_simple(rules, command)? {
        false => (returned, String::new()),
        true => {
            let (of_type, of_function) = match life {
                "" => ("", "'a, "),
                _ => ("<'a>", ""),
            };
            let simple = format!(
                "impl{of_type} {name}{life} {{ #[inline(always)] \
                 fn read_from<{of_function}S: Source<'a>>(d: &mut S) -> Result<Self> {{ {returned} }} }}\n\
                 impl<'a> Simple<'a> for {name}{life} {{ #[inline(always)] \
                 fn read_in_row(d: &mut Reader<'_, 'a>) -> Result<Self> {{ Self::read_from(d) }} }}\n",
            );
            ("Self::read_from(d)".to_owned(), simple)
        }
    };
    let _ = write!(
        out,
        "/// `{c_name}`\n#[repr(C)]\npub struct {name}{life} {{ {fields} }}\n\
         impl<'a> Command<'a> for {name}{life} {{ \
         const ID: CommandId = CommandId::{name}; const HAS_OUTPUTS: bool = {has_outputs}; \
         type Return = {returns};\n\
         #[{inline}] fn read({d}: &mut Decoder<'a>) -> Result<Self> {{ {read} }}\n\
         fn encode_return(ret: {returns}, e: &mut Encoder<'_>) -> Result<(), EncodeError> {{ \
         {answer} Ok(()) }}\n\
         unsafe fn encode_reply(&self, ret: {returns}, e: &mut Encoder<'_>) -> \
         Result<(), EncodeError> {{ {reply} }} }}\n\
         {simple}impl<'a> crate::command_info::Args<'a> for crate::command_info::Of<{number}> {{ \
         type Command = {name}{life}; }}\n",
        number = command.number
    );
    Ok(())
}

/// How lengths read a parameter: through the pointer if it goes both ways.
fn reader(command: &Command, prefix: &'static str) -> impl Fn(&str) -> String {
    let pointers: Vec<String> = command
        .params
        .iter()
        .filter(|p| p.depth > 0)
        .map(|p| p.name.clone())
        .collect();
    move |name| {
        let star = if pointers.iter().any(|p| p == name) {
            "*"
        } else {
            ""
        };
        format!("{star}{prefix}{name}")
    }
}

fn decode(rules: Rules<'_>, command: &Command) -> Result<String> {
    let mut steps = Vec::new();
    let mut has_first_object = false;
    for (index, param) in command.params.iter().enumerate() {
        let kind = rules.kind(&command.c_name, param)?;
        let is_object = matches!(kind, Kind::Handle(..));
        has_first_object |= is_object && index == 0;
        if is_object && !has_first_object {
            return Err(Error::Wire {
                owner: command.c_name.clone(),
                member: param.name.clone(),
                reason: "an object although the first parameter, which names the owner, is not one"
                    .into(),
            });
        }
        match direction(command, param) {
            Direction::In | Direction::InOut => {
                decode_in(&mut steps, rules, command, (index, param), &kind)?;
            }
            Direction::Out => decode_out(&mut steps, command, param, &kind)?,
        }
    }
    Ok(write_steps(&steps, &|size| {
        format!("let p = d.prefix::<{size}>()?;\n")
    }))
}

fn decode_in(
    steps: &mut Vec<Step>,
    rules: Rules<'_>,
    command: &Command,
    (index, param): (usize, &Member),
    kind: &Kind,
) -> Result<()> {
    let name = &param.name;
    let ty = match &param.base {
        Base::Void => "u8".to_owned(),
        base => rust::value(base),
    };
    let read = reader(command, "");
    let count = Step::Fixed(8, "let n = p.get::<u64, {at}>();".into());
    match kind {
        Kind::Null => steps.push(Step::Fixed(8, "d.null(p.get::<_, {at}>())?;".into())),
        Kind::Plain(base) => {
            let code = format!("let {name}: {ty} = {};", rust::input(rules.model, param));
            steps.push(Step::Fixed(rules.wire_size(base), code));
        }
        Kind::Handle(_, optional) => {
            // The first object names the owner of all others, and it may never be null.
            let f = match (index, optional) {
                (0, _) => "first_object",
                (_, true) => "object",
                (_, false) => "required_object",
            };
            steps.push(Step::Fixed(
                8,
                format!("let {name} = d.{f}(p.get::<_, {{at}}>())?;"),
            ));
        }
        Kind::PlainArray(base, n) => {
            steps.push(Step::Fixed(
                8,
                format!("d.dimension(p.get::<_, {{at}}>(), {n})?;"),
            ));
            let size = padded(rules.plain_size(base).unwrap_or(0) * n);
            let code = format!("let {name} = {};", rust::input(rules.model, param));
            steps.push(Step::Fixed(size, code));
        }
        Kind::Pointer(element, optional) => {
            let f = match element {
                Element::Plain(_) => "plain_pointer",
                Element::Struct(_) | Element::Union(_) => "pointer",
                Element::Handle(..) => return Err(unknown(&command.c_name, param)),
            };
            steps.push(Step::Fixed(8, "let present = p.get::<u64, {at}>();".into()));
            steps.push(Step::Flow(match optional {
                true => format!("let {name} = d.{f}::<{ty}>(present, OPTIONAL)?;"),
                false => format!("let {name} = d.required_{f}::<{ty}>(present)?;"),
            }));
        }
        Kind::Array(element, len, optional) => {
            let (expected, optional) = (rust::length(len, &read), nullable(*optional));
            steps.push(count);
            let call = match element {
                Element::Plain(_) => format!("plain_array::<{ty}>(n, {expected}, {optional})"),
                Element::Handle(_, nulls) => {
                    let f = if keeps_ids(command, param) {
                        "objects"
                    } else {
                        "handles"
                    };
                    format!(
                        "{f}::<{ty}>(n, {expected}, {optional}, {})",
                        nullable(*nulls)
                    )
                }
                Element::Struct(_) | Element::Union(_) => {
                    format!("array::<{ty}>(n, {expected}, {optional})")
                }
            };
            steps.push(Step::Flow(format!("let {name} = d.{call}?;")));
        }
        Kind::Text(optional) => {
            steps.push(count);
            steps.push(Step::Flow(format!(
                "let {name} = Text::new(d.text(n, {})?);",
                nullable(*optional)
            )));
        }
        Kind::Arrays(element, outer, Len::PerElement(array, member), optional) => {
            let Element::Plain(_) = element else {
                return Err(unknown(&command.c_name, param));
            };
            let outer = rust::length(outer, &read);
            steps.push(count);
            steps.push(Step::Flow(format!(
                "let {name} = d.plain_arrays(n, {outer}, {}, \
                 |i| {array}.get(i).map_or(0, |v| u64::from(v.{member})))?;",
                nullable(*optional)
            )));
        }
        _ => return Err(unknown(&command.c_name, param)),
    }
    Ok(())
}

fn decode_out(steps: &mut Vec<Step>, command: &Command, param: &Member, kind: &Kind) -> Result<()> {
    let name = &param.name;
    let (f, element, optional, len) = match kind {
        Kind::Pointer(element, optional) => {
            steps.push(Step::Fixed(8, "let present = p.get::<u64, {at}>();".into()));
            let f = match element {
                Element::Plain(_) => "out",
                Element::Handle(..) => "out_handle",
                Element::Struct(_) => "partial",
                Element::Union(_) => return Err(unknown(&command.c_name, param)),
            };
            (f, element, optional, None)
        }
        Kind::Array(element, len, optional) => {
            steps.push(Step::Fixed(8, "let n = p.get::<u64, {at}>();".into()));
            let f = match element {
                Element::Plain(_) => "room",
                Element::Handle(..) => "ids",
                Element::Struct(_) => "partial_array",
                Element::Union(_) => return Err(unknown(&command.c_name, param)),
            };
            (
                f,
                element,
                optional,
                Some(rust::length(len, &reader(command, ""))),
            )
        }
        _ => return Err(unknown(&command.c_name, param)),
    };
    let is_silent = matches!(element, Element::Plain(_));
    let code = match (len, optional) {
        (Some(expected), _) => format!(
            "let {name} = d.{f}(n, {expected}, {})?;",
            nullable(*optional)
        ),
        (None, true) => format!("let {name} = d.{f}(present, OPTIONAL)?;"),
        (None, false) => format!("let {name} = d.required_{f}(present)?;"),
    };
    steps.push(if is_silent {
        Step::Check(code)
    } else {
        Step::Flow(code)
    });
    Ok(())
}

/// The steps at the beginning of every reply.
fn answer(rules: Rules<'_>, command: &Command) -> String {
    let mut steps = vec![Step::Fixed(
        4,
        "p.put::<u32, {at}>(Self::ID.number());".into(),
    )];
    if command.returns == Base::Void {
        steps.push(Step::Check("let () = ret;".into()));
    } else {
        steps.push(put_plain(rules, &command.returns, "ret"));
    }
    write_reply(&steps)
}

fn write_reply(steps: &[Step]) -> String {
    write_steps(steps, &|size| {
        format!("let mut p = e.prefix::<{size}>()?;\n")
    })
}

fn has_outputs(command: &Command) -> bool {
    let is_input = |param| direction(command, param) == Direction::In;
    !command.params.iter().all(is_input)
}

fn reply(rules: Rules<'_>, command: &Command) -> Result<String> {
    let begin = "Self::encode_return(ret, e)";
    if !has_outputs(command) {
        return Ok(begin.to_owned());
    }
    let mut steps = Vec::new();
    let mut is_unsafe = false;
    for param in &command.params {
        if direction(command, param) == Direction::In {
            continue;
        }
        let kind = rules.kind(&command.c_name, param)?;
        let name = format!("self.{}", param.name);
        match &kind {
            Kind::Pointer(element, optional) => {
                let (size, put) = match element {
                    Element::Plain(base) => (rules.wire_size(base), format!("*{name}")),
                    Element::Handle(..) => (8, format!("{name}.0")),
                    Element::Struct(_) => (0, String::new()),
                    Element::Union(_) => return Err(unknown(&command.c_name, param)),
                };
                if *optional {
                    return Err(unknown(&command.c_name, param));
                }
                steps.push(Step::Fixed(8, "p.put::<u64, {at}>(1);".into()));
                if size > 0 {
                    steps.push(Step::Fixed(size, format!("p.put::<_, {{at}}>({put});")));
                } else {
                    is_unsafe = true;
                    steps.push(Step::Flow(format!("{name}.encode(e)?;")));
                }
            }
            Kind::Array(element, len, _) => {
                // What the driver reports as written, but never more than there was room for.
                let is_updated = matches!(len, Len::Member(m)
                    if command.params.iter().any(|p| p.name == *m && p.depth > 0));
                let slice = if is_updated {
                    let len = rust::length(len, &reader(command, "self."));
                    format!("{name}.first({len})")
                } else {
                    format!("{name}.first(u64::MAX)")
                };
                steps.push(Step::Check(format!("let v = {slice};")));
                steps.push(Step::Fixed(8, "p.put::<u64, {at}>(v.len() as u64);".into()));
                steps.push(Step::Flow(match element {
                    Element::Plain(_) => "e.plain(v)?;".into(),
                    Element::Handle(..) => "e.ids(v)?;".into(),
                    Element::Struct(_) => {
                        is_unsafe = true;
                        "for v in v { v.encode(e)?; }".into()
                    }
                    Element::Union(_) => return Err(unknown(&command.c_name, param)),
                }));
            }
            _ => return Err(unknown(&command.c_name, param)),
        }
    }
    let mut body = write_reply(&steps);
    body.push_str("Ok(())");
    if is_unsafe {
        body = format!(
            "// SAFETY: the caller ensures that every pointer reachable from the outputs is valid.\n\
             unsafe {{ {body} }}"
        );
    }
    Ok(format!("{begin}?; {body}"))
}
