//! A trace of a context over the null driver: what a ring and a fence do, nested and in order.
#![allow(
    clippy::duplicate_mod,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends with a panic"
)]

mod guest;
mod hostile;

use std::io::Read as _;
use std::os::unix::fs::FileExt as _;

use guest::settled::Settled;
use guest::{Gpu, Guest, IDLE, RING, Ring, VenusGuest as _, bytes, renderer_with};
use hesper_venus::RendererOptions;
use hesper_venus::trace::{Event, Span, Trace, TraceFile, Track};
use hesper_venus_protocol::command;
use hesper_venus_protocol::runtime::Object;
use hostile::null_driver;

const ID: u64 = 0xabc;

fn traced() -> (Trace, Settled) {
    let trace = Trace::create().unwrap();
    let renderer = renderer_with(RendererOptions {
        driver: null_driver(),
        trace: Some(trace.clone()),
        ..Default::default()
    });
    (trace, renderer)
}

/// A submission and a wait for the queue.
fn work(gpu: &Gpu) -> Vec<u8> {
    let mut stream = bytes(&command::QueueSubmit {
        queue: Object::guest(gpu.queue),
        submit_count: 0,
        p_submits: [].as_mut_slice().into(),
        fence: Object::guest(0),
    });
    stream.extend(bytes(&command::QueueWaitIdle {
        queue: Object::guest(gpu.queue),
    }));
    stream
}

/// The only event of this kind, with this name, on this line.
#[track_caller]
fn one(events: &[Event], span: Span, track: Track, name: &str) -> Event {
    let found = events
        .iter()
        .filter(|event| event.span == span && event.track == track && event.name() == name);
    let found: Vec<&Event> = found.collect();
    match found[..] {
        [one] => *one,
        _ => panic!("{span:?} \"{name}\" of {track:?} is {found:?} in {events:#?}"),
    }
}

#[track_caller]
fn assert_inside(inner: &Event, outer: &Event) {
    assert!(
        outer.begin <= inner.begin && inner.end() <= outer.end(),
        "{inner:?} is not inside of {outer:?}"
    );
}

#[test]
fn a_trace_shows_the_steps_of_a_ring_and_of_a_fence() {
    let (trace, renderer) = traced();
    let guest = Guest::new(&renderer, "traced \"program\"");
    let gpu = guest.gpu();
    let mut ring = Ring::new(&guest, ID);
    ring.write(&work(&gpu));
    ring.wait();
    ring.until("the ring sleeps", || ring.status() & IDLE != 0);

    assert!(trace.start());
    // It slept before the recording began, so this pause is not in it, and the next one is.
    ring.write(&work(&gpu));
    ring.wait();
    ring.until("the ring sleeps again", || ring.status() & IDLE != 0);
    let stream = work(&gpu);
    ring.write(&stream);
    ring.wait();
    guest.wait_fence(RING);
    let context = guest.context.id();
    drop(ring);
    // Its threads have written all when they have ended.
    drop(guest);
    guest::until("the context ends", || renderer.counters().contexts == 0);

    let recorded = trace.stop(usize::MAX).unwrap();
    assert_eq!(recorded.lost, 0);
    assert_eq!(recorded.names[&context], "traced \"program\"");
    let events = &recorded.events;
    assert!(events.iter().all(|event| event.context == context));

    let track = Track::Ring(ID);
    let batches = events.iter();
    let batches = batches.filter(|event| event.span == Span::Batch && event.track == track);
    let [_, batch] = batches.collect::<Vec<_>>()[..] else {
        panic!("two batches went through the ring: {events:#?}");
    };
    assert_eq!(batch.arguments, [stream.len() as u64, 2]);
    let later: Vec<Event> = events
        .iter()
        .filter(|event| event.begin >= batch.begin)
        .copied()
        .collect();
    let submit = one(&later, Span::Driver, track, "vkQueueSubmit");
    let wait = one(&later, Span::Wait, track, "vkQueueWaitIdle");
    assert_inside(&submit, batch);
    assert_inside(&wait, batch);
    assert!(submit.end() <= wait.begin);

    let earlier: Vec<Event> = events
        .iter()
        .filter(|event| event.end() <= batch.begin)
        .copied()
        .collect();
    let spinning = one(&earlier, Span::Spinning, track, "spinning");
    let asleep = one(&earlier, Span::Asleep, track, "asleep");
    let wake = one(&earlier, Span::Wake, track, "wake");
    assert!(spinning.end() <= asleep.begin);
    assert_inside(&wake, &asleep);
    assert_eq!(wake.end(), asleep.end());

    let track = Track::Fences(RING.into());
    let fence = one(events, Span::Fence, track, "fence");
    let queued = one(events, Span::FenceQueued, track, "queued");
    let driver = one(events, Span::FenceDriver, track, "driver");
    for step in [&queued, &driver] {
        assert_inside(step, &fence);
        assert_eq!(step.arguments, fence.arguments);
    }
    assert!(queued.end() <= driver.begin);
    assert_eq!(fence.arguments[1], u64::from(RING));

    let mut file = TraceFile::default();
    file.add(recorded);
    let file: serde_json::Value = serde_json::from_slice(&file.to_json()).unwrap();
    let named = |name: &str| {
        let all = file["traceEvents"].as_array().unwrap().iter();
        all.filter(|event| event["args"]["name"] == name).count()
    };
    assert_eq!(
        named(&format!("context {context} \"traced \"program\"\"")),
        1
    );
    assert_eq!(named("ring 0xabc"), 1);
}

#[test]
fn a_trace_that_is_off_costs_no_memory() {
    let (trace, renderer) = traced();
    let guest = Guest::new(&renderer, "untraced");
    let gpu = guest.gpu();
    let mut ring = Ring::new(&guest, ID);
    ring.write(&work(&gpu));
    ring.wait();
    guest.wait_fence(RING);
    drop(ring);
    drop(guest);
    guest::until("the context ends", || renderer.counters().contexts == 0);
    let memory = std::fs::File::from(trace.fd().try_clone_to_owned().unwrap());
    let mut bytes = Vec::new();
    (&memory).read_to_end(&mut bytes).unwrap();
    assert!(bytes.len() >= 16 << 20 && bytes.iter().all(|byte| *byte == 0));
    // The same bytes are not zero while something is recorded.
    assert!(trace.start());
    let mut first = [0; 4];
    memory.read_exact_at(&mut first, 0).unwrap();
    assert_ne!(first, [0; 4]);
    assert!(trace.stop(usize::MAX).unwrap().events.is_empty());
}
