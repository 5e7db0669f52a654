//! [`Quota`]: how much shared memory a context may make, in bytes and in pieces.

use std::sync::Arc;

use hesper_system::budget::Charge as Taken;
use hesper_system::share::Share;

use crate::counters::{SharedTally, add, sub};

/// A context's shares of what shared memory takes of the host.
#[derive(Debug)]
pub(crate) struct Quota {
    bytes: Arc<Share>,
    pieces: Arc<Share>,
    tally: SharedTally,
}

/// A piece of shared memory, as it is counted. Given back on drop.
#[derive(Debug)]
pub(crate) struct Charge {
    _bytes: Taken,
    _piece: Taken,
    size: u64,
    tally: SharedTally,
}

/// What there is too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Short {
    /// Bytes.
    Bytes,
    /// Pieces: descriptors and mappings.
    Pieces,
}

impl Quota {
    /// A quota within these shares. `tally` counts the bytes that are used, too.
    pub(crate) fn new(bytes: &Arc<Share>, pieces: &Arc<Share>, tally: SharedTally) -> Self {
        Self {
            bytes: Arc::clone(bytes),
            pieces: Arc::clone(pieces),
            tally,
        }
    }

    /// Takes a piece of `size` bytes.
    pub(crate) fn charge(&self, size: u64) -> Result<Charge, Short> {
        let bytes = self.bytes.charge(size).ok_or(Short::Bytes)?;
        let piece = self.pieces.charge(1).ok_or(Short::Pieces)?;
        add(&self.tally.shared_bytes, size);
        Ok(Charge {
            _bytes: bytes,
            _piece: piece,
            size,
            tally: self.tally.clone(),
        })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        sub(&self.tally.shared_bytes, self.size);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use hesper_system::budget::Pool;

    use super::*;

    #[test]
    fn what_is_dropped_can_be_taken_again() {
        let bytes = Share::new(&Pool::new(100), 10);
        let pieces = Share::new(&Pool::new(100), 2);
        let tally = SharedTally::default();
        let quota = Quota::new(&bytes, &pieces, tally.clone());
        let six = quota.charge(6).unwrap();
        assert_eq!(quota.charge(5).unwrap_err(), Short::Bytes);
        assert_eq!(quota.charge(u64::MAX).unwrap_err(), Short::Bytes);
        let one = quota.charge(1).unwrap();
        assert_eq!(quota.charge(1).unwrap_err(), Short::Pieces);
        assert_eq!(tally.shared_bytes.load(Ordering::Relaxed), 7);
        drop((six, one));
        assert_eq!(tally.shared_bytes.load(Ordering::Relaxed), 0);
        assert!(quota.charge(10).is_ok());
    }
}
