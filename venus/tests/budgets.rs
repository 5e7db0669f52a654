//! What contexts may take of the host together, over the null driver: no context takes everything,
//! and many do not take more than one guest may have.
#![allow(
    clippy::duplicate_mod,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends with a panic"
)]

mod guest;
mod hostile;

use std::sync::Arc;
use std::time::{Duration, Instant};

use guest::settled::Settled;
use guest::{Gpu, Guest, PATIENCE, VenusGuest as _, heap, renderer_with};
use hesper_system::budget::Pool;
use hesper_venus::{
    Blob, BlobError, Budget, ContextEvents, DisplayServer, Error, GuestBudget, RendererOptions,
};
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

fn with_guest(guest: GuestBudget) -> Settled {
    renderer(RendererOptions {
        guest,
        ..Default::default()
    })
}

/// A front end that hears nothing.
struct Deaf;

impl ContextEvents for Deaf {
    fn fence_retired(&self, _ring: u8, _fence: u64) {}
    fn blob_created(&self, _resource: u32, _result: Result<Blob, BlobError>) {}
    fn lost(&self, _reason: &str) {}
}

/// `vkAllocateMemory`: the result, and the id.
fn allocate(guest: &Guest, gpu: &Gpu, size: u64) -> (vk::Result, u64) {
    let memory = guest.id();
    let mut info = vk::MemoryAllocateInfo {
        allocation_size: size,
        ..Default::default()
    };
    let result = guest.call(command::AllocateMemory {
        device: Object::guest(gpu.device),
        p_allocate_info: &mut info,
        p_memory: &mut vk::DeviceMemory(memory),
    });
    (vk::Result(result as i32), memory)
}

/// Allocates until it fails: how often, and the result.
fn allocate_all(guest: &Guest, gpu: &Gpu, size: u64) -> (u64, vk::Result) {
    let mut count = 0;
    loop {
        match allocate(guest, gpu, size).0 {
            vk::Result::SUCCESS => count += 1,
            refused => return (count, refused),
        }
    }
}

/// A command that waits for a ring that does nothing.
fn block(guest: &Guest) {
    let (resource, _) = guest.blob(0, 4096).unwrap();
    let mut info = vk::RingCreateInfoMESA {
        resource_id: resource,
        size: 1024,
        tail_offset: 64,
        status_offset: 128,
        buffer_offset: 192,
        buffer_size: 512,
        ..Default::default()
    };
    guest.send(&command::CreateRingMESA {
        ring: 77,
        p_create_info: &mut info,
    });
    guest.send(&command::WaitRingSeqnoMESA {
        ring: 77,
        seqno: 1 << 20,
    });
}

#[test]
fn bytes_that_wait_for_a_context_are_charged_until_they_are_consumed_and_bounded() {
    let renderer = with_guest(GuestBudget::default());
    let guest = Guest::new(&renderer, "hoarder");
    block(&guest);
    let pool = Pool::new(1 << 30);
    let submit = |bytes: usize| {
        let charge = pool.charge(bytes as u64).unwrap();
        guest.context.submit_charged(vec![0; bytes], charge);
    };
    submit(16 << 20);
    submit(16 << 20);
    assert_eq!(pool.used(), 32 * MIB, "they wait");
    // The mailbox has a bound of its own. What does not fit is freed at once.
    for _ in 0..24 {
        submit(64 << 20);
    }
    assert!(pool.used() <= 160 * MIB, "{} MiB wait", pool.used() >> 20);
    let reason = guest.dies();
    assert!(reason.contains("its budget allows"), "{reason}");
    let end = Instant::now() + PATIENCE;
    while pool.used() > 0 {
        assert!(Instant::now() < end, "{} bytes stay", pool.used());
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn calls_that_wait_are_counted_for_the_guest_and_every_context_has_some() {
    let renderer = with_guest(GuestBudget {
        queued: 8000,
        ..Default::default()
    });
    let fences = |guest: &Guest, count: u64| {
        for fence in 0..count {
            guest.context.fence(0, fence);
        }
    };
    let blocked: Vec<Guest> = (0..12).map(|_| Guest::new(&renderer, "blocked")).collect();
    for guest in &blocked {
        block(guest);
    }
    // 256 are its own, and 7000 the guest's.
    fences(&blocked[0], 7200);
    assert_eq!(renderer.counters().lost, 0);
    fences(&blocked[0], 200);
    assert_eq!(renderer.counters().lost, 1);
    fences(&blocked[1], 7200);
    for guest in &blocked[2..11] {
        fences(guest, 5000);
    }
    assert_eq!(renderer.counters().lost, 10);
    fences(&blocked[11], 200);
    assert_eq!(renderer.counters().lost, 10);
}

#[test]
fn a_guest_has_as_many_contexts_as_it_may_until_their_threads_have_ended() {
    let renderer = with_guest(GuestBudget {
        contexts: 3,
        ..Default::default()
    });
    let mut guests: Vec<Guest> = (0..3).map(|_| Guest::new(&renderer, "many")).collect();
    let more = || renderer.create_context(100, "more", DisplayServer::Unknown, Arc::new(Deaf));
    let refused = more().err();
    assert!(
        matches!(refused, Some(Error::TooManyContexts(3))),
        "{refused:?}"
    );
    drop(guests.pop());
    let end = Instant::now() + PATIENCE;
    while let Err(error) = more() {
        assert!(Instant::now() < end, "{error}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn threads_are_counted_for_the_guest_and_one_context_does_not_take_them_all() {
    let renderer = renderer(RendererOptions {
        budget: Budget {
            rings: 1024,
            ..Default::default()
        },
        guest: GuestBudget {
            threads: 80,
            ..Default::default()
        },
        ..Default::default()
    });
    let rings = |guest: &Guest| {
        let (resource, _) = guest.blob(0, 100 * 1024).unwrap();
        for index in 0..100 {
            let mut info = vk::RingCreateInfoMESA {
                resource_id: resource,
                offset: index * 1024,
                size: 1024,
                idle_timeout: 1000,
                tail_offset: 64,
                status_offset: 128,
                buffer_offset: 192,
                buffer_size: 512,
                ..Default::default()
            };
            guest.send(&command::CreateRingMESA {
                ring: 1 + index as u64,
                p_create_info: &mut info,
            });
        }
    };
    let greedy = Guest::new(&renderer, "greedy");
    rings(&greedy);
    let reason = greedy.dies();
    assert!(reason.contains("all programs of the guest"), "{reason}");
    let taken = reason
        .split_once("has ")
        .and_then(|(_, rest)| rest.split_once(" rings"))
        .and_then(|(count, _)| count.parse::<u32>().ok());
    // Four threads are its own, and 70 of the guest's 80: seven times what is left. One is no
    // ring's.
    assert_eq!(taken, Some(73), "{reason}");
    let modest = Guest::new(&renderer, "modest");
    modest.wait_fence(0);
}

#[test]
fn objects_are_counted_for_the_guest_and_one_context_does_not_take_them_all() {
    let renderer = with_guest(GuestBudget {
        objects: 32 << 10,
        ..Default::default()
    });
    let fences = |guest: &Guest, gpu: &Gpu, count: u64| {
        for _ in 0..count {
            let mut info = vk::FenceCreateInfo::default();
            guest.send(&command::CreateFence {
                device: Object::guest(gpu.device),
                p_create_info: &mut info,
                p_fence: &mut vk::Fence(guest.id()),
            });
        }
    };
    let greedy = Guest::new(&renderer, "greedy");
    let gpu = greedy.gpu();
    fences(&greedy, &gpu, 20_000);
    let reason = greedy.dies();
    assert!(reason.contains("Vulkan objects"), "{reason}");
    drop(greedy);
    let end = Instant::now() + PATIENCE;
    while renderer.counters().contexts > 0 {
        assert!(Instant::now() < end, "it does not end");
        std::thread::sleep(Duration::from_millis(1));
    }
    let greedy = Guest::new(&renderer, "greedy");
    let gpu = greedy.gpu();
    fences(&greedy, &gpu, 3000);
    greedy.wait_fence(0);
    let modest = Guest::new(&renderer, "modest");
    let gpu = modest.gpu();
    fences(&modest, &gpu, 900);
    modest.wait_fence(0);
    assert_eq!(renderer.counters().lost, 1);
}

#[test]
fn memory_objects_of_one_context_leave_descriptors_and_mappings_for_others() {
    let renderer = renderer(RendererOptions {
        descriptors: Some(1000),
        ..Default::default()
    });
    let greedy = Guest::new(&renderer, "greedy");
    let gpu = greedy.gpu();
    let (count, refused) = allocate_all(&greedy, &gpu, 1);
    assert_eq!(refused, vk::Result::ERROR_TOO_MANY_OBJECTS);
    // An eighth is for the process, an eighth of the rest for other contexts.
    assert!((700..=766).contains(&count), "{count}");
    let modest = Guest::new(&renderer, "modest");
    let gpu = modest.gpu();
    for _ in 0..50 {
        let (result, memory) = allocate(&modest, &gpu, 1);
        assert_eq!(result, vk::Result::SUCCESS);
        modest.blob(memory, 1).unwrap();
    }
}

#[test]
fn shared_memory_is_counted_for_the_guest_in_whole_pages() {
    let renderer = with_guest(GuestBudget {
        shared_bytes: 64 * MIB,
        ..Default::default()
    });
    let greedy = Guest::new(&renderer, "greedy");
    let mut count = 0;
    while greedy.blob(0, MIB - 1).is_ok() {
        count += 1;
    }
    assert!((50..56).contains(&count), "{count}");
    assert!(renderer.counters().shared_bytes <= 56 * MIB);
    let modest = Guest::new(&renderer, "modest");
    modest.blob(0, 4 * MIB).unwrap();
}

#[test]
fn gpu_memory_is_the_size_of_the_heaps_that_the_guest_sees_and_all_contexts_share_it() {
    let renderer = with_guest(GuestBudget {
        device_memory: Some(64 * MIB),
        ..Default::default()
    });
    let greedy = Guest::new(&renderer, "greedy");
    let gpu = greedy.gpu();
    let before = heap(&greedy, &gpu);
    assert_eq!((before.0, before.2), (64 * MIB, 0));
    assert_eq!(before.1, 56 * MIB, "seven eighths");
    let (count, refused) = allocate_all(&greedy, &gpu, MIB);
    assert_eq!(refused, vk::Result::ERROR_OUT_OF_DEVICE_MEMORY);
    assert_eq!(count, 56);
    assert_eq!(heap(&greedy, &gpu), (64 * MIB, 56 * MIB, 56 * MIB));
    let modest = Guest::new(&renderer, "modest");
    let gpu = modest.gpu();
    assert_eq!(heap(&modest, &gpu), (64 * MIB, 7 * MIB, 0));
    let (count, _) = allocate_all(&modest, &gpu, MIB);
    assert_eq!(count, 7);
    drop(greedy);
    let end = Instant::now() + PATIENCE;
    while allocate(&modest, &gpu, 32 * MIB).0 != vk::Result::SUCCESS {
        assert!(Instant::now() < end, "it is not given back");
        std::thread::sleep(Duration::from_millis(1));
    }
}
