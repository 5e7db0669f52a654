//! Any order of submissions, signals, fences, blobs and ends, against a model that knows which
//! fences may retire.

use std::collections::{BTreeMap, HashSet};

use hesper_mock_venus::{Gpu, RING, VenusGuest as _};
use hesper_venus_protocol::runtime::Object;
use hesper_venus_protocol::{command, vk};
use hesper_vhost::testing::Request;
use hesper_vhost::wire;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use crate::Served;
use crate::guest::{Guest, Mapped, Vm};
use hesper_mock_frontend::Ticket;

const CONTEXTS: usize = 3;
const QUEUES: usize = 2;

/// What a guest does next. Numbers are taken modulo the number of objects.
#[derive(Clone, Debug)]
enum Op {
    /// Lets a queue wait for a value that is `ahead` of the one it has reached.
    Block { queue: usize, ahead: u64 },
    /// Raises a queue's semaphore by this much.
    Signal { queue: usize, by: u64 },
    /// A fence behind everything on the queue.
    Fence { queue: usize },
    /// A fence on the context's own timeline.
    Own { context: usize },
    /// A mapped blob with a mark in it.
    Map { context: usize },
    /// Checks a blob's mark and unmaps the blob.
    Unmap { which: usize },
    /// Ends a context with all its fences and starts another.
    Restart { context: usize },
}

fn op() -> impl Strategy<Value = Op> {
    let queue = 0..CONTEXTS * QUEUES;
    let context = 0..CONTEXTS;
    prop_oneof![
        3 => (queue.clone(), 1..4_u64).prop_map(|(queue, ahead)| Op::Block { queue, ahead }),
        4 => (queue.clone(), 1..4_u64).prop_map(|(queue, by)| Op::Signal { queue, by }),
        6 => queue.prop_map(|queue| Op::Fence { queue }),
        2 => context.clone().prop_map(|context| Op::Own { context }),
        2 => context.clone().prop_map(|context| Op::Map { context }),
        2 => (0..64_usize).prop_map(|which| Op::Unmap { which }),
        1 => context.prop_map(|context| Op::Restart { context }),
    ]
}

/// A queue and what the model knows of it.
struct Queue {
    gpu: Gpu,
    ring: u8,
    semaphore: u64,
    /// The value of the semaphore.
    value: u64,
    /// The largest value that something on the queue waits for. What comes later on the queue waits
    /// for it, too.
    wanted: u64,
    /// Open fences, with what they wait for.
    fences: Vec<(Ticket, u64)>,
    /// All its fences, and the last one that was answered.
    issued: HashSet<Ticket>,
    answered: Option<Ticket>,
}

struct Context {
    guest: Guest,
    queues: Vec<Queue>,
}

struct World {
    vm: Vm,
    contexts: Vec<Context>,
    blobs: BTreeMap<u32, (usize, Mapped)>,
    /// Fences that may be answered. Any other that is answered is an error.
    free: HashSet<Ticket>,
}

impl Context {
    fn new(vm: &Vm, index: usize) -> Self {
        let guest = Guest::new(vm, index as u32 + 1);
        let first = guest.gpu();
        let mut queues = Vec::new();
        for number in 0..QUEUES as u8 {
            let device = if number == 0 {
                first.device
            } else {
                guest.device(first.physical)
            };
            let ring = RING + number;
            let queue = if number == 0 {
                first.queue
            } else {
                guest.queue(device, ring.into())
            };
            let gpu = Gpu {
                device,
                queue,
                ..first
            };
            let semaphore = guest.timeline(&gpu);
            queues.push(Queue {
                gpu,
                ring,
                semaphore,
                value: 0,
                wanted: 0,
                fences: Vec::new(),
                issued: HashSet::new(),
                answered: None,
            });
        }
        Self { guest, queues }
    }
}

impl World {
    fn new(vm: &Vm) -> Self {
        let contexts = (0..CONTEXTS).map(|index| Context::new(vm, index)).collect();
        Self {
            vm: vm.clone(),
            contexts,
            blobs: BTreeMap::new(),
            free: HashSet::new(),
        }
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Block { queue, ahead } => {
                let context = &mut self.contexts[queue / QUEUES];
                let queue = &mut context.queues[queue % QUEUES];
                let wait = queue.value + ahead;
                queue.wanted = queue.wanted.max(wait);
                context.guest.submit_wait(&queue.gpu, queue.semaphore, wait);
            }
            Op::Signal { queue, by } => {
                let context = &mut self.contexts[queue / QUEUES];
                let queue = &mut context.queues[queue % QUEUES];
                queue.value += by;
                let mut info = vk::SemaphoreSignalInfo {
                    semaphore: vk::Semaphore(queue.semaphore),
                    value: queue.value,
                    ..Default::default()
                };
                let value = queue.value;
                let (free, held) = queue.fences.drain(..).partition(|fence| fence.1 <= value);
                queue.fences = held;
                let free: Vec<(Ticket, u64)> = free;
                self.free.extend(free.iter().map(|fence| fence.0));
                context.guest.send(&command::SignalSemaphore {
                    device: Object::guest(queue.gpu.device),
                    p_signal_info: &mut info,
                });
            }
            Op::Fence { queue } => {
                let context = &mut self.contexts[queue / QUEUES];
                let queue = &mut context.queues[queue % QUEUES];
                let fence = context.guest.fence(queue.ring);
                queue.issued.insert(fence);
                if queue.wanted <= queue.value {
                    self.free.insert(fence);
                } else {
                    queue.fences.push((fence, queue.wanted));
                }
            }
            Op::Own { context } => {
                let fence = self.contexts[context].guest.fence(0);
                self.free.insert(fence);
            }
            Op::Map { context } => {
                let mapped = self.contexts[context].guest.map(0, 4096);
                let mark = mapped.resource.to_le_bytes();
                self.vm.machine().window().write(mapped.offset, &mark);
                self.blobs.insert(mapped.resource, (context, mapped));
            }
            Op::Unmap { which } => {
                let Some(&resource) = self.blobs.keys().nth(which % self.blobs.len().max(1)) else {
                    return;
                };
                let (_, mapped) = self.blobs.remove(&resource).unwrap();
                let mut machine = self.vm.machine();
                let mark = machine.window().read(mapped.offset, 4);
                assert_eq!(mark, resource.to_le_bytes());
                machine.ok(&Request::unmap_blob(resource));
                machine.ok(&Request::unref(resource));
            }
            Op::Restart { context } => {
                let id = context as u32 + 1;
                for queue in &mut self.contexts[context].queues {
                    self.free
                        .extend(queue.fences.drain(..).map(|fence| fence.0));
                }
                self.vm.machine().ok(&Request::destroy_context(id));
                // Blobs outlive their context.
                self.contexts[context] = Context::new(&self.vm, context);
            }
        }
    }

    /// No fence was answered too early, and those of a queue came in order.
    fn check(&mut self, answered: &[Ticket]) {
        for context in &mut self.contexts {
            for queue in &mut context.queues {
                for ticket in answered.iter().filter(|one| queue.issued.contains(one)) {
                    assert!(queue.answered < Some(*ticket), "{ticket:?} out of order");
                    queue.answered = Some(*ticket);
                }
                for (ticket, value) in &queue.fences {
                    assert!(
                        !answered.contains(ticket),
                        "a fence behind value {value} was answered at {}",
                        queue.value
                    );
                }
            }
        }
    }

    /// Everything that may be answered is answered.
    fn settle(&mut self) {
        for fence in std::mem::take(&mut self.free) {
            let kind = self.vm.machine().answer(fence).kind();
            assert_eq!(kind, wire::RESP_OK_NODATA);
        }
    }
}

#[test]
fn any_interleaving_answers_the_fences_that_a_model_answers() {
    let served = Served::start();
    let mut runner = TestRunner::new(Config {
        cases: 24,
        failure_persistence: None,
        ..Config::default()
    });
    let ops = prop::collection::vec(op(), 1..80);
    let run = |ops: Vec<Op>| {
        let vm = served.boot();
        let mut world = World::new(&vm);
        for (step, op) in ops.iter().enumerate() {
            world.apply(op);
            let answered = vm.machine().answered();
            world.check(&answered);
            if step % 16 == 15 {
                world.settle();
                let answered = vm.machine().answered();
                world.check(&answered);
            }
        }
        world.settle();
        let held: usize = world
            .contexts
            .iter()
            .flat_map(|context| &context.queues)
            .map(|queue| queue.fences.len())
            .sum();
        // Signals and submissions without a fence are answered at once, so only the waiting fences
        // are open.
        world
            .contexts
            .iter()
            .for_each(|context| context.guest.wait_fence(0));
        assert_eq!(vm.machine().open(), held);
        Ok(())
    };
    runner.run(&ops, run).unwrap();
    let vm = served.boot();
    served.leaves_nothing(vm);
}
