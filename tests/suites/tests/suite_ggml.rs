//! ggml's operations on Vulkan (llama.cpp's `test-backend-ops`): over Hesper each ends as natively.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic"
)]

use hesper_suites::differences::{Expected, differences};
use hesper_suites::environment::{Driver, Server};
use hesper_suites::ggml;

/// Operations of every kind: elementwise, views and copies, reductions, rows, matrices, convolutions, attention.
const SOME: &str = "ADD,MUL,SQR,CPY,CONT,CONCAT,GET_ROWS,SET_ROWS,SUM_ROWS,CUMSUM,ARGSORT,SOFT_MAX,RMS_NORM,ROPE,IM2COL,POOL_2D,\
    SCALE,UPSCALE,SSM_CONV,OPT_STEP_ADAMW";

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
    let wrong = expected.judge(&found, &[], &hesper);
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), server.log());
    server.assert_nothing_lost();
}

#[test]
fn operations_of_every_kind_end_as_natively() {
    compare(&SOME.replace(' ', ""));
}

/// tests/suites/full ggml
#[test]
#[ignore = "takes long"]
fn all_operations_end_as_natively() {
    compare("");
}
