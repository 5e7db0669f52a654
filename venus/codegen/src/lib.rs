//! Generates `hesper-venus-protocol` from the Vulkan registry.
//!
//! ```text
//! cargo run -p hesper-venus-codegen             # fetch vk.xml if need be, write the files
//! cargo run -p hesper-venus-codegen -- --check  # compare only
//! ```
//!
//! Each stage is a file: [`reader`] (vk.xml as written) → [`select`] (what belongs to Venus) →
//! [`resolve`] and [`model`] (resolved types and commands) → [`wire`] (the wire rules, as one enum)
//! → [`emit`] (Rust). [`nesting`] proves that decoding ends. [`tables`] holds what vk.xml does not
//! have, and [`fetch`] downloads vk.xml.

pub mod emit;
pub mod error;
pub mod fetch;
pub mod model;
pub mod names;
pub mod nesting;
pub mod output;
pub mod reader;
pub mod resolve;
pub mod select;
pub mod tables;
pub mod wire;

pub use error::{Error, Result};

/// Generates all files from the text of vk.xml, and formats them.
pub fn generate(xml: &str) -> Result<Vec<emit::file::File>> {
    let registry = reader::read(xml)?;
    let tables = tables::load()?;
    let selection = select::select(&registry, &tables);
    let model = resolve::build(&registry, &selection, &tables)?;
    nesting::depth(&model)?;
    let mut files = emit::emit(&model)?;
    output::format(&mut files)?;
    Ok(files)
}
