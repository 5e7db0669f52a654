//! Tests that a client whose driver crashes, aborts or hangs ends alone, and that nothing is left
//! of it: the server has a process for each context.

use std::collections::HashSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::thread::{scope, sleep};
use std::time::Duration;

use hesper_mock_venus::harmful::{WILD, asking};
use hesper_mock_venus::{bytes, shader};
use hesper_venus_protocol::command;
use tempfile::TempDir;

use crate::load::{ROUNDS, SLACK_KIB, own_memory};
use crate::raw::{await_end, client, submit};
use crate::server::{
    CLIENT, Killed, LAVAPIPE, OWN_SUITE, PATIENCE, Server, await_that, built, driver_manifest,
};

/// An address in the first page, which no process has.
const NOWHERE: [u8; 8] = 16_u64.to_le_bytes();

/// Writes a line for each lost context into the log, and not only for the first 20 in ten seconds.
const ALL_LOSSES: (&str, &str) = (
    "RUST_LOG",
    "info,hesper=debug,hesper_venus=info,hesper_system=info",
);

/// A server with the null driver of the tests, which does nothing but what shaders ask for.
fn with_null_driver() -> Server {
    let driver = built("hesper_null_driver");
    let driver = format!("--driver={}", driver.display());
    Server::with(&[&driver], &[ALL_LOSSES])
}

/// A server with lavapipe, which does what shaders ask for.
fn with_crashing_driver() -> (Server, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let manifest = folder.path().join("crashing.json");
    std::fs::write(&manifest, driver_manifest(&built("hesper_crashing_driver"))).unwrap();
    let driver = (LAVAPIPE.0, manifest.to_str().unwrap());
    (Server::with(&[], &[driver]), folder)
}

/// The commands of a client that runs a shader.
fn runs(shader: &[u8]) -> Vec<u8> {
    let mut last = 0;
    let mut id = || {
        last += 1;
        last
    };
    let (gpu, stream) = shader::gpu(&mut id);
    let run = shader::run(&gpu, &mut id, shader, NOWHERE);
    [stream, run.whole()].concat()
}

/// Waits until the server has as many processes again.
#[track_caller]
fn await_processes(server: &Server, count: usize) {
    await_that(&format!("{count} processes are left"), || {
        server.descendants().len() == count
    });
}

/// Waits until the server has this many processes, and its descriptors and threads do not change
/// any more; counts both.
#[track_caller]
fn settled(server: &Server, processes: usize) -> [usize; 2] {
    await_processes(server, processes);
    let count = || ["fd", "task"].map(|what| server.count(what));
    let (mut last, mut unchanged) = (count(), 0);
    while unchanged < 20 {
        sleep(Duration::from_millis(20));
        let now = count();
        unchanged = if now == last { unchanged + 1 } else { 0 };
        last = now;
    }
    last
}

/// How many contexts were lost so far, each with one line in the log.
fn losses(server: &Server) -> usize {
    server.log().matches("is lost").count()
}

/// The drivers that a process has loaded.
fn drivers_of(process: u32) -> HashSet<String> {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default();
    let files = maps.lines().filter_map(|line| line.rsplit_once('/'));
    let names = files.map(|(_, name)| name.to_owned());
    names
        .filter(|name| name.starts_with("libvulkan_"))
        .collect()
}

#[test]
fn all_processes_but_the_first_load_only_the_driver_of_the_guests_gpu() {
    let server = Server::start();
    let workers = || -> HashSet<u32> {
        let all = server.descendants().into_iter();
        let name = |id: &u32| std::fs::read_to_string(format!("/proc/{id}/comm"));
        all.filter(|id| name(id).is_ok_and(|name| name.trim() == "hesper-worker"))
            .collect()
    };
    let mut one = client(&server, "one");
    let version = bytes(&command::EnumerateInstanceVersion {
        p_api_version: &mut 0,
    });
    submit(&mut one, &version);
    await_that("the first process serves", || {
        server.counters()["commands"].as_u64() > Some(0)
    });
    await_that("the second waits", || workers().len() == 2);
    let before = workers();
    let found: Vec<_> = before.iter().map(|id| drivers_of(*id)).collect();
    assert!(found.iter().any(|drivers| drivers.len() > 1), "{found:?}");
    let mut two = client(&server, "two");
    await_that("the third waits", || workers().len() == 3);
    let third = workers().difference(&before).copied().next().unwrap();
    let lavapipe = "libvulkan_lvp.so";
    await_that("it has a driver", || drivers_of(third).contains(lavapipe));
    // A third client gets it, and it serves.
    submit(&mut two, &version);
    let mut three = client(&server, "three");
    submit(&mut three, &version);
    await_that("three processes serve", || {
        server.counters()["commands"].as_u64() == Some(3)
    });
    assert_eq!(drivers_of(third), HashSet::from([lavapipe.to_owned()]));
}

/// How many of a test's clients crash.
const CRASHES: usize = 100;
/// How many hang.
const HANGS: usize = 10;

/// What crashing clients ask for, and how the log names it.
const ENDS: [(&str, &str); 5] = [
    ("hesper: crash", "SIGSEGV"),
    ("hesper: abort", "SIGABRT"),
    ("hesper: crash at submit", "SIGSEGV"),
    ("hesper: abort in a thread", "SIGABRT"),
    ("hesper: crash in a thread", "SIGSEGV"),
];

#[test]
fn a_hundred_crashes_and_hangs_of_the_driver_end_alone_and_leave_nothing() {
    let server = with_null_driver();
    let threads = server.count("task");
    // The bystander is there from before the first crash until after the last one.
    let mut bystander = client(&server, "bystander");
    let commands = || server.counters()["commands"].as_u64().unwrap();
    let mut is_served = || {
        let before = commands();
        let one = bytes(&command::EnumerateInstanceVersion {
            p_api_version: &mut 0,
        });
        submit(&mut bystander, &one.repeat(50));
        await_that("the bystander is served", || commands() >= before + 50);
    };
    is_served();
    await_that("contexts have processes of their own", || {
        // The spawner, the bystander's worker and the spare one.
        server.descendants().len() == 3
    });
    let crash = |round: usize| {
        let (text, signal) = ENDS[round % ENDS.len()];
        let name = format!("crash-{round}");
        let mut stream = client(&server, &name);
        submit(&mut stream, &runs(&asking(text)));
        await_end(stream);
        let log = server.log();
        let line = log
            .lines()
            .find(|line| line.contains(&format!("\"{name}\"")));
        assert!(
            line.is_some_and(|line| line.contains(signal)),
            "{name}: {log}"
        );
    };
    // Clients whose calls do not return, and who then go.
    let hang = || {
        let hanging: Vec<_> = (0..HANGS)
            .map(|round| {
                let text = ["hesper: hang", "hesper: hang at submit"][round % 2];
                let mut stream = client(&server, &format!("hang-{round}"));
                submit(&mut stream, &runs(&asking(text)));
                stream
            })
            .collect();
        await_that("they have processes", || {
            server.descendants().len() >= 3 + HANGS
        });
        drop(hanging);
    };
    // The first ones make the server open what it keeps for good.
    (0..ENDS.len()).for_each(crash);
    hang();
    let before = settled(&server, 3);
    let mut memory = vec![own_memory(&server)];
    let mut crashes = ENDS.len();
    loop {
        let end = crashes + CRASHES;
        for round in crashes..end {
            crash(round);
            if round % 20 == 0 {
                is_served();
            }
        }
        crashes = end;
        hang();
        is_served();
        assert_eq!(settled(&server, 3), before, "descriptors and threads");
        memory.push(own_memory(&server));
        let [.., last, now] = memory[..] else {
            unreachable!()
        };
        if now <= last + SLACK_KIB {
            break;
        }
        assert!(memory.len() <= ROUNDS, "memory grows: {memory:?} KiB");
    }
    is_served();
    assert_eq!(losses(&server), crashes, "{}", server.log());
    assert!(!server.log().contains("panicked"), "{}", server.log());
    drop(bystander);
    await_processes(&server, 2);
    server.rest(threads);
}

/// Waits for a client of Mesa's that does harm. Mesa ends a program whose GPU is lost, or tells it
/// so; the client must not wait for ever.
#[track_caller]
fn await_failure(how: &str, child: Child) {
    let mut child = Killed(child);
    await_that(&format!("the client ends: {how}"), || {
        let id = child.0.id();
        std::fs::read_to_string(format!("/proc/{id}/stat")).is_ok_and(|stat| {
            stat.rsplit_once(')')
                .is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
        })
    });
    assert!(!child.wait().success(), "{how}");
}

#[test]
fn programs_that_crash_lavapipe_end_alone_while_others_draw() {
    let (server, _folder) = with_crashing_driver();
    let harm = |how: &str| {
        let mut command = server.with_venus_of(OWN_SUITE, CLIENT);
        command.args(["harm", how]).stdout(Stdio::piped());
        command.stderr(Stdio::null()).spawn().unwrap()
    };
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    let mut holds = server.with_venus_of(OWN_SUITE, CLIENT);
    let mut holds = Killed(
        holds
            .args(["hold", "16", "1"])
            .arg(&go)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    says(&mut holds, "holding");
    let processes = server.descendants().len();
    assert!(processes >= 3, "contexts have no processes of their own");
    let hows = [
        ("wild", "SIGSEGV"),
        ("crash", "SIGSEGV"),
        ("abort", "SIGABRT"),
        ("crash in a thread", "SIGSEGV"),
    ];
    for (index, (how, signal)) in hows.into_iter().enumerate() {
        scope(|scope| {
            let other = scope.spawn(|| {
                let cases = ["draw-render-pass", "submit-64-in-flight"];
                server.client(&cases).status().unwrap().success()
            });
            await_failure(how, harm(how));
            assert!(other.join().unwrap(), "{}", server.log());
        });
        let log = server.log();
        let lines: Vec<_> = log.lines().filter(|l| l.contains("is lost")).collect();
        assert_eq!(lines.len(), index + 1, "{how}: {log}");
        assert!(lines[index].contains(signal), "{how}: {log}");
    }
    // Two whose drivers are busy for ever, and who are killed.
    for how in ["endless", "hang"] {
        let mut child = Killed(harm(how));
        says(&mut child, "harming");
        sleep(Duration::from_millis(300));
        drop(child);
    }
    await_processes(&server, processes);
    std::fs::write(&go, "").unwrap();
    assert!(holds.wait().success(), "{}", server.log());
    assert!(server.client(&["submit-one"]).status().unwrap().success());
}

/// Waits for a line of a client's.
#[track_caller]
fn says(child: &mut Killed, word: &str) {
    let mut line = String::new();
    let output = child.0.stdout.as_mut().unwrap();
    BufReader::new(output).read_line(&mut line).unwrap();
    assert!(line.starts_with(word), "{line}");
}

#[test]
fn a_shader_that_crashes_lavapipe_ends_a_client_that_speaks_venus_itself() {
    let server = Server::start();
    let mut stream = client(&server, "wild");
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    submit(&mut stream, &runs(WILD));
    await_end(stream);
    assert!(server.client(&["submit-one"]).status().unwrap().success());
    assert_eq!(losses(&server), 1, "{}", server.log());
}

#[test]
fn who_runs_programs_on_a_software_driver_in_one_process_is_told_to_trust_them() {
    const TRUSTED: &str = "the guest must be trusted: its GPU is a software driver";
    const ISOLATED: &str = "run in processes of their own";
    for (option, said, unsaid) in [
        ("--isolate=off", TRUSTED, ISOLATED),
        ("--isolate=on", ISOLATED, TRUSTED),
    ] {
        let log = Server::with(&[option], &[LAVAPIPE]).log();
        let lines = log.lines().filter(|line| line.contains(said)).count();
        assert!(lines == 1 && !log.contains(unsaid), "{option}: {log}");
    }
}
