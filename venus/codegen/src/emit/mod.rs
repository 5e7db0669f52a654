//! Last stage: emits Rust text.
//!
//! Every file is marked `@generated` and formatted by rustfmt. It depends only on the registry and
//! the data files, so a second run writes the same bytes.

pub mod calls;
pub mod commands;
pub mod file;
pub mod formats;
pub mod layout_test;
pub mod rules;
pub mod rust;
pub mod schema;
pub mod structs;
pub mod tables;
pub mod types;

use crate::emit::file::File;
use crate::error::Result;
use crate::model::Model;

/// Emits all files, not yet formatted.
pub fn emit(model: &Model) -> Result<Vec<File>> {
    let mut files = Vec::new();
    types::emit(model, &mut files)?;
    structs::emit(model, &mut files)?;
    commands::emit(model, &mut files)?;
    calls::emit(model, &mut files)?;
    schema::emit(model, &mut files)?;
    tables::emit(model, &mut files)?;
    formats::emit(model, &mut files);
    files.push(layout_test::emit(model));
    let modules = "pub(crate) mod calls; mod codec; pub mod command; pub(crate) mod commands; pub(crate) mod core; \
                   pub(crate) mod extensions; pub(crate) mod formats; pub(crate) mod numbers; pub(crate) mod schema; pub(crate) mod types;";
    files.push(File::new(
        "mod.rs",
        "What the generator wrote.",
        modules.to_owned(),
    ));
    Ok(files)
}
