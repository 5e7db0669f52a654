//! Formats generated files, and writes them to the tree or compares them with it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::emit::file::File;
use crate::error::{Error, Result};
use crate::fetch;

/// The folder of the generated files.
pub fn folder() -> PathBuf {
    fetch::home().join("../protocol/src/generated")
}

/// Formats every file by rustfmt with the workspace's settings.
pub fn format(files: &mut [File]) -> Result<()> {
    for file in files {
        file.text = rustfmt(&file.text)?;
    }
    Ok(())
}

fn rustfmt(text: &str) -> Result<String> {
    let failed = |detail: String| Error::Tool {
        program: "rustfmt",
        detail,
        remedy: "install it with `rustup component add rustfmt`",
    };
    let mut child = Command::new("rustfmt")
        .args(["--edition", "2024", "--config-path"])
        .arg(fetch::home().join("../../rustfmt.toml"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| failed(e.to_string()))?;
    if let Some(mut stdin) = child.stdin.take() {
        // rustfmt reads all of its input before it writes.
        stdin
            .write_all(text.as_bytes())
            .map_err(|e| failed(e.to_string()))?;
    }
    let output = child
        .wait_with_output()
        .map_err(|e| failed(e.to_string()))?;
    if !output.status.success() {
        return Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    String::from_utf8(output.stdout).map_err(|e| failed(e.to_string()))
}

/// Writes the files that changed. Returns how many.
pub fn write(files: &[File]) -> Result<usize> {
    let mut changed = 0;
    for file in files {
        let path = folder().join(&file.path);
        if std::fs::read_to_string(&path).is_ok_and(|old| old == file.text) {
            continue;
        }
        let io = |source| Error::Io {
            path: path.clone(),
            source,
        };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(io)?;
        }
        std::fs::write(&path, &file.text).map_err(io)?;
        changed += 1;
    }
    Ok(changed)
}

/// Fails if a file in the tree differs from what the generator makes.
pub fn check(files: &[File]) -> Result<()> {
    let stale: Vec<&str> = files
        .iter()
        .filter(|f| {
            std::fs::read_to_string(folder().join(&f.path))
                .ok()
                .as_ref()
                != Some(&f.text)
        })
        .map(|f| f.path.as_str())
        .collect();
    if stale.is_empty() {
        Ok(())
    } else {
        Err(Error::Stale(stale.join(", ")))
    }
}

/// The Rust files below the folder, with the same paths as generated files.
pub fn listing() -> Result<Vec<String>> {
    let (top, mut paths) = (folder(), Vec::new());
    let mut pending = vec![top.clone()];
    while let Some(current) = pending.pop() {
        let io = |source| Error::Io {
            path: current.clone(),
            source,
        };
        for entry in std::fs::read_dir(&current).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if path.is_dir() {
                pending.push(path);
            } else if let Ok(below) = path.strip_prefix(&top) {
                paths.push(below.to_string_lossy().into_owned());
            }
        }
    }
    paths.sort();
    Ok(paths)
}
