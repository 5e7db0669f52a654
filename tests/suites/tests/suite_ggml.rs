//! ggml's operations on Vulkan (llama.cpp's `test-backend-ops`): each has the same result over
//! Hesper as natively.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic"
)]

use hesper_suites::differences::{Expected, differences};
use hesper_suites::environment::{Driver, Server};
use hesper_suites::ggml;

/// Operations of every kind that take little time: elementwise, rows, reductions, copies, norms, a
/// step of an optimiser.
const SOME: &str = "SQR,ADD,REPEAT,SUM_ROWS,CUMSUM,ARGMAX,GROUP_NORM,OPT_STEP_ADAMW";

fn compare(operations: &str) {
    let native = ggml::run(Driver::Native, operations);
    let count = |result: &str| native.values().filter(|r| r.as_str() == result).count();
    println!(
        "ggml: {} cases, natively {} pass, {} unsupported",
        native.len(),
        count("pass"),
        count("unsupported")
    );
    assert!(count("pass") > 0, "{native:?}");
    let server = Server::start(&[]);
    let hesper = ggml::run(Driver::Hesper(&server), operations);
    let found = differences(&native, &hesper);
    let expected = Expected::parse(include_str!("../expected/ggml.txt"));
    for one in &found {
        let reason = expected.reason(one).unwrap_or("NOT EXPECTED");
        println!("ggml: differs: {one} | {reason}");
    }
    let wrong = expected.judge(&found, &[], &native);
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), server.log());
    server.assert_nothing_lost();
}

#[test]
fn operations_of_every_kind_end_as_natively() {
    compare(SOME);
}

/// tests/suites/full ggml
#[test]
#[ignore = "takes long"]
fn all_operations_end_as_natively() {
    compare("");
}
