//! Third stage: the model that everything is emitted from.
//!
//! Names are resolved, aliases gone, and only what the codable commands can reach is left. Each
//! struct knows whether it travels to the host (`input`), back from it (`output`), or both.
//! [`crate::resolve`] builds it.

use std::collections::BTreeMap;

use crate::reader::FormatDecl;
use crate::select::Area;
use crate::tables::{CommandRow, ExtensionRow};

/// A number as C stores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scalar {
    /// `uint8_t`.
    U8,
    /// `uint16_t`.
    U16,
    /// `uint32_t` and flags.
    U32,
    /// `int32_t` and enums.
    I32,
    /// `float`.
    F32,
    /// `uint64_t` and wide flags.
    U64,
    /// `int64_t`.
    I64,
    /// `double`.
    F64,
    /// `size_t`.
    Size,
}

impl Scalar {
    /// Bytes in memory on the 64-bit hosts we support.
    pub fn size(self) -> u32 {
        match self {
            Scalar::U8 => 1,
            Scalar::U16 => 2,
            Scalar::U32 | Scalar::I32 | Scalar::F32 => 4,
            Scalar::U64 | Scalar::I64 | Scalar::F64 | Scalar::Size => 8,
        }
    }

    /// Rust's name for it.
    pub fn rust(self) -> &'static str {
        match self {
            Scalar::U8 => "u8",
            Scalar::U16 => "u16",
            Scalar::U32 => "u32",
            Scalar::I32 => "i32",
            Scalar::F32 => "f32",
            Scalar::U64 => "u64",
            Scalar::I64 => "i64",
            Scalar::F64 => "f64",
            Scalar::Size => "usize",
        }
    }
}

/// A type behind pointers and arrays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Base {
    /// `void`.
    Void,
    /// `char`.
    Char,
    /// A number.
    Scalar(Scalar),
    /// A named number: `Bool32`, `DeviceSize`, …
    Alias(&'static str, Scalar),
    /// A 32-bit enum.
    Enum(String),
    /// A set of flags, or one flag of it.
    Flags {
        /// The `Vk…Flags` type.
        name: String,
        /// 64 bits.
        wide: bool,
    },
    /// An object handle.
    Handle(String),
    /// A struct.
    Struct(String),
    /// A union.
    Union(String),
}

/// How many elements an array has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Len {
    /// As another member says.
    Member(String),
    /// As the member of a struct says that another parameter points to.
    Through(String, String),
    /// Up to the NUL.
    Terminated,
    /// Always this many.
    Const(u32),
    /// A quarter of a member (`codeSize / 4`).
    Quarter(String),
    /// One word for each 32 of a member (`(samples + 31) / 32`).
    Words(String),
    /// For element i: as `array[i].member` says.
    PerElement(String, String),
}

/// A member of a struct or union, or a parameter.
#[derive(Debug, Clone)]
pub struct Member {
    /// The C name.
    pub c_name: String,
    /// The Rust name.
    pub name: String,
    /// The type behind pointers and arrays.
    pub base: Base,
    /// How many `*`.
    pub depth: usize,
    /// Points to const.
    pub is_const: bool,
    /// Static array size.
    pub dim: Option<u32>,
    /// Length of the array, one entry per pointer level.
    pub len: Vec<Len>,
    /// May be null or absent.
    pub optional: bool,
    /// Elements of the array may be null.
    pub element_optional: bool,
    /// Not held to the API's own validity rules.
    pub noautovalidity: bool,
    /// For a union: the sibling that says which member is meant.
    pub selector: Option<String>,
    /// A pointer that is read and written though nothing takes its length from it.
    pub inout: bool,
    /// A pointer of which guests send that it is there, and nothing of what it points to.
    pub marker: bool,
    /// In a union: (name, value) of the selector for this member.
    pub selection: Vec<(String, i64)>,
}

/// A struct.
#[derive(Debug)]
pub struct Struct {
    /// The C name.
    pub c_name: String,
    /// The Rust name.
    pub name: String,
    /// Where it is emitted.
    pub area: Area,
    /// Members, sType and pNext included.
    pub members: Vec<Member>,
    /// The constant of its sType.
    pub stype: Option<String>,
    /// The value of its sType.
    pub stype_value: i64,
    /// C names of structs that its chain may hold.
    pub chain: Vec<String>,
    /// A chain may hold several.
    pub repeats: bool,
    /// Decoded in requests.
    pub input: bool,
    /// An output of commands.
    pub output: bool,
}

/// A union.
#[derive(Debug)]
pub struct Union {
    /// The C name.
    pub c_name: String,
    /// The Rust name.
    pub name: String,
    /// Where it is emitted.
    pub area: Area,
    /// Members.
    pub members: Vec<Member>,
    /// The member that is sent when nothing selects one.
    pub default: Option<usize>,
}

/// An enum or a set of flags.
#[derive(Debug)]
pub struct Enum {
    /// The C name.
    pub c_name: String,
    /// Bits: 0 for an enum, else 32 or 64 for flags.
    pub flags: u32,
    /// (constant, value), ascending.
    pub values: Vec<(String, i64)>,
}

/// A codable command.
#[derive(Debug)]
pub struct Command {
    /// The C name.
    pub c_name: String,
    /// The Rust name.
    pub name: String,
    /// Its number.
    pub number: u32,
    /// The module it is emitted to.
    pub module: &'static str,
    /// What it returns.
    pub returns: Base,
    /// Parameters.
    pub params: Vec<Member>,
}

/// Everything there is to emit.
#[derive(Debug)]
pub struct Model {
    /// Structs by C name.
    pub structs: BTreeMap<String, Struct>,
    /// Unions by C name.
    pub unions: BTreeMap<String, Union>,
    /// Enums and flags by C name.
    pub enums: BTreeMap<String, Enum>,
    /// Handles by C name.
    pub handles: BTreeMap<String, i64>,
    /// Codable commands by number.
    pub commands: Vec<Command>,
    /// Every number, also of commands that are not codable.
    pub numbers: Vec<CommandRow>,
    /// Extensions.
    pub extensions: Vec<ExtensionRow>,
    /// Formats, ascending by their values.
    pub formats: Vec<(i64, FormatDecl)>,
    /// What brings which command: (C name as it is there, core version's minor number or extension).
    pub providers: Vec<(String, Provider)>,
}

/// Who brings a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provider {
    /// Vulkan 1.`minor`.
    Core(u32),
    /// An extension.
    Extension(String),
}
