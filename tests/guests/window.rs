//! The window and the guest's monitor, with stock QEMU and a Linux guest. One follows the other as
//! `--resize` says, and monitors are plugged in and out.

use std::time::{Duration, Instant};

use crate::support::guest::{Guest, Route};
use crate::support::hesper::Hesper;
use crate::support::picture::{Picture, Rectangle};
use crate::support::process::{PATIENCE, comes_true};
use crate::support::xserver::XServer;
use hesper_test_guest::{STEPS, step};
use serde_json::{Value, json};

/// Random sizes, the same in each run.
struct Random(u32);

impl Random {
    fn side(&mut self, least: u32, most: u32) -> u32 {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        least + (self.0 >> 8) % (most - least)
    }
}

#[test]
fn fifty_random_sizes_of_the_window_end_as_the_guests_mode_and_leak_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let screen = XServer::start(1300, 1000);
    let hesper = Hesper::start(folder, &["--size=640x400", "--hostmem=0"], Some(&screen));
    let mut guest = Guest::boot(folder, "guest", Route::Full, &hesper.socket());
    let window = screen.window();
    let mut random = Random(2026);
    let mut held = None;
    for step in 0..50 {
        let (width, height) = (random.side(320, 1200), random.side(200, 900));
        let size = [width.to_string(), height.to_string()];
        screen.run("xdotool", &["windowsize", &window, &size[0], &size[1]]);
        // Now and then the person stops, and the guest follows.
        if step % 10 == 9 {
            guest.run(&format!("wait-mode 0 {width} {height} 30"));
            guest.run(&format!("show 0 {step}"));
            hesper.await_picture(0, &Picture::pattern(step, width, height), 0);
            hesper.holds_the_same(&mut held);
        }
    }
}

/// QEMU must not get the notification before the driver runs, because it would crash.
#[test]
fn a_size_from_before_the_guests_driver_runs_is_its_mode_when_it_does() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let screen = XServer::start(1300, 1000);
    let hesper = Hesper::start(folder, &["--size=640x400", "--hostmem=0"], Some(&screen));
    let socket = hesper.socket();
    let no_driver = ["--no-gpu-module"];
    let mut guest = Guest::boot_with(folder, "guest", Route::Full, &socket, &no_driver);
    for (width, height) in [(700, 500), (1024, 700)] {
        hesper.control(&format!("resize 0 {width}x{height}"));
        screen.await_size(width, height);
        // Hesper sends the size when the person stops resizing.
        std::thread::sleep(Duration::from_millis(500));
        guest.run("sh modprobe virtio_gpu");
        guest.run(&format!("wait-mode 0 {width} {height} 20"));
        guest.run("close");
        guest.run("sh for c in /sys/class/vtconsole/vtcon*; do echo 0 > $c/bind; done");
        guest.run("sh modprobe -r virtio_gpu");
    }
}

#[test]
fn a_fixed_window_takes_the_guests_mode_and_a_scaled_one_leaves_it() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let screen = XServer::start(1300, 1000);
    let options = ["--size=640x400", "--hostmem=0", "--resize=fixed"];
    let hesper = Hesper::start(folder, &options, Some(&screen));
    let mut guest = Guest::boot(folder, "guest", Route::Full, &hesper.socket());
    for (width, height) in [(640, 400), (1024, 700), (500, 300)] {
        hesper.control(&format!("resize 0 {width}x{height}"));
        guest.run(&format!("wait-mode 0 {width} {height} 30"));
        guest.run("show 0 3");
        screen.await_size(width, height);
        hesper.await_picture(0, &Picture::pattern(3, width, height), 0);
    }
    guest.kill();
    drop(hesper);

    let options = [
        "--size=640x400",
        "--hostmem=0",
        "--resize=scale",
        "--scaling=integer",
    ];
    let hesper = Hesper::start(folder, &options, Some(&screen));
    let mut guest = Guest::boot(folder, "second", Route::Full, &hesper.socket());
    guest.run("show 0 4");
    let window = screen.window();
    screen.run("xdotool", &["windowsize", "--sync", &window, "1280", "800"]);
    let twice = Picture::pattern(4, 640, 400).enlarged(2);
    hesper.await_picture(0, &twice, 0);
    let modes = guest.run("modes 0");
    assert!(modes.starts_with("640x400"), "{modes}");
}

#[test]
fn two_screens_differ_and_one_is_unplugged_and_plugged_back() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let screen = XServer::start(1300, 1000);
    let tablet = folder.join("tablet.sock").display().to_string();
    let input = format!("--input-socket=tablet:{tablet}");
    let options = ["--size=640x400", "--hostmem=0", "--scanouts=2", &input];
    let hesper = Hesper::start(folder, &options, Some(&screen));
    let chardev = format!("socket,id=tablet,path={tablet}");
    let device = "vhost-user-input-pci,chardev=tablet";
    let devices = ["-chardev", &chardev, "-device", device];
    let devices: Vec<&str> = devices
        .iter()
        .flat_map(|argument| ["--qemu-arg", argument])
        .collect();
    let socket = hesper.socket();
    let mut guest = Guest::boot_with(folder, "guest", Route::Full, &socket, &devices);
    let connector = "sh cat /sys/class/drm/card0-Virtual-2/status";
    let await_connector = |guest: &mut Guest, state: &str| {
        for _ in 0..100 {
            // The kernel looks at its connectors when a program asks for their modes.
            guest.run("modes 1");
            let now = guest.run(connector);
            if now == state {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("the guest's second connector is not {state}");
    };
    let picture = |seed| Picture::pattern(seed, 640, 400);
    await_connector(&mut guest, "connected");
    guest.run("show 0 31");
    guest.run("show 1 32");
    hesper.await_picture(0, &picture(31), 0);
    hesper.await_picture(1, &picture(32), 0);

    point_at_both(&hesper, &mut guest, &screen);
    guest.run("show 0 31");
    guest.run("show 1 32");

    let mut held = None;
    for seed in 33..36 {
        screen.close_window_titled("Hesper (2)");
        await_connector(&mut guest, "disconnected");
        assert_eq!(guest.run("modes 1"), "");
        guest.run(&format!("show 0 {seed}"));
        hesper.await_picture(0, &picture(seed), 0);
        let refused = hesper.try_control("screenshot 1 /nowhere/x.png");
        assert!(refused.contains("unplugged"), "{refused}");
        let status = hesper.control("status");
        assert!(status.contains(r#""connected":false"#), "{status}");
        hesper.holds_the_same(&mut held);

        hesper.control("plug 1");
        await_connector(&mut guest, "connected");
        guest.run(&format!("show 1 {}", seed + 10));
        hesper.await_picture(1, &picture(seed + 10), 0);
        hesper.await_picture(0, &picture(seed), 0);
    }
    let refused = hesper.try_control("unplug 0");
    assert!(refused.starts_with("error monitor 0"), "{refused}");

    // One monitor gets another mode, and is turned off, while the other stays as it is.
    hesper.control("resize 1 600x300");
    guest.run("wait-mode 1 600 300 30");
    guest.run("show 1 50");
    hesper.await_picture(1, &Picture::pattern(50, 600, 300), 0);
    guest.run("blank 1");
    assert!(
        comes_true(|| hesper.control("status").contains("turned this monitor off")),
        "the second window does not say that it is off: {}",
        hesper.control("status")
    );
    hesper.await_picture(0, &picture(35), 0);
}

/// The tablet reports a position on the guest's desktop, in both windows, wherever they are on the
/// host's.
fn point_at_both(hesper: &Hesper, guest: &mut Guest, screen: &XServer) {
    // Without the dash: the test's locale does not know it.
    let [first, second] = ["^Hesper [^(]", "^Hesper .2."].map(|title| {
        let found = screen.run(
            "xdotool",
            &["search", "--sync", "--onlyvisible", "--name", title],
        );
        found.trim().to_owned()
    });
    // Right of the first, with a gap, and lower.
    screen.run("xdotool", &["windowmove", "--sync", &second, "650", "77"]);
    let pointed = |guest: &mut Guest, window: &str, x: &str, y: &str, desktop: (i64, i64)| {
        guest.run("input-open Tablet");
        screen.run("xdotool", &["mousemove", "--window", window, x, y]);
        let events = guest.run("input-take Tablet 200");
        let last = |code: &str| -> i64 {
            let mut values = events.split(' ').filter_map(|word| word.strip_prefix(code));
            let value = values
                .next_back()
                .unwrap_or_else(|| panic!("no {code}: {events}"));
            value.parse().unwrap()
        };
        // As libinput and Xorg compute it.
        (
            last("3:0:") * desktop.0 / 0x1_0000,
            last("3:1:") * desktop.1 / 0x1_0000,
        )
    };
    let beside = (1280, 400);
    assert_eq!(pointed(guest, &first, "33", "44", beside), (33, 44));
    assert_eq!(pointed(guest, &second, "34", "45", beside), (640 + 34, 45));
    assert_eq!(pointed(guest, &second, "639", "399", beside), (1279, 399));
    // As Xorg does it: one framebuffer, and each monitor shows a part. Here the parts overlap.
    assert_eq!(guest.run("span 77 200 300"), "840 700");
    let both = Picture::pattern(77, 840, 700);
    let part = |left, top| Rectangle {
        left,
        top,
        right: left + 639,
        bottom: top + 399,
    };
    hesper.await_picture(0, &both.part(part(0, 0)), 0);
    hesper.await_picture(1, &both.part(part(200, 300)), 0);
    let below = (840, 700);
    assert_eq!(pointed(guest, &second, "1", "2", below), (201, 302));
    assert_eq!(pointed(guest, &second, "639", "399", below), (839, 699));
    assert_eq!(pointed(guest, &first, "639", "0", below), (639, 0));
}

/// The text in the middle of the first window.
fn says(hesper: &Hesper) -> Option<String> {
    let status: Value = serde_json::from_str(&hesper.control("status")).unwrap();
    status["monitors"][0]["says"].as_str().map(str::to_owned)
}

#[track_caller]
fn await_saying(hesper: &Hesper, text: &str) {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let now = says(hesper);
        if now.as_ref().is_some_and(|now| now.contains(text)) {
            return;
        }
        assert!(Instant::now() < until, "{now:?} instead of {text}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn the_window_says_what_it_waits_for() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let screen = XServer::start(1000, 700);
    let hesper = Hesper::start(folder, &["--size=640x400", "--hostmem=0"], Some(&screen));
    await_saying(&hesper, "Waiting for QEMU to connect to");
    screen.await_picture(folder, "text", |picture| picture.lit() > 0.001);
    let socket = hesper.socket();
    // Without a console the guest shows nothing by itself, so the window's text stays.
    let no_console = ["--reboot", "--append", "drm_kms_helper.fbdev_emulation=0"];
    let mut guest = Guest::boot_with(folder, "guest", Route::Full, &socket, &no_console);
    await_saying(&hesper, "The guest is starting");
    guest.run("show 0 5");
    hesper.await_picture(0, &Picture::pattern(5, 640, 400), 0);
    assert_eq!(says(&hesper), None, "the picture says enough");
    guest.run("blank 0");
    await_saying(&hesper, "turned this monitor off");
    guest.run("show 0 6");
    hesper.await_picture(0, &Picture::pattern(6, 640, 400), 0);
    guest.qmp().run("system_reset", json!({}));
    guest.wait_ready();
    await_saying(&hesper, "The guest was reset");
    guest.run("show 0 7");
    hesper.await_picture(0, &Picture::pattern(7, 640, 400), 0);
    guest.kill();
    await_saying(&hesper, "Waiting for QEMU to connect to");
}

#[test]
fn frames_of_a_guest_are_counted_and_recorded() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let screen = XServer::start(1000, 700);
    let film = folder.join("film.y4m");
    let record = format!("--record={}", film.display());
    let options = ["--size=640x400", "--hostmem=0", &record];
    let mut hesper = Hesper::start(folder, &options, Some(&screen));
    let mut guest = Guest::boot(folder, "guest", Route::Full, &hesper.socket());
    guest.run("show 0 1");
    for seed in 2..30 {
        guest.run(&format!("update 0 {seed} 0 100 640 300"));
    }
    std::thread::sleep(Duration::from_millis(500));
    let counters: Value = serde_json::from_str(&hesper.control("counters")).unwrap();
    let window = &counters["windows"][0];
    let latency = window["flush_to_present"].as_array().unwrap();
    let flushed: u64 = latency
        .iter()
        .map(|class| class["frames"].as_u64().unwrap())
        .sum();
    assert!(flushed > 0, "{counters}");
    assert!(window["flushes"].as_u64() >= Some(28), "{counters}");
    assert!(
        window["presented_frames"].as_u64() >= Some(flushed),
        "{counters}"
    );
    let flushes = |hesper: &Hesper| {
        let counters: Value = serde_json::from_str(&hesper.control("counters")).unwrap();
        counters["windows"][0]["flushes"].as_u64().unwrap()
    };
    let before = flushes(&hesper);
    let took: u64 = guest.run("animate 0 180 60").parse().unwrap();
    assert!(took >= 3_000_000, "{took} µs for 180 frames");
    assert_eq!(flushes(&hesper), before + 181, "one for each frame");
    hesper.process.signal(rustix::process::Signal::USR1);
    let printed = |text: &str| text.contains(r#""flush_to_present""#);
    let until = Instant::now() + PATIENCE;
    while !printed(&hesper.process.errors()) {
        assert!(Instant::now() < until, "SIGUSR1 prints nothing");
        std::thread::sleep(Duration::from_millis(20));
    }
    guest.kill();
    hesper.control("quit");
    hesper.process.wait(PATIENCE);
    let film = std::fs::read(&film).unwrap();
    let head = b"YUV4MPEG2 W640 H400 F60:1 Ip A1:1 C444 XCOLORRANGE=FULL\n";
    assert!(film.starts_with(head));
    let frame = "FRAME\n".len() + 640 * 400 * 3;
    let frames = &film[head.len()..];
    assert_eq!(frames.len() % frame, 0, "whole frames");
    // The moving picture is grey and not black. What was shown before is not grey.
    let is_grey = |colours: &[u8]| colours.iter().all(|colour| *colour == 128);
    let mut moving = frames
        .chunks_exact(frame)
        .map(|frame| frame.split_at("FRAME\n".len()).1.split_at(640 * 400))
        .skip_while(|(grey, colours)| grey[640 * 400 - 1] < 16 || !is_grey(colours))
        // The recording ends when the guest turns the monitor off and the window shows a text.
        .take_while(|(grey, colours)| grey[640 * 400 - 1] >= 16 && is_grey(colours))
        .map(|(grey, _)| grey)
        .peekable();
    assert!(moving.peek().is_some(), "no frame of the moving picture");
    let mut seen = [0; STEPS as usize];
    for grey in moving {
        let number = u32::from(grey[640 * 400 - 1] - 16) / 16;
        seen[number as usize] += 1;
        let torn = (0_u32..)
            .zip(grey)
            .find(|(at, pixel)| **pixel != step(number, at % 640, 640));
        assert_eq!(torn, None, "a torn frame of picture {number}");
    }
    // The recording has its own frame rate, and a busy machine loses frames. But all pictures are
    // in it, and it is not longer than the animation.
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
    let seconds = f64::from(seen.iter().sum::<u32>()) / 60.0;
    let took = took as f64 / 1e6;
    assert!(seconds < took + 1.0, "{seconds} s instead of {took}");
}
