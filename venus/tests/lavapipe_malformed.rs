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

use std::sync::atomic::Ordering;
use std::time::Instant;

use hesper_mock_venus::with_wait;
use hesper_venus::Driver;
use hesper_venus_protocol::{command, vk};
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

#[test]
fn a_fence_that_is_destroyed_while_a_ring_waits_for_it_ends_the_context_and_no_other() {
    let bench = bench();
    let guest = bench.guest();
    let device = object(Id::Device);
    let fence = object(Id::Fence);
    let mut session = Session::device();
    session.push(
        &command::CreateFence {
            device,
            p_create_info: &mut vk::FenceCreateInfo::default(),
            p_fence: &mut vk::Fence(Id::Fence as u64),
        },
        false,
    );
    guest.context.submit(session.stream);
    assert_eq!(guest.settle(0, PATIENCE), Outcome::Fine);
    let mut wait = Session::default();
    wait.push(&command::GetFenceStatus { device, fence }, false);
    wait.push(
        &command::WaitForFences {
            device,
            fence_count: 1,
            p_fences: [vk::Fence(Id::Fence as u64)].as_mut_slice().into(),
            wait_all: 1,
            timeout: u64::MAX,
        },
        false,
    );
    guest.ring(&wait.stream);
    // The ring tells how far it is before it waits.
    let before_the_wait = wait.starts[1] as u32;
    let head = guest.ring.memory.word(0).unwrap();
    while head.load(Ordering::Acquire) != before_the_wait {
        std::thread::yield_now();
    }
    let mut destroy = Session::default();
    destroy.push(&command::DestroyFence { device, fence }, false);
    guest.context.submit(destroy.stream);
    // The waiting thread looks again every few milliseconds.
    let end = Instant::now() + PATIENCE;
    let mut outcome = guest.settle(0, PATIENCE);
    while outcome == Outcome::Fine && Instant::now() < end {
        outcome = guest.settle(0, PATIENCE);
    }
    let reason = "another thread destroys what this command waits for";
    assert!(outcome.reason().contains(reason), "{outcome:?}");
    bench.ended(guest, outcome);
}
