//! A small host-visible window: the guest sees its size. An allocation that does not fit fails for
//! one program, and a line in the log names the option.

use hesper_mock_venus::{Gpu, VenusGuest as _};
use hesper_venus_protocol::runtime::Object;
use hesper_venus_protocol::{command, vk};
use hesper_vhost::testing::Request;
use hesper_vhost::wire;

use crate::Served;
use crate::guest::Guest;

const MIB: u64 = 1 << 20;
/// The memory that a window of 256 MiB offers.
const LIMIT: u64 = 224 * MIB;
/// Names the option, and the size to choose.
const REMEDY: &str = "Start Hesper with a larger window: --hostmem=512M instead of 256M";

/// Fresh memory of the GPU that the guest can map.
pub(super) fn allocate(guest: &Guest, gpu: &Gpu, size: u64) -> Result<u64, vk::Result> {
    let memory = guest.id();
    let mut info = vk::MemoryAllocateInfo {
        allocation_size: size,
        memory_type_index: guest.visible_type(gpu),
        ..Default::default()
    };
    let result = guest.call(command::AllocateMemory {
        device: Object::guest(gpu.device),
        p_allocate_info: &mut info,
        p_memory: &mut vk::DeviceMemory(memory),
    });
    match vk::Result(result as i32) {
        vk::Result::SUCCESS => Ok(memory),
        error => Err(error),
    }
}

/// Sizes of the heaps whose memory the guest can map.
fn visible_heaps(guest: &Guest, gpu: &Gpu) -> Vec<u64> {
    let mut memory = vk::PhysicalDeviceMemoryProperties::default();
    guest.call(command::GetPhysicalDeviceMemoryProperties {
        physical_device: Object::guest(gpu.physical),
        p_memory_properties: &mut memory,
    });
    memory.memory_types[..memory.memory_type_count as usize]
        .iter()
        .filter(|one| {
            let visible = vk::MemoryPropertyFlags::HOST_VISIBLE;
            one.property_flags.contains(visible)
        })
        .map(|one| memory.memory_heaps[one.heap_index as usize].size)
        .collect()
}

#[test]
fn a_window_that_fills_up_names_its_option_and_goes_on() {
    let arguments = ["--display=headless", "--size=640x480", "--hostmem=256M"];
    let served = Served::start_with(&arguments, None);
    let lines = |what: &str| {
        let log = served.hesper.process.errors();
        log.lines()
            .filter(|line| line.contains(what) && line.contains(REMEDY))
            .count()
    };
    let vm = served.boot();
    let guest = Guest::new(&vm, 1);
    let gpu = guest.gpu();
    let heaps = visible_heaps(&guest, &gpu);
    assert!(!heaps.is_empty());
    assert!(heaps.iter().all(|size| *size == LIMIT), "{heaps:?}");
    for beyond in [LIMIT + 1, 24 << 30, u64::MAX] {
        assert_eq!(
            allocate(&guest, &gpu, beyond),
            Err(vk::Result::ERROR_OUT_OF_DEVICE_MEMORY),
            "{beyond}"
        );
    }

    // Allocating is not mapping: six times 64 MiB can be allocated, and three of them mapped.
    let memories: Vec<_> = (0..6)
        .map(|_| allocate(&guest, &gpu, 64 * MIB).unwrap())
        .collect();
    let mapped: Vec<_> = memories[..3]
        .iter()
        .map(|memory| guest.map(*memory, 64 * MIB))
        .collect();
    assert!(!served.hesper.process.errors().contains("--hostmem"));
    let more = guest.map(memories[3], 40 * MIB);
    served.says("233 MiB of the 256 MiB of the host-visible window are mapped");
    let one_more = guest.map(0, 4096);
    // The guest's kernel finds no place for this blob. It makes the blob, and frees it again.
    let resource = vm.machine().resource();
    vm.machine()
        .ok(&Request::host_blob(1, resource, memories[4], 64 * MIB));
    served.says("the guest has no room to map 64 MiB more: 233 MiB of the 256 MiB");
    vm.machine().ok(&Request::unref(resource));
    // The line comes once.
    let resource = vm.machine().resource();
    vm.machine()
        .ok(&Request::host_blob(1, resource, memories[4], 64 * MIB));
    vm.machine().ok(&Request::unref(resource));
    guest.version();
    assert_eq!((lines("are mapped; when"), lines("no room")), (1, 1));

    // A program unmaps, and the next one maps at its place.
    vm.machine().ok(&Request::unmap_blob(mapped[1].resource));
    vm.machine().ok(&Request::unref(mapped[1].resource));
    let resource = vm.machine().resource();
    vm.machine()
        .ok(&Request::host_blob(1, resource, memories[4], 64 * MIB));
    let code = vm
        .machine()
        .code(&Request::map_blob(resource, mapped[1].offset));
    assert_eq!(code, wire::RESP_OK_MAP_INFO);
    vm.machine().window().write(mapped[1].offset, &[7; 16]);
    assert_eq!((lines("are mapped; when"), lines("no room")), (1, 1));

    // When less than half is mapped, all works as before.
    for used in [mapped[0].resource, mapped[2].resource, more.resource] {
        vm.machine().ok(&Request::unref(used));
    }
    vm.machine().ok(&Request::unref(resource));
    vm.machine().ok(&Request::unref(one_more.resource));
    let resource = vm.machine().resource();
    vm.machine()
        .ok(&Request::host_blob(1, resource, memories[5], 64 * MIB));
    let at = mapped[0].offset;
    let code = vm.machine().code(&Request::map_blob(resource, at));
    assert_eq!(code, wire::RESP_OK_MAP_INFO);
    vm.machine().ok(&Request::unref(resource));
    assert_eq!((lines("are mapped; when"), lines("no room")), (1, 1));
    drop(guest);
    served.leaves_nothing(vm);
}
