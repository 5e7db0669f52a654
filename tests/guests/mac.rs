//! A Mac's way of working, tested on Linux. Hesper works as on macOS (`HESPER_SYSTEM`), and loads a
//! driver that behaves like MoltenVK, without Vulkan's loader. QEMU shares the guest's memory as
//! POSIX shared memory.
//!
//! Mesa of Debian's forky cannot align blobs to a Mac's pages of 16 KiB, so Hesper uses this
//! machine's page size there. The guests that `HESPER_SUITES` can name have pages of 16 KiB on the
//! host's side: `sid` (`tests/env/prepare mesa:sid`), `sid-arm64`, `sid-arm64-16k` and
//! `forky-arm64-16k`. The last two have pages of 16 KiB themselves; `tests/run-all arm64` takes the
//! last.

use crate::support::cube::assert_turning;
use crate::support::hesper::Hesper;
use crate::support::programs::moltenvk;
use crate::support::vulkan_guest::VulkanGuest;
use crate::support::xserver::XServer;

/// Cases about queues, waiting and shared memory. Among them is a fault that Macs once had: the
/// fence of a submission was never signalled.
const CASES: &str = "submit-one submit-64-in-flight submit-batches fence-reset-and-reuse fence-wait-any timeline-host \
                     timeline-device timeline-wait-before-signal timeline-queue-waits-for-host timeline-wait-any \
                     map-gpu-writes map-cpu-writes map-write-seen-before-the-fence threads-wait draw-render-pass";

/// A few cases that show whether a guest has its GPU.
const SOME: &str = "submit-64-in-flight map-gpu-writes draw-render-pass";

#[test]
fn a_guest_computes_and_presents_is_reset_and_comes_back() {
    let suites = std::env::var("HESPER_SUITES").unwrap_or_else(|_| "forky".to_owned());
    for suite in suites.split_whitespace() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let screen = XServer::start(1600, 1000);
        // Hesper has pages of 16 KiB if the guest's Mesa or kernel can use them.
        let system = match suite.starts_with("sid") || suite.ends_with("-16k") {
            true => "macos",
            false => "posix",
        };
        let driver = format!("--driver={}", moltenvk().display());
        let mut arguments = vec!["--wsi=software", &driver];
        if suite == "forky-arm64-16k" {
            // This guest's blobs are whole pages of a Mac anyway, because its own pages have that
            // size. Its Mesa fails if Hesper asks for an alignment of 16 KiB.
            arguments.push("--blob-alignment=4096");
        }
        let hesper = Hesper::start_in(
            folder,
            &arguments,
            Some(&screen),
            None,
            &[("HESPER_SYSTEM", system)],
        );
        let boot = |name| {
            let memory = ["--memory", "shm"];
            VulkanGuest::boot_with(folder, name, suite, &hesper.socket(), &memory)
        };
        let mut guest = boot("first");
        let summary = guest.succeed("vulkaninfo --summary");
        assert!(summary.contains("Virtio-GPU Venus (Apple"), "{summary}");
        guest.succeed(&format!("hesper-test-client run {CASES}"));
        guest.start_weston();
        guest.start_cube("", 100_000);
        assert_turning(|| screen.window_picture(folder));

        guest.reset();
        guest.succeed(&format!("hesper-test-client run {SOME}"));
        guest.kill();

        let mut guest = boot("second");
        guest.succeed(&format!("hesper-test-client run {SOME}"));
        guest.start_weston();
        guest.start_cube("", 200);
        assert_turning(|| screen.window_picture(folder));
        guest.await_cube();
        let log = hesper.process.errors();
        for wrong in ["is lost", "mac driver:"] {
            assert!(!log.contains(wrong), "{log}");
        }
    }
}
