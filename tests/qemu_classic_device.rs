//! Stock QEMU with its own `vhost-user-gpu-pci` and `--display=qemu`: QEMU's console shows the guest.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic"
)]

mod support;

use std::path::Path;
use std::time::Duration;

use serde_json::json;
use support::guest::{Guest, Route};
use support::hesper::Hesper;
use support::picture::Picture;
use support::qmp::Qmp;

/// Waits until QEMU's own screenshot equals `expected`.
fn await_console(qmp: &mut Qmp, folder: &Path, expected: &Picture) {
    let file = folder.join("console.png");
    for round in 0.. {
        let arguments = json!({"filename": file.to_str().unwrap(), "format": "png"});
        qmp.run("screendump", arguments);
        let picture = Picture::read(&file);
        if picture.equals(expected) {
            return;
        }
        if round == 20 {
            picture.assert_equals(expected, 0);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn qemus_screendump_is_what_the_guest_drew() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let hesper = Hesper::start(folder, &["--display=qemu"], None);
    let boot = |name| {
        Guest::boot_with(
            folder,
            name,
            Route::Classic,
            &hesper.socket(),
            &["--reboot"],
        )
    };
    let mut guest = boot("first");
    let mut qmp = guest.qmp();
    assert_eq!(guest.run("driver"), "virtio_gpu");
    let (width, height) = shown(&guest.run("show 0 7"));
    let first = Picture::pattern(7, width, height);
    await_console(&mut qmp, folder, &first);
    guest.run("update 0 9 31 17 222 99");
    await_console(&mut qmp, folder, &first.with_update(9, 31, 17, 222, 99));

    // Which mode there is, is QEMU's matter here.
    guest.run("show 0 8 640 480");
    await_console(&mut qmp, folder, &Picture::pattern(8, 640, 480));
    let refused = hesper.try_control("screenshot 0 /dev/null");
    assert!(refused.contains("--display=qemu"), "{refused}");

    qmp.run("system_reset", json!({}));
    guest.wait_ready();
    let (width, height) = shown(&guest.run("show 0 10"));
    await_console(&mut qmp, folder, &Picture::pattern(10, width, height));

    guest.kill();
    let mut second = boot("second");
    let (width, height) = shown(&second.run("show 0 12"));
    await_console(
        &mut second.qmp(),
        folder,
        &Picture::pattern(12, width, height),
    );
}

/// Width and height from the test program's answer.
fn shown(answer: &str) -> (u32, u32) {
    let (width, height) = answer.split_once(' ').unwrap();
    (width.parse().unwrap(), height.parse().unwrap())
}
