//! Memory that a guest frees is kept for its next allocations, over the null driver. The driver
//! ends the process if memory is used after it was freed, freed twice, or left when its device is
//! destroyed.
#![allow(
    clippy::duplicate_mod,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends with a panic"
)]

mod guest;
mod hostile;

use std::time::{Duration, Instant};

use guest::settled::Settled;
use guest::{Gpu, Guest, PATIENCE, VenusGuest as _, bytes, heap, renderer_with};
use hesper_venus::{Blob, GuestBudget, Renderer, RendererOptions};
use hesper_venus_protocol::runtime::Object;
use hesper_venus_protocol::{command, vk};
use hostile::null_driver;

const MIB: u64 = 1 << 20;

fn renderer(options: RendererOptions) -> Settled {
    renderer_with(RendererOptions {
        driver: null_driver(),
        ..options
    })
}

fn usual() -> Settled {
    renderer(RendererOptions::default())
}

fn allocate_with(guest: &Guest, device: u64, mut info: vk::MemoryAllocateInfo) -> (i32, u64) {
    let memory = guest.id();
    let result = guest.call(command::AllocateMemory {
        device: Object::guest(device),
        p_allocate_info: &mut info,
        p_memory: &mut vk::DeviceMemory(memory),
    });
    (result as i32, memory)
}

/// `vkAllocateMemory`
fn allocate(guest: &Guest, device: u64, size: u64) -> u64 {
    let info = vk::MemoryAllocateInfo {
        allocation_size: size,
        ..Default::default()
    };
    let (result, memory) = allocate_with(guest, device, info);
    assert_eq!(result, 0, "{size} bytes");
    memory
}

/// `vkFreeMemory`
fn free(guest: &Guest, device: u64, memory: u64) {
    guest.send(&command::FreeMemory {
        device: Object::guest(device),
        memory: Object::guest(memory),
    });
    guest.wait_fence(0);
}

fn reused(renderer: &Renderer) -> u64 {
    renderer.counters().reused
}

fn kept(renderer: &Renderer) -> u64 {
    renderer.counters().kept_bytes
}

fn byte(blob: &Blob) -> u8 {
    let mut byte = [0];
    blob.memory.read(5, &mut byte).unwrap();
    byte[0]
}

/// Allocates and maps memory, writes 7 to it, unmaps and frees it.
fn use_and_free(guest: &Guest, gpu: &Gpu, size: u64) {
    let memory = allocate(guest, gpu.device, size);
    let (resource, blob) = guest.blob(memory, size).unwrap();
    blob.memory.write(5, &[7]).unwrap();
    drop(blob);
    guest.context.detach_resource(resource);
    free(guest, gpu.device, memory);
}

/// What a new allocation of this size has where [`use_and_free`] writes.
fn seen(guest: &Guest, gpu: &Gpu, size: u64) -> u8 {
    let memory = allocate(guest, gpu.device, size);
    let (_, blob) = guest.blob(memory, size).unwrap();
    byte(&blob)
}

#[test]
fn freed_memory_is_used_again_with_its_pages() {
    let renderer = usual();
    let guest = Guest::new(&renderer, "again");
    let gpu = guest.gpu();
    for round in 0..5 {
        use_and_free(&guest, &gpu, MIB);
        assert_eq!(reused(&renderer), round);
        assert_eq!(kept(&renderer), MIB);
    }
    assert_eq!(seen(&guest, &gpu, MIB), 7);
    assert_eq!((reused(&renderer), kept(&renderer)), (5, 0));
    assert_eq!(
        seen(&guest, &gpu, MIB),
        0,
        "another allocation has other pages"
    );
}

#[test]
fn another_context_never_gets_it() {
    let renderer = usual();
    let guest = Guest::new(&renderer, "one");
    let gpu = guest.gpu();
    use_and_free(&guest, &gpu, MIB);
    let other = Guest::new(&renderer, "other");
    let other_gpu = other.gpu();
    assert_eq!(seen(&other, &other_gpu, MIB), 0);
    assert_eq!((reused(&renderer), kept(&renderer)), (0, MIB));
}

#[test]
fn memory_that_somebody_still_has_is_not_used_again_until_they_drop_it() {
    let renderer = usual();
    let guest = Guest::new(&renderer, "mapped");
    let gpu = guest.gpu();
    let other = Guest::new(&renderer, "other");
    // The front end and the context, the front end alone, the context alone, another context.
    for who in 0..4 {
        let memory = allocate(&guest, gpu.device, MIB);
        let (resource, blob) = guest.blob(memory, MIB).unwrap();
        blob.memory.write(5, &[7]).unwrap();
        if who == 1 || who == 3 {
            guest.context.detach_resource(resource);
        }
        if who == 3 {
            other.context.attach_resource(1000, &blob);
        }
        let front_end = (who < 2).then_some(blob);
        free(&guest, gpu.device, memory);
        let before = reused(&renderer);
        let second = allocate(&guest, gpu.device, MIB);
        let (second_resource, second_blob) = guest.blob(second, MIB).unwrap();
        assert_eq!(
            byte(&second_blob),
            0,
            "{who}: others see what is written now"
        );
        assert_eq!(reused(&renderer), before, "{who}");
        drop((front_end, second_blob));
        guest.context.detach_resource(resource);
        other.context.detach_resource(1000);
        guest.wait_fence(0);
        assert_eq!(seen(&guest, &gpu, MIB), 7, "{who}: all have dropped it");
        guest.context.detach_resource(second_resource);
    }
}

#[test]
fn memory_whose_descriptor_was_given_away_is_not_used_again() {
    let renderer = usual();
    let guest = Guest::new(&renderer, "shared");
    let gpu = guest.gpu();
    for when in 0..2 {
        let memory = allocate(&guest, gpu.device, MIB);
        let (resource, blob) = guest.blob(memory, MIB).unwrap();
        blob.memory.write(5, &[7]).unwrap();
        if when == 0 {
            assert!(blob.memory.fd().is_some());
        }
        guest.context.detach_resource(resource);
        free(&guest, gpu.device, memory);
        if when == 1 {
            assert!(blob.memory.fd().is_some());
        }
        drop(blob);
        assert_eq!(seen(&guest, &gpu, MIB), 0, "{when}");
    }
    assert_eq!(reused(&renderer), 0);
}

#[test]
fn only_an_allocation_that_wants_the_same_takes_it() {
    let renderer = usual();
    let guest = Guest::new(&renderer, "picky");
    let gpu = guest.gpu();
    let second = guest.device(gpu.physical);
    let address = |flags| vk::MemoryAllocateFlagsInfo {
        flags,
        ..Default::default()
    };
    let plain = address(vk::MemoryAllocateFlags::DEVICE_ADDRESS);
    let captured = address(
        vk::MemoryAllocateFlags::DEVICE_ADDRESS
            | vk::MemoryAllocateFlags::DEVICE_ADDRESS_CAPTURE_REPLAY,
    );
    let exported = vk::ExportMemoryAllocateInfo {
        handle_types: vk::ExternalMemoryHandleTypeFlags::DMA_BUF_EXT,
        ..Default::default()
    };
    let dedicated = vk::MemoryDedicatedAllocateInfo::default();
    let with = |p_next| vk::MemoryAllocateInfo {
        p_next,
        allocation_size: MIB,
        ..Default::default()
    };
    let kinds = [
        with(std::ptr::null()),
        with((&raw const plain).cast()),
        with((&raw const captured).cast()),
        with((&raw const exported).cast()),
        vk::MemoryAllocateInfo {
            allocation_size: 2 * MIB,
            ..Default::default()
        },
        // An import belongs to no single buffer or image, so this is the first again.
        with((&raw const dedicated).cast()),
    ];
    let mut counts = Vec::new();
    for (freed, first) in kinds.iter().enumerate() {
        for wanted in &kinds {
            // Nothing is left of before.
            let device = guest.device(gpu.physical);
            let before = reused(&renderer);
            let (_, memory) = allocate_with(&guest, device, *first);
            free(&guest, device, memory);
            let is_kept = kept(&renderer) > 0;
            assert_eq!(is_kept, freed != 2 && freed != 3, "{freed}");
            let (result, _) = allocate_with(&guest, device, *wanted);
            assert_eq!(result, 0);
            counts.push(reused(&renderer) - before);
            destroy(&guest, device);
            assert_eq!(kept(&renderer), 0, "it goes with the device");
        }
    }
    let expected = [
        [1, 0, 0, 0, 0, 1],
        [0, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [1, 0, 0, 0, 0, 1],
    ];
    assert_eq!(counts, expected.concat());
    // Another device is another driver's object.
    use_and_free(&guest, &gpu, MIB);
    let before = reused(&renderer);
    allocate(&guest, second, MIB);
    assert_eq!(reused(&renderer), before);
}

fn destroy(guest: &Guest, device: u64) {
    guest.send(&command::DestroyDevice {
        device: Object::guest(device),
    });
    guest.wait_fence(0);
}

#[test]
fn what_is_kept_has_bounds_over_all_devices() {
    let renderer = usual();
    let guest = Guest::new(&renderer, "hoarder");
    let gpu = guest.gpu();
    let devices: Vec<u64> = (0..4).map(|_| guest.device(gpu.physical)).collect();
    let free_some = |count: usize, size: u64| {
        let some: Vec<_> = (0..count)
            .map(|n| (devices[n % devices.len()], n))
            .map(|(device, _)| (device, allocate(&guest, device, size)))
            .collect();
        for (device, memory) in some {
            free(&guest, device, memory);
        }
    };
    free_some(40, MIB);
    assert_eq!(kept(&renderer), 16 * MIB, "16 pieces");
    free_some(8, 100 * MIB);
    assert!(kept(&renderer) <= 256 * MIB, "{}", kept(&renderer));
    assert!(kept(&renderer) >= 200 * MIB, "{}", kept(&renderer));
    let before = reused(&renderer);
    free_some(1, 129 * MIB);
    free_some(1, 129 * MIB);
    assert_eq!(reused(&renderer), before, "it is too large");
    for device in devices {
        destroy(&guest, device);
    }
    assert_eq!(kept(&renderer), 0);
}

#[test]
fn what_is_kept_is_charged_and_goes_when_there_is_no_room_for_an_allocation() {
    let limits = [
        GuestBudget {
            device_memory: Some(64 * MIB),
            ..Default::default()
        },
        GuestBudget {
            shared_bytes: 64 * MIB,
            ..Default::default()
        },
    ];
    for limit in limits {
        let renderer = renderer(RendererOptions {
            guest: limit,
            ..Default::default()
        });
        let guest = Guest::new(&renderer, "frugal");
        let gpu = guest.gpu();
        let before = heap(&guest, &gpu);
        let three: Vec<u64> = (0..3)
            .map(|_| allocate(&guest, gpu.device, 16 * MIB))
            .collect();
        for memory in three {
            free(&guest, gpu.device, memory);
        }
        assert_eq!(kept(&renderer), 48 * MIB);
        assert!(renderer.counters().shared_bytes >= 48 * MIB);
        assert_eq!(heap(&guest, &gpu), before, "it can be allocated");
        // Another program has what is left.
        let other = Guest::new(&renderer, "other");
        let other_gpu = other.gpu();
        let info = vk::MemoryAllocateInfo {
            allocation_size: 16 * MIB,
            ..Default::default()
        };
        let (result, _) = allocate_with(&other, other_gpu.device, info);
        assert_ne!(result, 0, "it is charged");
        allocate(&guest, gpu.device, 40 * MIB);
        assert_eq!(kept(&renderer), 0);
        assert_eq!(reused(&renderer), 0);
    }
}

#[test]
fn the_window_counts_what_is_kept_as_free() {
    let renderer = renderer(RendererOptions {
        window: Some(256 * MIB),
        ..Default::default()
    });
    let guest = Guest::new(&renderer, "window");
    let gpu = guest.gpu();
    let before = heap(&guest, &gpu);
    let memory = allocate(&guest, gpu.device, 16 * MIB);
    assert_ne!(heap(&guest, &gpu), before);
    free(&guest, gpu.device, memory);
    assert_eq!(kept(&renderer), 16 * MIB);
    assert_eq!(heap(&guest, &gpu), before);
}

#[test]
fn pieces_that_are_kept_go_when_there_are_no_more() {
    let renderer = renderer(RendererOptions {
        descriptors: Some(1000),
        ..Default::default()
    });
    let guest = Guest::new(&renderer, "pieces");
    let gpu = guest.gpu();
    let all = |size| {
        let info = vk::MemoryAllocateInfo {
            allocation_size: size,
            ..Default::default()
        };
        let mut all = Vec::new();
        loop {
            match allocate_with(&guest, gpu.device, info) {
                (0, memory) => all.push(memory),
                (_, _) => return all,
            }
        }
    };
    let first = all(4096);
    for memory in &first {
        free(&guest, gpu.device, *memory);
    }
    assert!(kept(&renderer) > 0);
    assert_eq!(all(MIB).len(), first.len());
}

#[test]
fn what_is_not_needed_for_a_while_goes() {
    let renderer = usual();
    let guest = Guest::new(&renderer, "idle");
    let gpu = guest.gpu();
    use_and_free(&guest, &gpu, MIB);
    let begin = Instant::now();
    assert_eq!(kept(&renderer), MIB);
    while kept(&renderer) > 0 {
        assert!(begin.elapsed() < PATIENCE, "it stays");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(begin.elapsed() > Duration::from_millis(500));
    // A program that goes on without allocations keeps nothing, either.
    use_and_free(&guest, &gpu, MIB);
    let begin = Instant::now();
    while kept(&renderer) > 0 {
        assert!(begin.elapsed() < PATIENCE, "it stays");
        guest.version();
    }
    assert!(renderer.counters().lost == 0);
}

#[test]
fn memory_freed_twice_ends_the_context_and_nothing_else() {
    let renderer = usual();
    let guest = Guest::new(&renderer, "twice");
    let gpu = guest.gpu();
    let memory = allocate(&guest, gpu.device, MIB);
    let both = [memory, memory].map(|memory| {
        bytes(&command::FreeMemory {
            device: Object::guest(gpu.device),
            memory: Object::guest(memory),
        })
    });
    guest.context.submit(both.concat());
    guest.dies();
    let other = Guest::new(&renderer, "other");
    let gpu = other.gpu();
    use_and_free(&other, &gpu, MIB);
    assert_eq!(seen(&other, &gpu, MIB), 7);
}

#[test]
fn buffers_bound_to_freed_memory_and_contexts_that_end_leave_nothing() {
    let renderer = usual();
    for _ in 0..3 {
        let guest = Guest::new(&renderer, "bound");
        let gpu = guest.gpu();
        let device = Object::guest(gpu.device);
        for _ in 0..4 {
            let memory = allocate(&guest, gpu.device, MIB);
            for offset in [0, 4096] {
                let buffer = guest.id();
                let mut info = vk::BufferCreateInfo {
                    size: 4096,
                    usage: vk::BufferUsageFlags::TRANSFER_DST,
                    ..Default::default()
                };
                guest.send(&command::CreateBuffer {
                    device,
                    p_create_info: &mut info,
                    p_buffer: &mut vk::Buffer(buffer),
                });
                let result = guest.call(command::BindBufferMemory {
                    device,
                    buffer: Object::guest(buffer),
                    memory: Object::guest(memory),
                    memory_offset: offset,
                });
                assert_eq!(result, 0);
            }
            free(&guest, gpu.device, memory);
        }
        assert!(reused(&renderer) > 0);
        drop(guest);
    }
    let end = Instant::now() + PATIENCE;
    loop {
        let now = renderer.counters();
        if (now.kept_bytes, now.shared_bytes, now.objects) == (0, 0, 0) {
            break;
        }
        assert!(Instant::now() < end, "{now:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
