//! The benchmarks: the cost of one operation for a client, in microseconds of elapsed and CPU time.
//!
//! They are for interleaved comparisons (native, Hesper, another renderer, then again), because one
//! run's numbers depend on the machine and its other load. Each number is the median of several
//! rounds. `tests/bench-vtest` makes such a comparison.

use std::process::{Command, ExitCode};
use std::time::Instant;

use rustix::time::{ClockId, clock_gettime};

use crate::gpu::{Gpu, Host};
use crate::outcome::{Stop, fail};

mod memory;
mod objects;
mod recording;
pub(crate) mod server;
mod sync;

/// One benchmark.
pub(crate) struct Bench {
    /// Its name on the command line and in the results.
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) run: fn(&Gpu<'_>) -> Result<Took, Stop>,
}

/// The cost of one operation, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Took {
    /// Elapsed time.
    pub(crate) elapsed: f64,
    /// CPU time of this process.
    pub(crate) cpu: f64,
    /// CPU time of the server, including pauses that do not count as elapsed; 0 if the command line
    /// names no server.
    pub(crate) server: f64,
}

impl Took {
    /// Divides the cost of `count` operations into the cost of one.
    fn each(self, count: u32) -> Self {
        let count = f64::from(count);
        Self {
            elapsed: self.elapsed / count,
            cpu: self.cpu / count,
            server: self.server / count,
        }
    }
}

const fn bench(name: &'static str, run: fn(&Gpu<'_>) -> Result<Took, Stop>) -> Bench {
    Bench { name, run }
}

/// Every benchmark, in the order in which `all` runs them.
pub(crate) const ALL: &[Bench] = &[
    bench("start-up", start_up),
    bench("fence", sync::fence),
    bench("timeline", sync::timeline),
    bench("fence-after-4ms", sync::fence_after_idle),
    bench("submit-fence-each", sync::submit_fence_each),
    bench("submit-fence-last", sync::submit_fence_last),
    bench("reply", sync::reply),
    bench("reply-after-4ms", sync::reply_after_idle),
    bench("draw", recording::draw),
    bench("draw-mixed", recording::draw_mixed),
    bench("dispatch", recording::dispatch),
    bench("record-1-thread", |gpu| recording::threads(gpu, 1)),
    bench("record-2-threads", |gpu| recording::threads(gpu, 2)),
    bench("record-4-threads", |gpu| recording::threads(gpu, 4)),
    bench("buffer", objects::buffer),
    bench("image", objects::image),
    bench("image-view", objects::image_view),
    bench("sampler", objects::sampler),
    bench("descriptor-alloc-update", objects::descriptor_alloc_update),
    bench("descriptor-update", objects::descriptor_update),
    bench("pipeline-graphics", objects::pipeline_graphics),
    bench("pipeline-compute", objects::pipeline_compute),
    bench("map-write-1m", memory::map_write),
    bench("map-read-1m", memory::map_read),
    bench("alloc-map-free-64k", |gpu| {
        memory::alloc_map_free(gpu, 64 << 10)
    }),
    bench("alloc-map-free-1m", |gpu| {
        memory::alloc_map_free(gpu, 1 << 20)
    }),
    bench("alloc-map-free-64m", |gpu| {
        memory::alloc_map_free(gpu, 64 << 20)
    }),
    bench("alloc-map-free-64m-fresh", |gpu| {
        memory::alloc_map_free_fresh(gpu, 64 << 20)
    }),
    bench("alloc-map-free-64k-beside-100", |gpu| {
        memory::alloc_map_free_beside(gpu, 64 << 10, 100)
    }),
    bench("alloc-map-free-64k-beside-400", |gpu| {
        memory::alloc_map_free_beside(gpu, 64 << 10, 400)
    }),
    bench("upload-4k", |gpu| memory::upload(gpu, 4 << 10)),
    bench("upload-16m", |gpu| memory::upload(gpu, 16 << 20)),
    bench("upload-image-4m", memory::upload_image),
];

/// CPU time of this process, in microseconds.
fn cpu() -> f64 {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    now.tv_sec as f64 * 1e6 + now.tv_nsec as f64 / 1e3
}

/// A stopwatch for the parts of a round that count.
struct Watch {
    total: Took,
}

impl Watch {
    /// Adds the time and CPU time of `body`.
    fn count<T>(&mut self, body: impl FnOnce() -> T) -> T {
        let (begin, begin_cpu) = (Instant::now(), cpu());
        let result = body();
        self.total.elapsed += begin.elapsed().as_secs_f64() * 1e6;
        self.total.cpu += cpu() - begin_cpu;
        result
    }
}

/// Runs `round`, which does `operations` operations, once to warm up and then seven times. Returns
/// the median by elapsed time.
fn rounds(
    operations: u32,
    mut round: impl FnMut(&mut Watch) -> Result<(), Stop>,
) -> Result<Took, Stop> {
    let mut all = Vec::new();
    let server = server::processes();
    server::rest(&server);
    for index in 0..8 {
        let mut watch = Watch {
            total: Took {
                elapsed: 0.0,
                cpu: 0.0,
                server: 0.0,
            },
        };
        let begin = server::cpu(&server);
        round(&mut watch)?;
        watch.total.server = server::cpu(&server) - begin;
        if index > 0 {
            all.push(watch.total);
        }
    }
    all.sort_by(|one, other| one.elapsed.total_cmp(&other.elapsed));
    Ok(all[all.len() / 2].each(operations))
}

/// Measures rounds of `count` calls of `operation`. Each round counts until the driver has executed
/// everything, because a guest's driver returns from most calls before that.
fn operations(
    gpu: &Gpu<'_>,
    count: u32,
    mut operation: impl FnMut() -> Result<(), Stop>,
) -> Result<Took, Stop> {
    rounds(count, |watch| {
        watch.count(|| {
            (0..count).try_for_each(|_| operation())?;
            // SAFETY: the device is alive, and no other thread uses its queues.
            Ok(unsafe { gpu.device_wait_idle() }?)
        })
    })
}

/// The command that makes this program a child of the start-up benchmark.
pub(crate) const START_UP_CHILD: &str = "start-up-child";

/// Measures the time from a program's start to the end of vkCreateDevice, in fresh processes.
fn start_up(_: &Gpu<'_>) -> Result<Took, Stop> {
    let this = std::env::current_exe().map_err(|error| fail(&error.to_string()))?;
    let mut all = Vec::new();
    for _ in 0..7 {
        let output = Command::new(&this).arg(START_UP_CHILD).output();
        let output = output.map_err(|error| fail(&format!("{}: {error}", this.display())))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let numbers: Vec<f64> = text
            .split_whitespace()
            .filter_map(|n| n.parse().ok())
            .collect();
        let [elapsed, cpu] = numbers[..] else {
            return Err(fail(&format!("the child said '{}'", text.trim())));
        };
        // Unknown: the server's processes for a child come and go with it.
        let server = f64::NAN;
        all.push(Took {
            elapsed,
            cpu,
            server,
        });
    }
    all.sort_by(|one, other| one.elapsed.total_cmp(&other.elapsed));
    Ok(all[all.len() / 2])
}

/// Runs in the child process of [`start_up`].
pub(crate) fn start_up_child(index: usize) -> ExitCode {
    let begin = Instant::now();
    let problem = match Host::new(index) {
        Ok(host) => match Gpu::new(&host) {
            Ok(_gpu) => {
                println!("{} {}", begin.elapsed().as_secs_f64() * 1e6, cpu());
                return ExitCode::SUCCESS;
            }
            Err(stop) => format!("{stop:?}"),
        },
        Err(problem) => problem,
    };
    println!("{problem}");
    ExitCode::FAILURE
}
