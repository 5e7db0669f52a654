//! Builds the [`model`](crate::model) from the registry, the selection and the tables.
//!
//! It starts from the codable commands and adds what they reach: the types of parameters and
//! members, and the structs that chains may hold.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::model::{Base, Command, Enum, Len, Member, Model, Provider, Scalar, Struct, Union};
use crate::names;
use crate::reader::{CommandDecl, Declaration, EnumValue, Registry, TypeDecl};
use crate::select::{Area, Selection, canonical};
use crate::tables::{CommandRow, Tables};

/// Builds the model.
pub fn build(registry: &Registry, selection: &Selection, tables: &Tables) -> Result<Model> {
    let model = Model {
        structs: BTreeMap::new(),
        unions: BTreeMap::new(),
        enums: BTreeMap::new(),
        handles: BTreeMap::new(),
        commands: Vec::new(),
        numbers: tables.commands.clone(),
        extensions: tables.extensions.clone(),
        providers: providers(registry),
        rules: tables.rules.clone(),
        formats: Vec::new(),
    };
    let (flags_of, stypes) = (BTreeMap::new(), Vec::new());
    let mut builder = Builder {
        registry,
        selection,
        tables,
        flags_of,
        stypes,
        model,
    };
    for (name, decl) in &registry.types {
        if let TypeDecl::Bitmask {
            bits: Some(bits), ..
        } = decl
        {
            builder.flags_of.insert(bits.clone(), name.clone());
        }
    }
    for row in tables.commands.iter().filter(|c| c.codable) {
        builder.command(row)?;
    }
    builder.mark_all();
    // Done last, when all structs are known.
    builder.model.enums.remove("VkStructureType");
    builder.enumeration("VkStructureType");
    let mut model = builder.model;
    if let Some(formats) = model.enums.get("VkFormat") {
        let known = registry.formats.iter().filter_map(|format| {
            let value = *selection.all_values.get(&format.name)?;
            let is_selected = formats.values.iter().any(|(_, known)| *known == value);
            is_selected.then(|| (value, format.clone()))
        });
        model.formats = known.collect();
        model.formats.sort_by_key(|(value, _)| *value);
    }
    Ok(model)
}

/// The core version or extension that provides each command.
fn providers(registry: &Registry) -> Vec<(String, Provider)> {
    let mut found = Vec::new();
    for provider in &registry.providers {
        let minor = provider
            .name
            .rsplit('_')
            .next()
            .and_then(|n| n.parse().ok());
        let who = match provider.is_core {
            true => Provider::Core(minor.unwrap_or(0)),
            false => Provider::Extension(provider.name.clone()),
        };
        let commands = provider.blocks.iter().flat_map(|block| &block.commands);
        found.extend(commands.map(|command| (command.clone(), who.clone())));
    }
    found
}

struct Builder<'a> {
    registry: &'a Registry,
    selection: &'a Selection,
    tables: &'a Tables,
    /// The flags type of each `FlagBits` enum.
    flags_of: BTreeMap<String, String>,
    /// The sTypes of all structs.
    stypes: Vec<EnumValue>,
    model: Model,
}

impl Builder<'_> {
    fn command(&mut self, row: &CommandRow) -> Result<()> {
        let private = self.tables.private.get(&row.name);
        let decl: &CommandDecl = private
            .or_else(|| self.registry.commands.get(&row.name))
            .ok_or_else(|| Error::Registry(format!("{} of commands.tsv is missing", row.name)))?;
        let module = match (private.is_some(), names::vendor(&row.name).1) {
            (true, _) => "mesa",
            (_, "KHR") => "khr",
            (_, "") if row.name.starts_with("vkCmd") => "record",
            (_, "") => "object",
            _ => "ext",
        };
        let params = self.members(&row.name, &decl.params)?;
        let returns = self.base(&decl.returns)?;
        self.model.commands.push(Command {
            c_name: row.name.clone(),
            name: names::plain(&row.name).to_owned(),
            number: row.number,
            module,
            returns,
            params,
        });
        Ok(())
    }

    fn members(&mut self, owner: &str, decls: &[Declaration]) -> Result<Vec<Member>> {
        decls.iter().map(|d| self.member(owner, d)).collect()
    }

    fn member(&mut self, owner: &str, decl: &Declaration) -> Result<Member> {
        let wrong = |reason: &str| Error::Wire {
            owner: owner.to_owned(),
            member: decl.name.clone(),
            reason: reason.to_owned(),
        };
        let dim = match decl.dims.as_slice() {
            [] => None,
            [dim] => {
                let number = dim
                    .parse()
                    .ok()
                    .or_else(|| self.registry.constants.get(dim).copied());
                Some(number.ok_or_else(|| wrong("unknown array size"))?)
            }
            _ => return Err(wrong("an array of arrays")),
        };
        let mut len = Vec::new();
        // A static array is always sent whole, even if it has a `len`.
        if dim.is_none() {
            for text in &decl.len {
                len.push(
                    self.len(text)
                        .ok_or_else(|| wrong("unknown length expression"))?,
                );
            }
        }
        let place = (owner.to_owned(), decl.name.clone());
        if let Some((array, member)) = self.tables.lengths.get(&place) {
            len.push(Len::PerElement(names::snake(array), names::snake(member)));
        }
        let mut selection = Vec::new();
        for name in &decl.selection {
            let value = self.selection.all_values.get(name);
            selection.push((
                name.clone(),
                *value.ok_or_else(|| wrong("unknown selection"))?,
            ));
        }
        Ok(Member {
            inout: self.tables.inout.contains(&place),
            marker: self.tables.markers.contains(&place),
            c_name: decl.name.clone(),
            name: names::snake(&decl.name),
            base: self.base(&decl.ty)?,
            is_bit: self.flags_of.contains_key(&decl.ty),
            depth: decl.depth,
            is_const: decl.is_const,
            dim,
            len,
            optional: decl.optional.first().copied().unwrap_or(false),
            element_optional: decl.optional.get(1).copied().unwrap_or(false)
                || self.tables.nullable.contains(&place),
            noautovalidity: decl.noautovalidity,
            selector: decl.selector.as_deref().map(names::snake),
            selection,
        })
    }

    fn len(&self, text: &str) -> Option<Len> {
        if text == "null-terminated" {
            return Some(Len::Terminated);
        }
        if let Ok(number) = text.parse() {
            return Some(Len::Const(number));
        }
        if let Some((pointer, member)) = text.split_once("->") {
            return Some(Len::Through(names::snake(pointer), names::snake(member)));
        }
        if let Some(member) = text.strip_suffix(" / 4") {
            return Some(Len::Quarter(names::snake(member)));
        }
        if let Some(member) = text
            .strip_prefix('(')
            .and_then(|t| t.strip_suffix(" + 31) / 32"))
        {
            return Some(Len::Words(names::snake(member)));
        }
        if let Some((factor, constant)) = text.split_once('*') {
            let constant = self.registry.constants.get(constant)?;
            return factor.parse().ok().map(|f: u32| Len::Const(f * constant));
        }
        let is_name = text.chars().all(|c| c.is_ascii_alphanumeric());
        is_name.then(|| Len::Member(names::snake(text)))
    }

    /// Resolves a type and adds it to the model.
    fn base(&mut self, ty: &str) -> Result<Base> {
        let ty = canonical(self.registry, ty).to_owned();
        let simple = match ty.as_str() {
            "void" => Some(Base::Void),
            "char" => Some(Base::Char),
            "uint8_t" => Some(Base::Scalar(Scalar::U8)),
            "uint16_t" => Some(Base::Scalar(Scalar::U16)),
            "uint32_t" => Some(Base::Scalar(Scalar::U32)),
            "int32_t" | "int" => Some(Base::Scalar(Scalar::I32)),
            "float" => Some(Base::Scalar(Scalar::F32)),
            "uint64_t" => Some(Base::Scalar(Scalar::U64)),
            "int64_t" => Some(Base::Scalar(Scalar::I64)),
            "double" => Some(Base::Scalar(Scalar::F64)),
            "size_t" => Some(Base::Scalar(Scalar::Size)),
            "VkBool32" => Some(Base::Alias("Bool32", Scalar::U32)),
            "VkSampleMask" => Some(Base::Alias("SampleMask", Scalar::U32)),
            "VkDeviceSize" => Some(Base::Alias("DeviceSize", Scalar::U64)),
            "VkDeviceAddress" => Some(Base::Alias("DeviceAddress", Scalar::U64)),
            // Flags without a type of their own (others have one, such as
            // VkTensorViewCreateFlagsARM).
            "VkFlags" => Some(Base::Scalar(Scalar::U32)),
            "VkFlags64" => Some(Base::Scalar(Scalar::U64)),
            _ => None,
        };
        if let Some(base) = simple {
            return Ok(base);
        }
        if self.tables.structs.iter().any(|s| s.name == ty) {
            self.structure(&ty)?;
            return Ok(Base::Struct(ty));
        }
        if self.tables.flags.contains(&ty) {
            self.enumeration(&ty);
            return Ok(Base::Flags {
                name: ty,
                wide: false,
            });
        }
        match self.registry.types.get(&ty) {
            Some(TypeDecl::Struct { .. }) => {
                self.structure(&ty)?;
                Ok(Base::Struct(ty))
            }
            Some(TypeDecl::Union { members }) => {
                self.union(&ty, members)?;
                Ok(Base::Union(ty))
            }
            Some(TypeDecl::Enum) => match self.flags_of.get(&ty).cloned() {
                Some(flags) => self.base(&flags),
                None => {
                    self.enumeration(&ty);
                    Ok(Base::Enum(ty))
                }
            },
            Some(TypeDecl::Bitmask { wide, .. }) => {
                self.enumeration(&ty);
                Ok(Base::Flags {
                    name: ty,
                    wide: *wide,
                })
            }
            Some(TypeDecl::Handle) => {
                let object = format!("VK_OBJECT_TYPE_{}", names::screaming(&ty));
                let value = self.selection.all_values.get(&object).copied();
                let object = value.or_else(|| {
                    let (stem, vendor) = names::vendor(&ty);
                    let name = format!("VK_OBJECT_TYPE_{}_{vendor}", names::screaming(stem));
                    self.selection.all_values.get(&name).copied()
                });
                let value = object.ok_or_else(|| Error::Registry(format!("no object {ty}")))?;
                self.model.handles.insert(ty.clone(), value);
                Ok(Base::Handle(ty))
            }
            _ => Err(Error::Registry(format!("type {ty} is not known"))),
        }
    }

    fn enumeration(&mut self, name: &str) {
        if self.model.enums.contains_key(name) {
            return;
        }
        let (flags, source) = match self.registry.types.get(name) {
            Some(TypeDecl::Bitmask { bits, wide }) => (
                if *wide { 64 } else { 32 },
                bits.clone().unwrap_or_default(),
            ),
            None => (32, name.replace("Flags", "FlagBits")),
            _ => (0, name.to_owned()),
        };
        let mut values: Vec<EnumValue> = Vec::new();
        values.extend(
            self.selection
                .values
                .get(&source)
                .into_iter()
                .flatten()
                .cloned(),
        );
        values.extend(self.tables.bits.get(&source).into_iter().flatten().cloned());
        if name == "VkStructureType" {
            values.extend(self.tables.structs.iter().filter_map(|s| s.stype.clone()));
            // Structs that no selected extension provides by itself.
            values.extend(self.stypes.iter().cloned());
        }
        let mut seen = BTreeSet::new();
        let mut named: Vec<(String, i64)> = values
            .iter()
            .filter(|v| seen.insert(v.value))
            .map(|v| (names::constant(&source, &v.name, flags != 0), v.value))
            .collect();
        named.sort_by_key(|(_, value)| *value);
        let values = named;
        let mut known: BTreeSet<i64> = values.iter().map(|(_, value)| *value).collect();
        known.extend(self.selection.known.get(&source).into_iter().flatten());
        self.model.enums.insert(
            name.to_owned(),
            Enum {
                c_name: name.to_owned(),
                flags,
                values,
                known,
            },
        );
    }

    fn union(&mut self, name: &str, decls: &[Declaration]) -> Result<()> {
        if self.model.unions.contains_key(name) {
            return Ok(());
        }
        let members = self.members(name, decls)?;
        let chosen = self.tables.unions.get(name);
        let default = chosen.and_then(|c| members.iter().position(|m| m.c_name == *c));
        let area = self.selection.types.get(name).copied().unwrap_or(Area::Ext);
        self.model.unions.insert(
            name.to_owned(),
            Union {
                c_name: name.to_owned(),
                name: names::plain(name).to_owned(),
                area,
                members,
                default,
            },
        );
        Ok(())
    }

    /// Adds a struct to the model, with all types that it mentions and all structs that its chain
    /// may hold.
    fn structure(&mut self, name: &str) -> Result<()> {
        // VkAllocationCallbacks has function pointers, so a pointer to it can only be null.
        if self.model.structs.contains_key(name) || name == "VkAllocationCallbacks" {
            return Ok(());
        }
        let private = self.tables.structs.iter().find(|s| s.name == name);
        let decls = match (private, self.registry.types.get(name)) {
            (Some(private), _) => &private.members,
            (None, Some(TypeDecl::Struct { members, .. })) => members,
            _ => return Err(Error::Registry(format!("struct {name} is not known"))),
        };
        let repeats = matches!(
            (private, self.registry.types.get(name)),
            (None, Some(TypeDecl::Struct { repeats: true, .. }))
        );
        let stype = decls.first().and_then(|m| m.values.clone());
        let stype_value = match (&stype, private) {
            (None, _) => 0,
            (Some(_), Some(private)) => private.stype.as_ref().map_or(0, |s| s.value),
            (Some(stype), None) => *self
                .selection
                .all_values
                .get(stype)
                .ok_or_else(|| Error::Registry(format!("{stype} has no value")))?,
        };
        if let Some(stype) = &stype {
            self.stypes.push(EnumValue {
                name: stype.clone(),
                value: stype_value,
            });
        }
        let area = match private {
            Some(_) => Area::Mesa,
            None => self.selection.types.get(name).copied().unwrap_or(Area::Ext),
        };
        self.model.structs.insert(
            name.to_owned(),
            Struct {
                c_name: name.to_owned(),
                name: names::plain(name).to_owned(),
                area,
                members: Vec::new(),
                stype: stype
                    .as_deref()
                    .map(|s| names::constant("VkStructureType", s, false)),
                stype_value,
                chain: Vec::new(),
                repeats,
                input: false,
                output: false,
            },
        );
        let members = self.members(name, decls)?;
        let chain = if stype.is_some() {
            self.extenders(name)
        } else {
            Vec::new()
        };
        for extender in &chain {
            self.structure(extender)?;
        }
        if let Some(entry) = self.model.structs.get_mut(name) {
            entry.members = members;
            entry.chain = chain;
        }
        Ok(())
    }

    /// The selected structs that name this one in `structextends`.
    fn extenders(&self, name: &str) -> Vec<String> {
        let registry = self.registry;
        let public = registry.types.iter().filter(|(extender, decl)| {
            let TypeDecl::Struct { extends, .. } = decl else {
                return false;
            };
            extends.iter().any(|p| canonical(registry, p) == name)
                && self.selection.types.contains_key(*extender)
                && !self.tables.excluded.contains(extender)
        });
        let private = self
            .tables
            .structs
            .iter()
            .filter(|s| s.extends.iter().any(|p| p == name));
        public
            .map(|(n, _)| n.clone())
            .chain(private.map(|s| s.name.clone()))
            .collect()
    }

    /// Follows the commands' parameters to find the directions of each struct.
    fn mark_all(&mut self) {
        let mut pending: Vec<(String, bool)> = Vec::new();
        for command in &self.model.commands {
            for param in &command.params {
                let is_out = param.depth > 0 && !param.is_const;
                pending.extend(struct_name(param).map(|s| (s, is_out)));
            }
        }
        while let Some((name, is_out)) = pending.pop() {
            let Some(entry) = self.model.structs.get_mut(&name) else {
                let members = self.model.unions.get(&name).map(|u| u.members.iter());
                pending.extend(
                    members
                        .into_iter()
                        .flatten()
                        .filter_map(struct_name)
                        .map(|s| (s, is_out)),
                );
                continue;
            };
            let mark = if is_out {
                &mut entry.output
            } else {
                &mut entry.input
            };
            if !std::mem::replace(mark, true) {
                pending.extend(
                    entry
                        .members
                        .iter()
                        .filter_map(struct_name)
                        .map(|s| (s, is_out)),
                );
                pending.extend(entry.chain.iter().map(|s| (s.clone(), is_out)));
            }
        }
    }
}

fn struct_name(member: &Member) -> Option<String> {
    match &member.base {
        Base::Struct(name) | Base::Union(name) => Some(name.clone()),
        _ => None,
    }
}
