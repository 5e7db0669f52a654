//! A guest's kernel starts another one while programs use its GPU: kexec, as for a quick reboot,
//! and a crash kernel, as for kdump. The machine is not reset, so the new driver finds a device
//! that still works for the old one.
//!
//! `HESPER_SUITES="trixie forky sid"` runs all guests.

use crate::support::cube::assert_turning;
use crate::support::hesper::Hesper;
use crate::support::vulkan_guest::{VulkanGuest, suites};
use serde_json::Value;

/// Boots a guest with a turning vkcube, lets `then` start another kernel, and checks that the GPU
/// starts anew.
fn starts_anew(options: &[&str], then: impl Fn(&mut VulkanGuest)) {
    for (suite, wsi, cube) in suites() {
        let suite = suite.as_str();
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let hesper = Hesper::start(folder, &["--display=headless", wsi], None);
        let idle = hesper.idle_usage();
        let mut guest = VulkanGuest::boot_with(folder, suite, suite, &hesper.socket(), options);
        guest.start_weston();
        guest.start_cube(cube, 100_000);
        assert_turning(|| hesper.screenshot(0));
        guest.start_hold(60, 1);

        then(&mut guest);
        let counters: Value = serde_json::from_str(&hesper.control("counters")).unwrap();
        for what in ["contexts", "rings", "objects", "shared_bytes"] {
            assert_eq!(counters[what], 0, "{suite}: {what} of the old kernel's");
        }
        guest.start_weston();
        guest.start_cube(cube, 100_000);
        assert_turning(|| hesper.screenshot(0));
        guest.succeed("hesper-test-client run submit-64-in-flight map-gpu-writes");

        assert_eq!(guest.complaints(), Vec::<String>::new(), "{suite}");
        let log = hesper.process.errors();
        assert!(
            !log.contains("is lost") && !log.contains("MAP_BLOB refused"),
            "{log}"
        );
        guest.kill();
        hesper.holds_the_same(&mut Some(idle));
    }
}

#[test]
#[ignore = "two boots; `tests/run-all long` runs it"]
fn the_next_kernel_finds_its_gpu() {
    starts_anew(&["--kexec"], |guest| {
        guest.load_kernel(false);
        guest.kexec();
    });
}

#[test]
#[ignore = "two boots; `tests/run-all long` runs it"]
fn a_crash_kernel_finds_its_gpu() {
    let options = ["--kexec", "--mem", "1536M", "--append", "crashkernel=320M"];
    starts_anew(&options, |guest| {
        guest.load_kernel(true);
        guest.crash();
        guest.succeed("grep -q again /proc/cmdline");
    });
}
