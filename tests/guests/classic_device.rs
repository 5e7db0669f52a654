//! Stock QEMU with its own `vhost-user-gpu-pci` and `--display=qemu`: QEMU's console shows the
//! guest.

use std::path::Path;
use std::time::Duration;

use crate::support::guest::{Guest, Route};
use crate::support::hesper::Hesper;
use crate::support::picture::Picture;
use crate::support::qmp::Qmp;
use crate::support::viewer::Bus;
use serde_json::json;

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
    let boot = |name, options: &[&str]| {
        Guest::boot_with(folder, name, Route::Classic, &hesper.socket(), options)
    };
    let mut guest = boot("first", &["--reboot"]);
    let mut qmp = guest.qmp();
    assert_eq!(guest.run("driver"), "virtio_gpu");
    let (width, height) = shown(&guest.run("show 0 7"));
    let first = Picture::pattern(7, width, height);
    await_console(&mut qmp, folder, &first);
    guest.run("update 0 9 31 17 222 99");
    let updated = first.with_update(9, 31, 17, 222, 99);
    await_console(&mut qmp, folder, &updated);
    // QEMU draws the cursor over its console. It is not part of the screenshot.
    guest.run("cursor 0 3 5 9");
    for (x, y) in [(40, 30), (-20, 5), (5000, 5000)] {
        guest.run(&format!("cursor-move 0 {x} {y}"));
        await_console(&mut qmp, folder, &updated);
    }
    guest.run("cursor-hide 0");

    // QEMU decides the mode here.
    guest.run("show 0 8 640 480");
    await_console(&mut qmp, folder, &Picture::pattern(8, 640, 480));
    let refused = hesper.try_control("screenshot 0 /nowhere/x.png");
    assert!(refused.contains("--display=qemu"), "{refused}");

    qmp.run("system_reset", json!({}));
    guest.wait_ready();
    let (width, height) = shown(&guest.run("show 0 10"));
    await_console(&mut qmp, folder, &Picture::pattern(10, width, height));

    guest.kill();
    // QEMU says which size its console has.
    let sizes = ["vhost-user-gpu.xres=1000", "vhost-user-gpu.yres=600"];
    let options: Vec<&str> = sizes
        .iter()
        .flat_map(|size| ["--qemu-arg", "-global", "--qemu-arg", size])
        .collect();
    let mut second = boot("second", &options);
    second.run("wait-mode 0 1000 600 10");
    let (width, height) = shown(&second.run("show 0 12"));
    assert_eq!((width, height), (1000, 600));
    await_console(
        &mut second.qmp(),
        folder,
        &Picture::pattern(12, width, height),
    );
}

/// The size of the viewer's window becomes a mode of the guest. QEMU sends it, and Hesper passes it
/// on.
#[test]
fn the_guest_follows_the_window_of_qemus_viewer() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // Hesper gets no option for where to show the guest. QEMU's device has a console, which Hesper
    // uses.
    let hesper = Hesper::start(folder, &["--hostmem=0"], None);
    let bus = Bus::start(folder);
    let display = bus.display();
    let options = ["--qemu-arg", "-display", "--qemu-arg", &display];
    let socket = hesper.socket();
    let mut guest = Guest::boot_with(folder, "guest", Route::Classic, &socket, &options);
    let mut qmp = guest.qmp();
    for (seed, width, height) in [(2, 1000, 620), (3, 644, 480), (4, 1400, 1050)] {
        bus.resize(width, height);
        guest.run(&format!("wait-mode 0 {width} {height} 20"));
        let shown = shown(&guest.run(&format!("show 0 {seed}")));
        assert_eq!(shown, (width, height));
        await_console(&mut qmp, folder, &Picture::pattern(seed, width, height));
    }
}

/// Width and height in an answer of the test program.
fn shown(answer: &str) -> (u32, u32) {
    let (width, height) = answer.split_once(' ').unwrap();
    (width.parse().unwrap(), height.parse().unwrap())
}
