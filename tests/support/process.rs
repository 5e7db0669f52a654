//! Child processes of a test.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

/// How long anything in these tests may take before it counts as hung. Emulated guests are slow,
/// and the machine may be busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// Whether `right` becomes true within [`PATIENCE`]. It is called ten times a second.
pub fn comes_true(mut right: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if right() {
            return true;
        }
        sleep(Duration::from_millis(100));
    }
    false
}

/// The path of a script of `tests/env`.
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

/// The lines of a child's output as they arrive. They end when the output ends or the receiver is
/// dropped.
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

/// The threads and descriptors of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub threads: usize,
    pub descriptors: usize,
}

/// A child process and what it printed on standard error. Dropping it ends the process.
pub struct Process {
    name: String,
    child: Child,
    errors: Arc<Mutex<String>>,
}

impl Process {
    /// Takes over `child`, whose standard error must be a pipe.
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

    /// All that the process printed on standard error up to now.
    pub fn errors(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    /// The child itself.
    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// The id of the process.
    pub fn id(&self) -> u32 {
        self.child.id()
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

    /// How many mappings of this file the process has.
    pub fn mappings(&self, file: &str) -> usize {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.child.id()));
        maps.unwrap().matches(file).count()
    }

    /// The names of the process's threads.
    pub fn threads(&self) -> Vec<String> {
        let folder = format!("/proc/{}/task", self.child.id());
        let tasks = std::fs::read_dir(folder).into_iter().flatten();
        tasks
            .map_while(Result::ok)
            .filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok())
            .map(|name| name.trim().to_owned())
            .collect()
    }

    /// The processes that this one has started, and those that these have started.
    pub fn descendants(&self) -> Vec<u32> {
        descendants(self.child.id())
    }

    /// Seconds of processor time that the process has used.
    pub fn cpu(&self) -> f64 {
        cpu_of(self.child.id())
    }

    /// The same for it and all processes that it and they have started, those that have ended
    /// included.
    pub fn cpu_of_all(&self) -> f64 {
        let mut all = self.descendants();
        all.push(self.child.id());
        // The times of children that ended and were waited for are the fields 16 and 17.
        all.iter().map(|id| seconds(*id, 12..16)).sum()
    }

    /// The same for its child process whose name starts with `name`.
    pub fn cpu_of_child(&self, name: &str) -> f64 {
        let processes = std::fs::read_dir("/proc").unwrap().map_while(Result::ok);
        let mut ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let parent = self.child.id().to_string();
        let child = ids.find(|id| {
            let stat = stat(*id);
            stat.first()
                .is_some_and(|program| program.starts_with(name))
                && stat.get(2) == Some(&parent)
        });
        cpu_of(child.unwrap_or_else(|| panic!("{} has no child {name}", self.name)))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, signal).expect("the process can be signalled");
    }

    /// Waits for the end and returns the exit status. Fails the test if the process does not end
    /// within `limit`.
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

    /// Kills the process. It cannot clean up, as after a crash.
    pub fn kill(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether the process still runs.
    pub fn alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits until `ready` is true. Fails the test if the process ends first, or after
    /// [`PATIENCE`].
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
        // The process may clean up first. The scripts of tests/env pass the signal on.
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

/// The fields of /proc/PID/stat from the program's name on. Empty if there is no such process.
fn stat(id: u32) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    // The name is in parentheses and may have any character.
    let (Some(begin), Some(end)) = (text.find('('), text.rfind(')')) else {
        return Vec::new();
    };
    let rest = text[end + 1..].split_whitespace();
    std::iter::once(&text[begin + 1..end])
        .chain(rest)
        .map(str::to_owned)
        .collect()
}

/// The processes that a process has started, and those that these have started.
pub fn descendants(id: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").unwrap().map_while(Result::ok);
    let parents: Vec<(u32, u32)> = processes
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|id| Some((id, stat(id).get(2)?.parse().ok()?)))
        .collect();
    let mut found = vec![id];
    let mut at = 0;
    while at < found.len() {
        let children = parents.iter().filter(|(_, parent)| *parent == found[at]);
        let children: Vec<_> = children.map(|(id, _)| *id).collect();
        found.extend(children);
        at += 1;
    }
    found.split_off(1)
}

fn cpu_of(id: u32) -> f64 {
    // utime and stime are the fields 14 and 15 of the file. The name is field 2.
    seconds(id, 12..14)
}

/// The sum of some fields of /proc/PID/stat, in seconds. 0 if there is no such process.
fn seconds(id: u32, fields: std::ops::Range<usize>) -> f64 {
    let stat = stat(id);
    let fields = stat.get(fields).unwrap_or_default();
    let ticks = fields.iter().map(|field| field.parse::<f64>().unwrap());
    ticks.sum::<f64>() / rustix::param::clock_ticks_per_second() as f64
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
