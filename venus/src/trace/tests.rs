use serde_json::Value;

use super::*;

fn json(file: TraceFile) -> Value {
    serde_json::from_slice(&file.to_json()).unwrap()
}

/// The events of a file with these fields.
fn events(file: &Value, phase: &str) -> Vec<Value> {
    let all = file["traceEvents"].as_array().unwrap().iter();
    all.filter(|event| event["ph"] == phase).cloned().collect()
}

fn started(trace: &Trace) {
    assert!(trace.start());
}

fn stopped(trace: &Trace) -> Recorded {
    trace.stop(usize::MAX).unwrap()
}

#[test]
fn a_trace_that_is_off_records_nothing() {
    let trace = Trace::create().unwrap();
    let lane = Lane::new(Some(&trace), 1, Track::Thread);
    let began = lane.begin();
    assert!(!began.is_recorded());
    lane.end(began, Span::Batch, [0; 2]);
    assert!(trace.stop(usize::MAX).is_none(), "it was not started");
    // What began before the start is not recorded, and neither is what ends after the stop.
    started(&trace);
    assert!(!trace.start(), "it was started");
    lane.end(began, Span::Batch, [0; 2]);
    assert_eq!(trace.taken(), 0);
    let began = lane.begin();
    assert!(stopped(&trace).events.is_empty());
    lane.end(began, Span::Batch, [0; 2]);
    assert_eq!(trace.taken(), 0);
    started(&trace);
    assert!(stopped(&trace).events.is_empty());
    let nothing = Lane::default();
    nothing.end(nothing.begin(), Span::Batch, [0; 2]);
}

#[test]
fn another_process_reads_what_was_recorded() {
    let trace = Trace::create().unwrap();
    // As another process has it.
    let fd = trace.fd().try_clone_to_owned().unwrap();
    let writer = Trace::from_fd(fd).unwrap();
    let lane = Lane::new(Some(&writer), 7, Track::Ring(0xabc));
    started(&trace);
    let outer = lane.begin();
    let inner = lane.begin();
    lane.end_command(inner, Span::Driver, 0);
    lane.end(outer, Span::Batch, [4096, 12]);
    lane.end_fence(outer, Span::Fence, 3, u64::MAX);
    let recorded = stopped(&trace);
    assert_eq!(recorded.lost, 0);
    let [driver, batch, fence] = recorded.events[..] else {
        panic!("{:?}", recorded.events)
    };
    assert_eq!(driver.name(), command_name(0).unwrap());
    assert_eq!(batch.track, Track::Ring(0xabc));
    assert_eq!(batch.arguments, [4096, 12]);
    assert!(recorded.began <= batch.begin && batch.begin <= driver.begin);
    assert!(driver.end() <= batch.end() && batch.end() <= fence.end());
    assert_eq!(fence.track, Track::Fences(3));
    // A second recording has nothing of the first.
    started(&trace);
    lane.end(lane.begin(), Span::Asleep, [0; 2]);
    let second = stopped(&trace);
    assert_eq!(second.events.len(), 1);
    assert_eq!(second.events[0].span, Span::Asleep);
}

#[test]
fn records_beyond_the_memory_are_counted() {
    let trace = Trace::create().unwrap();
    let lane = Lane::new(Some(&trace), 1, Track::Thread);
    started(&trace);
    for _ in 0..Trace::PLACES + 5 {
        lane.end(lane.begin(), Span::Batch, [0; 2]);
    }
    let recorded = stopped(&trace);
    assert_eq!(recorded.events.len(), Trace::PLACES);
    assert_eq!(recorded.lost, 5);
    let mut file = TraceFile::default();
    file.add(recorded);
    let file = json(file);
    assert_eq!(file["otherData"]["lost_events"], "5");
    assert_eq!(events(&file, "X").len(), Trace::PLACES);
    // Who reads may have room for fewer.
    started(&trace);
    for _ in 0..10 {
        lane.end(lane.begin(), Span::Batch, [0; 2]);
    }
    let recorded = trace.stop(3).unwrap();
    assert_eq!((recorded.events.len(), recorded.lost), (3, 7));
}

#[test]
fn whatever_a_hostile_writer_leaves_the_file_is_json() {
    let trace = Trace::create().unwrap();
    for byte in [0, 1, 2, 0x7f, 0x80, 0xff] {
        started(&trace);
        trace.fill(byte);
        let mut file = TraceFile::default();
        file.add_context(5, stopped(&trace));
        json(file);
    }
    // Records that look whole, with every kind, known commands and unknown ones.
    let names: Vec<&str> = COMMANDS.iter().flatten().map(|info| info.name).collect();
    let mut own = names;
    own.extend(Span::ALL.map(|span| span.look().name));
    for kinds in [
        0x101,
        0x20d,
        0x30c,
        0x400 + Span::Fence as u32,
        0x100,
        0x501,
    ] {
        for command in [0, 1, u32::MAX, 1 << 20] {
            for word in [0, 1, 1 << 33, u64::MAX] {
                started(&trace);
                trace.fill_records(kinds, command, word);
                let mut recorded = trace.stop(1000).unwrap();
                recorded.events.truncate(2);
                let mut file = TraceFile::default();
                file.add_context(5, recorded);
                let file = json(file);
                for event in file["traceEvents"].as_array().unwrap() {
                    assert_eq!(event["pid"], 5, "{event}");
                    let name = event["name"].as_str().unwrap();
                    assert!(event["ph"] == "M" || own.contains(&name), "{event}");
                }
            }
        }
    }
    // A writer that ends the recording in its memory does not end it for who reads.
    started(&trace);
    trace.fill(0);
    assert!(trace.stop(usize::MAX).is_some());
}

#[test]
fn a_file_names_contexts_and_nests_spans() {
    let event = |span, begin, duration, arguments| Event {
        span,
        track: match span {
            Span::Fence | Span::FenceDriver => Track::Fences(2),
            _ => Track::Ring(0x10),
        },
        context: 4,
        command: None,
        begin,
        duration,
        arguments,
    };
    let mut file = TraceFile::default();
    file.name(4, "a \"program\"\n");
    let events_of_ring = vec![
        event(Span::Driver, 1_000_100, 50, [0; 2]),
        event(Span::Batch, 1_000_100, 12_345, [64, 2]),
        event(Span::FenceDriver, 1_000_200, 10, [9, 2]),
        event(Span::Fence, 1_000_200, 20, [9, 2]),
    ];
    file.add_context(
        4,
        Recorded {
            events: events_of_ring,
            began: 1_000_000,
            ..Default::default()
        },
    );
    let file = json(file);
    let spans = events(&file, "X");
    assert_eq!(spans[0]["name"], "batch");
    assert_eq!(spans[0]["ts"], 0.1);
    assert_eq!(spans[0]["dur"], 12.345);
    assert_eq!(spans[0]["args"]["commands"], 2);
    assert_eq!(spans[1]["name"], "driver");
    let begins = events(&file, "b");
    assert_eq!(begins[0]["name"], "fence");
    assert_eq!(begins[1]["name"], "driver");
    assert_eq!(begins[0]["id"], begins[1]["id"]);
    assert_eq!(begins[0]["args"]["ring_idx"], 2);
    assert_eq!(events(&file, "e").len(), 2);
    let names = events(&file, "M");
    let names: Vec<&str> = names
        .iter()
        .map(|event| event["args"]["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "context 4 \"a \"program\"\n\"",
            "ring 0x10",
            "fences of ring_idx 2"
        ]
    );
}

#[test]
fn names_of_contexts_stay_until_the_recording_ends() {
    let trace = Trace::create().unwrap();
    trace.name(1, "before");
    trace.has_ended(1);
    trace.name(1, "first");
    started(&trace);
    // The guest uses the id again while the first context ends.
    trace.name(1, "second");
    trace.has_ended(1);
    trace.has_ended(1);
    trace.name(2, "third");
    let names = stopped(&trace).names;
    assert_eq!(names[&1], "first, then second");
    assert_eq!(names[&2], "third");
    started(&trace);
    let names = stopped(&trace).names;
    assert_eq!(names.into_keys().collect::<Vec<_>>(), [2]);
    // A guest that makes many contexts costs little.
    for id in 0..10_000 {
        trace.name(id, "many");
    }
    started(&trace);
    assert!(stopped(&trace).names.len() <= 4096);
}
