//! First stage: reads vk.xml as it is written.
//!
//! [`read`] turns the XML into declarations of types, members, commands and enum values.
//! [`crate::select`] decides what of it belongs to Venus, and [`crate::wire`] how it is sent.

use std::collections::BTreeMap;

use roxmltree::{Document, Node};

use crate::error::{Error, Result};

/// The registry: declarations by C name.
#[derive(Debug, Default)]
pub struct Registry {
    /// Structs, unions, handles, bitmasks and so on.
    pub types: BTreeMap<String, TypeDecl>,
    /// Commands, aliases resolved into `aliases`.
    pub commands: BTreeMap<String, CommandDecl>,
    /// Values of each enum from its own `<enums>` block.
    pub enums: BTreeMap<String, Vec<EnumValue>>,
    /// Constants such as `VK_UUID_SIZE`.
    pub constants: BTreeMap<String, u32>,
    /// Core versions and extensions, with their contents.
    pub providers: Vec<Provider>,
    /// Formats.
    pub formats: Vec<FormatDecl>,
}

/// A format's texel blocks.
#[derive(Debug, Clone)]
pub struct FormatDecl {
    /// `VK_FORMAT_…`.
    pub name: String,
    /// Bytes of a texel block.
    pub block_size: u32,
    /// Texels of a block: width, height, depth.
    pub block_extent: [u32; 3],
    /// Bits of the depth component.
    pub depth_bits: u32,
    /// Bits of the stencil component.
    pub stencil_bits: u32,
    /// The planes of a format that has several: divisors of width and height, and the compatible
    /// format.
    pub planes: Vec<(u32, u32, String)>,
}

/// A type as declared.
#[derive(Debug)]
pub enum TypeDecl {
    /// `typedef struct`.
    Struct {
        /// Members in order.
        members: Vec<Declaration>,
        /// The structs whose chain may hold this one.
        extends: Vec<String>,
        /// Whether a chain may hold several: the `allowduplicate` attribute.
        repeats: bool,
    },
    /// `typedef union`.
    Union {
        /// Members in order.
        members: Vec<Declaration>,
    },
    /// A 32-bit enum, or the type of one flag bit.
    Enum,
    /// A set of flags.
    Bitmask {
        /// The enum that names the bits.
        bits: Option<String>,
        /// Whether it has 64 bits.
        wide: bool,
    },
    /// An object handle.
    Handle,
    /// Another name for a type.
    Alias(String),
    /// Anything else: base types, function pointers, includes.
    Other,
}

/// A member of a struct or a parameter of a command.
#[derive(Debug, Clone, Default)]
pub struct Declaration {
    /// Its C name.
    pub name: String,
    /// The C type behind pointers and arrays.
    pub ty: String,
    /// The number of `*`.
    pub depth: usize,
    /// Whether the outermost pointee is const.
    pub is_const: bool,
    /// The dimensions of a static array, as written.
    pub dims: Vec<String>,
    /// `altlen` or `len`, split at commas.
    pub len: Vec<String>,
    /// The `optional` attribute, per pointer level.
    pub optional: Vec<bool>,
    /// The `noautovalidity` attribute.
    pub noautovalidity: bool,
    /// The `values` attribute (the sType).
    pub values: Option<String>,
    /// The member that selects the union's member.
    pub selector: Option<String>,
    /// In a union: the selector's values for this member.
    pub selection: Vec<String>,
}

/// A command as declared.
#[derive(Debug, Default)]
pub struct CommandDecl {
    /// The C return type.
    pub returns: String,
    /// Parameters in order.
    pub params: Vec<Declaration>,
}

/// A named value of an enum.
#[derive(Debug, Clone)]
pub struct EnumValue {
    /// `VK_…`.
    pub name: String,
    /// Its value. For a flag bit it is the mask.
    pub value: i64,
}

/// A core version or an extension.
#[derive(Debug)]
pub struct Provider {
    /// `VK_VERSION_1_1`, `VK_KHR_…`.
    pub name: String,
    /// Whether it is a core version.
    pub is_core: bool,
    /// What it provides, block by block.
    pub blocks: Vec<Block>,
}

/// A `<require>` block.
#[derive(Debug, Default)]
pub struct Block {
    /// The condition for the block.
    pub depends: Option<String>,
    /// The types that it provides.
    pub types: Vec<String>,
    /// The commands that it provides, with their names there.
    pub commands: Vec<String>,
    /// Enum values it adds: (enum, value).
    pub values: Vec<(String, EnumValue)>,
    /// Other names that it adds for values defined elsewhere: (enum, the value's own name).
    pub aliases: Vec<(String, String)>,
}

/// Parses vk.xml.
pub fn read(xml: &str) -> Result<Registry> {
    let document = Document::parse(xml)?;
    let mut registry = Registry::default();
    for section in elements(document.root_element()) {
        match section.tag_name().name() {
            "types" => elements(section).try_for_each(|n| read_type(n, &mut registry))?,
            "enums" => read_enums(section, &mut registry)?,
            "commands" => elements(section).try_for_each(|n| read_command(n, &mut registry))?,
            "formats" => {
                for format in elements(section).filter(|n| n.has_tag_name("format")) {
                    registry.formats.push(read_format(format)?);
                }
            }
            "feature" if for_vulkan(section) => {
                registry.providers.push(read_provider(section, true)?);
            }
            "extensions" => {
                for extension in elements(section) {
                    registry.providers.push(read_provider(extension, false)?);
                }
            }
            _ => {}
        }
    }
    Ok(registry)
}

fn elements<'a, 'i>(node: Node<'a, 'i>) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children().filter(Node::is_element)
}

fn child<'a, 'i>(node: Node<'a, 'i>, tag: &str) -> Option<Node<'a, 'i>> {
    elements(node).find(|n| n.has_tag_name(tag))
}

fn child_text(node: Node<'_, '_>, tag: &str) -> Option<String> {
    child(node, tag).and_then(|n| n.text()).map(str::to_owned)
}

/// Whether an entry is for Vulkan. Some entries exist twice, once for Vulkan SC.
fn for_vulkan(node: Node<'_, '_>) -> bool {
    node.attribute("api")
        .is_none_or(|api| api.split(',').any(|a| a == "vulkan"))
}

fn list(node: Node<'_, '_>, attribute: &str) -> Vec<String> {
    let text = node.attribute(attribute).unwrap_or("");
    text.split(',')
        .filter(|s| !s.is_empty())
        .map(str::to_owned)
        .collect()
}

fn read_type(node: Node<'_, '_>, registry: &mut Registry) -> Result<()> {
    if !node.has_tag_name("type") || !for_vulkan(node) {
        return Ok(());
    }
    let name = node
        .attribute("name")
        .map(str::to_owned)
        .or_else(|| child_text(node, "name"))
        .or_else(|| child(node, "proto").and_then(|p| child_text(p, "name")));
    let Some(name) = name else { return Ok(()) };
    let members = || -> Result<Vec<Declaration>> {
        elements(node)
            .filter(|n| n.has_tag_name("member") && for_vulkan(*n))
            .map(read_declaration)
            .collect()
    };
    let decl = match (node.attribute("alias"), node.attribute("category")) {
        (Some(of), _) => TypeDecl::Alias(of.to_owned()),
        (None, Some("struct")) => TypeDecl::Struct {
            members: members()?,
            extends: list(node, "structextends"),
            repeats: node.attribute("allowduplicate") == Some("true"),
        },
        (None, Some("union")) => TypeDecl::Union {
            members: members()?,
        },
        (None, Some("enum")) => TypeDecl::Enum,
        (None, Some("handle")) => TypeDecl::Handle,
        (None, Some("bitmask")) => TypeDecl::Bitmask {
            bits: node
                .attribute("bitvalues")
                .or(node.attribute("requires"))
                .map(str::to_owned),
            wide: child_text(node, "type").as_deref() == Some("VkFlags64"),
        },
        _ => TypeDecl::Other,
    };
    registry.types.insert(name, decl);
    Ok(())
}

/// Reads a declaration: the C text around `<type>` and `<name>` has the pointers and dimensions.
fn read_declaration(node: Node<'_, '_>) -> Result<Declaration> {
    let (mut before, mut between, mut after) = (String::new(), String::new(), String::new());
    let (mut ty, mut name) = (None, None);
    for part in node.children() {
        match part.tag_name().name() {
            "type" => ty = part.text(),
            "name" => name = part.text(),
            "comment" => {}
            "enum" => after.push_str(part.text().unwrap_or("")),
            _ if ty.is_none() => before.push_str(part.text().unwrap_or("")),
            _ if name.is_none() => between.push_str(part.text().unwrap_or("")),
            _ => after.push_str(part.text().unwrap_or("")),
        }
    }
    let (Some(ty), Some(name)) = (ty, name) else {
        return Err(Error::Registry(format!(
            "a member at {:?} lacks a type or name",
            node.range()
        )));
    };
    let len = if node.has_attribute("altlen") {
        "altlen"
    } else {
        "len"
    };
    Ok(Declaration {
        name: name.to_owned(),
        ty: ty.to_owned(),
        depth: between.matches('*').count(),
        is_const: before.contains("const"),
        dims: after
            .split('[')
            .skip(1)
            .map(|d| d.replace(']', "").trim().to_owned())
            .collect(),
        len: list(node, len),
        optional: list(node, "optional").iter().map(|o| o == "true").collect(),
        noautovalidity: node.attribute("noautovalidity") == Some("true"),
        values: node.attribute("values").map(str::to_owned),
        selector: node.attribute("selector").map(str::to_owned),
        selection: list(node, "selection"),
    })
}

fn read_command(node: Node<'_, '_>, registry: &mut Registry) -> Result<()> {
    if !for_vulkan(node) || node.has_attribute("alias") {
        return Ok(());
    }
    let Some(proto) = child(node, "proto") else {
        return Ok(());
    };
    let (Some(returns), Some(name)) = (child_text(proto, "type"), child_text(proto, "name")) else {
        return Err(Error::Registry(format!(
            "a command at {:?} lacks a name",
            node.range()
        )));
    };
    let params = elements(node)
        .filter(|n| n.has_tag_name("param") && for_vulkan(*n))
        .map(read_declaration)
        .collect::<Result<_>>()?;
    registry
        .commands
        .insert(name, CommandDecl { returns, params });
    Ok(())
}

fn read_format(node: Node<'_, '_>) -> Result<FormatDecl> {
    let name = node.attribute("name").unwrap_or("").to_owned();
    let wrong = |what: &str| Error::Registry(format!("{name}: {what} is not a number"));
    let number = |node: Node<'_, '_>, attribute: &str| -> Result<u32> {
        let text = node.attribute(attribute).unwrap_or("");
        text.parse().map_err(|_| wrong(attribute))
    };
    let mut block_extent = [1; 3];
    for (to, from) in block_extent.iter_mut().zip(list(node, "blockExtent")) {
        *to = from.parse().map_err(|_| wrong("blockExtent"))?;
    }
    let bits = |component: &str| {
        let mut components = elements(node).filter(|n| n.has_tag_name("component"));
        let found = components.find(|n| n.attribute("name") == Some(component));
        found.map_or(Ok(0), |found| number(found, "bits"))
    };
    let planes = elements(node)
        .filter(|n| n.has_tag_name("plane"))
        .map(|plane| {
            let compatible = plane.attribute("compatible").unwrap_or("").to_owned();
            Ok((
                number(plane, "widthDivisor")?,
                number(plane, "heightDivisor")?,
                compatible,
            ))
        });
    Ok(FormatDecl {
        block_size: number(node, "blockSize")?,
        block_extent,
        depth_bits: bits("D")?,
        stencil_bits: bits("S")?,
        planes: planes.collect::<Result<_>>()?,
        name: name.clone(),
    })
}

fn read_enums(node: Node<'_, '_>, registry: &mut Registry) -> Result<()> {
    let name = node.attribute("name").unwrap_or("");
    for entry in elements(node).filter(|n| n.has_tag_name("enum") && for_vulkan(*n)) {
        if node.attribute("type") == Some("constants") {
            // Only whole numbers are used as array sizes. Others (~0U, 1000.0F) are not needed.
            let value = entry.attribute("value").and_then(|v| v.parse().ok());
            if let (Some(name), Some(value)) = (entry.attribute("name"), value) {
                registry.constants.insert(name.to_owned(), value);
            }
        } else if let Some(value) = read_value(entry, None)? {
            registry
                .enums
                .entry(name.to_owned())
                .or_default()
                .push(value);
        }
    }
    Ok(())
}

/// Reads an enum value from any of the attributes that can have it; `None` for aliases.
fn read_value(node: Node<'_, '_>, extension: Option<i64>) -> Result<Option<EnumValue>> {
    let Some(name) = node.attribute("name") else {
        return Ok(None);
    };
    let bad = |what: &str| Error::Registry(format!("{name}: {what} is not a number"));
    let number = |text: &str| {
        text.strip_prefix("0x")
            .map_or_else(|| text.parse(), |hex| i64::from_str_radix(hex, 16))
    };
    let value = if node.has_attribute("alias") {
        return Ok(None);
    } else if let Some(value) = node.attribute("value") {
        number(value).map_err(|_| bad("value"))?
    } else if let Some(bit) = node.attribute("bitpos") {
        1i64.checked_shl(bit.parse().map_err(|_| bad("bitpos"))?)
            .ok_or_else(|| bad("bitpos"))?
    } else if let Some(offset) = node.attribute("offset") {
        let offset: i64 = offset.parse().map_err(|_| bad("offset"))?;
        let number = match node.attribute("extnumber") {
            Some(n) => n.parse().map_err(|_| bad("extnumber"))?,
            None => extension.ok_or_else(|| bad("extension number"))?,
        };
        let value = 1_000_000_000 + (number - 1) * 1000 + offset;
        if node.attribute("dir") == Some("-") {
            -value
        } else {
            value
        }
    } else {
        return Ok(None);
    };
    Ok(Some(EnumValue {
        name: name.to_owned(),
        value,
    }))
}

fn read_provider(node: Node<'_, '_>, is_core: bool) -> Result<Provider> {
    let name = node.attribute("name").unwrap_or("").to_owned();
    let number = node.attribute("number").and_then(|n| n.parse().ok());
    let mut blocks = Vec::new();
    for require in elements(node).filter(|n| n.has_tag_name("require") && for_vulkan(*n)) {
        let depends = require.attribute("depends").map(str::to_owned);
        let mut block = Block {
            depends,
            ..Block::default()
        };
        for entry in elements(require).filter(|n| for_vulkan(*n)) {
            match (entry.tag_name().name(), entry.attribute("name")) {
                ("type", Some(name)) => block.types.push(name.to_owned()),
                ("command", Some(name)) => block.commands.push(name.to_owned()),
                ("enum", Some(_)) => {
                    let Some(extends) = entry.attribute("extends") else {
                        continue;
                    };
                    if let Some(value) = read_value(entry, number)? {
                        block.values.push((extends.to_owned(), value));
                    } else if let Some(of) = entry.attribute("alias") {
                        block.aliases.push((extends.to_owned(), of.to_owned()));
                    }
                }
                _ => {}
            }
        }
        blocks.push(block);
    }
    Ok(Provider {
        name,
        is_core,
        blocks,
    })
}
