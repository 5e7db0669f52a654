//! Numbers beyond limits and beyond what objects have, over lavapipe. It crashes on most of them,
//! or overwrites memory of this process.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test ends with a panic"
)]

mod hostile;

use hesper_venus::Driver;
use hostile::numbers::cases;
use hostile::{Bench, Way};

#[test]
fn numbers_beyond_limits_and_objects_never_reach_the_driver() {
    let bench = Bench::new(Driver::System);
    for case in cases() {
        let outcome = bench.run(&case.stream, Way::Virtqueue);
        let is_named = |part: &str| outcome.reason().contains(part);
        let is_named = case.reason.split('|').any(is_named);
        assert!(is_named, "{}: {outcome:?}", case.name);
    }
}
