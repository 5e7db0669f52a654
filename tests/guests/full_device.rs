//! Stock QEMU with the full device (`vhost-user-test-device-pci`) and a Linux guest: Hesper shows
//! what the guest draws.

use crate::support::guest::{Guest, Route};
use crate::support::hesper::Hesper;
use crate::support::picture::Picture;
use crate::support::process::PATIENCE;
use crate::support::xserver::XServer;
use serde_json::json;

#[test]
fn a_guest_draws_in_the_window_pixel_for_pixel() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let screen = XServer::start(1600, 1000);
    let hesper = Hesper::start(folder, &["--size=1280x800"], Some(&screen));
    let mut guest = Guest::boot(folder, "guest", Route::Full, &hesper.socket());
    assert_eq!(guest.run("driver"), "virtio_gpu");
    assert!(
        guest.run("modes 0").starts_with("1280x800 "),
        "the EDID's mode comes first"
    );

    // The console comes first. It shows text: a few light pixels on black.
    guest.run("close");
    let dark = screen.picture(folder).lit();
    guest.run("sh for i in 1 2 3 4 5 6 7 8 9; do uname -a; cat /proc/cpuinfo; done >/dev/tty0");
    screen.await_picture(folder, "text", |console| {
        (dark + 0.02..0.5).contains(&console.lit())
    });

    // Then come a picture, a change of a part of it, and a cursor over it.
    guest.run("show 0 7");
    let first = Picture::pattern(7, 1280, 800);
    hesper.await_picture(0, &first, 0);
    guest.run("update 0 9 100 50 333 201");
    let second = first.with_update(9, 100, 50, 333, 201);
    hesper.await_picture(0, &second, 0);
    guest.run("cursor 0 3 5 6");
    guest.run("cursor-move 0 700 300");
    hesper.await_picture(0, &second.clone().with_cursor(3, 700, 300), 1);
    guest.run("cursor-move 0 1260 790");
    hesper.await_picture(0, &second.clone().with_cursor(3, 1260, 790), 1);
    guest.run("cursor-hide 0");
    hesper.await_picture(0, &second, 0);

    assert!(screen.title().contains("1280×800"), "{}", screen.title());

    // The X server shows the same as the screenshot.
    let x = screen.window_picture(folder);
    x.assert_equals(&second, 0);

    // A person resizes the window. The guest is notified and follows.
    hesper.control("resize 0 1024x700");
    guest.run("wait-mode 0 1024 700 30");
    guest.run("show 0 11");
    hesper.await_picture(0, &Picture::pattern(11, 1024, 700), 0);

    // The guest draws with fbdev, as its console does.
    guest.run("close");
    guest.run("sh printf '\\033[?25l' >/dev/tty0"); // no blinking cursor
    let size = guest.run("framebuffer 13");
    let (width, height) = size.split_once(' ').unwrap();
    let (width, height) = (width.parse().unwrap(), height.parse().unwrap());
    hesper.control(&format!("resize 0 {width}x{height}"));
    hesper.await_picture(0, &Picture::pattern(13, width, height), 0);
}

#[test]
fn reset_driver_reload_and_a_second_vm_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let hesper = Hesper::start(folder, &["--display=headless", "--size=800x600"], None);
    let boot = |name| Guest::boot_with(folder, name, Route::Full, &hesper.socket(), &["--reboot"]);
    let mut guest = boot("first");
    guest.run("show 0 1");
    hesper.await_picture(0, &Picture::pattern(1, 800, 600), 0);

    guest.run("close");
    for round in 2..5 {
        guest.run("sh for c in /sys/class/vtconsole/vtcon*; do echo 0 > $c/bind; done");
        guest.run("sh modprobe -r virtio_gpu");
        guest.run("sh modprobe virtio_gpu");
        guest.run(&format!("show 0 {round}"));
        hesper.await_picture(0, &Picture::pattern(round, 800, 600), 0);
        guest.run("close");
    }

    guest.qmp().run("system_reset", json!({}));
    guest.wait_ready();
    guest.run("show 0 5");
    hesper.await_picture(0, &Picture::pattern(5, 800, 600), 0);

    guest.kill();
    let mut second = boot("second");
    second.run("show 0 6");
    hesper.await_picture(0, &Picture::pattern(6, 800, 600), 0);
}

#[test]
fn closing_the_window_ends_hesper_cleanly() {
    let folder = tempfile::tempdir().unwrap();
    let screen = XServer::start(1600, 1000);
    let mut hesper = Hesper::start(folder.path(), &[], Some(&screen));
    assert!(screen.title().contains("Hesper"), "{}", screen.title());
    screen.close_window();
    let status = hesper.process.wait(PATIENCE);
    assert!(status.success(), "{status}: {}", hesper.process.errors());
    assert!(!hesper.socket().exists(), "the socket stays behind");
}
