//! Malformed streams over a real driver:
//!
//! ```text
//! export CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER=tests/env/run
//! cargo test -p hesper-venus --test lavapipe_malformed
//! ```
//!
//! `malformed.rs` tests what does not depend on the driver (wrong ids, streams cut at any byte). It
//! also tests what only the API forbids (sizes above limits, broken shaders): a real driver need
//! not survive that.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends with a panic"
)]

mod hostile;

use hesper_mock_venus::with_wait;
use hesper_venus::Driver;
use hesper_venus_protocol::command;
use hostile::recorded::recorded;
use hostile::session::{Id, Session, object};
use hostile::{Bench, Outcome, PATIENCE, Way};

fn bench() -> Bench {
    Bench::new(Driver::System)
}

#[test]
fn the_recorded_session_is_carried_out_whole_over_both_ways() {
    let bench = bench();
    let session = Session::whole();
    for way in [Way::Virtqueue, Way::Ring] {
        assert_eq!(bench.run(&session.stream, way), Outcome::Fine, "{way:?}");
    }
}

#[test]
fn sessions_of_real_guests_are_carried_out_over_both_ways_and_may_end_anywhere() {
    let bench = bench();
    let sessions = recorded();
    assert!(sessions.len() >= 8);
    for (name, session) in &sessions {
        for way in [Way::Virtqueue, Way::Ring] {
            let outcome = bench.run(&session.stream, way);
            assert_eq!(outcome, Outcome::Fine, "{name}, {way:?}");
        }
    }
    // Samples: each length takes its own instance and device.
    for (name, session) in &sessions {
        for length in (0..session.stream.len()).step_by(397) {
            let outcome = bench.run(&session.stream[..length], Way::Virtqueue);
            match session.starts.contains(&length) {
                true => assert_eq!(outcome, Outcome::Fine, "{name}, {length}"),
                false => assert!(
                    outcome.reason().contains("bytes"),
                    "{name}, {length}: {outcome:?}"
                ),
            }
        }
    }
}

#[test]
fn a_lost_context_with_work_on_the_gpu_leaves_nothing_and_others_go_on() {
    let bench = bench();
    for _ in 0..5 {
        let guest = bench.guest();
        let mut session = Session::whole();
        // The queue waits for a value that never comes. Then the guest breaks the rules.
        with_wait(Id::Semaphore as u64, 9, |submit| {
            session.push(
                &command::QueueSubmit {
                    queue: object(Id::Queue),
                    submit_count: 1,
                    p_submits: std::slice::from_mut(submit).into(),
                    fence: hesper_venus_protocol::runtime::Object::guest(0),
                },
                false,
            );
        });
        session.stream.extend_from_slice(&[0xff; 8]);
        guest.context.submit(session.stream);
        let outcome = guest.settle(1, PATIENCE);
        assert!(outcome.reason().contains("no command"), "{outcome:?}");
        bench.ended(guest, outcome);
    }
}
