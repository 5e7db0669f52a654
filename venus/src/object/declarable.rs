//! [`Declarable`]: the driver's answers about declaring buffers and images for imported memory (see
//! [`crate::emulate::host_allocation`]).

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use hesper_system::sync::Lock;

/// How many kinds of buffers are remembered. No program has more. A guest that goes through all of
/// them becomes slower.
const MOST_KINDS: usize = 1024;

/// Places of [`Recent`], a power of two.
const RECENT: usize = 16;

/// The driver's answers about declaring, for one device.
#[derive(Default)]
pub(crate) struct Declarable {
    /// Kinds of buffers by their flags and usage.
    buffers: Mutex<HashMap<(u32, u64), bool>>,
    /// Those that were asked for last.
    pub(crate) recent: Recent,
    /// Whether all memory of the GPU can be imported.
    pub(crate) is_all_importable: OnceLock<bool>,
}

/// Answers about a few kinds of buffers, without a lock: programs make many buffers of few kinds.
/// Each entry is one word, so it is always consistent: the kind, and the answer in the two highest
/// bits.
#[derive(Default)]
pub(crate) struct Recent([AtomicU64; RECENT]);

impl Recent {
    const KNOWN: u64 = 1 << 63;
    const DECLARABLE: u64 = 1 << 62;

    /// Flags and usage in one word. `None` when they do not fit, which today's flags always do.
    pub(crate) fn key(flags: u32, usage: u64) -> Option<u64> {
        let fits = flags < 1 << 14 && usage < 1 << 48;
        fits.then_some(u64::from(flags) << 48 | usage)
    }

    fn place(&self, key: u64) -> Option<&AtomicU64> {
        // The golden ratio spreads neighbours. The highest bits of the product depend on the whole
        // key.
        let spread = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0.get((spread >> (64 - RECENT.ilog2())) as usize)
    }

    /// The answer for the kind, if it is known.
    pub(crate) fn find(&self, key: u64) -> Option<bool> {
        let word = self.place(key)?.load(Ordering::Relaxed);
        let is_it = word & !Self::DECLARABLE == Self::KNOWN | key;
        is_it.then_some(word & Self::DECLARABLE != 0)
    }

    /// Keeps the answer for a kind.
    pub(crate) fn keep(&self, key: u64, is_declarable: bool) {
        if let Some(place) = self.place(key) {
            let answer = if is_declarable { Self::DECLARABLE } else { 0 };
            place.store(Self::KNOWN | answer | key, Ordering::Relaxed);
        }
    }
}

impl Declarable {
    /// Whether buffers with these flags and usage can be declared: the known answer, else what
    /// `ask` says.
    pub(crate) fn buffer(&self, kind: (u32, u64), ask: impl FnOnce() -> bool) -> bool {
        let known = self.buffers.locked().get(&kind).copied();
        known.unwrap_or_else(|| {
            let is_declarable = ask();
            let mut buffers = self.buffers.locked();
            if buffers.len() < MOST_KINDS {
                buffers.insert(kind, is_declarable);
            }
            is_declarable
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_found_and_nothing_else() {
        let recent = Recent::default();
        let key = |flags, usage| Recent::key(flags, usage).unwrap();
        assert_eq!(
            recent.find(0),
            None,
            "no kind is known at first, that of zeros neither"
        );
        recent.keep(key(0, 0x20), true);
        recent.keep(key(1, 0x21), false);
        assert_eq!(recent.find(key(0, 0x20)), Some(true));
        assert_eq!(recent.find(key(1, 0x21)), Some(false));
        assert_eq!(recent.find(key(1, 0x20)), None);
        for usage in 0..1000 {
            recent.keep(key(0, usage), usage % 3 == 0);
            assert_eq!(recent.find(key(0, usage)), Some(usage % 3 == 0));
        }
        assert_eq!(Recent::key(1 << 14, 0), None);
        assert_eq!(Recent::key(0, 1 << 48), None);
    }
}
