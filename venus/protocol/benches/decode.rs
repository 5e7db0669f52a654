//! How long it takes to decode a command: `cargo bench -p hesper-venus-protocol`.
//!
//! Instructions instead of time: see `examples/decode_loop.rs`.

mod support;

use divan::{Bencher, black_box};
use hesper_venus_protocol::runtime::Arena;

fn main() {
    divan::main();
}

#[divan::bench(args = support::NAMES)]
fn decode(bencher: Bencher<'_, '_>, name: &str) {
    let (stream, slots) = (support::stream(name), support::Slots::new());
    let mut arena = Arena::default();
    assert_ne!(support::decode(&stream, &mut arena, &slots), 0);
    bencher.bench_local(|| support::decode(black_box(&stream), &mut arena, &slots));
}
