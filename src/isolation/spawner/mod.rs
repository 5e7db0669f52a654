//! The spawner: the process that starts and ends workers, and the main process' handle to it.
//!
//! ```text
//! let spawner = Spawner::start(options)?;  // before the sandbox
//! …                                        // the sandbox
//! spawner.watch()?;                        // its thread, which the sandbox confines
//! spawner.spawn(7, socket, budget, …);     // a worker
//! spawner.kill(7);
//! ```
//!
//! | file | what it is |
//! |---|---|
//! | [`process`] | the spawner's process |
//! | `frame.rs` | what both tell each other |
//! | `orders.rs` | what the main process has ordered: which workers load their driver, which wait |
//! | `end.rs` | how a worker ended |

mod end;
mod frame;
mod orders;
pub(crate) mod process;

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use hesper_system::sync::Lock;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::Signal;

pub(super) use self::end::End;
use self::frame::{Frame, Inbox, Received};
use self::orders::Orders;
use crate::platform;

/// How long a new spawner may take to answer.
const START: Duration = Duration::from_secs(60);

/// How often the thread looks whether a worker that waits can start.
const LOOK: Duration = Duration::from_secs(1);

/// A handler for the end of a worker.
pub(super) type Ended = Box<dyn FnOnce(End) + Send>;

/// Starts and kills workers: a [`Spawner`], or something else in tests. No call blocks.
pub(super) trait Starter: Send + Sync {
    /// Starts a worker with these two sockets. `worker` must not repeat. `ended` is called once,
    /// also if the worker cannot be started.
    fn spawn(&self, worker: u64, socket: OwnedFd, budget: OwnedFd, ended: Ended);

    /// A worker has loaded its driver, so that the next one can start.
    fn is_loaded(&self, worker: u64);

    /// Somebody waits for a worker: it starts now if it has not.
    fn hasten(&self, worker: u64);

    /// Kills a worker. Does nothing if it has ended.
    fn kill(&self, worker: u64);
}

/// The main process' handle to the spawner. Dropping it ends the spawner, and all workers.
pub(crate) struct Spawner(Arc<Shared>);

/// What callers and the thread share.
struct Shared {
    socket: UnixStream,
    /// The thread waits for bytes in `woken`.
    waker: UnixStream,
    woken: UnixStream,
    state: Mutex<State>,
}

struct State {
    orders: Orders,
    /// The handlers of workers whose end is not known yet.
    workers: HashMap<u64, Ended>,
    /// The spawner, until the thread takes it.
    child: Option<Reaped>,
    is_watched: bool,
    /// The spawner has ended.
    is_gone: bool,
    /// The handle was dropped.
    is_dropped: bool,
}

impl fmt::Debug for Spawner {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Spawner")
    }
}

impl Spawner {
    /// Starts the spawner's process, and no thread. Call this before the sandbox, which forbids to
    /// execute programs and confines everything that is started later. Each worker gets `options`.
    /// They are fixed here, before a guest is there: one that has taken the main process over
    /// cannot start a worker with less confinement.
    ///
    /// # Errors
    /// The process cannot be started, or does not answer.
    pub(crate) fn start(options: &str) -> io::Result<Arc<Self>> {
        let mut command = Command::new(platform::own_program()?);
        command
            .arg0("hesper")
            .args(["spawner", "--options", options]);
        Self::start_by(command)
    }

    /// Starts the spawner by this command. Its standard input is the socket.
    fn start_by(mut command: Command) -> io::Result<Arc<Self>> {
        let (socket, theirs) = UnixStream::pair()?;
        socket.set_nonblocking(true)?;
        let (waker, woken) = UnixStream::pair()?;
        waker.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        // A group of its own: Ctrl-C must not reach it before the main process has ended.
        let child = command
            .stdin(OwnedFd::from(theirs))
            .process_group(0)
            .spawn()?;
        let mut child = Reaped(child);
        // It has the other end of the socket.
        drop(command);
        if let Err(error) = await_ready(&socket) {
            // An error means that it has ended.
            let _ = child.0.kill();
            return Err(error);
        }
        let state = State {
            orders: Orders::new(most_loading()),
            workers: HashMap::new(),
            child: Some(child),
            is_watched: false,
            is_gone: false,
            is_dropped: false,
        };
        Ok(Arc::new(Self(Arc::new(Shared {
            socket,
            waker,
            woken,
            state: Mutex::new(state),
        }))))
    }

    /// Starts the thread that hears of workers' ends. Call this after the sandbox has started: it
    /// confines only threads that start later.
    ///
    /// # Errors
    /// The system refused the thread.
    pub(crate) fn watch(&self) -> io::Result<()> {
        let mut state = self.0.state.locked();
        if state.is_watched {
            return Ok(());
        }
        let shared = Arc::clone(&self.0);
        thread::Builder::new()
            .name("spawner".to_owned())
            .spawn(move || shared.watch())?;
        state.is_watched = true;
        Ok(())
    }
}

impl Starter for Spawner {
    /// `ended` is called by the thread of [`Self::watch`].
    fn spawn(&self, worker: u64, socket: OwnedFd, budget: OwnedFd, ended: Ended) {
        let mut state = self.0.state.locked();
        state.workers.insert(worker, ended);
        if !state.is_gone {
            state.orders.start(worker, [socket, budget], Instant::now());
        }
        self.0.flush(&mut state);
    }

    fn is_loaded(&self, worker: u64) {
        let mut state = self.0.state.locked();
        state.orders.is_loaded(worker, Instant::now());
        self.0.flush(&mut state);
    }

    fn hasten(&self, worker: u64) {
        let mut state = self.0.state.locked();
        state.orders.hasten(worker, Instant::now());
        self.0.flush(&mut state);
    }

    fn kill(&self, worker: u64) {
        let mut state = self.0.state.locked();
        if state.workers.contains_key(&worker) && !state.is_gone {
            state.orders.kill(worker);
            self.0.flush(&mut state);
        }
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        self.0.state.locked().is_dropped = true;
        // An error means that the spawner is gone.
        let _ = self.0.socket.shutdown(std::net::Shutdown::Both);
        self.0.wake();
    }
}

impl Shared {
    /// Sends what the socket takes; the thread does the rest.
    fn flush(&self, state: &mut State) {
        let failed = state.orders.flush(&self.socket).is_err();
        if failed || state.is_gone || state.orders.is_waiting() {
            self.wake();
        }
    }

    fn wake(&self) {
        // It fails only when enough bytes wait there.
        let _ = (&self.waker).write(&[0]);
    }

    /// What the thread does until the handle is dropped.
    fn watch(&self) {
        let mut inbox = Inbox::default();
        loop {
            let (interest, is_gone, limit) = {
                let mut state = self.state.locked();
                if state.is_dropped && (state.is_gone || state.workers.is_empty()) {
                    break;
                }
                state.orders.advance(Instant::now());
                // The end of the socket tells of a failure.
                let _ = state.orders.flush(&self.socket);
                let interest = match state.orders.has_unsent() {
                    false => PollFlags::IN,
                    true => PollFlags::IN | PollFlags::OUT,
                };
                let limit = state.orders.has_queued().then_some(LOOK);
                (interest, state.is_gone, limit)
            };
            let mut events = vec![PollFd::new(&self.woken, PollFlags::IN)];
            if !is_gone {
                events.push(PollFd::new(&self.socket, interest));
            }
            let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
            if let Err(error) = poll(&mut events, limit.as_ref())
                && error != Errno::INTR
            {
                // The kernel is short of memory.
                thread::sleep(Duration::from_millis(10));
            }
            let mut bytes = [0; 64];
            while (&self.woken).read(&mut bytes).is_ok_and(|count| count > 0) {}
            match is_gone {
                false => {
                    self.end_cancelled();
                    self.hear(&mut inbox);
                }
                true => self.end_all(),
            }
        }
        // Dropped without the lock.
        let child = self.state.locked().child.take();
        drop(child);
    }

    /// Reads what the spawner tells.
    fn hear(&self, inbox: &mut Inbox) {
        loop {
            let (worker, end) = match inbox.receive(&self.socket) {
                Ok(Received::Nothing) => return,
                Ok(Received::Frame(frame, _)) => match frame {
                    Frame::Exited { worker, status } => (worker, End::Exited(status)),
                    Frame::Signalled { worker, signal } => (worker, End::Signalled(signal)),
                    Frame::NotStarted { worker, error } => (worker, not_started(error)),
                    Frame::Ready | Frame::Start { .. } | Frame::Kill { .. } => continue,
                },
                Err(error) => return self.lose(&error),
            };
            self.end(worker, end);
        }
    }

    /// Tells the end of a worker, and starts the next one that waits.
    fn end(&self, worker: u64, end: End) {
        let mut state = self.state.locked();
        state.orders.is_loaded(worker, Instant::now());
        self.flush(&mut state);
        let ended = state.workers.remove(&worker);
        drop(state);
        if let Some(ended) = ended {
            ended(end);
        }
    }

    /// Tells the end of workers that were killed before they started.
    fn end_cancelled(&self) {
        let cancelled = self.state.locked().orders.take_cancelled();
        for worker in cancelled {
            self.end(worker, End::Signalled(Signal::KILL.as_raw()));
        }
    }

    /// The spawner has ended.
    fn lose(&self, error: &io::Error) {
        let is_dropped = {
            let mut state = self.state.locked();
            state.is_gone = true;
            state.orders.clear();
            state.is_dropped
        };
        if !is_dropped {
            log::error!(
                "the process that starts the guest's programs has ended ({error}): running programs may end, new ones get no GPU; start Hesper again"
            );
        }
        self.end_all();
    }

    /// Answers for all workers that the spawner is gone.
    fn end_all(&self) {
        let workers = std::mem::take(&mut self.state.locked().workers);
        for ended in workers.into_values() {
            ended(End::SpawnerGone);
        }
    }
}

/// How many workers may load their drivers at a time: as many as half of the processors, at least
/// one. More would only take the processors from those that draw.
fn most_loading() -> usize {
    thread::available_parallelism().map_or(1, |processors| (processors.get() / 2).max(1))
}

/// Waits until a new spawner says that it is there.
fn await_ready(socket: &UnixStream) -> io::Result<()> {
    let limit = Timespec::try_from(START).ok();
    loop {
        let mut events = [PollFd::new(socket, PollFlags::IN)];
        match poll(&mut events, limit.as_ref()) {
            Ok(0) => {
                let text = format!("it did not answer within {START:?}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // Frames of this size arrive whole.
    match Inbox::default().receive(socket) {
        Ok(Received::Frame(Frame::Ready, _)) => Ok(()),
        other => Err(io::Error::other(format!("it ended at once ({other:?})"))),
    }
}

/// Why a worker could not be started.
fn not_started(error: i32) -> End {
    let reason = match Errno::from_raw_os_error(error) {
        Errno::AGAIN => "the system allows no more processes (raise ulimit -u, or TasksMax= of the systemd unit)".to_owned(),
        Errno::MFILE | Errno::NFILE => {
            "the system allows no more open files (raise ulimit -n)".to_owned()
        }
        _ if error == 0 => "the system refused the process".to_owned(),
        _ => io::Error::from_raw_os_error(error).to_string(),
    };
    End::NotStarted(reason)
}

/// The spawner's process. Dropping it waits for its end, which a closed socket causes.
struct Reaped(Child);

impl Drop for Reaped {
    fn drop(&mut self) {
        if let Err(error) = self.0.wait() {
            log::debug!("the spawner was not reaped: {error}");
        }
    }
}

#[cfg(test)]
mod tests;
