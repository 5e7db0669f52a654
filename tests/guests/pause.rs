//! A VM is paused and resumed while programs use its GPU: QMP's `stop` and `cont`, as
//! `virsh suspend` and `resume` send them.
//!
//! `HESPER_PAUSES=N` pauses N times instead of twice, `HESPER_SUITES="trixie forky sid"` runs all
//! guests, `HESPER_RESETS=N` resets N times instead of twice.

use std::time::Duration;

use crate::support::cube::assert_turning;
use crate::support::hesper::Hesper;
use crate::support::number;
use crate::support::vulkan_guest::{VulkanGuest, suites};

/// The length of a pause. It is longer than the busy loops and timeouts of Hesper and of the
/// guest's driver.
const PAUSE: Duration = Duration::from_secs(3);

#[test]
fn cubes_turn_on_and_fences_and_maps_are_kept() {
    for (suite, wsi, cube) in suites() {
        let suite = suite.as_str();
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let hesper = Hesper::start(folder, &["--display=headless", wsi], None);
        let mut guest = VulkanGuest::boot(folder, suite, suite, &hesper.socket());
        guest.start_weston();
        guest.start_cube(cube, 100_000);
        assert_turning(|| hesper.screenshot(0));
        // A program that presents nothing, with many mapped blobs and open fences.
        guest.start_hold(300, 5);
        for _ in 0..number("HESPER_PAUSES", 2) {
            guest.pause(PAUSE);
            assert_turning(|| hesper.screenshot(0));
        }
        guest.end_hold();
        // A program that starts after the pauses.
        guest.succeed("hesper-test-client run submit-64-in-flight map-gpu-writes");
        assert_turning(|| hesper.screenshot(0));
        assert_eq!(guest.complaints(), Vec::<String>::new(), "{suite}");
        let log = hesper.process.errors();
        assert!(
            !log.contains("is lost") && !log.contains("MAP_BLOB refused"),
            "{log}"
        );
        assert!(
            log.contains("a hard reset"),
            "the warning is missing in:\n{log}"
        );
    }
}

/// QEMU 11.1 crashes at a reset if mapped blobs are in its memory table. Hesper keeps them out of
/// it, except for those that are mapped during a pause (docs/qemu.md).
#[test]
fn resets_with_live_maps_and_after_pauses_leave_qemu_alive() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let hesper = Hesper::start(folder, &["--display=headless"], None);
    let options = ["--append", "panic=1"];
    let mut guest = VulkanGuest::boot_with(folder, "guest", "forky", &hesper.socket(), &options);
    for round in 0..number("HESPER_RESETS", 2) {
        guest.start_hold(60, 1);
        if round % 2 == 0 {
            guest.pause(PAUSE);
            guest.end_hold();
            guest.start_hold(60, 1);
        }
        match round % 3 {
            // The guest's kernel crashes and starts again by itself.
            1 => guest.crash(),
            _ => guest.reset(),
        }
    }
    guest.succeed("hesper-test-client run submit-64-in-flight map-gpu-writes");
    assert_eq!(guest.complaints(), Vec::<String>::new());
    let log = hesper.process.errors();
    assert!(log.contains("can be reset again"), "{log}");
    assert!(!log.contains("is lost"), "{log}");
}

/// Measures how long it takes to map a blob while others are mapped, before and after a pause.
/// Prints `maps paused µs`:
///
/// ```text
/// cargo test --test guests -- --ignored --nocapture pause::
/// ```
#[test]
#[ignore = "measures, and takes minutes"]
fn what_a_map_costs_beside_others() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let hesper = Hesper::start(folder, &["--display=headless"], None);
    let mut guest = VulkanGuest::boot(folder, "guest", "forky", &hesper.socket());
    for maps in [1, 100, 200, 300, 400, 450] {
        guest.start_hold(maps, 1);
        for paused in [false, true] {
            if paused {
                guest.pause(PAUSE);
            }
            let said = guest.succeed("hesper-test-client bench alloc-map-free-64k");
            println!("{maps} {paused} {said}");
        }
        guest.end_hold();
    }
}
