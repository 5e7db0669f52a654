//! The host-visible window: which of its bytes have a blob mapped.
//!
//! The guest chooses the places. They are checked here, because a VMM may not survive a bad one.

use std::collections::BTreeMap;

use crate::budget::MAPPINGS;
use crate::refusal::Refusal;

/// The window of one device.
pub(crate) struct Window {
    size: u64,
    alignment: u64,
    /// Start and length of the live mappings; they do not overlap.
    mappings: BTreeMap<u64, u64>,
}

impl Window {
    pub(crate) fn new(size: u64, alignment: u64) -> Self {
        Self {
            size,
            alignment,
            mappings: BTreeMap::new(),
        }
    }

    /// Takes `length` bytes at `offset`.
    pub(crate) fn reserve(&mut self, offset: u64, length: u64) -> Result<(), Refusal> {
        let end = offset
            .checked_add(length)
            .filter(|end| *end <= self.size)
            .ok_or(Refusal::OutOfRange {
                start: offset,
                length,
                size: self.size,
                of: "the host-visible window",
            })?;
        if !offset.is_multiple_of(self.alignment) || !length.is_multiple_of(self.alignment) {
            return Err(Refusal::Misaligned(offset, self.alignment));
        }
        let before = self.mappings.range(..end).next_back();
        if before.is_some_and(|(start, length)| start + length > offset) {
            return Err(Refusal::WindowTaken(offset, length));
        }
        if self.mappings.len() >= MAPPINGS {
            return Err(Refusal::Limit {
                what: "mapped blobs",
                limit: MAPPINGS as u64,
            });
        }
        self.mappings.insert(offset, length);
        Ok(())
    }

    /// Gives back the mapping that starts at `offset`.
    pub(crate) fn release(&mut self, offset: u64) {
        self.mappings.remove(&offset);
    }

    /// Number of live mappings.
    pub(crate) fn mappings(&self) -> usize {
        self.mappings.len()
    }

    /// Forgets all mappings.
    pub(crate) fn clear(&mut self) {
        self.mappings.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_aligned_inside_and_apart() {
        let mut window = Window::new(0x10000, 0x1000);
        window.reserve(0x4000, 0x2000).unwrap();
        for (offset, length) in [
            (0x4000, 0x1000),
            (0x5000, 0x1000),
            (0x3000, 0x2000),
            (0, 0x10000),
            (0x10000, 0x1000),
            (0xf000, 0x2000),
            (u64::MAX - 0xfff, 0x1000),
            (0x800, 0x1000),
            (0x1000, 0x800),
        ] {
            assert!(window.reserve(offset, length).is_err(), "{offset:#x}");
        }
        window.reserve(0x6000, 0x1000).unwrap();
        window.reserve(0x3000, 0x1000).unwrap();
        window.release(0x4000);
        window.reserve(0x4000, 0x2000).unwrap();
    }
}
