//! Blobs in the window: many, often, shared between contexts, and what of them is left.

use hesper_venus_protocol::runtime::Object;
use hesper_venus_protocol::{command, vk};
use hesper_vhost::testing::Request;
use hesper_vhost::wire;

use crate::Served;
use crate::guest::Guest;
use crate::guest::gpu::RING;

#[test]
fn a_thousand_live_blobs_are_mapped_at_once_each_with_its_own_bytes() {
    let served = Served::start();
    let vm = served.boot();
    let guest = Guest::new(&vm, 1);
    let before = served.hesper.process.usage();
    let blobs: Vec<_> = (0..1000_u64)
        .map(|round| guest.map(0, 4096 * (1 + round % 5)))
        .collect();
    for (number, blob) in (0_u64..).zip(&blobs) {
        let machine = vm.machine();
        machine.window().write(blob.offset, &number.to_le_bytes());
    }
    assert!(vm.machine().window().mappings() >= 1000);
    for (number, blob) in (0_u64..).zip(&blobs) {
        let machine = vm.machine();
        let seen = machine.window().read(blob.offset, 8);
        assert_eq!(seen, number.to_le_bytes());
    }
    // Holes are used again, in another order and with other sizes.
    for blob in blobs.iter().step_by(2) {
        vm.machine().ok(&Request::unmap_blob(blob.resource));
        vm.machine().ok(&Request::unref(blob.resource));
    }
    for blob in blobs.iter().step_by(2).rev() {
        let resource = vm.machine().resource();
        let mut machine = vm.machine();
        machine.ok(&Request::host_blob(1, resource, 0, 4096));
        let code = machine.code(&Request::map_blob(resource, blob.offset));
        assert_eq!(code, wire::RESP_OK_MAP_INFO);
        assert_eq!(
            machine.window().read(blob.offset, 8),
            [0; 8],
            "fresh memory"
        );
        machine.ok(&Request::unmap_blob(resource));
        machine.ok(&Request::unref(resource));
    }
    for blob in blobs.iter().skip(1).step_by(2) {
        // Without an unmap: the device does it.
        vm.machine().ok(&Request::unref(blob.resource));
    }
    assert_eq!(
        vm.machine().window().mappings(),
        1,
        "the memory for replies"
    );
    guest.version();
    crate::eventually("the descriptors are closed", || {
        served.hesper.process.usage().descriptors == before.descriptors
    });
    drop(guest);
    served.leaves_nothing(vm);
}

#[test]
fn ten_thousand_maps_and_unmaps_keep_the_bytes_and_leave_nothing() {
    let served = Served::start();
    let vm = served.boot();
    let guest = Guest::new(&vm, 1);
    let resource = vm.machine().resource();
    vm.machine().ok(&Request::host_blob(1, resource, 0, 8192));
    let before = served.hesper.process.usage();
    for round in 0..10_000_u64 {
        let offset = (1 << 30) + (round % 7) * 8192;
        let mut machine = vm.machine();
        let code = machine.code(&Request::map_blob(resource, offset));
        assert_eq!(code, wire::RESP_OK_MAP_INFO);
        let seen = machine.window().read(offset + 4096, 8);
        assert_eq!(seen, round.to_le_bytes(), "the same pages as before");
        machine
            .window()
            .write(offset + 4096, &(round + 1).to_le_bytes());
        machine.ok(&Request::unmap_blob(resource));
    }
    let after = served.hesper.process.usage();
    assert_eq!(after.descriptors, before.descriptors);
    vm.machine().ok(&Request::unref(resource));
    drop(guest);
    served.leaves_nothing(vm);
}

#[test]
fn a_context_draws_into_another_ones_memory() {
    let served = Served::start();
    let vm = served.boot();
    let compositor = Guest::new(&vm, 1);
    let gpu = compositor.gpu();
    let (_, memory) = compositor.buffer(&gpu, 4096);
    let mapped = compositor.map(memory, 4096);

    // The client imports the resource as memory of its own device.
    let client = Guest::new(&vm, 2);
    vm.machine().ok(&Request::attach(2, mapped.resource));
    let gpu = client.gpu();
    let (buffer, imported) = (client.id(), client.id());
    let mut info = vk::BufferCreateInfo {
        size: 4096,
        usage: vk::BufferUsageFlags::TRANSFER_DST,
        ..Default::default()
    };
    client.call(command::CreateBuffer {
        device: Object::guest(gpu.device),
        p_create_info: &mut info,
        p_buffer: &mut vk::Buffer(buffer),
    });
    let import = vk::ImportMemoryResourceInfoMESA {
        resource_id: mapped.resource,
        ..Default::default()
    };
    let mut info = vk::MemoryAllocateInfo {
        p_next: (&raw const import).cast(),
        allocation_size: 4096,
        memory_type_index: client.visible_type(&gpu),
        ..Default::default()
    };
    let result = client.call(command::AllocateMemory {
        device: Object::guest(gpu.device),
        p_allocate_info: &mut info,
        p_memory: &mut vk::DeviceMemory(imported),
    });
    assert_eq!(result, 0);
    client.call(command::BindBufferMemory {
        device: Object::guest(gpu.device),
        buffer: Object::guest(buffer),
        memory: Object::guest(imported),
        memory_offset: 0,
    });
    let (commands, _) = client.fill(&gpu, buffer, 0xfeed_beef);
    client.submit(&gpu, &[commands]);
    client.wait_fence(RING);
    let seen = vm.machine().window().read(mapped.offset, 4096);
    assert!(
        seen.chunks(4)
            .all(|word| word == 0xfeed_beef_u32.to_le_bytes())
    );

    // A resource keeps its UUID, which is no other one's.
    let uuid = |resource| {
        let request = Request::resource(wire::CMD_RESOURCE_ASSIGN_UUID, resource);
        let answer = vm.machine().ask(&request);
        assert_eq!(answer.kind(), wire::RESP_OK_RESOURCE_UUID);
        answer.0[24..40].to_vec()
    };
    let other = client.map(0, 4096);
    assert_eq!(uuid(mapped.resource), uuid(mapped.resource));
    assert_ne!(uuid(mapped.resource), uuid(other.resource));

    // The maker goes; the memory stays as long as someone has it.
    vm.machine().ok(&Request::destroy_context(1));
    let (commands, _) = client.fill(&gpu, buffer, 0x0102_0304);
    client.submit(&gpu, &[commands]);
    client.wait_fence(RING);
    let seen = vm.machine().window().read(mapped.offset, 4);
    assert_eq!(seen, 0x0102_0304_u32.to_le_bytes());
    drop((compositor, client));
    served.leaves_nothing(vm);
}
