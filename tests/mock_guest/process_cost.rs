//! What a process for each context costs a VM: with `--isolate=on` and `off`, in turns. Runs only
//! on demand:
//!
//! ```text
//! HESPER_COST='new=/path/to/hesper' \
//!     cargo test --test mock_guest -- --ignored --nocapture process_cost
//! ```
//!
//! The CPU time is that of all of Hesper's processes.

use std::process::Stdio;
use std::time::{Duration, Instant};

use hesper_mock_venus::{RING, VenusGuest as _};
use hesper_vhost::testing::Request;

use crate::cost::{cpu, median};
use crate::guest::{Guest, Vm};
use crate::support::process::{Process, in_environment};
use hesper_mock_frontend::{Machine, eventually};

/// How often each is measured.
const RUNS: usize = 9;
/// How many steps of each kind a measurement makes.
const STEPS: u32 = 1000;
/// How many contexts there are when memory is measured.
const CONTEXTS: u32 = 8;

const NAMES: [&str; 4] = [
    "a fence of the context, µs",
    "submit nothing and a fence of the queue, µs",
    "a call with a reply, µs",
    "a blob made, mapped, unmapped and freed, µs",
];

/// What was measured of one server.
#[derive(Default)]
struct Measured {
    /// For each kind of [`NAMES`]: elapsed microseconds, and those of the CPU.
    steps: [[f64; 2]; 4],
    /// From the context's start to its device, and the same for the next one, in milliseconds.
    starts: [f64; 2],
    /// From the context's end to the end of its threads and processes, in milliseconds.
    end: f64,
    /// Proportional memory of one more context with a device, in MiB.
    memory: f64,
}

/// All processes of a server.
fn all(server: &Process) -> Vec<u32> {
    let mut all = server.descendants();
    all.push(server.id());
    all
}

/// Proportional memory of processes in KiB.
fn memory(processes: &[u32]) -> f64 {
    let of = |id: &u32| -> f64 {
        let rollup = std::fs::read_to_string(format!("/proc/{id}/smaps_rollup"));
        let rollup = rollup.unwrap_or_default();
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let size = line.and_then(|line| line.split_whitespace().next());
        size.map_or(0.0, |size| size.parse().unwrap())
    };
    processes.iter().map(of).sum()
}

fn threads(server: &Process) -> usize {
    let of = |id: &u32| std::fs::read_dir(format!("/proc/{id}/task")).map_or(0, Iterator::count);
    all(server).iter().map(of).sum()
}

/// Waits until all processes do nothing.
fn rest(server: &Process) {
    let mut last = -1;
    eventually("the server rests", || {
        let spent = all(server).iter().map(|id| cpu(*id)).sum();
        std::thread::sleep(Duration::from_millis(300));
        std::mem::replace(&mut last, spent) == spent
    });
}

fn milliseconds(begin: Instant) -> f64 {
    begin.elapsed().as_secs_f64() * 1000.0
}

fn measure(program: &str, isolate: &str) -> Measured {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("gpu.sock");
    let child = in_environment(program)
        .args(["--display=headless", isolate, "--socket-path"])
        .arg(&socket)
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut server = Process::new("hesper", child.unwrap());
    server.until("socket", || socket.exists());
    let vm = Vm::new(Machine::boot_with_window(&socket, 4096));
    rest(&server);
    let mut measured = Measured::default();
    let start = |context| {
        let begin = Instant::now();
        let guest = Guest::new(&vm, context);
        let gpu = guest.gpu();
        (milliseconds(begin), guest, gpu)
    };
    // The first context makes the driver open what it keeps for good.
    let (_, _warm, _) = start(1);
    rest(&server);
    let (first, guest, gpu) = start(2);
    measured.starts[0] = first;
    // The next program starts at once, before the next process waits.
    let (next, _next, _) = start(3);
    measured.starts[1] = next;
    rest(&server);
    for (kind, took) in measured.steps.iter_mut().enumerate() {
        let step = || match kind {
            0 => guest.wait_fence(0),
            1 => {
                guest.submit(&gpu, &[]);
                guest.wait_fence(RING);
            }
            2 => drop(guest.version()),
            _ => {
                let blob = guest.map(0, 0x10000);
                vm.machine().ok(&Request::unmap_blob(blob.resource));
                vm.machine().ok(&Request::unref(blob.resource));
            }
        };
        (0..STEPS / 10).for_each(|_| step());
        let processes = all(&server);
        let spent = || processes.iter().map(|id| cpu(*id)).sum::<i64>();
        let (begin, before) = (Instant::now(), spent());
        (0..STEPS).for_each(|_| step());
        took[0] = milliseconds(begin) * 1000.0 / f64::from(STEPS);
        took[1] = (spent() - before) as f64 / 1000.0 / f64::from(STEPS);
    }
    rest(&server);
    let (threads_before, before) = (threads(&server), memory(&all(&server)));
    let guests: Vec<_> = (0..CONTEXTS).map(|one| start(10 + one)).collect();
    rest(&server);
    measured.memory = (memory(&all(&server)) - before) / 1024.0 / f64::from(CONTEXTS);
    let each = (threads(&server) - threads_before) / CONTEXTS as usize;
    for one in 0..CONTEXTS {
        let left = threads(&server) - each;
        let begin = Instant::now();
        vm.machine().ok(&Request::destroy_context(10 + one));
        while threads(&server) > left {
            std::thread::sleep(Duration::from_micros(200));
        }
        measured.end += milliseconds(begin) / f64::from(CONTEXTS);
        rest(&server);
    }
    assert_eq!(threads(&server), threads_before);
    drop(guests);
    measured
}

#[test]
#[ignore = "measures the program that HESPER_COST names"]
fn cost_of_a_process_for_each_context() {
    let named = std::env::var("HESPER_COST").unwrap_or_default();
    let program = named
        .split_once('=')
        .map_or(env!("CARGO_BIN_EXE_hesper"), |(_, program)| program);
    let sides = ["--isolate=on", "--isolate=off"];
    let mut measured = sides.map(|_| Vec::new());
    for _ in 0..RUNS {
        for (side, all) in sides.iter().zip(&mut measured) {
            all.push(measure(program, side));
        }
    }
    println!("medians of {RUNS} runs: on, off");
    let row = |name: &str, part: &dyn Fn(&Measured) -> f64| {
        let [on, off] = measured
            .each_ref()
            .map(|all| median(all.iter().map(part).collect()));
        println!("{name}: {on:.2}, {off:.2}, {:+.2}", on - off);
    };
    for (kind, name) in NAMES.iter().enumerate() {
        row(name, &|one| one.steps[kind][0]);
        row(&format!("{name} of CPU"), &|one| one.steps[kind][1]);
    }
    row("context to vkCreateDevice, ms", &|one| one.starts[0]);
    row("the same at once behind another, ms", &|one| one.starts[1]);
    row("a context's end, ms", &|one| one.end);
    row("memory of a context with a device, MiB (PSS)", &|one| {
        one.memory
    });
}
