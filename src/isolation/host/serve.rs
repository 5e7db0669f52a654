//! The thread of a worker in the main process: hears what the worker says, and reports it.

use std::os::fd::{AsFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use hesper_venus::BlobError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::blobs::{self, Flaw, Loan};
use super::death::{self, Why};
use super::incoming::{BATCH, Letter, Readable, Stop};
use super::logs::clean;
use super::rings::Rings;
use super::state::Owner;
use super::worker::Worker;
use crate::isolation::message::{FromWorker, Piece, Refusal, ToWorker};
use hesper_system::budget::Charge;

/// No worker has a reason to say more than this in a [`PERIOD`].
const MOST: usize = 10_000;
/// See [`MOST`].
const PERIOD: Duration = Duration::from_millis(100);
/// How often a worker is still read that has ended: more than a socket holds.
const LAST_WORDS: usize = 4096;

/// Starts the thread.
///
/// # Errors
/// The system has no thread left.
pub(super) fn start(worker: &Arc<Worker>) -> std::io::Result<()> {
    let of_thread = Arc::clone(worker);
    thread::Builder::new()
        .name(format!("worker-{}", worker.number()))
        .spawn(move || run(&of_thread))
        .map(drop)
}

/// Serves a worker until its end.
fn run(worker: &Arc<Worker>) {
    let mut service = Service {
        worker,
        owner: None,
        rings: Rings::default(),
        was_lost: false,
        period: (Instant::now(), 0),
        readable: Readable::ALL,
        last_words: LAST_WORDS,
    };
    // A panic costs this context, not the process.
    let served = catch_unwind(AssertUnwindSafe(|| service.run()));
    let why = served.unwrap_or_else(|_| Why::Doomed("Hesper has a fault of its own".to_owned()));
    death::end(worker, &mut service.rings, &why, service.was_lost);
}

struct Service<'a> {
    worker: &'a Arc<Worker>,
    /// The context, once it is known.
    owner: Option<Arc<Owner>>,
    rings: Rings,
    /// The worker has said that the context is lost.
    was_lost: bool,
    /// When the period began, and what the worker has said since.
    period: (Instant, usize),
    /// What to read next.
    readable: Readable,
    /// How often a worker is still read that has ended.
    last_words: usize,
}

impl Service<'_> {
    /// Returns why the worker is served no more.
    fn run(&mut self) -> Why {
        loop {
            if let Err(why) = self.step() {
                return why;
            }
        }
    }

    /// Carries out what has come, and waits for more.
    fn step(&mut self) -> Result<(), Why> {
        let (due, has_ended) = {
            let state = self.worker.state();
            if let Some(reason) = &state.doom {
                return Err(Why::Doomed(reason.clone()));
            }
            (state.due, state.end.is_some())
        };
        let patience = due.map(|due| due.saturating_duration_since(Instant::now()));
        let read = self.worker.read(self.readable).map_err(why)?;
        while let Some(letter) = self.worker.next() {
            self.hear(letter)?;
        }
        if let Some(stop) = self.worker.stop() {
            return Err(why(stop));
        }
        if has_ended {
            // Usually it stops before. Somebody else may still have its socket.
            self.last_words = self.last_words.saturating_sub(1);
            if read == 0 || self.last_words == 0 {
                return Err(Why::Gone);
            }
        } else if patience.is_some_and(|patience| patience.is_zero()) {
            return Err(Why::Late);
        }
        self.slow_down(read);
        // What is in memory already does not end a wait.
        if read < BATCH && !has_ended {
            self.wait(patience);
        }
        Ok(())
    }

    /// Waits until something has come, may be sent, or has changed.
    fn wait(&mut self, patience: Option<Duration>) {
        let worker = self.worker;
        let (control, questions) = worker.sockets();
        let mut wanted = PollFlags::IN;
        if worker.has_outgoing() {
            wanted |= PollFlags::OUT;
        }
        let wake = worker.wake.as_fd();
        let mut fds = [
            PollFd::from_borrowed_fd(wake, PollFlags::IN),
            PollFd::from_borrowed_fd(control, wanted),
            PollFd::from_borrowed_fd(questions.unwrap_or(wake), PollFlags::IN),
        ];
        let timeout = patience.and_then(|patience| Timespec::try_from(patience).ok());
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                log::error!("the sockets of a context's process cannot be waited for: {error}");
                // Not in a loop that takes a whole processor.
                thread::sleep(PERIOD);
            }
        }
        let [woken, control, questions] = fds.map(|fd| fd.revents());
        let is_woken = !woken.is_empty();
        if is_woken {
            worker.wake.clear();
        }
        if control.contains(PollFlags::OUT) {
            worker.flush();
        }
        self.readable = Readable {
            control: is_woken || !(control - PollFlags::OUT).is_empty(),
            questions: is_woken || !questions.is_empty(),
        };
    }

    /// Keeps a worker that says too much from taking a whole processor of this process.
    fn slow_down(&mut self, count: usize) {
        let (begin, said) = &mut self.period;
        *said += count;
        let elapsed = begin.elapsed();
        if elapsed < PERIOD && *said < MOST {
            return;
        }
        if elapsed < PERIOD {
            thread::sleep(PERIOD - elapsed);
        }
        self.period = (Instant::now(), 0);
    }

    /// Carries out a message.
    fn hear(&mut self, (message, fds): Letter) -> Result<(), Why> {
        let message = match message {
            FromWorker::Ready => return self.ready(),
            FromWorker::Unable(reason) => {
                // Perhaps the host's drivers have changed. The next one looks at all of them.
                self.worker.house.is_tested.store(false, Ordering::SeqCst);
                return Err(Why::Unable(clean(&reason).into_owned()));
            }
            FromWorker::Log { level, line } => {
                self.worker.house.logs.write_at(level, &line);
                return Ok(());
            }
            message => message,
        };
        let owner = self.owner()?;
        match message {
            FromWorker::FenceRetired { ring, fence } => self.retire(&owner, ring, fence),
            FromWorker::BlobCreated {
                resource,
                serial,
                memory,
            } => self.blob(&owner, resource, serial, memory, fds),
            FromWorker::BlobRefused {
                resource,
                kind,
                reason,
            } => self.refuse(&owner, resource, kind, &reason),
            FromWorker::RingCreated { ring, status } => {
                let fd = fds.into_iter().next();
                let fd = fd.ok_or_else(|| broken("a ring without memory"))?;
                let most = self.worker.house.limits.rings;
                let piece = self.worker.books.piece();
                let inserted = self.rings.insert(ring, status, fd, most, piece);
                inserted.map_err(Why::Broken)
            }
            FromWorker::RingDestroyed { ring } => self.rings.remove(ring).map_err(Why::Broken),
            FromWorker::Consumed { bytes } => match self.worker.consumed(bytes) {
                true => Ok(()),
                false => Err(broken("it consumed more commands than it got")),
            },
            FromWorker::Lost(reason) => {
                if std::mem::replace(&mut self.was_lost, true) {
                    return Err(broken("it is lost a second time"));
                }
                owner.events.lost(&clean(&reason));
                Ok(())
            }
            FromWorker::Ended if self.worker.state().is_ending() => Ok(()),
            FromWorker::Ended => Err(broken("it ended without being told")),
            FromWorker::Ready
            | FromWorker::Unable(_)
            | FromWorker::Log { .. }
            | FromWorker::Detached { .. } => Ok(()),
        }
    }

    fn ready(&self) -> Result<(), Why> {
        let mut state = self.worker.state();
        if std::mem::replace(&mut state.is_ready, true) {
            return Err(broken("it is ready a second time"));
        }
        drop(state);
        let house = &self.worker.house;
        house.starter.is_loaded(self.worker.number());
        house.is_tested.store(true, Ordering::SeqCst);
        house.spare_failed.store(false, Ordering::SeqCst);
        Ok(())
    }

    /// The context that the worker is.
    fn owner(&mut self) -> Result<Arc<Owner>, Why> {
        if self.owner.is_none() {
            self.owner = self.worker.state().owner.clone();
        }
        let owner = self.owner.clone();
        owner.ok_or_else(|| broken("it speaks as a context, and is none"))
    }

    fn retire(&self, owner: &Owner, ring: u8, fence: u64) -> Result<(), Why> {
        let fences = &self.worker.fences;
        let count = fences.count_up_to(ring, fence);
        let count = count
            .ok_or_else(|| broken(format!("fence {fence} of timeline {ring}, which is none")))?;
        for _ in 0..count {
            if let Some(fence) = fences.pop(ring) {
                owner.retire(ring, fence);
            }
        }
        Ok(())
    }

    fn blob(
        &self,
        owner: &Owner,
        resource: u32,
        serial: u64,
        memory: Piece,
        fds: Vec<OwnedFd>,
    ) -> Result<(), Why> {
        let worker = self.worker;
        let request = worker.asked.get(resource);
        let request = request.ok_or_else(|| unasked(resource))?;
        let fd = fds.into_iter().next();
        let fd = fd.ok_or_else(|| broken("a blob without memory"))?;
        let loan = Loan::new(worker, serial);
        let blob = match blobs::check(&request, memory, fd, &worker.books, loan) {
            Ok(blob) => Ok(blob),
            // The context's end answers the request.
            Err(Flaw::Broken(rule)) => return Err(Why::Broken(rule)),
            Err(Flaw::Short(what)) => {
                let ticket = 0;
                let detach = ToWorker::Detach { resource, ticket };
                worker.send(detach, Charge::default(), &[]);
                Err(BlobError::OutOfMemory(format!("too few {what} are left")))
            }
        };
        worker.asked.take(resource);
        owner.events.blob_created(resource, blob);
        Ok(())
    }

    fn refuse(&self, owner: &Owner, resource: u32, kind: Refusal, reason: &str) -> Result<(), Why> {
        let asked = self.worker.asked.take(resource);
        asked.ok_or_else(|| unasked(resource))?;
        let reason = clean(reason).into_owned();
        let error = match kind {
            Refusal::Invalid => BlobError::Invalid(reason),
            Refusal::OutOfMemory => BlobError::OutOfMemory(reason),
            Refusal::Lost => BlobError::Lost(reason),
        };
        owner.events.blob_created(resource, Err(error));
        Ok(())
    }
}

fn broken(rule: impl Into<String>) -> Why {
    Why::Broken(rule.into())
}

fn unasked(resource: u32) -> Why {
    broken(format!("a blob {resource}, which nobody has asked for"))
}

fn why(stop: Stop) -> Why {
    match stop {
        Stop::Gone => Why::Gone,
        Stop::Broken(rule) => Why::Broken(rule),
    }
}
