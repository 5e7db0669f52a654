//! A driver that behaves like MoltenVK on a Mac serves a VM and draws its window, loaded without Vulkan's loader.

use crate::Served;
use crate::guest::Guest;
use crate::support::programs::moltenvk;
use crate::support::xserver::XServer;

#[test]
fn a_macs_driver_serves_a_vm_and_draws_its_window() {
    let screen = XServer::start(800, 600);
    let driver = format!("--driver={}", moltenvk().display());
    let arguments = ["--display=window", "--size=640x480", &driver];
    let served = Served::start_with(&arguments, Some(&screen));
    served.says("guests see Apple M0");
    served.says("drawn by Vulkan on Apple M0");
    let vm = served.boot();
    let guest = Guest::new(&vm, 1);
    let gpu = guest.gpu();
    guest.renders(&gpu, 0x4d61_6300);
    let wrong = served.hesper.process.errors();
    assert!(!wrong.contains("mac driver:"), "{wrong}");
    drop(guest);
    served.leaves_nothing(vm);
}
