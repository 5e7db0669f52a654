//! OpenGL by virgl and Vulkan by Venus at the same time, in an unmodified guest. The guest is
//! Debian's forky. `HESPER_SUITES="trixie forky sid"` in the environment runs others
//! (`tests/env/prepare mesa:SUITE` makes each).

use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::support::hesper::Hesper;
use crate::support::process::PATIENCE;
use crate::support::vulkan_guest::VulkanGuest;

/// Cases of the client that use the GPU and shared memory.
const VULKAN: &str = "submit-64-in-flight timeline-device map-gpu-writes draw-render-pass";

/// A compositor without a screen.
const HEADLESS_WESTON: &str = "\
    export XDG_RUNTIME_DIR=/run WAYLAND_DISPLAY=wayland-headless\n\
    weston --backend=headless --renderer=pixman --socket=$WAYLAND_DISPLAY --idle-time=0 >/tmp/weston.log 2>&1 &\n\
    for i in $(seq 600); do [ ! -S /run/wayland-headless ] || break; sleep 0.1; done\n\
    [ -S /run/wayland-headless ] || { cat /tmp/weston.log; false; }";

#[test]
fn opengl_on_virgl_is_shown_while_vulkan_runs_on_venus() {
    let suites = std::env::var("HESPER_SUITES").unwrap_or_else(|_| "forky".to_owned());
    for suite in suites.split_whitespace() {
        serves_both(suite);
    }
}

#[track_caller]
fn serves_both(suite: &str) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // A Mesa before 25.2 has swapchains only with this policy, and its compositor takes no dma-bufs
    // (docs/guests.md).
    let (wsi, variables) = match suite {
        "trixie" => ("--wsi=dmabuf", "MESA_VK_WSI_DEBUG=sw"),
        _ => ("--wsi=auto", ""),
    };
    let arguments = ["--display=headless", "--capsets=venus,virgl", wsi];
    let hesper = Hesper::start(folder, &arguments, None);
    let mut guest = VulkanGuest::boot(folder, suite, suite, &hesper.socket());

    let info = guest.succeed("eglinfo -B -p gbm");
    assert!(info.contains("virgl (LLVMPIPE"), "{suite}: {info}");

    // kmscube ends with its input.
    guest.succeed("sleep 100 | timeout 100 kmscube >/tmp/kmscube.log 2>&1 & gl=$!");
    // Its cube fills much of the screen with shades, and turns.
    let until = Instant::now() + PATIENCE;
    let mut first = None;
    loop {
        let picture = hesper.screenshot(0);
        if picture.colours(1000) == 1000 {
            let first = first.get_or_insert_with(|| hesper.screenshot(0));
            if first.changed(&picture) > 0.05 {
                break;
            }
        }
        if Instant::now() > until {
            let said = guest.succeed("cat /tmp/kmscube.log");
            panic!(
                "{suite}: no cube turns: {said}\n{}",
                hesper.process.errors()
            );
        }
        sleep(Duration::from_millis(100));
    }
    // kmscube uses the guest's screen, so vkcube's compositor has none.
    guest.succeed(HEADLESS_WESTON);
    guest.start_cube(variables, 60);
    let (status, said) = guest.run(&format!("hesper-test-client run {VULKAN}"));
    assert_eq!(status, 0, "{suite}: Vulkan beside OpenGL fails:\n{said}");
    guest.await_cube();
    let said = guest.succeed("kill -0 $gl && cat /tmp/kmscube.log");
    assert!(said.contains("virgl (LLVMPIPE"), "{suite}: {said}");
    let log = hesper.process.errors();
    assert!(!log.contains("is lost"), "{suite}: {log}");
}
