//! The generator's command line, which the crate's documentation describes.

use std::process::ExitCode;

use hesper_venus_codegen::{Result, fetch, generate, output};

fn main() -> ExitCode {
    let is_check = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => {
            eprintln!(
                "hesper-venus-codegen: unknown argument `{other}`; only --check is supported"
            );
            return ExitCode::FAILURE;
        }
    };
    match run(is_check) {
        Ok(message) => {
            println!("{message}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("hesper-venus-codegen: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(is_check: bool) -> Result<String> {
    let files = generate(&fetch::vk_xml()?)?;
    if is_check {
        output::check(&files)?;
        return Ok(format!("{} files are up to date", files.len()));
    }
    let changed = output::write(&files)?;
    Ok(format!("{} files, {changed} changed", files.len()))
}
