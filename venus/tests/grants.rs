//! What a renderer does in a process of its own, over the null driver: another process keeps its
//! budgets, knows its rings, and reads what it counts and does.
#![allow(
    clippy::duplicate_mod,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends with a panic"
)]

mod guest;
mod hostile;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use guest::settled::Settled;
use guest::{FATAL, Guest, VenusGuest as _, heap, renderer_with, until};
use hesper_system::budget::Pool;
use hesper_system::share::Share;
use hesper_venus::{
    Blob, BlobError, BlobRequest, Budget, ContextEvents, DisplayServer, Grants, GuestBudget,
    RendererOptions, Report, Resource, SharedMemory,
};
use hesper_venus_protocol::command;
use hesper_venus_protocol::runtime::Command;
use hesper_venus_protocol::{guest as encoding, vk};
use hostile::null_driver;

const MIB: u64 = 1 << 20;

/// The process that keeps the budgets: pools of a guest, and the shares of one renderer.
#[derive(Debug)]
struct Bank {
    pools: Vec<Arc<Pool>>,
    shares: Vec<Arc<Share>>,
}

impl Bank {
    fn new(guest: &GuestBudget, budget: &Budget) -> Arc<Self> {
        let pools: Vec<Arc<Pool>> = Resource::ALL
            .iter()
            .map(|what| Pool::new(guest.most(*what)))
            .collect();
        let share =
            |(what, pool): (&Resource, _)| Share::with_own(pool, budget.most(*what), what.own());
        let shares = Resource::ALL.iter().zip(&pools).map(share).collect();
        Arc::new(Self { pools, shares })
    }

    fn granted(&self) -> Vec<u64> {
        self.shares.iter().map(|share| share.used()).collect()
    }
}

impl Grants for Bank {
    fn ask(&self, what: Resource, amount: u64) -> u64 {
        match self.shares[what as usize].take(amount) {
            true => amount,
            false => 0,
        }
    }

    fn give_back(&self, what: Resource, amount: u64) {
        self.shares[what as usize].give_back(amount);
    }

    fn left(&self, what: Resource) -> u64 {
        self.shares[what as usize].left()
    }
}

fn renderer(guest: GuestBudget, bank: &Arc<Bank>, report: Option<Report>) -> Settled {
    renderer_with(RendererOptions {
        driver: null_driver(),
        guest,
        grants: Some(Arc::clone(bank) as Arc<dyn Grants>),
        report,
        ..Default::default()
    })
}

#[test]
fn another_process_grants_what_a_context_takes_and_has_it_all_back() {
    let budget = GuestBudget {
        contexts: 1,
        shared_bytes: 64 * MIB,
        device_memory: Some(64 * MIB),
        ..Default::default()
    };
    let bank = Bank::new(&budget, &Budget::default());
    let renderer = renderer(budget, &bank, None);
    assert_eq!(bank.granted(), [0; 6]);
    let guest = Guest::new(&renderer, "worker");
    let gpu = guest.gpu();
    let threads = bank.shares[Resource::Threads as usize].used();
    assert!((1..=4).contains(&threads), "{threads}");
    assert_eq!(bank.pools[Resource::Threads as usize].used(), 0, "its own");
    // Shared memory, until the bank refuses: seven eighths, as for a context in its process.
    let mut blobs = Vec::new();
    while let Ok((_, blob)) = guest.blob(0, MIB) {
        blobs.push(blob);
    }
    assert!((54..=56).contains(&blobs.len()), "{}", blobs.len());
    let shared = &bank.shares[Resource::SharedBytes as usize];
    assert!(shared.used() <= 56 * MIB, "{}", shared.used());
    // What a heap is said to have is what the bank would grant.
    let budget_of_heap = || heap(&guest, &gpu).1;
    assert_eq!(budget_of_heap(), 56 * MIB);
    let _other = bank.pools[Resource::DeviceMemory as usize]
        .charge(8 * MIB)
        .unwrap();
    assert_eq!(budget_of_heap(), 49 * MIB);
    drop(guest);
    drop(blobs);
    until("the context ends", || renderer.counters().contexts == 0);
    drop(renderer);
    until("everything is given back", || bank.granted() == [0; 6]);
}

/// A front end that remembers the rings.
#[derive(Default)]
struct Rings {
    said: Mutex<Vec<(u64, bool)>>,
    status: Mutex<Option<(Arc<SharedMemory>, usize)>>,
    blobs: AtomicU32,
}

impl ContextEvents for Rings {
    fn fence_retired(&self, _ring: u8, _fence: u64) {}
    fn blob_created(&self, _resource: u32, result: Result<Blob, BlobError>) {
        result.unwrap();
        self.blobs.fetch_add(1, Ordering::Relaxed);
    }
    fn lost(&self, reason: &str) {
        panic!("{reason}");
    }
    fn ring_created(&self, ring: u64, memory: &Arc<SharedMemory>, status: usize) {
        self.said.lock().unwrap().push((ring, true));
        *self.status.lock().unwrap() = Some((Arc::clone(memory), status));
    }
    fn ring_destroyed(&self, ring: u64) {
        self.said.lock().unwrap().push((ring, false));
    }
}

fn encoded<'a>(command: impl Command<'a>) -> Vec<u8> {
    let mut stream = Vec::new();
    // SAFETY: the arguments of all callers point to live values.
    unsafe { encoding::encode(&command, false, &mut stream) };
    stream
}

#[test]
fn another_process_reads_what_is_carried_out_and_knows_the_rings() {
    let budget = GuestBudget::default();
    let bank = Bank::new(&budget, &Budget::default());
    let report = Report::create().unwrap();
    let renderer = renderer(budget, &bank, Some(report.clone()));
    let front_end = Arc::new(Rings::default());
    let events = Arc::clone(&front_end) as Arc<dyn ContextEvents>;
    let context = renderer
        .create_context(1, "worker", DisplayServer::Unknown, events)
        .unwrap();
    let request = BlobRequest {
        blob_id: 0,
        size: 8192,
        mappable: true,
        shareable: false,
        cross_device: false,
    };
    context.create_blob(7, request);
    until("the blob", || front_end.blobs.load(Ordering::Relaxed) == 1);
    let mut info = vk::RingCreateInfoMESA {
        resource_id: 7,
        offset: 4096,
        size: 1024,
        tail_offset: 64,
        status_offset: 128,
        buffer_offset: 192,
        buffer_size: 512,
        ..Default::default()
    };
    let mut stream = encoded(command::CreateRingMESA {
        ring: 77,
        p_create_info: &mut info,
    });
    let wait = command::WaitRingSeqnoMESA {
        ring: 77,
        seqno: 1 << 20,
    };
    stream.extend(encoded(wait));
    context.submit(stream);
    until("the wait", || report.commands() == ["vkWaitRingSeqnoMESA"]);
    assert_eq!(*front_end.said.lock().unwrap(), [(77, true)]);
    let counters = report.counters();
    assert_eq!(counters, renderer.counters());
    assert_eq!(
        (counters.contexts, counters.rings, counters.lost),
        (1, 1, 0)
    );
    let (memory, status) = front_end.status.lock().unwrap().take().unwrap();
    assert_eq!(status, 4096 + 128);
    let status = memory.word(status).unwrap();
    assert_eq!(status.load(Ordering::Relaxed) & FATAL, 0);
    drop(context);
    drop(renderer);
    assert_eq!(*front_end.said.lock().unwrap(), [(77, true), (77, false)]);
    assert!(report.commands().is_empty());
    let counters = report.counters();
    assert_eq!((counters.contexts, counters.rings), (0, 0));
    assert_eq!(counters.commands, 2);
}
