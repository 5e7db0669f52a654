//! Streams and commands of any size, over the null driver: how much memory they take, what a budget
//! refuses, and that the size of the pieces does not matter.
#![allow(
    clippy::duplicate_mod,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends with a panic"
)]

mod guest;
mod hostile;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use guest::{Gpu, Guest, Memory as _, VenusGuest as _, bytes, query, renderer_with};
use hesper_venus::{Budget, RendererOptions};
use hesper_venus_protocol::runtime::{Array, Object};
use hesper_venus_protocol::{command, vk};
use hostile::recorded::recorded;
use hostile::session::Session;
use hostile::{Outcome, REPLIES, null_driver};

/// Counts the heap memory of this process. Shared memory, which stands for the guest's own, is not
/// counted.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

fn took(bytes: usize) {
    let held = HELD.fetch_add(bytes, Ordering::Relaxed) + bytes;
    MOST.fetch_max(held, Ordering::Relaxed);
}

// SAFETY: the system's allocator does all of it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, start: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(start, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most memory that `body` holds in addition to what is held before.
fn most_held(body: impl FnOnce()) -> usize {
    let before = HELD.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    body();
    MOST.load(Ordering::Relaxed).saturating_sub(before)
}

/// One test at a time: they measure the memory of their process.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

const MIB: usize = 1 << 20;
/// What everything else may take meanwhile: a piece, arenas, queues.
const SLACK: usize = 4 * MIB;

fn options(budget: Budget) -> RendererOptions {
    RendererOptions {
        driver: null_driver(),
        budget,
        ..Default::default()
    }
}

/// Size of the memory for replies of [`Guest`], and where it is.
const REPLY: vk::CommandStreamDescriptionMESA = vk::CommandStreamDescriptionMESA {
    resource_id: 1,
    offset: 0,
    size: 1 << 20,
};

fn reply_stream() -> Vec<u8> {
    guest::reply_stream(REPLY.resource_id, REPLY.offset, REPLY.size)
}

/// The bytes of `vkCreatePipelineCache` with this much initial data.
fn cache_of(gpu: &Gpu, id: u64, size: usize, reply: bool) -> Vec<u8> {
    let data = vec![0xa5_u8; size];
    let mut info = vk::PipelineCacheCreateInfo {
        initial_data_size: data.len(),
        p_initial_data: data.as_ptr().cast(),
        ..Default::default()
    };
    let create = command::CreatePipelineCache {
        device: Object::guest(gpu.device),
        p_create_info: &mut info,
        p_pipeline_cache: &mut vk::PipelineCache(id),
    };
    if reply {
        query(&create)
    } else {
        bytes(&create)
    }
}

/// The bytes of a query of a cache's data, with this much room.
fn data_of(gpu: &Gpu, cache: u64, room: usize) -> Vec<u8> {
    let mut size = room;
    let query = command::GetPipelineCacheData {
        device: Object::guest(gpu.device),
        pipeline_cache: Object::guest(cache),
        p_data_size: &mut size,
        p_data: Array::NULL,
    };
    let mut stream = guest::query(&query);
    // The count of the array, which is the command's last.
    let end = stream.len();
    stream[end - 8..].copy_from_slice(&(room as u64).to_le_bytes());
    stream
}

/// The command that executes a stream.
fn execution(resource_id: u32, offset: usize, size: usize) -> Vec<u8> {
    bytes(&command::ExecuteCommandStreamsMESA {
        stream_count: 1,
        p_streams: [vk::CommandStreamDescriptionMESA {
            resource_id,
            offset,
            size,
        }]
        .as_mut_slice()
        .into(),
        p_reply_positions: Array::NULL,
        dependency_count: 0,
        p_dependencies: Array::NULL,
        flags: vk::CommandStreamExecutionFlagsMESA::default(),
    })
}

/// Lets the guest execute a stream at `offset` of a resource, and waits for it.
fn execute(guest: &Guest, stream: &[u8], offset: usize) -> usize {
    let (resource, blob) = guest.blob(0, (offset + stream.len()) as u64).unwrap();
    blob.memory.write(offset, stream).unwrap();
    let most = most_held(|| {
        guest
            .context
            .submit(execution(resource, offset, stream.len()));
        guest.wait_fence(0);
    });
    guest.context.detach_resource(resource);
    most
}

/// Number and result of the replies, each of the given length.
fn replies(guest: &Guest, lengths: &[usize]) -> Vec<(u32, i32)> {
    let mut at = 0;
    let mut found = Vec::new();
    for length in lengths {
        let mut words = [0; 8];
        guest.replies().memory.read(at, &mut words);
        let [a, b, c, d, e, f, g, h] = words;
        found.push((
            u32::from_le_bytes([a, b, c, d]),
            i32::from_le_bytes([e, f, g, h]),
        ));
        at += length;
    }
    found
}

const CREATE_CACHE: u32 = 61;
const GET_CACHE: u32 = 63;
const SUCCESS: i32 = 0;
const OUT_OF_HOST_MEMORY: i32 = -1;

#[test]
fn a_command_of_256_mib_is_carried_out_within_twice_its_size() {
    let _alone = alone();
    let renderer = renderer_with(options(Budget::default()));
    let guest = Guest::new(&renderer, "large");
    let gpu = guest.gpu();
    let size = 256 * MIB;
    // Arguments that are aligned in the stream, and arguments that are not.
    for (id, padding) in [(100, 0), (101, 1)] {
        let mut stream = reply_stream();
        for _ in 0..padding {
            stream.extend(bytes(&command::SeekReplyCommandStreamMESA { position: 0 }));
        }
        stream.extend(cache_of(&gpu, id, size, true));
        let most = execute(&guest, &stream, 4 * padding);
        assert_eq!(replies(&guest, &[24]), [(CREATE_CACHE, SUCCESS)]);
        assert!(
            most <= 2 * size + SLACK && most >= size,
            "{} MiB for a command of {} MiB",
            most / MIB,
            size / MIB
        );
        println!("at most {} KiB for {} KiB", most >> 10, size >> 10);
    }
    // And it is given back.
    let before = HELD.load(Ordering::Relaxed);
    assert!(before < 64 * MIB, "{} MiB are still held", before / MIB);
}

#[test]
fn a_stream_of_two_million_commands_is_not_copied_whole() {
    let _alone = alone();
    let renderer = renderer_with(options(Budget::default()));
    let guest = Guest::new(&renderer, "million");
    let gpu = guest.gpu();
    let one = reply_stream();
    let mut stream = one.repeat(2_000_000);
    assert!(stream.len() > 64 * MIB, "{}", stream.len());
    stream.extend(cache_of(&gpu, 100, 8, true));
    let before = renderer.counters().commands;
    let most = execute(&guest, &stream, 0);
    assert_eq!(replies(&guest, &[24]), [(CREATE_CACHE, SUCCESS)]);
    assert!(most < SLACK, "{} KiB", most >> 10);
    assert!(renderer.counters().commands - before > 2_000_000);
}

#[test]
fn what_the_budget_refuses_is_out_of_memory_and_the_next_command_works() {
    let _alone = alone();
    let budget = Budget {
        command_bytes: 24 << 20,
        ..Default::default()
    };
    let renderer = renderer_with(options(budget));
    let guest = Guest::new(&renderer, "refused");
    let gpu = guest.gpu();
    let mut stream = reply_stream();
    // Its copy, and its argument where that is not aligned.
    stream.extend(cache_of(&gpu, 100, 32 * MIB, true));
    stream.extend(cache_of(&gpu, 101, 16, true));
    // Room for outputs.
    stream.extend(data_of(&gpu, 101, 1 << 40));
    stream.extend(data_of(&gpu, 101, 100 * MIB));
    stream.extend(cache_of(&gpu, 102, 20 * MIB, true));
    // Larger than the driver's data with the renderer's code behind it.
    stream.extend(data_of(&gpu, 101, 256));
    let lengths = [16, 24, 24, 24, 24, 0];
    let expected = [
        (CREATE_CACHE, OUT_OF_HOST_MEMORY),
        (CREATE_CACHE, SUCCESS),
        (GET_CACHE, OUT_OF_HOST_MEMORY),
        (GET_CACHE, OUT_OF_HOST_MEMORY),
        (CREATE_CACHE, SUCCESS),
        (GET_CACHE, SUCCESS),
    ];
    let most = execute(&guest, &stream, 0);
    assert_eq!(replies(&guest, &lengths), expected);
    assert!(most < (24 << 20) + SLACK, "{} MiB", most / MIB);
    // The same over the virtqueue, where the copy exists already. What was charged is given back.
    let mut stream = reply_stream();
    stream.extend(data_of(&gpu, 101, 1 << 40));
    stream.extend(data_of(&gpu, 101, 256));
    guest.context.submit(stream);
    guest.wait_fence(0);
    assert_eq!(
        replies(&guest, &[24, 0]),
        [(GET_CACHE, OUT_OF_HOST_MEMORY), (GET_CACHE, SUCCESS)]
    );
    // A guest that does not ask cannot be told.
    let (resource, blob) = guest.blob(0, 33 << 20).unwrap();
    let stream = cache_of(&gpu, 103, 32 * MIB, false);
    blob.memory.write(0, &stream).unwrap();
    let reason = guest.dies_of(execution(resource, 0, stream.len()));
    assert!(
        reason.contains("vkCreatePipelineCache") && reason.contains("--command-memory"),
        "{reason}"
    );
}

#[test]
fn a_command_that_only_claims_to_be_huge_is_truncated_and_takes_nothing() {
    let _alone = alone();
    let renderer = renderer_with(options(Budget::default()));
    for claimed in [1 << 30, 1 << 40, 1 << 63, u64::MAX, u64::MAX - 2] {
        let guest = Guest::new(&renderer, "claims");
        let gpu = guest.gpu();
        let mut stream = cache_of(&gpu, 100, 3 * MIB, true);
        // Its size, and the count of its array.
        for at in hostile::mutate::places(&stream[..100], |value| value == 3 << 20) {
            stream[at.0..at.0 + 8].copy_from_slice(&claimed.to_le_bytes());
        }
        let (resource, blob) = guest.blob(0, stream.len() as u64).unwrap();
        blob.memory.write(0, &stream).unwrap();
        let mut reason = String::new();
        let most = most_held(|| {
            reason = guest.dies_of(execution(resource, 0, stream.len()));
        });
        assert!(reason.contains("the stream ends"), "{reason}");
        assert!(most < SLACK, "{claimed}: {} KiB", most >> 10);
    }
}

/// The answers to a session over a ring.
fn answers(renderer: &hesper_venus::Renderer, stream: &[u8]) -> Vec<u8> {
    let guest = hostile::Guest::new(renderer, "pieces");
    guest.ring(stream);
    assert_eq!(guest.settle(0, Duration::from_secs(60)), Outcome::Fine);
    let end = Instant::now() + Duration::from_secs(60);
    while !guest.ring_settles(stream.len()) {
        assert!(Instant::now() < end, "it is not carried out");
    }
    assert_eq!(guest.settle(0, Duration::from_secs(60)), Outcome::Fine);
    let mut replies = vec![0; REPLIES];
    guest.replies.memory.read(0, &mut replies).unwrap();
    replies
}

#[test]
fn a_stream_that_ends_early_is_not_executed_twice() {
    let _alone = alone();
    // The outer stream is longer than a piece, so its end has not been read when the inner stream
    // ends too early.
    let renderer = renderer_with(options(Budget {
        piece_bytes: 256,
        ..Default::default()
    }));
    let guest = Guest::new(&renderer, "inner");
    let gpu = guest.gpu();
    let inner = [
        cache_of(&gpu, 100, 16, false),
        cache_of(&gpu, 101, 16, false),
    ]
    .concat();
    let (resource, blob) = guest.blob(0, 1 << 20).unwrap();
    blob.memory.write(4096, &inner).unwrap();
    let mut outer = execution(resource, 4096, inner.len() - 4);
    outer.extend(reply_stream().repeat(100));
    // A ring takes it in pieces.
    blob.memory
        .write(64, &(outer.len() as u32).to_le_bytes())
        .unwrap();
    blob.memory.write(64 << 10, &outer).unwrap();
    let mut info = vk::RingCreateInfoMESA {
        resource_id: resource,
        size: 1 << 20,
        tail_offset: 64,
        status_offset: 128,
        buffer_offset: 64 << 10,
        buffer_size: 64 << 10,
        ..Default::default()
    };
    let reason = guest.dies_of(bytes(&command::CreateRingMESA {
        ring: 1,
        p_create_info: &mut info,
    }));
    assert!(
        reason.contains("the stream ends") && reason.contains("in a stream that is executed"),
        "{reason}"
    );
}

#[test]
fn a_session_answers_the_same_in_pieces_of_any_size() {
    let _alone = alone();
    let mut sessions = vec![("whole".to_owned(), Session::whole())];
    sessions.extend(recorded());
    let whole = renderer_with(options(Budget::default()));
    let expected: Vec<_> = sessions
        .iter()
        .map(|(_, session)| answers(&whole, &session.stream))
        .collect();
    // Cuts at every byte of every command, headers included.
    for piece_bytes in (8..=64).chain([100, 1000, 4096]) {
        let renderer = renderer_with(options(Budget {
            piece_bytes,
            ..Default::default()
        }));
        for ((name, session), expected) in sessions.iter().zip(&expected) {
            let found = answers(&renderer, &session.stream);
            assert!(found == *expected, "{name} in pieces of {piece_bytes}");
        }
    }
}

#[test]
fn a_broken_session_breaks_at_the_same_byte_in_pieces_of_any_size() {
    let _alone = alone();
    let session = Session::whole();
    let reason = |piece_bytes, stream: &[u8]| {
        let renderer = renderer_with(options(Budget {
            piece_bytes,
            ..Default::default()
        }));
        let guest = hostile::Guest::new(&renderer, "broken");
        guest.ring(stream);
        // The ring's thread needs time, and the fence is not behind it.
        let end = Instant::now() + Duration::from_secs(60);
        loop {
            match guest.settle(0, Duration::from_secs(60)) {
                Outcome::Lost(reason) => return reason,
                Outcome::Fine if Instant::now() < end => std::thread::yield_now(),
                other => panic!("{other:?}"),
            }
        }
    };
    for cut in (5..session.stream.len()).step_by(97) {
        if session.starts.contains(&cut) {
            continue;
        }
        let stream = &session.stream[..cut];
        assert_eq!(reason(16, stream), reason(1 << 20, stream), "{cut}");
    }
}

#[test]
fn a_guest_that_changes_a_stream_while_it_is_read_harms_nobody_else() {
    let _alone = alone();
    let renderer = renderer_with(options(Budget {
        piece_bytes: 64,
        ..Default::default()
    }));
    let witness = Guest::new(&renderer, "witness");
    for round in 0..40_u64 {
        let guest = Guest::new(&renderer, "changes");
        let gpu = guest.gpu();
        let size = 8 << 10;
        let mut stream = reply_stream();
        for id in 0..200 {
            stream.extend(cache_of(&gpu, 100 + id, size, false));
        }
        let (resource, blob) = guest.blob(0, stream.len() as u64).unwrap();
        blob.memory.write(0, &stream).unwrap();
        let counts = hostile::mutate::places(&stream, |value| value == size as u64);
        assert!(counts.len() >= 400);
        guest.context.submit(execution(resource, 0, stream.len()));
        let is_over = std::sync::atomic::AtomicBool::new(false);
        // Longer, shorter and back, all the time.
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut next = round;
                while !is_over.load(Ordering::Relaxed) {
                    for (at, _) in &counts {
                        next = next.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                        let value = [size as u64, 16, 1 << 20, 1 << 50][(next >> 60) as usize % 4];
                        blob.memory.write(*at, &value.to_le_bytes()).unwrap();
                    }
                }
            });
            guest.context.fence(0, 1 << 40);
            // The fence retires in any case; the context may be lost before.
            while !matches!(guest.event(), guest::Event::Fence(0, fence) if fence == 1 << 40) {}
            is_over.store(true, Ordering::Relaxed);
        });
        witness.wait_fence(0);
    }
}
