//! Keyboard and pointers of stock QEMU (`vhost-user-input-pci`): what a person does in Hesper's window, as X events, is
//! what the guest's kernel reads.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic"
)]

mod support;

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use support::guest::{Guest, Route};
use support::hesper::Hesper;
use support::xserver::XServer;

const KINDS: [&str; 4] = ["keyboard", "tablet", "mouse", "touch"];

/// Steps of an absolute axis.
const STEPS: i64 = 0x1_0000;

struct Bench {
    screen: XServer,
    hesper: Hesper,
    guest: Guest,
    folder: tempfile::TempDir,
}

/// A guest with a window of this size and these input devices.
fn bench(width: u32, height: u32, kinds: &[&str]) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let screen = XServer::start(1400, 900);
    let mut arguments = vec![format!("--size={width}x{height}"), "--hostmem=0".to_owned()];
    for kind in kinds {
        arguments.push(format!(
            "--input-socket={kind}:{}",
            socket(folder.path(), kind)
        ));
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let hesper = Hesper::start(folder.path(), &arguments, Some(&screen));
    let guest = boot(folder.path(), "guest", &hesper, kinds);
    screen.focus();
    Bench {
        screen,
        hesper,
        guest,
        folder,
    }
}

fn socket(folder: &Path, kind: &str) -> String {
    folder.join(format!("{kind}.sock")).display().to_string()
}

fn boot(folder: &Path, name: &str, hesper: &Hesper, kinds: &[&str]) -> Guest {
    let mut options = Vec::new();
    for kind in kinds {
        let chardev = format!("socket,id={kind},path={}", socket(folder, kind));
        let device = format!("vhost-user-input-pci,chardev={kind}");
        for argument in ["-chardev".to_owned(), chardev, "-device".to_owned(), device] {
            options.extend(["--qemu-arg".to_owned(), argument]);
        }
    }
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    Guest::boot_with(folder, name, Route::Full, &hesper.socket(), &options)
}

impl Bench {
    /// What the guest's kernel reads from a device after `act`.
    fn read(&mut self, device: &str, act: impl FnOnce(&XServer)) -> String {
        self.guest.run(&format!("input-open {device}"));
        act(&self.screen);
        self.guest.run(&format!("input-take {device} 300"))
    }

    /// Types with the keyboard of the X server, and returns what the guest's console gets.
    fn type_on_console(&mut self, text: &str) -> String {
        self.guest
            .run("sh cat </dev/tty1 >/tmp/typed 2>/dev/null & echo $! >/tmp/cat");
        self.screen.run("xdotool", &["type", "--delay", "4", text]);
        self.screen.run("xdotool", &["key", "Return"]);
        let typed = self.guest.run(
            "sh for i in $(seq 100); do [ -s /tmp/typed ] && break; usleep 100000; done; kill $(cat /tmp/cat); cat /tmp/typed",
        );
        self.guest.run("sh rm /tmp/typed");
        typed
    }
}

#[test]
fn what_is_typed_and_pointed_in_the_window_arrives_in_the_guest() {
    let mut bench = bench(640, 400, &KINDS);
    let names = "Hesper Keyboard, Hesper Mouse, Hesper Tablet, Hesper Touchscreen";
    assert!(bench.guest.run("input-list").contains(names));

    let text =
        r#"The quick brown fox, #1: (a+b)*{c} = "d"; ~/x|y & z? 0123456789_-[]\<>.`'!@$%^ END"#;
    assert_eq!(bench.type_on_console(text), text);

    // The pointer, to the pixel, at scales 1, 1.5 and 2: this picture keeps its size.
    bench.guest.run("show 0 7");
    let window = bench.screen.window();
    for (width, height) in [(640, 400), (960, 600), (1280, 800)] {
        bench.hesper.control(&format!("resize 0 {width}x{height}"));
        bench.screen.await_size(width, height);
        bench
            .screen
            .run("xdotool", &["mousemove", "--window", &window, "1", "1"]);
        for (x, y) in [
            (0, 0),
            (width - 1, height - 1),
            (1, 2),
            (333, 222),
            (width / 2, height / 2 + 1),
        ] {
            let events = bench.read("Tablet", |screen| {
                let at = [&x.to_string()[..], &y.to_string()];
                screen.run(
                    "xdotool",
                    &[&["mousemove", "--window", &window][..], &at].concat(),
                );
            });
            // The pixel of the picture under the middle of the window's pixel.
            let expected = (
                (2 * x + 1) * 640 / (2 * width),
                (2 * y + 1) * 400 / (2 * height),
            );
            assert_eq!(
                pixel(&events),
                expected,
                "{x},{y} of {width}x{height}: {events}"
            );
        }
    }

    // Buttons and wheels: press and release are reports of their own.
    for (button, code) in [("1", 272), ("2", 274), ("3", 273), ("8", 275), ("9", 276)] {
        let events = bench.read("Tablet", |screen| {
            screen.run("xdotool", &["click", button]);
        });
        assert_eq!(
            events,
            format!("1:{code}:1 / 1:{code}:0 /"),
            "button {button}"
        );
    }
    for (button, expected) in [
        ("4", "2:11:120 2:8:1 /"),
        ("5", "2:11:-120 2:8:-1 /"),
        ("6", "2:12:-120 2:6:-1 /"),
        ("7", "2:12:120 2:6:1 /"),
    ] {
        // Real wheels have an axis. XTEST's have buttons, both ends of which winit takes for a notch.
        for end in ["mousedown", "mouseup"] {
            let events = bench.read("Tablet", |screen| {
                screen.run("xdotool", &[end, button]);
            });
            assert_eq!(events, expected, "{end} {button}");
        }
    }
}

/// The pixel of a picture of 640 by 400 that the last place of the pointer lies in.
fn pixel(events: &str) -> (u32, u32) {
    let last = |code: u16| {
        let start = format!("3:{code}:");
        let mut values = events
            .split(' ')
            .filter_map(|word| word.strip_prefix(&start));
        values
            .next_back()
            .unwrap_or_else(|| panic!("no place: {events}"))
            .parse::<i64>()
            .unwrap()
    };
    let pixel = |value: i64, size: i64| u32::try_from(value * size / STEPS).unwrap();
    (pixel(last(0), 640), pixel(last(1), 400))
}

#[test]
fn a_key_that_is_held_when_the_window_loses_the_keyboard_does_not_stick() {
    let mut bench = bench(640, 400, &["keyboard"]);
    let events = bench.read("Keyboard", |screen| {
        screen.run("xdotool", &["keydown", "shift", "keydown", "a"]);
    });
    // The guest repeats the key by itself (value 2): it is held.
    assert!(events.starts_with("1:42:1 / 1:30:1 /"), "{events}");
    bench.guest.run("input-open Keyboard");
    bench.screen.unfocus();
    let events = bench.guest.run("input-take Keyboard 600");
    // Both are let go, in whatever order, and then nothing repeats any more.
    let mut ends: Vec<&str> = events
        .split(' ')
        .filter(|word| word.ends_with(":0"))
        .collect();
    ends.sort_unstable();
    assert_eq!(ends, ["1:30:0", "1:42:0"], "{events}");
    assert_eq!(bench.guest.run("input-rest Keyboard 600"), "");
    // They are really let go while another window has the keyboard: not the guest's business.
    bench
        .screen
        .run("xdotool", &["keyup", "a", "keyup", "shift"]);
    bench.screen.focus();
    assert_eq!(bench.guest.run("input-rest Keyboard 300"), "");
    let events = bench.read("Keyboard", |screen| {
        screen.run("xdotool", &["key", "b"]);
    });
    assert_eq!(events, "1:48:1 / 1:48:0 /");
}

#[test]
fn caps_lock_of_the_guest_shows_in_the_title() {
    let bench = bench(640, 400, &["keyboard"]);
    let tap = || bench.screen.run("xdotool", &["key", "Caps_Lock"]);
    assert!(!bench.screen.title().contains("Caps Lock"));
    tap();
    bench.screen.await_title("Caps Lock", true);
    tap();
    bench.screen.await_title("Caps Lock", false);
}

#[test]
fn a_grabbed_pointer_moves_the_mouse_and_a_released_one_the_tablet() {
    let mut bench = bench(640, 400, &["keyboard", "tablet", "mouse"]);
    let window = bench.screen.window();
    let chord = |screen: &XServer| screen.run("xdotool", &["key", "ctrl+alt+g"]);
    bench
        .screen
        .run("xdotool", &["mousemove", "--window", &window, "320", "200"]);
    bench
        .screen
        .await_title("Ctrl+Alt+G grabs the pointer", true);
    let events = bench.read("Keyboard", |screen| {
        chord(screen);
    });
    assert!(!events.contains("1:34:"), "the G is Hesper's: {events}");
    bench
        .screen
        .await_title("Ctrl+Alt+G releases the pointer", true);

    bench.guest.run("input-open Tablet");
    let events = bench.read("Mouse", |screen| {
        screen.run("xdotool", &["mousemove_relative", "--", "30", "-12"]);
        screen.run("xdotool", &["mousemove_relative", "--", "-4", "0"]);
        screen.run("xdotool", &["click", "1", "mousedown", "4"]);
    });
    let sum = |code: u16| -> i32 {
        let start = format!("2:{code}:");
        let values = events
            .split(' ')
            .filter_map(|word| word.strip_prefix(&start));
        values.map(|value| value.parse::<i32>().unwrap()).sum()
    };
    assert_eq!((sum(0), sum(1)), (26, -12), "{events}");
    assert!(
        events.ends_with("1:272:1 / 1:272:0 / 2:11:120 2:8:1 /"),
        "{events}"
    );
    assert_eq!(
        bench.guest.run("input-rest Tablet 200"),
        "",
        "a tablet stays where it was"
    );

    chord(&bench.screen);
    bench
        .screen
        .await_title("Ctrl+Alt+G grabs the pointer", true);
    bench.guest.run("input-open Mouse");
    let events = bench.read("Tablet", |screen| {
        screen.run("xdotool", &["mousemove", "--window", &window, "10", "20"]);
    });
    assert_eq!(pixel(&events), (10, 20));
    assert_eq!(bench.guest.run("input-rest Mouse 200"), "");
}

#[test]
fn the_devices_come_back_with_the_next_vm_and_end_with_hesper() {
    let mut bench = bench(640, 400, &["keyboard", "tablet"]);
    assert_eq!(bench.type_on_console("first"), "first");
    // The driver is loaded anew, with a key held.
    bench.screen.run("xdotool", &["keydown", "x"]);
    bench
        .guest
        .run("sh modprobe -r virtio_input && modprobe virtio_input");
    bench
        .guest
        .run("sh for i in $(seq 50); do [ -e /dev/input/event0 ] && break; usleep 100000; done");
    bench.screen.run("xdotool", &["keyup", "x"]);
    let events = bench.read("Keyboard", |screen| {
        screen.run("xdotool", &["key", "q"]);
    });
    assert!(events.ends_with("1:16:1 / 1:16:0 /"), "{events}");

    let Bench {
        screen,
        mut hesper,
        guest,
        folder,
    } = bench;
    guest.kill();
    let guest = boot(folder.path(), "second", &hesper, &["keyboard", "tablet"]);
    screen.focus();
    let mut bench = Bench {
        screen,
        hesper,
        guest,
        folder,
    };
    assert_eq!(bench.type_on_console("second"), "second");

    hesper = bench.hesper;
    hesper.process.signal(Signal::TERM);
    let status = hesper.process.wait(Duration::from_secs(5));
    assert!(status.success(), "{status}: {}", hesper.process.errors());
    for kind in ["keyboard", "tablet"] {
        assert!(
            !Path::new(&socket(bench.folder.path(), kind)).exists(),
            "{kind}.sock stays behind"
        );
    }
}
