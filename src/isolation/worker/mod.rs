//! The worker's process: one context, with its driver, rings and threads.
//!
//! ```text
//! main process ── control socket ── calls.rs ──▶ hesper_venus::Context ──▶ driver
//!              ◀── (the same) ───── events.rs ◀── the context's threads
//!              ── budget socket ─── budget.rs ◀── whoever allocates
//! ```
//!
//! The main thread reads the control socket and hands each call to the context, which has a thread
//! of its own. So nothing here waits for the driver, and guest memory can be given back while the
//! driver is busy. What a context's thread has done is sent by that thread.
//!
//! The guest may take this process over. It is confined (`crate::sandbox`), and the main process
//! trusts nothing that it says.
//!
//! | file | what it does |
//! |---|---|
//! | [`mod@line`] | sends to the main process |
//! | [`mod@log`] | sends log lines |
//! | [`events`] | sends what the context has done |
//! | [`consumed`] | sends how many bytes of commands are consumed |
//! | [`budget`] | asks for parts of the guest's budgets |
//! | [`calls`] | carries out the main process' calls |
//! | [`failure`] | why a worker ends before it is told to |

mod budget;
mod calls;
mod consumed;
mod events;
mod failure;
mod line;
mod log;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use hesper_venus::host::Findings;
use hesper_venus::trace::Trace;
use hesper_venus::{Bells, Renderer, RendererOptions, Report};

use self::budget::BudgetClient;
use self::calls::Calls;
use self::consumed::Consumed;
use self::events::{Events, Lent};
use self::failure::Failure;
use self::line::{Line, end_process};
use self::log::Loading;
use super::channel::{LARGEST_TO_WORKER, Receiver};
use super::message::{FromWorker, ToWorker};
use super::options::WorkerOptions;
use crate::driver;
use crate::sandbox::{Needs, Sandbox};

/// How long the context may take to end. The main process waits a little longer.
const GRACE: Duration = Duration::from_secs(2);

/// Serves one context for the main process at the other end of `socket`, and ends the process.
/// Budgets are asked for on the socket `budget`. Call it before other threads start.
pub(crate) fn run(socket: OwnedFd, budget: OwnedFd, options: WorkerOptions) -> ExitCode {
    for fd in [&socket, &budget] {
        // They are inherited. An error leaves them to programs that a driver executes, which the
        // sandbox forbids.
        let _ = rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC);
    }
    let socket = Arc::new(UnixStream::from(socket));
    let line = Arc::new(Line::new(Arc::clone(&socket)));
    let loading = log::forward(&line);
    crate::panics::report_to_log();
    let served = catch_unwind(AssertUnwindSafe(|| {
        let calls = Receiver::new(socket, LARGEST_TO_WORKER);
        serve(&line, loading, calls, UnixStream::from(budget), options)
    }));
    // Drivers' threads may still run. They crash if the program's end takes away what they use, so
    // nothing is taken away.
    match served {
        Ok(Ok(())) => end_process(0),
        Ok(Err(failure)) => {
            if failure.is_news() {
                ::log::error!("a worker ends: {failure}");
            }
            end_process(1)
        }
        // The panic was reported when it happened.
        Err(_) => end_process(101),
    }
}

fn serve(
    line: &Arc<Line>,
    loading: Loading,
    mut calls: Receiver,
    budget: UnixStream,
    options: WorkerOptions,
) -> Result<(), Failure> {
    let unable = |reason: String| {
        line.tell(&FromWorker::Unable(reason), &[]);
        Failure::Unable
    };
    let (findings, fds) = match calls.receive()?.decode()? {
        (ToWorker::Configure(findings), fds) => (findings, fds),
        _ => return Err(Failure::Order("the first one is not Configure")),
    };
    let Ok([report, trace, bells]) = <[OwnedFd; 3]>::try_from(fds) else {
        return Err(Failure::Order("Configure without report, trace and bells"));
    };
    let report = Report::from_fd(report).map_err(|error| unable(error.to_string()))?;
    let trace = Trace::from_fd(trace).map_err(|error| unable(error.to_string()))?;
    let bells = Bells::from_fd(bells).map_err(|error| unable(error.to_string()))?;

    // Without findings it tests the driver itself.
    let findings = Findings::from_bytes(&findings).unwrap_or_default();
    // The place of a GPU is its place among all, so all drivers are needed.
    if let (Some(libraries), false) = (findings.libraries(), options.is_by_place()) {
        driver::load_only(&libraries);
    }
    // The sandbox allows nothing in the home folder.
    hesper_venus::read_cache_key();
    let needs = Needs {
        driver: options.library(),
        written: options.save_streams().into_iter().collect(),
        is_worker: true,
        ..Needs::default()
    };
    let mut sandbox = Sandbox::start(options.sandbox(), &needs).map_err(unable)?;
    let renderer = Renderer::new(RendererOptions {
        grants: Some(Arc::new(BudgetClient::new(budget))),
        report: Some(report),
        trace: Some(trace),
        bells: Some(bells),
        findings,
        ..options.renderer()
    });
    let renderer = renderer.map_err(|error| unable(error.to_string()))?;
    sandbox.seal();
    loading.end();
    line.tell(&FromWorker::Ready, &[]);

    let (id, name, server) = match calls.receive()?.decode()?.0 {
        ToWorker::Begin { id, name, server } => (id, name, server),
        ToWorker::End => {
            line.tell(&FromWorker::Ended, &[]);
            return Ok(());
        }
        _ => return Err(Failure::Order("the second one is not Begin")),
    };
    ::log::debug!("context {id} is process {}", std::process::id());
    let lent = Arc::new(Lent::default());
    let events = Arc::new(Events::new(Arc::clone(line), Arc::clone(&lent)));
    let context = renderer.create_context(id, &name, server, events);
    let context = context.map_err(|error| unable(error.to_string()))?;
    let consumed = Arc::new(Consumed::new(Arc::clone(line)));
    Calls::new(context, Arc::clone(line), consumed, lent).serve(&mut calls)?;
    // The context is dropped.
    let has_ended = renderer.settle(GRACE);
    line.tell(&FromWorker::Ended, &[]);
    if has_ended {
        // The driver writes what it has left for its shader cache. Whatever happens now, the guest
        // does not wait for it.
        drop(renderer);
    } else {
        ::log::debug!("context {id} has not ended after {GRACE:?}; its process ends without it");
        std::mem::forget(renderer);
    }
    Ok(())
}
