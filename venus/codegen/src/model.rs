//! Third stage: the model from which everything is emitted.
//!
//! Names and aliases are resolved, and only what codable commands can reach is left. Each struct
//! has flags for its directions: to the host (`input`) and back from it (`output`).
//! [`crate::resolve`] builds the model.

use std::collections::{BTreeMap, BTreeSet};

use crate::reader::FormatDecl;
use crate::select::Area;
use crate::tables::{CommandRow, ExtensionRow, RuleRow};

/// A number type of C.
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
    /// Bytes in memory on 64-bit hosts.
    pub fn size(self) -> u32 {
        match self {
            Scalar::U8 => 1,
            Scalar::U16 => 2,
            Scalar::U32 | Scalar::I32 | Scalar::F32 => 4,
            Scalar::U64 | Scalar::I64 | Scalar::F64 | Scalar::Size => 8,
        }
    }

    /// The name of the Rust type.
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
        /// Whether it has 64 bits.
        wide: bool,
    },
    /// An object handle.
    Handle(String),
    /// A struct.
    Struct(String),
    /// A union.
    Union(String),
}

/// The number of elements of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Len {
    /// The value of another member.
    Member(String),
    /// A member of the struct to which another parameter points.
    Through(String, String),
    /// A string that ends with NUL.
    Terminated,
    /// A constant.
    Const(u32),
    /// A quarter of a member (`codeSize / 4`).
    Quarter(String),
    /// One word for each 32 of a member (`(samples + 31) / 32`).
    Words(String),
    /// For element i: the value of `array[i].member`.
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
    /// The number of `*`.
    pub depth: usize,
    /// Whether it points to const.
    pub is_const: bool,
    /// The size of a static array.
    pub dim: Option<u32>,
    /// The lengths of the array, one for each pointer level.
    pub len: Vec<Len>,
    /// Whether its C type is the type of one flag (`Vk…FlagBits`).
    pub is_bit: bool,
    /// Whether it may be null or absent.
    pub optional: bool,
    /// Whether elements of the array may be null.
    pub element_optional: bool,
    /// The `noautovalidity` attribute: the API's generated validity rules do not apply to it.
    pub noautovalidity: bool,
    /// For a union: the sibling that selects the union's member.
    pub selector: Option<String>,
    /// Whether it is a pointer that is read and written although no other parameter takes its
    /// length from it.
    pub inout: bool,
    /// Whether it is a pointer of which guests send only the presence, and nothing of its target.
    pub marker: bool,
    /// In a union: the (name, value) pairs of the selector for this member.
    pub selection: Vec<(String, i64)>,
}

/// A struct.
#[derive(Debug)]
pub struct Struct {
    /// The C name.
    pub c_name: String,
    /// The Rust name.
    pub name: String,
    /// The area to which it is emitted.
    pub area: Area,
    /// Members, with sType and pNext.
    pub members: Vec<Member>,
    /// The constant of its sType.
    pub stype: Option<String>,
    /// The value of its sType.
    pub stype_value: i64,
    /// C names of structs that its chain may hold.
    pub chain: Vec<String>,
    /// Whether a chain may hold several.
    pub repeats: bool,
    /// Whether requests contain it as an input.
    pub input: bool,
    /// Whether it is an output of commands.
    pub output: bool,
}

/// A union.
#[derive(Debug)]
pub struct Union {
    /// The C name.
    pub c_name: String,
    /// The Rust name.
    pub name: String,
    /// The area to which it is emitted.
    pub area: Area,
    /// Members.
    pub members: Vec<Member>,
    /// The member that guests send without a selector.
    pub default: Option<usize>,
}

/// An enum or a set of flags.
#[derive(Debug)]
pub struct Enum {
    /// The C name.
    pub c_name: String,
    /// The number of bits: 0 for an enum, 32 or 64 for flags.
    pub flags: u32,
    /// The (constant, value) pairs in ascending order.
    pub values: Vec<(String, i64)>,
    /// All values in ascending order, also those of extensions that are not served.
    pub known: BTreeSet<i64>,
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
    /// The module to which it is emitted.
    pub module: &'static str,
    /// The return type.
    pub returns: Base,
    /// Parameters.
    pub params: Vec<Member>,
}

/// Everything that is emitted.
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
    /// All command numbers, also those of commands that are not codable.
    pub numbers: Vec<CommandRow>,
    /// Extensions.
    pub extensions: Vec<ExtensionRow>,
    /// Formats in ascending order of their values.
    pub formats: Vec<(i64, FormatDecl)>,
    /// Providers of commands: (the C name there, the core version's minor number or the extension).
    pub providers: Vec<(String, Provider)>,
    /// What is demanded of numbers.
    pub rules: Vec<RuleRow>,
}

/// The provider of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provider {
    /// Vulkan 1.`minor`.
    Core(u32),
    /// An extension.
    Extension(String),
}
