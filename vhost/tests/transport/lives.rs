//! Random lives of VMs against a model: queues stop and start, memory comes and goes, fences are
//! answered at any time, VMs disconnect.
//!
//! The model has the rules of `connection` in their plainest form: what the guest has made, which
//! commands are held, whether the queues run. After every step, the guest has exactly the answers
//! that the model expects.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, Weak};

use hesper_vhost::device::Device;
use proptest::prelude::*;
use vhost::VhostUserMemoryRegionInfo;
use vhost::vhost_user::VhostUserFrontend;

use crate::commands::{create_2d, create_blob, create_context, flush, show};
use crate::queues::Keeping;
use crate::served::{Parts, Served};
use crate::window::{Files, Vmm, attach};
use hesper_mock_frontend::{Machine, eventually};
use hesper_vhost::testing::Request;
use hesper_vhost::wire;

/// The picture that is flushed, and the blob that is mapped.
const SHOWN: u32 = 100;
const BLOB: u32 = 101;
const BLOB_SIZE: u64 = 0x2_0000;
/// The most commands that are held at a time.
const MOST_HELD: usize = 8;

#[derive(Clone, Debug)]
enum Step {
    /// A command that is answered at once, or, while the queues are stopped, when they go on.
    Create(u32),
    Unref(u32),
    /// A command that is held until the screen is done with it.
    Flush,
    /// The screen is done with a held one.
    Done(usize),
    Map,
    Unmap,
    Stop,
    /// The VM resumes.
    Resume,
    /// A driver starts anew.
    Fresh,
    ResetDevice,
    AddRam(u8),
    RemoveRam(u8),
    /// QEMU offers the blob's region to the device.
    OfferBlob,
    /// The VM disconnects, and another one connects.
    Vanish,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..3_u32).prop_map(Step::Create),
        2 => (0..3_u32).prop_map(Step::Unref),
        4 => Just(Step::Flush),
        4 => (0..MOST_HELD).prop_map(Step::Done),
        2 => Just(Step::Map),
        2 => Just(Step::Unmap),
        3 => Just(Step::Stop),
        4 => Just(Step::Resume),
        2 => Just(Step::Fresh),
        1 => Just(Step::ResetDevice),
        1 => (0..2_u8).prop_map(Step::AddRam),
        1 => (0..2_u8).prop_map(Step::RemoveRam),
        2 => Just(Step::OfferBlob),
        1 => Just(Step::Vanish),
    ];
    proptest::collection::vec(step, 1..60)
}

/// A held command: its head, its number among the screen's tokens, and whether the screen is done
/// with it.
struct Held {
    head: u16,
    token: usize,
    done: bool,
}

/// What the guest has, by the model.
#[derive(Default)]
struct Model {
    resources: BTreeSet<u32>,
    held: VecDeque<Held>,
    /// Commands that were offered while the queues were stopped: head and answer.
    waiting: Vec<(u16, u32)>,
    mapped: bool,
    /// The indices of the queues, while they are stopped.
    stopped: Option<[u16; 2]>,
    /// A driver has to start anew: the VMM has reset the device.
    reset: bool,
    ram: BTreeSet<u8>,
}

struct World {
    served: Served,
    screen: Arc<Keeping>,
    ram: File,
    guest: Machine,
    vmm: Arc<Mutex<Vmm>>,
    device: Weak<Device>,
    model: Model,
}

fn region(place: u64, file: &File, size: u64) -> VhostUserMemoryRegionInfo {
    VhostUserMemoryRegionInfo {
        guest_phys_addr: place,
        memory_size: size,
        userspace_addr: 0x6000_0000_0000 + place,
        mmap_offset: 0,
        mmap_handle: file.as_raw_fd(),
    }
}

impl World {
    fn new() -> Self {
        let screen = Arc::new(Keeping::default());
        let served = Served::new(Parts {
            screen: screen.clone(),
            renderers: vec![Arc::new(Files::default())],
            window: 1 << 24,
            ..Parts::default()
        });
        Self::connect(served, screen)
    }

    /// The VM disconnects at any point, and another one connects.
    fn vanish(self) -> Self {
        let Self {
            served,
            screen,
            guest,
            device,
            ..
        } = self;
        drop(guest);
        eventually("the device is gone", || device.upgrade().is_none());
        Self::connect(served, screen)
    }

    fn connect(served: Served, screen: Arc<Keeping>) -> Self {
        let ram = tempfile::tempfile().unwrap();
        ram.set_len(1 << 20).unwrap();
        let mut guest = Machine::boot(&served.path());
        let vmm = attach(&mut guest);
        let device = Arc::downgrade(&served.device());
        let mut world = Self {
            served,
            screen,
            ram,
            guest,
            vmm,
            device,
            model: Model::default(),
        };
        world.prepare();
        world
    }

    /// What a driver does first.
    fn prepare(&mut self) {
        self.model = Model {
            ram: std::mem::take(&mut self.model.ram),
            ..Model::default()
        };
        show(&mut self.guest, SHOWN, 64, 64);
        assert_eq!(self.guest.code(&create_context()), wire::RESP_OK_NODATA);
        assert_eq!(
            self.guest.code(&create_blob(BLOB, BLOB_SIZE)),
            wire::RESP_OK_NODATA
        );
    }

    fn runs(&self) -> bool {
        self.model.stopped.is_none() && !self.model.reset
    }

    /// Offers a command that is answered with `expected` as soon as the queues run.
    fn ask(&mut self, command: &Request, expected: u32) {
        if self.model.reset || self.model.waiting.len() >= MOST_HELD {
            return;
        }
        let head = self.guest.offer(0, command, 256);
        self.guest.kick(0);
        self.model.waiting.push((head, expected));
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Create(id) => {
                let is_new = self.model.resources.insert(id + 1);
                let expected = if is_new {
                    wire::RESP_OK_NODATA
                } else {
                    wire::RESP_ERR_INVALID_RESOURCE_ID
                };
                self.ask_or_undo(&create_2d(id + 1, 8, 8), expected, |model| {
                    if is_new {
                        model.resources.remove(&(id + 1));
                    }
                });
            }
            Step::Unref(id) => {
                let was_there = self.model.resources.remove(&(id + 1));
                let expected = if was_there {
                    wire::RESP_OK_NODATA
                } else {
                    wire::RESP_ERR_INVALID_RESOURCE_ID
                };
                let command = Request::unref(id + 1);
                self.ask_or_undo(&command, expected, |model| {
                    if was_there {
                        model.resources.insert(id + 1);
                    }
                });
            }
            Step::Flush if self.runs() && self.model.held.len() < MOST_HELD => {
                let token = self.screen.0.lock().unwrap().len();
                let fence = token as u64 + 1;
                let flush = flush(SHOWN, 0, 0, 64, 64).fence(fence);
                let head = self.guest.offer(0, &flush, 64);
                self.guest.kick(0);
                eventually("the flush is held", || {
                    self.screen.0.lock().unwrap().len() > token
                });
                self.model.held.push_back(Held {
                    head,
                    token,
                    done: false,
                });
            }
            Step::Done(which) => {
                if let Some(held) = self.model.held.get_mut(which) {
                    held.done = true;
                    let token = self.screen.0.lock().unwrap()[held.token];
                    self.device.upgrade().unwrap().flush_done(token);
                }
            }
            Step::Map if self.runs() && !self.model.mapped => {
                self.ask(&Request::map_blob(BLOB, 0x10_0000), wire::RESP_OK_MAP_INFO);
                self.model.mapped = true;
            }
            Step::Unmap if self.runs() && self.model.mapped => {
                self.ask(&Request::unmap_blob(BLOB), wire::RESP_OK_NODATA);
                self.model.mapped = false;
            }
            Step::Stop if self.runs() => self.model.stopped = Some(self.guest.stop()),
            Step::Resume => {
                if let Some(bases) = self.model.stopped.take_if(|_| !self.model.reset) {
                    self.guest.start_at(bases);
                }
            }
            Step::Fresh => {
                if self.runs() {
                    self.guest.stop();
                }
                self.guest.start();
                self.prepare();
            }
            Step::ResetDevice => {
                self.guest.frontend.reset_device().unwrap();
                self.model.held.clear();
                self.model.waiting.clear();
                self.model.mapped = false;
                self.model.reset = true;
            }
            Step::AddRam(place) => {
                self.model.ram.insert(place);
                let region = region(
                    0x8000_0000 + u64::from(place) * 0x100_0000,
                    &self.ram,
                    1 << 20,
                );
                self.guest.frontend.add_mem_region(&region).unwrap();
            }
            Step::RemoveRam(place) => {
                self.model.ram.remove(&place);
                let region = region(
                    0x8000_0000 + u64::from(place) * 0x100_0000,
                    &self.ram,
                    1 << 20,
                );
                self.guest.frontend.remove_mem_region(&region).unwrap();
            }
            Step::OfferBlob if self.model.mapped => {
                let blob = self.vmm.lock().unwrap().1.take();
                let Some(blob) = blob else { return };
                let region = region(0xfc_0010_0000, &blob, BLOB_SIZE);
                let declined = self.guest.frontend.add_mem_region(&region).is_err();
                assert_eq!(declined, self.runs(), "declined while the queues run");
                if !declined {
                    self.guest.frontend.remove_mem_region(&region).unwrap();
                }
                self.vmm.lock().unwrap().1 = Some(blob);
            }
            _ => {}
        }
    }

    fn ask_or_undo(&mut self, command: &Request, expected: u32, undo: impl FnOnce(&mut Model)) {
        let before = self.model.waiting.len();
        self.ask(command, expected);
        if self.model.waiting.len() == before {
            undo(&mut self.model);
        }
    }

    /// The guest has the answers that it should have.
    fn check(&mut self) {
        if self.runs() {
            let waiting = std::mem::take(&mut self.model.waiting);
            let mut expected: Vec<(u16, u32)> = waiting;
            while self.model.held.front().is_some_and(|held| held.done) {
                let held = self.model.held.pop_front().unwrap();
                expected.push((held.head, wire::RESP_OK_NODATA));
            }
            let mut answered = Vec::new();
            while answered.len() < expected.len() {
                let (head, answer) = self.guest.wait(0).expect("an answer");
                answered.push((head, answer.kind()));
            }
            expected.sort_unstable();
            answered.sort_unstable();
            assert_eq!(answered, expected);
        }
        assert!(self.guest.try_next(0).is_none(), "no other answer");
        if self.runs() {
            let device = self.device.upgrade().unwrap();
            assert_eq!(device.usage().mappings, usize::from(self.model.mapped));
            assert_eq!(device.usage().held, self.model.held.len());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").map_or(150, |cases| cases.parse().unwrap()),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_lives_go_as_the_model(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            if matches!(step, Step::Vanish) {
                world = world.vanish();
            } else {
                world.step(step);
            }
            world.check();
        }
    }
}
