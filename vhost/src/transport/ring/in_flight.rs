//! The descriptors of a ring that are in the device.

/// Largest queue size on offer. QEMU's classic device uses 256; `vq_size` goes up to 1024.
pub(super) const MAX_SIZE: u16 = 1024;

/// A set of descriptor heads.
#[derive(Clone, Copy, Default)]
pub(super) struct InFlight([u64; MAX_SIZE as usize / 64]);

impl InFlight {
    /// Adds `head`. Returns false when it was in the set already, or is out of range.
    pub(super) fn insert(&mut self, head: u16) -> bool {
        let bit = 1 << (head % 64);
        match self.0.get_mut(usize::from(head / 64)) {
            Some(word) if *word & bit == 0 => {
                *word |= bit;
                true
            }
            _ => false,
        }
    }

    /// Removes `head`. Returns false when it was not in the set.
    pub(super) fn remove(&mut self, head: u16) -> bool {
        let bit = 1 << (head % 64);
        match self.0.get_mut(usize::from(head / 64)) {
            Some(word) if *word & bit != 0 => {
                *word &= !bit;
                true
            }
            _ => false,
        }
    }
}
