//! The spawner as a process, with shells as workers. A shell carries out the line that it reads
//! from its socket.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};

use super::process::{self, Program};
use super::*;
use crate::inherited::inherited;

/// Longest wait for something that comes.
const PATIENCE: Duration = Duration::from_secs(60);
/// The program of workers, for a process that is a spawner.
const PROGRAM: &str = "HESPER_TEST_WORKER";
/// How many descriptors a spawner may have.
const DESCRIPTORS: &str = "HESPER_TEST_DESCRIPTORS";

/// No test: the process that the tests start as their spawner.
#[test]
fn the_process_of_a_spawner() {
    let Some(path) = std::env::var_os(PROGRAM) else {
        return;
    };
    if let Ok(most) = std::env::var(DESCRIPTORS) {
        let limit = Rlimit {
            current: Some(most.parse().unwrap()),
            ..getrlimit(Resource::Nofile)
        };
        setrlimit(Resource::Nofile, limit).unwrap();
    }
    // `$2` is the number of the socket. The limit on descriptors is the spawner's.
    let script = r#"ulimit -S -n 64; eval "read -r line <&$2"; eval "$line""#;
    let program = Program {
        path,
        arguments: ["-c", script, "worker"].map(Into::into).to_vec(),
    };
    let served = process::serve(inherited(libc::STDIN_FILENO).unwrap().into(), program);
    std::process::exit(i32::from(served.is_err()));
}

fn spawner_with(program: &str, variables: &[(&str, String)]) -> Arc<Spawner> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "--nocapture", "--test-threads=1"])
        .arg("isolation::spawner::tests::the_process_of_a_spawner")
        .env(PROGRAM, program)
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .stdout(Stdio::null());
    let spawner = Spawner::start_by(command).unwrap();
    spawner.watch().unwrap();
    spawner
}

fn spawner() -> Arc<Spawner> {
    spawner_with("/bin/sh", &[])
}

struct Worker {
    id: u64,
    socket: UnixStream,
    end: Receiver<End>,
}

impl Worker {
    fn start(spawner: &Spawner, id: u64) -> Self {
        let (socket, theirs) = UnixStream::pair().unwrap();
        let (_, budget) = UnixStream::pair().unwrap();
        let (sender, end) = channel();
        // A test may end before its workers.
        let tell = move |end| drop(sender.send(end));
        spawner.spawn(id, theirs.into(), budget.into(), Box::new(tell));
        Self { id, socket, end }
    }

    fn order(&self, line: &str) {
        (&self.socket)
            .write_all(format!("{line}\n").as_bytes())
            .unwrap();
    }

    /// The id of its process.
    fn process(&self) -> Pid {
        self.order(r#"echo $$ >&$2; eval "read -r line <&$2"; eval "$line""#);
        let mut line = String::new();
        self.socket.set_read_timeout(Some(PATIENCE)).unwrap();
        BufReader::new(&self.socket).read_line(&mut line).unwrap();
        Pid::from_raw(line.trim().parse().unwrap()).unwrap()
    }

    /// How it ends. It is told once.
    fn end(&self) -> End {
        let end = self.end.recv_timeout(PATIENCE).unwrap();
        let again = self.end.recv_timeout(PATIENCE);
        assert_eq!(again, Err(RecvTimeoutError::Disconnected), "told twice");
        end
    }
}

fn spawners_process(spawner: &Spawner) -> Pid {
    Pid::from_child(&spawner.0.state.locked().child.as_ref().unwrap().0)
}

#[test]
fn how_a_worker_ends_is_told() {
    let spawner = spawner();
    for (id, (line, expected, text)) in [
        ("exit 0", End::Exited(0), "ended by itself"),
        ("exit 3", End::Exited(3), "ended with status 3"),
        (
            "kill -SEGV $$",
            End::Signalled(libc::SIGSEGV),
            "crashed with SIGSEGV",
        ),
        (
            "kill -ABRT $$",
            End::Signalled(libc::SIGABRT),
            "crashed with SIGABRT",
        ),
        (
            "kill -KILL $$",
            End::Signalled(libc::SIGKILL),
            "was killed (SIGKILL)",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let worker = Worker::start(&spawner, id as u64);
        worker.order(line);
        let end = worker.end();
        assert_eq!(end, expected, "{line}");
        assert_eq!(end.to_string(), text);
    }
}

#[test]
fn a_worker_is_killed_and_another_lives() {
    let spawner = spawner();
    let other = Worker::start(&spawner, 1);
    let worker = Worker::start(&spawner, u64::MAX);
    worker.process();
    spawner.kill(worker.id);
    assert_eq!(worker.end(), End::Signalled(libc::SIGKILL));
    // There is no such worker any more.
    spawner.kill(worker.id);
    spawner.kill(7);
    other.order("exit 9");
    assert_eq!(other.end(), End::Exited(9));
}

#[test]
fn a_worker_that_is_killed_at_once_does_not_stay() {
    let spawner = spawner();
    for id in 0..20 {
        let worker = Worker::start(&spawner, id);
        spawner.kill(id);
        assert_eq!(worker.end(), End::Signalled(libc::SIGKILL));
    }
}

#[test]
fn a_worker_that_waits_for_its_turn_starts_when_another_has_loaded_and_can_be_killed() {
    let spawner = spawner();
    let most = most_loading() as u64;
    let loading: Vec<_> = (0..most).map(|id| Worker::start(&spawner, id)).collect();
    for worker in &loading {
        worker.process();
    }
    let next = Worker::start(&spawner, most);
    let killed = Worker::start(&spawner, most + 1);
    let after = Worker::start(&spawner, most + 2);
    spawner.kill(killed.id);
    assert_eq!(killed.end(), End::Signalled(libc::SIGKILL));
    spawner.is_loaded(loading[0].id);
    next.process();
    next.order("exit 0");
    next.end();
    after.order("exit 8");
    assert_eq!(after.end(), End::Exited(8));
}

#[test]
fn a_program_that_is_not_there_is_named_as_the_reason() {
    let spawner = spawner_with("/nowhere/hesper", &[]);
    for id in 0..3 {
        let end = Worker::start(&spawner, id).end();
        let End::NotStarted(reason) = end else {
            panic!("{end:?}")
        };
        assert!(reason.contains("No such file"), "{reason}");
    }
}

#[test]
fn without_descriptors_a_worker_is_not_started_and_the_next_one_is() {
    let mut refused = 0;
    // The spawner has five: three standard ones, and two for the ends of its children.
    for most in 5..12 {
        let spawner = spawner_with("/bin/sh", &[(DESCRIPTORS, most.to_string())]);
        for id in 0..3 {
            let worker = Worker::start(&spawner, id);
            // The socket is closed already when the worker was refused.
            let _ = (&worker.socket).write_all(b"exit 4\n");
            match worker.end() {
                End::NotStarted(reason) => {
                    assert!(reason.contains("ulimit -n"), "{most}: {reason}");
                    refused += 1;
                }
                end => assert_eq!(end, End::Exited(4), "{most}"),
            }
        }
        if most >= 11 {
            assert!(refused > 0);
            refused = 0;
        }
    }
    assert_eq!(refused, 0, "11 descriptors are enough");
}

#[test]
fn the_systems_limit_of_processes_is_named() {
    let End::NotStarted(reason) = not_started(libc::EAGAIN) else {
        panic!()
    };
    assert!(reason.contains("ulimit -u"), "{reason}");
}

#[test]
fn when_the_main_process_ends_so_do_all_workers() {
    let spawner = spawner();
    let workers = [1, 2, 3].map(|id| Worker::start(&spawner, id));
    let processes = workers.each_ref().map(Worker::process);
    // The kernel closes this socket when the main process ends.
    spawner.0.socket.shutdown(std::net::Shutdown::Both).unwrap();
    for (worker, process) in workers.iter().zip(processes) {
        let mut nothing = String::new();
        let read = BufReader::new(&worker.socket).read_line(&mut nothing);
        assert_eq!(read.unwrap(), 0, "its end of the socket is closed");
        assert_eq!(worker.end(), End::SpawnerGone);
        let gone = || rustix::process::test_kill_process(process).is_err();
        await_true(gone, "the worker is reaped");
    }
}

#[test]
fn a_spawner_that_dies_is_told_to_all() {
    let spawner = spawner();
    let worker = Worker::start(&spawner, 1);
    worker.process();
    kill_process(spawners_process(&spawner), Signal::KILL).unwrap();
    assert_eq!(worker.end(), End::SpawnerGone);
    let late = Worker::start(&spawner, 2);
    assert_eq!(late.end(), End::SpawnerGone);
    spawner.kill(2);
}

#[test]
fn a_program_that_is_no_spawner_is_an_error() {
    for (program, expected) in [
        ("false", "ended at once"),
        ("/nowhere/hesper", "No such file"),
    ] {
        let error = Spawner::start_by(Command::new(program)).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn signals_for_all_processes_of_hesper_end_no_worker() {
    let spawner = spawner();
    let worker = Worker::start(&spawner, 1);
    let process = worker.process();
    let group = rustix::process::getpgid(Some(process)).unwrap();
    assert_eq!(group, spawners_process(&spawner), "a group of its own");
    for signal in [
        Signal::INT,
        Signal::TERM,
        Signal::USR1,
        Signal::USR2,
        Signal::HUP,
    ] {
        rustix::process::kill_process_group(group, signal).unwrap();
    }
    worker.order("exit 6");
    assert_eq!(worker.end(), End::Exited(6));
}

#[cfg(target_os = "linux")]
#[test]
fn hundred_workers_leave_neither_zombies_nor_descriptors() {
    let spawner = spawner();
    let process = spawners_process(&spawner).as_raw_pid();
    let open = || descriptors(process);
    let before = open();
    for id in 0..100 {
        let worker = Worker::start(&spawner, id);
        match id % 3 {
            0 => worker.order("kill -SEGV $$"),
            1 => worker.order("exit 1"),
            _ => spawner.kill(id),
        }
        worker.end();
    }
    assert_eq!(open(), before);
    let children = std::fs::read_to_string(format!("/proc/{process}/task/{process}/children"));
    // Not all kernels have this file.
    assert_eq!(children.unwrap_or_default(), "");
}

#[cfg(target_os = "linux")]
#[test]
fn spawner_and_workers_hold_nothing_of_hesper() {
    let ours = std::fs::File::open("/dev/null").unwrap();
    // As descriptors that Hesper was started with.
    rustix::io::fcntl_setfd(&ours, rustix::io::FdFlags::empty()).unwrap();
    let spawner = spawner();
    let process = spawners_process(&spawner).as_raw_pid();
    await_true(
        || descriptors(process).len() == 5,
        "the spawner has nothing else",
    );
    let workers = [1, 2].map(|id| Worker::start(&spawner, id));
    for worker in &workers {
        let process = worker.process().as_raw_pid();
        // A shell that reads or writes has its socket twice.
        worker.order("exec sleep 600");
        let is_clean = || {
            let open = descriptors(process);
            // Three standard ones and two sockets.
            open.len() == 5 && open[0] == "/dev/null"
        };
        await_true(is_clean, "a worker has nothing else");
    }
}

/// What a process has open.
#[cfg(target_os = "linux")]
fn descriptors(process: i32) -> Vec<String> {
    let folder = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let mut open: Vec<_> = folder.map(|entry| entry.unwrap().path()).collect();
    open.sort();
    // Some may be closed by now.
    let open = open
        .iter()
        .filter_map(|entry| std::fs::read_link(entry).ok());
    open.map(|link| link.display().to_string()).collect()
}

/// Waits until `condition` is met.
fn await_true(condition: impl Fn() -> bool, what: &str) {
    let deadline = std::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}
