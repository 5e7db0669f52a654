//! [`Strays`]: values of enums that Vulkan does not have.
//!
//! Drivers index tables by enums and by single flags, and do not look whether they are in range.
//! So a decoder for a driver replaces such a value, and remembers that it did. Vulkan allows
//! anything after such a value. To replace it is kinder to programs than to end them: some leave
//! values in unused members that they never wrote, and a question about a format that is newer than
//! the host gets the right answer, as the replacement is `VK_FORMAT_UNDEFINED`.

use std::cell::Cell;

use crate::layout::Names;

/// A set of flags of which some members have only one.
pub(crate) trait Flags: Copy {
    /// The C name.
    const NAME: &'static str;
    /// All bits that Vulkan has.
    const KNOWN: u64;
    /// The bits.
    fn bits(self) -> u64;
    /// The flags with these bits.
    fn of(bits: u64) -> Self;
}

/// A value that Vulkan does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stray {
    /// The C name of its type.
    pub ty: &'static str,
    /// The value.
    pub value: i64,
    /// What the driver gets instead.
    pub instead: i64,
}

impl std::fmt::Display for Stray {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { ty, value, instead } = self;
        write!(
            f,
            "{value:#x} is no value of {ty}; the driver gets {instead:#x}"
        )
    }
}

/// The values of enums and the single flags that a decoder found and that Vulkan does not have.
#[derive(Debug, Default)]
pub struct Strays {
    /// Whether they are replaced.
    pub(super) replaces: bool,
    count: Cell<u64>,
    first: Cell<Option<Stray>>,
}

impl Strays {
    /// How many were replaced.
    #[inline]
    pub fn count(&self) -> u64 {
        self.count.get()
    }

    /// The first that was replaced.
    pub fn first(&self) -> Option<Stray> {
        self.first.get()
    }

    /// What takes the place of a value of an enum: 0, or its lowest value. Most enums begin with
    /// the value that means the least.
    #[cold]
    #[inline(never)]
    pub(crate) fn value(&self, ty: &'static str, value: i32, names: Names) -> i32 {
        let lowest = names
            .iter()
            .map(|(known, _)| *known)
            .find(|known| *known >= 0);
        let instead = lowest.unwrap_or(0);
        // An enum may have no value yet.
        let is_replaced = i64::from(value) != instead && self.replace(ty, value.into(), instead);
        match is_replaced {
            true => i32::try_from(instead).unwrap_or(0),
            false => value,
        }
    }

    /// One flag: itself if Vulkan has it, else the lowest flag. 0 is a flag if it is optional.
    #[inline(always)]
    pub(crate) fn bit<F: Flags>(&self, flag: F, optional: bool) -> F {
        let bits = flag.bits();
        let is_one = bits & F::KNOWN != 0 && bits & bits.wrapping_sub(1) == 0;
        if is_one || (optional && bits == 0) {
            return flag;
        }
        self.lowest(flag)
    }

    #[cold]
    #[inline(never)]
    fn lowest<F: Flags>(&self, flag: F) -> F {
        let instead = F::KNOWN & F::KNOWN.wrapping_neg();
        // A type without a flag has none that could be used as an index.
        if instead != 0 && self.replace(F::NAME, flag.bits().cast_signed(), instead.cast_signed()) {
            return F::of(instead);
        }
        flag
    }

    fn replace(&self, ty: &'static str, value: i64, instead: i64) -> bool {
        if self.replaces {
            if self.count.get() == 0 {
                self.first.set(Some(Stray { ty, value, instead }));
            }
            self.count.set(self.count.get() + 1);
        }
        self.replaces
    }
}
