//! Vulkan in unmodified guests: stock QEMU, a distribution's kernel and Mesa, Hesper's own
//! renderer.
//!
//! The guest is Debian's forky. Variables of the environment change what runs:
//! `HESPER_SUITES="trixie forky sid"` runs all three guests that must work (Mesa 25.0, 26.1 and
//! 26.2; `tests/env/prepare mesa:SUITE` makes each). `HESPER_RELOADS=N` reloads the guest's driver
//! N times instead of once. `HESPER_RUNS=N` runs the cases about fences, timelines and memory N
//! times more. `tests/run-all arm64` runs some tests with guests of arm64.

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::cube::{assert_turning, assert_turning_thing, assert_turning_where};
use crate::support::hesper::Hesper;
use crate::support::number;
use crate::support::picture::Picture;
use crate::support::process::PATIENCE;
use crate::support::programs::driver_manifest;
use crate::support::vulkan_guest::{VulkanGuest, suites};
use crate::support::xserver::XServer;

/// The client's cases about waiting and shared memory. A broken renderer ends them with VK_TIMEOUT.
const WAITS: &str = "submit-one submit-64-in-flight submit-batches fence-reset-and-reuse fence-wait-any timeline-host \
                     timeline-device timeline-wait-before-signal timeline-queue-waits-for-host timeline-wait-any \
                     map-gpu-writes map-cpu-writes map-write-seen-before-the-fence threads-wait";
/// A few cases that show whether a guest has its GPU.
const SOME: &str = "submit-64-in-flight timeline-device map-gpu-writes draw-render-pass";
/// The log's remedy for a guest that cannot align its blobs.
const ALIGNMENT_REMEDY: &str = "the guest needs Linux 7.2 and Mesa 26.2.4 or newer";

#[test]
fn an_unmodified_guest_computes_draws_and_presents() {
    for (suite, wsi, cube) in suites() {
        let suite = suite.as_str();
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let screen = XServer::start(1600, 1000);
        let hesper = Hesper::start(folder, &[wsi], Some(&screen));
        let mut guest = VulkanGuest::boot(folder, suite, suite, &hesper.socket());

        let summary = guest.succeed("vulkaninfo --summary");
        assert!(
            summary.contains("= Virtio-GPU Venus ("),
            "{suite}: no Venus in:\n{summary}"
        );

        let (status, cases) = guest.run("hesper-test-client run all");
        assert_eq!(status, 0, "{suite}: the client fails:\n{cases}");
        let passed = cases.lines().filter(|line| line.starts_with("ok ")).count();
        assert!(passed > 80, "{suite}: {passed} cases passed of\n{cases}");
        let (status, attempts) = guest.run("hesper-test-client extensions");
        assert_eq!(status, 0, "{suite}: an extension fails:\n{attempts}");

        // All runs are one command. It prints a line after each run, because the test waits a
        // limited time for each line.
        let runs = format!(
            "for run in $(seq {}); do\n\
             hesper-test-client run {WAITS} >/tmp/waits.log 2>&1 || {{ cat /tmp/waits.log; exit 1; }}\n\
             echo run $run\n\
             done",
            number("HESPER_RUNS", 0)
        );
        guest.succeed(&format!("({runs})"));

        guest.start_weston();
        guest.start_cube(cube, 200);
        // The picture is the X server's, not Hesper's own screenshot.
        assert_turning(|| screen.window_picture(folder));
        guest.await_cube();
    }
}

/// The file with which a guest's OpenGL is zink (docs/guests.md).
const ZINK: &str = r#"<driconf><device driver="loader" kernel_driver="virtio_gpu"><application name="all">
<option name="dri_driver" value="zink"/></application></device></driconf>"#;

/// A guest on a graphics card, with no setting of Hesper's.
struct Desktop {
    hesper: Hesper,
    guest: VulkanGuest,
}

impl Desktop {
    /// Boots it on a card of this `kind` (`tests/drivers/posing`).
    fn boot(folder: &Path, kind: &str) -> Self {
        let manifest = driver_manifest(folder, "hesper_posing_driver");
        let variables = [
            ("VK_DRIVER_FILES", manifest.as_str()),
            (hesper_posing_driver::VARIABLE, kind),
        ];
        let headless = ["--display=headless"];
        let hesper = Hesper::start_in(folder, &headless, None, None, &variables);
        let guest = VulkanGuest::boot(folder, "guest", "forky", &hesper.socket());
        Self { hesper, guest }
    }

    /// The screen, which may show nothing at first.
    fn seen(&self) -> Option<Picture> {
        self.hesper.try_screenshot(0).ok()
    }

    /// Starts weston with one of its renderers, which names itself so in its log. vkcube must turn
    /// in it.
    #[track_caller]
    fn shows_a_cube(&mut self, renderer: &str, name: &str) {
        self.guest.start_weston_with(renderer);
        let said = self.guest.succeed("cat /tmp/weston.log");
        assert!(said.contains(name), "{renderer}:\n{said}");
        // A desktop that someone uses has drawn more than one frame.
        self.guest
            .succeed("weston-simple-shm >/tmp/shm.log 2>&1 & shm=$!");
        assert_turning_thing(|| self.seen());
        self.guest.succeed("kill $shm; wait $shm; true");
        self.guest.start_lasting_cube();
        assert_turning_where(|| self.seen());
        self.guest
            .succeed("kill $cube && ! wait $cube && [ -S $XDG_RUNTIME_DIR/wayland-1 ]");
        self.guest.end_weston();
    }
}

/// Nothing is set in the guest, either. Its desktops draw with Vulkan, or with the processor.
#[test]
fn desktops_draw_with_a_graphics_card_or_get_copies_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut desktop = Desktop::boot(folder.path(), "usual");
    desktop.shows_a_cube("vulkan", "Using Vulkan renderer");
    desktop.shows_a_cube("gl", "GL renderer: llvmpipe");
    assert!(!desktop.hesper.process.errors().contains("is lost"));
}

/// With one file, all of the guest's OpenGL is on the card: also on one that draws into no linear
/// image.
#[test]
fn opengl_runs_on_the_guests_vulkan() {
    let folder = tempfile::tempdir().unwrap();
    let mut desktop = Desktop::boot(folder.path(), hesper_posing_driver::OPTIMAL_ONLY);
    desktop.guest.succeed(&format!("echo '{ZINK}' >/etc/drirc"));
    desktop.shows_a_cube("gl", "GL renderer: zink Vulkan");
    // kmscube ends with its input. Its cube fills much of the screen with shades.
    desktop
        .guest
        .succeed("sleep 600 | timeout 600 kmscube >/tmp/kmscube.log 2>&1 &");
    assert_turning_thing(|| desktop.seen().filter(|shown| shown.colours(1000) == 1000));
    let said = desktop.guest.succeed("cat /tmp/kmscube.log");
    assert!(
        said.contains("zink Vulkan") && said.contains("Virtio-GPU Venus"),
        "another OpenGL drew:\n{said}"
    );
    assert!(!desktop.hesper.process.errors().contains("is lost"));
}

#[test]
fn a_busy_gpu_and_a_client_that_stands_still_delay_neither_the_console_nor_others() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let hesper = Hesper::start(folder, &["--display=headless"], None);
    let mut guest = VulkanGuest::boot(folder, "guest", "forky", &hesper.socket());
    // One context has shaders that run for minutes. The process of another context is stopped at an
    // arbitrary point.
    guest.succeed(
        "hesper-test-client spin 600 >/tmp/spin.log 2>&1 & spin=$!\n\
         for i in $(seq 600); do grep -q . /tmp/spin.log && break; sleep 0.1; done\n\
         grep spinning /tmp/spin.log || { cat /tmp/spin.log; false; }",
    );
    guest.succeed(&format!(
        "hesper-test-client run {WAITS} >/tmp/stopped.log 2>&1 & stopped=$!\n\
         for i in $(seq 600); do grep -q ^ok /tmp/stopped.log && break; sleep 0.1; done\n\
         kill -STOP $stopped"
    ));

    guest.succeed("printf '\\033[2J\\033[H\\033[?25l' >/dev/tty0");
    let until = Instant::now() + PATIENCE;
    while hesper.screenshot(0).lit() > 0.005 {
        assert!(Instant::now() < until, "the console is not cleared");
        sleep(Duration::from_millis(100));
    }
    guest.succeed("for i in 1 2 3 4 5; do cat /proc/cpuinfo; done >/dev/tty0");
    while hesper.screenshot(0).lit() < 0.02 {
        assert!(Instant::now() < until, "the console does not scroll");
        sleep(Duration::from_millis(100));
    }
    let (status, said) = guest.run(&format!("hesper-test-client run {SOME}"));
    assert_eq!(status, 0, "another client fails:\n{said}");

    guest.succeed("kill -0 $spin && ! grep done /tmp/spin.log");
    let (status, _) = guest.run("kill -CONT $stopped; wait $stopped");
    let said = guest.succeed("cat /tmp/stopped.log");
    assert_eq!(status, 0, "the client that stood still fails:\n{said}");
    // Killing the busy program does not wait for the rest of its work.
    guest.succeed("kill -KILL $spin; hesper-test-client run submit-one");
}

#[test]
fn a_small_window_is_no_larger_than_it_says_and_names_its_option_once() {
    const REMEDY: &str = "Start Hesper with a larger window: --hostmem=512M instead of 256M";
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let hesper = Hesper::start(folder, &["--display=headless", "--hostmem=256M"], None);
    let mut guest = VulkanGuest::boot(folder, "guest", "forky", &hesper.socket());
    guest.succeed(&format!("hesper-test-client run {SOME}"));
    let log = hesper.process.errors();
    assert!(!log.contains("--hostmem"), "{log}");
    let said = guest.succeed("hesper-test-client run memory-small-window");
    assert!(
        said.contains("ok memory-small-window") && said.contains("a heap of 224 MiB"),
        "{said}"
    );
    let log = hesper.process.errors();
    assert_eq!(log.matches(REMEDY).count(), 1, "{log}");
    // It works the same if Mesa waits for the result of each allocation.
    guest.succeed("VN_PERF=no_async_mem_alloc hesper-test-client run memory-small-window");
    // The memory is free again.
    guest.succeed(&format!("hesper-test-client run {SOME}"));
    assert!(!hesper.process.errors().contains("is lost"));
}

#[test]
fn a_driver_that_is_loaded_anew_finds_its_gpu_and_vkcube_turns_on_an_x_server() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let hesper = Hesper::start(folder, &["--display=headless"], None);
    let mut guest = VulkanGuest::boot(folder, "guest", "forky", &hesper.socket());
    for round in 0..number("HESPER_RELOADS", 1) {
        guest.succeed(
            "for console in /sys/class/vtconsole/vtcon*; do echo 0 >$console/bind; done\n\
             modprobe -r virtio_gpu && ! [ -e /dev/dri/renderD128 ] && modprobe virtio_gpu\n\
             for i in $(seq 600); do [ ! -c /dev/dri/renderD128 ] || break; sleep 0.1; done",
        );
        let (status, said) = guest.run(&format!("hesper-test-client run {SOME}"));
        assert_eq!(status, 0, "after reload {round}:\n{said}");
    }
    guest.start_xorg();
    guest.start_cube_on("xcb", "", 200);
    assert_turning(|| hesper.screenshot(0));
    guest.await_cube();
}

#[test]
fn large_host_pages_suit_new_guests_and_old_ones_are_refused_with_the_remedy() {
    for (suite, ..) in suites() {
        let suite = suite.as_str();
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let arguments = ["--display=headless", "--blob-alignment=16384"];
        let hesper = Hesper::start(folder, &arguments, None);
        let mut guest = VulkanGuest::boot(folder, suite, suite, &hesper.socket());
        let (status, said) = guest.run(&format!("hesper-test-client run {SOME}"));
        // The console needs no GPU memory, and is shown all the same.
        hesper.screenshot(0);
        let log = hesper.process.errors();
        if suite == "sid" {
            assert_eq!(status, 0, "{suite}:\n{said}");
            assert!(!log.contains(ALIGNMENT_REMEDY), "{suite}:\n{log}");
            let summary = guest.succeed("vulkaninfo --summary");
            assert!(summary.contains("= Virtio-GPU Venus ("), "{summary}");
        } else {
            assert_ne!(status, 0, "{suite}:\n{said}");
            assert!(log.contains(ALIGNMENT_REMEDY), "{suite}:\n{log}");
            // trixie's kernel does not know the alignment. A kernel that knows it refuses by
            // itself, even if its own pages have that size.
            let option = "start Hesper with --blob-alignment=4096";
            assert_eq!(log.contains(option), suite != "trixie", "{suite}:\n{log}");
        }
    }
}

/// Prints the figures of docs/performance-runs.md about Vulkan in the VM.
#[test]
#[ignore = "measures and prints, proves nothing: cargo test --test guests -- --ignored --nocapture vulkan::"]
fn numbers_for_the_documentation() {
    const FRAMES: u32 = 600;
    for (suite, ..) in suites() {
        let suite = suite.as_str();
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let hesper = Hesper::start(folder, &["--display=headless"], None);
        let mut guest = VulkanGuest::boot(folder, suite, suite, &hesper.socket());
        let benches = "fence fence-after-4ms timeline submit-fence-each submit-fence-last reply reply-after-4ms draw \
                       alloc-map-free-64k alloc-map-free-1m alloc-map-free-64k-beside-100 \
                       alloc-map-free-64k-beside-400";
        let said = guest.succeed(&format!("hesper-test-client bench {benches}"));
        println!("{suite}, microseconds an operation:\n{said}");
        guest.start_weston();
        let used = |guest: &VulkanGuest| [hesper.process.cpu(), guest.qemu_cpu()];
        let (before, begin) = (used(&guest), Instant::now());
        guest.start_cube("", FRAMES);
        guest.await_cube();
        let seconds = begin.elapsed().as_secs_f64();
        let after = used(&guest);
        let [hesper, qemu] = [0, 1].map(|at| 100.0 * (after[at] - before[at]) / seconds);
        println!(
            "{suite}, vkcube: {:.1} frames a second; of one processor Hesper takes {hesper:.0} %, QEMU {qemu:.0} %",
            f64::from(FRAMES) / seconds
        );
    }
}
