//! Emits the host's codecs of structs and unions: they decode inputs, make room for outputs and
//! encode outputs.

use std::fmt::Write as _;

use crate::emit::file::{File, unknown};
use crate::emit::rust::{self, Step, nullable, padded, write_steps};
use crate::error::Result;
use crate::model::{Base, Member, Model, Struct, Union};
use crate::select::Area;
use crate::wire::{Element, Kind, Partial, Rules};

/// Emits all files with codecs of structs.
pub fn emit(model: &Model, files: &mut Vec<File>) -> Result<()> {
    let rules = Rules { model };
    for area in Area::ALL {
        let mut out = String::from(
            "use crate::runtime::{Decode, DecodeBody, DecodePartial, DecodePartialBody, Decoder, \
             Encode, EncodeBody, EncodeError, Encoder, InLink, OPTIONAL, OutLink, REQUIRED, Result};\n\
             use crate::vk;\n",
        );
        for entry in model.structs.values().filter(|s| s.area == area) {
            if entry.input {
                decode(&mut out, rules, entry)?;
            }
            if entry.output {
                partial(&mut out, rules, entry)?;
                encode(&mut out, rules, entry)?;
            }
        }
        for entry in model.unions.values().filter(|u| u.area == area) {
            union(&mut out, rules, entry)?;
        }
        let path = format!("codec/{}.rs", area.module());
        files.push(File::new(
            &path,
            &format!("Codecs of structs of {}.", area.title()),
            out,
        ));
    }
    let mods: String = Area::ALL
        .iter()
        .map(|a| format!("mod {};", a.module()))
        .collect();
    files.push(File::new(
        "codec/mod.rs",
        "The host's codecs of structs.",
        mods,
    ));
    Ok(())
}

fn open_decode(size: u32) -> String {
    format!("let p = d.prefix::<{size}>()?;\n")
}

/// The code that reads a length that is a member of the struct itself.
fn own(name: &str) -> String {
    format!("self.{name}")
}

fn body_name(entry: &Struct, chained: &str, simple: &str) -> (String, String) {
    match entry.stype {
        Some(_) => (format!("{chained}Body"), "_body".to_owned()),
        None => (simple.to_owned(), String::new()),
    }
}

fn decode(out: &mut String, rules: Rules<'_>, entry: &Struct) -> Result<()> {
    let name = &entry.name;
    let mut steps = Vec::new();
    for member in Rules::wire_order(entry) {
        let kind = rules.kind(&entry.c_name, member)?;
        let target = format!("self.{}", member.name);
        decode_member(&mut steps, rules, entry, member, &kind, &target)?;
    }
    let body = write_steps(&steps, &open_decode);
    let d = if steps.is_empty() { "_d" } else { "d" };
    if entry.stype.is_some() {
        let chain = rust::chain(rules.model, &entry.chain, "InLink");
        let _ = write!(
            out,
            "impl Decode for vk::{name} {{ fn decode(&mut self, d: &mut Decoder<'_>) -> Result<()> {{ \
             const CHAIN: &[InLink] = &[{chain}]; \
             (self.s_type, self.p_next) = d.head::<Self>(CHAIN)?; self.decode_body(d) }} }}"
        );
    }
    let (tr, suffix) = body_name(entry, "Decode", "Decode");
    let _ = write!(
        out,
        "impl {tr} for vk::{name} {{ fn decode{suffix}(&mut self, {d}: &mut Decoder<'_>) -> Result<()> {{ \
         {body} Ok(()) }} }}"
    );
    Ok(())
}

fn decode_member(
    steps: &mut Vec<Step>,
    rules: Rules<'_>,
    entry: &Struct,
    member: &Member,
    kind: &Kind,
    target: &str,
) -> Result<()> {
    let count = || Step::Fixed(8, "let n = p.get::<u64, {at}>();".into());
    let flow = |code: String| Step::Flow(code);
    match kind {
        Kind::Type | Kind::Next => {}
        Kind::Null => steps.push(Step::Fixed(8, "d.null(p.get::<_, {at}>())?;".into())),
        Kind::Marker => {
            let code = format!("{target} = d.marker(p.get::<_, {{at}}>());");
            steps.push(Step::Fixed(8, code));
        }
        Kind::Plain(base) => {
            let code = format!("{target} = {};", rust::input(rules.model, member));
            steps.push(Step::Fixed(rules.wire_size(base), code));
        }
        Kind::Handle(_, optional) => {
            let f = if *optional {
                "handle"
            } else {
                "required_handle"
            };
            steps.push(Step::Fixed(
                8,
                format!("{target} = d.{f}(p.get::<_, {{at}}>())?;"),
            ));
        }
        Kind::PlainArray(base, n) => {
            steps.push(Step::Fixed(
                8,
                format!("d.dimension(p.get::<_, {{at}}>(), {n})?;"),
            ));
            let size = padded(rules.plain_size(base).unwrap_or(0) * n);
            let code = format!("{target} = {};", rust::input(rules.model, member));
            steps.push(Step::Fixed(size, code));
        }
        Kind::Struct(_) | Kind::Union(_, None) => {
            steps.push(flow(format!("{target}.decode(d)?;")));
        }
        Kind::StructArray(_, n) => {
            steps.push(Step::Fixed(
                8,
                format!("d.dimension(p.get::<_, {{at}}>(), {n})?;"),
            ));
            steps.push(flow(format!("for v in &mut {target} {{ v.decode(d)?; }}")));
        }
        Kind::Union(_, Some(selector)) => {
            steps.push(flow(format!(
                "{target}.decode_selected(self.{selector}.0, d)?;"
            )));
        }
        Kind::Pointer(element, optional) => {
            let f = match element {
                Element::Plain(_) => "plain_pointer",
                Element::Struct(_) | Element::Union(_) => "pointer",
                Element::Handle(..) => return Err(unknown(&entry.c_name, member)),
            };
            steps.push(Step::Fixed(8, "let present = p.get::<u64, {at}>();".into()));
            let optional = nullable(*optional);
            steps.push(flow(format!(
                "{target} = crate::runtime::raw(d.{f}(present, {optional})?);"
            )));
        }
        Kind::Array(element, len, optional) => {
            let (expected, optional) = (rust::length(len, &own), nullable(*optional));
            steps.push(count());
            let call = match element {
                Element::Plain(base) if member.base == Base::Void => {
                    format!(
                        "plain_array::<{}>(n, {expected}, {optional})?.into_raw().cast()",
                        rust::value(base)
                    )
                }
                Element::Plain(_) => format!("plain_array(n, {expected}, {optional})?.into_raw()"),
                Element::Handle(_, nulls) => {
                    format!(
                        "handles(n, {expected}, {optional}, {})?.into_raw()",
                        nullable(*nulls)
                    )
                }
                Element::Struct(_) | Element::Union(_) => {
                    format!("array(n, {expected}, {optional})?.into_raw()")
                }
            };
            steps.push(flow(format!("{target} = d.{call};")));
        }
        Kind::Text(optional) => {
            steps.push(count());
            steps.push(flow(format!(
                "{target} = d.text(n, {})?;",
                nullable(*optional)
            )));
        }
        Kind::Texts(len, optional) => {
            let expected = rust::length(len, &own);
            steps.push(count());
            steps.push(flow(format!(
                "{target} = d.texts(n, {expected}, {})?;",
                nullable(*optional)
            )));
        }
        Kind::Arrays(element, outer, inner, optional) => {
            let Element::Struct(_) = element else {
                return Err(unknown(&entry.c_name, member));
            };
            let (outer, inner) = (rust::length(outer, &own), rust::length(inner, &own));
            steps.push(count());
            steps.push(flow(format!(
                "{target} = d.arrays::<{}>(n, {outer}, {}, |_| {inner})?.into_raw();",
                rust::value(&member.base),
                nullable(*optional)
            )));
        }
        Kind::HandleArray(..) => return Err(unknown(&entry.c_name, member)),
    }
    Ok(())
}

/// The type of an array in an output, which may hold nothing that needs room itself.
fn room_of(rules: Rules<'_>, element: &Element) -> Option<String> {
    match element {
        Element::Plain(base) => Some(rust::value(base)),
        Element::Struct(name) => {
            let entry = rules.model.structs.get(name)?;
            let is_simple = entry.stype.is_none() && entry.members.iter().all(|m| m.depth == 0);
            is_simple.then(|| format!("vk::{}", entry.name))
        }
        Element::Handle(..) | Element::Union(_) => None,
    }
}

fn partial(out: &mut String, rules: Rules<'_>, entry: &Struct) -> Result<()> {
    let name = &entry.name;
    let mut steps = Vec::new();
    for member in Rules::wire_order(entry) {
        let kind = rules.kind(&entry.c_name, member)?;
        let target = format!("self.{}", member.name);
        let dimension =
            |n: u32| Step::Fixed(8, format!("d.dimension(p.get::<_, {{at}}>(), {n})?;"));
        match rules.partial(entry, member, &kind) {
            Partial::Nothing => {}
            Partial::Full(base) => {
                let code = format!("{target} = p.get::<_, {{at}}>();");
                steps.push(Step::Fixed(rules.wire_size(&base), code));
            }
            Partial::HandleArray(n) => {
                steps.push(dimension(n));
                let handle = rust::base(&member.base);
                steps.push(Step::Fixed(
                    8 * n,
                    format!("{target} = p.get::<[u64; {n}], {{at}}>().map({handle});"),
                ));
            }
            Partial::Count(n) => steps.push(dimension(n)),
            Partial::Struct(_) => steps.push(Step::Flow(format!("{target}.decode_partial(d)?;"))),
            Partial::StructArray(_, n) => {
                steps.push(dimension(n));
                steps.push(Step::Flow(format!(
                    "for v in &mut {target} {{ v.decode_partial(d)?; }}"
                )));
            }
            Partial::Room(element, len, optional) => {
                let room =
                    room_of(rules, &element).ok_or_else(|| unknown(&entry.c_name, member))?;
                let expected = rust::length(&len, &own);
                let cast = if member.base == Base::Void {
                    ".cast()"
                } else {
                    ""
                };
                steps.push(Step::Fixed(8, "let n = p.get::<u64, {at}>();".into()));
                steps.push(Step::Flow(format!(
                    "{target} = d.room::<{room}>(n, {expected}, {})?.into_raw(){cast};",
                    nullable(optional)
                )));
            }
            Partial::Handle | Partial::Unknown => {
                return Err(unknown(&entry.c_name, member));
            }
        }
    }
    let body = write_steps(&steps, &open_decode);
    let d = if steps.is_empty() { "_d" } else { "d" };
    if entry.stype.is_some() {
        let chain = rust::chain(rules.model, &entry.chain, "OutLink");
        let _ = write!(
            out,
            "impl DecodePartial for vk::{name} {{ fn decode_partial(&mut self, d: &mut Decoder<'_>) \
             -> Result<()> {{ (self.s_type, self.p_next) = d.partial_head::<Self>(Self::CHAIN)?; \
             self.decode_partial_body(d) }} }}\n\
             impl vk::{name} {{ pub(crate) const CHAIN: &'static [OutLink] = &[{chain}]; }}"
        );
    }
    let (tr, suffix) = body_name(entry, "DecodePartial", "DecodePartial");
    let _ = write!(
        out,
        "impl {tr} for vk::{name} {{ fn decode_partial{suffix}(&mut self, {d}: &mut Decoder<'_>) \
         -> Result<()> {{ {body} Ok(()) }} }}"
    );
    Ok(())
}

fn encode(out: &mut String, rules: Rules<'_>, entry: &Struct) -> Result<()> {
    let name = &entry.name;
    let mut steps = Vec::new();
    let mut is_unsafe = false;
    for member in Rules::wire_order(entry) {
        let kind = rules.kind(&entry.c_name, member)?;
        let source = format!("self.{}", member.name);
        match &kind {
            Kind::Type | Kind::Next => {}
            Kind::Plain(base) => steps.push(put_plain(rules, base, &source)),
            Kind::Handle(..) => {
                steps.push(Step::Fixed(8, format!("p.put::<_, {{at}}>({source}.0);")));
            }
            Kind::PlainArray(base, n) => {
                steps.push(Step::Fixed(8, format!("p.put::<u64, {{at}}>({n});")));
                let size = padded(rules.plain_size(base).unwrap_or(0) * n);
                steps.push(Step::Fixed(size, format!("p.put::<_, {{at}}>({source});")));
            }
            Kind::HandleArray(_, n) => {
                steps.push(Step::Fixed(8, format!("p.put::<u64, {{at}}>({n});")));
                steps.push(Step::Fixed(
                    8 * n,
                    format!("p.put::<_, {{at}}>({source}.map(|h| h.0));"),
                ));
            }
            Kind::Struct(_) => {
                is_unsafe = true;
                steps.push(Step::Flow(format!("{source}.encode(e)?;")));
            }
            Kind::StructArray(_, n) => {
                is_unsafe = true;
                steps.push(Step::Fixed(8, format!("p.put::<u64, {{at}}>({n});")));
                steps.push(Step::Flow(format!(
                    "for v in &{source} {{ v.encode(e)?; }}"
                )));
            }
            Kind::Array(element, len, _) => {
                let room = room_of(rules, element).ok_or_else(|| unknown(&entry.c_name, member))?;
                let f = if let Element::Plain(_) = element {
                    "raw_plain"
                } else {
                    "raw_array"
                };
                is_unsafe = true;
                let expected = rust::length(len, &own);
                steps.push(Step::Check(format!(
                    "let n = if {source}.is_null() {{ 0 }} else {{ {expected} }};"
                )));
                steps.push(Step::Fixed(8, "p.put::<u64, {at}>(n);".into()));
                steps.push(Step::Flow(format!("e.{f}::<{room}>({source}.cast(), n)?;")));
            }
            _ => return Err(unknown(&entry.c_name, member)),
        }
    }
    let mut body = write_steps(&steps, &|size| {
        format!("let mut p = e.prefix::<{size}>()?;\n")
    });
    body.push_str("Ok(())");
    if is_unsafe {
        body = format!(
            "// SAFETY: the caller ensures that every pointer reachable from `self` is valid.\nunsafe {{ {body} }}"
        );
    }
    if entry.stype.is_some() {
        let _ = write!(
            out,
            "impl Encode for vk::{name} {{ unsafe fn encode(&self, e: &mut Encoder<'_>) -> \
             Result<(), EncodeError> {{ \
             // SAFETY: the caller ensures that every pointer reachable from `self` is valid.\n\
             unsafe {{ e.head(self.s_type, self.p_next.cast(), Self::CHAIN)?; self.encode_body(e) }} }} }}"
        );
    }
    let (tr, suffix) = body_name(entry, "Encode", "Encode");
    let e = if steps.is_empty() { "_e" } else { "e" };
    let _ = write!(
        out,
        "impl {tr} for vk::{name} {{ unsafe fn encode{suffix}(&self, {e}: &mut Encoder<'_>) -> \
         Result<(), EncodeError> {{ {body} }} }}"
    );
    Ok(())
}

/// Writes a plain value. A value of one or two bytes takes a word.
pub fn put_plain(rules: Rules<'_>, base: &Base, source: &str) -> Step {
    match rules.plain_size(base) {
        Some(1 | 2) => Step::Fixed(4, format!("p.put::<u32, {{at}}>(u32::from({source}));")),
        _ => Step::Fixed(
            rules.wire_size(base),
            format!("p.put::<_, {{at}}>({source});"),
        ),
    }
}

fn union(out: &mut String, rules: Rules<'_>, entry: &Union) -> Result<()> {
    let mut arms = String::new();
    for (index, member) in entry.members.iter().enumerate() {
        let kind = rules.kind(&entry.c_name, member)?;
        let tags: Vec<String> = match member.selection.as_slice() {
            [] => vec![index.to_string()],
            selection => selection.iter().map(|(_, v)| v.to_string()).collect(),
        };
        let field = format!("self.{}", member.name);
        let mut steps = Vec::new();
        // A union member is decoded into a separate value, so that the union is unchanged if
        // decoding fails.
        let code = match &kind {
            Kind::Null => continue,
            Kind::Plain(base) => {
                let code = format!("{field} = {};", rust::input(rules.model, member));
                steps.push(Step::Fixed(rules.wire_size(base), code));
                write_steps(&steps, &open_decode)
            }
            Kind::PlainArray(base, n) => {
                steps.push(Step::Fixed(
                    8,
                    format!("d.dimension(p.get::<_, {{at}}>(), {n})?;"),
                ));
                let size = padded(rules.plain_size(base).unwrap_or(0) * n);
                let code = format!("{field} = {};", rust::input(rules.model, member));
                steps.push(Step::Fixed(size, code));
                write_steps(&steps, &open_decode)
            }
            Kind::Struct(_) | Kind::Union(_, None) => {
                let ty = rust::base(&member.base);
                format!("let mut v = {ty}::default(); v.decode(d)?; {field} = v;")
            }
            Kind::Pointer(element, optional) => {
                let f = if let Element::Plain(_) = element {
                    "plain_pointer"
                } else {
                    "pointer"
                };
                steps.push(Step::Fixed(8, "let present = p.get::<u64, {at}>();".into()));
                let optional = nullable(*optional);
                steps.push(Step::Flow(format!(
                    "{field} = crate::runtime::raw(d.{f}(present, {optional})?);"
                )));
                write_steps(&steps, &open_decode)
            }
            _ => return Err(unknown(&entry.c_name, member)),
        };
        let _ = write!(arms, "{} => {{ {code} }}", tags.join(" | "));
    }
    let selected = entry.members.iter().any(|m| !m.selection.is_empty());
    let name = &entry.name;
    if selected {
        let _ = write!(
            out,
            "impl vk::{name} {{ \
             /// Decodes the member that `selector` selects. Another tag is an error.\n\
             pub(crate) fn decode_selected(&mut self, selector: i32, d: &mut Decoder<'_>) -> Result<()> {{ \
             let p = d.prefix::<4>()?; let tag = d.same_tag(p.get::<i32, 0>(), selector)?; \
             match tag {{ {arms} _ => return Err(d.bad_tag(tag as u32)), }} Ok(()) }} }}"
        );
    } else {
        let _ = write!(
            out,
            "impl Decode for vk::{name} {{ fn decode(&mut self, d: &mut Decoder<'_>) -> Result<()> {{ \
             let p = d.prefix::<4>()?; let tag = p.get::<u32, 0>(); \
             match tag {{ {arms} _ => return Err(d.bad_tag(tag)), }} Ok(()) }} }}"
        );
    }
    Ok(())
}
