//! A renderer that answers from inside of a call, while another thread has an answer, too: commands
//! that waited run on a thread that is inside of the device already.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use hesper_vhost::device::{Device, Outcome, Queue, Taken, Transport};
use hesper_vhost::screen::{NoScreen, Rect};
use hesper_vhost::testing::{Chain, DriverQueue, FakeRenderer, Guest, Posted, Request, options};
use hesper_vhost::wire::*;
use vm_memory::{GuestAddress, GuestMemoryAtomic, GuestMemoryMmap};

const PATIENCE: Duration = Duration::from_secs(60);
const ALL: Rect = Rect {
    x: 0,
    y: 0,
    width: 32,
    height: 32,
};

/// A transport whose first answer takes as long as the test wants: its thread was preempted.
#[derive(Default)]
struct SlowTransport {
    is_armed: AtomicBool,
    /// Whether a thread is inside, and whether it may go on.
    gate: Mutex<(bool, bool)>,
    changed: Condvar,
}

impl SlowTransport {
    fn wait_until_entered(&self) {
        let gate = self.gate.lock().unwrap();
        drop(self.changed.wait_while(gate, |gate| !gate.0).unwrap());
    }

    fn open(&self) {
        self.gate.lock().unwrap().1 = true;
        self.changed.notify_all();
    }
}

impl Transport for SlowTransport {
    fn complete(&self, _: Queue, _: u16, _: Taken, _: u32) {
        if self.is_armed.swap(false, Ordering::SeqCst) {
            let mut gate = self.gate.lock().unwrap();
            gate.0 = true;
            self.changed.notify_all();
            drop(self.changed.wait_while(gate, |gate| !gate.1).unwrap());
        }
    }

    fn config_changed(&self) {}

    fn map(&self, _: u64, _: BorrowedFd<'_>, _: u64, _: u64) -> std::io::Result<()> {
        Ok(())
    }

    fn unmap(&self, _: u64, _: u64) -> std::io::Result<()> {
        Ok(())
    }
}

/// Context 1 makes blobs slowly, context 2 from inside of the call. Commands wait for a blob of
/// context 1; the last of them calls context 2, to which a resource is attached.
#[test]
fn a_blob_made_inside_of_the_call_does_not_deadlock_with_commands_that_wait() {
    // Never freed: the threads outlive a test that fails.
    let memory: &'static GuestMemoryMmap = Box::leak(Box::new(
        GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 256 << 20)]).unwrap(),
    ));
    let slow = FakeRenderer::with_capset(4, 16);
    let fast = FakeRenderer::with_capset(5, 16);
    let device = Arc::new(Device::new(
        options(),
        Arc::new(NoScreen),
        vec![Arc::clone(&slow) as _, fast as _],
    ));
    let transport = Arc::new(SlowTransport::default());
    device.set_transport(Arc::clone(&transport) as _);
    device.set_memory(GuestMemoryAtomic::new((*memory).clone()));
    device.set_acked_features(device.features());
    let mut control = DriverQueue::new(memory, 0x1000, 1 << 20, 100 << 20);
    let mut post = |request: &Request| {
        let (chain, _) = control.post(memory, &Chain::of(request));
        device.control(memory, chain)
    };
    for request in [
        Request::create_context(1, 4, "slow"),
        Request::create_context(2, 5, "fast"),
        Request::create_2d(9, FORMAT_B8G8R8X8, 32, 32),
        Request::attach(2, 9),
    ] {
        assert!(matches!(post(&request), Outcome::Done { .. }));
    }
    slow.be_slow(true);
    for request in [
        Request::host_blob(1, 1, 7, 8192),
        Request::set_scanout_blob(0, 1, FORMAT_B8G8R8X8, 32, 32),
        Request::set_scanout(0, 9, ALL),
        Request::unref(9),
    ] {
        assert_eq!(post(&request), Outcome::Held);
    }
    transport.is_armed.store(true, Ordering::SeqCst);
    let maker = thread::spawn(move || slow.make_blob(1, 1, 8192));
    transport.wait_until_entered();
    // The control queue goes on meanwhile, with a blob of the other context.
    let (chain, _) = control.post(memory, &Chain::of(&Request::host_blob(2, 20, 0, 8192)));
    let (says, hears) = mpsc::channel();
    thread::spawn(move || {
        let _ = device.control(memory, chain);
        let _ = says.send(());
    });
    let answered = hears.recv_timeout(PATIENCE);
    transport.open();
    answered.expect("the control queue's thread does not come back");
    maker.join().unwrap();
}

/// The same without any help: only two threads that run at the same time.
#[test]
fn two_threads_that_answer_at_the_same_time_never_stop_the_queue() {
    const ROUNDS: u64 = 3000;
    let rounds = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&rounds);
    thread::spawn(move || run_rounds(ROUNDS, &seen));
    let mut last = (0, Instant::now());
    while last.0 < ROUNDS {
        let now = rounds.load(Ordering::Acquire);
        if now != last.0 {
            last = (now, Instant::now());
        }
        assert!(last.1.elapsed() < PATIENCE, "stuck after {now} rounds");
        thread::sleep(Duration::from_millis(5));
    }
}

fn run_rounds(rounds: u64, done: &AtomicU64) {
    let slow = FakeRenderer::with_capset(4, 16);
    let fast = FakeRenderer::with_capset(5, 16);
    let renderers = vec![Arc::clone(&slow) as _, Arc::clone(&fast) as _];
    let mut guest = Guest::with(options(), Arc::new(NoScreen), renderers);
    guest.ok(&Request::create_context(1, 4, "slow"));
    guest.ok(&Request::create_context(2, 5, "fast"));
    slow.be_slow(true);
    let (makes, wanted) = mpsc::channel();
    let maker = thread::spawn(move || {
        for () in wanted {
            slow.make_blob(1, 1, 8192);
            slow.calls(1);
        }
    });
    let settle = |guest: &mut Guest| {
        while guest.open() > 0 {
            guest.late();
            thread::yield_now();
        }
    };
    for round in 1..=rounds {
        // The thread that answered the last command of a round may not have come back from it. Then
        // these two wait for it.
        for request in [
            Request::create_2d(9, FORMAT_B8G8R8X8, 32, 32),
            Request::attach(2, 9),
        ] {
            let reply = match guest.post(Queue::Control, &Chain::of(&request)) {
                Posted::Answered(reply) => reply,
                Posted::Held(head) => {
                    settle(&mut guest);
                    guest.reply(head)
                }
            };
            assert_eq!(reply.kind(), RESP_OK_NODATA, "{request:?}");
        }
        for request in [
            Request::host_blob(1, 1, 7, 8192),
            Request::set_scanout_blob(0, 1, FORMAT_B8G8R8X8, 32, 32),
            Request::set_scanout(0, 9, ALL),
            Request::unref(9),
        ] {
            guest.held(&request);
        }
        makes.send(()).unwrap();
        for id in 20..40 {
            let _ = guest.post(
                Queue::Control,
                &Chain::of(&Request::host_blob(2, id, 0, 8192)),
            );
        }
        settle(&mut guest);
        for id in (20..40).chain([1]) {
            let _ = guest.post(Queue::Control, &Chain::of(&Request::unref(id)));
        }
        settle(&mut guest);
        fast.calls(2);
        done.store(round, Ordering::Release);
    }
    drop(makes);
    maker.join().unwrap();
}
