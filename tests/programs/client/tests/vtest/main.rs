//! Tests of real Mesa over `hesper vtest`: what it draws, what it sees, what it leaves behind.
//!
//! ```text
//! tests/env/prepare host
//! cargo build -p hesper && cargo test -p hesper-test-client --test vtest
//! ```
//!
//! Mesa's Venus driver and lavapipe come from the environment. `HESPER_BIN` names another Hesper
//! than the one built beside this test. `HESPER_SUITES="trixie forky sid"` tests Mesa 25.0, 26.1
//! and 26.2 instead of 26.1 alone (`tests/env/prepare mesa:SUITE` prepares each).
//! `HESPER_ROUNDS=10` runs 10 percent of the slow rounds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic"
)]

mod doctor;
mod extensions;
mod guest_layer;
mod isolation;
mod load;
mod lost;
mod mac;
mod present;
mod raw;
#[cfg(target_os = "linux")]
mod sandbox;
mod server;
mod shared_pictures;
mod vulkaninfo;
mod watching;

use std::process::{Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use server::{CLIENT, Killed, Server, TOO_MUCH, in_environment, lines, suites};

/// Whether this case's outcome differs from the native one, and why:
/// - `memory-budget`: Mesa's guest driver decides it by itself.
/// - `sparse-…`: lavapipe cannot bind imported memory sparsely, and all memory that guests map is
///   imported. So Hesper hides sparse binding there (`hesper doctor` says so).
fn is_different(line: &str) -> bool {
    line.contains("memory-budget") || line.contains(" sparse-")
}

#[test]
fn every_case_prints_the_same_natively_and_over_hesper() {
    let native = in_environment(CLIENT)
        .args(["run", "all"])
        .output()
        .unwrap();
    assert!(native.status.success(), "{:#?}", lines(&native));
    let server = Server::start();
    for suite in suites() {
        let over = server
            .with_venus_of(&suite, CLIENT)
            .args(["run", "all"])
            .stdout(Stdio::piped())
            .output()
            .unwrap();
        assert!(
            over.status.success(),
            "{suite}: {:#?}\n{}",
            lines(&over),
            server.log()
        );
        let compared = |output: &Output| -> Vec<String> {
            let all = lines(output).into_iter();
            all.filter(|line| !is_different(line)).collect()
        };
        assert_eq!(compared(&over), compared(&native), "{suite}");
    }
    server.assert_calm_but_for(&[TOO_MUCH]);
    assert_eq!(server.counters()["lost"], 0);
}

#[test]
fn a_signal_ends_the_server_quickly_and_removes_its_socket() {
    let mut server = Server::start();
    let _client = Killed(
        server
            .client(&["all"])
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    sleep(Duration::from_millis(600));
    server.signal(Signal::TERM);
    let begin = Instant::now();
    let status = server.process.wait();
    assert!(status.success(), "{status:?}\n{}", server.log());
    assert!(
        begin.elapsed() < Duration::from_secs(4),
        "{:?}",
        begin.elapsed()
    );
    assert!(!server.socket().exists());
}
