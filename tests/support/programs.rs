//! Programs of this workspace that run inside a guest, built for it.

#[path = "library.rs"]
mod library;

use std::path::{Path, PathBuf};
use std::process::Command;

/// How a guest's program finds its libraries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Linked {
    /// It brings them: it runs in any guest.
    Statically,
    /// In the guest, whose C library must be as new as this machine's: a program that loads Vulkan's loader
    /// must share the C library with it.
    Dynamically,
}

/// Builds a package of the workspace and returns its program.
pub fn build(package: &str, linked: Linked) -> PathBuf {
    let triple = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let variable = format!(
        "CARGO_TARGET_{}_RUSTFLAGS",
        triple.to_uppercase().replace('-', "_")
    );
    // A folder each: other flags for the compiler would build everything anew every time.
    let (folder, flags) = match linked {
        Linked::Statically => ("guest", "-C target-feature=+crt-static"),
        Linked::Dynamically => ("guest-dynamic", ""),
    };
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    let output = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--locked", "--release"])
        .args(["--package", package])
        .args(["--target", &triple, "--target-dir"])
        .arg(&target)
        .arg("--manifest-path")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"))
        .env(variable, flags)
        .output()
        .expect("cargo starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{package}, which is to run in a guest, does not build:\n{errors}"
    );
    target.join(triple).join("release").join(package)
}

/// The library of a driver that behaves like MoltenVK.
pub fn moltenvk() -> PathBuf {
    library::built("hesper_mac_driver_moltenvk")
}
