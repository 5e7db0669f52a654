//! The fuzzer's entry with generated input: a fixed number of streams, the same ones each time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test may panic"
)]

use hesper_vhost::testing::{stream, vmm};

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

    /// One to twelve of `seeds` in a row, with up to eight bytes that are changed, added or taken
    /// away.
    fn mixed(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut input = Vec::new();
        for _ in 0..1 + self.below(12) {
            input.extend_from_slice(&seeds[self.below(seeds.len())]);
        }
        for _ in 0..self.below(8) {
            let at = self.below(input.len());
            match self.below(3) {
                0 => input[at] = self.next() as u8,
                1 => input.insert(at, self.next() as u8),
                _ => drop(input.remove(at)),
            }
        }
        input
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
        stream::run(&random.mixed(&seeds));
    }
}

#[test]
fn a_vmm_that_keeps_to_the_protocol_is_served() {
    for seed in vmm::seeds() {
        vmm::run(&seed).unwrap();
    }
}

#[test]
fn mutated_and_mixed_messages_of_a_vmm_break_nothing() {
    let seeds = vmm::seeds();
    let mut random = Random(0xd1b5_4a32_d192_ed03);
    let broken = (0..500).filter(|_| vmm::run(&random.mixed(&seeds)).is_err());
    assert!(broken.count() > 100, "mutations reach no errors");
}
