use std::cell::RefCell;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, mpsc};
use std::thread;

use rustix::event::{EventfdFlags, eventfd};
use virtio_queue::desc::RawDescriptor;
use virtio_queue::desc::split::Descriptor;
use vm_memory::{Bytes, GuestAddress, GuestMemory};

use super::*;

const SIZE: u16 = 16;
const TABLE: u64 = 0;
const AVAIL: u64 = 0x1000;
const USED: u64 = 0x2000;

fn always() -> bool {
    true
}

/// A user of chains, made of two closures.
struct Closures<W, H>(RefCell<W>, RefCell<H>);

impl<W, H> ChainUser for Closures<W, H>
where
    W: FnMut() -> bool,
    H: FnMut(&GuestMemoryMmap, Chain) -> Outcome,
{
    fn wants_chain(&self) -> bool {
        (self.0.borrow_mut())()
    }

    fn resets(&self) -> u64 {
        0
    }

    fn handle(&self, memory: &GuestMemoryMmap, chain: Chain, _: Taken) -> Outcome {
        (self.1.borrow_mut())(memory, chain)
    }
}

impl Ring {
    fn process(
        &self,
        wanted: impl FnMut() -> bool,
        handle: impl FnMut(&GuestMemoryMmap, Chain) -> Outcome,
    ) {
        self.pass_chains(&Closures(RefCell::new(wanted), RefCell::new(handle)));
    }

    /// Answers a chain that was taken since the last reset.
    fn answer_now(&self, head: u16, written: u32) {
        let generation = self.lock().generation;
        self.complete(head, generation, written);
    }
}

/// A ring over its own guest memory, with the driver's view of it.
struct Bench {
    memory: GuestMemoryAtomic<GuestMemoryMmap>,
    ring: Arc<Ring>,
    call: OwnedFd,
    error: OwnedFd,
}

impl Bench {
    fn new(event_idx: bool) -> Self {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x10_0000)]).unwrap();
        let memory = GuestMemoryAtomic::new(memory);
        let event = || eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        let bench = Self {
            ring: Arc::new(Ring::new("test", memory.clone()).unwrap()),
            memory,
            call: event(),
            error: event(),
        };
        bench.ring.set_event_idx(event_idx);
        bench.ring.set_enabled(true);
        assert_eq!(bench.set_up(0), Start::Fresh);
        bench
    }

    fn write(&self, address: u64, value: u16) {
        let memory = self.memory.memory();
        memory.write_obj(value, GuestAddress(address)).unwrap();
    }

    fn read(&self, address: u64) -> u16 {
        self.memory
            .memory()
            .read_obj(GuestAddress(address))
            .unwrap()
    }

    fn set_up(&self, base: u32) -> Start {
        self.ring.set_size(SIZE.into()).unwrap();
        self.ring.set_addresses([TABLE, AVAIL, USED]).unwrap();
        self.ring.set_base(base).unwrap();
        let file = |fd: &OwnedFd| Some(File::from(fd.try_clone().unwrap()));
        self.ring.set_call(file(&self.call));
        self.ring.set_error(file(&self.error));
        self.ring.set_kick(file(&self.call));
        let plan = self.ring.plan(false);
        self.ring.start(plan);
        plan
    }

    /// What a driver does when it sets the ring up anew.
    fn clear_indices(&self) {
        self.write(AVAIL + 2, 0);
        self.write(USED + 2, 0);
    }

    /// Makes `count` chains of one descriptor available, whose heads are `first` and the following.
    fn offer(&self, first: u16, count: u16) {
        for head in first..first + count {
            let descriptor = RawDescriptor::from(Descriptor::new(0x8000, 16, 2, 0));
            let address = GuestAddress(TABLE + 16 * u64::from(head));
            let memory = self.memory.memory();
            memory.write_obj(descriptor, address).unwrap();
            let index = self.read(AVAIL + 2);
            self.write(AVAIL + 4 + 2 * u64::from(index % SIZE), head);
            self.write(AVAIL + 2, index.wrapping_add(1));
        }
    }

    /// The heads on the used ring, oldest first.
    fn used(&self) -> Vec<u16> {
        (0..self.read(USED + 2))
            .map(|index| self.read(USED + 4 + 8 * u64::from(index % SIZE)))
            .collect()
    }

    /// Says from which used index on the driver wants to be told (EVENT_IDX).
    fn set_used_event(&self, index: u16) {
        self.write(AVAIL + 4 + 2 * u64::from(SIZE), index);
    }

    fn signalled(&self) -> u64 {
        events(&self.call)
    }
}

/// How often an event was written since the last call.
fn events(fd: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    match rustix::io::read(fd.as_fd(), &mut count) {
        Ok(_) => u64::from_ne_bytes(count),
        Err(_) => 0,
    }
}

fn done(_: &GuestMemoryMmap, _: Chain) -> Outcome {
    Outcome::Done { written: 4 }
}

#[test]
fn a_batch_is_answered_in_order_with_one_notification() {
    let bench = Bench::new(false);
    bench.offer(0, 5);
    bench.ring.process(always, done);
    assert_eq!(bench.used(), [0, 1, 2, 3, 4]);
    assert_eq!(bench.signalled(), 1);
    bench.ring.process(always, done);
    assert_eq!(bench.signalled(), 0, "nothing new, nothing to tell");
}

#[test]
fn with_event_idx_the_driver_is_told_only_at_the_index_it_asked_for() {
    let bench = Bench::new(true);
    bench.set_used_event(3);
    bench.offer(0, 3);
    bench.ring.process(always, done);
    assert_eq!(bench.signalled(), 0);
    bench.offer(3, 1);
    bench.ring.process(always, done);
    assert_eq!(bench.signalled(), 1);
    // The ring has asked to be kicked for the next chain.
    assert_eq!(bench.read(USED + 4 + 8 * u64::from(SIZE)), 4);
}

#[test]
fn a_call_event_that_comes_late_makes_up_for_what_the_driver_was_not_told() {
    let bench = Bench::new(false);
    bench.ring.set_call(None);
    bench.offer(0, 1);
    bench.ring.process(always, done);
    let call = || Some(File::from(bench.call.try_clone().unwrap()));
    bench.ring.set_call(call());
    assert_eq!(bench.signalled(), 1);
    bench.ring.set_call(call());
    assert_eq!(bench.signalled(), 0);
}

#[test]
fn held_chains_are_answered_in_any_order() {
    let bench = Bench::new(false);
    bench.offer(0, 3);
    bench.ring.process(always, |_, _| Outcome::Held);
    assert!(bench.used().is_empty());
    bench.ring.answer_now(2, 0);
    bench.ring.answer_now(0, 0);
    assert_eq!(bench.used(), [2, 0]);
    assert_eq!(bench.signalled(), 2);
    bench.ring.answer_now(2, 0);
    bench.ring.answer_now(9, 0);
    bench.ring.answer_now(u16::MAX, 0);
    assert_eq!(bench.used(), [2, 0], "what is not held cannot be answered");
}

#[test]
fn an_answer_may_overtake_the_return_of_the_device() {
    let bench = Bench::new(false);
    bench.offer(0, 1);
    let ring = bench.ring.clone();
    bench.ring.process(always, |_, chain| {
        ring.answer_now(chain.head_index(), 8);
        Outcome::Held
    });
    assert_eq!(bench.used(), [0]);
}

#[test]
fn stopping_waits_for_the_worker_and_not_for_held_chains() {
    let bench = Bench::new(false);
    bench.offer(0, 2);
    let (inside, wait_inside) = mpsc::channel();
    let (leave, wait_leave) = mpsc::channel::<()>();
    let ring = bench.ring.clone();
    let worker = thread::spawn(move || {
        ring.process(always, |_, _| {
            inside.send(()).unwrap();
            wait_leave.recv().unwrap();
            Outcome::Held
        });
    });
    wait_inside.recv().unwrap();
    let ring = bench.ring.clone();
    let stopper = thread::spawn(move || ring.stop(Duration::from_secs(10)));
    thread::sleep(Duration::from_millis(20));
    assert!(!stopper.is_finished(), "the worker is still in the device");
    leave.send(()).unwrap();
    worker.join().unwrap();
    assert_eq!(
        stopper.join().unwrap(),
        (1, true),
        "the second chain stays available, the first one is held"
    );
    assert!(bench.used().is_empty());
    assert!(
        bench.signalled() > 0,
        "the driver is told before the ring stops"
    );
}

#[test]
fn a_worker_that_waits_for_the_vmm_holds_up_no_stop_and_comes_back_only_when_the_ring_runs() {
    let bench = Bench::new(false);
    bench.offer(0, 1);
    let (inside, wait_inside) = mpsc::channel();
    let (back, wait_back) = mpsc::channel();
    let ring = bench.ring.clone();
    let worker = thread::spawn(move || {
        ring.process(always, |_, _| {
            ring.step_out();
            inside.send(()).unwrap();
            wait_back.recv().unwrap();
            assert!(!ring.step_in(), "it is stopped");
            inside.send(()).unwrap();
            wait_back.recv().unwrap();
            assert!(ring.step_in(), "it runs");
            Outcome::Done { written: 0 }
        });
    });
    wait_inside.recv().unwrap();
    let (base, is_out) = bench.ring.stop(Duration::from_secs(60));
    assert_eq!((base, is_out), (1, true));
    assert!(bench.ring.step_in(), "only the worker is held back");
    back.send(()).unwrap();
    wait_inside.recv().unwrap();
    assert_eq!(bench.set_up(1), Start::Resumed);
    back.send(()).unwrap();
    worker.join().unwrap();
    assert_eq!(bench.used(), [0]);
}

#[test]
fn a_worker_that_does_not_leave_is_not_waited_for_for_ever() {
    let bench = Bench::new(false);
    bench.offer(0, 1);
    let ring = bench.ring.clone();
    bench.ring.process(always, move |_, _| {
        assert_eq!(ring.stop(Duration::from_millis(10)), (1, false));
        Outcome::Done { written: 0 }
    });
}

/// The worker is still in the device when the next driver starts. Its chain has the number of one
/// of the new driver's.
#[test]
fn a_late_answer_of_a_former_driver_is_not_one_for_the_next_driver() {
    let bench = Bench::new(false);
    bench.offer(0, 1);
    let ring = bench.ring.clone();
    let former = ring.lock().generation;
    let mut is_first = true;
    ring.process(always, |_, _| {
        if !std::mem::take(&mut is_first) {
            return Outcome::Held;
        }
        assert_eq!(bench.ring.stop(Duration::from_millis(10)), (1, false));
        bench.clear_indices();
        assert_eq!(bench.set_up(0), Start::Fresh);
        // Another thread of the device takes it, and it is answered later.
        assert!(bench.ring.lock().in_device.insert(0));
        Outcome::Done { written: 4 }
    });
    assert!(
        bench.used().is_empty(),
        "the new driver's chain was answered"
    );
    // The same for one that the device held.
    bench.ring.complete(0, former, 4);
    assert!(bench.used().is_empty());
    bench.ring.answer_now(0, 4);
    assert_eq!(bench.used(), [0]);
}

#[test]
fn what_was_answered_while_stopped_is_delivered_when_the_ring_goes_on() {
    let bench = Bench::new(false);
    bench.offer(0, 2);
    bench.ring.process(always, |_, _| Outcome::Held);
    assert_eq!(bench.ring.stop(Duration::from_millis(10)), (2, true));
    bench.signalled();
    bench.ring.answer_now(1, 4);
    bench.ring.answer_now(1, 4);
    assert!(bench.used().is_empty());
    assert_eq!(bench.set_up(2), Start::Resumed);
    assert_eq!(bench.used(), [1], "once");
    assert!(bench.signalled() > 0);
    bench.ring.answer_now(0, 4);
    assert_eq!(bench.used(), [1, 0]);
}

#[test]
fn what_was_answered_while_stopped_is_forgotten_by_a_driver_that_starts_anew() {
    let bench = Bench::new(false);
    bench.offer(0, 2);
    bench.ring.process(always, |_, _| Outcome::Held);
    bench.ring.stop(Duration::from_millis(10));
    bench.ring.answer_now(0, 4);
    bench.clear_indices();
    assert_eq!(bench.set_up(0), Start::Fresh);
    bench.ring.forget_held();
    assert!(bench.used().is_empty());
    bench.ring.answer_now(1, 4);
    assert!(bench.used().is_empty());
    // The same heads after a reset of the ring are other chains.
    bench.offer(0, 1);
    bench.ring.process(always, done);
    assert_eq!(bench.used(), [0]);
}

/// After a multiple of 65536 chains a paused VM goes on at index 0, where a driver starts, too.
#[test]
fn at_index_0_a_look_at_the_config_space_tells_a_driver_from_a_paused_vm() {
    for (is_seen, start) in [(false, Start::Resumed), (true, Start::Fresh)] {
        let bench = Bench::new(false);
        bench.ring.stop(Duration::from_secs(1));
        assert_eq!(bench.ring.plan(is_seen), start);
    }
}

#[test]
fn a_paused_ring_resumes_and_a_reset_one_starts_afresh() {
    let bench = Bench::new(false);
    bench.offer(0, 3);
    bench.ring.process(always, done);
    let (base, _) = bench.ring.stop(Duration::from_secs(1));
    assert_eq!(base, 3);
    bench.offer(3, 1);
    bench.ring.process(always, done);
    assert_eq!(bench.used(), [0, 1, 2], "a stopped ring is left alone");
    assert_eq!(bench.set_up(3), Start::Resumed);
    bench.ring.process(always, done);
    assert_eq!(bench.used(), [0, 1, 2, 3]);

    bench.ring.stop(Duration::from_secs(1));
    bench.clear_indices();
    assert_eq!(bench.set_up(0), Start::Fresh);
}

#[test]
fn a_disabled_ring_is_left_alone_until_enabled() {
    let bench = Bench::new(false);
    bench.ring.set_enabled(false);
    bench.offer(0, 1);
    bench.ring.process(always, done);
    assert!(bench.used().is_empty());
    assert!(bench.ring.kick().is_none());
    bench.ring.set_enabled(true);
    bench.ring.process(always, done);
    assert_eq!(bench.used(), [0]);
}

/// Runs a ring that the guest broke. It must end, take nothing more, and tell the VMM once.
fn assert_broken(bench: &Bench) {
    let mut taken = 0;
    bench.ring.process(always, |_, _| {
        taken += 1;
        Outcome::Done { written: 0 }
    });
    bench.ring.process(always, |_, _| {
        taken += 100;
        Outcome::Done { written: 0 }
    });
    assert!(taken < 2, "{taken}");
    assert_eq!(events(&bench.error), 1);
    assert!(bench.ring.kick().is_none());
    // A reset repairs it.
    bench.ring.stop(Duration::from_secs(1));
    bench.ring.forget_held();
    bench.clear_indices();
    assert_eq!(bench.set_up(0), Start::Fresh);
    bench.offer(0, 1);
    bench.ring.process(always, done);
    assert_eq!(bench.used(), [0]);
}

#[test]
fn an_available_index_too_far_ahead_breaks_only_the_ring() {
    let bench = Bench::new(false);
    bench.write(AVAIL + 2, SIZE + 1);
    assert_broken(&bench);
}

#[test]
fn a_head_outside_the_table_breaks_only_the_ring() {
    let bench = Bench::new(false);
    bench.write(AVAIL + 4, SIZE);
    bench.write(AVAIL + 2, 1);
    assert_broken(&bench);
}

#[test]
fn a_chain_offered_twice_breaks_only_the_ring() {
    let bench = Bench::new(false);
    bench.offer(4, 1);
    bench.ring.process(always, |_, _| Outcome::Held);
    bench.offer(4, 1);
    assert_broken(&bench);
}

#[test]
fn rings_that_leave_guest_memory_break_only_the_ring() {
    let bench = Bench::new(false);
    bench.offer(0, 1);
    // The VMM removes the memory under the ring.
    let whole = bench.memory.memory().clone();
    let small = GuestMemoryMmap::from_ranges(&[(GuestAddress(0x80_0000), 0x1000)]).unwrap();
    bench.memory.lock().unwrap().replace(small);
    let mut taken = 0;
    bench.ring.process(always, |_, _| {
        taken += 1;
        Outcome::Done { written: 0 }
    });
    assert_eq!((taken, events(&bench.error)), (0, 1));
    bench.ring.process(always, done);
    bench
        .memory
        .lock()
        .unwrap()
        .replace(GuestMemoryMmap::clone(&whole));
    assert!(whole.check_range(GuestAddress(0), 1, vm_memory::Permissions::Read));
    bench.ring.process(always, done);
    assert!(bench.used().is_empty(), "broken until it is set up anew");
}

#[test]
fn wrong_values_of_the_vmm_are_refused() {
    let bench = Bench::new(false);
    assert!(matches!(bench.ring.set_base(1), Err(RingError::Runs)));
    assert!(matches!(bench.ring.set_size(8), Err(RingError::Runs)));
    bench.ring.stop(Duration::from_secs(1));
    for size in [0, 3, 2048, 65536, u32::MAX] {
        assert!(matches!(bench.ring.set_size(size), Err(RingError::Size(_))));
    }
    assert!(matches!(
        bench.ring.set_base(65536),
        Err(RingError::Index(_))
    ));
    for addresses in [
        [8, 0, 0],
        [0, 1, 0],
        [0, 0, 2],
        [0, 0, 0x10_0000],
        [0, 0, !3],
    ] {
        assert!(matches!(
            bench.ring.set_addresses(addresses),
            Err(RingError::Addresses(_))
        ));
    }
}

#[test]
fn what_is_not_wanted_stays_with_the_guest_until_it_is() {
    let bench = Bench::new(false);
    let left = std::cell::Cell::new(0);
    let take = |count| {
        left.set(count);
        bench.ring.process(
            || left.get() > 0,
            |_, _| {
                left.set(left.get() - 1);
                Outcome::Done { written: 0 }
            },
        );
    };
    bench.offer(0, 3);
    take(0);
    assert!(bench.used().is_empty());
    take(2);
    assert_eq!(bench.used(), [0, 1]);
    // VRING_USED_F_NO_NOTIFY: nothing waits for a buffer, so the guest need not kick.
    assert_eq!(bench.read(USED), 1);
    take(2);
    assert_eq!(bench.used(), [0, 1, 2]);
    assert_eq!(bench.read(USED), 0, "an event waits for a buffer");
}
