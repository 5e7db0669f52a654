//! Measures the rendering server from outside: its processes, their CPU time and memory.
//!
//! [`set`] names the server (`--server PID`). Its processes are that one and all its descendants,
//! because a renderer may have several processes per client.

use std::fs;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::thread::sleep;
use std::time::Duration;

use crate::gpu::{Gpu, Host};
use crate::outcome::Stop;

static ROOT: OnceLock<u32> = OnceLock::new();

/// Sets the server to measure.
pub(crate) fn set(root: u32) {
    // Only the command line calls this, and only once.
    let _ = ROOT.set(root);
}

/// The server's current processes; empty if the command line names no server.
pub(crate) fn processes() -> Vec<u32> {
    let Some(&root) = ROOT.get() else {
        return Vec::new();
    };
    let Ok(folder) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let all: Vec<(u32, u32)> = folder
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|id| Some((id, parent(id)?)))
        .collect();
    let mut found = vec![root];
    let mut at = 0;
    while let Some(&one) = found.get(at) {
        let children = all.iter().filter(|(_, parent)| *parent == one);
        found.extend(children.map(|(id, _)| *id));
        at += 1;
    }
    found
}

/// The parent of a process.
fn parent(id: u32) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name in parentheses can hold anything. The state and the parent come after it.
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

/// CPU time of `processes` up to now, in microseconds.
pub(crate) fn cpu(processes: &[u32]) -> f64 {
    processes.iter().filter_map(|&id| clock(id)).sum()
}

/// Waits until `processes` rest, at most for two seconds. A server may prepare itself for the next
/// client while this one begins.
pub(crate) fn rest(processes: &[u32]) {
    let mut before = cpu(processes);
    for _ in 0..40 {
        if processes.is_empty() {
            return;
        }
        sleep(Duration::from_millis(50));
        let now = cpu(processes);
        if now - before < 500.0 {
            return;
        }
        before = now;
    }
}

/// A process's CPU time; `None` if it has exited. /proc has the same, but only in ticks of 10 ms.
#[cfg(target_os = "linux")]
fn clock(process: u32) -> Option<f64> {
    let mut clock = 0;
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: both calls write only to the variables that they get.
    let found = unsafe {
        libc::clock_getcpuclockid(process.cast_signed(), &raw mut clock) == 0
            && libc::clock_gettime(clock, &raw mut time) == 0
    };
    found.then_some(time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3)
}

/// A process's CPU time is unknown on other systems: they do not report it for other processes.
#[cfg(not(target_os = "linux"))]
fn clock(_process: u32) -> Option<f64> {
    None
}

/// Memory of processes, in KiB.
#[derive(Clone, Copy)]
struct Memory {
    /// Proportional set size: the size of shared pages is divided by the number of processes that
    /// share them.
    pss: u64,
    /// The part of it that no file backs.
    anonymous: u64,
}

fn memory(processes: &[u32]) -> Memory {
    let mut sum = Memory {
        pss: 0,
        anonymous: 0,
    };
    for id in processes {
        let text = fs::read_to_string(format!("/proc/{id}/smaps_rollup")).unwrap_or_default();
        let line = |name: &str| -> u64 {
            let mut lines = text.lines();
            let line = lines.find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|rest| rest.split_whitespace().next());
            number.and_then(|number| number.parse().ok()).unwrap_or(0)
        };
        sum.pss += line("Pss:");
        sum.anonymous += line("Pss_Anon:");
    }
    sum
}

/// Runs the command `footprint`: creates and uses a device, then prints how much this process's
/// memory has grown and how much memory the server has.
pub(crate) fn footprint(index: usize) -> ExitCode {
    let own = [std::process::id()];
    let begin = memory(&own);
    let used = || -> Result<String, Stop> {
        let host = Host::new(index).map_err(Stop::Fail)?;
        let gpu = Gpu::new(&host)?;
        let buffer = gpu.buffer(64)?;
        // SAFETY: recording; the buffer is of this device.
        gpu.run(|commands| unsafe {
            gpu.cmd_fill_buffer(commands, buffer.handle, 0, 4, 1);
        })?;
        let end = memory(&own);
        let all = processes();
        let server = memory(&all);
        Ok(format!(
            "footprint own {} {} server {} {} processes {}",
            end.pss.saturating_sub(begin.pss),
            end.anonymous.saturating_sub(begin.anonymous),
            server.pss,
            server.anonymous,
            all.len()
        ))
    };
    match used() {
        Ok(line) => {
            println!("{line}");
            ExitCode::SUCCESS
        }
        Err(Stop::Fail(problem) | Stop::Skip(problem)) => {
            println!("FAIL footprint {problem}");
            ExitCode::FAILURE
        }
    }
}
