//! The spawner's process: one thread that starts, kills and reaps workers.
//!
//! It holds its socket, and nothing of Hesper's: no GPU, no guest memory, no socket of the VMM. It
//! is a process of its own because Hesper's sandbox forbids Hesper to execute programs and to send
//! signals, and because a large process is slow to start others.

use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{Pid, Signal, WaitOptions, kill_process};
use signal_hook::consts::SIGCHLD;

use super::frame::{DESCRIPTORS, Frame, Inbox, Outbox, Received};
use crate::platform;

/// How long the spawner waits at its end for killed workers. One that the kernel holds is left to
/// the system.
const PATIENCE: Duration = Duration::from_secs(5);

/// A system that does not tell which descriptors are open has no more than this at the start.
const GUESS: RawFd = 1024;

/// Signals that come to all processes of a terminal, of a systemd unit or of a name. The spawner
/// and its workers end when the main process does, not by these. An ignored signal stays ignored in
/// executed programs.
const IGNORED: [libc::c_int; 6] = [
    libc::SIGINT,
    libc::SIGTERM,
    libc::SIGHUP,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGTTOU,
];

/// The program that workers execute.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) path: OsString,
    /// Arguments before those that name the descriptors.
    pub(super) arguments: Vec<OsString>,
}

impl Program {
    /// This program again, as a worker with these options.
    fn own(options: String) -> io::Result<Self> {
        Ok(Self {
            path: platform::own_program()?.into(),
            arguments: vec!["worker".into(), "--options".into(), options.into()],
        })
    }
}

/// Runs the spawner until the main process closes `socket`, which is the process' standard input.
/// Workers get `options`.
pub(crate) fn run(socket: OwnedFd, options: String) -> ExitCode {
    platform::name_process(c"hesper-spawner");
    let served = Program::own(options).and_then(|program| serve(socket.into(), program));
    match served {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hesper: the process that starts others failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves orders until the other end of `socket` is closed.
///
/// # Errors
/// The system refused what the spawner needs.
pub(super) fn serve(socket: UnixStream, program: Program) -> io::Result<()> {
    close_others(socket.as_raw_fd());
    for signal in IGNORED {
        // SAFETY: no handler is installed. The call cannot fail for these signals.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    socket.set_nonblocking(true)?;
    let (deaths, writer) = UnixStream::pair()?;
    deaths.set_nonblocking(true)?;
    signal_hook::low_level::pipe::register(SIGCHLD, writer)?;
    let mut spawner = Process {
        socket,
        program,
        workers: HashMap::new(),
        outbox: Outbox::default(),
        inbox: Inbox::default(),
    };
    spawner.outbox.push(Frame::Ready, Vec::new());
    while spawner.step(&deaths).is_ok() {}
    spawner.end(&deaths);
    Ok(())
}

/// Closes all descriptors but the standard ones and `kept`. Only descriptors that Hesper was
/// started with can be there, such as that of `--fd`.
fn close_others(kept: RawFd) {
    // Containers may lack the first, and other systems than Linux have no other.
    let folder = std::fs::read_dir("/dev/fd").or_else(|_| std::fs::read_dir("/proc/self/fd"));
    let open: Vec<RawFd> = match folder {
        Ok(folder) => folder
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect(),
        Err(_) => (3..GUESS).collect(),
    };
    for descriptor in open.into_iter().filter(|open| *open > 2 && *open != kept) {
        // SAFETY: nothing in this process uses it: the spawner has opened nothing yet. The folder's
        // own descriptor is closed already, and nothing else has its number: there is one thread.
        unsafe { libc::close(descriptor) };
    }
}

struct Process {
    socket: UnixStream,
    program: Program,
    /// The processes that are not reaped yet. So no other process can have their ids.
    workers: HashMap<Pid, u64>,
    outbox: Outbox,
    inbox: Inbox,
}

impl Process {
    /// Waits for something to do and does it.
    ///
    /// # Errors
    /// The main process is gone.
    fn step(&mut self, deaths: &UnixStream) -> io::Result<()> {
        self.outbox.flush(&self.socket)?;
        let mut interest = PollFlags::IN;
        if !self.outbox.is_empty() {
            interest |= PollFlags::OUT;
        }
        wait(
            &mut [
                PollFd::new(&self.socket, interest),
                PollFd::new(deaths, PollFlags::IN),
            ],
            None,
        );
        self.reap(deaths);
        while let Received::Frame(frame, descriptors) = self.inbox.receive(&self.socket)? {
            match frame {
                Frame::Start { worker } => self.start(worker, descriptors),
                Frame::Kill { worker } => self.kill(worker),
                // Only this process sends the others.
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
        Ok(())
    }

    fn start(&mut self, worker: u64, descriptors: Vec<OwnedFd>) {
        match self.execute(&descriptors) {
            Ok(process) => {
                self.workers.insert(process, worker);
            }
            Err(error) => {
                let error = error.raw_os_error().unwrap_or_default();
                let failed = Frame::NotStarted { worker, error };
                self.outbox.push(failed, Vec::new());
            }
        }
    }

    /// Executes the program with these descriptors.
    fn execute(&self, descriptors: &[OwnedFd]) -> io::Result<Pid> {
        let [socket, budget] = descriptors else {
            // The kernel drops descriptors that this process cannot take.
            return Err(Errno::MFILE.into());
        };
        const { assert!(DESCRIPTORS == 2) };
        for descriptor in [socket, budget] {
            // There is one thread, so no other program gets them.
            fcntl_setfd(descriptor, FdFlags::empty())?;
        }
        let child = Command::new(&self.program.path)
            .arg0("hesper")
            .args(&self.program.arguments)
            .args(["--socket-fd", &socket.as_raw_fd().to_string()])
            .args(["--budget-fd", &budget.as_raw_fd().to_string()])
            .stdin(Stdio::null())
            .spawn()?;
        Ok(Pid::from_child(&child))
    }

    /// Kills a worker, unless it has ended.
    fn kill(&self, worker: u64) {
        let found = self.workers.iter().find(|(_, known)| **known == worker);
        if let Some((process, _)) = found {
            // It fails only for a process that is already dead.
            let _ = kill_process(*process, Signal::KILL);
        }
    }

    /// Reaps all processes that have ended.
    fn reap(&mut self, mut deaths: &UnixStream) {
        use std::io::Read;

        let mut signals = [0; 64];
        while deaths.read(&mut signals).is_ok_and(|count| count > 0) {}
        // An error means that there is no child.
        while let Ok(Some((process, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let Some(worker) = self.workers.remove(&process) else {
                continue;
            };
            let ended = match status.terminating_signal() {
                Some(signal) => Frame::Signalled { worker, signal },
                None => Frame::Exited {
                    worker,
                    status: status.exit_status().unwrap_or_default(),
                },
            };
            self.outbox.push(ended, Vec::new());
        }
    }

    /// Ends all workers.
    fn end(&mut self, deaths: &UnixStream) {
        for process in self.workers.keys() {
            let _ = kill_process(*process, Signal::KILL);
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.reap(deaths);
            let left = deadline.saturating_duration_since(Instant::now());
            if self.workers.is_empty() || left.is_zero() {
                return;
            }
            wait(&mut [PollFd::new(deaths, PollFlags::IN)], Some(left));
        }
    }
}

/// Waits for one of `events`, at most for `limit`. Returns early on a signal.
fn wait(events: &mut [PollFd<'_>], limit: Option<Duration>) {
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    if let Err(error) = poll(events, limit.as_ref())
        && error != Errno::INTR
    {
        // The kernel is short of memory.
        std::thread::sleep(Duration::from_millis(10));
    }
}
