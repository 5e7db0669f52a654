//! Reports a panic as a bug of Hesper, in one line without paths of the machine that built the
//! program.

use std::backtrace::Backtrace;
use std::panic::{self, PanicHookInfo};
use std::thread;

/// Installs the panic hook that prints this line.
pub(crate) fn report() {
    panic::set_hook(Box::new(|panic| {
        eprintln!("hesper: {}", text(panic));
        // A backtrace was asked for: it has paths.
        if std::env::var_os("RUST_BACKTRACE").is_some_and(|value| value != "0") {
            eprintln!("{}", Backtrace::force_capture());
        }
    }));
}

/// Installs a panic hook that logs this line, for a process whose log goes elsewhere.
pub(crate) fn report_to_log() {
    panic::set_hook(Box::new(|panic| log::error!("{}", text(panic))));
}

fn text(panic: &PanicHookInfo<'_>) -> String {
    let thread = thread::current();
    let thread = thread.name().unwrap_or("without a name");
    let place = panic.location().map_or_else(String::new, |location| {
        format!(
            " at {}:{}",
            without_folders(location.file()),
            location.line()
        )
    });
    let payload = panic.payload();
    let message = payload
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| payload.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no message");
    format!(
        "the thread '{thread}' panicked{place}: {}; this is a bug in Hesper, please report it with `hesper doctor --report`",
        message.trim_end()
    )
}

/// A source file's path without the folders before its crate's name. Paths of this workspace have
/// none.
fn without_folders(file: &str) -> &str {
    let after = |folder: &str| {
        let (_, rest) = file.rsplit_once(folder)?;
        // The registry's folder is named after the registry and a hash.
        rest.split_once('/').map(|(_, rest)| rest)
    };
    after("/registry/src/")
        .or_else(|| file.rsplit_once("/rustlib/src/rust/").map(|(_, rest)| rest))
        .or_else(|| {
            file.strip_prefix("/rustc/")?
                .split_once('/')
                .map(|(_, rest)| rest)
        })
        .unwrap_or(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_has_no_folders_of_the_builder() {
        for (file, expected) in [
            ("src/run.rs", "src/run.rs"),
            ("vhost/src/transport/ring.rs", "vhost/src/transport/ring.rs"),
            (
                "/home/ann/.cargo/registry/src/index.example.org-1949cf8c6b5b557f/winit-0.30.12/src/lib.rs",
                "winit-0.30.12/src/lib.rs",
            ),
            (
                "/rustc/0123abcd/library/core/src/cell.rs",
                "library/core/src/cell.rs",
            ),
            (
                "/opt/rust/lib/rustlib/src/rust/library/alloc/src/vec.rs",
                "library/alloc/src/vec.rs",
            ),
        ] {
            assert_eq!(without_folders(file), expected);
        }
    }
}
