//! The Debian package of the guest layer (`venus/guest-layer`), in guests for which it is made. The
//! stage `packages` of `tests/run-all` builds the packages and names their folder in `HESPER_DEBS`.

use std::path::{Path, PathBuf};

use crate::support::hesper::Hesper;
use crate::support::vulkan_guest::{VulkanGuest, suites};

/// The package for a suite's guest in the folder of `HESPER_DEBS`.
fn package(name: &str, suite: &str) -> PathBuf {
    let folder = std::env::var("HESPER_DEBS").expect("`tests/run-all packages` sets HESPER_DEBS");
    let architecture = match suite.contains("-arm64") {
        true => "arm64",
        false => "amd64",
    };
    let files = Path::new(&folder).read_dir().unwrap();
    let is_it = |path: &PathBuf| {
        let file = path.file_name().unwrap().to_str().unwrap();
        file.starts_with(&format!("{name}_")) && file.ends_with(&format!("_{architecture}.deb"))
    };
    let mut found = files.map(|entry| entry.unwrap().path()).filter(is_it);
    found.next().expect("a package for this architecture")
}

/// Runs a program that waits, with this variable. Returns whether the loader took the layer.
#[track_caller]
fn uses_layer(guest: &mut VulkanGuest, variable: &str) -> bool {
    let said = guest.succeed(&format!(
        "{variable} VK_LOADER_DEBUG=layer hesper-test-client run fence-reset-and-reuse \
         fence-wait-any timeline-device 2>&1"
    ));
    assert_eq!(said.matches("ok ").count(), 3, "{said}");
    said.contains("Insert instance layer \"VK_LAYER_HESPER_waits\"")
}

/// Every Vulkan program uses the layer once the package is installed, unless a variable turns it
/// off, and none does when the package is removed. `HESPER_SUITES="forky forky-arm64"` takes both
/// architectures.
#[test]
#[ignore = "takes a package, which `tests/run-all packages` builds"]
fn the_guest_layer_is_installed_used_turned_off_and_removed() {
    for (suite, wsi, _) in suites() {
        let suite = suite.as_str();
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let hesper = Hesper::start(folder, &["--display=headless", wsi], None);
        let file = format!(
            "{}:layer.deb",
            package("hesper-guest-layer", suite).display()
        );
        // The layer does nothing on one processor.
        let options = ["--smp", "2", "--file", &file];
        let mut guest = VulkanGuest::boot_with(folder, "guest", suite, &hesper.socket(), &options);
        assert!(!uses_layer(&mut guest, ""), "{suite}");
        // The disks of arm64 guests were unpacked without dpkg's list of what is installed.
        let force = if suite.contains("-arm64") {
            "--force-depends"
        } else {
            ""
        };
        guest.succeed(&format!("dpkg --install {force} /job/layer.deb"));
        assert!(uses_layer(&mut guest, ""), "{suite}");
        assert!(
            !uses_layer(&mut guest, "HESPER_DISABLE_WAITS_LAYER=1"),
            "{suite}"
        );
        guest.succeed("dpkg --remove hesper-guest-layer");
        let left = guest.succeed("find /usr -name '*hesper_waits*'");
        assert_eq!(left, "", "{suite}");
    }
}
