//! Workers that end, at each point of their life.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use hesper_system::budget::Charge;
use hesper_venus::memory::page_size;
use hesper_venus::{BlobError, DisplayServer, GuestBudget, GuestPages, RendererOptions};

use super::fake::*;
use crate::contexts::Contexts;
use crate::isolation::message::{FromWorker, ToWorker};
use crate::isolation::spawner::End;

const SEGV: End = End::Signalled(11);

#[test]
fn a_crash_says_fatal_in_the_rings_and_then_answers_everything_once() {
    let stage = Stage::default();
    let ears = Ears::new();
    let (context, fake) = stage.begin(&ears);
    let (rings, memory_fd) = memory(2 * page_size());
    let at = page_size() + 128;
    for (ring, status) in [(1, 64), (2, at), (3, 256)] {
        fake.say_with(FromWorker::RingCreated { ring, status }, fd(&memory_fd));
    }
    fake.say(FromWorker::RingDestroyed { ring: 3 });
    rings.write(64, &5_u32.to_le_bytes()).unwrap();
    let word = move |at: u64| {
        let word = rings.word(usize::try_from(at).unwrap()).unwrap();
        word.load(std::sync::atomic::Ordering::SeqCst)
    };
    context.fence(1, 1);
    context.fence(0, 2);
    context.create_blob(7, request(4096));
    context.create_blob(8, request(4096));
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = Arc::clone(&seen);
    ears.set_hook(move |_| {
        let words = [word(64), word(at), word(256)];
        noted.lock().unwrap().push(words);
    });
    // The rings' messages may not be heard yet.
    stage.yard.end(fake.number, SEGV);
    let events = ears.wait(5);
    let reason = "its process crashed with SIGSEGV in a thread of the driver";
    let lost = BlobError::Lost(reason.to_owned());
    assert_eq!(
        events,
        [
            Event::Lost(reason.to_owned()),
            Event::Retired(0, 2),
            Event::Retired(1, 1),
            Event::Refused(7, lost.clone()),
            Event::Refused(8, lost),
        ]
    );
    // The other bits stay, and a ring that was destroyed before is nobody's.
    assert!(seen.lock().unwrap().iter().all(|words| *words == [7, 2, 0]));
    assert_eq!(stage.contexts.counters().lost, 1);
    ears.remove_hook();
}

#[test]
fn a_process_that_ends_by_itself_has_crashed_too() {
    let stage = Stage::default();
    let ears = Ears::new();
    let (_context, fake) = stage.begin(&ears);
    stage.yard.end(fake.number, End::Exited(3));
    let Event::Lost(reason) = &ears.wait(1)[0] else {
        panic!();
    };
    assert!(reason.contains("ended with status 3"), "{reason}");
}

#[test]
fn a_socket_that_somebody_else_still_has_keeps_no_context_alive() {
    let stage = Stage::default();
    let ears = Ears::new();
    let (context, mut fake) = stage.begin(&ears);
    context.fence(1, 1);
    // Only the control socket counts, and nobody says anything on it any more.
    let _ = fake
        .questions
        .send(&crate::isolation::message::Budget::Left { pool: 0 }, &[]);
    fake.hear_until(|call| matches!(call, ToWorker::Fence { .. }));
    stage.yard.end_quietly(fake.number, SEGV);
    ears.wait(2);
}

#[test]
fn a_worker_that_crashes_while_it_loads_loses_the_context_that_it_is() {
    let stage = Stage::default();
    let ears = Ears::new();
    let fake = stage.fake();
    let context = stage.create(3, &ears);
    context.fence(1, 1);
    stage.yard.end(fake.number, SEGV);
    let events = ears.wait(2);
    let reason = "its process crashed with SIGSEGV while it loaded the driver";
    assert_eq!(
        events,
        [Event::Lost(reason.to_owned()), Event::Retired(1, 1)]
    );
}

#[test]
fn a_context_that_is_dropped_while_its_worker_loads_ends_without_a_trace() {
    let stage = Stage::default();
    let ears = Ears::new();
    let fake = stage.fake();
    let context = stage.create(3, &ears);
    context.submit(vec![1], Charge::default());
    context.fence(1, 1);
    drop(context);
    assert!(stage.yard.is_killed(fake.number), "it has nothing yet");
    until("it is gone", || stage.contexts.counters().contexts == 0);
    assert_eq!(ears.wait(1), [Event::Retired(1, 1)]);
    let counters = stage.contexts.counters();
    assert_eq!((counters.lost, counters.given_up), (0, 0));
}

#[test]
fn after_a_spare_that_failed_the_next_starts_when_it_is_needed() {
    let stage = Stage::default();
    let first = stage.fake();
    first.say(FromWorker::Unable("there is no GPU".to_owned()));
    until("it is killed", || stage.yard.is_killed(first.number));
    until("it is known", || !stage.contexts.has_no_failed_spare());
    assert!(stage.try_fake().is_none(), "nothing starts again and again");
    let ears = Ears::new();
    let context = stage.create(3, &ears);
    let mut second = stage.fake();
    assert!(stage.try_fake().is_none(), "nor a second one");
    let untested = ToWorker::Configure(Vec::new());
    assert_eq!(second.hear(), untested, "none has tested the driver yet");
    assert!(matches!(second.hear(), ToWorker::Begin { id: 3, .. }));
    second.say(FromWorker::Ready);
    until("it is known to be ready", || {
        stage.contexts.has_no_failed_spare()
    });
    let other = stage.create(4, &ears);
    let mut third = stage.fake();
    assert_eq!(third.hear(), ToWorker::Configure(FINDINGS.to_vec()));
    // Drivers that were tested before do not work any more.
    let mut fourth = stage.fake();
    third.say(FromWorker::Unable("there is no GPU".to_owned()));
    until("it is killed", || stage.yard.is_killed(third.number));
    fourth.say(FromWorker::Unable("there is no GPU".to_owned()));
    until("the spare is killed", || {
        stage.yard.is_killed(fourth.number)
    });
    assert_eq!(fourth.hear(), ToWorker::Configure(FINDINGS.to_vec()));
    until("it is known", || !stage.contexts.has_no_failed_spare());
    let last = stage.create(5, &ears);
    assert_eq!(stage.fake().hear(), untested);
    drop((context, other, last));
}

#[test]
fn silence_after_the_end_is_no_way_to_live_on() {
    let stage = Stage::default();
    let ears = Ears::new();
    let (context, mut fake) = stage.begin(&ears);
    context.fence(1, 1);
    drop(context);
    fake.hear_end();
    fake.say(FromWorker::Ended);
    assert!(!stage.yard.is_killed(fake.number));
    assert_eq!(ears.wait(1), [Event::Retired(1, 1)]);
    assert!(stage.yard.is_killed(fake.number));
    until("it is gone", || stage.contexts.counters().contexts == 0);
    let counters = stage.contexts.counters();
    assert_eq!((counters.given_up, counters.lost), (1, 0));
}

#[test]
fn a_flood_after_the_end_is_none_either() {
    let stage = Stage::default();
    let (context, fake) = stage.begin(&Ears::new());
    drop(context);
    let number = fake.number;
    let flooding = thread::spawn(
        move || {
            while fake.try_say(FromWorker::Consumed { bytes: 0 }, &[]) {}
        },
    );
    until("it is killed", || stage.yard.is_killed(number));
    flooding.join().unwrap();
}

#[test]
fn settling_waits_for_contexts_and_kills_those_that_do_not_end() {
    let stage = Stage::default();
    let (context, mut good) = stage.begin(&Ears::new());
    let (other, _bad) = stage.begin(&Ears::new());
    drop((context, other));
    good.hear_end();
    stage.yard.end(good.number, End::Exited(0));
    let begin = Instant::now();
    stage.contexts.settle();
    assert!(begin.elapsed() >= Duration::from_secs(1), "it waits");
    assert_eq!(stage.yard.living(), 0, "the spare has gone, too");
    assert_eq!(stage.contexts.counters().given_up, 1);
    let events = Ears::new();
    assert!(
        stage
            .contexts
            .create_context(9, "late", DisplayServer::Unknown, events)
            .is_err()
    );
    let begin = Instant::now();
    stage.contexts.settle();
    assert!(begin.elapsed() < Duration::from_secs(2), "nothing is left");
}

#[test]
fn making_and_dropping_contexts_keeps_no_more_processes_than_the_guest_may_have() {
    let options = RendererOptions {
        guest: GuestBudget {
            contexts: 4,
            ..GuestBudget::default()
        },
        ..RendererOptions::default()
    };
    let stage = Stage::new(&options);
    let mut refused = 0;
    for round in 0..200 {
        match stage
            .contexts
            .create_context(round, "loop", DisplayServer::Unknown, Ears::new())
        {
            Ok(context) => drop(context),
            Err(error) => {
                assert!(error.contains("4 contexts"), "{error}");
                refused += 1;
                // One of them ends.
                if let Some(fake) = stage.try_fake() {
                    stage.yard.end(fake.number, End::Exited(0));
                }
                thread::yield_now();
            }
        }
    }
    assert!(refused > 0);
    assert!(stage.yard.most() <= 5, "{}", stage.yard.most());
}

#[test]
fn a_place_is_taken_until_the_process_has_ended() {
    let options = RendererOptions {
        guest: GuestBudget {
            contexts: 1,
            ..GuestBudget::default()
        },
        ..RendererOptions::default()
    };
    let stage = Stage::new(&options);
    let ears = Ears::new();
    let (context, fake) = stage.begin(&ears);
    assert!(
        stage.try_fake().is_none(),
        "no spare: there is no place for it"
    );
    stage.yard.be_stubborn(true);
    fake.say(FromWorker::Ended);
    ears.wait(1);
    drop(context);
    let create = || {
        stage
            .contexts
            .create_context(4, "next", DisplayServer::Unknown, Ears::new())
    };
    assert!(create().is_err(), "its process lives");
    stage.yard.be_stubborn(false);
    stage.yard.end(fake.number, SEGV);
    until("its place is free", || create().is_ok());
}

#[test]
fn a_death_answers_whoever_waits_for_guest_memory() {
    let stage = Stage::default();
    let ears = Ears::new();
    let (context, mut fake) = stage.begin(&ears);
    let page = GuestPages {
        file: file(1 << 20),
        offset: 0,
        size: page_size(),
    };
    context.attach_guest_memory(4, &[page]).unwrap();
    let yard = Arc::clone(&stage.yard);
    let dying = thread::spawn(move || {
        fake.hear_until(|call| matches!(call, ToWorker::Detach { .. }));
        yard.end(fake.number, SEGV);
    });
    let begin = Instant::now();
    context.detach_resource(4);
    assert!(
        begin.elapsed() < Duration::from_millis(900),
        "it need not wait"
    );
    dying.join().unwrap();
    let Event::Lost(reason) = &ears.wait(1)[0] else {
        panic!();
    };
    assert!(reason.contains("SIGSEGV"), "{reason}");
    drop(context);
}
