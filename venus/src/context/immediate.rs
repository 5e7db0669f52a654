//! Submits that need no thread: notifications, and waits that are over.
//!
//! Guests send each of these alone in a submit, and often, and wait for the result. They are
//! recognised by their bytes, before anything is decoded. What does not match exactly is decoded as
//! usual, which also traces it and refuses it if it is wrong.

/// Such a submit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Immediate {
    /// `vkNotifyRingMESA`: wakes this ring. It may overtake other submits, and must do so when the
    /// context's thread waits for this ring.
    Notify(u64),
    /// `vkWaitRingSeqnoMESA`: ring and position.
    Wait(u64, u64),
    /// `vkSubmitVirtqueueSeqnoMESA`: ring and number. Valid when everything before it is done.
    Submitted(u64, u64),
}

impl Immediate {
    /// Recognises a submit.
    pub(crate) fn of(commands: &[u8]) -> Option<Self> {
        /// Type and flags of the commands.
        const NOTIFY: u64 = 190;
        const WAIT: u64 = 253;
        const SUBMITTED: u64 = 251;
        let (words, rest) = commands.as_chunks::<8>();
        let &[head, ring, argument] = words else {
            return None;
        };
        let [head, ring, argument] = [head, ring, argument].map(u64::from_le_bytes);
        match head {
            NOTIFY if rest.is_empty() => Some(Self::Notify(ring)),
            WAIT if rest.is_empty() => Some(Self::Wait(ring, argument)),
            SUBMITTED if rest.is_empty() => Some(Self::Submitted(ring, argument)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hesper_venus_protocol::{command, guest, vk};

    #[test]
    fn the_commands_are_recognised_alone_only() {
        let flags = vk::RingNotifyFlagsMESA::default();
        let notify = command::NotifyRingMESA {
            ring: 7,
            seqno: 9,
            flags,
        };
        let wait = command::WaitRingSeqnoMESA {
            ring: 8,
            seqno: 1 << 33,
        };
        let submitted = command::SubmitVirtqueueSeqnoMESA { ring: 5, seqno: 6 };
        let (mut first, mut second, mut replied) = (Vec::new(), Vec::new(), Vec::new());
        let mut third = Vec::new();
        // SAFETY: there are no pointers in these commands.
        unsafe {
            guest::encode(&notify, false, &mut first);
            guest::encode(&wait, false, &mut second);
            guest::encode(&wait, true, &mut replied);
            guest::encode(&submitted, false, &mut third);
        }
        assert_eq!(Immediate::of(&first), Some(Immediate::Notify(7)));
        assert_eq!(Immediate::of(&second), Some(Immediate::Wait(8, 1 << 33)));
        assert_eq!(Immediate::of(&third), Some(Immediate::Submitted(5, 6)));
        assert_eq!(Immediate::of(&replied), None);
        assert_eq!(Immediate::of(&[first.clone(), second].concat()), None);
        assert_eq!(Immediate::of(&first[..23]), None);
        assert_eq!(Immediate::of(&[]), None);
    }
}
