//! Ways to damage a stream, the same in each run.

/// A xorshift generator (Marsaglia 2003, "Xorshift RNGs"); good enough to vary input.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

/// The positions, multiples of four, at which one of `values` stands as a 64-bit number.
pub fn places(stream: &[u8], values: impl Fn(u64) -> bool) -> Vec<(usize, u64)> {
    let ends = (0..stream.len().saturating_sub(7)).step_by(4);
    ends.map(|at| {
        (
            at,
            u64::from_le_bytes(stream[at..at + 8].try_into().unwrap()),
        )
    })
    .filter(|(_, value)| values(*value))
    .collect()
}

/// The stream with another 64-bit number at one position.
pub fn replaced(stream: &[u8], at: usize, value: u64) -> Vec<u8> {
    let mut spoiled = stream.to_vec();
    spoiled[at..at + 8].copy_from_slice(&value.to_le_bytes());
    spoiled
}
