//! The Vulkan test program that Hesper's tests run natively, over vtest and in guests:
//!
//! ```text
//! hesper-test-client list
//!     The names of all cases and benchmarks.
//! hesper-test-client [--gpu N] run NAME…|all
//!     One line per case: ok NAME DETAILS | FAIL NAME REASON | skip NAME REASON
//! hesper-test-client [--gpu N] [--server PID] bench NAME…|all
//!     One line per benchmark: bench NAME µs cpu µs server µs
//! hesper-test-client [--gpu N] [--server PID] footprint
//!     The KiB that a device costs this process, and what the server has.
//! hesper-test-client [--gpu N] extensions
//!     Makes instances and devices with each listed extension, and with all of them.
//! hesper-test-client [--gpu N] spin SECONDS
//!     Keeps the GPU busy with one long submission. Prints spinning, then done.
//! hesper-test-client [--gpu N] hold MAPS SECONDS FILE
//!     Keeps memory mapped and fences open until FILE exists. Prints holding, then done.
//! hesper-test-client [--gpu N] harm wild|endless|TEXT
//!     Submits a shader that writes to a wild address, never ends, or asks a driver of the tests
//!     for TEXT, such as 'crash at submit'. Prints harming, then done if it ends.
//! ```
//!
//! The lines of `run` do not depend on time, place or machine: over the same driver they must be
//! equal natively and through Hesper, so that `diff` can compare both outputs. A benchmark's
//! numbers are microseconds per operation: elapsed time, CPU time of this process, and CPU time of
//! process PID and all its descendants.
//!
//! The exit status is 0, or 1 if a case failed, or 2 for a wrong command line. If a case exceeds
//! its time limit, the program exits at once with status 1.
#![allow(
    clippy::indexing_slicing,
    reason = "an index out of range ends a test program, as it should"
)]

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

mod bench;
mod cases;
mod commands;
mod compute;
mod drawing;
mod extensions;
mod gpu;
mod harm;
#[path = "../../../support/shaders.rs"]
mod harmful;
mod hold;
mod host_copy;
mod outcome;
mod resources;
mod shaders;
mod spin;

use ash::vk;
use gpu::{Gpu, Host};
use outcome::Stop;

/// The time limit of one case or benchmark. Emulated guests are slow.
const PATIENCE: Duration = Duration::from_secs(120);

const USAGE: &str = "usage: hesper-test-client list | [--gpu N] run NAME…|all | [--gpu N] [--server PID] bench NAME…|all | \
     [--gpu N] [--server PID] footprint | [--gpu N] extensions | [--gpu N] spin SECONDS | [--gpu N] hold MAPS SECONDS FILE | \
     [--gpu N] harm wild|endless|TEXT";

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut index = 0;
    if arguments.first().is_some_and(|first| first == "--gpu") {
        let Some(Ok(number)) = arguments.get(1).map(|number| number.parse()) else {
            return usage("--gpu wants the number of a physical device");
        };
        index = number;
        arguments.drain(..2);
    }
    if arguments.first().is_some_and(|first| first == "--server") {
        let Some(Ok(id)) = arguments.get(1).map(|id| id.parse()) else {
            return usage("--server wants the id of a process");
        };
        bench::server::set(id);
        arguments.drain(..2);
    }
    let Some((verb, names)) = arguments.split_first() else {
        return usage("a command is missing");
    };
    match verb.as_str() {
        "list" => {
            cases::all().for_each(|case| println!("case {}", case.name));
            bench::ALL
                .iter()
                .for_each(|bench| println!("bench {}", bench.name));
            ExitCode::SUCCESS
        }
        "run" => chosen(
            names,
            cases::all(),
            |case| case.name,
            |chosen| run(index, chosen),
        ),
        "bench" => chosen(
            names,
            bench::ALL.iter(),
            |bench| bench.name,
            |chosen| measure(index, chosen),
        ),
        "footprint" => bench::server::footprint(index),
        "extensions" => extensions::try_all(index),
        "spin" => match names.first().map(|seconds| seconds.parse()) {
            Some(Ok(seconds)) => spin(index, seconds),
            _ => usage("spin wants a number of seconds"),
        },
        "hold" => match names {
            [maps, seconds, file] => match (maps.parse(), seconds.parse()) {
                (Ok(maps), Ok(seconds)) => hold(index, maps, seconds, file.as_ref()),
                _ => usage("hold wants a number of maps, a number of seconds and a file"),
            },
            _ => usage("hold wants a number of maps, a number of seconds and a file"),
        },
        "harm" => match names {
            [how] => alone(index, "harm", |host| {
                on_device(host, |gpu| harm::harm(gpu, how))
            }),
            _ => usage("harm wants to know how"),
        },
        bench::START_UP_CHILD => bench::start_up_child(index),
        other => usage(&format!("'{other}' is not a command")),
    }
}

fn usage(problem: &str) -> ExitCode {
    eprintln!("hesper-test-client: {problem}\n{USAGE}");
    ExitCode::from(2)
}

/// Calls `then` with the entries that `names` selects, in the order of the names.
fn chosen<T: Copy>(
    names: &[String],
    all: impl Iterator<Item = T>,
    name_of: impl Fn(T) -> &'static str,
    then: impl FnOnce(&[T]) -> ExitCode,
) -> ExitCode {
    let all: Vec<T> = all.collect();
    if names == ["all"] {
        return then(&all);
    }
    let mut found = Vec::new();
    for name in names {
        match all.iter().find(|&&one| name_of(one) == name) {
            Some(&one) => found.push(one),
            None => return usage(&format!("'{name}' is not one of what `list` prints")),
        }
    }
    if found.is_empty() {
        usage("names are missing")
    } else {
        then(&found)
    }
}

/// Runs `body` with a time limit. If it exceeds the limit, the program exits, because a case that
/// hangs in the driver cannot be stopped otherwise.
fn limited<T>(name: &str, body: impl FnOnce() -> T) -> T {
    let (done, ended) = mpsc::channel::<()>();
    thread::scope(|scope| {
        let watchdog = scope.spawn(move || {
            if ended.recv_timeout(PATIENCE) == Err(mpsc::RecvTimeoutError::Timeout) {
                say(&format!("FAIL {name} does not end within {PATIENCE:?}"));
                std::process::exit(1);
            }
        });
        let result = body();
        drop(done);
        // The watchdog cannot panic.
        let _ = watchdog.join();
        result
    })
}

/// Prints a line and flushes it, so that the results so far are visible even if the process dies in
/// the next case.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // A failed write is ignored: a reader that closes the pipe ends this program itself.
    let _ = writeln!(out, "{}", line.trim_end());
    let _ = out.flush();
}

/// Runs `body` on a new device. If `body` fails, the device is not destroyed: it may have work that
/// never ends, and destroying the device would wait for it.
fn on_device<T>(host: &Host, body: impl FnOnce(&Gpu<'_>) -> Result<T, Stop>) -> Result<T, Stop> {
    let gpu = Gpu::new(host)?;
    let result = body(&gpu);
    if matches!(result, Err(Stop::Fail(_))) {
        std::mem::forget(gpu);
    }
    result
}

/// Runs `each` for everything in `all`, each time on a new device of one host, and prints one line
/// per entry.
fn report<T>(
    index: usize,
    all: &[&T],
    name_of: impl Fn(&T) -> &'static str,
    each: impl Fn(&Gpu<'_>, &T) -> Result<String, Stop>,
) -> ExitCode {
    let host = match limited("instance", || Host::new(index)) {
        Ok(host) => host,
        Err(problem) => {
            say(&format!("FAIL instance {problem}"));
            return ExitCode::FAILURE;
        }
    };
    let mut failed = false;
    for one in all {
        let name = name_of(one);
        match limited(name, || on_device(&host, |gpu| each(gpu, one))) {
            Ok(line) => say(&line),
            Err(Stop::Skip(reason)) => say(&format!("skip {name} {reason}")),
            Err(Stop::Fail(reason)) => {
                failed = true;
                say(&format!("FAIL {name} {reason}"));
            }
        }
    }
    if failed {
        // The instance has a device that is not destroyed, as above.
        std::mem::forget(host);
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn run(index: usize, cases: &[&cases::Case]) -> ExitCode {
    report(
        index,
        cases,
        |case| case.name,
        |gpu, case| Ok(format!("ok {} {}", case.name, (case.run)(gpu)?)),
    )
}

fn measure(index: usize, benches: &[&bench::Bench]) -> ExitCode {
    report(
        index,
        benches,
        |bench| bench.name,
        |gpu, bench| {
            let took = (bench.run)(gpu)?;
            Ok(format!(
                "bench {} {:.4} cpu {:.4} server {:.4}",
                bench.name, took.elapsed, took.cpu, took.server
            ))
        },
    )
}

fn spin(index: usize, seconds: u32) -> ExitCode {
    alone(index, "spin", |host| {
        on_device(host, |gpu| spin::spin(gpu, seconds))
    })
}

fn hold(index: usize, maps: usize, seconds: u32, file: &Path) -> ExitCode {
    alone(index, "hold", |host| {
        let fences = [hold::KERNEL_FENCES];
        let fences = &fences[..usize::from(host.has(hold::KERNEL_FENCES))];
        let gpu = Gpu::with(
            host,
            fences,
            None::<&mut vk::DeviceGroupDeviceCreateInfo<'_>>,
        )?;
        hold::hold(&gpu, maps, seconds, file)
    })
}

/// Runs a command that is not a case. Prints `done`, or why it failed.
fn alone(index: usize, name: &str, run: impl FnOnce(&Host) -> Result<(), Stop>) -> ExitCode {
    let host = match Host::new(index) {
        Ok(host) => host,
        Err(problem) => {
            say(&format!("FAIL instance {problem}"));
            return ExitCode::FAILURE;
        }
    };
    match run(&host) {
        Ok(()) => {
            say("done");
            ExitCode::SUCCESS
        }
        Err(stop) => {
            say(&format!("FAIL {name} {stop:?}"));
            ExitCode::FAILURE
        }
    }
}
