//! arm64 guests, which users of a Mac have. They run Debian's kernels with pages of 4 and of 16 KiB
//! on QEMU's machine `virt`, with two processors and POSIX shared memory.
//!
//! QEMU emulates them. `tests/run-all arm64` prepares what these tests need. It also runs some
//! Vulkan tests with these guests.

use crate::support::cube::assert_turning;
use crate::support::hesper::Hesper;
use crate::support::input::{devices, sockets};
use crate::support::process::comes_true;
use crate::support::vulkan_guest::VulkanGuest;
use crate::support::xserver::XServer;

/// Width and height of the window.
const SIZE: (i64, i64) = (1280, 800);
/// Steps of an absolute axis.
const STEPS: i64 = 0x1_0000;
const KINDS: [&str; 2] = ["keyboard", "tablet"];

#[test]
#[ignore = "takes guests of arm64, which `tests/run-all arm64` makes"]
fn console_input_and_cubes_with_pages_of_4_kib() {
    console_input_and_cubes("forky-arm64", 4 << 10);
}

#[test]
#[ignore = "takes guests of arm64, which `tests/run-all arm64` makes"]
fn console_input_and_cubes_with_pages_of_16_kib() {
    console_input_and_cubes("forky-arm64-16k", 16 << 10);
}

fn console_input_and_cubes(suite: &str, page: u32) {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let screen = XServer::start(1600, 1000);
    let mut arguments = sockets(folder, &KINDS);
    arguments.push(format!("--size={}x{}", SIZE.0, SIZE.1));
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let hesper = Hesper::start(folder, &arguments, Some(&screen));
    let mut options = devices(folder, &KINDS);
    options.extend(["--smp", "2", "--memory", "shm"].map(str::to_owned));
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let mut guest = VulkanGuest::boot_with(folder, "guest", suite, &hesper.socket(), &options);
    assert_eq!(
        guest.succeed("uname -m; nproc; getconf PAGESIZE"),
        format!("aarch64\n2\n{page}")
    );
    screen.focus();

    // Everything works the same after a reset.
    for round in ["after the boot", "after a reset"] {
        console(&screen, &mut guest, folder);
        typed(&screen, &mut guest);
        pointed(&screen, &mut guest);

        guest.start_weston();
        for _ in 0..2 {
            guest.start_cube("", 60);
            assert_turning(|| screen.window_picture(folder));
            guest.await_cube();
        }
        let log = hesper.process.errors();
        assert!(!log.contains("is lost"), "{round}: {log}");
        if round == "after the boot" {
            guest.reset();
        }
    }
}

/// Checks that the window shows what the kernel draws on its console.
fn console(screen: &XServer, guest: &mut VulkanGuest, folder: &std::path::Path) {
    guest.succeed("printf '\\033[2J\\033[H\\033[?25l' >/dev/tty0");
    let dark = comes_true(|| screen.window_picture(folder).lit() < 0.005);
    assert!(dark, "the console is not cleared");
    guest.succeed("for i in 1 2 3 4 5; do cat /proc/meminfo; done >/dev/tty0");
    let lit = comes_true(|| screen.window_picture(folder).lit() > 0.02);
    assert!(lit, "the console does not scroll");
}

/// Checks that the console reads what is typed in the window.
fn typed(screen: &XServer, guest: &mut VulkanGuest) {
    const TEXT: &str = "Hello arm64, #1 (a+b)";
    guest.succeed(
        "rm -f /tmp/open /tmp/typed; sh -c 'exec </dev/tty1; touch /tmp/open; timeout 600 head -n 1 >/tmp/typed' &\n\
         for i in $(seq 600); do [ ! -e /tmp/open ] || break; sleep 0.1; done",
    );
    screen.run("xdotool", &["type", "--delay", "20", TEXT]);
    screen.run("xdotool", &["key", "Return"]);
    let typed = guest.succeed(
        "for i in $(seq 600); do [ ! -s /tmp/typed ] || break; sleep 0.1; done; cat /tmp/typed",
    );
    assert_eq!(typed, TEXT);
}

/// Checks that the tablet follows the pointer in the window, to the pixel.
fn pointed(screen: &XServer, guest: &mut VulkanGuest) {
    const AT: (i64, i64) = (333, 222);
    guest.succeed(
        "tablet=$(grep -l 'Hesper Tablet' /sys/class/input/event*/device/name | cut -d/ -f5)\n\
         timeout 600 stdbuf -oL evtest /dev/input/$tablet >/tmp/evtest & evtest=$!\n\
         for i in $(seq 600); do ! grep -q ^Testing /tmp/evtest || break; sleep 0.1; done",
    );
    let window = screen.window();
    let [x, y] = [AT.0, AT.1].map(|place| place.to_string());
    screen.run("xdotool", &["mousemove", "--window", &window, "1", "1"]);
    screen.run("xdotool", &["mousemove", "--window", &window, &x, &y]);
    screen.run("xdotool", &["click", "3"]);
    let seen = guest.succeed(
        "for i in $(seq 600); do ! grep -q 'BTN_RIGHT), value 0' /tmp/evtest || break; sleep 0.1; done\n\
         kill $evtest; cat /tmp/evtest",
    );
    assert!(seen.contains("BTN_RIGHT), value 1"), "{seen}");
    let last = |axis: &str| {
        let text = seen.rsplit_once(&format!("({axis}), value ")).unwrap().1;
        let number: i64 = text.lines().next().unwrap().parse().unwrap();
        number
    };
    let at = (
        last("ABS_X") * SIZE.0 / STEPS,
        last("ABS_Y") * SIZE.1 / STEPS,
    );
    assert_eq!(at, AT, "{seen}");
}
