//! Guest memory behind a resource: the scattered pages of `RESOURCE_ATTACH_BACKING` and of guest
//! blobs.
//!
//! A [`Backing`] presents the pieces as one run of bytes from offset 0 on. It keeps guest physical
//! addresses and looks them up at each copy, so a new memory table of the VMM takes effect at once.
//! The pieces may overlap. That harms only the guest, which chose them.

use std::sync::Arc;

use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionMmap,
    MemoryRegionAddress, VolatileSlice,
};

use crate::budget::{BACKING_ENTRIES, Charge, Pool};
use crate::chain::Reader;
use crate::copy_pipeline::CopyPipeline;
use crate::error::CommandError;
use crate::guest_pages::{AttachedPages, GuestRun};
use crate::wire::MemEntry;

/// The most runs of pages that [`Backing::pages`] returns: 16 MiB when no two pages of 4 KiB are
/// neighbours.
const RUNS: usize = 4096;

/// Entries copied out of the request at a time.
const BATCH: u32 = 64;

/// A piece of guest memory that begins at byte `start` of the backing and ends where the next one
/// begins.
struct Piece {
    start: u64,
    address: u64,
}

/// The guest memory of a resource.
pub(crate) struct Backing {
    pieces: Vec<Piece>,
    length: u64,
    _charge: Charge,
}

impl Backing {
    /// Reads `count` entries from `request`. Every one must lie in guest memory. Neighbours are
    /// joined.
    pub(crate) fn read_from(
        request: &mut Reader<'_>,
        memory: &GuestMemoryMmap,
        count: u32,
        pool: &Arc<Pool>,
    ) -> Result<Self, CommandError> {
        let need = u64::from(count) * size_of::<MemEntry>() as u64;
        if need > request.left() {
            return Err(CommandError::Short {
                missing: need - request.left(),
            });
        }
        let mut charge = pool.charge(u64::from(count)).ok_or(CommandError::Limit {
            what: "backing entries",
            limit: BACKING_ENTRIES,
        })?;
        let mut pieces: Vec<Piece> = Vec::new();
        let mut length = 0_u64;
        let mut end_address = None;
        let mut left = count;
        while left > 0 {
            let now = left.min(BATCH);
            let mut batch = [const { MemEntry::EMPTY }; BATCH as usize];
            let (batch, _) = batch.split_at_mut(now as usize);
            request.read(zerocopy::IntoBytes::as_mut_bytes(batch))?;
            for entry in batch.iter() {
                let (address, bytes) = (entry.address.get(), u64::from(entry.length.get()));
                if bytes == 0 {
                    continue;
                }
                if !memory.check_range(GuestAddress(address), bytes as usize) {
                    return Err(CommandError::OutOfRange {
                        start: address,
                        length: bytes,
                        size: memory.last_addr().0.saturating_add(1),
                        of: "guest memory",
                    });
                }
                if end_address != Some(address) {
                    pieces.push(Piece {
                        start: length,
                        address,
                    });
                }
                length += bytes;
                end_address = address.checked_add(bytes);
            }
            left -= now;
        }
        pieces.shrink_to_fit();
        charge.shrink_to(pieces.len() as u64);
        Ok(Self {
            pieces,
            length,
            _charge: charge,
        })
    }

    /// Bytes in all pieces.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Fails unless bytes `offset..offset + length` are all there.
    pub(crate) fn check(&self, offset: u64, length: u64) -> Result<(), CommandError> {
        match offset.checked_add(length) {
            Some(end) if end <= self.length => Ok(()),
            _ => Err(self.outside(offset, length)),
        }
    }

    /// The pieces as pages of files, so that the same memory can be mapped a second time. `None`
    /// when they are not whole pages that the VMM shares by a file, or when there are more than
    /// [`RUNS`].
    pub(crate) fn pages(&self, memory: &GuestMemoryMmap) -> Option<Vec<GuestRun>> {
        let is_whole = |bytes: u64| bytes.is_multiple_of(crate::system::page_size());
        let mut pages: Vec<GuestRun> = Vec::new();
        let ends = self.pieces.iter().skip(1).map(|piece| piece.start);
        for (piece, end) in self.pieces.iter().zip(ends.chain([self.length])) {
            let mut address = piece.address;
            let mut left = end - piece.start;
            while left > 0 {
                let region = memory.find_region(GuestAddress(address))?;
                let inside = address.checked_sub(region.start_addr().0)?;
                let size = left.min(region.len().checked_sub(inside)?);
                let file = region.file_offset()?;
                let offset = file.start().checked_add(inside)?;
                if !is_whole(offset) || !is_whole(size) || size == 0 || pages.len() >= RUNS {
                    return None;
                }
                pages.push(GuestRun {
                    file: Arc::clone(file.arc()),
                    offset,
                    size,
                });
                address = address.checked_add(size)?;
                left -= size;
            }
        }
        Some(pages)
    }

    /// The pieces as this process has them mapped, for a renderer.
    pub(crate) fn mapped_pieces(
        self: &Arc<Self>,
        memory: &GuestMemoryMmap,
    ) -> Result<AttachedPages, CommandError> {
        let length = usize::try_from(self.length).map_err(|_| self.outside(0, self.length))?;
        let mut pieces = Vec::with_capacity(self.pieces.len());
        self.walk(memory, 0, length, |_, slice| {
            pieces.push((slice.ptr_guard_mut().as_ptr(), slice.len()));
            Ok(())
        })?;
        Ok(AttachedPages::new(pieces, memory, Arc::clone(self) as _))
    }

    /// Adds the copies to `copies` that fill `target` from the bytes at `offset`.
    pub(crate) fn copy_to<'a>(
        &self,
        memory: &'a GuestMemoryMmap,
        offset: u64,
        target: &VolatileSlice<'a>,
        copies: &mut CopyPipeline<'a>,
    ) -> Result<(), CommandError> {
        self.walk(memory, offset, target.len(), |done, slice| {
            let length = slice.len();
            let part = target
                .subslice(done, length)
                .map_err(|_| self.outside(offset, length as u64))?;
            copies.add(slice, part);
            Ok(())
        })
    }

    /// Writes `bytes` from `offset` on.
    pub(crate) fn write(
        &self,
        memory: &GuestMemoryMmap,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), CommandError> {
        self.walk(memory, offset, bytes.len(), |done, slice| {
            let part = bytes.get(done..).unwrap_or(&[]);
            // Copies the shorter of the two lengths, which is the slice's.
            slice.copy_from(part);
            Ok(())
        })
    }

    /// Calls `visit` for each run of the `length` bytes from `offset` on, with the count of bytes
    /// before it.
    fn walk<'a>(
        &self,
        memory: &'a GuestMemoryMmap,
        offset: u64,
        length: usize,
        mut visit: impl FnMut(usize, VolatileSlice<'a>) -> Result<(), CommandError>,
    ) -> Result<(), CommandError> {
        self.check(offset, length as u64)?;
        let first = self.pieces.partition_point(|piece| piece.start <= offset);
        let mut regions = Regions { memory, last: None };
        let mut at = offset;
        let mut done = 0_usize;
        let ends = self.pieces.iter().skip(first).map(|piece| piece.start);
        let pieces = self.pieces.iter().skip(first.saturating_sub(1));
        for (piece, end) in pieces.zip(ends.chain(std::iter::once(self.length))) {
            let rest = length - done;
            if rest == 0 {
                break;
            }
            let count = usize::try_from(end - at).map_or(rest, |piece_left| piece_left.min(rest));
            let mut address = piece.address + (at - piece.start);
            let piece_done = done + count;
            while done < piece_done {
                let slice = regions.slice(address, piece_done - done)?;
                let taken = slice.len();
                visit(done, slice)?;
                done += taken;
                address = address.saturating_add(taken as u64);
            }
            at = end;
        }
        Ok(())
    }

    fn outside(&self, start: u64, length: u64) -> CommandError {
        CommandError::OutOfRange {
            start,
            length,
            size: self.length,
            of: "the backing",
        }
    }
}

/// Guest memory, with the region of the last look-up cached: most pages of a guest are in one
/// region.
struct Regions<'a> {
    memory: &'a GuestMemoryMmap,
    last: Option<&'a GuestRegionMmap>,
}

impl<'a> Regions<'a> {
    /// The memory at `address`: `length` bytes, or as many as its region has.
    fn slice(&mut self, address: u64, length: usize) -> Result<VolatileSlice<'a>, CommandError> {
        // The memory table may have changed since the entry was checked.
        let gone = CommandError::BadDescriptor {
            address,
            length: length as u64,
        };
        let inside = |region: &&GuestRegionMmap| {
            address
                .checked_sub(region.start_addr().0)
                .is_some_and(|offset| offset < region.len())
        };
        let Some(region) = self
            .last
            .filter(inside)
            .or_else(|| self.memory.find_region(GuestAddress(address)))
        else {
            return Err(gone);
        };
        self.last = Some(region);
        let offset = address - region.start_addr().0;
        let length = usize::try_from(region.len() - offset).map_or(length, |left| left.min(length));
        region
            .get_slice(MemoryRegionAddress(offset), length)
            .map_err(|_| gone)
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes, GuestMemoryMmap};

    use super::*;

    fn backing(pieces: &[(u64, u64)]) -> Backing {
        let mut start = 0;
        let pieces = pieces
            .iter()
            .map(|&(address, length)| {
                let piece = Piece { start, address };
                start += length;
                piece
            })
            .collect();
        Backing {
            pieces,
            length: start,
            _charge: Pool::new(100).charge(1).unwrap(),
        }
    }

    #[test]
    fn scattered_pieces_read_as_one_run_from_any_offset() {
        let memory = GuestMemoryMmap::from_ranges(&[
            (GuestAddress(0), 0x2000),
            (GuestAddress(0x2000), 0x2000),
        ])
        .unwrap();
        let bytes: Vec<u8> = (0..0x4000_u32).map(|i| (i % 251) as u8).collect();
        memory.write_slice(&bytes, GuestAddress(0)).unwrap();
        // Backwards, an odd length, and one piece over the border of two regions.
        let list = [(0x3000, 0x800), (0x1f00, 0x3ff), (0x10, 1), (0, 0x100)];
        let run: Vec<u8> = list
            .iter()
            .flat_map(|&(address, length)| bytes[address as usize..][..length as usize].to_vec())
            .collect();
        let backing = backing(&list);
        for offset in (0..run.len()).step_by(7) {
            for length in [0, 1, 8, 0x400, run.len() - offset] {
                let length = length.min(run.len() - offset);
                let mut copy = vec![0_u8; length];
                let target = VolatileSlice::from(copy.as_mut_slice());
                let mut copies = CopyPipeline::new();
                backing
                    .copy_to(&memory, offset as u64, &target, &mut copies)
                    .unwrap();
                copies.finish();
                assert_eq!(copy, run[offset..][..length], "offset {offset}");
                // The bytes are written back changed, and then as they were. Each must arrive where
                // it was read.
                let changed: Vec<u8> = copy.iter().map(|byte| !byte).collect();
                backing.write(&memory, offset as u64, &changed).unwrap();
                let mut again = vec![0_u8; length];
                let target = VolatileSlice::from(again.as_mut_slice());
                let mut copies = CopyPipeline::new();
                backing
                    .copy_to(&memory, offset as u64, &target, &mut copies)
                    .unwrap();
                copies.finish();
                assert_eq!(again, changed, "offset {offset}");
                backing.write(&memory, offset as u64, &copy).unwrap();
            }
        }
        assert!(backing.check(run.len() as u64, 1).is_err());
        assert!(backing.check(u64::MAX, 2).is_err());
    }
}
