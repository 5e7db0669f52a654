//! Vulkan in unmodified guests: stock QEMU, a distribution's kernel and Mesa, Hesper's own renderer.
//!
//! The guest is Debian's forky. `HESPER_SUITES="trixie forky sid"` in the environment runs all three that must
//! work (Mesa 25.0, 26.1 and 26.2; `tests/env/prepare mesa:SUITE` makes each), `HESPER_RESETS=N` resets the
//! running machine N times instead of once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic"
)]

mod support;

use std::thread::sleep;
use std::time::{Duration, Instant};

use support::hesper::Hesper;
use support::picture::Picture;
use support::process::PATIENCE;
use support::vulkan_guest::VulkanGuest;
use support::xserver::XServer;

/// What vkcube clears its window to: 0.2 in each channel.
const CUBE_BACKGROUND: [u8; 3] = [51; 3];
/// Edge of vkcube's window in pixels.
const CUBE_WINDOW: u32 = 500;
/// The cube and its textures have hundreds of colours; a window without them has one.
const CUBE_COLOURS: usize = 100;

#[test]
fn an_unmodified_guest_computes_draws_and_presents() {
    for suite in suites().split_whitespace() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let screen = XServer::start(1600, 1000);
        // Mesa before 25.2 has swapchains on dma-bufs only, and copies by CPU if told to: docs/guests.md.
        let (wsi, cube) = match suite {
            "trixie" => ("--wsi=dmabuf", "MESA_VK_WSI_DEBUG=sw"),
            _ => ("--wsi=software", ""),
        };
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

        guest.start_weston();
        guest.start_cube(cube, 200);
        // What the window shows to the X server, not only what Hesper believes to show.
        assert_turning(|| screen.window_picture(folder));
        guest.await_cube();
    }
}

#[test]
fn resets_and_a_killed_vm_leave_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // Without a window, whose own threads would start while the test counts.
    let hesper = Hesper::start(folder, &["--display=headless"], None);
    let show_cube = |guest: &mut VulkanGuest| {
        guest.start_weston();
        guest.start_cube("", 100_000);
        assert_turning(|| hesper.screenshot(0));
    };

    let idle = hesper.process.usage();
    let mut guest = VulkanGuest::boot(folder, "first", "forky", &hesper.socket());
    show_cube(&mut guest);
    let used = hesper.process.usage();
    assert!(
        used.threads > idle.threads && used.descriptors > idle.descriptors,
        "the guest's GPU is not in this process: {used:?}"
    );
    for _ in 0..resets() {
        guest.reset();
        show_cube(&mut guest);
    }
    guest.kill();

    let until = Instant::now() + PATIENCE;
    while hesper.process.usage() != idle {
        assert!(
            Instant::now() < until,
            "{:?} after a VM with {used:?}, {idle:?} before it",
            hesper.process.usage()
        );
        sleep(Duration::from_millis(50));
    }

    let mut next = VulkanGuest::boot(folder, "next", "forky", &hesper.socket());
    next.start_weston();
    next.start_cube("", 50);
    next.await_cube();
}

#[test]
fn opengl_runs_on_the_guests_vulkan() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let hesper = Hesper::start(folder, &["--display=headless", "--wsi=dmabuf"], None);
    let mut guest = VulkanGuest::boot(folder, "guest", "forky", &hesper.socket());
    // zink takes no CPU's Vulkan, which the host's is here, unless it is told to; kmscube ends with its input.
    guest.succeed(
        "export D3D_ALWAYS_SOFTWARE=1 VK_DRIVER_FILES=/usr/share/vulkan/icd.d/virtio_icd.json\n\
         sleep 80 | MESA_LOADER_DRIVER_OVERRIDE=zink timeout 80 kmscube >/tmp/kmscube.log 2>&1 &",
    );
    // Its cube fills much of the screen with shades, and turns.
    let cube = || Some(hesper.screenshot(0)).filter(|picture| picture.colours(1000) == 1000);
    assert_turning_thing(cube);
    let said = guest.succeed("cat /tmp/kmscube.log");
    assert!(
        said.contains("zink Vulkan") && said.contains("Virtio-GPU Venus"),
        "another OpenGL drew:\n{said}"
    );
}

/// Fails the test unless vkcube's window appears in what `shown` returns, holds a cube, and the cube turns.
#[track_caller]
fn assert_turning(shown: impl Fn() -> Picture) {
    assert_turning_thing(|| {
        let picture = shown();
        let bounds = picture.bounds_of(CUBE_BACKGROUND)?;
        let cube = picture.part(bounds);
        (bounds.size() == (CUBE_WINDOW, CUBE_WINDOW) && cube.colours(CUBE_COLOURS) == CUBE_COLOURS)
            .then_some(cube)
    });
}

/// Fails the test unless `seen` comes to return a picture, and later one that differs much from the first.
#[track_caller]
fn assert_turning_thing(seen: impl Fn() -> Option<Picture>) {
    let until = Instant::now() + PATIENCE;
    let mut first: Option<Picture> = None;
    let mut turned = 0.0;
    while Instant::now() < until {
        match (seen(), &first) {
            (Some(picture), None) => first = Some(picture),
            (Some(picture), Some(first)) => turned = first.changed(&picture),
            (None, _) => {}
        }
        // A cube covers a fifth of its window; seen from another side, little of it stays as it was.
        if turned > 0.05 {
            return;
        }
        sleep(Duration::from_millis(100));
    }
    match first {
        None => panic!("no cube is seen"),
        Some(_) => panic!("the cube does not turn: {turned:.4} of its picture changed"),
    }
}

fn suites() -> String {
    std::env::var("HESPER_SUITES").unwrap_or_else(|_| "forky".to_owned())
}

fn resets() -> u32 {
    std::env::var("HESPER_RESETS").map_or(1, |number| {
        number.parse().expect("HESPER_RESETS is a number")
    })
}
