//! Second stage: selects what belongs to Venus.
//!
//! That is every core version and the extensions of `data/extensions.tsv`. Of an extension, it
//! takes the blocks whose `depends` condition holds for this selection.

use std::collections::{BTreeMap, BTreeSet};

use crate::reader::{EnumValue, Registry, TypeDecl};
use crate::tables::Tables;

/// The place where a type first appears. It decides the file of the type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Area {
    /// Vulkan 1.0.
    Core10,
    /// Vulkan 1.1.
    Core11,
    /// Vulkan 1.2.
    Core12,
    /// Vulkan 1.3.
    Core13,
    /// Vulkan 1.4.
    Core14,
    /// `VK_KHR_*`.
    Khr,
    /// Other extensions.
    Ext,
    /// `VK_MESA_venus_protocol`.
    Mesa,
}

impl Area {
    /// All areas in order.
    pub const ALL: [Area; 8] = [
        Area::Core10,
        Area::Core11,
        Area::Core12,
        Area::Core13,
        Area::Core14,
        Area::Khr,
        Area::Ext,
        Area::Mesa,
    ];

    /// The module name.
    pub fn module(self) -> &'static str {
        match self {
            Area::Core10 => "core10",
            Area::Core11 => "core11",
            Area::Core12 => "core12",
            Area::Core13 => "core13",
            Area::Core14 => "core14",
            Area::Khr => "khr",
            Area::Ext => "ext",
            Area::Mesa => "mesa",
        }
    }

    /// The module's title.
    pub fn title(self) -> &'static str {
        match self {
            Area::Core10 => "Vulkan 1.0",
            Area::Core11 => "Vulkan 1.1",
            Area::Core12 => "Vulkan 1.2",
            Area::Core13 => "Vulkan 1.3",
            Area::Core14 => "Vulkan 1.4",
            Area::Khr => "VK_KHR extensions",
            Area::Ext => "VK_EXT and vendor extensions",
            Area::Mesa => "VK_MESA_venus_protocol",
        }
    }

    fn of_provider(name: &str, is_core: bool) -> Area {
        if is_core {
            return match name.rsplit('_').next() {
                Some("1") => Area::Core11,
                Some("2") => Area::Core12,
                Some("3") => Area::Core13,
                Some("4") => Area::Core14,
                _ => Area::Core10,
            };
        }
        if name.starts_with("VK_KHR_") {
            Area::Khr
        } else {
            Area::Ext
        }
    }
}

/// The contents of the selected versions and extensions.
#[derive(Debug, Default)]
pub struct Selection {
    /// Selected types by canonical name, with the place of their first appearance.
    pub types: BTreeMap<String, Area>,
    /// Values added to enums.
    pub values: BTreeMap<String, Vec<EnumValue>>,
    /// All values of each enum, also those of extensions that are not selected.
    pub known: BTreeMap<String, BTreeSet<i64>>,
    /// Every value of every extension by name, also of extensions that are not selected.
    pub all_values: BTreeMap<String, i64>,
}

/// Follows aliases to the canonical name.
pub fn canonical<'a>(registry: &'a Registry, mut name: &'a str) -> &'a str {
    while let Some(TypeDecl::Alias(of)) = registry.types.get(name) {
        name = of;
    }
    name
}

/// Selects types and enum values.
pub fn select(registry: &Registry, tables: &Tables) -> Selection {
    let wanted: BTreeSet<&str> = tables.extensions.iter().map(|e| e.name.as_str()).collect();
    let active: BTreeSet<&str> = registry
        .providers
        .iter()
        .filter(|p| p.is_core || wanted.contains(p.name.as_str()))
        .map(|p| p.name.as_str())
        .collect();
    let mut selection = Selection::default();
    for (name, values) in &registry.enums {
        selection
            .all_values
            .extend(values.iter().map(|v| (v.name.clone(), v.value)));
        let known = selection.known.entry(name.clone()).or_default();
        known.extend(values.iter().map(|v| v.value));
        selection.values.insert(name.clone(), values.clone());
    }
    for block in registry.providers.iter().flat_map(|p| &p.blocks) {
        for (enum_name, value) in &block.values {
            let name = canonical(registry, enum_name).to_owned();
            let known = selection.known.entry(name).or_default();
            known.insert(value.value);
        }
        selection
            .all_values
            .extend(block.values.iter().map(|(_, v)| (v.name.clone(), v.value)));
    }
    for provider in &registry.providers {
        let area = Area::of_provider(&provider.name, provider.is_core);
        let is_active = active.contains(provider.name.as_str());
        for block in &provider.blocks {
            if !is_active || !block.depends.as_deref().is_none_or(|d| holds(d, &active)) {
                continue;
            }
            for ty in &block.types {
                let name = canonical(registry, ty).to_owned();
                selection.types.entry(name).or_insert(area);
            }
            // A value that has a newer name elsewhere keeps the name that it has here.
            let renamed = block.aliases.iter().filter_map(|(enum_name, of)| {
                let value = *selection.all_values.get(of)?;
                Some((
                    enum_name.clone(),
                    EnumValue {
                        name: of.clone(),
                        value,
                    },
                ))
            });
            let values: Vec<_> = block.values.iter().cloned().chain(renamed).collect();
            for (enum_name, value) in &values {
                let name = canonical(registry, enum_name).to_owned();
                let values = selection.values.entry(name).or_default();
                if values.iter().all(|v| v.name != value.name) {
                    values.push(value.clone());
                }
            }
        }
    }
    selection
}

/// Evaluates a `depends` expression: `+` is and, `,` is or, from left to right, with parentheses.
/// Features of structs (`VkX::member`) count as present, because a host may have them.
fn holds(expression: &str, active: &BTreeSet<&str>) -> bool {
    let mut rest = expression;
    or_and(&mut rest, active)
}

fn or_and(rest: &mut &str, active: &BTreeSet<&str>) -> bool {
    let mut value = operand(rest, active);
    loop {
        let operator = rest.chars().next();
        match operator {
            Some('+') => {
                *rest = rest.get(1..).unwrap_or("");
                let right = operand(rest, active);
                value = value && right;
            }
            Some(',') => {
                *rest = rest.get(1..).unwrap_or("");
                let right = operand(rest, active);
                value = value || right;
            }
            _ => return value,
        }
    }
}

fn operand(rest: &mut &str, active: &BTreeSet<&str>) -> bool {
    if let Some(inner) = rest.strip_prefix('(') {
        *rest = inner;
        let value = or_and(rest, active);
        *rest = rest.strip_prefix(')').unwrap_or(rest);
        return value;
    }
    let end = rest.find(['+', ',', '(', ')']).unwrap_or(rest.len());
    let (name, tail) = rest.split_at(end);
    *rest = tail;
    name.contains("::") || active.contains(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_left_to_right() {
        let active = BTreeSet::from(["A", "B"]);
        assert!(holds("A+B", &active));
        assert!(!holds("A+C", &active));
        assert!(holds("C,A", &active));
        assert!(holds("((C,A)+B),D", &active));
        assert!(!holds("(C,D)+A", &active));
        assert!(holds("VkPhysicalDeviceX::feature+A", &active));
    }
}
