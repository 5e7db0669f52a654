//! [`Worker`]: a worker's process, as the main process has it. The device's threads send to it; one
//! thread for each worker ([`super::serve`]) hears what it says.
//!
//! No lock of this module is held while [`hesper_venus::ContextEvents`] are called: the device may
//! call the context again from inside, and from any thread.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use hesper_system::budget::Charge;
use hesper_system::sync::{Lock, Wait};
use hesper_venus::trace::Trace;
use hesper_venus::{Bells, Report};

use super::blobs::Asked;
use super::books::Books;
use super::fences::Fences;
use super::house::House;
use super::incoming::{Incoming, Letter, News, Readable, Stop};
use super::outgoing::{Outgoing, Refused};
use super::state::{Owner, State};
use super::wake::Wake;
use crate::isolation::message::ToWorker;
use crate::isolation::spawner::End;

/// How long a worker may take to end.
pub(super) const GRACE: Duration = Duration::from_secs(3);
/// How long the end of a process is waited for that was killed.
pub(super) const KILL_PATIENCE: Duration = Duration::from_secs(1);
/// How long any worker may take for an answer, unless it has been slow before.
const LEAST: Duration = Duration::from_millis(20);
/// How often a thread that waits for an answer reads what has come.
const SLICE: Duration = Duration::from_millis(1);

/// A worker's process.
pub(super) struct Worker {
    number: u64,
    pub(super) house: Arc<House>,
    control: Arc<UnixStream>,
    budget: Arc<UnixStream>,
    pub(super) wake: Wake,
    outgoing: Mutex<Outgoing>,
    incoming: Mutex<Incoming>,
    pub(super) fences: Fences,
    pub(super) asked: Asked,
    pub(super) books: Arc<Books>,
    pub(super) report: Report,
    /// Wakes the threads of its rings.
    pub(super) bells: Bells,
    /// What it records, in memory that it writes.
    trace: Trace,
    state: Mutex<State>,
    changed: Condvar,
}

impl Worker {
    /// A worker that is not started, and its ends of the sockets.
    ///
    /// # Errors
    /// There are no descriptors left.
    pub(super) fn new(house: &Arc<House>) -> Result<(Arc<Self>, OwnedFd, OwnedFd), String> {
        let system = |error: std::io::Error| error.to_string();
        let (control, far_control) = UnixStream::pair().map_err(system)?;
        let (budget, far_budget) = UnixStream::pair().map_err(system)?;
        let (control, budget) = (Arc::new(control), Arc::new(budget));
        let books = house.pools.open(&house.limits);
        let worker = Arc::new(Self {
            number: house.number(),
            wake: Wake::new().map_err(system)?,
            report: Report::create().map_err(|error| error.to_string())?,
            bells: Bells::create().map_err(|error| error.to_string())?,
            trace: Trace::create().map_err(|error| error.to_string())?,
            outgoing: Mutex::new(Outgoing::new(
                Arc::clone(&control),
                Arc::clone(&books),
                &house.limits,
            )),
            incoming: Mutex::new(Incoming::new(
                Arc::clone(&control),
                Arc::clone(&budget),
                Arc::clone(&books),
            )),
            house: Arc::clone(house),
            control,
            budget,
            fences: Fences::default(),
            asked: Asked::default(),
            books,
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        Ok((worker, far_control.into(), far_budget.into()))
    }

    /// Starts the process. Its end is noted when it comes.
    pub(super) fn spawn(self: &Arc<Self>, control: OwnedFd, budget: OwnedFd) {
        self.house.census.enter(self.number, self.report.clone());
        self.house.traces.enter(self.number, self.trace.clone());
        let worker = Arc::clone(self);
        let ended = Box::new(move |end| worker.has_ended(end));
        self.house
            .starter
            .spawn(self.number, control, budget, ended);
        let configure = ToWorker::Configure(self.house.findings().to_vec());
        self.send(
            configure,
            Charge::default(),
            &[self.report.fd(), self.trace.fd(), self.bells.fd()],
        );
    }

    /// The process has ended.
    fn has_ended(&self, end: End) {
        self.books.close();
        let mut state = self.state();
        state.end = Some(end);
        drop(state);
        self.changed.notify_all();
        self.house.census.leave(self.number);
        self.house.traces.leave(self.number);
        self.wake.set();
    }

    /// Its number, which no other worker has.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Where it is in its life.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.locked()
    }

    /// Makes it a context.
    ///
    /// # Errors
    /// It is gone already.
    pub(super) fn begin(&self, owner: Owner) -> Result<(), Owner> {
        let begin = ToWorker::Begin {
            id: owner.id,
            name: owner.name.clone(),
            server: owner.server,
        };
        let mut state = self.state();
        if state.is_closed || state.end.is_some() || state.is_ending() {
            return Err(owner);
        }
        let (id, name) = (owner.id, owner.name.clone());
        state.owner = Some(Arc::new(owner));
        drop(state);
        self.house.census.is_context(self.number);
        self.house.traces.is_context(self.number, id, name);
        self.send(begin, Charge::default(), &[]);
        Ok(())
    }

    /// Sends a message, without waiting. A worker that takes no more is ended.
    pub(super) fn send(&self, message: ToWorker, charge: Charge, fds: &[BorrowedFd<'_>]) {
        let sent = self.outgoing.locked().send(message, charge, fds);
        match sent {
            Ok(false) => {}
            Ok(true) => self.wake.set(),
            Err(Refused::Full(messages, bytes)) => self.doom(&format!(
                "its process does not take its commands: {messages} with {bytes} bytes wait"
            )),
            // Its end follows, and tells more.
            Err(Refused::Failed(error)) => {
                log::debug!("worker {} cannot be written to: {error}", self.number);
            }
        }
    }

    /// Sends what waits for the socket.
    pub(super) fn flush(&self) {
        if let Err(refused) = self.outgoing.locked().flush() {
            log::debug!("worker {} cannot be written to: {refused:?}", self.number);
        }
    }

    /// Whether something waits for the socket.
    pub(super) fn has_outgoing(&self) -> bool {
        self.outgoing.locked().waits()
    }

    /// Sends nothing any more.
    pub(super) fn stop_sending(&self) {
        self.outgoing.locked().close();
    }

    /// The worker says that it has consumed so many bytes. False when there were not so many.
    #[must_use]
    pub(super) fn consumed(&self, bytes: u64) -> bool {
        self.outgoing.locked().consumed(bytes)
    }

    /// Reads some of what has come, without waiting. Returns how many messages and questions came.
    ///
    /// # Errors
    /// An answer for which nobody waits.
    pub(super) fn read(&self, what: Readable) -> Result<usize, Stop> {
        let News { count, answered } = self.incoming.locked().read(what);
        if answered.is_empty() {
            return Ok(count);
        }
        let mut state = self.state();
        let wrong = answered.into_iter().find(|ticket| !state.answered(*ticket));
        drop(state);
        self.changed.notify_all();
        match wrong {
            None => Ok(count),
            Some(ticket) => Err(Stop::Broken(format!("an answer to no question {ticket}"))),
        }
    }

    /// The oldest message that was read.
    pub(super) fn next(&self) -> Option<Letter> {
        self.incoming.locked().next()
    }

    /// Why no message comes any more, when all were taken.
    pub(super) fn stop(&self) -> Option<Stop> {
        self.incoming.locked().stop().cloned()
    }

    /// The sockets to wait for. That for questions may be closed.
    pub(super) fn sockets(&self) -> (BorrowedFd<'_>, Option<BorrowedFd<'_>>) {
        let asks = self.incoming.locked().asks();
        let budget = asks.then(|| self.budget.as_fd());
        (self.control.as_fd(), budget)
    }

    /// Ends the worker at once, for this reason.
    pub(super) fn doom(&self, reason: &str) {
        let mut state = self.state();
        if state.doom.is_none() {
            state.doom = Some(reason.to_owned());
        }
        drop(state);
        self.kill();
    }

    /// Kills the process, if it lives.
    pub(super) fn kill(&self) {
        self.stop_sending();
        self.house.starter.kill(self.number);
        self.wake.set();
    }

    /// Tells the worker to end. One that still loads the driver is killed: it has nothing that must
    /// be destroyed, and guests can make and drop contexts in a loop.
    pub(super) fn end(&self) {
        let is_ready = {
            let mut state = self.state();
            // Noted before: the worker may end at once.
            state.due.get_or_insert(Instant::now() + GRACE);
            state.is_ready
        };
        match is_ready {
            true => self.send(ToWorker::End, Charge::default(), &[]),
            false => self.kill(),
        }
        self.wake.set();
    }

    /// Kills a worker that nobody needs.
    pub(super) fn discard(&self) {
        self.state().due.get_or_insert(Instant::now() + GRACE);
        self.kill();
    }

    /// Sends a message with a ticket, and waits until the worker answers or its process has ended:
    /// the guest has its memory back then. A worker that takes too long is killed.
    pub(super) fn ask(&self, message: impl FnOnce(u32) -> ToWorker) {
        let ticket = self.state().ticket();
        let begin = Instant::now();
        let until = begin + self.patience(begin);
        self.send(message(ticket), Charge::default(), &[]);
        self.house.starter.hasten(self.number);
        while self.waits_for(ticket, until) {
            // Its thread may be inside of the device, and the device waits here.
            if let Err(Stop::Broken(rule)) = self.read(Readable::ALL) {
                self.doom(&rule);
            }
            self.wake.set();
        }
        let now = Instant::now();
        self.state().patience.take(now - begin, now);
        self.house.patience.locked().take(now - begin, now);
        let is_over = self.state().is_over(ticket);
        if !is_over && self.wait_for_end(KILL_PATIENCE).is_none() {
            log::error!(
                "the process of a context does not end; it may still use memory that its guest uses for something else"
            );
        }
    }

    /// How long the worker may take for an answer.
    fn patience(&self, now: Instant) -> Duration {
        let own = self.state().patience.left(now);
        // Workers that a guest has made one after the other do not get a second each.
        own.min(self.house.patience.locked().left(now).max(LEAST))
    }

    /// Waits a moment for an answer. False when no longer: it is there, or will not come.
    fn waits_for(&self, ticket: u32, until: Instant) -> bool {
        let is_early = |state: &mut State| !state.is_over(ticket) && state.doom.is_none();
        let state = self.state();
        let slice = SLICE.min(until.saturating_duration_since(Instant::now()));
        let (mut state, _) = self.changed.waited_while(state, slice, is_early);
        if !is_early(&mut state) {
            return false;
        }
        drop(state);
        if Instant::now() >= until {
            self.doom("its process did not give back the guest's memory in time");
            return false;
        }
        true
    }

    /// Waits for the end of the process, for at most `patience`.
    pub(super) fn wait_for_end(&self, patience: Duration) -> Option<End> {
        let state = self.state();
        let is_early = |state: &mut State| state.end.is_none();
        let (state, _) = self.changed.waited_while(state, patience, is_early);
        state.end.clone()
    }
}
