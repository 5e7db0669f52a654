//! Many rings over the null driver: Mesa makes one for each thread of a program that makes
//! pipelines.
#![allow(
    clippy::duplicate_mod,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends with a panic"
)]

mod guest;
mod hostile;

use std::sync::atomic::Ordering;
use std::time::Instant;

use guest::settled::Settled;
use guest::{Guest, PATIENCE, VenusGuest as _, bytes, renderer_with};
use hesper_venus::{Blob, Budget, RendererOptions};
use hesper_venus_protocol::{command, vk};
use hostile::null_driver;

/// Bytes of one ring in the resource that they all lie in.
const SIZE: usize = 1024;
const BUFFER: usize = 512;

fn renderer(budget: Budget) -> Settled {
    renderer_with(RendererOptions {
        driver: null_driver(),
        budget,
        ..Default::default()
    })
}

/// Rings side by side in one resource.
struct Rings<'g> {
    guest: &'g Guest,
    resource: u32,
    blob: Blob,
}

impl<'g> Rings<'g> {
    fn new(guest: &'g Guest, count: usize) -> Self {
        let (resource, blob) = guest.blob(0, (count * SIZE) as u64).unwrap();
        Self {
            guest,
            resource,
            blob,
        }
    }

    fn create(&self, index: usize, id: u64) {
        self.blob.memory.write(index * SIZE, &[0; SIZE]).unwrap();
        let mut info = vk::RingCreateInfoMESA {
            resource_id: self.resource,
            offset: index * SIZE,
            size: SIZE,
            idle_timeout: 1_000_000,
            tail_offset: 64,
            status_offset: 128,
            buffer_offset: 192,
            buffer_size: BUFFER,
            ..Default::default()
        };
        self.guest.send(&command::CreateRingMESA {
            ring: id,
            p_create_info: &mut info,
        });
    }

    fn word(&self, index: usize, offset: usize) -> &std::sync::atomic::AtomicU32 {
        self.blob.memory.word(index * SIZE + offset).unwrap()
    }

    /// Gives a ring commands.
    fn write(&self, index: usize, id: u64, stream: &[u8]) {
        self.blob.memory.write(index * SIZE + 192, stream).unwrap();
        self.word(index, 64)
            .store(stream.len() as u32, Ordering::SeqCst);
        self.guest.send(&command::NotifyRingMESA {
            ring: id,
            seqno: 0,
            flags: vk::RingNotifyFlagsMESA::default(),
        });
    }

    /// Waits until a ring has carried out its commands.
    fn wait(&self, index: usize) {
        let end = Instant::now() + PATIENCE;
        let tail = self.word(index, 64).load(Ordering::SeqCst);
        while self.word(index, 0).load(Ordering::SeqCst) != tail {
            assert!(Instant::now() < end, "ring {index} does nothing");
            std::thread::yield_now();
        }
    }
}

/// Any command for a ring.
fn something() -> Vec<u8> {
    guest::reply_stream(1, 0, 4096)
}

fn destroy(guest: &Guest, id: u64) {
    guest.send(&command::DestroyRingMESA { ring: id });
}

#[test]
fn rings_of_512_threads_work_at_once() {
    const COUNT: usize = 512;
    let renderer = renderer(Budget::default());
    let guest = Guest::new(&renderer, "512");
    let rings = Rings::new(&guest, COUNT);
    for index in 0..COUNT {
        rings.create(index, 1 + index as u64);
    }
    guest.wait_fence(0);
    for index in 0..COUNT {
        rings.write(index, 1 + index as u64, &something());
    }
    for index in 0..COUNT {
        rings.wait(index);
    }
    assert_eq!(renderer.counters().rings, COUNT as u64);
    assert_eq!(renderer.counters().lost, 0);
}

#[test]
fn rings_of_2000_short_lived_threads_come_and_go() {
    const AT_ONCE: usize = 16;
    let renderer = renderer(Budget {
        // Rings that end do not count.
        rings: AT_ONCE,
        ..Default::default()
    });
    let guest = Guest::new(&renderer, "short-lived");
    let rings = Rings::new(&guest, AT_ONCE);
    for number in 0..2000 {
        let (index, id) = (number % AT_ONCE, 1 + number as u64);
        if number >= AT_ONCE {
            rings.wait(index);
            destroy(&guest, id - AT_ONCE as u64);
        }
        rings.create(index, id);
        // The ring's memory is cleared above, so the ring must be made before it is written.
        guest.wait_fence(0);
        rings.write(index, id, &something());
    }
    guest.wait_fence(0);
    assert_eq!(renderer.counters().lost, 0);
}

#[test]
fn a_ring_whose_thread_is_still_busy_does_not_count_when_it_is_destroyed() {
    let renderer = renderer(Budget {
        rings: 2,
        ..Default::default()
    });
    let guest = Guest::new(&renderer, "busy");
    let rings = Rings::new(&guest, 200);
    // None of them ends before it has seen a command that makes it wait.
    for number in 0..200 {
        let id = 1 + number as u64;
        rings.create(number, id);
        let waits = bytes(&command::WaitVirtqueueSeqnoMESA { seqno: 1 });
        rings.write(number, id, &waits);
        destroy(&guest, id);
    }
    guest.wait_fence(0);
    assert_eq!(renderer.counters().lost, 0);
}

#[test]
fn one_ring_too_many_says_which_limit_and_how_to_raise_it() {
    let renderer = renderer(Budget {
        rings: 3,
        ..Default::default()
    });
    let guest = Guest::new(&renderer, "too many");
    let rings = Rings::new(&guest, 4);
    for index in 0..4 {
        rings.create(index, 1 + index as u64);
    }
    let reason = guest.dies();
    assert!(
        reason.contains("more than 3 rings") && reason.contains("--rings"),
        "{reason}"
    );
}
