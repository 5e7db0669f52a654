//! A stall and a fault are local: other contexts, 2D and the cursor go on.

use std::time::Duration;

use hesper_mock_venus::{FATAL, Gpu, RING, Ring, VenusGuest as _, bytes, harmful, shader};
use hesper_venus_protocol::runtime::Object;
use hesper_venus_protocol::{command, vk};
use hesper_vhost::screen::Rect;
use hesper_vhost::testing::Request;
use hesper_vhost::wire;

use crate::Served;
use crate::guest::{Guest, Vm};
use hesper_mock_frontend::{CURSOR, PIXELS, Ticket, eventually};

const WIDTH: u32 = 64;
const HEIGHT: u32 = 48;

/// Draws one colour over the whole screen, as the kernel's console does, and checks the screen.
#[track_caller]
fn console_draws(served: &Served, vm: &Vm, blue: u8) {
    let whole = Rect {
        x: 0,
        y: 0,
        width: WIDTH,
        height: HEIGHT,
    };
    let bytes = WIDTH * HEIGHT * 4;
    let mut machine = vm.machine();
    let id = machine.resource();
    machine.write(PIXELS, &[blue, 2, 3, 0].repeat(bytes as usize / 4));
    machine.ok(&Request::create_2d(
        id,
        wire::FORMAT_B8G8R8X8,
        WIDTH,
        HEIGHT,
    ));
    machine.ok(&Request::attach_backing(id, &[(PIXELS, bytes)]));
    machine.ok(&Request::set_scanout(0, id, whole));
    machine.ok(&Request::transfer(id, whole, 0));
    // Fenced, so it is answered when the screen has read it.
    machine.ok(&Request::flush(id, whole).fence(1));
    let cursor = machine.post_cut(
        CURSOR,
        &Request::move_cursor(0, u32::from(blue), 5),
        usize::MAX,
    );
    machine.answer(cursor);
    drop(machine);
    eventually("the console's picture is shown", || {
        let shot = served.hesper.screenshot(0);
        (shot.width, shot.height) == (WIDTH, HEIGHT)
            && shot.bounds_of([blue, 2, 3]).map(|bounds| bounds.size()) == Some((WIDTH, HEIGHT))
    });
    vm.machine().ok(&Request::unref(id));
}

/// Everything but the stalled context goes on, and the stalled context's fence is still open.
#[track_caller]
fn others_go_on(served: &Served, vm: &Vm, stalled: &[Ticket]) {
    let other = Guest::new(vm, 2);
    let gpu = other.gpu();
    for round in 0..10 {
        other.renders(&gpu, 0x100 + round);
    }
    console_draws(served, vm, 77);
    let third = Guest::new(vm, 3);
    third.version();
    console_draws(served, vm, 78);
    for ticket in stalled {
        assert!(
            !vm.machine().is_answered(*ticket),
            "the context was not stalled at all"
        );
    }
    for context in [2, 3] {
        vm.machine().ok(&Request::destroy_context(context));
    }
}

#[test]
fn a_context_that_waits_for_a_position_that_never_comes_delays_nobody() {
    let served = Served::start();
    let vm = served.boot();
    let guest = Guest::new(&vm, 1);
    let gpu = guest.gpu();
    let ring = Ring::new(&guest, 7);
    guest.send(&command::WaitRingSeqnoMESA {
        ring: 7,
        seqno: 4096,
    });
    // Behind the wait: work, fences of both kinds, a blob, and a map of it.
    guest.submit(&gpu, &[]);
    let mut stalled = vec![guest.fence(RING), guest.fence(0)];
    let resource = vm.machine().resource();
    stalled.push(vm.machine().post(&Request::host_blob(1, resource, 0, 4096)));
    let map = Request::map_blob(resource, 1 << 30);
    stalled.push(vm.machine().post(&map));
    others_go_on(&served, &vm, &stalled);
    assert_eq!(ring.head(), 0);
    // The context's end answers all that waits, the blob with an error.
    vm.machine().ok(&Request::destroy_context(1));
    for (ticket, kind) in stalled.iter().zip([
        wire::RESP_OK_NODATA,
        wire::RESP_OK_NODATA,
        wire::RESP_ERR_UNSPEC,
        wire::RESP_ERR_INVALID_RESOURCE_ID,
    ]) {
        assert_eq!(vm.machine().answer(*ticket).kind(), kind);
    }
    drop(ring);
    drop(guest);
    served.leaves_nothing(vm);
}

#[test]
fn a_full_ring_that_stands_still_delays_nobody() {
    let served = Served::start();
    let vm = served.boot();
    let guest = Guest::new(&vm, 1);
    guest.gpu();
    let mut ring = Ring::new(&guest, 7);
    ring.write(&bytes(&command::WaitVirtqueueSeqnoMESA { seqno: 1 }));
    let query = bytes(&command::EnumerateInstanceVersion {
        p_api_version: &mut 0,
    });
    while ring.room() >= query.len() {
        ring.write(&query);
    }
    others_go_on(&served, &vm, &[]);
    assert_eq!(ring.head(), 0, "the ring stands");
    // The ring does not stall that context's virtqueue either, which lets the ring go on.
    guest.version();
    guest.send(&command::SubmitVirtqueueSeqnoMESA { ring: 7, seqno: 1 });
    ring.wait();
    drop(ring);
    drop(guest);
    served.leaves_nothing(vm);
}

#[test]
fn a_driver_call_that_does_not_return_and_a_queue_that_does_not_get_on_delay_nobody() {
    let served = Served::start();
    let vm = served.boot();
    let guest = Guest::new(&vm, 1);
    let gpu = guest.gpu();
    let semaphore = guest.timeline(&gpu);
    guest.submit_wait(&gpu, semaphore, 1);
    let mut stalled = vec![guest.fence(RING)];
    let (id, value) = (vk::Semaphore(semaphore), 1);
    let mut info = vk::SemaphoreWaitInfo {
        semaphore_count: 1,
        p_semaphores: &raw const id,
        p_values: &raw const value,
        ..Default::default()
    };
    guest.send(&command::WaitSemaphores {
        device: Object::guest(gpu.device),
        p_wait_info: &mut info,
        timeout: u64::MAX,
    });
    stalled.push(guest.fence(0));
    others_go_on(&served, &vm, &stalled);
    vm.machine().ok(&Request::destroy_context(1));
    for ticket in stalled {
        vm.machine().answer(ticket);
    }
    drop(guest);
    served.leaves_nothing(vm);
}

#[test]
fn a_fatal_context_answers_its_fences_refuses_blobs_and_delays_nobody() {
    let served = Served::start();
    let vm = served.boot();
    let guest = Guest::new(&vm, 1);
    guest.gpu();
    // An instance that does not exist.
    guest.send(&command::DestroyInstance {
        instance: Object::guest(4711),
    });
    guest.wait_fence(0);
    guest.wait_fence(RING);
    let refused = Request::host_blob(1, 999, 0, 4096);
    assert_eq!(vm.machine().code(&refused), wire::RESP_ERR_UNSPEC);
    guest.send(&command::DestroyInstance {
        instance: Object::guest(4711),
    });
    guest.wait_fence(0);
    others_go_on(&served, &vm, &[]);
    served.says("RESOURCE_CREATE_BLOB 999");
    let log = served.hesper.process.errors();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("lost")).collect();
    assert_eq!(
        lines.len(),
        2,
        "one line for the loss, one for the blob:\n{log}"
    );
    assert!(
        lines[0].contains("vkDestroyInstance") && lines[0].contains('1'),
        "which command of which context? {}",
        lines[0]
    );
    let status = served.hesper.control("status");
    assert!(
        status.contains("lost Vulkan: mock-1") && status.contains("vkDestroyInstance"),
        "a person is told, too: {status}"
    );
    // Its id is free for the next context.
    vm.machine().ok(&Request::destroy_context(1));
    std::thread::sleep(Duration::from_millis(5));
    let next = Guest::new(&vm, 1);
    next.renders(&next.gpu(), 5);
    drop((guest, next));
    served.leaves_nothing(vm);
}

#[test]
fn a_context_whose_process_crashes_retires_its_fences_in_order_and_delays_nobody() {
    let served = Served::start();
    let vm = served.boot();
    let guest = Guest::new(&vm, 1);
    let gpu = guest.gpu();
    let ring = Ring::new(&guest, 7);
    let before = guest.map(0, 4096);
    // Two queues wait: one of this context, one of another.
    let stall = |guest: &Guest, gpu: &Gpu| {
        let semaphore = guest.timeline(gpu);
        guest.submit_wait(gpu, semaphore, 1);
        [0, 1, 2].map(|_| guest.fence(RING))
    };
    let other = Guest::new(&vm, 4);
    let other_fences = stall(&other, &other.gpu());
    let fences = stall(&guest, &gpu);
    // A third device's shader crashes the driver.
    let device = guest.device(gpu.physical);
    let crashing = Gpu {
        device,
        queue: guest.queue(device, u32::from(RING) + 1),
        ..gpu
    };
    let run = shader::run(
        &crashing,
        || guest.id(),
        harmful::WILD,
        16_u64.to_le_bytes(),
    );
    guest.submit_bytes(&run.whole());
    let last = guest.fence(RING + 1);
    for ticket in fences.into_iter().chain([last, guest.fence(0)]) {
        let answer = vm.machine().answer(ticket);
        assert_eq!(answer.kind(), wire::RESP_OK_NODATA);
    }
    ring.until("the ring is fatal", || ring.status() & FATAL != 0);
    let refused = Request::host_blob(1, 999, 0, 4096);
    assert_eq!(vm.machine().code(&refused), wire::RESP_ERR_UNSPEC);
    // Memory that it made before stays.
    vm.machine().window().write(before.offset, &[7; 8]);
    assert_eq!(vm.machine().window().read(before.offset, 8), [7; 8]);
    others_go_on(&served, &vm, &other_fences);
    served.says("RESOURCE_CREATE_BLOB 999");
    let log = served.hesper.process.errors();
    let lines: Vec<_> = log
        .lines()
        .filter(|line| line.contains("ERROR") && line.contains("is lost"))
        .collect();
    assert_eq!(lines.len(), 1, "{log}");
    assert!(
        lines[0].contains("SIGSEGV") && lines[0].contains("mock-1"),
        "{}",
        lines[0]
    );
    let status = served.hesper.control("status");
    assert!(status.contains("lost Vulkan: mock-1"), "{status}");
    // Its id is free for the next context.
    vm.machine().ok(&Request::destroy_context(1));
    let next = Guest::new(&vm, 1);
    next.renders(&next.gpu(), 5);
    drop(ring);
    drop((guest, other, next));
    served.leaves_nothing(vm);
}

#[test]
fn the_guests_memory_and_blobs_are_left_out_of_core_dumps() {
    let served = Served::start();
    let vm = served.boot();
    let _guest = Guest::new(&vm, 1);
    let smaps = format!("/proc/{}/smaps", served.hesper.process.id());
    let smaps = std::fs::read_to_string(smaps).unwrap();
    let mut name = "";
    let mut seen = [0; 2];
    for line in smaps.lines() {
        if let Some((_, file)) = line.split_once("/memfd:") {
            name = file.split(' ').next().unwrap();
        } else if let Some(flags) = line.strip_prefix("VmFlags:") {
            let kinds = ["guest", "hesper-venus"];
            if let Some(kind) = kinds.iter().position(|kind| name == *kind) {
                seen[kind] += 1;
                assert!(flags.split(' ').any(|flag| flag == "dd"), "{name}: {flags}");
            }
            name = "";
        }
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}: {smaps}");
}
