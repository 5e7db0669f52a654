//! piglit on zink: each case has the same result over Hesper as natively, except for the
//! differences that `expected/piglit.txt` lists with reasons.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic"
)]

use std::num::NonZero;

use hesper_suites::differences::Expected;
use hesper_suites::piglit::{self, Selection, hash};

fn expected() -> Expected {
    Expected::parse(include_str!("../expected/piglit.txt"))
}

/// Cases of a profile, chosen by name. They are the same in every run.
fn selection(profile: &'static str, isolated: bool, is_chosen: impl Fn(&str) -> bool) -> Selection {
    let mut cases = Selection::names(profile, isolated);
    cases.retain(|case| is_chosen(case));
    assert!(!cases.is_empty(), "the package has {profile}");
    Selection {
        profile,
        cases,
        isolated,
        jobs: std::thread::available_parallelism().map_or(2, NonZero::get),
        timeout: 90,
    }
}

/// One case in this many of quick_gl. These are some of nearly every group.
const GL_ONE_IN: u32 = 32;

#[test]
fn a_part_of_quick_gl_ends_as_natively() {
    let chosen = |case: &str| hash(case).is_multiple_of(GL_ONE_IN) && !piglit::is_slow(case);
    let selection = selection("quick_gl", true, chosen);
    piglit::compare("quick_gl-some", &selection, &expected());
}

/// One case in this many of quick_shader.
const SHADERS_ONE_IN: u32 = 120;

#[test]
fn a_part_of_quick_shader_ends_as_natively() {
    let chosen = |case: &str| hash(case).is_multiple_of(SHADERS_ONE_IN) && !piglit::is_slow(case);
    let selection = selection("quick_shader", true, chosen);
    piglit::compare("quick_shader-some", &selection, &expected());
}

/// tests/suites/full quick_gl
#[test]
#[ignore = "takes long"]
fn all_of_quick_gl() {
    piglit::compare(
        "quick_gl",
        &selection("quick_gl", true, |_| true),
        &expected(),
    );
}

/// tests/suites/full quick_shader: the tests of a group share a process, which is five times as
/// fast.
#[test]
#[ignore = "takes long"]
fn all_of_quick_shader() {
    let mut selection = selection("quick_shader", false, |_| true);
    // Here the time limit is for a whole group.
    selection.timeout = 3600;
    piglit::compare("quick_shader", &selection, &expected());
}
