//! Traces of workers, which may tell anything.

use hesper_venus::RendererOptions;
use hesper_venus::trace::{Lane, Span, Trace, Track};
use serde_json::Value;

use super::fake::*;
use crate::contexts::{Contexts, TraceError};
use crate::isolation::message::{FromWorker, ToWorker};
use crate::isolation::spawner::End;

/// The events of a trace of this phase.
fn events(json: &[u8], phase: &str) -> Vec<Value> {
    let file: Value = serde_json::from_slice(json).unwrap();
    let all = file["traceEvents"].as_array().unwrap().iter();
    all.filter(|event| event["ph"] == phase).cloned().collect()
}

/// What the worker records in, as it maps it.
fn given(fake: &mut Fake) -> Trace {
    let (configure, fds) = fake.try_hear().unwrap();
    assert!(matches!(configure, ToWorker::Configure(_)));
    Trace::from_fd(fds.into_iter().nth(1).unwrap()).unwrap()
}

fn record(trace: &Trace, context: u32, track: Track) {
    let lane = Lane::new(Some(trace), context, track);
    lane.end(lane.begin(), Span::Batch, [u64::MAX, 1]);
}

#[test]
fn a_trace_has_what_workers_record_under_the_names_of_their_contexts() {
    let stage = Stage::new(&RendererOptions {
        trace: Some(Trace::create().unwrap()),
        ..RendererOptions::default()
    });
    let contexts = &stage.contexts;
    assert_eq!(contexts.stop_trace(), Err(TraceError::NotStarted));
    let ears = Ears::new();
    let mut fake = stage.fake();
    fake.say(FromWorker::Ready);
    let context = stage.create(3, &ears);
    let theirs = given(&mut fake);
    record(&theirs, 3, Track::Thread);
    assert_eq!(contexts.start_trace(), Ok(()));
    assert_eq!(contexts.start_trace(), Err(TraceError::Started));
    // It says that it is another context.
    record(&theirs, 77, Track::Ring(0xabc));
    context.fence(1, 10);
    fake.hear_until(|call| matches!(call, ToWorker::Fence { .. }));
    fake.say(FromWorker::FenceRetired { ring: 1, fence: 10 });
    // The second is told by the same thread, after the first was recorded.
    context.fence(1, 11);
    fake.say(FromWorker::FenceRetired { ring: 1, fence: 11 });
    ears.wait(2);
    // The spare records, too, and ends before the recording.
    let mut next = stage.fake();
    let other = stage.create(4, &ears);
    record(&given(&mut next), 4, Track::Thread);
    stage.yard.end(next.number, End::Exited(1));
    until("its end is noted", || {
        !contexts.workers().contains(&next.number)
    });
    // This one has started during the recording.
    let mut late = stage.fake();
    let last = stage.create(5, &ears);
    record(&given(&mut late), 5, Track::Thread);
    let json = contexts.stop_trace().unwrap();

    let batches = events(&json, "X");
    let pids: Vec<&Value> = batches.iter().map(|batch| &batch["pid"]).collect();
    assert_eq!(pids, [3, 4, 5], "{batches:?}");
    assert_eq!(batches[0]["args"]["bytes"], u64::MAX);
    let fence = &events(&json, "b")[0];
    assert_eq!(fence["name"], "fence, main process");
    assert_eq!(fence["args"]["fence"], 10);
    assert_eq!(fence["pid"], 3);
    let names = events(&json, "M");
    let names: Vec<&Value> = names.iter().map(|event| &event["args"]["name"]).collect();
    for name in [
        "context 3 \"aprogram\"",
        "context 4 \"aprogram\"",
        "ring 0xabc",
    ] {
        assert!(names.iter().any(|known| *known == name), "{names:?}");
    }
    assert!(
        !names.iter().any(|name| name.to_string().contains("77")),
        "{names:?}"
    );

    // The next recording has nothing of this one.
    assert_eq!(contexts.start_trace(), Ok(()));
    let json = contexts.stop_trace().unwrap();
    assert!(events(&json, "X").is_empty());
    drop((context, other, last));
}

#[test]
fn a_hesper_without_memory_for_traces_says_so() {
    let stage = Stage::default();
    assert_eq!(stage.contexts.start_trace(), Err(TraceError::NoMemory));
    assert_eq!(stage.contexts.stop_trace(), Err(TraceError::NotStarted));
}
