//! Where drivers for tests are: built with the tests, as they are dependencies of theirs.
#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test file uses its own part, and a test ends with a panic"
)]

use std::path::PathBuf;

/// The null driver's shared library.
pub fn library() -> PathBuf {
    named("hesper_null_driver")
}

/// The shared library of a crate, beside the program that runs, or in `deps` beside it. Panics where it is not.
pub fn named(name: &str) -> PathBuf {
    let name = format!(
        "{}{name}{}",
        std::env::consts::DLL_PREFIX,
        std::env::consts::DLL_SUFFIX
    );
    let program = std::env::current_exe().unwrap();
    let folder = program.parent().unwrap();
    let candidates = [folder.join(&name), folder.join("deps").join(&name)];
    let library = candidates.into_iter().find(|path| path.exists());
    library.unwrap_or_else(|| panic!("no {name} beside {program:?}"))
}
