//! Tests many clients, many threads and killed clients: the server keeps nothing of them, and other
//! clients are not disturbed.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::Duration;

use crate::server::{Killed, Server, TOO_MUCH, await_that, rounds};

/// How much the server's memory may grow after all clients are gone.
pub(crate) const SLACK_KIB: u64 = 1024;

/// The server's anonymous memory in KiB. Memory with files behind it does not count: pages of
/// libraries and of the kernel's caches come and go by themselves, and the server has a counter of
/// its own for pages that it shares with clients.
pub(crate) fn own_memory(server: &Server) -> u64 {
    let path = format!("/proc/{}/smaps_rollup", server.process.0.id());
    let text = fs::read_to_string(path).unwrap();
    let line = text.lines().find(|line| line.starts_with("Anonymous:"));
    let number = line.unwrap().split_whitespace().nth(1).unwrap();
    number.parse().unwrap()
}

/// How many rounds of clients may run until memory stops growing. The server's allocator may keep
/// something once for a larger crowd, but a leak grows with every round.
pub(crate) const ROUNDS: usize = 3;

/// Runs `clients` on a server that has served some before. Fails unless the server's threads,
/// descriptors and memory are then as before.
fn leaves_nothing(server: &Server, threads: usize, clients: impl Fn()) {
    let descriptors = server.rest(threads);
    let mut memory = vec![own_memory(server)];
    while memory.len() <= ROUNDS {
        clients();
        assert_eq!(server.rest(threads), descriptors, "{}", server.log());
        let (before, after) = (memory[memory.len() - 1], own_memory(server));
        if after <= before + SLACK_KIB {
            return;
        }
        memory.push(after);
    }
    panic!("memory grows with every round of clients: {memory:?} KiB");
}

/// Serves `clients` in one process, and then with a process for each. Each process of a client has
/// to load its driver, so the second time there are fewer: `clients` gets what to divide by.
fn in_both_ways(clients: impl Fn(Server, usize)) {
    for (option, less) in [("--isolate=off", 1), ("--isolate=on", 5)] {
        clients(Server::with(&[option], &[]), less);
    }
}

const SOME: [&str; 3] = ["submit-64-in-flight", "draw-render-pass", "map-gpu-writes"];

#[test]
fn many_clients_at_once_and_in_a_row_leave_nothing() {
    in_both_ways(|server, less| {
        let threads = server.count("task");
        let client = || server.client(&SOME).status().unwrap().success();
        let sixteen = || {
            scope(|scope| {
                let all: Vec<_> = (0..16).map(|_| scope.spawn(client)).collect();
                all.into_iter().all(|one| one.join().unwrap())
            })
        };
        // The first clients make the driver and the allocator open what they keep for good.
        assert!(client() && sixteen(), "{}", server.log());
        leaves_nothing(&server, threads, || {
            assert!(sixteen(), "{}", server.log());
            for _ in 0..rounds(100) / less {
                assert!(client(), "{}", server.log());
            }
        });
        server.assert_calm();
    });
}

#[test]
fn clients_killed_at_any_moment_leave_nothing_and_others_see_nothing() {
    // How many clients run at a time. Each is killed while the others work.
    const AT_ONCE: u64 = 4;
    in_both_ways(|server, less| kills_at_any_moment(&server, AT_ONCE, rounds(200) / less));
}

fn kills_at_any_moment(server: &Server, at_once: u64, kills: usize) {
    let threads = server.count("task");
    let kill_some = |rounds: u64| {
        scope(|scope| {
            for lane in 0..at_once {
                scope.spawn(move || {
                    for round in 0..rounds {
                        let victim = Killed(server.client(&["all"]).spawn().unwrap());
                        // The kills are spread over a client's first seconds, differently in each
                        // round.
                        sleep(Duration::from_millis(
                            40 + (round * at_once + lane) * 367 % 1500,
                        ));
                        drop(victim);
                    }
                });
            }
        });
    };
    assert!(
        server.client(&["all"]).status().unwrap().success(),
        "{}",
        server.log()
    );
    kill_some(2);
    leaves_nothing(server, threads, || {
        let mut other = Killed(server.client(&["all"]).spawn().unwrap());
        kill_some(kills as u64 / at_once);
        assert!(other.wait().success(), "{}", server.log());
    });
    server.assert_calm_but_for(&[TOO_MUCH]);
}

#[test]
fn eight_threads_have_a_ring_each() {
    let server = Server::start();
    let threads = server.count("task");
    let is_over = AtomicBool::new(false);
    let most = scope(|scope| {
        let is_over = &is_over;
        let server = &server;
        let watcher = scope.spawn(move || {
            let mut most = 0;
            while !is_over.load(Ordering::Relaxed) {
                most = most.max(server.alive().rings);
            }
            most
        });
        let cases = ["threads-make-pipelines", "threads-record-and-submit"];
        let ended = server.client(&cases).status().unwrap();
        is_over.store(true, Ordering::Relaxed);
        assert!(ended.success(), "{}", server.log());
        watcher.join().unwrap()
    });
    // One ring is the instance's, and each thread has one.
    assert_eq!(most, 9, "{}", server.log());
    server.rest(threads);
    server.assert_calm();
}

#[test]
fn clients_have_more_descriptor_sets_together_than_a_process_has_mappings() {
    // lavapipe maps a page for each of a client's 10,000 sets, and by default the kernel allows a
    // process 65,530 mappings. Each client keeps its sets until all clients have theirs.
    const CLIENTS: usize = 10;
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    let go = folder.path().join("go");
    let mut clients: Vec<_> = (0..CLIENTS)
        .map(|_| {
            let mut client = server.client(&["descriptor-many-sets"]);
            Killed(client.env("HESPER_HOLD_SETS", &go).spawn().unwrap())
        })
        .collect();
    await_that("all have their sets", || {
        server.alive().objects >= 10_000 * CLIENTS as u64
    });
    fs::write(&go, "").unwrap();
    for client in &mut clients {
        assert!(client.wait().success(), "{}", server.log());
    }
    server.assert_calm();
}
