//! A guest that suspends itself to RAM and is woken up, with programs that use its GPU: `systemctl suspend` in the guest, QMP's
//! `system_wakeup`.
//!
//! Linux' driver cannot suspend: without the PCIe root port of docs/qemu.md the guest's GPU is dead afterwards, whatever the
//! backend does. `HESPER_SUITES="trixie forky sid"` runs all guests.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic"
)]

mod support;

use serde_json::json;
use support::cube::assert_turning;
use support::hesper::Hesper;
use support::vulkan_guest::VulkanGuest;

/// Suspends the guest to RAM (S3) and wakes it up.
fn suspend(guest: &mut VulkanGuest) {
    let mut qmp = guest.qmp();
    // In the background, so that the shell can answer before.
    guest.succeed(
        "rm -f /tmp/awake; echo deep >/sys/power/mem_sleep\n\
         { sleep 0.5; echo mem >/sys/power/state && touch /tmp/awake; } >/tmp/suspend.log 2>&1 &",
    );
    if !qmp.await_event("SUSPEND") {
        let log = guest.succeed("cat /tmp/suspend.log; dmesg | tail -n 40");
        panic!("the guest does not suspend:\n{log}");
    }
    qmp.run("system_wakeup", json!({}));
    guest.succeed(
        "for i in $(seq 300); do [ ! -e /tmp/awake ] || break; sleep 0.1; done\n\
         [ -e /tmp/awake ] || { cat /tmp/suspend.log; dmesg | tail -n 30; false; }",
    );
}

#[test]
fn cubes_turn_on_after_suspend_to_ram() {
    let suites = std::env::var("HESPER_SUITES").unwrap_or_else(|_| "forky".to_owned());
    for suite in suites.split_whitespace() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let (wsi, cube) = match suite {
            "trixie" => ("--wsi=dmabuf", "MESA_VK_WSI_DEBUG=sw"),
            _ => ("--wsi=software", ""),
        };
        let hesper = Hesper::start(folder, &["--display=headless", wsi], None);
        let idle = hesper.idle_usage();
        let mut guest =
            VulkanGuest::boot_with(folder, suite, suite, &hesper.socket(), &["--root-port"]);
        guest.start_weston();
        guest.start_cube(cube, 100_000);
        assert_turning(|| hesper.screenshot(0));
        // One that presents nothing, with more maps than vhost's eight regions, and with fences that stay open.
        guest.start_hold(40, 1);
        suspend(&mut guest);
        assert_turning(|| hesper.screenshot(0));
        guest.end_hold();
        // A program that starts afterwards.
        guest.succeed("hesper-test-client run submit-64-in-flight map-gpu-writes");

        let complaints = guest.complaints();
        assert!(complaints.is_empty(), "{suite}: {complaints:?}");
        let log = hesper.process.errors();
        assert!(
            !log.contains("is lost") && !log.contains("refused"),
            "{log}"
        );
        guest.kill();
        hesper.holds_the_same(&mut Some(idle));
    }
}
