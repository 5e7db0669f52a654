//! Finds the shared libraries of the tests. They are built with the tests, as dependencies.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    reason = "included by tests of several crates, which end with a panic"
)]

use std::path::PathBuf;

/// The shared library of a crate, beside the running program or in `deps` beside it. Panics if it
/// is missing.
pub fn built(name: &str) -> PathBuf {
    use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
    let name = format!("{DLL_PREFIX}{name}{DLL_SUFFIX}");
    let program = std::env::current_exe().unwrap();
    let candidates = [
        program.with_file_name(&name),
        program.with_file_name("deps").join(&name),
    ];
    let library = candidates.into_iter().find(|path| path.exists());
    library.unwrap_or_else(|| panic!("no {name} beside {}", program.display()))
}
