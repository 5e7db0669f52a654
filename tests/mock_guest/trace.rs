//! `trace start` and `trace stop` of the control socket, with contexts in processes of their own
//! and without.

use hesper_mock_frontend::eventually;
use hesper_mock_venus::{Ring, VenusGuest as _};
use serde_json::Value;

use crate::Served;
use crate::guest::Guest;

/// The events of a trace with these fields.
fn named<'t>(trace: &'t Value, phase: &str, name: &str) -> Vec<&'t Value> {
    let all = trace["traceEvents"].as_array().unwrap().iter();
    all.filter(|event| event["ph"] == phase && event["name"] == name)
        .collect()
}

/// What a trace must have of a context that has rendered.
fn is_whole(trace: &Value, is_isolated: bool) -> bool {
    let mut steps = vec!["fence", "queued", "driver"];
    if is_isolated {
        steps.push("fence, main process");
    }
    let has = |phase: &str, name: &str| !named(trace, phase, name).is_empty();
    steps.iter().all(|step| has("b", step) && has("e", step))
        && [
            "batch",
            "vkQueueSubmit",
            "vkAllocateMemory",
            "wait for a fence",
        ]
        .iter()
        .all(|name| has("X", name))
}

fn traces(isolate: &str) {
    let arguments = ["--display=headless", "--size=640x480", isolate];
    let served = Served::start_with(&arguments, None);
    let vm = served.boot();
    let guest = Guest::new(&vm, 1);
    let gpu = guest.gpu();
    let error = served.hesper.try_control("trace stop -");
    assert!(
        error.starts_with("error no trace is being recorded"),
        "{error}"
    );
    let is_isolated = isolate == "--isolate=on";
    // The last spans are written after the guest has its answer.
    let mut pattern = 0;
    eventually("a trace has all steps", || {
        served.hesper.control("trace start");
        let error = served.hesper.try_control("trace start");
        assert!(
            error.starts_with("error a trace is being recorded already"),
            "{error}"
        );
        pattern += 1;
        guest.renders(&gpu, pattern);
        let trace = served.hesper.stop_trace();
        assert_eq!(trace["otherData"]["lost_events"], "0");
        is_whole(&trace, is_isolated)
    });
    // Who begins and ends during a recording is in it, too.
    served.hesper.control("trace start");
    let other = Guest::new(&vm, 2);
    let ring = Ring::new(&other, 0x77);
    other.version();
    drop(ring);
    vm.machine()
        .ok(&hesper_vhost::testing::Request::destroy_context(2));
    let trace = served.hesper.stop_trace();
    let processes = named(&trace, "M", "process_name");
    let is_named = |process: &&Value| process["args"]["name"] == "context 2 \"mock-2\"";
    assert!(processes.iter().any(is_named), "{processes:?}");
    assert!(
        named(&trace, "X", "batch")
            .iter()
            .any(|batch| batch["pid"] == 2),
        "{trace}"
    );
    drop(other);
    drop(guest);
    served.leaves_nothing(vm);
}

#[test]
fn a_trace_has_the_steps_of_a_context_in_a_process_of_its_own() {
    traces("--isolate=on");
}

#[test]
fn a_trace_has_the_steps_of_a_context_in_hespers_process() {
    traces("--isolate=off");
}
