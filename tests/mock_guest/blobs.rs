//! Blobs in the host-visible window: many of them, mapped often, shared between contexts, and what
//! stays of them.

use hesper_mock_venus::{Gpu, RING, VenusGuest as _};
use hesper_venus_protocol::runtime::Object;
use hesper_venus_protocol::{command, vk};
use hesper_vhost::screen::Rect;
use hesper_vhost::testing::Request;
use hesper_vhost::wire;

use crate::Served;
use crate::guest::Guest;
use hesper_mock_frontend::{PIXELS, eventually};

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
    // Holes are reused, in another order and with other sizes.
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
        // Without an unmap: the device unmaps it.
        vm.machine().ok(&Request::unref(blob.resource));
    }
    assert_eq!(
        vm.machine().window().mappings(),
        1,
        "the memory for replies"
    );
    guest.version();
    eventually("the descriptors are closed", || {
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

/// Imports a resource as memory. Returns the result if that is refused.
fn import(guest: &Guest, gpu: &Gpu, resource: u32, size: u64) -> Result<u64, i32> {
    let memory = guest.id();
    let import = vk::ImportMemoryResourceInfoMESA {
        resource_id: resource,
        ..Default::default()
    };
    let mut info = vk::MemoryAllocateInfo {
        p_next: (&raw const import).cast(),
        allocation_size: size,
        memory_type_index: guest.visible_type(gpu),
        ..Default::default()
    };
    let result = guest.call(command::AllocateMemory {
        device: Object::guest(gpu.device),
        p_allocate_info: &mut info,
        p_memory: &mut vk::DeviceMemory(memory),
    });
    match result as i32 {
        0 => Ok(memory),
        error => Err(error),
    }
}

/// A buffer in that memory, which can be filled and copied.
fn buffer_of(guest: &Guest, gpu: &Gpu, memory: u64, size: u64) -> u64 {
    let buffer = guest.id();
    let mut info = vk::BufferCreateInfo {
        size,
        usage: vk::BufferUsageFlags(
            vk::BufferUsageFlags::TRANSFER_SRC.0 | vk::BufferUsageFlags::TRANSFER_DST.0,
        ),
        ..Default::default()
    };
    guest.call(command::CreateBuffer {
        device: Object::guest(gpu.device),
        p_create_info: &mut info,
        p_buffer: &mut vk::Buffer(buffer),
    });
    guest.call(command::BindBufferMemory {
        device: Object::guest(gpu.device),
        buffer: Object::guest(buffer),
        memory: Object::guest(memory),
        memory_offset: 0,
    });
    buffer
}

#[test]
fn the_gpu_draws_into_scattered_pages_of_the_guest() {
    const SIZE: u64 = 5 * 4096;
    let served = Served::start();
    let vm = served.boot();
    let guest = Guest::new(&vm, 1);
    let gpu = guest.gpu();
    let page = |number: u64| PIXELS + number * 4096;
    // In reverse order, with two neighbours and a gap, and as many unused pages around them.
    let pieces = [
        (page(9), 4096),
        (page(2), 8192),
        (page(7), 4096),
        (page(5), 4096),
    ];
    let resource = vm.machine().resource();
    vm.machine()
        .ok(&Request::guest_blob(resource, SIZE, &pieces));
    assert_eq!(
        import(&guest, &gpu, resource, SIZE),
        Err(vk::Result::ERROR_INVALID_EXTERNAL_HANDLE.0),
        "it is not attached"
    );
    vm.machine().ok(&Request::attach(1, resource));
    let memory = import(&guest, &gpu, resource, SIZE).unwrap();
    let buffer = buffer_of(&guest, &gpu, memory, SIZE);
    let (commands, _) = guest.fill(&gpu, buffer, 0xfeed_beef);
    guest.submit(&gpu, &[commands]);
    guest.wait_fence(RING);
    let drawn = [2, 3, 5, 7, 9];
    for number in 0..12 {
        let word = if drawn.contains(&number) {
            0xfeed_beef
        } else {
            0_u32
        };
        let seen = vm.machine().read(page(number), 4096);
        assert!(
            seen.chunks(4).all(|found| found == word.to_le_bytes()),
            "page {number}"
        );
    }

    // Memory of parts of pages cannot be imported, and the guest is told so.
    let crooked = vm.machine().resource();
    let pieces = [(page(1) + 512, 4096)];
    vm.machine()
        .ok(&Request::guest_blob(crooked, 4096, &pieces));
    vm.machine().ok(&Request::attach(1, crooked));
    assert_eq!(
        import(&guest, &gpu, crooked, 4096),
        Err(vk::Result::ERROR_INVALID_EXTERNAL_HANDLE.0)
    );
    // Nor can more than there is.
    assert_eq!(
        import(&guest, &gpu, resource, SIZE + 4096),
        Err(vk::Result::ERROR_INVALID_EXTERNAL_HANDLE.0)
    );
    guest.renders(&gpu, 0x0102_0304);

    // When the resource is gone, the guest has its pages back, and the GPU writes elsewhere.
    for request in [Request::detach(1, resource), Request::unref(resource)] {
        vm.machine().ok(&request);
        let (commands, _) = guest.fill(&gpu, buffer, 0x0506_0708);
        guest.submit(&gpu, &[commands]);
        guest.wait_fence(RING);
        let seen = vm.machine().read(page(9), 4);
        assert_eq!(seen, 0xfeed_beef_u32.to_le_bytes());
    }
    // The same if only the backing is detached.
    let other = vm.machine().resource();
    let pieces = [(page(6), 4096)];
    vm.machine().ok(&Request::guest_blob(other, 4096, &pieces));
    vm.machine().ok(&Request::attach(1, other));
    let memory = import(&guest, &gpu, other, 4096).unwrap();
    let buffer = buffer_of(&guest, &gpu, memory, 4096);
    for (before, word) in [(true, 0x1122_3344_u32), (false, 0x5566_7788)] {
        let (commands, _) = guest.fill(&gpu, buffer, word);
        guest.submit(&gpu, &[commands]);
        guest.wait_fence(RING);
        let seen = vm.machine().read(page(6), 4);
        assert_eq!(seen, 0x1122_3344_u32.to_le_bytes());
        if before {
            vm.machine().ok(&Request::detach_backing(other));
        }
    }
    guest.renders(&gpu, 0x0102_0304);
    drop(guest);
    served.leaves_nothing(vm);
}

#[test]
fn guest_memory_in_too_many_pieces_is_not_named_and_takes_no_mappings() {
    let served = Served::start();
    let vm = served.boot();
    let guest = Guest::new(&vm, 1);
    let gpu = guest.gpu();
    // Every second page: no two are neighbours.
    let mut pieces: Vec<_> = (0..1000).map(|i| (PIXELS + i * 8192, 4096)).collect();
    let mut named = 0;
    let last = loop {
        let resource = vm.machine().resource();
        vm.machine()
            .ok(&Request::guest_blob(resource, 4096 * 1000, &pieces));
        vm.machine().ok(&Request::attach(1, resource));
        if import(&guest, &gpu, resource, 4096).is_err() {
            break resource;
        }
        named += 1;
        assert!(named <= 16, "there is a limit");
        // The same pages in the same order would be mapped only once.
        pieces.rotate_left(1);
    };
    assert_eq!(named, 16);
    // Freed entries can be used again. Memory objects hold theirs until they are freed.
    vm.machine().ok(&Request::destroy_context(1));
    drop(guest);
    let guest = Guest::new(&vm, 2);
    let gpu = guest.gpu();
    eventually("the mappings are given back", || {
        vm.machine().ok(&Request::attach(2, last));
        let is_there = import(&guest, &gpu, last, 4096).is_ok();
        vm.machine().ok(&Request::detach(2, last));
        is_there
    });
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
    let imported = import(&client, &gpu, mapped.resource, 4096).unwrap();
    let buffer = buffer_of(&client, &gpu, imported, 4096);
    let (commands, _) = client.fill(&gpu, buffer, 0xfeed_beef);
    client.submit(&gpu, &[commands]);
    client.wait_fence(RING);
    let seen = vm.machine().window().read(mapped.offset, 4096);
    assert!(
        seen.chunks(4)
            .all(|word| word == 0xfeed_beef_u32.to_le_bytes())
    );

    // A resource keeps its UUID, and no other resource has it.
    let uuid = |resource| {
        let request = Request::resource(wire::CMD_RESOURCE_ASSIGN_UUID, resource);
        let answer = vm.machine().ask(&request);
        assert_eq!(answer.kind(), wire::RESP_OK_RESOURCE_UUID);
        answer.0[24..40].to_vec()
    };
    let other = client.map(0, 4096);
    assert_eq!(uuid(mapped.resource), uuid(mapped.resource));
    assert_ne!(uuid(mapped.resource), uuid(other.resource));

    // The maker ends. The memory stays as long as someone uses it.
    vm.machine().ok(&Request::destroy_context(1));
    let (commands, _) = client.fill(&gpu, buffer, 0x0102_0304);
    client.submit(&gpu, &[commands]);
    client.wait_fence(RING);
    let seen = vm.machine().window().read(mapped.offset, 4);
    assert_eq!(seen, 0x0102_0304_u32.to_le_bytes());
    drop((compositor, client));
    served.leaves_nothing(vm);
}

/// Copies one buffer into another and waits for it.
fn copy(guest: &Guest, gpu: &Gpu, from: u64, to: u64, size: u64) {
    let (commands, _) = guest.command_buffer(gpu);
    let command_buffer = Object::guest(commands);
    guest.send(&command::BeginCommandBuffer {
        command_buffer,
        p_begin_info: &mut vk::CommandBufferBeginInfo::default(),
    });
    let mut region = vk::BufferCopy {
        src_offset: 0,
        dst_offset: 0,
        size,
    };
    guest.send(&command::CmdCopyBuffer {
        command_buffer,
        src_buffer: Object::guest(from),
        dst_buffer: Object::guest(to),
        region_count: 1,
        p_regions: std::slice::from_mut(&mut region).into(),
    });
    guest.send(&command::EndCommandBuffer { command_buffer });
    guest.submit(gpu, &[commands]);
    guest.wait_fence(RING);
}

#[test]
fn a_clients_picture_is_read_drawn_and_shown_by_the_compositor_without_copies() {
    const WIDTH: u32 = 320;
    const HEIGHT: u32 = 240;
    const SIZE: u64 = WIDTH as u64 * HEIGHT as u64 * 4;
    let served = Served::start();
    let vm = served.boot();
    let client = Guest::new(&vm, 1);
    let client_gpu = client.gpu();
    let (picture, memory) = client.buffer(&client_gpu, SIZE);
    let blob = client.map(memory, SIZE);
    let compositor = Guest::new(&vm, 2);
    let gpu = compositor.gpu();
    vm.machine().ok(&Request::attach(2, blob.resource));
    let imported = import(&compositor, &gpu, blob.resource, SIZE).unwrap();
    let texture = buffer_of(&compositor, &gpu, imported, SIZE);
    let (own, own_memory) = compositor.buffer(&gpu, SIZE);
    let seen = compositor.map(own_memory, SIZE);
    let is_filled = |at: u64, word: u32| {
        let bytes = vm.machine().window().read(at, SIZE as usize);
        bytes.chunks(4).all(|pixel| pixel == word.to_le_bytes())
    };
    let whole = Rect {
        x: 0,
        y: 0,
        width: WIDTH,
        height: HEIGHT,
    };
    let show = Request::set_scanout_frame(
        0,
        blob.resource,
        wire::FORMAT_B8G8R8X8,
        (WIDTH, HEIGHT),
        (0, WIDTH * 4),
        whole,
    );
    vm.machine().ok(&show);
    for round in 0..4_u32 {
        // The client draws and the compositor's GPU reads it; then the other way.
        let words = [0xff00_1020 + round, 0xff40_5000 + round];
        let (commands, _) = client.fill(&client_gpu, picture, words[0]);
        client.submit(&client_gpu, &[commands]);
        client.wait_fence(RING);
        copy(&compositor, &gpu, texture, own, SIZE);
        assert!(is_filled(seen.offset, words[0]), "round {round}");
        let (commands, _) = compositor.fill(&gpu, texture, words[1]);
        compositor.submit(&gpu, &[commands]);
        compositor.wait_fence(RING);
        assert!(is_filled(blob.offset, words[1]), "round {round}");
        // What the compositor drew is on the screen: the same memory once more.
        let flush = Request::flush(blob.resource, whole).fence(u64::from(round) + 1);
        vm.machine().ok(&flush);
        let [blue, green, red, _] = words[1].to_le_bytes();
        eventually("the picture is shown", || {
            let shot = served.hesper.screenshot(0);
            let bounds = shot.bounds_of([blue, green, red]);
            bounds.map(|bounds| bounds.size()) == Some((WIDTH, HEIGHT))
        });
    }
    drop((client, compositor));
    served.leaves_nothing(vm);
}
