//! A greedy guest: each documented limit gives an error and harms nobody else.

use std::time::Instant;

use hesper_mock_venus::VenusGuest as _;
use hesper_venus_protocol::{command, vk};
use hesper_vhost::budget;
use hesper_vhost::testing::Request;
use hesper_vhost::wire;

use crate::Served;
use crate::guest::{CAPSET_VENUS, Guest, Vm};
use hesper_mock_frontend::{Ticket, eventually};

/// Another context does what contexts do.
#[track_caller]
fn another_context_works(vm: &Vm) {
    let other = Guest::new(vm, 60_000);
    let gpu = other.gpu();
    other.renders(&gpu, 0x77);
    vm.machine().ok(&Request::destroy_context(60_000));
}

/// Sends `request(0)`, `request(1)`, … until one is refused. Returns how many were accepted, and
/// the error.
fn until_refused(vm: &Vm, limit: usize, request: impl Fn(u32) -> Request) -> (usize, u32) {
    let mut machine = vm.machine();
    let mut done = 0;
    for chunk in (0..2 * limit as u32).collect::<Vec<_>>().chunks(64) {
        let tickets: Vec<Ticket> = chunk.iter().map(|n| machine.post(&request(*n))).collect();
        for ticket in tickets {
            let kind = machine.answer(ticket).kind();
            if kind & 0xff00 != 0x1100 {
                return (done, kind);
            }
            done += 1;
        }
    }
    panic!("{done} were made, and no end");
}

#[test]
fn contexts_end_at_their_limit_and_all_end_with_the_vm() {
    // A thousand processes take minutes to load a driver.
    let arguments = ["--display=headless", "--size=640x480", "--isolate=off"];
    let served = Served::start_with(&arguments, None);
    let vm = served.boot();
    let create = |n| Request::create_context(n + 1, CAPSET_VENUS, "many");
    let refused = until_refused(&vm, budget::CONTEXTS, create);
    assert_eq!(refused, (budget::CONTEXTS, wire::RESP_ERR_OUT_OF_MEMORY));
    served.says("limit of 1024 contexts");
    vm.machine().ok(&Request::destroy_context(1));
    // A context counts until its threads have ended.
    let again = Request::create_context(1, CAPSET_VENUS, "again");
    eventually("the place is free", || {
        vm.machine().ask(&again).kind() == wire::RESP_OK_NODATA
    });
    let guest = Guest::of(&vm, 1);
    let gpu = guest.gpu();
    guest.renders(&gpu, 0x77);
    drop(guest);
    served.leaves_nothing(vm);
}

#[test]
fn a_hundred_contexts_that_are_made_at_once_hold_nobody_up_and_all_end_with_the_vm() {
    const MANY: u32 = 100;
    let served = Served::start();
    let vm = served.boot();
    let create = |n| Request::create_context(n, CAPSET_VENUS, "many");
    for n in 1..=MANY {
        vm.machine().ok(&create(n));
    }
    // Most have not even started: they wait for their turn to load the driver.
    for n in 1..MANY {
        vm.machine().ok(&Request::destroy_context(n));
    }
    let last = Guest::of(&vm, MANY);
    last.renders(&last.gpu(), 0x77);
    drop(last);
    another_context_works(&vm);
    served.leaves_nothing(vm);
}

#[test]
fn contexts_lost_in_a_loop_fill_no_log_and_all_end() {
    // Each process of a context has to load its driver.
    for (option, losses) in [("--isolate=off", 1000), ("--isolate=on", 60)] {
        lose_in_a_loop(option, losses);
    }
}

fn lose_in_a_loop(option: &str, losses: u64) {
    let served = Served::start_with(&["--display=headless", option], None);
    let vm = served.boot();
    let start = Instant::now();
    for fence in 1..=losses {
        let mut machine = vm.machine();
        machine.ok(&Request::create_context(1, CAPSET_VENUS, "loser"));
        // No command has this number.
        let nonsense = Request::submit(1, &[0xff; 8]);
        machine.ok(&nonsense.fence(fence));
        machine.ok(&Request::destroy_context(1));
    }
    another_context_works(&vm);
    let periods = 1 + start.elapsed().as_secs() as usize / 10;
    let log = served.hesper.process.errors();
    let lines = log.lines().filter(|line| line.contains("is lost")).count();
    assert!(
        (20..=20 * periods).contains(&lines),
        "{lines} lines in {periods} periods:\n{log}"
    );
    served.leaves_nothing(vm);
}

#[test]
fn blobs_end_at_their_limit_and_all_end_with_the_vm() {
    let served = Served::start();
    let vm = served.boot();
    let guest = Guest::new(&vm, 1);
    let blob = |n| Request::host_blob(1, n + 10, 0, 4096);
    let (made, kind) = until_refused(&vm, budget::RESOURCES, blob);
    assert_eq!(kind, wire::RESP_ERR_OUT_OF_MEMORY);
    // The limit is the device's, or the system's limit on descriptors, which may come first.
    assert!(made > 10_000, "{made}");
    served.says("RESOURCE_CREATE_BLOB");
    for resource in 10..10 + made as u32 {
        vm.machine().post(&Request::unref(resource));
    }
    another_context_works(&vm);
    guest.version();
    drop(guest);
    served.leaves_nothing(vm);
}

#[test]
fn mapped_blobs_end_at_their_limit() {
    let served = Served::start();
    let vm = served.boot();
    let guest = Guest::new(&vm, 1);
    let count = budget::MAPPINGS as u32;
    for n in 0..=count {
        vm.machine().post(&Request::host_blob(1, n + 10, 0, 4096));
    }
    let map = |n| Request::map_blob(n + 10, (1 << 30) + u64::from(n) * 4096);
    let (made, kind) = until_refused(&vm, budget::MAPPINGS, map);
    // One mapping is the memory for replies.
    assert_eq!(made, budget::MAPPINGS - 1);
    assert_eq!(kind, wire::RESP_ERR_OUT_OF_MEMORY);
    served.says("limit of 4096 mapped blobs");
    for n in 0..8 {
        vm.machine().ok(&Request::unmap_blob(n + 10));
    }
    another_context_works(&vm);
    drop(guest);
    served.leaves_nothing(vm);
}

#[test]
fn bytes_of_blobs_end_at_the_limit_of_their_context() {
    let served = Served::start();
    let vm = served.boot();
    let guest = Guest::new(&vm, 1);
    let gigabytes = |resource, count: u64| Request::host_blob(1, resource, 0, count << 30);
    vm.machine().ok(&gigabytes(10, 40));
    let kind = vm.machine().code(&gigabytes(11, 40));
    assert_eq!(kind, wire::RESP_ERR_OUT_OF_MEMORY);
    let kind = vm.machine().code(&gigabytes(11, 1 << 20));
    assert_eq!(kind, wire::RESP_ERR_OUT_OF_MEMORY);
    vm.machine().ok(&Request::unref(10));
    vm.machine().ok(&gigabytes(11, 40));
    another_context_works(&vm);
    drop(guest);
    served.leaves_nothing(vm);
}

#[test]
fn rings_end_at_their_limit_with_their_context_and_no_other() {
    let served = Served::start_with(&["--display=headless", "--rings=64"], None);
    let vm = served.boot();
    let guest = Guest::new(&vm, 1);
    let mapped = guest.map(0, 8192);
    for ring in 0..100 {
        let mut info = vk::RingCreateInfoMESA {
            resource_id: mapped.resource,
            size: 4288,
            idle_timeout: 1000,
            tail_offset: 64,
            status_offset: 128,
            buffer_offset: 192,
            buffer_size: 4096,
            ..Default::default()
        };
        guest.send(&command::CreateRingMESA {
            ring: ring + 1,
            p_create_info: &mut info,
        });
    }
    guest.wait_fence(0);
    served.says("more than 64 rings");
    let threads = served.hesper.process.usage().threads;
    assert!(threads < served.idle.threads + 80, "{threads} threads");
    another_context_works(&vm);
    vm.machine().ok(&Request::destroy_context(1));
    eventually("the rings have ended", || {
        served.hesper.process.usage().threads <= served.idle.threads + 3
    });
    drop(guest);
    served.leaves_nothing(vm);
}
