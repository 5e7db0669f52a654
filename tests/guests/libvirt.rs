//! The real libvirt runs the domains of docs/libvirt. It starts Hesper by its vhost-user file,
//! without a display, and ends it.

use std::path::Path;
use std::process::Command;

use crate::support::hesper::Hesper;
use crate::support::libvirt::{Domain, Libvirt, wrapper};
use crate::support::picture::Picture;
use crate::support::process::comes_true;
use crate::support::vulkan_guest::VulkanGuest;

const CLASSIC: &str = include_str!("../../docs/libvirt/classic.xml");
const FULL: &str = include_str!("../../docs/libvirt/full.xml");
const COMMANDLINE: &str = include_str!("../../docs/libvirt/commandline.xml");

#[test]
fn libvirt_starts_the_classic_device_and_shows_its_console() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let libvirt = Libvirt::start(folder, Path::new(env!("CARGO_BIN_EXE_hesper")));
    let files = libvirt.files();
    let domain = libvirt.define(CLASSIC);
    let mut guest = domain.start();
    assert!(libvirt.processes().contains("hesper"));

    assert_eq!(guest.run("driver"), "virtio_gpu");
    guest.run("show 0 7");
    await_console(&domain, folder, 7);
    domain.virsh("suspend", &[]);
    domain.await_state("paused");
    await_console(&domain, folder, 7);
    domain.virsh("resume", &[]);
    guest.run("show 0 8");
    await_console(&domain, folder, 8);
    // The guest sees its power button pressed and turns itself off; libvirt starts it anew.
    domain.virsh("reboot", &[]);
    guest.wait_ready();
    guest.run("show 0 9");
    await_console(&domain, folder, 9);

    assert_eq!(domain.virsh("domstate", &[]), "running");
    domain.virsh("destroy", &[]);
    libvirt.await_only(&files);
    domain.virsh("undefine", &[]);
    assert_eq!(libvirt.virsh(&["list", "--all", "--name"]), "");
}

#[test]
fn libvirt_starts_the_full_device_by_an_override() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let control = folder.join("control.sock");
    let options = format!("--capsets=venus --control={}", control.display());
    let hesper = wrapper(folder, &options);
    let libvirt = Libvirt::start(folder, &hesper);
    let files = libvirt.files();
    let domain = libvirt.define_with_mesa(FULL);
    let mut guest = domain.start_with_mesa();
    assert!(libvirt.processes().contains("hesper"));
    let shown = || screen(folder, &control);
    console_is_shown(shown);
    guest.start_hold(40, 1);
    domain.virsh("suspend", &[]);
    domain.await_state("paused");
    domain.virsh("resume", &[]);
    domain.await_state("running");
    guest.end_hold();
    vulkan_works(&mut guest);

    // The guest sees its power button pressed and turns itself off; libvirt starts it anew.
    domain.virsh("reboot", &[]);
    guest.wait_ready();
    console_is_shown(shown);
    vulkan_works(&mut guest);
    assert_eq!(domain.virsh("domstate", &[]), "running");

    domain.virsh("destroy", &[]);
    libvirt.await_only(&files);
    domain.virsh("undefine", &[]);
    assert_eq!(libvirt.virsh(&["list", "--all", "--name"]), "");
}

/// The domain has QEMU's options for the GPU, so libvirt does not know that there is one.
#[test]
fn a_domain_uses_a_hesper_that_a_person_started() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let hesper = Hesper::start(folder, &["--display=headless"], None);
    let libvirt = Libvirt::start(folder, Path::new("/nonexistent"));
    let files = libvirt.files();
    let socket = hesper.socket().display().to_string();
    assert!(COMMANDLINE.contains("path=/run/hesper/gpu.sock'"));
    let document = COMMANDLINE.replace("/run/hesper/gpu.sock", &socket);
    let domain = libvirt.define_with_mesa(&document);
    let mut guest = domain.start_with_mesa();
    console_is_shown(|| hesper.screenshot(0));
    vulkan_works(&mut guest);

    // The guest turns itself off.
    domain.virsh("shutdown", &[]);
    domain.await_state("shut off");
    libvirt.await_only(&files);
    domain.virsh("undefine", &[]);
    assert_eq!(libvirt.virsh(&["list", "--all", "--name"]), "");
    let connected = || hesper.control("status").contains(r#""vm_connected":true"#);
    assert!(comes_true(|| !connected()), "{}", hesper.control("status"));
}

/// Fails the test unless text appears on the guest's screen.
fn console_is_shown(screen: impl Fn() -> Picture) {
    assert!(comes_true(|| screen().colours(3) > 1), "an empty screen");
}

fn vulkan_works(guest: &mut VulkanGuest) {
    let devices = guest.succeed("vulkaninfo --summary");
    assert!(devices.contains("Virtio-GPU Venus"), "{devices}");
    guest.succeed("hesper-test-client run submit-64-in-flight map-gpu-writes");
}

/// Waits until `virsh screenshot` shows this picture.
#[track_caller]
fn await_console(domain: &Domain<'_>, folder: &Path, seed: u32) {
    let file = folder.join("console.png");
    let shown = || {
        domain.virsh("screenshot", &[file.to_str().unwrap()]);
        Picture::read(&file)
    };
    let right = |picture: &Picture| {
        let expected = Picture::pattern(seed, picture.width, picture.height);
        picture.equals(&expected)
    };
    if !comes_true(|| right(&shown())) {
        let picture = shown();
        let expected = Picture::pattern(seed, picture.width, picture.height);
        picture.assert_equals(&expected, 0);
    }
}

/// What the screen of a headless Hesper shows. It has one colour while it shows nothing.
fn screen(folder: &Path, control: &Path) -> Picture {
    let file = folder.join("screen.png");
    let mut command = Command::new(env!("CARGO_BIN_EXE_hesper"));
    command.arg("ctl").arg(control).args(["screenshot", "0"]);
    let output = command.arg(&file).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    Picture::read(&file)
}
