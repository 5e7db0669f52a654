//! A worker that keeps to the rules.

use hesper_system::budget::Pool;
use hesper_venus::memory::page_size;
use hesper_venus::{Budget, GuestBudget, GuestPages, RendererOptions, Resource};

use super::fake::*;
use crate::contexts::Contexts;
use crate::isolation::message::{self, FromWorker, Refusal, ToWorker};
use hesper_system::budget::Charge;
use hesper_venus::BlobError;

#[test]
fn calls_arrive_in_order_and_their_answers_come_back() {
    let stage = Stage::default();
    let ears = Ears::new();
    let (context, mut fake) = stage.begin(&ears);
    context.submit(vec![1, 2, 3], Charge::default());
    context.fence(1, 10);
    context.create_blob(7, request(page_size()));
    context.create_blob(8, request(5));
    assert_eq!(fake.hear(), ToWorker::Submit(vec![1, 2, 3]));
    assert_eq!(fake.hear(), ToWorker::Fence { ring: 1, fence: 10 });
    assert!(matches!(
        fake.hear(),
        ToWorker::CreateBlob { resource: 7, .. }
    ));
    let (theirs, memory_fd) = memory(2 * page_size());
    fake.say(FromWorker::FenceRetired { ring: 1, fence: 10 });
    fake.make_blob(7, 0, 2 * page_size(), fd(&memory_fd));
    fake.say(FromWorker::BlobRefused {
        resource: 8,
        kind: Refusal::Invalid,
        reason: "no\nreason".to_owned(),
    });
    let size = 2 * page_size() as usize;
    assert_eq!(
        ears.wait(3),
        [
            Event::Retired(1, 10),
            Event::Blob(7, size),
            Event::Refused(8, BlobError::Invalid("no reason".to_owned())),
        ]
    );
    // Both see the same pages, and another context gets them, too.
    let blob = ears.blob();
    theirs.write(0, &[42]).unwrap();
    let mut seen = [0];
    blob.memory.read(0, &mut seen).unwrap();
    assert_eq!(seen, [42]);
    let others = Ears::new();
    let (other, mut other_fake) = stage.begin(&others);
    other.attach_resource(7, &blob);
    let (attach, fds) = other_fake.try_hear().unwrap();
    assert!(matches!(attach, ToWorker::Attach { resource: 7, .. }));
    assert_eq!(fds.len(), 1);
    other.detach_resource(7);
    let detach = ToWorker::Detach {
        resource: 7,
        ticket: 0,
    };
    assert_eq!(other_fake.hear(), detach);
    assert_eq!(stage.contexts.capset(), [7; 160]);
    assert_eq!(stage.contexts.counters().contexts, 2);
}

#[test]
fn a_context_is_a_spare_that_waits_already_and_the_next_one_starts() {
    let stage = Stage::default();
    let first = stage.fake();
    assert!(stage.try_fake().is_none(), "one waits");
    assert_eq!(stage.contexts.counters().contexts, 0);
    let context = stage.create(3, &Ears::new());
    let second = stage.fake();
    assert_ne!(first.number, second.number);
    assert!(stage.try_fake().is_none());
    assert_eq!(stage.contexts.counters().contexts, 1);
    drop(context);
}

#[test]
fn a_context_that_is_dropped_ends_and_its_open_fences_retire() {
    let stage = Stage::default();
    let ears = Ears::new();
    let (context, mut fake) = stage.begin(&ears);
    context.fence(0, 1);
    context.fence(2, 2);
    drop(context);
    fake.hear_end();
    fake.say(FromWorker::FenceRetired { ring: 0, fence: 1 });
    fake.say(FromWorker::Ended);
    ears.wait(1);
    assert_eq!(stage.contexts.counters().contexts, 1, "its process lives");
    stage
        .yard
        .end(fake.number, crate::isolation::spawner::End::Exited(0));
    assert_eq!(ears.wait(2), [Event::Retired(0, 1), Event::Retired(2, 2)]);
    until("it ended", || stage.contexts.counters().contexts == 0);
    let counters = stage.contexts.counters();
    assert_eq!((counters.lost, counters.given_up), (0, 0));
    assert!(ears.all().len() == 2, "it is not lost: {:?}", ears.all());
}

#[test]
fn retiring_a_fence_retires_the_earlier_ones_of_its_timeline() {
    let stage = Stage::default();
    let ears = Ears::new();
    let (context, fake) = stage.begin(&ears);
    for fence in 1..=4 {
        context.fence(1, fence);
        context.fence(2, 10 * fence);
    }
    fake.say(FromWorker::FenceRetired { ring: 1, fence: 3 });
    let expected = [1, 2, 3].map(|fence| Event::Retired(1, fence));
    assert_eq!(ears.wait(3), expected);
    drop(context);
}

#[test]
fn charges_of_commands_stay_until_the_worker_has_consumed_them() {
    let stage = Stage::default();
    let (context, mut fake) = stage.begin(&Ears::new());
    let pool = Pool::new(1 << 20);
    let charge = |bytes: usize| pool.charge(bytes as u64).unwrap();
    context.submit(vec![0; 100], charge(100));
    assert_eq!(pool.used(), 0, "a small batch is free once it is sent");
    context.submit(vec![0; 10_000], charge(10_000));
    context.submit(vec![0; 5_000], charge(5_000));
    assert_eq!(pool.used(), 15_000);
    for _ in 0..3 {
        assert!(matches!(fake.hear(), ToWorker::Submit(_)));
    }
    fake.say(FromWorker::Consumed { bytes: 12_000 });
    until("the first is free", || pool.used() == 5_000);
    fake.say(FromWorker::Consumed { bytes: 3_000 });
    until("the second is free", || pool.used() == 0);
    context.submit(vec![0; 10_000], charge(10_000));
    stage
        .yard
        .end(fake.number, crate::isolation::spawner::End::Signalled(11));
    until("all is free at its end", || pool.used() == 0);
}

#[test]
fn budgets_are_shared_by_all_workers_and_blobs_outlive_theirs() {
    let options = RendererOptions {
        guest: GuestBudget {
            shared_bytes: 100 * page_size(),
            ..GuestBudget::default()
        },
        budget: Budget::default(),
        ..RendererOptions::default()
    };
    let stage = Stage::new(&options);
    let ears = Ears::new();
    let (context, mut fake) = stage.begin(&ears);
    let pool = Resource::SharedBytes as u8;
    let ask = |pages| message::Budget::Ask {
        pool,
        amount: pages * page_size(),
    };
    assert_eq!(fake.try_ask(ask(80)), Some(80 * page_size()));
    assert_eq!(fake.try_ask(ask(80)), Some(0));
    let left = fake.try_ask(message::Budget::Left { pool }).unwrap();
    assert!(left > 0 && left <= 20 * page_size(), "{left}");
    context.create_blob(1, request(page_size()));
    let (_theirs, memory_fd) = memory(60 * page_size());
    fake.make_blob(1, 0, 60 * page_size(), fd(&memory_fd));
    ears.wait(1);
    stage
        .yard
        .end(fake.number, crate::isolation::spawner::End::Exited(1));
    ears.wait(2);
    let outliving = || stage.contexts.counters().shared_bytes;
    until("the rest is given back", || outliving() == 60 * page_size());
    let (_other, mut other) = stage.begin(&Ears::new());
    assert_eq!(other.try_ask(ask(41)), Some(0), "the blob still counts");
    ears.drop_blobs();
    assert_eq!(outliving(), 0);
    assert_eq!(other.try_ask(ask(80)), Some(80 * page_size()));
    // A blob beyond the budget is refused, and the worker forgets it.
    let (third_ears, third) = {
        let ears = Ears::new();
        (Arc::clone(&ears), stage.begin(&ears))
    };
    let (third, mut third_fake) = third;
    third.create_blob(5, request(page_size()));
    let (_theirs, memory_fd) = memory(30 * page_size());
    third_fake.make_blob(5, 0, 30 * page_size(), fd(&memory_fd));
    assert!(matches!(
        third_ears.wait(1).as_slice(),
        [Event::Refused(5, BlobError::OutOfMemory(_))]
    ));
    third_fake.hear_until(|call| {
        *call
            == ToWorker::Detach {
                resource: 5,
                ticket: 0,
            }
    });
}

use std::sync::Arc;

#[test]
fn guest_memory_is_given_back_before_a_detach_or_a_drop_returns() {
    let stage = Stage::default();
    let ears = Ears::new();
    let (context, mut fake) = stage.begin(&ears);
    let (one, two) = (file(8 << 20), file(8 << 20));
    let pages = |file: &Arc<std::fs::File>, offset: u64| GuestPages {
        file: Arc::clone(file),
        offset,
        size: page_size(),
    };
    let runs = [pages(&one, 0), pages(&two, 0), pages(&one, page_size())];
    context.attach_guest_memory(4, &runs).unwrap();
    context.attach_guest_memory(5, &runs).unwrap();
    let (attach, fds) = fake.try_hear().unwrap();
    let ToWorker::AttachGuest { resource: 4, runs } = attach else {
        panic!("{attach:?}");
    };
    assert_eq!(fds.len(), 2);
    let files: Vec<u32> = runs.iter().map(|run| run.file).collect();
    assert_eq!(files, [0, 1, 0]);
    let many: Vec<_> = (0..17).map(|_| pages(&file(1 << 20), 0)).collect();
    assert!(context.attach_guest_memory(6, &many).is_err());

    let number = fake.number;
    let answering = std::thread::spawn(move || {
        let detach = fake.hear_until(|call| matches!(call, ToWorker::Detach { .. }));
        let ToWorker::Detach {
            resource: 4,
            ticket,
        } = detach
        else {
            panic!("{detach:?}");
        };
        assert_ne!(ticket, 0);
        fake.say(FromWorker::Detached { ticket });
        let all = fake.hear_until(|call| matches!(call, ToWorker::GiveBack { .. }));
        let ToWorker::GiveBack { ticket } = all else {
            panic!("{all:?}");
        };
        fake.say(FromWorker::Detached { ticket });
        fake.hear_end();
    });
    context.detach_resource(4);
    drop(context);
    answering.join().unwrap();
    assert!(!stage.yard.is_killed(number));
    assert!(ears.all().is_empty());
}

#[test]
fn a_worker_hears_when_nobody_has_its_blob_and_whether_another_worker_may() {
    let stage = Stage::default();
    let ears = Ears::new();
    let (context, mut fake) = stage.begin(&ears);
    let (other, _other_fake) = stage.begin(&Ears::new());
    for is_given_away in [false, true] {
        context.create_blob(1, request(page_size()));
        fake.hear();
        let (_theirs, memory_fd) = memory(page_size());
        fake.make_blob(1, 0, page_size(), fd(&memory_fd));
        ears.wait(1 + usize::from(is_given_away));
        let blob = ears.blob();
        ears.drop_blobs();
        if is_given_away {
            other.attach_resource(1, &blob);
            other.detach_resource(1);
        }
        context.detach_resource(1);
        drop(blob);
        let detach = ToWorker::Detach {
            resource: 1,
            ticket: 0,
        };
        assert_eq!(fake.hear(), detach, "the blob was still there");
        let returned = ToWorker::Returned {
            serial: 1 + SERIALS,
            is_given_away,
        };
        assert_eq!(fake.hear(), returned);
    }
    // A blob that is refused is returned at once.
    context.create_blob(2, request(page_size()));
    fake.hear();
    let (_theirs, memory_fd) = memory(1 << 40);
    fake.make_blob(2, 0, page_size(), fd(&memory_fd));
    let returned = ToWorker::Returned {
        serial: 2 + SERIALS,
        is_given_away: false,
    };
    fake.hear_until(|call| *call == returned);
}
