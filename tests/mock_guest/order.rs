//! Order of submissions, blobs and fences: the fences of a ring retire in order, those of two rings
//! independently.

use std::time::Duration;

use hesper_mock_venus::{Gpu, RING, VenusGuest as _, bytes};
use hesper_venus_protocol::runtime::Object;
use hesper_venus_protocol::{command, vk};
use hesper_vhost::testing::Request;
use hesper_vhost::wire;

use crate::Served;
use crate::guest::Guest;
use hesper_mock_frontend::{CONTROL, Ticket};

const SIZE: u64 = 64 << 10;

/// A second device of the same GPU, whose queue is bound to another ring.
fn second(guest: &Guest, first: &Gpu, ring: u8) -> Gpu {
    let device = guest.device(first.physical);
    Gpu {
        instance: first.instance,
        physical: first.physical,
        device,
        queue: guest.queue(device, ring.into()),
    }
}

/// Sends the signal that lets a queue go on, without waiting for it.
fn signal(guest: &Guest, gpu: &Gpu, semaphore: u64, value: u64) {
    let mut info = vk::SemaphoreSignalInfo {
        semaphore: vk::Semaphore(semaphore),
        value,
        ..Default::default()
    };
    guest.send(&command::SignalSemaphore {
        device: Object::guest(gpu.device),
        p_signal_info: &mut info,
    });
}

#[test]
fn memory_blob_map_work_and_fence_posted_without_waiting_are_done_in_that_order() {
    let served = Served::start();
    let vm = served.boot();
    let guest = Guest::new(&vm, 1);
    let gpu = guest.gpu();
    let visible = guest.visible_type(&gpu);
    for round in 0..50_u32 {
        let (memory, buffer) = (guest.id(), guest.id());
        let mut info = vk::MemoryAllocateInfo {
            allocation_size: SIZE,
            memory_type_index: visible,
            ..Default::default()
        };
        let mut stream = bytes(&command::AllocateMemory {
            device: Object::guest(gpu.device),
            p_allocate_info: &mut info,
            p_memory: &mut vk::DeviceMemory(memory),
        });
        let mut info = vk::BufferCreateInfo {
            size: SIZE,
            usage: vk::BufferUsageFlags::TRANSFER_DST,
            ..Default::default()
        };
        stream.extend(bytes(&command::CreateBuffer {
            device: Object::guest(gpu.device),
            p_create_info: &mut info,
            p_buffer: &mut vk::Buffer(buffer),
        }));
        stream.extend(bytes(&command::BindBufferMemory {
            device: Object::guest(gpu.device),
            buffer: Object::guest(buffer),
            memory: Object::guest(memory),
            memory_offset: 0,
        }));
        // The memory object, its blob, the blob's place, work and fence are all posted without
        // waiting.
        guest.submit_bytes(&stream);
        let (resource, offset, blob, map) = {
            let mut machine = vm.machine();
            let (resource, offset) = (machine.resource(), machine.offset(SIZE));
            let blob = machine.post(&Request::host_blob(1, resource, memory, SIZE));
            machine.post(&Request::attach(1, resource));
            let map = machine.post(&Request::map_blob(resource, offset));
            (resource, offset, blob, map)
        };
        let pattern = 0x5a00_0000 + round;
        let (commands, _) = guest.fill(&gpu, buffer, pattern);
        guest.submit(&gpu, &[commands]);
        let fence = guest.fence(RING);
        let mut machine = vm.machine();
        assert_eq!(machine.answer(fence).kind(), wire::RESP_OK_NODATA);
        assert_eq!(machine.answer(blob).kind(), wire::RESP_OK_NODATA);
        assert_eq!(machine.answer(map).kind(), wire::RESP_OK_MAP_INFO);
        // No flush and no retry: the fence says that the data is there.
        let seen = machine.window().read(offset, SIZE as usize);
        let expected = pattern.to_le_bytes();
        assert!(
            seen.chunks(4).all(|word| word == expected),
            "round {round}: the fence came before the work"
        );
        machine.ok(&Request::unmap_blob(resource));
        machine.ok(&Request::unref(resource));
    }
    assert!(vm.machine().window().barriers() >= 50);
    drop(guest);
    served.leaves_nothing(vm);
}

#[test]
fn rings_are_answered_in_any_order_and_the_fences_of_each_in_theirs() {
    let served = Served::start();
    let vm = served.boot();
    let guest = Guest::new(&vm, 1);
    let blocked = guest.gpu();
    let free = second(&guest, &blocked, RING + 1);
    let semaphore = guest.timeline(&blocked);
    guest.submit_wait(&blocked, semaphore, 1);
    vm.machine().answered();
    let early: Vec<_> = (0..20).map(|_| guest.fence(RING)).collect();
    guest.submit(&free, &[]);
    let late: Vec<_> = (0..20).map(|_| guest.fence(RING + 1)).collect();
    vm.machine().answer(*late.last().unwrap());
    // The context's own timeline waits for neither.
    guest.wait_fence(0);
    let answered = vm.machine().answered();
    let of = |fences: &[Ticket]| -> Vec<_> {
        let own = answered.iter().filter(|ticket| fences.contains(ticket));
        own.copied().collect()
    };
    assert_eq!(of(&late), late, "in order");
    assert_eq!(of(&early), [], "their queue is blocked");

    signal(&guest, &blocked, semaphore, 1);
    vm.machine().answer(*early.last().unwrap());
    let answered = vm.machine().answered();
    let own: Vec<_> = answered
        .into_iter()
        .filter(|ticket| early.contains(ticket))
        .collect();
    assert_eq!(own, early, "in order");
    drop(guest);
    served.leaves_nothing(vm);
}

#[test]
fn a_reset_answers_nothing_of_before_and_loses_nothing_of_after() {
    let served = Served::start();
    let vm = served.boot();
    for round in 0..5 {
        let guest = Guest::new(&vm, 1);
        let gpu = guest.gpu();
        guest.renders(&gpu, 7 + round);
        let semaphore = guest.timeline(&gpu);
        guest.submit_wait(&gpu, semaphore, 1);
        let held: Vec<_> = (0..10).map(|_| guest.fence(RING)).collect();
        std::thread::sleep(Duration::from_millis(5));
        let mut machine = vm.machine();
        assert!(held.iter().all(|ticket| !machine.is_answered(*ticket)));
        // With mappings, held chains and a blocked queue. A late answer would hit an unknown head,
        // and panic.
        machine.reset();
    }
    let guest = Guest::new(&vm, 1);
    let gpu = guest.gpu();
    guest.renders(&gpu, 99);
    assert_eq!(vm.machine().open(), 0, "every chain was answered");
    drop(guest);
    served.leaves_nothing(vm);
}

#[test]
fn a_large_submission_in_scattered_pieces_arrives_whole() {
    let served = Served::start();
    let vm = served.boot();
    let guest = Guest::new(&vm, 1);
    let gpu = guest.gpu();
    let (buffer, memory) = guest.buffer(&gpu, SIZE);
    let mapped = guest.map(memory, SIZE);
    let (commands, _) = guest.command_buffer(&gpu);
    let mut stream = bytes(&command::BeginCommandBuffer {
        command_buffer: Object::guest(commands),
        p_begin_info: &mut vk::CommandBufferBeginInfo::default(),
    });
    // A command for each word, so that a lost or misplaced byte shows.
    for word in 0..SIZE / 4 {
        stream.extend(bytes(&command::CmdFillBuffer {
            command_buffer: Object::guest(commands),
            dst_buffer: Object::guest(buffer),
            dst_offset: word * 4,
            size: 4,
            data: word as u32 * 0x9e37,
        }));
    }
    stream.extend(bytes(&command::EndCommandBuffer {
        command_buffer: Object::guest(commands),
    }));
    assert!(stream.len() > 600 << 10, "{} bytes", stream.len());
    let request = Request::submit(1, &stream);
    let ticket = vm.machine().post_cut(CONTROL, &request, 3333);
    vm.machine().answer(ticket);
    guest.submit(&gpu, &[commands]);
    guest.wait_fence(RING);
    let seen = vm.machine().window().read(mapped.offset, SIZE as usize);
    for (word, bytes) in (0_u32..).zip(seen.chunks(4)) {
        assert_eq!(bytes, (word * 0x9e37).to_le_bytes(), "word {word}");
    }
    drop(guest);
    served.leaves_nothing(vm);
}

#[test]
fn fences_of_two_contexts_with_the_same_numbers_are_answered_each_for_its_own() {
    let served = Served::start();
    let vm = served.boot();
    let guests = [1, 2].map(|context| Guest::new(&vm, context));
    let gpus = guests.each_ref().map(|guest| guest.gpu());
    let semaphores = [0, 1].map(|one| guests[one].timeline(&gpus[one]));
    for round in 1..20_u64 {
        // Each guest counts its fences alike, so both have the same numbers on the same rings.
        let fences = [0, 1].map(|one| {
            guests[one].submit_wait(&gpus[one], semaphores[one], round);
            [0, 1, 2].map(|_| guests[one].fence(RING))
        });
        let (first, second) = match round % 2 {
            0 => (0, 1),
            _ => (1, 0),
        };
        signal(&guests[first], &gpus[first], semaphores[first], round);
        for ticket in fences[first] {
            let answer = vm.machine().answer(ticket);
            assert_eq!(answer.kind(), wire::RESP_OK_NODATA);
        }
        // The other context is served, but its queue waits still.
        guests[second].wait_fence(0);
        for ticket in fences[second] {
            assert!(!vm.machine().is_answered(ticket), "round {round}");
        }
        signal(&guests[second], &gpus[second], semaphores[second], round);
        for ticket in fences[second] {
            vm.machine().answer(ticket);
        }
    }
    drop(guests);
    served.leaves_nothing(vm);
}
