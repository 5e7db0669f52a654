//! The fuzzer's entry with generated input: a fixed number of streams, the same ones each time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use hesper_vhost::testing::stream;

/// A xorshift generator (Marsaglia 2003, "Xorshift RNGs"); good enough to vary input, and always
/// the same.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

#[test]
fn the_fuzzers_seeds_do_what_a_driver_does() {
    let good: Vec<usize> = stream::seeds()
        .iter()
        .map(|seed| stream::run(seed))
        .collect();
    // How many commands of each seed are answered; cursor commands are not.
    assert_eq!(good, [6, 5, 6, 7, 6, 2, 6]);
}

#[test]
fn streams_of_random_bytes_break_nothing() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for _ in 0..2000 {
        let length = 1 + random.below(600);
        let input: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        stream::run(&input);
    }
}

#[test]
fn mutated_and_mixed_seeds_break_nothing() {
    let seeds = stream::seeds();
    let mut random = Random(0xd1b5_4a32_d192_ed03);
    for _ in 0..2000 {
        let mut input = Vec::new();
        for _ in 0..1 + random.below(12) {
            input.extend_from_slice(&seeds[random.below(seeds.len())]);
        }
        for _ in 0..random.below(8) {
            let at = random.below(input.len());
            match random.below(3) {
                0 => input[at] = random.next() as u8,
                1 => input.insert(at, random.next() as u8),
                _ => drop(input.remove(at)),
            }
        }
        stream::run(&input);
    }
}
