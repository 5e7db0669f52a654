//! What happens when a worker ends, whatever the reason: its rings, its fences and the blobs that
//! it was asked for.

use std::time::Duration;

use hesper_system::LogLimit;
use hesper_venus::BlobError;

use super::incoming::Readable;
use super::rings::Rings;
use super::state::Owner;
use super::worker::{GRACE, KILL_PATIENCE, Worker};
use crate::isolation::message::FromWorker;
use crate::isolation::spawner::End;

/// Limits the log lines about contexts whose processes ended.
static ENDS: LogLimit = LogLimit::new("hesper");

/// How long a process may take to end after it has closed its connection.
const LAST_BREATH: Duration = Duration::from_millis(500);

/// How often what a worker has left behind is read: more than a socket holds.
const LEFT_BEHIND: usize = 256;

/// Why a worker's thread serves it no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// Its process is gone.
    Gone,
    /// It has broken this rule.
    Broken(String),
    /// It cannot serve: why.
    Unable(String),
    /// This process has ended it: why.
    Doomed(String),
    /// It has not ended in time.
    Late,
}

/// Ends everything of a worker. `was_lost` says whether the context was lost before.
pub(super) fn end(worker: &Worker, rings: &mut Rings, why: &Why, was_lost: bool) {
    worker.stop_sending();
    // The guest must see it in its rings before any answer reaches it.
    fail_rings(worker, rings);
    let by_itself = match why {
        Why::Gone => worker.wait_for_end(LAST_BREATH),
        _ => None,
    };
    // Even if it has ended: then this does nothing.
    worker.kill();
    let end = worker.wait_for_end(KILL_PATIENCE);
    // What it did before it was killed.
    fail_rings(worker, rings);
    let (owner, is_ready, is_ending) = {
        let mut state = worker.state();
        state.is_closed = true;
        (state.owner.clone(), state.is_ready, state.is_ending())
    };
    if end.is_none() {
        log::error!(
            "process {} of a context was killed and has not ended yet; its context counts until then",
            worker.number()
        );
    }
    let reason = reason(worker, why, by_itself.as_ref(), is_ready);
    match owner {
        Some(owner) => {
            tell(worker, &owner, why, &reason, is_ending, was_lost);
            answer(worker, &owner, &reason);
        }
        None if is_ending => {}
        None => {
            let is_first = !worker
                .house
                .spare_failed
                .swap(true, std::sync::atomic::Ordering::SeqCst);
            if is_first {
                log::warn!(
                    "no process waits for the next context, which will start more slowly: {reason}"
                );
            }
        }
    }
    worker.books.close();
}

/// Says FATAL in all rings, those included whose messages were not read yet.
fn fail_rings(worker: &Worker, rings: &mut Rings) {
    for _ in 0..LEFT_BEHIND {
        let read = worker.read(Readable::ALL);
        while let Some((message, mut fds)) = worker.next() {
            // Nobody is told any more which rule is broken.
            match message {
                FromWorker::RingCreated { ring, status } => {
                    if let Some(fd) = fds.pop() {
                        let (most, piece) = (worker.house.limits.rings, worker.books.piece());
                        let _ = rings.insert(ring, status, fd, most, piece);
                    }
                }
                FromWorker::RingDestroyed { ring } => drop(rings.remove(ring)),
                FromWorker::Log { level, line } => worker.house.logs.write_at(level, &line),
                _ => {}
            }
        }
        if !matches!(read, Ok(1..)) || worker.stop().is_some() {
            break;
        }
    }
    rings.fail();
}

/// Logs the end, and tells the front end that the context is lost.
fn tell(worker: &Worker, owner: &Owner, why: &Why, reason: &str, is_ending: bool, was_lost: bool) {
    let is_usual = {
        let state = worker.state();
        state.end == Some(End::Exited(0)) || !state.is_ready
    };
    let (id, name) = (owner.id, &owner.name);
    let log = |text: std::fmt::Arguments<'_>| ENDS.log(log::Level::Error, text);
    if is_ending {
        match why {
            Why::Gone if is_usual => log::debug!("context {id} \"{name}\": {reason}"),
            Why::Late => {
                worker.house.census.add_given_up();
                log(format_args!(
                    "context {id} \"{name}\" did not end within {GRACE:?}: its process was killed"
                ));
            }
            _ => log(format_args!(
                "context {id} \"{name}\", which ends: {reason}"
            )),
        }
    } else if was_lost {
        log(format_args!(
            "context {id} \"{name}\", which was lost before: {reason}"
        ));
    } else {
        log(format_args!(
            "context {id} \"{name}\" is lost: {reason}; other programs go on"
        ));
        worker.house.census.add_lost();
        owner.events.lost(reason);
    }
}

/// Retires all fences, and answers for all blobs. Later ones are answered at once.
fn answer(worker: &Worker, owner: &Owner, reason: &str) {
    while let Some((ring, fence)) = worker.fences.pop_or_close() {
        owner.retire(ring, fence);
    }
    worker.state().lost_because = Some(reason.into());
    while let Some(resource) = worker.asked.take_or_close() {
        let lost = BlobError::Lost(reason.to_owned());
        owner.events.blob_created(resource, Err(lost));
    }
}

/// Why a worker has ended, for people.
fn reason(worker: &Worker, why: &Why, end: Option<&End>, is_ready: bool) -> String {
    match why {
        Why::Broken(rule) => format!(
            "its process broke the rules between processes ({rule}), perhaps because a program has taken it over"
        ),
        Why::Unable(reason) => format!("its process cannot serve: {reason}"),
        Why::Doomed(reason) => reason.clone(),
        Why::Late => "its process did not end".to_owned(),
        Why::Gone => match end {
            Some(end) => {
                let place = match (end, is_ready) {
                    (End::NotStarted(_) | End::SpawnerGone, _) => String::new(),
                    (_, false) => " while it loaded the driver".to_owned(),
                    (_, true) => place(worker),
                };
                format!("its process {end}{place}")
            }
            None => "its process has closed its connection, and was killed".to_owned(),
        },
    }
}

/// What the worker was doing.
fn place(worker: &Worker) -> String {
    let commands = worker.report.commands();
    match commands.is_empty() {
        true => " in a thread of the driver".to_owned(),
        false => format!(" while carrying out {}", commands.join(", ")),
    }
}
