//! A worker that says anything, right and wrong, while the device calls: nothing panics, every
//! fence retires once and in order, and every blob is answered once.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use hesper_system::budget::{Charge, Pool};
use hesper_venus::memory::page_size;
use hesper_venus::{Budget, Caching, GuestPages, RendererOptions, Resource};

use super::fake::*;
use crate::contexts::Contexts;
use crate::isolation::message::{self, FromWorker, Piece, Refusal, ToWorker};
use crate::isolation::spawner::End;

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, most: u64) -> u64 {
        self.next() % most
    }

    fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => self.next(),
            1 => u64::MAX - self.below(page_size()),
            2 => self.below(3) * page_size(),
            _ => self.below(16),
        }
    }

    fn text(&mut self) -> String {
        let length = self.below(200);
        let any = |_| char::from_u32(self.next() as u32 % 0x300).unwrap_or('x');
        (0..length).map(any).collect()
    }
}

/// What the worker knows of what it was asked for.
#[derive(Default)]
struct Known {
    fences: Vec<(u8, u64)>,
    blobs: Vec<u32>,
    tickets: Vec<u32>,
    bytes: u64,
}

/// A message that is right now, if there is one.
fn right(dice: &mut Dice, known: &mut Known) -> FromWorker {
    match dice.below(8) {
        0 | 1 if !known.fences.is_empty() => {
            let (ring, fence) = known.fences.remove(0);
            // The earlier ones of this timeline, if any, are gone: it is the first.
            FromWorker::FenceRetired { ring, fence }
        }
        2 if !known.blobs.is_empty() => FromWorker::BlobRefused {
            resource: known.blobs.remove(0),
            kind: Refusal::OutOfMemory,
            reason: dice.text(),
        },
        3 | 4 if !known.blobs.is_empty() => FromWorker::BlobCreated {
            resource: known.blobs.remove(0),
            serial: dice.number(),
            memory: Piece {
                offset: 0,
                size: 2 * page_size(),
                caching: Caching::Cached,
            },
        },
        5 if !known.tickets.is_empty() => FromWorker::Detached {
            ticket: known.tickets.remove(0),
        },
        6 => FromWorker::Consumed {
            bytes: std::mem::take(&mut known.bytes),
        },
        _ => FromWorker::Log {
            level: dice.below(7) as u8,
            line: dice.text(),
        },
    }
}

/// A message of any kind with any content.
fn anything(dice: &mut Dice) -> FromWorker {
    let number = dice.number();
    match dice.below(12) {
        0 => FromWorker::Ready,
        1 => FromWorker::Unable(dice.text()),
        2 => FromWorker::FenceRetired {
            ring: dice.below(3) as u8,
            fence: number,
        },
        3 => FromWorker::BlobCreated {
            resource: dice.below(8) as u32,
            serial: number,
            memory: Piece {
                offset: dice.number(),
                size: number,
                caching: Caching::WriteCombining,
            },
        },
        4 => FromWorker::BlobRefused {
            resource: dice.below(8) as u32,
            kind: Refusal::Invalid,
            reason: dice.text(),
        },
        5 => FromWorker::RingCreated {
            ring: dice.below(6),
            status: number,
        },
        6 => FromWorker::RingDestroyed {
            ring: dice.below(6),
        },
        7 => FromWorker::Consumed { bytes: number },
        8 => FromWorker::Detached {
            ticket: number as u32,
        },
        9 => FromWorker::Lost(dice.text()),
        10 => FromWorker::Log {
            level: number as u8,
            line: dice.text(),
        },
        _ => FromWorker::Ended,
    }
}

/// How many descriptors a message needs.
fn needs(message: &FromWorker) -> usize {
    match message {
        FromWorker::BlobCreated { .. } | FromWorker::RingCreated { .. } => 1,
        _ => 0,
    }
}

/// The worker: hears in one thread, says in another.
fn misbehave(stage: &Stage, mut fake: Fake, seed: u64) -> thread::JoinHandle<()> {
    let yard = Arc::clone(&stage.yard);
    thread::spawn(move || {
        let mut dice = Dice(seed | 1);
        let mut known = Known::default();
        let descriptors: Vec<OwnedFd> = vec![
            memory(2 * page_size()).1,
            memory(page_size()).1,
            tempfile::tempfile().unwrap().into(),
            rustix::pipe::pipe().unwrap().0,
        ];
        fake.say(FromWorker::Ready);
        // How likely a wrong word is.
        let wrong = [0, 2, 30, 300][dice.below(4) as usize];
        while let Some((call, _)) = fake.try_hear() {
            match call {
                ToWorker::Submit(commands) if commands.len() >= message::SMALL_BATCH => {
                    known.bytes += commands.len() as u64;
                }
                ToWorker::Fence { ring, fence } => known.fences.push((ring, fence)),
                ToWorker::CreateBlob { resource, .. } => known.blobs.push(resource),
                ToWorker::Detach { ticket, .. } | ToWorker::GiveBack { ticket } if ticket > 0 => {
                    fake.say(FromWorker::Detached { ticket });
                }
                _ => {}
            }
            for _ in 0..dice.below(4) {
                let is_wrong = dice.below(1000) < wrong;
                let message = match is_wrong {
                    true => anything(&mut dice),
                    false => right(&mut dice, &mut known),
                };
                let (fds, place) = match is_wrong {
                    true => (needs(&message), dice.below(4) as usize),
                    false => (needs(&message), 0),
                };
                let fds: Vec<_> = (0..fds).map(|_| fd(&descriptors[place])).collect();
                if is_wrong && dice.below(4) == 0 {
                    // Some bytes of it are others.
                    let mut bytes = frame(&message, fds.len() as u16);
                    for _ in 0..=dice.below(3) {
                        let at = dice.below(bytes.len() as u64) as usize;
                        bytes[at] = dice.next() as u8;
                    }
                    fake.babble(&bytes);
                } else {
                    fake.try_say(message, &fds);
                }
            }
            let pool = dice.below(7) as u8;
            match dice.below(40) {
                0 if wrong > 0 => {
                    let amount = dice.number();
                    let _ = fake
                        .questions
                        .send(&message::Budget::GiveBack { pool, amount }, &[]);
                }
                1..4 if usize::from(pool) < Resource::ALL.len() => {
                    let amount = dice.number();
                    let _ = fake.try_ask(message::Budget::Ask { pool, amount });
                }
                4 if wrong > 2 => yard.end(fake.number, End::Signalled(6)),
                _ => {}
            }
        }
    })
}

/// One context, and what became of it.
fn round(seed: u64) {
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let options = RendererOptions {
        budget: Budget {
            rings: 4,
            queued: 1 << 12,
            ..Budget::default()
        },
        ..RendererOptions::default()
    };
    let stage = Stage::new(&options);
    let fake = stage.fake();
    let misbehaving = misbehave(&stage, fake, dice.next());
    let ears = Ears::new();
    let context = stage.create(1, &ears);
    let pool = Pool::new(u64::MAX);
    let (mut fences, mut blobs) = (Vec::new(), Vec::new());
    let memory = file(1 << 20);
    for number in 0..dice.below(400) {
        match dice.below(8) {
            0 | 1 => {
                let ring = dice.below(3) as u8;
                context.fence(ring, number);
                fences.push((ring, number));
            }
            2 | 3 => {
                context.create_blob(number as u32, request(1 + dice.below(2 * page_size())));
                blobs.push(number as u32);
            }
            4 => {
                let bytes = dice.below(20_000);
                let charge = pool.charge(bytes).unwrap();
                context.submit(vec![1; bytes as usize], charge);
            }
            5 => {
                let page = GuestPages {
                    file: Arc::clone(&memory),
                    offset: 0,
                    size: page_size(),
                };
                context.attach_guest_memory(7, &[page]).unwrap();
            }
            6 => context.detach_resource(7),
            _ => context.submit(vec![2; 24], Charge::default()),
        }
    }
    drop(context);
    // A worker that does not end is killed at the end of its time.
    if dice.below(20) > 0 {
        for worker in stage.contexts.workers() {
            stage.yard.end(worker, End::Exited(0));
        }
    }
    misbehaving.join().unwrap();
    let answered = |events: &[Event]| {
        let is_lost = |event: &&Event| matches!(event, Event::Lost(_));
        events.len() - events.iter().filter(is_lost).count()
    };
    until("everything is answered", || {
        answered(&ears.all()) >= fences.len() + blobs.len()
    });
    until("no process is left", || {
        stage.contexts.counters().contexts == 0
    });
    until("all commands are free", || pool.used() == 0);
    let events = ears.all();
    let mut retired: HashMap<u8, Vec<u64>> = HashMap::new();
    let (mut answers, mut lost) = (Vec::new(), 0);
    for event in events {
        match event {
            Event::Retired(ring, fence) => retired.entry(ring).or_default().push(fence),
            Event::Blob(resource, _) | Event::Refused(resource, _) => answers.push(resource),
            Event::Lost(_) => lost += 1,
        }
    }
    let mut made: HashMap<u8, Vec<u64>> = HashMap::new();
    for (ring, fence) in fences {
        made.entry(ring).or_default().push(fence);
    }
    assert_eq!(retired, made, "seed {seed}");
    answers.sort_unstable();
    assert_eq!(answers, blobs, "seed {seed}");
    assert!(lost <= 1, "seed {seed}");
    ears.drop_blobs();
    let counters = stage.contexts.counters();
    assert_eq!(counters.shared_bytes, 0, "seed {seed}");
}

#[test]
fn whatever_a_worker_says_everything_is_answered_once() {
    let rounds = std::env::var("HESPER_ISOLATION_ROUNDS");
    let rounds = rounds
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(200);
    let has_failed = AtomicBool::new(false);
    let next = std::sync::atomic::AtomicU64::new(1);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !has_failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > rounds {
                        return;
                    }
                    if std::panic::catch_unwind(|| round(seed)).is_err() {
                        has_failed.store(true, Ordering::Relaxed);
                        panic!("seed {seed}");
                    }
                }
            });
        }
    });
}
