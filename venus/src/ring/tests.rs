//! A ring with a guest that is this test.

use super::*;
use crate::command_stream::Stream;
use crate::memory::SharedMemory;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

const BUFFER: usize = 4096;

fn request() -> Request {
    Request {
        offset: 0,
        size: 192 + BUFFER,
        head: 0,
        tail: 64,
        status: 128,
        buffer: 192,
        buffer_size: BUFFER,
        ..Request::default()
    }
}

/// Collects bytes; a byte 0xff is a violation.
struct Collector(Sender<Vec<u8>>);

impl Consumer for Collector {
    fn consume(&mut self, stream: &RingStream<'_>) -> Result<(), Fatal> {
        let mut commands = Vec::new();
        stream.append_to(0, stream.len(), &mut commands).unwrap();
        if commands.contains(&0xff) {
            return Err(Fatal::RingExtra(0xff));
        }
        self.0.send(commands).unwrap();
        Ok(())
    }

    fn idle(&mut self) {}
}

/// The guest's end.
struct Guest {
    memory: Arc<SharedMemory>,
    tail: u32,
}

impl Guest {
    fn new() -> Self {
        let memory = Arc::new(SharedMemory::create((192 + BUFFER) as u64).unwrap());
        Self { memory, tail: 0 }
    }

    fn layout(&self) -> Layout {
        Layout::new(Arc::clone(&self.memory), &request()).unwrap()
    }

    fn ring(&self, idle_timeout: Duration) -> Ring {
        let bell = Bell::new(None, 7);
        Ring::new(self.layout(), idle_timeout, None, bell, Lane::default())
    }

    fn status(&self) -> u32 {
        self.memory.word(128).unwrap().load(Ordering::SeqCst)
    }

    fn head(&self) -> u32 {
        self.memory.word(0).unwrap().load(Ordering::Acquire)
    }

    /// Writes as Mesa does: buffer, tail, then reads the status.
    fn write(&mut self, ring: &Ring, byte: u8, len: usize) {
        for _ in 0..len {
            let at = 192 + (self.tail as usize & (BUFFER - 1));
            self.memory.write(at, &[byte]).unwrap();
            self.tail = self.tail.wrapping_add(1);
        }
        self.memory
            .word(64)
            .unwrap()
            .store(self.tail, Ordering::SeqCst);
        if self.status() & IDLE != 0 {
            ring.notify();
        }
    }
}

fn until(condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "timed out");
        std::thread::yield_now();
    }
}

#[test]
fn every_byte_arrives_once_and_in_order_across_sleeps_and_wraps() {
    let mut guest = Guest::new();
    let ring = guest.ring(Duration::ZERO);
    let (sender, received) = channel();
    std::thread::scope(|scope| {
        scope.spawn(|| run(&ring, &mut Collector(sender)));
        let mut sent = Vec::new();
        for round in 0..2000usize {
            let (byte, len) = ((round % 251) as u8, 1 + round % 700);
            guest.write(&ring, byte, len);
            sent.extend(std::iter::repeat_n(byte, len));
            if round % 3 == 0 {
                // Long enough to let the ring fall asleep now and then.
                std::thread::sleep(Duration::from_micros(200));
            }
            until(|| guest.tail.wrapping_sub(guest.head()) < 3000);
        }
        until(|| guest.head() == guest.tail);
        ring.stop();
        assert!(received.iter().flatten().eq(sent));
    });
}

#[test]
fn a_quiet_ring_is_idle_and_alive() {
    let guest = Guest::new();
    let ring = guest.ring(Duration::from_millis(1));
    let (sender, _received) = channel();
    std::thread::scope(|scope| {
        scope.spawn(|| run(&ring, &mut Collector(sender)));
        until(|| guest.status() == IDLE | ALIVE);
        ring.stop();
    });
}

#[test]
fn who_waits_for_a_position_is_woken_when_it_is_reached() {
    let mut guest = Guest::new();
    let ring = guest.ring(Duration::ZERO);
    let (sender, _received) = channel();
    std::thread::scope(|scope| {
        scope.spawn(|| run(&ring, &mut Collector(sender)));
        for _ in 0..200 {
            let target = guest.tail.wrapping_add(8);
            let waiter = scope.spawn({
                let ring = &ring;
                move || ring.wait_seqno(target)
            });
            guest.write(&ring, 1, 8);
            waiter.join().unwrap();
            assert_eq!(guest.head(), target);
        }
        ring.stop();
        // A ring that ended lets its waiters go.
        ring.wait_seqno(guest.tail.wrapping_add(8));
    });
}

#[test]
fn a_violation_ends_the_thread_with_its_reason() {
    let mut guest = Guest::new();
    let ring = guest.ring(Duration::ZERO);
    guest.write(&ring, 0xff, 4);
    let (sender, _received) = channel();
    let ended = run(&ring, &mut Collector(sender));
    assert_eq!(ended, Err(Fatal::RingExtra(0xff)));
    ring.fail();
    assert_eq!(guest.status() & FATAL, FATAL);
    assert_eq!(guest.head(), 0, "nothing counts as consumed");
}

#[test]
fn a_tail_beyond_the_buffer_is_a_violation() {
    let guest = Guest::new();
    let ring = guest.ring(Duration::ZERO);
    let beyond = BUFFER as u32 + 4;
    guest
        .memory
        .word(64)
        .unwrap()
        .store(beyond, Ordering::SeqCst);
    let (sender, _received) = channel();
    let ended = run(&ring, &mut Collector(sender));
    let expected = Fatal::RingTail {
        head: 0,
        tail: beyond,
    };
    assert_eq!(ended, Err(expected));
}

#[test]
fn a_ring_waits_for_the_virtqueue_and_not_longer() {
    let guest = Guest::new();
    let ring = guest.ring(Duration::ZERO);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            ring.bell.is_mine();
            ring.wait_virtqueue(2);
        });
        ring.submit_virtqueue(1);
        std::thread::sleep(Duration::from_millis(5));
        assert!(!waiter.is_finished());
        ring.submit_virtqueue(2);
        waiter.join().unwrap();
    });
}
