//! The renderer on a real driver, with a guest that is this test:
//!
//! ```text
//! export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=tests/env/run
//! cargo test -p hesper-venus --test lavapipe
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends with a panic"
)]

mod guest;

use std::time::{Duration, Instant};

use guest::{Event, Guest, PATIENCE, RING, VenusGuest as _, bytes, renderer, renderer_with};
use hesper_venus::memory::SharedMemory;
use hesper_venus::{BlobError, Counters, Renderer, RendererOptions};
use hesper_venus_protocol::runtime::{Array, Object};
use hesper_venus_protocol::{command, vk};

const SIZE: u64 = 1 << 20;

/// Waits until `renderer` has nothing left of any context.
fn until_nothing_is_left(renderer: &Renderer) -> Counters {
    let end = Instant::now() + PATIENCE;
    loop {
        let now = renderer.counters();
        if (now.contexts, now.rings, now.objects, now.shared_bytes) == (0, 0, 0, 0) {
            return now;
        }
        assert!(Instant::now() < end, "still there: {now:?}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn what_the_gpu_writes_shows_in_the_blob_of_the_memory_once_the_fence_retires() {
    let renderer = renderer();
    let guest = Guest::new(&renderer, "fill");
    let gpu = guest.gpu();
    let (buffer, memory) = guest.buffer(&gpu, SIZE);
    let (_, blob) = guest.blob(memory, SIZE).unwrap();
    for pattern in [0x1234_5678, 0x9abc_def0] {
        let (commands, _) = guest.fill(&gpu, buffer, pattern);
        guest.submit(&gpu, &[commands]);
        guest.wait_fence(RING);
        let mut seen = vec![0; SIZE as usize];
        blob.memory.read(0, &mut seen).unwrap();
        let expected = u32::to_le_bytes(pattern);
        assert!(seen.chunks(4).all(|word| word == expected), "{pattern:#x}");
    }
    // The other way: what the guest writes is in the next mapping of the same memory.
    blob.memory.write(0, &[7; 16]).unwrap();
    let (_, again) = guest.blob(memory, SIZE).unwrap();
    let mut seen = [0; 16];
    again.memory.read(0, &mut seen).unwrap();
    assert_eq!(seen, [7; 16]);
}

/// A guest's kernel makes blobs of its own whole pages, which may be larger than the host's.
#[test]
fn a_blob_of_a_small_allocation_is_as_large_as_the_largest_page_of_a_guest() {
    const PAGE: u64 = 64 << 10;
    let renderer = renderer();
    let guest = Guest::new(&renderer, "pages");
    let gpu = guest.gpu();
    let (buffer, memory) = guest.buffer(&gpu, 4096);
    let (_, blob) = guest.blob(memory, PAGE).unwrap();
    assert!(guest.blob(memory, PAGE + 1).is_err());
    let (commands, _) = guest.fill(&gpu, buffer, 0x1234_5678);
    guest.submit(&gpu, &[commands]);
    guest.wait_fence(RING);
    // Whoever maps it finds all of it, by the descriptor, too.
    let file = blob.memory.shared_fd().unwrap();
    let mapped = SharedMemory::from_fd(file, blob.memory.fd_offset(), PAGE).unwrap();
    let mut seen = vec![0; PAGE as usize];
    mapped.read(0, &mut seen).unwrap();
    let (filled, rest) = seen.split_at(4096);
    let expected = u32::to_le_bytes(0x1234_5678);
    assert!(filled.chunks(4).all(|word| word == expected));
    assert!(rest.iter().all(|byte| *byte == 0));
}

#[test]
fn fences_of_a_queue_wait_for_its_work_in_order_and_others_do_not_wait_for_them() {
    let renderer = renderer();
    let guest = Guest::new(&renderer, "fences");
    let gpu = guest.gpu();
    let semaphore = guest.timeline(&gpu);
    guest.submit_wait(&gpu, semaphore, 5);
    for fence in 100..110 {
        guest.context.fence(RING, fence);
    }
    // The queue is blocked, but the context's own timeline is not.
    guest.wait_fence(0);
    assert!(
        guest
            .events
            .recv_timeout(Duration::from_millis(50))
            .is_err()
    );
    // The answer to the signal and the fences may come in any order.
    let mut info = vk::SemaphoreSignalInfo {
        semaphore: vk::Semaphore(semaphore),
        value: 5,
        ..Default::default()
    };
    guest.send(&command::SignalSemaphore {
        device: Object::guest(gpu.device),
        p_signal_info: &mut info,
    });
    for fence in 100..110 {
        let event = guest.event();
        let is_next = matches!(event, Event::Fence(RING, f) if f == fence);
        assert!(is_next, "{event:?} instead of fence {fence}");
    }
}

#[test]
fn a_sync_files_payload_is_taken_by_one_wait_and_leaves_the_semaphores_own_alone() {
    let renderer = renderer();
    let guest = Guest::new(&renderer, "sync files");
    let gpu = guest.gpu();
    let semaphore = guest.binary(&gpu);
    let import = || {
        guest.send(&command::ImportSemaphoreResourceMESA {
            device: Object::guest(gpu.device),
            p_import_semaphore_resource_info: &mut vk::ImportSemaphoreResourceInfoMESA {
                semaphore: vk::Semaphore(semaphore),
                ..Default::default()
            },
        });
    };
    let export = || {
        guest.send(&command::WaitSemaphoreResourceMESA {
            device: Object::guest(gpu.device),
            semaphore: Object::guest(semaphore),
        });
    };
    // An import is temporary: the first wait takes it, and the second the signal from before
    // (Vulkan 1.4, 7.4.3). A third wait would never end.
    guest.submit_binary(&gpu, &[], &[semaphore]);
    import();
    guest.submit_binary(&gpu, &[semaphore], &[]);
    guest.submit_binary(&gpu, &[semaphore], &[]);
    guest.wait_fence(RING);
    // An export takes the payload, too, an imported one first.
    guest.submit_binary(&gpu, &[], &[semaphore]);
    import();
    export();
    export();
    guest.submit_binary(&gpu, &[], &[semaphore]);
    guest.submit_binary(&gpu, &[semaphore], &[]);
    guest.wait_fence(RING);
    // A destroyed semaphore leaves no payload to another with its handle.
    import();
    guest.send(&command::DestroySemaphore {
        device: Object::guest(gpu.device),
        semaphore: Object::guest(semaphore),
    });
    for _ in 0..8 {
        let next = guest.binary(&gpu);
        guest.submit_binary(&gpu, &[], &[next]);
        guest.submit_binary(&gpu, &[next], &[]);
    }
    guest.wait_fence(RING);
}

/// Firefox on zink does this. The guest's driver sends the commands when the recording has ended.
#[test]
fn a_buffer_that_is_destroyed_before_its_commands_arrive_is_used_all_the_same() {
    let renderer = renderer();
    let guest = Guest::new(&renderer, "late destruction");
    let gpu = guest.gpu();
    let destroy = |buffer| {
        bytes(&command::DestroyBuffer {
            device: Object::guest(gpu.device),
            buffer: Object::guest(buffer),
        })
    };
    let (buffer, memory) = guest.buffer(&gpu, SIZE);
    let (_, blob) = guest.blob(memory, SIZE).unwrap();
    let objects = renderer.counters().objects;
    guest.submit_bytes(&destroy(buffer));
    let (commands, _) = guest.fill(&gpu, buffer, 0x1234_5678);
    guest.submit(&gpu, &[commands]);
    guest.wait_fence(RING);
    let mut seen = [0; 4];
    blob.memory.read(0, &mut seen).unwrap();
    assert_eq!(u32::from_le_bytes(seen), 0x1234_5678);
    // The guest does not have it any more, and others take its place.
    assert!(
        renderer.counters().objects <= objects + 1,
        "with a command buffer and its pool"
    );
    for _ in 0..300 {
        let (other, _) = guest.buffer(&gpu, 64);
        guest.submit_bytes(&destroy(other));
    }
    let reason = guest.dies_of(destroy(buffer));
    assert!(reason.contains("does not exist"), "{reason}");
    drop((guest, blob));
    until_nothing_is_left(&renderer);
}

#[test]
fn a_physical_devices_command_of_an_extension_that_the_host_lacks_never_reaches_the_loader() {
    // Vulkan's loader has a function for it, which jumps to address 0 if the driver has none.
    let renderer = renderer();
    let guest = Guest::new(&renderer, "shading rates");
    let gpu = guest.gpu();
    let reason = guest.dies_of(bytes(&command::GetPhysicalDeviceFragmentShadingRatesKHR {
        physical_device: Object::guest(gpu.physical),
        p_fragment_shading_rate_count: &mut 0,
        p_fragment_shading_rates: Array::NULL,
    }));
    assert!(
        reason.contains("vkGetPhysicalDeviceFragmentShadingRatesKHR"),
        "{reason}"
    );
    // A query that lavapipe has is answered.
    let guest = Guest::new(&renderer, "time domains");
    let gpu = guest.gpu();
    let mut count = 0;
    let result = guest.call(command::GetPhysicalDeviceCalibrateableTimeDomainsKHR {
        physical_device: Object::guest(gpu.physical),
        p_time_domain_count: &mut count,
        p_time_domains: Array::NULL,
    });
    assert!(result == 0 && count > 0, "{result} {count}");
}

#[test]
fn a_blocked_context_delays_no_other() {
    let renderer = renderer();
    let blocked = Guest::new(&renderer, "blocked");
    let gpu = blocked.gpu();
    let semaphore = blocked.timeline(&gpu);
    let id = vk::Semaphore(semaphore);
    let never = 1;
    let mut info = vk::SemaphoreWaitInfo {
        semaphore_count: 1,
        p_semaphores: &raw const id,
        p_values: &raw const never,
        ..Default::default()
    };
    blocked.send(&command::WaitSemaphores {
        device: Object::guest(gpu.device),
        p_wait_info: &mut info,
        timeout: u64::MAX,
    });
    blocked.context.fence(0, 1);

    let other = Guest::new(&renderer, "other");
    let gpu = other.gpu();
    other.submit(&gpu, &[]);
    other.wait_fence(RING);
    let early = blocked.events.try_recv();
    assert!(early.is_err(), "{early:?}: it should still wait");
    // The end does not wait for what never comes.
    let last = blocked.end().recv_timeout(PATIENCE);
    assert!(matches!(last, Ok(Event::Fence(0, 1))));
    drop(other);
    until_nothing_is_left(&renderer);
}

#[test]
fn a_context_that_goes_leaves_nothing_behind() {
    let renderer = renderer();
    for round in 0..10 {
        let guest = Guest::new(&renderer, "short");
        let gpu = guest.gpu();
        let (buffer, memory) = guest.buffer(&gpu, SIZE);
        let (commands, _) = guest.fill(&gpu, buffer, round);
        guest.blob(memory, SIZE).unwrap();
        let semaphore = guest.timeline(&gpu);
        if round % 2 == 0 {
            // The GPU waits for something that never comes.
            guest.submit_wait(&gpu, semaphore, 1 << 20);
            guest.context.fence(RING, 77);
        }
        guest.submit(&gpu, &[commands]);
        guest.wait_fence(0);
        assert!(renderer.counters().objects >= 8);
        let events = guest.end();
        if round % 2 == 0 {
            let last = events.recv_timeout(PATIENCE);
            assert!(
                matches!(last, Ok(Event::Fence(RING, 77))),
                "nobody waits for ever"
            );
        }
    }
    let end = until_nothing_is_left(&renderer);
    assert_eq!(end.lost, 0);
}

#[test]
fn waits_for_any_value_of_a_timeline_end_with_their_context() {
    let renderer = renderer();
    // Further than 2^31 is beyond what Vulkan promises of all drivers.
    for values in [
        &[1 << 40][..],
        &[u64::MAX],
        &[1, 1 << 33, u64::MAX - 1, u64::MAX],
    ] {
        let guest = Guest::new(&renderer, "far");
        let gpu = guest.gpu();
        let semaphore = guest.timeline(&gpu);
        for value in values {
            guest.submit_wait(&gpu, semaphore, *value);
        }
        guest.context.fence(RING, 77);
        guest.wait_fence(0);
        let events = guest.end();
        let last = events.recv_timeout(PATIENCE);
        assert!(matches!(last, Ok(Event::Fence(RING, 77))), "{last:?}");
        let end = until_nothing_is_left(&renderer);
        assert_eq!((end.given_up, end.lost), (0, 0), "{values:?}");
    }
}

#[test]
fn queues_that_the_gpu_does_not_have_never_reach_the_driver_and_all_contexts_share_what_it_bears() {
    let renderer = renderer_with(RendererOptions {
        queues: Some(3),
        ..Default::default()
    });
    let guest = Guest::new(&renderer, "greedy");
    // Its device has one queue.
    let gpu = guest.gpu();
    for wrong in [
        &[(9, 1)][..],
        &[(u32::MAX, 1)],
        &[(0, 1000)],
        &[(0, 0)],
        &[(0, 1), (0, 1)],
    ] {
        let result = guest.try_queues(gpu.physical, wrong);
        assert_eq!(result, vk::Result::ERROR_INITIALIZATION_FAILED, "{wrong:?}");
    }
    let second = guest.id();
    let made = guest.create_with_queues(gpu.physical, second, &[(0, 1)]);
    assert_eq!(made, vk::Result::SUCCESS);
    let other = Guest::new(&renderer, "modest");
    let others = other.gpu();
    let full = other.try_queues(others.physical, &[(0, 1)]);
    assert_eq!(full, vk::Result::ERROR_TOO_MANY_OBJECTS);
    // When a device or a context ends, there is room again.
    guest.call(command::DestroyDevice {
        device: Object::guest(second),
    });
    let end = Instant::now() + PATIENCE;
    while other.try_queues(others.physical, &[(0, 1)]) != vk::Result::SUCCESS {
        assert!(Instant::now() < end, "a destroyed device keeps its queue");
    }
    guest.end();
    other.end();
    let end = until_nothing_is_left(&renderer);
    assert_eq!(end.lost, 0);
}

#[test]
fn destroying_device_and_instance_frees_what_they_own() {
    let renderer = renderer();
    let guest = Guest::new(&renderer, "tidy");
    for _ in 0..3 {
        let gpu = guest.gpu();
        guest.buffer(&gpu, SIZE);
        let alive = renderer.counters().objects;
        guest.send(&command::DestroyDevice {
            device: Object::guest(gpu.device),
        });
        guest.wait_fence(0);
        assert_eq!(
            renderer.counters().objects,
            2,
            "of {alive}: the instance and its GPU"
        );
        guest.send(&command::DestroyInstance {
            instance: Object::guest(gpu.instance),
        });
        guest.wait_fence(0);
        assert_eq!(renderer.counters().objects, 0);
    }
}

#[test]
fn a_lost_context_answers_everything_and_others_go_on() {
    let renderer = renderer();
    let victim = Guest::new(&renderer, "victim");
    let other = Guest::new(&renderer, "other");
    let gpu = other.gpu();
    let reason = victim.dies_of(vec![0xff; 64]);
    assert!(reason.contains("no command"), "{reason}");
    victim.wait_fence(0);
    victim.wait_fence(RING);
    assert!(matches!(victim.blob(0, 4096), Err(BlobError::Lost(_))));
    other.submit(&gpu, &[]);
    other.wait_fence(RING);
    assert_eq!(renderer.counters().lost, 1);
}

/// Mesa does not wait for these answers. A program destroys what it believes to have and continues.
#[test]
fn what_was_never_made_can_be_destroyed_and_its_use_names_the_cause() {
    let renderer = renderer();
    // More than lavapipe allows for a buffer.
    let huge = |guest: &Guest, device: u64| {
        let buffer = guest.id();
        guest.send(&command::CreateBuffer {
            device: Object::guest(device),
            p_create_info: &mut vk::BufferCreateInfo {
                size: 1 << 60,
                usage: vk::BufferUsageFlags::TRANSFER_DST,
                ..Default::default()
            },
            p_buffer: &mut vk::Buffer(buffer),
        });
        buffer
    };
    let guest = Guest::new(&renderer, "destroys");
    let gpu = guest.gpu();
    let buffer = huge(&guest, gpu.device);
    guest.send(&command::DestroyBuffer {
        device: Object::guest(gpu.device),
        buffer: Object::guest(buffer),
    });
    guest.buffer(&gpu, SIZE);

    let guest = Guest::new(&renderer, "uses");
    let gpu = guest.gpu();
    let (_, memory) = guest.buffer(&gpu, SIZE);
    let buffer = huge(&guest, gpu.device);
    let reason = guest.dies_of(bytes(&command::BindBufferMemory {
        device: Object::guest(gpu.device),
        buffer: Object::guest(buffer),
        memory: Object::guest(memory),
        memory_offset: 0,
    }));
    assert!(reason.contains("failed to make it"), "{reason}");

    // An id for which nothing was ever made is still no object.
    let guest = Guest::new(&renderer, "invents");
    let gpu = guest.gpu();
    let reason = guest.dies_of(bytes(&command::DestroyBuffer {
        device: Object::guest(gpu.device),
        buffer: Object::guest(guest.id()),
    }));
    assert!(reason.contains("does not exist"), "{reason}");
}

#[test]
fn objects_are_checked_for_existence_type_and_device() {
    let renderer = renderer();
    type Crime = fn(&Guest) -> Vec<u8>;
    let crimes: [(&str, Crime); 9] = [
        ("VkBuffer 0x7777 does not exist", |guest| {
            let gpu = guest.gpu();
            bytes(&command::DestroyBuffer {
                device: Object::guest(gpu.device),
                buffer: Object::guest(0x7777),
            })
        }),
        ("VkBuffer", |guest| {
            let gpu = guest.gpu();
            let (_, memory) = guest.buffer(&gpu, SIZE);
            bytes(&command::DestroyBuffer {
                device: Object::guest(gpu.device),
                buffer: Object::guest(memory),
            })
        }),
        ("destroyed twice", |guest| {
            let gpu = guest.gpu();
            let (buffer, _) = guest.buffer(&gpu, SIZE);
            let destroy = command::DestroyBuffer {
                device: Object::guest(gpu.device),
                buffer: Object::guest(buffer),
            };
            guest.send(&destroy);
            bytes(&destroy)
        }),
        ("VkBuffer", |guest| {
            let gpu = guest.gpu();
            let (buffer, _) = guest.buffer(&gpu, SIZE);
            let second = guest.device(gpu.physical);
            bytes(&command::DestroyBuffer {
                device: Object::guest(second),
                buffer: Object::guest(buffer),
            })
        }),
        // The decoder remembers the command buffer of the last command, until something is removed.
        ("VkCommandBuffer", |guest| {
            let gpu = guest.gpu();
            let (buffer, _) = guest.buffer(&gpu, SIZE);
            let (commands, pool) = guest.fill(&gpu, buffer, 1);
            let begin = bytes(&command::BeginCommandBuffer {
                command_buffer: Object::guest(commands),
                p_begin_info: &mut vk::CommandBufferBeginInfo::default(),
            });
            let free = bytes(&command::DestroyCommandPool {
                device: Object::guest(gpu.device),
                command_pool: Object::guest(pool),
            });
            let end = bytes(&command::EndCommandBuffer {
                command_buffer: Object::guest(commands),
            });
            [begin, free, end].concat()
        }),
        // It also remembers the device, until another is named.
        ("VkBuffer", |guest| {
            let gpu = guest.gpu();
            let (buffer, _) = guest.buffer(&gpu, SIZE);
            let (commands, _) = guest.fill(&gpu, buffer, 1);
            let second = guest.device(gpu.physical);
            let mut other = vk::Buffer(guest.id());
            let fill = |buffer| {
                bytes(&command::CmdFillBuffer {
                    command_buffer: Object::guest(commands),
                    dst_buffer: Object::guest(buffer),
                    dst_offset: 0,
                    size: 4,
                    data: 0,
                })
            };
            let begin = bytes(&command::BeginCommandBuffer {
                command_buffer: Object::guest(commands),
                p_begin_info: &mut vk::CommandBufferBeginInfo::default(),
            });
            let create = bytes(&command::CreateBuffer {
                device: Object::guest(second),
                p_create_info: &mut vk::BufferCreateInfo {
                    size: 64,
                    usage: vk::BufferUsageFlags::TRANSFER_DST,
                    ..Default::default()
                },
                p_buffer: &mut other,
            });
            [begin, fill(buffer), create, fill(buffer), fill(other.0)].concat()
        }),
        ("VkDevice", |guest| {
            guest.gpu();
            bytes(&command::DeviceWaitIdle {
                device: Object::guest(0),
            })
        }),
        ("is taken", |guest| {
            let gpu = guest.gpu();
            bytes(&command::CreateEvent {
                device: Object::guest(gpu.device),
                p_create_info: &mut vk::EventCreateInfo::default(),
                p_event: &mut vk::Event(gpu.queue),
            })
        }),
        ("ring index is bound", |guest| {
            let gpu = guest.gpu();
            let second = guest.device(gpu.physical);
            let timeline = vk::DeviceQueueTimelineInfoMESA {
                ring_idx: u32::from(RING),
                ..Default::default()
            };
            let mut info = vk::DeviceQueueInfo2 {
                p_next: (&raw const timeline).cast(),
                ..Default::default()
            };
            bytes(&command::GetDeviceQueue2 {
                device: Object::guest(second),
                p_queue_info: &mut info,
                p_queue: &mut vk::Queue(guest.id()),
            })
        }),
    ];
    for (expected, crime) in crimes {
        let guest = Guest::new(&renderer, "criminal");
        let stream = crime(&guest);
        let reason = guest.dies_of(stream);
        assert!(
            reason.contains(expected),
            "{reason} does not say {expected}"
        );
    }
    until_nothing_is_left(&renderer);
}
