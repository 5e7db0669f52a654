//! Child processes of a test.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

/// How long anything in these tests may take before it counts as hung: emulated guests are slow, and the
/// machine may be busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A file of the test environment.
pub fn environment(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/env")
        .join(file)
}

/// A command that runs `program` with the host programs of the test environment.
pub fn in_environment(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(environment("run"));
    command.arg(program);
    command
}

/// The lines of a child's output as they come, until it ends or nobody wants them.
pub fn lines(stream: impl Read + Send + 'static) -> Receiver<String> {
    let lines = BufReader::new(stream).lines();
    let (sender, receiver) = channel();
    spawn(move || {
        lines
            .map_while(Result::ok)
            .try_for_each(|line| sender.send(line))
    });
    receiver
}

/// What a process holds of the system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub threads: usize,
    pub descriptors: usize,
}

/// A child that is ended with its value, and what it printed on standard error.
pub struct Process {
    name: String,
    child: Child,
    errors: Arc<Mutex<String>>,
}

impl Process {
    /// Takes charge of `child`, whose standard error is a pipe.
    pub fn new(name: &str, mut child: Child) -> Self {
        let errors = Arc::new(Mutex::new(String::new()));
        let stream = child.stderr.take().expect("standard error is a pipe");
        collect(stream, Arc::clone(&errors));
        Self {
            name: name.to_owned(),
            child,
            errors,
        }
    }

    /// Everything printed on standard error up to now.
    pub fn errors(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    /// The child itself.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// How many threads the process has, and how many descriptors are open in it.
    pub fn usage(&self) -> Usage {
        let count = |what: &str| {
            let folder = format!("/proc/{}/{what}", self.child.id());
            std::fs::read_dir(folder).map_or(0, Iterator::count)
        };
        Usage {
            threads: count("task"),
            descriptors: count("fd"),
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).expect("the process can be signalled");
    }

    /// Waits for the end and returns the exit status; fails the test when it does not come.
    pub fn wait(&mut self, limit: Duration) -> std::process::ExitStatus {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                Instant::now() < until,
                "{} does not end:\n{}",
                self.name,
                self.errors()
            );
            sleep(Duration::from_millis(5));
        }
    }

    /// Ends the process without a chance to clean up, as a crash does.
    pub fn kill(&mut self) {
        // A process that has ended already is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether the process still runs.
    pub fn alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until `ready` is true; fails the test when the process ends first or time is up.
    pub fn until(&mut self, what: &str, mut ready: impl FnMut() -> bool) {
        let until = Instant::now() + PATIENCE;
        while !ready() {
            let ended = self.child.try_wait().unwrap();
            assert!(
                ended.is_none(),
                "{} ended with {ended:?}:\n{}",
                self.name,
                self.errors()
            );
            assert!(
                Instant::now() < until,
                "{}: no {what} yet:\n{}",
                self.name,
                self.errors()
            );
            sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A chance to clean up first: the environment's wrapper hands the signal on.
        if self.alive() {
            self.signal(rustix::process::Signal::TERM);
            let until = Instant::now() + Duration::from_secs(3);
            while self.alive() && Instant::now() < until {
                sleep(Duration::from_millis(10));
            }
            self.kill();
        }
        if std::thread::panicking() {
            eprintln!("--- {} said:\n{}", self.name, self.errors());
        }
    }
}

fn collect(stream: impl Read + Send + 'static, into: Arc<Mutex<String>>) {
    spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            let mut text = into.lock().unwrap();
            text.push_str(&line);
            text.push('\n');
        }
    });
}
