//! Decodes one command many times, for a profiler: `decode_loop draw 100000`.
//!
//! The instructions per command are the difference of two runs under callgrind, divided by the
//! difference of their counts:
//!
//! ```text
//! cargo build --release -p hesper-venus-protocol --example decode_loop
//! valgrind --tool=callgrind --callgrind-out-file=/dev/null decode_loop draw 100000
//! ```

#[path = "../benches/support/mod.rs"]
mod support;

use std::hint::black_box;
use std::process::ExitCode;

use hesper_venus_protocol::runtime::Arena;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let (name, count) = (
        words.next(),
        words.next().and_then(|n| n.parse::<u64>().ok()),
    );
    let (Some(name), Some(count)) = (name, count) else {
        eprintln!(
            "usage: decode_loop {{{}}} <count>",
            support::NAMES.join("|")
        );
        return ExitCode::FAILURE;
    };
    let (stream, slots) = (support::stream(&name), support::Slots::new());
    let mut arena = Arena::default();
    let mut sum = 0u64;
    for _ in 0..count {
        sum = sum.wrapping_add(support::decode(black_box(&stream), &mut arena, &slots));
    }
    println!("{sum:#x}");
    ExitCode::SUCCESS
}
