//! Keyboard and pointers of stock QEMU (`vhost-user-input-pci`): X events in Hesper's window become
//! input events in the guest's kernel.

use std::path::Path;
use std::time::Duration;

use crate::support::guest::{Guest, Route};
use crate::support::hesper::Hesper;
use crate::support::input::{self, devices};
use crate::support::picture::Picture;
use crate::support::process::PATIENCE;
use crate::support::vulkan_guest::VulkanGuest;
use crate::support::weston::{self, Weston};
use crate::support::xserver::XServer;
use rustix::process::Signal;

const KINDS: [&str; 4] = ["keyboard", "tablet", "mouse", "touch"];

/// Steps of an absolute axis.
const STEPS: i64 = 0x1_0000;

struct Bench {
    /// The compositor that shows Hesper's window, or nothing for the X server.
    compositor: Option<Weston>,
    screen: XServer,
    hesper: Hesper,
    guest: Guest,
    folder: tempfile::TempDir,
}

/// A guest with a window of this size and these input devices.
fn bench(width: u32, height: u32, kinds: &[&str]) -> Bench {
    scaled_bench(width, height, kinds, "1")
}

/// The same on a screen with this many physical pixels per logical one.
fn scaled_bench(width: u32, height: u32, kinds: &[&str], scale: &str) -> Bench {
    start(width, height, kinds, scale, |_| None)
}

/// The same under the compositor that `compose` starts, if it returns one.
fn start(
    width: u32,
    height: u32,
    kinds: &[&str],
    scale: &str,
    compose: impl FnOnce(&XServer) -> Option<Weston>,
) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let screen = XServer::start(1400, 900);
    let compositor = compose(&screen);
    let arguments = options(folder.path(), width, height, kinds);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let socket = compositor.as_ref().map(Weston::socket);
    let x11 = Some(&screen).filter(|_| socket.is_none());
    let (folder_path, scale) = (folder.path(), Some(scale));
    let hesper = Hesper::start_scaled(folder_path, &arguments, x11, socket.as_deref(), scale);
    let guest = boot(folder.path(), "guest", &hesper, kinds);
    if compositor.is_none() {
        screen.focus();
    }
    Bench {
        compositor,
        screen,
        hesper,
        guest,
        folder,
    }
}

/// Hesper's options for a window of this size and these input devices.
fn options(folder: &Path, width: u32, height: u32, kinds: &[&str]) -> Vec<String> {
    let mut options = input::sockets(folder, kinds);
    options.extend([format!("--size={width}x{height}"), "--hostmem=0".to_owned()]);
    options
}

fn boot(folder: &Path, name: &str, hesper: &Hesper, kinds: &[&str]) -> Guest {
    let options = devices(folder, kinds);
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
            "sh for i in $(seq 600); do [ -s /tmp/typed ] && break; usleep 100000; done; kill $(cat /tmp/cat); cat /tmp/typed",
        );
        self.guest.run("sh rm /tmp/typed");
        typed
    }
}

#[test]
fn what_is_typed_and_pointed_in_the_window_arrives_in_the_guest() {
    let mut bench = scaled_bench(640, 400, &KINDS, "2");
    let names = "Hesper Keyboard, Hesper Mouse, Hesper Tablet, Hesper Touchscreen";
    assert!(bench.guest.run("input-list").contains(names));

    let text =
        r#"The quick brown fox, #1: (a+b)*{c} = "d"; ~/x|y & z? 0123456789_-[]\<>.`'!@$%^ END"#;
    assert_eq!(bench.type_on_console(text), text);

    // The pointer is exact to the pixel at scales 1, 1.5 and 2. This picture keeps its size.
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
            // This pixel of the picture is below the middle of the window's pixel.
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

    // For buttons, press and release are two reports.
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
        // Real wheels have an axis. XTEST's wheels have buttons, and winit counts press and release
        // as a notch each.
        for end in ["mousedown", "mouseup"] {
            let events = bench.read("Tablet", |screen| {
                screen.run("xdotool", &[end, button]);
            });
            assert_eq!(events, expected, "{end} {button}");
        }
    }
}

/// udev and libinput, which desktops use, recognise each device and report input.
#[test]
fn libinput_and_evtest_of_a_distribution_know_the_devices() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let screen = XServer::start(1400, 900);
    let arguments = options(folder, 640, 400, &KINDS);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let hesper = Hesper::start(folder, &arguments, Some(&screen));
    let devices = devices(folder, &KINDS);
    let devices: Vec<&str> = devices.iter().map(String::as_str).collect();
    let socket = hesper.socket();
    let mut guest = VulkanGuest::boot_with(folder, "guest", "forky", &socket, &devices);
    screen.focus();

    // udev takes its time on a busy machine. libinput lists what udev has seen.
    let listed = guest.succeed(
        "for i in $(seq 600); do\n\
             libinput list-devices >/tmp/listed; [ $(grep -c '^Device: *Hesper' /tmp/listed) -lt 4 ] || break; sleep 0.1\n\
         done; cat /tmp/listed",
    );
    let mut device = "";
    let mut capabilities = Vec::new();
    for (name, value) in listed.lines().filter_map(|line| line.split_once(':')) {
        match name {
            "Device" => device = value.trim(),
            "Capabilities" => capabilities.push((device, value.trim())),
            _ => {}
        }
    }
    for device in [
        ("Hesper Keyboard", "keyboard"),
        ("Hesper Tablet", "pointer"),
        ("Hesper Mouse", "pointer"),
        ("Hesper Touchscreen", "touch"),
    ] {
        assert!(capabilities.contains(&device), "{device:?} in:\n{listed}");
    }

    // Each program writes its file without buffering.
    guest.succeed(
        "for event in /dev/input/event*; do timeout 600 stdbuf -oL evtest $event >/tmp/evtest-${event##*/} & done\n\
         timeout 600 stdbuf -oL libinput debug-events --show-keycodes >/tmp/libinput &",
    );
    let await_words = |guest: &mut VulkanGuest, words: &str, files: &str| {
        guest.succeed(&format!(
            "for i in $(seq 600); do ! grep -qe '{words}' {files} || break; sleep 0.1; done; cat {files}"
        ))
    };
    await_words(&mut guest, "DEVICE_ADDED.*Touchscreen", "/tmp/libinput");
    guest.succeed("for i in $(seq 600); do [ $(cat /tmp/evtest-* | grep -c ^Testing) -lt 5 ] || break; sleep 0.1; done");
    let window = screen.window();
    let at = ["mousemove", "--window", &window, "320", "100"];
    screen.run("xdotool", &at);
    // No click of the wheel's button: winit counts its release as a second notch, and a slow guest
    // receives two notches in one report.
    screen.run("xdotool", &["key", "h", "click", "3", "mousedown", "5"]);

    let seen = await_words(&mut guest, "POINTER_SCROLL_WHEEL", "/tmp/libinput");
    for words in [
        // The middle of that pixel, in percent of the window.
        "50.08/ 25.12",
        "KEY_H (35) pressed",
        "KEY_H (35) released",
        "BTN_RIGHT (273) pressed",
        "BTN_RIGHT (273) released",
        "vert 15.00/120.0",
    ] {
        assert!(seen.contains(words), "{words} in:\n{seen}");
    }
    let seen = await_words(&mut guest, "REL_WHEEL_HI_RES), value -120", "/tmp/evtest-*");
    for words in [
        r#"Input device name: "Hesper Touchscreen""#,
        "Property type 1 (INPUT_PROP_DIRECT)",
        "code 35 (KEY_H), value 1",
        "code 35 (KEY_H), value 0",
        "code 273 (BTN_RIGHT), value 1",
        "code 8 (REL_WHEEL), value -1",
    ] {
        assert!(seen.contains(words), "{words} in:\n{seen}");
    }
}

/// The pixel of a 640×400 picture in which the pointer's last position is.
fn pixel(events: &str) -> (u32, u32) {
    pixel_of(events, 640, 400)
}

/// The same for a picture of another size.
fn pixel_of(events: &str, width: i64, height: i64) -> (u32, u32) {
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
    (pixel(last(0), width), pixel(last(1), height))
}

#[test]
fn a_key_that_is_held_when_the_window_loses_the_keyboard_does_not_stick() {
    let mut bench = bench(640, 400, &["keyboard"]);
    let events = bench.read("Keyboard", |screen| {
        screen.run("xdotool", &["keydown", "shift", "keydown", "a"]);
    });
    // The guest repeats the held key by itself (value 2).
    assert!(events.starts_with("1:42:1 / 1:30:1 /"), "{events}");
    bench.guest.run("input-open Keyboard");
    bench.screen.unfocus();
    let events = bench.guest.run("input-take Keyboard 600");
    // Both are released, in any order. After that, nothing repeats.
    let mut ends: Vec<&str> = events
        .split(' ')
        .filter(|word| word.ends_with(":0"))
        .collect();
    ends.sort_unstable();
    assert_eq!(ends, ["1:30:0", "1:42:0"], "{events}");
    assert_eq!(bench.guest.run("input-rest Keyboard 600"), "");
    // The keys are released while another window has the keyboard. The guest must not see that.
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
    let mut bench = scaled_bench(640, 400, &["keyboard", "tablet", "mouse"], "1.5");
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
fn a_wayland_window_takes_keys_and_pointer_and_is_resized_and_full_screen() {
    let kinds = ["keyboard", "tablet", "mouse"];
    let compose = |screen: &XServer| Some(Weston::start_in(screen));
    let mut bench = start(640, 400, &kinds, "1", compose);
    let point = |screen: &XServer, x: &str, y: &str| {
        screen.run("xdotool", &["mousemove", x, y]);
    };
    let key = |screen: &XServer, keys: &str| {
        screen.run("xdotool", &["key", keys]);
    };
    bench.guest.run("show 0 1");
    // weston puts a window near the middle, and gives it the keyboard.
    let [width, height] = weston::SIZE;
    point(
        &bench.screen,
        &(width / 2).to_string(),
        &(height / 2).to_string(),
    );
    bench.screen.run("xdotool", &["click", "1"]);
    assert_eq!(bench.type_on_console("Wayland"), "Wayland");

    key(&bench.screen, "ctrl+alt+f");
    bench.guest.run(&format!("wait-mode 0 {width} {height} 20"));
    bench.guest.run("show 0 2");
    let (columns, rows) = (
        u32::try_from(width).unwrap(),
        u32::try_from(height).unwrap(),
    );
    bench
        .hesper
        .await_picture(0, &Picture::pattern(2, columns, rows), 0);
    for (x, y) in [(101, 203), (columns - 1, rows - 1), (7, 5)] {
        let events = bench.read("Tablet", |screen| {
            point(screen, &x.to_string(), &y.to_string());
        });
        let found = pixel_of(&events, columns.into(), rows.into());
        assert_eq!(found, (x, y), "{events}");
    }
    let events = bench.read("Tablet", |screen| {
        screen.run("xdotool", &["click", "1"]);
    });
    assert_eq!(events, "1:272:1 / 1:272:0 /");
    // The compositor shows the guest's picture, with the guest's cursor at the pointer.
    let shown = bench.screen.picture(bench.folder.path());
    assert_eq!(
        shown.pixel(300, 200),
        Picture::pattern(2, columns, rows).pixel(300, 200)
    );
    // A stopped compositor asks for no more frames, as for a window that nobody sees. The guest
    // goes on, and its last picture is there when the window is visible again.
    let compositor = &bench.compositor.as_ref().unwrap().process;
    compositor.signal(Signal::STOP);
    bench.guest.run("animate 0 30 30");
    bench.guest.run("show 0 4");
    let last = Picture::pattern(4, columns, rows);
    bench.hesper.await_picture(0, &last, 0);
    compositor.signal(Signal::CONT);
    bench
        .screen
        .await_picture(bench.folder.path(), "picture drawn unseen", |shown| {
            (0..columns).all(|x| shown.pixel(x, 300) == last.pixel(x, 300))
        });

    bench.guest.run("cursor 0 5 0 0");
    bench
        .screen
        .await_picture(bench.folder.path(), "cursor of the guest", |shown| {
            let expected = Picture::pattern(4, columns, rows).with_cursor(5, 7, 5);
            (0..20).all(|at| shown.pixel(8 + at, 7) == expected.pixel(8 + at, 7))
        });

    let events = bench.read("Mouse", |screen| {
        key(screen, "ctrl+alt+g");
        std::thread::sleep(Duration::from_millis(500));
        screen.run("xdotool", &["mousemove_relative", "--", "30", "12"]);
    });
    assert!(events.contains("2:0:30 2:1:12 /"), "{events}");
    key(&bench.screen, "ctrl+alt+g");

    key(&bench.screen, "ctrl+alt+f");
    bench.guest.run("wait-mode 0 640 400 20");
    bench.guest.run("cursor-hide 0");
    bench.hesper.control("resize 0 500x300");
    bench.guest.run("wait-mode 0 500 300 20");
    bench.guest.run("show 0 3");
    bench
        .hesper
        .await_picture(0, &Picture::pattern(3, 500, 300), 0);
}

#[test]
fn the_devices_come_back_with_the_next_vm_and_end_with_hesper() {
    let mut bench = bench(640, 400, &["keyboard", "tablet"]);
    assert_eq!(bench.type_on_console("first"), "first");
    // The guest's driver is reloaded while a key is held.
    bench.screen.run("xdotool", &["keydown", "x"]);
    bench
        .guest
        .run("sh modprobe -r virtio_input && modprobe virtio_input");
    bench
        .guest
        .run("sh for i in $(seq 600); do [ -e /dev/input/event0 ] && break; usleep 100000; done");
    bench.screen.run("xdotool", &["keyup", "x"]);
    let events = bench.read("Keyboard", |screen| {
        screen.run("xdotool", &["key", "q"]);
    });
    assert!(events.ends_with("1:16:1 / 1:16:0 /"), "{events}");

    let Bench {
        compositor,
        screen,
        mut hesper,
        guest,
        folder,
    } = bench;
    guest.kill();
    let guest = boot(folder.path(), "second", &hesper, &["keyboard", "tablet"]);
    screen.focus();
    let mut bench = Bench {
        compositor,
        screen,
        hesper,
        guest,
        folder,
    };
    assert_eq!(bench.type_on_console("second"), "second");

    hesper = bench.hesper;
    hesper.process.signal(Signal::TERM);
    let status = hesper.process.wait(PATIENCE);
    assert!(status.success(), "{status}: {}", hesper.process.errors());
    for kind in ["keyboard", "tablet"] {
        assert!(
            !Path::new(&input::socket(bench.folder.path(), kind)).exists(),
            "{kind}.sock stays behind"
        );
    }
}
