//! Ids of objects that the host's driver did not make, without the guest's program knowing.
//!
//! Mesa does not wait for the answer to most `vkCreate…`. The program is told success at once, and
//! destroys the object like any other. So the ids of failed objects are remembered, and destroying
//! them does nothing. Any other use ends the context, with a reason that says what happened.

use std::collections::HashSet;
use std::sync::Mutex;

use hesper_system::sync::Lock;

/// How many ids are remembered. A guest whose host has no memory left does not run for long.
const MOST: usize = 1 << 16;

/// The ids, each with the type of the object.
#[derive(Default)]
pub(crate) struct FailedIds {
    ids: Mutex<HashSet<(u32, u64)>>,
}

impl FailedIds {
    /// Remembers that object `id` of this type was not made, unless too many are remembered
    /// already.
    #[cold]
    pub(crate) fn add(&self, kind: u32, id: u64) {
        let mut ids = self.ids.locked();
        if ids.len() < MOST {
            ids.insert((kind, id));
        }
    }

    /// Whether this one is remembered.
    #[cold]
    pub(crate) fn has(&self, kind: u32, id: u64) -> bool {
        self.ids.locked().contains(&(kind, id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_remembered_with_their_type_and_not_without_end() {
        let failed = FailedIds::default();
        failed.add(1, 5);
        assert!(failed.has(1, 5) && !failed.has(2, 5) && !failed.has(1, 6));
        for id in 0..MOST as u64 + 10 {
            failed.add(3, id);
        }
        assert_eq!(failed.ids.locked().len(), MOST);
    }
}
