//! What is special on a Mac: a driver like MoltenVK, loaded without Vulkan's loader, serves a VM
//! and draws its window; and the VMM maps only whole pages of 16 KiB, so it must not be asked for
//! anything else.

use hesper_mock_venus::{Gpu, Ring, VenusGuest as _, bytes};
use hesper_venus_protocol::command;
use hesper_vhost::testing::Request;
use hesper_vhost::wire;

use crate::Served;
use crate::guest::{Guest, Vm};
use crate::support::programs::moltenvk;
use crate::support::xserver::XServer;
use hesper_mock_frontend::Machine;

#[test]
fn a_macs_driver_serves_a_vm_and_draws_its_window() {
    let screen = XServer::start(800, 600);
    let driver = format!("--driver={}", moltenvk().display());
    let arguments = ["--display=window", "--size=640x480", &driver];
    let mut served = Served::start_with(&arguments, Some(&screen));
    served.says("GPU: Apple M0");
    served.says("drawn by Vulkan on Apple M0");
    // On a busy machine, the window's threads come after the first look.
    served.idle = served.hesper.idle_usage();
    let vm = served.boot();
    let guest = Guest::new(&vm, 1);
    let gpu = guest.gpu();
    guest.renders(&gpu, 0x4d61_6300);
    let wrong = served.hesper.process.errors();
    assert!(!wrong.contains("mac driver:"), "{wrong}");
    drop(guest);
    served.leaves_nothing(vm);
}

/// A page of Apple silicon.
const PAGE: u64 = 16 << 10;

/// A Hesper that works as on macOS.
fn as_on_a_mac(arguments: &[&str]) -> Served {
    let driver = format!("--driver={}", moltenvk().display());
    let own = ["--display=headless", "--size=640x480", &driver];
    let system = [("HESPER_SYSTEM", "macos")];
    Served::start_in(&[&own, arguments].concat(), None, &system)
}

fn boot(served: &Served) -> Vm {
    Vm::new(Machine::boot_with_window(&served.hesper.socket(), PAGE))
}

/// Fresh memory of the GPU that the guest can map.
fn allocate(guest: &Guest, gpu: &Gpu, size: u64) -> u64 {
    crate::hostmem::allocate(guest, gpu, size).unwrap()
}

#[test]
fn a_vmm_that_maps_pages_of_16_kib_is_never_asked_for_less() {
    let served = as_on_a_mac(&[]);
    let vm = boot(&served);
    // The guest is told the alignment.
    assert_ne!(vm.machine().features() & 1 << wire::F_BLOB_ALIGNMENT, 0);
    let told = vm.machine().config(16, 4);
    assert_eq!(told, (PAGE as u32).to_le_bytes());

    // A guest that obeys it is served, even if it has memory of its own that is smaller than a
    // page.
    let guest = Guest::new(&vm, 1);
    let gpu = guest.gpu();
    guest.renders(&gpu, 0x4d61_6301);
    let mut ring = Ring::new(&guest, 7);
    ring.write(&bytes(&command::EnumerateInstanceVersion {
        p_api_version: &mut 0,
    }));
    ring.wait();

    // A guest that ignores it gets an error for each blob, and for each place.
    let mapped = vm.machine().window().mappings();
    for blob in [0, allocate(&guest, &gpu, 1 << 20)] {
        for size in [1, 4096, 0x2_0000 - 4096, PAGE - 1, PAGE + 1, PAGE + 4096] {
            let resource = vm.machine().resource();
            let request = Request::host_blob(1, resource, blob, size);
            let code = vm.machine().code(&request);
            assert_eq!(code, wire::RESP_ERR_INVALID_PARAMETER, "{size:#x}");
        }
    }
    served.says("a multiple of 16384, the host's page size; the guest needs Linux 7.2 and Mesa");
    let resource = vm.machine().resource();
    vm.machine()
        .ok(&Request::host_blob(1, resource, 0, 2 * PAGE));
    for offset in [1, 4096, (1 << 30) + 8192, (1 << 30) - 4096, u64::MAX - 4095] {
        let code = vm.machine().code(&Request::map_blob(resource, offset));
        assert_eq!(code, wire::RESP_ERR_INVALID_PARAMETER, "{offset:#x}");
    }
    served.says("is not a multiple of 16384; a guest kernel with VIRTIO_GPU_F_BLOB_ALIGNMENT");
    assert_eq!(vm.machine().window().mappings(), mapped);

    // The program that asked wrongly goes on.
    let code = vm.machine().code(&Request::map_blob(resource, 1 << 30));
    assert_eq!(code, wire::RESP_OK_MAP_INFO);
    guest.renders(&gpu, 0x4d61_6302);
    assert_eq!(vm.machine().window().refused(), [""; 0]);
    drop(ring);
    drop(guest);
    served.leaves_nothing(vm);
}

#[test]
fn whatever_a_guest_asks_for_a_macs_vmm_survives() {
    // An alignment below the host's page size has no effect.
    let served = as_on_a_mac(&["--blob-alignment=4096"]);
    let vm = boot(&served);
    let guest = Guest::new(&vm, 1);
    let gpu = guest.gpu();
    let mut state = 0x4d61_6300_u64;
    let mut random = |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % below) as usize
    };
    let mut live: Vec<u32> = Vec::new();
    let (mut made, mut maps) = (0, 0);
    for _ in 0..2000 {
        match random(4) {
            // Whole pages of the guest, or of the host, or neither.
            0 => {
                let unit = [1, 512, 4096, 4096, PAGE, PAGE][random(6)];
                let size = unit * (1 + random(9) as u64);
                let blob = match random(2) {
                    0 => 0,
                    _ => allocate(&guest, &gpu, size),
                };
                let resource = vm.machine().resource();
                let request = Request::host_blob(1, resource, blob, size);
                let code = vm.machine().code(&request);
                let is_made = code == wire::RESP_OK_NODATA;
                assert_eq!(is_made, size.is_multiple_of(PAGE), "{size:#x}: {code:#x}");
                if is_made {
                    made += 1;
                    live.push(resource);
                }
            }
            1 if !live.is_empty() => {
                let unit = [4096, PAGE, PAGE][random(3)];
                let offset = (1 << 31) + unit * random(4096) as u64;
                let resource = live[random(live.len() as u64)];
                let mut machine = vm.machine();
                if machine.code(&Request::map_blob(resource, offset)) == wire::RESP_OK_MAP_INFO {
                    assert!(offset.is_multiple_of(PAGE), "{offset:#x}");
                    maps += 1;
                    machine.window().write(offset, &[0x5a; 4096]);
                }
            }
            2 if !live.is_empty() => {
                let resource = live[random(live.len() as u64)];
                vm.machine().code(&Request::unmap_blob(resource));
            }
            3 if live.len() > 16 => {
                let resource = live.swap_remove(random(live.len() as u64));
                vm.machine().ok(&Request::unref(resource));
            }
            _ => {}
        }
    }
    assert!(made > 50 && maps > 50, "{made} blobs, {maps} maps");
    assert_eq!(vm.machine().window().refused(), [""; 0]);
    guest.renders(&gpu, 0x4d61_6303);
    drop(guest);
    served.leaves_nothing(vm);
}
