//! Workers that break the rules, each in one way: their context is lost, and only theirs.

use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hesper_system::budget::Charge;
use hesper_venus::memory::page_size;
use hesper_venus::{BlobError, Budget, Caching, GuestPages, RendererOptions, Resource};
use rustix::io::IoSlice;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

use super::fake::*;
use crate::contexts::Contexts;
use crate::isolation::channel::LARGEST_FROM_WORKER;
use crate::isolation::message::{self, FromWorker, Piece, Refusal, ToWorker};

/// A worker says something wrong: it is killed, its context is lost, and all that waits is
/// answered, once and in order. The reason says `why`.
#[track_caller]
fn loses(why: &str, says: impl FnOnce(&mut Fake)) {
    let options = RendererOptions {
        budget: Budget {
            rings: 3,
            ..Budget::default()
        },
        ..RendererOptions::default()
    };
    let stage = Stage::new(&options);
    let (ears, others) = (Ears::new(), Ears::new());
    let (context, mut fake) = stage.begin(&ears);
    let (_other, other) = stage.begin(&others);
    _other.fence(1, 99);
    context.fence(1, 10);
    context.create_blob(7, request(page_size()));
    context.fence(1, 11);
    says(&mut fake);
    let events = ears.wait(4);
    let Event::Lost(reason) = &events[0] else {
        panic!("{events:?}");
    };
    assert!(reason.contains(why), "{reason:?} does not say {why:?}");
    let lost = BlobError::Lost(reason.clone());
    let answers = [
        Event::Retired(1, 10),
        Event::Retired(1, 11),
        Event::Refused(7, lost.clone()),
    ];
    assert_eq!(events[1..], answers);
    assert!(stage.yard.is_killed(fake.number));
    // Later calls are answered at once.
    context.submit(vec![1], Charge::default());
    context.fence(2, 12);
    context.create_blob(8, request(page_size()));
    context.detach_resource(8);
    let later = [Event::Retired(2, 12), Event::Refused(8, lost)];
    assert_eq!(ears.wait(6)[4..], later);
    // The other context goes on.
    other.say(FromWorker::FenceRetired { ring: 1, fence: 99 });
    assert_eq!(others.wait(1), [Event::Retired(1, 99)]);
    assert_eq!(stage.contexts.counters().lost, 1);
    drop(context);
    until("its process is gone", || {
        stage.contexts.counters().contexts == 1
    });
    assert_eq!(ears.all().len(), 6);
}

fn ring(ring: u64, status: u64) -> FromWorker {
    FromWorker::RingCreated { ring, status }
}

fn blob(resource: u32, offset: u64, size: u64) -> FromWorker {
    let memory = Piece {
        offset,
        size,
        caching: Caching::Cached,
    };
    FromWorker::BlobCreated {
        resource,
        serial: 1,
        memory,
    }
}

#[test]
fn a_fence_that_was_never_made() {
    let retired = |ring, fence| FromWorker::FenceRetired { ring, fence };
    loses("fence 5 of timeline 1", |fake| fake.say(retired(1, 5)));
    loses("fence 10 of timeline 2", |fake| fake.say(retired(2, 10)));
}

#[test]
fn a_blob_that_nobody_asked_for() {
    let (_theirs, memory_fd) = memory(page_size());
    let sent = fd(&memory_fd);
    loses("blob 9", |fake| fake.make_blob(9, 0, page_size(), sent));
    loses("blob 9", |fake| {
        fake.say(FromWorker::BlobRefused {
            resource: 9,
            kind: Refusal::Lost,
            reason: String::new(),
        });
    });
}

#[test]
fn a_blob_of_a_wrong_size_or_place() {
    let page = page_size();
    let (_theirs, memory_fd) = memory(2 * page);
    for (offset, size) in [
        (0, 0),
        (0, page - 1),
        (0, page + 1),
        (0, 3 * page),
        (1, page),
        (2 * page, page),
        (u64::MAX - page + 1, page),
        (0, u64::MAX - page + 1),
    ] {
        loses("", |fake| fake.make_blob(7, offset, size, fd(&memory_fd)));
    }
}

#[test]
fn a_blob_or_ring_whose_descriptor_is_no_memory_that_lasts() {
    let (pipe, _writer) = rustix::pipe::pipe().unwrap();
    let (socket, _far) = UnixStream::pair().unwrap();
    let zeros = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/zero");
    let usual = tempfile::tempfile().unwrap();
    usual.set_len(page_size()).unwrap();
    let mut wrong: Vec<OwnedFd> = vec![
        pipe,
        socket.into(),
        zeros.unwrap().into(),
        std::fs::File::open("/").unwrap().into(),
        usual.into(),
    ];
    #[cfg(target_os = "linux")]
    {
        use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, ftruncate, memfd_create};
        // Anybody can shrink the first two. Nobody can map the third.
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        for seals in [
            SealFlags::empty(),
            SealFlags::GROW,
            SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
        ] {
            let memfd = memfd_create("wrong", flags).unwrap();
            ftruncate(&memfd, page_size()).unwrap();
            fcntl_add_seals(&memfd, seals).unwrap();
            wrong.push(memfd);
        }
    }
    for wrong in &wrong {
        loses("", |fake| fake.make_blob(7, 0, page_size(), fd(wrong)));
        loses("", |fake| fake.say_with(ring(1, 0), fd(wrong)));
    }
}

#[test]
fn rings_that_are_too_many_or_wrong() {
    let (_theirs, memory_fd) = memory(page_size());
    let say = |fake: &Fake, id, status| fake.say_with(ring(id, status), fd(&memory_fd));
    loses("more than 3 rings", |fake| {
        (0..4).for_each(|id| say(fake, id, 0));
    });
    loses("a second ring", |fake| {
        (0..2).for_each(|_| say(fake, 5, 64));
    });
    for status in [2, page_size(), page_size() - 2, u64::MAX, u64::MAX - 3] {
        loses("", |fake| say(fake, 1, status));
    }
    loses("a ring 0x9", |fake| {
        fake.say(FromWorker::RingDestroyed { ring: 9 });
    });
}

#[test]
fn words_out_of_place() {
    loses("ready a second time", |fake| fake.say(FromWorker::Ready));
    loses("without being told", |fake| fake.say(FromWorker::Ended));
    loses("answer to no question 77", |fake| {
        fake.say(FromWorker::Detached { ticket: 77 });
    });
    loses("consumed more", |fake| {
        fake.say(FromWorker::Consumed { bytes: 1 });
    });
    loses("the GPU has gone", |fake| {
        fake.say(FromWorker::Unable("the GPU has gone".to_owned()));
    });
}

#[test]
fn a_spare_that_speaks_as_a_context_never_becomes_one() {
    let stage = Stage::default();
    let fake = stage.fake();
    fake.say(FromWorker::Ready);
    fake.say(FromWorker::FenceRetired { ring: 0, fence: 0 });
    until("it is killed", || stage.yard.is_killed(fake.number));
    until("it is gone", || stage.yard.living() == 0);
    let ears = Ears::new();
    // It may not be known yet that it is gone; then the context is lost.
    let context = stage.create(3, &ears);
    drop(context);
}

#[test]
fn frames_that_are_none() {
    loses("", |fake| fake.babble(&[0xff; 64]));
    loses("unknown kind", |fake| {
        fake.babble(&[0, 0, 0, 0, 0, 0, 200, 0]);
    });
    let too_large = LARGEST_FROM_WORKER + 1;
    loses("at most", |fake| {
        let mut bytes = u32::try_from(too_large).unwrap().to_le_bytes().to_vec();
        bytes.extend([0, 0, 1, 0]);
        fake.babble(&bytes);
    });
    // A message to the worker is none from it.
    loses("", |fake| fake.babble(&frame(&ToWorker::End, 0)));
    // Half a frame, and the end.
    loses("closed its connection", |fake| {
        fake.babble(&[9, 0, 0]);
        let _ = fake.control.shutdown(std::net::Shutdown::Write);
    });
}

#[test]
fn descriptors_that_are_missing_or_too_many() {
    let created = frame(&blob(7, 0, page_size()), 0);
    loses("descriptors", |fake| fake.babble(&created));
    let with_one = frame(&blob(7, 0, page_size()), 1);
    loses("descriptors", |fake| fake.babble(&with_one));
    let (_theirs, memory_fd) = memory(page_size());
    let with = |count: usize, bytes: &[u8], fake: &Fake| {
        let fds: Vec<BorrowedFd<'_>> = vec![memory_fd.as_fd(); count];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(200))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
        let slices = [IoSlice::new(bytes)];
        let _ = sendmsg(&*fake.control, &slices, &mut control, SendFlags::empty());
    };
    loses("descriptors", |fake| {
        with(2, &frame(&blob(7, 0, page_size()), 2), fake);
    });
    loses("descriptors", |fake| with(200, &with_one, fake));
    loses("descriptors", |fake| {
        with(1, &frame(&FromWorker::Consumed { bytes: 0 }, 1), fake);
    });
    // Descriptors without a frame do not pile up.
    loses("descriptors", |fake| {
        for byte in with_one.iter().take(6) {
            with(16, &[*byte], fake);
        }
    });
}

#[test]
fn budgets_that_it_does_not_have() {
    let question = |question| {
        move |fake: &mut Fake| {
            let _ = fake.questions.send(&question, &[]);
        }
    };
    let back = |pool: Resource, amount| message::Budget::GiveBack {
        pool: pool as u8,
        amount,
    };
    for pool in Resource::ALL {
        loses("that it has not", question(back(pool, 1)));
        loses("that it has not", question(back(pool, u64::MAX)));
    }
    let pool = 6;
    loses("pool 6", question(message::Budget::Ask { pool, amount: 1 }));
    loses("pool 255", question(message::Budget::Left { pool: 255 }));
    loses(
        "no question",
        question(message::Budget::Granted { amount: 1 }),
    );
    // It asks on and on, and reads no answer.
    loses("does not read", |fake| {
        let pool = Resource::Objects as u8;
        while fake
            .questions
            .send(&message::Budget::Ask { pool, amount: 1 }, &[])
            .is_ok()
        {}
    });
}

#[test]
fn a_worker_that_asks_for_everything_leaves_something_for_others() {
    let stage = Stage::default();
    let (_context, mut greedy) = stage.begin(&Ears::new());
    for pool in [Resource::Objects, Resource::Threads, Resource::SharedBytes] {
        let pool = pool as u8;
        for amount in (0..40).rev().map(|bit| 1_u64 << bit) {
            while greedy
                .try_ask(message::Budget::Ask { pool, amount })
                .unwrap()
                > 0
            {}
        }
    }
    let (_other, mut other) = stage.begin(&Ears::new());
    for pool in [Resource::Objects, Resource::Threads, Resource::SharedBytes] {
        let pool = pool as u8;
        let left = other.try_ask(message::Budget::Left { pool }).unwrap();
        assert!(left > 0);
        let amount = left;
        let granted = other.try_ask(message::Budget::Ask { pool, amount });
        assert_eq!(granted, Some(amount));
    }
}

#[test]
fn a_context_is_lost_once_though_its_worker_says_so_again() {
    let stage = Stage::default();
    let ears = Ears::new();
    let (context, mut fake) = stage.begin(&ears);
    fake.say(FromWorker::Lost("a\twrong command".to_owned()));
    assert_eq!(ears.wait(1), [Event::Lost("a wrong command".to_owned())]);
    context.fence(1, 1);
    fake.hear_until(|call| matches!(call, ToWorker::Fence { .. }));
    fake.say(FromWorker::FenceRetired { ring: 1, fence: 1 });
    ears.wait(2);
    context.fence(1, 2);
    fake.say(FromWorker::Lost(String::new()));
    assert_eq!(
        ears.wait(3)[1..],
        [Event::Retired(1, 1), Event::Retired(1, 2)]
    );
    until("it is killed", || stage.yard.is_killed(fake.number));
    drop(context);
    assert_eq!(ears.all().len(), 3);
}

/// As one that is stopped with SIGSTOP.
#[test]
fn a_worker_that_reads_nothing_is_killed_when_too_much_waits() {
    let options = RendererOptions {
        budget: Budget {
            queued_bytes: 1 << 20,
            ..Budget::default()
        },
        ..RendererOptions::default()
    };
    let stage = Stage::new(&options);
    let ears = Ears::new();
    let (context, fake) = stage.begin(&ears);
    let pool = hesper_system::budget::Pool::new(u64::MAX);
    let begin = Instant::now();
    for _ in 0..100 {
        let charge = pool.charge(1 << 16).unwrap();
        context.submit(vec![0; 1 << 16], charge);
    }
    let events = ears.wait(1);
    let Event::Lost(reason) = &events[0] else {
        panic!("{events:?}");
    };
    assert!(reason.contains("does not take its commands"), "{reason}");
    assert!(stage.yard.is_killed(fake.number));
    until("all is free", || pool.used() == 0);
    // Calls that are small have a limit, too.
    let (small, _fake) = stage.begin(&ears);
    let mut fences = 0;
    while ears.all().len() < 2 {
        fences += 1;
        small.fence(1, fences);
        assert!(begin.elapsed() < PATIENCE);
    }
    until("all are retired", || ears.all().len() as u64 >= 2 + fences);
}

#[test]
fn a_worker_that_floods_is_slowed_down_and_others_are_not() {
    let stage = Stage::default();
    let (_context, flooding) = stage.begin(&Ears::new());
    let ears = Ears::new();
    let (other, other_fake) = stage.begin(&ears);
    let flood: Vec<u8> = (0..1000)
        .flat_map(|_| frame(&FromWorker::Consumed { bytes: 0 }, 0))
        .collect();
    let begin = Instant::now();
    let flooded = std::thread::spawn(move || {
        let mut rounds = 0_u64;
        while begin.elapsed() < Duration::from_secs(1)
            && (&*flooding.control).write_all(&flood).is_ok()
        {
            rounds += 1;
        }
        rounds
    });
    other.fence(1, 1);
    other_fake.say(FromWorker::FenceRetired { ring: 1, fence: 1 });
    ears.wait(1);
    let messages = flooded.join().unwrap() * 1000;
    // What a socket holds comes in addition to what is heard in that time.
    let seconds = begin.elapsed().as_secs() + 1;
    assert!(messages < 100_000 * seconds + 100_000, "{messages}");
}

#[test]
fn a_worker_that_keeps_guest_memory_is_killed_within_its_patience() {
    let stage = Stage::default();
    let ears = Ears::new();
    let (context, fake) = stage.begin(&ears);
    let memory = file(1 << 20);
    let page = GuestPages {
        file: Arc::clone(&memory),
        offset: 0,
        size: page_size(),
    };
    context.attach_guest_memory(4, &[page]).unwrap();
    context.detach_resource(4);
    assert!(stage.yard.is_killed(fake.number), "before it returns");
    assert!(matches!(ears.wait(1).as_slice(), [Event::Lost(_)]));
    drop(context);
}

#[test]
fn many_workers_that_keep_guest_memory_do_not_stop_the_device() {
    let stage = Stage::default();
    let memory = file(1 << 20);
    let begin = Instant::now();
    for _ in 0..40 {
        let (context, _fake) = stage.begin(&Ears::new());
        let page = GuestPages {
            file: Arc::clone(&memory),
            offset: 0,
            size: page_size(),
        };
        context.attach_guest_memory(4, &[page]).unwrap();
        context.detach_resource(4);
    }
    assert!(
        begin.elapsed() < Duration::from_secs(12),
        "not a second each"
    );
}
