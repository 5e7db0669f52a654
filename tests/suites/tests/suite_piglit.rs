//! piglit on zink: each case ends over Hesper as it does natively, but for what `expected/piglit.txt` lists with reasons.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test fails by a panic"
)]

use hesper_suites::differences::Expected;
use hesper_suites::piglit::{self, Selection, hash};

fn expected() -> Expected {
    Expected::parse(include_str!("../expected/piglit.txt"))
}

/// Cases of a profile that are chosen by name; the same ones in every run.
fn selection(profile: &'static str, isolated: bool, is_chosen: impl Fn(&str) -> bool) -> Selection {
    let mut cases = Selection::names(profile, isolated);
    cases.retain(|case| is_chosen(case));
    assert!(!cases.is_empty(), "the package has {profile}");
    Selection {
        profile,
        cases,
        isolated,
        jobs: 2,
        timeout: 90,
    }
}

/// One case in this many of quick_gl: of each group some.
const ONE_IN: u32 = 8;

#[test]
fn some_of_each_group_of_quick_gl() {
    let chosen = |case: &str| hash(case) % ONE_IN == 0 && !piglit::is_slow(case);
    piglit::compare(
        "quick_gl-some",
        &selection("quick_gl", true, chosen),
        &expected(),
    );
}

/// Groups of quick_shader that are tested: all stages, buffers, images, doubles, atomics, SPIR-V, and OpenGL ES.
const SHADERS: [&str; 8] = [
    "spec@arb_compute_shader@",
    "spec@arb_shader_storage_buffer_object@",
    "spec@arb_shader_image_load_store@",
    "spec@arb_tessellation_shader@execution",
    "spec@glsl-1.50@execution@geometry",
    "spec@arb_gl_spirv@execution",
    "spec@arb_separate_shader_objects@",
    "spec@glsl-es-3.00@",
];

#[test]
fn groups_of_shaders() {
    let chosen = |case: &str| SHADERS.iter().any(|group| case.starts_with(group));
    piglit::compare(
        "shaders-some",
        &selection("quick_shader", false, chosen),
        &expected(),
    );
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

/// tests/suites/full quick_shader
#[test]
#[ignore = "takes long"]
fn all_of_quick_shader() {
    piglit::compare(
        "quick_shader",
        &selection("quick_shader", false, |_| true),
        &expected(),
    );
}
