//! What the transport costs: the CPU time of two builds of Hesper for the same work, in turns. Runs
//! only on demand:
//!
//! ```text
//! HESPER_COST='old=/path/to/hesper new=/path/to/hesper' \
//!     cargo test --test mock_guest -- --ignored --nocapture cost
//! ```

use std::path::Path;
use std::process::Stdio;

use hesper_vhost::testing::Request;
use hesper_vhost::wire;

use crate::support::process::{PATIENCE, Process, in_environment};
use hesper_mock_frontend::Machine;

/// How often each build does the work.
const RUNS: usize = 12;

/// The work of one step.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    /// A VM connects, starts the device, sends a command and disconnects.
    Connect,
    /// A blob is mapped and unmapped. After each, the VMM sends its memory table again, as QEMU
    /// does.
    Map,
    /// The VMM sends a memory table of eight regions.
    Memory,
    /// A small command, alone.
    Kick,
}

const WORK: [(Work, &str, u32); 4] = [
    (Work::Connect, "connections", 50),
    (Work::Map, "maps and unmaps, 2 memory tables each", 1000),
    (Work::Memory, "memory tables of 8 regions", 2000),
    (Work::Kick, "commands, one kick each", 20_000),
];

fn start(program: &str, folder: &Path) -> Process {
    let socket = folder.join("gpu.sock");
    let child = in_environment(program)
        .args(["--display=headless", "--socket-path"])
        .arg(&socket)
        .env("RUST_LOG", "warn")
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut process = Process::new("hesper", child.unwrap());
    process.until("socket", || socket.exists());
    process
}

/// The CPU time of a process in nanoseconds, including threads that have ended; 0 if it has ended.
pub fn cpu(id: u32) -> i64 {
    let mut clock = 0;
    // SAFETY: a number, and a place for the answer.
    if unsafe { libc::clock_getcpuclockid(id as i32, &mut clock) } != 0 {
        return 0;
    }
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the place is there.
    if unsafe { libc::clock_gettime(clock, &mut time) } != 0 {
        return 0;
    }
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}

fn end(process: &mut Process) {
    process.signal(rustix::process::Signal::TERM);
    assert!(process.wait(PATIENCE).success());
}

fn work(socket: &Path, work: Work, steps: u32) {
    if work == Work::Connect {
        for _ in 0..steps {
            let mut machine = Machine::boot_with_window(socket, 4096);
            machine.ask(&Request::bare(wire::CMD_GET_DISPLAY_INFO));
        }
        return;
    }
    let mut machine = Machine::boot_with_window(socket, 4096);
    match work {
        Work::Map => {
            machine.ok(&Request::create_context(
                1,
                crate::guest::CAPSET_VENUS,
                "cost",
            ));
            let resource = machine.resource();
            machine.ok(&Request::host_blob(1, resource, 0, 0x10000));
            for _ in 0..steps {
                let code = machine.code(&Request::map_blob(resource, 0x10000));
                assert_eq!(code, wire::RESP_OK_MAP_INFO);
                machine.tell_memory(4);
                machine.ok(&Request::unmap_blob(resource));
                machine.tell_memory(8);
            }
        }
        Work::Memory => (0..steps).for_each(|_| machine.tell_memory(8)),
        Work::Kick => {
            for _ in 0..steps {
                machine.ask(&Request::bare(wire::CMD_GET_DISPLAY_INFO));
            }
        }
        Work::Connect => {}
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    (values[(values.len() - 1) / 2] + values[values.len() / 2]) / 2.0
}

/// CPU microseconds of one step of the work.
fn microseconds(program: &str, what: Work, steps: u32) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let mut process = start(program, folder.path());
    let socket = folder.path().join("gpu.sock");
    // Caches, allocators and threads are warm afterwards.
    work(&socket, what, steps / 10);
    let before = cpu(process.id());
    work(&socket, what, steps);
    let spent = cpu(process.id()) - before;
    end(&mut process);
    spent as f64 / 1000.0 / f64::from(steps)
}

#[test]
#[ignore = "measures what HESPER_COST names"]
fn cost_of_two_builds_in_turns() {
    let Ok(named) = std::env::var("HESPER_COST") else {
        panic!("HESPER_COST names two programs: 'old=/path new=/path'")
    };
    let programs: Vec<(&str, &str)> = named
        .split_whitespace()
        .map(|word| word.split_once('=').unwrap())
        .collect();
    for (what, name, steps) in WORK {
        let mut measured = vec![Vec::new(); programs.len()];
        for run in 0..RUNS {
            for turn in 0..programs.len() {
                // Each build goes first equally often.
                let index = (turn + run) % programs.len();
                measured[index].push(microseconds(programs[index].1, what, steps));
            }
        }
        println!("{steps} {name}, µs for each:");
        let first = median(measured[0].clone());
        for ((program, _), values) in programs.iter().zip(measured) {
            let low = values.iter().copied().fold(f64::INFINITY, f64::min);
            let high = values.iter().copied().fold(0.0, f64::max);
            let middle = median(values);
            let change = (middle / first - 1.0) * 100.0;
            println!("  {program}: {middle:.2} ({low:.2} to {high:.2}), {change:+.1} %");
        }
    }
}
