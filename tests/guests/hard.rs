//! Guests that stress Hesper: killed at any moment, or with many processors and threads.
//!
//! `HESPER_KILLS=N` kills N guests instead of one, `HESPER_RESETS=N` resets each N times before
//! instead of once, `HESPER_RUNS=N` runs the threads N times instead of 3.

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::cube::assert_turning;
use crate::support::hesper::Hesper;
use crate::support::number;
use crate::support::process::PATIENCE;
use crate::support::vulkan_guest::VulkanGuest;

/// Programs that make and free blobs, map, draw and compute, as fast as they can.
const BUSY: &str = "\
(while :; do hesper-test-client run map-gpu-writes map-cpu-writes; done >/tmp/maps.log 2>&1) &
(while :; do hesper-test-client run draw-render-pass submit-64-in-flight; done >/tmp/draws.log 2>&1) &";

#[test]
fn vms_that_are_reset_and_killed_at_any_moment_leave_nothing_and_the_next_one_works() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let hesper = Hesper::start(folder, &["--display=headless"], None);
    let idle = hesper.idle_usage();
    for kill in 0..number("HESPER_KILLS", 1) {
        let mut guest =
            VulkanGuest::boot(folder, &format!("guest{kill}"), "forky", &hesper.socket());
        let show_cube = |guest: &mut VulkanGuest| {
            guest.start_weston();
            guest.start_cube("", 100_000);
            assert_turning(|| hesper.screenshot(0));
        };
        show_cube(&mut guest);
        let used = hesper.process.usage();
        assert!(
            used.threads > idle.threads && used.descriptors > idle.descriptors,
            "the guest's GPU is not in this process: {used:?}"
        );
        for _ in 0..number("HESPER_RESETS", 1) {
            guest.reset();
            show_cube(&mut guest);
        }
        guest.succeed(BUSY);
        // Each kill comes at a different moment, which is the same in each run.
        sleep(Duration::from_millis(
            u64::from(kill).wrapping_mul(0x9e37_79b9) % 2500,
        ));
        guest.kill();
        let until = Instant::now() + PATIENCE;
        while hesper.process.usage() != idle {
            assert!(
                Instant::now() < until,
                "kill {kill}: {:?}, {idle:?} before",
                hesper.process.usage()
            );
            sleep(Duration::from_millis(50));
        }
    }
    let mut guest = VulkanGuest::boot(folder, "last", "forky", &hesper.socket());
    guest.succeed("hesper-test-client run submit-64-in-flight map-gpu-writes draw-render-pass");
    guest.start_weston();
    guest.start_cube("", 50);
    guest.await_cube();
}

/// With several processors, the guest's threads run at the same time.
#[test]
fn threads_on_four_processors_lose_no_context() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let hesper = Hesper::start(folder, &["--display=headless"], None);
    let options = ["--smp", "4"];
    let mut guest = VulkanGuest::boot_with(folder, "guest", "forky", &hesper.socket(), &options);
    assert_eq!(guest.succeed("nproc"), "4");
    for run in 0..number("HESPER_RUNS", 3) {
        let said = guest.succeed(
            "(hesper-test-client run map-gpu-writes threads-make-pipelines map-cpu-writes & hesper-test-client run threads-make-pipelines threads-make-and-destroy & \
              hesper-test-client run submit-64-in-flight map-write-seen-before-the-fence; wait)",
        );
        assert!(!said.contains("FAIL"), "run {run}:\n{said}");
    }
    let log = hesper.process.errors();
    assert!(
        !log.contains("is lost") && !log.contains("refused"),
        "{log}"
    );
}
