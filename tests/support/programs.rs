//! Programs of this workspace for a guest, and drivers of the tests.

#[path = "library.rs"]
pub mod library;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

/// How a guest's program finds its libraries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linked {
    /// It has them linked in, and runs in any guest.
    Statically,
    /// It uses the guest's C library, which must be as new as this machine's. A program that loads
    /// Vulkan's loader must share the C library with it.
    Dynamically,
}

/// Builds a package of the workspace for a suite's guest (`tests/env/README.md`), once per test
/// process, and returns the program's path.
pub fn for_guest(package: &'static str, linked: Linked, suite: &str) -> PathBuf {
    static BUILT: Mutex<BTreeMap<(&str, &str), PathBuf>> = Mutex::new(BTreeMap::new());
    let architecture = match suite.contains("-arm64") {
        true => "aarch64",
        false => std::env::consts::ARCH,
    };
    // If the build failed in another test, it is tried again here.
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let program = built.entry((package, architecture));
    let program = program.or_insert_with(|| build(package, linked, architecture));
    program.clone()
}

/// Builds a package for an architecture, which has Rust's name.
fn build(package: &str, linked: Linked, architecture: &str) -> PathBuf {
    let triple = format!("{architecture}-unknown-linux-gnu");
    let variable = |name: &str| {
        let triple = triple.to_uppercase().replace('-', "_");
        format!("CARGO_TARGET_{triple}_{name}")
    };
    // A target folder for each kind, because other compiler flags would rebuild everything.
    let (folder, flags) = match linked {
        Linked::Statically => ("guest", "-C target-feature=+crt-static"),
        Linked::Dynamically => ("guest-dynamic", ""),
    };
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    let mut command = Command::new(env!("CARGO"));
    if architecture != std::env::consts::ARCH {
        // This is Debian's cross compiler, which `tests/env/prepare` installs.
        command.env(variable("LINKER"), format!("{architecture}-linux-gnu-gcc"));
    }
    let output = command
        .args(["build", "--quiet", "--locked", "--release"])
        .args(["--package", package])
        .args(["--target", &triple, "--target-dir"])
        .arg(&target)
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .env(variable("RUSTFLAGS"), flags)
        .output()
        .expect("cargo starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{package}, which is to run in a guest, does not build:\n{errors}"
    );
    target.join(triple).join("release").join(package)
}

/// The shared library of a driver that behaves like MoltenVK.
pub fn moltenvk() -> PathBuf {
    library::built("hesper_mac_driver_moltenvk")
}

/// Makes a manifest in `folder` with which Vulkan's loader finds a driver of the tests
/// (`tests/drivers`), and returns its path.
pub fn driver_manifest(folder: &Path, library: &str) -> String {
    let manifest = folder.join(format!("{library}.json"));
    let text = serde_json::json!({
        "file_format_version": "1.0.0",
        "ICD": {"library_path": library::built(library), "api_version": "1.4.0"},
    });
    std::fs::write(&manifest, text.to_string()).expect("a test writes to its folder");
    manifest
        .to_str()
        .expect("a test's folder is named in UTF-8")
        .to_owned()
}
