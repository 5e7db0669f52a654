//! Reads descriptor chains: [`Reader`] for the request, [`AnswerSpace`] for the answer.
//!
//! [`open`] walks a chain once and copies its descriptors out of guest memory. What the guest
//! writes into the descriptor table afterwards changes nothing. The device-readable part becomes a
//! [`Reader`], which reads from front to back across the descriptors. The device-writable part
//! becomes an [`AnswerSpace`], which a held command keeps until it is answered.
//!
//! Every command copies what it reads before it checks it. The usual chain of a few descriptors
//! takes no heap. A long one, such as a table of backing pages, takes 16 bytes a descriptor, and
//! has at most 65,535.

use std::ops::Deref;

use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};
use zerocopy::{FromBytes, IntoBytes};

use crate::error::CommandError;

/// Descriptors that need no heap.
const INLINE: usize = 6;

#[derive(Clone, Copy)]
struct Segment {
    address: GuestAddress,
    length: u32,
}

/// The descriptors of one direction.
struct Segments {
    inline: [Segment; INLINE],
    used: usize,
    more: Vec<Segment>,
    bytes: u64,
}

impl Segments {
    fn new() -> Self {
        Self {
            inline: [Segment {
                address: GuestAddress(0),
                length: 0,
            }; INLINE],
            used: 0,
            more: Vec::new(),
            bytes: 0,
        }
    }

    fn push(&mut self, segment: Segment) {
        if segment.length == 0 {
            return;
        }
        self.bytes += u64::from(segment.length);
        match self.inline.get_mut(self.used) {
            Some(place) => {
                *place = segment;
                self.used += 1;
            }
            None => self.more.push(segment),
        }
    }

    /// Forgets the descriptors behind the first `bytes` bytes.
    fn truncate(&mut self, bytes: u64) {
        let mut sum = 0_u64;
        let mut count = 0_usize;
        while sum < bytes
            && let Some(segment) = self.get(count)
        {
            sum += u64::from(segment.length);
            count += 1;
        }
        self.bytes = sum;
        self.more.truncate(count.saturating_sub(INLINE));
        self.more.shrink_to_fit();
        self.used = self.used.min(count);
    }

    fn get(&self, index: usize) -> Option<Segment> {
        if index < self.used {
            self.inline.get(index).copied()
        } else {
            self.more.get(index - self.used).copied()
        }
    }
}

/// The device-readable bytes of a chain, read once from front to back.
pub(crate) struct Reader<'m> {
    memory: &'m GuestMemoryMmap,
    segments: Segments,
    next: usize,
    /// Bytes already read of segment `next`.
    within: u32,
    left: u64,
}

impl Reader<'_> {
    /// Bytes not read yet.
    pub(crate) fn left(&self) -> u64 {
        self.left
    }

    /// Copies the next `into.len()` bytes.
    pub(crate) fn read(&mut self, into: &mut [u8]) -> Result<(), CommandError> {
        let wanted = into.len() as u64;
        if wanted > self.left {
            return Err(CommandError::Short {
                missing: wanted - self.left,
            });
        }
        let mut rest = into;
        while !rest.is_empty() {
            let Some(segment) = self.segments.get(self.next) else {
                return Err(CommandError::Short {
                    missing: rest.len() as u64,
                });
            };
            let available = segment.length - self.within;
            let count = rest.len().min(available as usize);
            let (now, later) = rest.split_at_mut(count);
            segment
                .address
                .0
                .checked_add(u64::from(self.within))
                .and_then(|address| self.memory.read_slice(now, GuestAddress(address)).ok())
                .ok_or(CommandError::BadDescriptor {
                    address: segment.address.0,
                    length: u64::from(segment.length),
                })?;
            self.within += count as u32;
            if self.within == segment.length {
                self.next += 1;
                self.within = 0;
            }
            rest = later;
        }
        self.left -= wanted;
        Ok(())
    }

    /// Copies the next wire struct.
    pub(crate) fn take<T: FromBytes + IntoBytes>(&mut self) -> Result<T, CommandError> {
        let mut value = T::new_zeroed();
        self.read(value.as_mut_bytes())?;
        Ok(value)
    }
}

/// An answer space without room.
#[cfg(test)]
pub(crate) fn no_space() -> AnswerSpace {
    AnswerSpace {
        segments: Segments::new(),
    }
}

/// The device-writable bytes of a chain.
pub(crate) struct AnswerSpace {
    segments: Segments,
}

impl AnswerSpace {
    /// How many bytes fit.
    pub(crate) fn room(&self) -> u64 {
        self.segments.bytes
    }

    /// Keeps room for `bytes` bytes and forgets the other descriptors, so that a command that waits
    /// keeps little. Each descriptor has at least one byte.
    pub(crate) fn shrink_to(&mut self, bytes: u64) {
        self.segments.truncate(bytes);
    }

    /// Writes `parts` one after the other. Returns how many bytes were written.
    pub(crate) fn write(
        &self,
        memory: &GuestMemoryMmap,
        parts: [&[u8]; 2],
    ) -> Result<u32, CommandError> {
        let mut index = 0;
        let mut within = 0_u32;
        let mut written = 0_u32;
        for part in parts {
            let mut rest = part;
            while !rest.is_empty() {
                let Some(segment) = self.segments.get(index) else {
                    return Err(CommandError::NoRoom {
                        need: parts.iter().map(|part| part.len() as u64).sum(),
                        have: self.room(),
                    });
                };
                let count = rest.len().min((segment.length - within) as usize);
                let (now, later) = rest.split_at(count);
                segment
                    .address
                    .0
                    .checked_add(u64::from(within))
                    .and_then(|address| memory.write_slice(now, GuestAddress(address)).ok())
                    .ok_or(CommandError::BadDescriptor {
                        address: segment.address.0,
                        length: u64::from(segment.length),
                    })?;
                within += count as u32;
                written += count as u32;
                if within == segment.length {
                    index += 1;
                    within = 0;
                }
                rest = later;
            }
        }
        Ok(written)
    }
}

/// Copies the descriptors of `chain`, direct or indirect, and sorts them by direction.
pub(crate) fn open<M>(
    memory: &GuestMemoryMmap,
    chain: DescriptorChain<M>,
) -> (Reader<'_>, AnswerSpace)
where
    M: Deref<Target = GuestMemoryMmap>,
{
    let mut readable = Segments::new();
    let mut writable = Segments::new();
    for descriptor in chain {
        let segment = Segment {
            address: descriptor.addr(),
            length: descriptor.len(),
        };
        if descriptor.is_write_only() {
            writable.push(segment);
        } else {
            readable.push(segment);
        }
    }
    let left = readable.bytes;
    (
        Reader {
            memory,
            segments: readable,
            next: 0,
            within: 0,
            left,
        },
        AnswerSpace { segments: writable },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shrunk_space_has_room_for_what_was_asked_and_no_more_descriptors() {
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), 0x1000)]).unwrap();
        for pieces in [1, INLINE, INLINE + 1, 500] {
            for keep in [0, 1, 40, 499, 600] {
                let mut segments = Segments::new();
                for index in 0..pieces {
                    segments.push(Segment {
                        address: GuestAddress(index as u64 * 2),
                        length: 1,
                    });
                }
                let mut space = AnswerSpace { segments };
                space.shrink_to(keep);
                let left = keep.min(pieces as u64);
                assert_eq!(space.room(), left);
                assert_eq!(
                    space.segments.more.len(),
                    (left as usize).saturating_sub(INLINE)
                );
                let bytes = vec![0xab; left as usize];
                assert_eq!(space.write(&memory, [&bytes, &[]]).unwrap(), left as u32);
                assert!(space.write(&memory, [&bytes, &[1]]).is_err());
            }
        }
    }
}
