//! Where the null driver is: built with the tests, as it is one of their dependencies.
#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a test ends with a panic"
)]

use std::path::PathBuf;

/// The shared library beside the program that runs, or in `deps` beside it. Panics where it is not.
pub fn library() -> PathBuf {
    let name = format!(
        "{}hesper_null_driver{}",
        std::env::consts::DLL_PREFIX,
        std::env::consts::DLL_SUFFIX
    );
    let program = std::env::current_exe().unwrap();
    let folder = program.parent().unwrap();
    let candidates = [folder.join(&name), folder.join("deps").join(&name)];
    let library = candidates.into_iter().find(|path| path.exists());
    library.unwrap_or_else(|| panic!("no {name} beside {program:?}"))
}
