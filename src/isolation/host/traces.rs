//! [`Traces`]: what workers record, and what this process records of their fences.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;

use hesper_system::sync::Lock;
use hesper_venus::trace::{Lane, Trace, TraceFile, Track};

use crate::contexts::TraceError;

/// How many workers that ended during a recording are in its file. Each may have filled 16 MiB.
const MOST_ENDED: usize = 16;

/// The context that a worker is.
struct Who {
    id: u32,
    name: String,
}

/// A worker's part.
struct Part {
    trace: Trace,
    /// `None` while it is a spare.
    who: Option<Who>,
}

#[derive(Default)]
struct Inner {
    is_on: bool,
    live: HashMap<u64, Part>,
    /// Those whose processes have ended during this recording, the oldest first.
    ended: VecDeque<Part>,
    /// How many ended before those.
    left_out: u64,
}

/// The traces of all workers, by their numbers.
pub(super) struct Traces {
    own: Option<Trace>,
    inner: Mutex<Inner>,
}

impl Traces {
    /// No workers yet. This process records in `own`.
    pub(super) fn new(own: Option<Trace>) -> Self {
        Self {
            own,
            inner: Mutex::default(),
        }
    }

    /// Where this process records a context's fences.
    pub(super) fn lane(&self, context: u32) -> Lane {
        Lane::new(self.own.as_ref(), context, Track::Fences(0))
    }

    /// A worker starts.
    pub(super) fn enter(&self, number: u64, trace: Trace) {
        let mut inner = self.inner.locked();
        if inner.is_on {
            // It is new, so nothing is recorded yet.
            let _ = trace.start();
        }
        inner.live.insert(number, Part { trace, who: None });
    }

    /// The worker is this context from now on. The name is the guest's.
    pub(super) fn is_context(&self, number: u64, id: u32, name: String) {
        if let Some(part) = self.inner.locked().live.get_mut(&number) {
            part.who = Some(Who { id, name });
        }
    }

    /// The worker's process has ended. What it has recorded stays until the recording ends.
    pub(super) fn leave(&self, number: u64) {
        let mut inner = self.inner.locked();
        let part = inner.live.remove(&number);
        let Some(part) = part.filter(|part| inner.is_on && part.who.is_some()) else {
            return;
        };
        inner.ended.push_back(part);
        if inner.ended.len() > MOST_ENDED {
            inner.ended.pop_front();
            inner.left_out += 1;
        }
    }

    /// Begins to record in all processes.
    pub(super) fn start(&self) -> Result<(), TraceError> {
        let own = self.own.as_ref().ok_or(TraceError::NoMemory)?;
        let mut inner = self.inner.locked();
        if inner.is_on || !own.start() {
            return Err(TraceError::Started);
        }
        inner.is_on = true;
        for part in inner.live.values() {
            // Nothing is recorded there yet, since only this starts it.
            let _ = part.trace.start();
        }
        Ok(())
    }

    /// Ends the recording. Returns its file.
    pub(super) fn stop(&self) -> Result<Vec<u8>, TraceError> {
        let mut inner = self.inner.locked();
        if !std::mem::take(&mut inner.is_on) {
            return Err(TraceError::NotStarted);
        }
        let mut file = TraceFile::default();
        let own = self.own.as_ref().and_then(|own| own.stop(file.room()));
        file.add(own.unwrap_or_default());
        let ended = std::mem::take(&mut inner.ended);
        for part in ended.iter().chain(inner.live.values()) {
            let recorded = part.trace.stop(file.room());
            if let (Some(recorded), Some(who)) = (recorded, &part.who) {
                file.name(who.id, &who.name);
                file.add_context(who.id, recorded);
            }
        }
        let left_out = std::mem::take(&mut inner.left_out);
        drop(inner);
        if left_out > 0 {
            log::warn!(
                "the trace has only the last {MOST_ENDED} of the programs that ended while it was recorded; {left_out} are missing"
            );
        }
        Ok(file.to_json())
    }
}
