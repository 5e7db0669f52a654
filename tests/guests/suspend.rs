//! A guest suspends itself to idle and to RAM while programs use its GPU, and is woken up by a key
//! or by QMP's `system_wakeup`. Another guest suspends to disk and goes on in another QEMU.
//!
//! Linux's driver cannot suspend. Without the PCIe root port of docs/qemu.md, and after a suspend
//! to disk, the guest's GPU is dead unless its driver was unloaded before. No backend can change
//! that.
//!
//! `HESPER_SUITES="trixie forky sid"` runs all guests. `HESPER_MAPS=N` sets how many mapped blobs
//! live through a pause and a suspend (40). `HESPER_IN_USE=1` also suspends to disk while the GPU
//! is in use.

use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

use crate::support::cube::assert_turning;
use crate::support::hesper::Hesper;
use crate::support::number;
use crate::support::process::comes_true;
use crate::support::vulkan_guest::{VulkanGuest, suites};
use serde_json::json;

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
        "for i in $(seq 600); do [ ! -e /tmp/awake ] || break; sleep 0.1; done\n\
         [ -e /tmp/awake ] || { cat /tmp/suspend.log; dmesg | tail -n 30; false; }",
    );
}

/// Suspends the guest to idle (s2idle) and wakes it up by a key of QEMU's PS/2 keyboard, because
/// `system_wakeup` does not end such a sleep. `log` is the guest kernel's log.
fn suspend_to_idle(guest: &mut VulkanGuest, log: &Path) {
    let mut qmp = guest.qmp();
    let said = |words| std::fs::read_to_string(log).is_ok_and(|log| log.contains(words));
    guest.succeed(
        "rm -f /tmp/awake; echo enabled >/sys/devices/platform/i8042/serio0/power/wakeup\n\
         { sleep 0.5; echo freeze >/sys/power/state; touch /tmp/awake; } >/tmp/suspend.log 2>&1 &",
    );
    assert!(
        comes_true(|| said("Suspending console")),
        "the guest does not suspend"
    );
    // A key that comes before the guest sleeps has no effect.
    let woken = comes_true(|| {
        let key = json!([{"type": "qcode", "data": "h"}]);
        qmp.run("send-key", json!({"keys": key}));
        sleep(Duration::from_secs(2));
        said("PM: suspend exit")
    });
    assert!(woken, "the guest does not wake up");
    guest.succeed("for i in $(seq 600); do [ ! -e /tmp/awake ] || break; sleep 0.1; done");
    let slept = guest.succeed("cat /sys/power/suspend_stats/success /tmp/suspend.log");
    assert_eq!(slept, "1");
}

#[test]
fn cubes_turn_on_after_suspend_to_idle_and_to_ram() {
    for (suite, wsi, cube) in suites() {
        let suite = suite.as_str();
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let hesper = Hesper::start(folder, &["--display=headless", wsi], None);
        let idle = hesper.idle_usage();
        let options = ["--root-port", "--append", "loglevel=7"];
        let mut guest = VulkanGuest::boot_with(folder, suite, suite, &hesper.socket(), &options);
        guest.start_weston();
        guest.start_cube(cube, 100_000);
        assert_turning(|| hesper.screenshot(0));
        // A program that presents nothing, with more mapped blobs than vhost's eight regions, and
        // with open fences.
        guest.start_hold(40, 1);
        suspend_to_idle(&mut guest, &folder.join(format!("{suite}.console")));
        assert_turning(|| hesper.screenshot(0));
        guest.end_hold();
        guest.start_hold(number("HESPER_MAPS", 40), 1);
        // After this pause, these blobs are in QEMU's memory table.
        guest.pause(Duration::from_secs(1));
        suspend(&mut guest);
        assert_turning(|| hesper.screenshot(0));
        guest.end_hold();
        // A program that starts afterwards.
        guest.succeed("hesper-test-client run submit-64-in-flight map-gpu-writes");

        let complaints = guest.complaints();
        assert!(complaints.is_empty(), "{suite}: {complaints:?}");
        let log = hesper.process.errors();
        assert!(
            !log.contains("is lost") && !log.contains("MAP_BLOB refused"),
            "{log}"
        );
        guest.kill();
        hesper.holds_the_same(&mut Some(idle));
    }
}

/// Linux's driver still sends commands while the machine falls asleep, and such a kick can be lost.
/// An idle guest sends no other kick. It must go on all the same.
#[test]
fn an_idle_guest_goes_on_after_a_suspend() {
    for run in 0..number("HESPER_SUSPENDS", 1) {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let hesper = Hesper::start(folder, &["--display=headless"], None);
        let options = ["--root-port", "--append", "loglevel=7"];
        let name = format!("guest{run}");
        let mut guest = VulkanGuest::boot_with(folder, &name, "forky", &hesper.socket(), &options);
        guest.succeed("hesper-test-client run map-gpu-writes");
        suspend(&mut guest);
        guest.succeed("hesper-test-client run submit-64-in-flight map-gpu-writes");
        guest.kill();
    }
}

/// Ends all programs that draw, and unloads the driver.
const UNLOAD: &str = "\
pkill vkcube; pkill weston; wait
for console in /sys/class/vtconsole/vtcon*; do echo 0 >$console/bind; done
modprobe -r virtio_gpu && ! [ -e /dev/dri/renderD128 ]";

const LOAD: &str = "\
modprobe virtio_gpu
for i in $(seq 600); do [ ! -c /dev/dri/renderD128 ] || break; sleep 0.1; done
rm -f $XDG_RUNTIME_DIR/wayland-1*";

/// A suspend to disk ends QEMU. Another QEMU resumes the guest.
#[test]
#[ignore = "two boots; `tests/run-all long` runs it"]
fn a_guest_that_unloaded_its_driver_goes_on_after_suspend_to_disk() {
    for (suite, wsi, cube) in suites() {
        let suite = suite.as_str();
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let disk = folder.join("swap");
        let file = std::fs::File::create(&disk).unwrap();
        file.set_len(1 << 30).unwrap();
        let hesper = Hesper::start(folder, &["--display=headless", wsi], None);
        let mut idle = Some(hesper.idle_usage());
        let start =
            |name| VulkanGuest::start_with_swap(folder, name, suite, &hesper.socket(), &disk);
        let mut guest = start("before");
        guest.wait_ready();
        guest.start_weston();
        guest.start_cube(cube, 100_000);
        assert_turning(|| hesper.screenshot(0));
        guest.succeed(UNLOAD);
        guest.suspend_to_disk();
        assert_eq!(guest.complaints(), Vec::<String>::new(), "{suite}");
        drop(guest);
        hesper.holds_the_same(&mut idle);

        let mut guest = start("after");
        guest.wait_resumed();
        guest.succeed(LOAD);
        guest.start_weston();
        guest.start_cube(cube, 100_000);
        assert_turning(|| hesper.screenshot(0));
        guest.succeed("hesper-test-client run submit-64-in-flight map-gpu-writes");

        // Once more with a GPU at work. The guest's GPU is dead afterwards, but nothing else is,
        // and Hesper serves the next VM.
        if std::env::var_os("HESPER_IN_USE").is_some() {
            guest.start_hold(40, 1);
            guest.suspend_to_disk();
            drop(guest);
            hesper.holds_the_same(&mut idle);
            let mut guest = start("dead");
            guest.wait_resumed();
            let said = guest.succeed("touch /tmp/go; wait $hold; cat /tmp/hold.log");
            assert!(said.contains("FAIL"), "the GPU was to be dead: {said}");
            assert_eq!(guest.complaints(), Vec::<String>::new(), "{suite}");
            guest.kill();
            hesper.holds_the_same(&mut idle);
            std::fs::write(&disk, []).unwrap();
            std::fs::File::create(&disk)
                .unwrap()
                .set_len(1 << 30)
                .unwrap();
            let mut guest = start("anew");
            guest.wait_ready();
            guest.succeed("hesper-test-client run submit-64-in-flight map-gpu-writes");
        }
        let log = hesper.process.errors();
        assert!(!log.contains("is lost"), "{log}");
    }
}
