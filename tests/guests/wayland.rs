//! A Wayland program in a guest of stock QEMU has its window on the host's compositor. The guest is
//! Debian's forky. `HESPER_SUITES="trixie forky"` in the environment runs others
//! (`tests/env/prepare guest:SUITE` makes each).

use std::time::{Duration, Instant};

use crate::support::guest::{Guest, Route};
use crate::support::hesper::Hesper;
use crate::support::weston::Weston;

/// How many pixels of the compositor's monitor have a colour.
fn count(weston: &Weston, colour: [u8; 3]) -> usize {
    let picture = weston.picture();
    picture.iter().filter(|pixel| **pixel == colour).count()
}

#[track_caller]
fn await_count(weston: &Weston, colour: [u8; 3], wanted: usize) {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let found = count(weston, colour);
        if found == wanted {
            return;
        }
        assert!(Instant::now() < until, "{found} pixels, not {wanted}");
    }
}

#[test]
fn a_program_in_a_guest_opens_a_window_on_the_hosts_compositor() {
    let suites = std::env::var("HESPER_SUITES").unwrap_or_else(|_| "forky".to_owned());
    for suite in suites.split_whitespace() {
        opens_a_window(suite);
    }
}

#[track_caller]
fn opens_a_window(suite: &str) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let weston = Weston::start();
    let arguments = ["--display=headless", "--capsets=venus,cross-domain"];
    let hesper = Hesper::start_near(folder, &arguments, None, Some(&weston.socket()));
    let mut guest = Guest::boot_with(
        folder,
        "guest",
        Route::Full,
        &hesper.socket(),
        &["--suite", suite],
    );
    let globals = guest.run("wayland");
    assert!(globals.contains("xdg_wm_base"), "{globals}");
    assert_eq!(count(&weston, [200, 30, 90]), 0);
    // The library wants images of the exact size, which is not a multiple of 16 KiB
    // (docs/rutabaga.md).
    if suite != "forky-arm64-16k" {
        guest.run("wayland-window 200 30 90 320 240");
        await_count(&weston, [200, 30, 90], 320 * 240);
    }
    assert_eq!(guest.run("wayland-keymap"), "xkb_keymap");
    // The program closes the device, and the host its window.
    guest.run("wayland-close");
    await_count(&weston, [200, 30, 90], 0);
    let log = hesper.process.errors();
    assert!(
        !log.contains("is lost"),
        "an orderly end is no loss:\n{log}"
    );
}
