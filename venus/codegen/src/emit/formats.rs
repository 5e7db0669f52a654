//! Emits the table of formats.

use std::fmt::Write as _;

use crate::emit::file::File;
use crate::model::Model;

/// Emits the table's file.
pub fn emit(model: &Model, files: &mut Vec<File>) {
    let mut out = String::from(
        "use crate::format::{Format, Plane}; use crate::vk;\n\
         /// Formats that the protocol supports, in ascending order of their values.\n\
         pub(crate) static FORMATS: &[Format] = &[",
    );
    let size_of = |name: &str| {
        let mut formats = model.formats.iter();
        let found = formats.find(|(_, format)| format.name == name);
        found.map_or(0, |(_, format)| format.block_size)
    };
    for (value, format) in &model.formats {
        let planes: String = format
            .planes
            .iter()
            .map(|(width, height, compatible)| {
                let size = size_of(compatible);
                format!("Plane {{ divisors: [{width}, {height}], block_size: {size} }},")
            })
            .collect();
        let _ = write!(
            out,
            "Format {{ format: vk::Format({value}), block_size: {}, block_extent: {:?}, \
             depth_bits: {}, stencil_bits: {}, planes: &[{planes}] }},",
            format.block_size, format.block_extent, format.depth_bits, format.stencil_bits,
        );
    }
    out.push_str("];\n");
    files.push(File::new("formats.rs", "The table of formats.", out));
}
