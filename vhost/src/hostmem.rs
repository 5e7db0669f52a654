//! The host-visible window: the ranges that have a blob mapped.
//!
//! The guest chooses the offsets. They are checked here, because a VMM may not survive a bad one.
//! When the window is full, the guest's kernel refuses to map without telling the device. So the
//! device itself checks whether a blob still finds room, and its log names the option that helps.

use std::collections::BTreeMap;

use crate::budget::MAPPINGS;
use crate::error::CommandError;

/// The window of one device.
pub(crate) struct Hostmem {
    size: u64,
    alignment: u64,
    /// Start and length of the live mappings; they do not overlap.
    mappings: BTreeMap<u64, u64>,
    /// The sum of their lengths.
    mapped: u64,
    warned: Warned,
}

/// The last warning about the window's use. It is reset when less than half of the window is
/// mapped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Warned {
    Nothing,
    /// Nine tenths are mapped.
    NearlyFull,
    /// A blob found no room.
    Full,
}

impl Hostmem {
    pub(crate) fn new(size: u64, alignment: u64) -> Self {
        Self {
            size,
            alignment,
            mappings: BTreeMap::new(),
            mapped: 0,
            warned: Warned::Nothing,
        }
    }

    /// Reserves `length` bytes at `offset`.
    pub(crate) fn reserve(&mut self, offset: u64, length: u64) -> Result<(), CommandError> {
        let end = offset
            .checked_add(length)
            .filter(|end| *end <= self.size)
            .ok_or(CommandError::OutOfRange {
                start: offset,
                length,
                size: self.size,
                of: "the host-visible window",
            })?;
        if !offset.is_multiple_of(self.alignment) || !length.is_multiple_of(self.alignment) {
            return Err(CommandError::Misaligned {
                start: offset,
                length,
                alignment: self.alignment,
            });
        }
        let before = self.mappings.range(..end).next_back();
        if before.is_some_and(|(start, length)| start + length > offset) {
            return Err(CommandError::WindowTaken(offset, length));
        }
        if self.mappings.len() >= MAPPINGS {
            return Err(CommandError::Limit {
                what: "mapped blobs",
                limit: MAPPINGS as u64,
            });
        }
        self.mappings.insert(offset, length);
        self.mapped += length;
        Ok(())
    }

    /// Frees the mapping that starts at `offset`.
    pub(crate) fn release(&mut self, offset: u64) {
        self.mapped -= self.mappings.remove(&offset).unwrap_or(0);
        if self.mapped < self.size / 2 {
            self.warned = Warned::Nothing;
        }
    }

    /// A warning when nine tenths of the window are mapped, once.
    pub(crate) fn use_warning(&mut self) -> Option<String> {
        let is_little = self.mapped < self.size - self.size / 10;
        if is_little || self.warned >= Warned::NearlyFull {
            return None;
        }
        self.warned = Warned::NearlyFull;
        Some(format!(
            "{} of the {} of the host-visible window are mapped; when it is full, the guest's programs cannot map more. {}",
            mib(self.mapped),
            mib(self.size),
            self.remedy()
        ))
    }

    /// A warning when there is no room for a blob of `length` bytes, once.
    pub(crate) fn no_room_warning(&mut self, length: u64) -> Option<String> {
        if self.size == 0 || self.warned >= Warned::Full || self.has_room(length) {
            return None;
        }
        self.warned = Warned::Full;
        Some(format!(
            "the guest has no room to map {} more: {} of the {} of the host-visible window are mapped, and no gap is large \
             enough. {}",
            mib(length),
            mib(self.mapped),
            mib(self.size),
            self.remedy()
        ))
    }

    /// Whether a gap between the mappings has room for `length` bytes.
    fn has_room(&self, length: u64) -> bool {
        let left = self.size - self.mapped;
        // The largest gap is at least the average one.
        if length <= left / (self.mappings.len() as u64 + 1) {
            return true;
        }
        let end = [(&self.size, &0)];
        let mut gap_from = 0;
        self.mappings.iter().chain(end).any(|(start, taken)| {
            let gap = start - gap_from;
            gap_from = start + taken;
            gap >= length
        })
    }

    fn remedy(&self) -> String {
        let (now, twice) = (option(self.size), option(self.size.saturating_mul(2)));
        format!("Start Hesper with a larger window: --hostmem={twice} instead of {now}")
    }

    /// Number of live mappings.
    pub(crate) fn mappings(&self) -> usize {
        self.mappings.len()
    }

    /// Forgets all mappings.
    pub(crate) fn clear(&mut self) {
        self.mappings.clear();
        self.mapped = 0;
        self.warned = Warned::Nothing;
    }
}

/// A size in MiB, for the log.
fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

/// A power of two as `--hostmem` takes it.
fn option(bytes: u64) -> String {
    let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
    let unit = units.iter().find(|(shift, _)| bytes >> shift > 0);
    unit.map_or_else(
        || bytes.to_string(),
        |(shift, unit)| format!("{}{unit}", bytes >> shift),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_are_aligned_inside_and_apart() {
        let mut window = Hostmem::new(0x10000, 0x1000);
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

    #[test]
    fn a_window_that_fills_up_is_spoken_of_once_until_half_of_it_is_free() {
        const MIB: u64 = 1 << 20;
        let mut window = Hostmem::new(256 * MIB, 4096);
        let map = |window: &mut Hostmem, offset, length| {
            window.reserve(offset * MIB, length * MIB).unwrap();
            window.use_warning()
        };
        assert_eq!(map(&mut window, 0, 128), None);
        assert_eq!(map(&mut window, 128, 102), None, "230 of 256 MiB");
        let said = map(&mut window, 230, 1).unwrap();
        assert!(
            said.contains("231 MiB of the 256 MiB")
                && said.contains("--hostmem=512M instead of 256M"),
            "{said}"
        );
        assert_eq!(map(&mut window, 231, 1), None, "it was said");
        assert_eq!(window.no_room_warning(24 * MIB), None, "there is room");
        let said = window.no_room_warning(25 * MIB).unwrap();
        assert!(
            said.contains("no room to map 25 MiB more: 232 MiB of the 256 MiB")
                && said.contains("--hostmem=512M"),
            "{said}"
        );
        assert_eq!(window.no_room_warning(25 * MIB), None, "it was said");
        window.release(128 * MIB);
        window.release(231 * MIB);
        assert_eq!(map(&mut window, 128, 102), None, "still more than half");
        window.release(0);
        assert!(map(&mut window, 0, 128).is_some(), "less than half before");
        window.clear();
        assert_eq!(map(&mut window, 0, 128), None);
    }

    #[test]
    fn room_in_pieces_is_not_room_for_the_whole() {
        let mut window = Hostmem::new(0x10000, 0x1000);
        for offset in [0x3000, 0x8000, 0xe000] {
            window.reserve(offset, 0x1000).unwrap();
        }
        assert!(window.has_room(0x5000), "between the second and the third");
        assert!(!window.has_room(0x6000), "though 0xd000 bytes are free");
        window.release(0xe000);
        assert!(window.has_room(0x7000), "at the end");
        window.release(0x3000);
        assert!(window.has_room(0x8000), "at the beginning");
        assert!(!window.has_room(0x8001));
        assert!(!window.has_room(u64::MAX));
    }

    #[test]
    fn sizes_are_written_as_the_option_takes_them() {
        assert_eq!(option(1 << 20), "1M");
        assert_eq!(option(8 << 30), "8G");
        assert_eq!(option(1 << 44), "16T");
    }
}
