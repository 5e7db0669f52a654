//! Guest memory: the regions that the VMM shares, mapped here.
//!
//! The VMM sends the whole table again whenever it changes, and QEMU changes it for every blob that
//! it maps. Regions that stay are not mapped anew. A new mapping would cost a page fault for every
//! page of the guest that the device touches later.

use std::fs::{File, Metadata};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hesper_system::guest_memory::{self, FileId, Owner, Registered};
use hesper_system::sync::{Lock, unpoisoned};
use vm_memory::{
    Address, FileOffset, GuestAddress, GuestMemoryAtomic, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionMmap, MmapRegion,
};

use crate::system::{Identity, identity, page_size};

/// A memory table that cannot be used. The previous one stays.
#[derive(Debug, thiserror::Error)]
pub(super) enum MemoryError {
    #[error("{0}")]
    Region(String),
}

/// A region of guest memory as the VMM describes it.
pub(super) struct Region {
    /// Address in the guest.
    pub(super) guest: u64,
    /// Size in bytes.
    pub(super) size: u64,
    /// Address in the VMM, by which it names the rings.
    pub(super) vmm: u64,
    /// Offset in `file`.
    pub(super) offset: u64,
    /// The memory.
    pub(super) file: File,
    /// The metadata of the file.
    pub(super) metadata: Metadata,
}

/// A mapped region.
#[derive(Clone)]
struct Span {
    backing: Backing,
    mapping: Arc<GuestRegionMmap>,
    /// Its registration for the case that the VMM takes the memory away.
    registered: Arc<Registered>,
}

/// Regions that left their table while somebody still used it. They stay mapped and registered
/// until nobody does.
static RETIRED: Mutex<Vec<Span>> = Mutex::new(Vec::new());

/// How often, and after which pause, regions that are still used at the end of a connection are
/// tried again. Later ones go with the next change of any table.
const UNMAP_ATTEMPTS: u32 = 50;
const UNMAP_PAUSE: Duration = Duration::from_millis(2);

/// Unmaps the retired regions that nobody uses any more, after `more` is added to them.
fn retire(more: impl IntoIterator<Item = Span>) {
    let mut retired = RETIRED.locked();
    retired.extend(more);
    let unused: Vec<Span> = retired
        .extract_if(.., |span| Arc::strong_count(&span.mapping) == 1)
        .collect();
    drop(retired);
    for Span {
        mapping,
        registered,
        ..
    } in unused
    {
        // In this order: another mapping may get these addresses at once.
        drop(registered);
        drop(mapping);
    }
}

/// Identifies the pages of a region. Equal values mean the same pages at the same place in the
/// guest.
///
/// macOS does not tell one POSIX shared memory object from another, and QEMU sends the whole table
/// again for every blob that it maps. On macOS a region therefore counts as unchanged when it has
/// the same place in the guest and in the VMM as one of the table before. Guest RAM does not move
/// while it exists. A *blob* may be replaced by another one of the same size at the same place. Its
/// pages are then wrong here, but nothing reads them: a device reads and writes guest RAM, not its
/// own window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Backing {
    file: Identity,
    offset: u64,
    guest: u64,
    size: u64,
    vmm: u64,
}

impl Backing {
    fn of(region: &Region) -> Self {
        Self {
            file: identity(&region.metadata),
            offset: region.offset,
            guest: region.guest,
            size: region.size,
            vmm: region.vmm,
        }
    }

    /// Whether equal values mean the same pages at all.
    fn can_be_known(&self) -> bool {
        self.file != Identity::Unknown
    }
}

fn map_region(region: Region, owner: Option<&Arc<Owner>>) -> Result<Span, MemoryError> {
    let backing = Backing::of(&region);
    let id = FileId::of(&region.metadata);
    let (bytes, guest) = (region.size, region.guest);
    let bad = |why: &dyn std::fmt::Display| {
        MemoryError::Region(format!("region of {bytes:#x} bytes at {guest:#x}: {why}"))
    };
    let size = usize::try_from(region.size).map_err(|error| bad(&error))?;
    let page = page_size();
    if !region.offset.is_multiple_of(page) {
        return Err(bad(&format_args!(
            "its offset {:#x} is no multiple of this host's page of {page:#x} bytes; give the VM memory that begins on pages",
            region.offset
        )));
    }
    // The system also maps what lies behind the end of a file, and kills a process that touches it.
    let wraps = |start: u64| start.checked_add(region.size).is_none();
    if wraps(region.offset) || wraps(region.guest) || wraps(region.vmm) {
        return Err(bad(&format_args!(
            "its offset {:#x}, its address in the guest or its address {:#x} in the VMM wraps round",
            region.offset, region.vmm
        )));
    }
    let needed = region.offset.saturating_add(region.size);
    if region.metadata.is_file() && region.metadata.len() < needed {
        return Err(bad(&format_args!(
            "its file has {:#x} bytes, and {needed:#x} are needed",
            region.metadata.len()
        )));
    }
    let file = FileOffset::new(region.file, region.offset);
    let mapping = MmapRegion::from_file(file, size).map_err(|error| bad(&error))?;
    hesper_system::keep_out_of_core_dumps(mapping.as_ptr().addr(), mapping.size());
    let mapping = GuestRegionMmap::new(mapping, GuestAddress(region.guest))
        .map(Arc::new)
        .ok_or_else(|| bad(&"its guest addresses wrap round"))?;
    let registered = guest_memory::register(mapping.as_ptr(), size, id, owner);
    Ok(Span {
        backing,
        mapping,
        registered: Arc::new(registered),
    })
}

/// The memory of a guest, by its last table.
pub(super) struct GuestMemory {
    shared: GuestMemoryAtomic<GuestMemoryMmap>,
    spans: Vec<Span>,
    owner: Option<Arc<Owner>>,
}

impl GuestMemory {
    /// No memory yet. `owner` will share it, and its connection ends when it takes it away.
    pub(super) fn new(owner: Option<Arc<Owner>>) -> Self {
        Self {
            shared: GuestMemoryAtomic::new(GuestMemoryMmap::new()),
            spans: Vec::new(),
            owner,
        }
    }

    /// The memory for its readers and writers. It follows the table.
    pub(super) fn shared(&self) -> GuestMemoryAtomic<GuestMemoryMmap> {
        self.shared.clone()
    }

    /// Adds a region. It replaces the one at the same place.
    pub(super) fn add(&mut self, region: Region) -> Result<(), MemoryError> {
        let guest = region.guest;
        let span = map_region(region, self.owner.as_ref())?;
        let others = self.spans.iter();
        let others = others.filter(|span| span.backing.guest != guest);
        self.replace(others.cloned().chain([span]).collect())
    }

    /// Removes a region. Does nothing when there is none: the VMM may have kept one that it did not
    /// offer.
    pub(super) fn remove(&mut self, guest: u64, size: u64, vmm: u64) -> Result<(), MemoryError> {
        let is_it = |span: &&Span| {
            let backing = &span.backing;
            (backing.guest, backing.size, backing.vmm) == (guest, size, vmm)
        };
        let others = self.spans.iter().filter(|span| !is_it(span));
        self.replace(others.cloned().collect())
    }

    /// Replaces the table.
    pub(super) fn set(&mut self, regions: Vec<Region>) -> Result<(), MemoryError> {
        let mut spans = Vec::with_capacity(regions.len());
        for region in regions {
            let backing = Backing::of(&region);
            let known = self
                .spans
                .iter()
                .find(|span| backing.can_be_known() && span.backing == backing);
            spans.push(match known {
                Some(span) => span.clone(),
                None => map_region(region, self.owner.as_ref())?,
            });
        }
        self.replace(spans)
    }

    fn replace(&mut self, mut spans: Vec<Span>) -> Result<(), MemoryError> {
        spans.sort_by_key(|span| span.backing.guest);
        let mappings = spans.iter().map(|span| span.mapping.clone()).collect();
        let table = GuestMemoryMmap::from_arc_regions(mappings)
            .map_err(|error| MemoryError::Region(error.to_string()))?;
        unpoisoned(self.shared.lock()).replace(table);
        let is_kept = |span: &Span| {
            let is_it = |new: &Span| Arc::ptr_eq(&new.mapping, &span.mapping);
            spans.iter().any(is_it)
        };
        let before = std::mem::take(&mut self.spans);
        let gone: Vec<Span> = before.into_iter().filter(|span| !is_kept(span)).collect();
        self.spans = spans;
        retire(gone);
        Ok(())
    }

    /// Translates an address of the VMM. `None` when it is in no region.
    pub(super) fn guest_address(&self, vmm: u64) -> Option<u64> {
        self.spans.iter().find_map(|span| {
            let offset = vmm.checked_sub(span.backing.vmm)?;
            if offset >= span.mapping.len() {
                return None;
            }
            let address = span.mapping.start_addr().checked_add(offset)?;
            Some(address.raw_value())
        })
    }
}

impl Drop for GuestMemory {
    /// Who still holds the memory sees an empty table.
    fn drop(&mut self) {
        // An empty table has no regions that could overlap.
        let _ = self.replace(Vec::new());
        // A renderer's thread may be writing an answer. That takes no time.
        for _ in 0..UNMAP_ATTEMPTS {
            if RETIRED.locked().is_empty() {
                return;
            }
            std::thread::sleep(UNMAP_PAUSE);
            retire([]);
        }
    }
}

#[cfg(test)]
mod tests {
    use vm_memory::{GuestAddressSpace, GuestMemoryBackend};

    use super::*;

    fn region(guest: u64, file: &File) -> Region {
        Region {
            guest,
            size: 0x2000,
            vmm: 0x7000_0000 + guest,
            offset: 0,
            file: file.try_clone().unwrap(),
            metadata: file.metadata().unwrap(),
        }
    }

    fn file() -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(0x2000).unwrap();
        file
    }

    /// A region that is longer than its file would kill the process when its end is touched.
    #[test]
    fn a_region_behind_the_end_of_its_file_is_refused() {
        let mut memory = GuestMemory::new(None);
        let mut long = region(0, &file());
        long.size = 0x3000;
        let error = memory.set(vec![long]).unwrap_err().to_string();
        assert!(
            error.contains("0x2000") && error.contains("0x3000"),
            "{error}"
        );
        for wraps in [
            |region: &mut Region| region.offset = 0x1000_u64.wrapping_neg(),
            |region: &mut Region| region.vmm = 0x1000_u64.wrapping_neg(),
            |region: &mut Region| region.guest = 0x1000_u64.wrapping_neg(),
            |region: &mut Region| region.size = u64::MAX,
        ] {
            let mut wrapped = region(0x1000, &file());
            wraps(&mut wrapped);
            assert!(memory.add(wrapped).is_err());
        }
        let mut crooked = region(0, &file());
        (crooked.offset, crooked.size) = (0x100, 0x1000);
        let error = memory.set(vec![crooked]).unwrap_err().to_string();
        assert!(error.contains("no multiple of this host's page"), "{error}");
    }

    #[test]
    fn memory_that_stays_is_not_mapped_anew() {
        let mut memory = GuestMemory::new(None);
        let (ram, blob, other) = (file(), file(), file());
        let places = |memory: &GuestMemory| {
            let memory = memory.shared().memory();
            let place = |region: &GuestRegionMmap| region.as_ptr() as usize;
            memory.iter().map(place).collect::<Vec<_>>()
        };
        memory.set(vec![region(0, &ram)]).unwrap();
        let first = places(&memory);
        // In any order; the table is sorted.
        memory
            .set(vec![region(0x10_0000, &blob), region(0, &ram)])
            .unwrap();
        let second = places(&memory);
        assert_eq!(second[0], first[0]);
        // Another file, and the same one elsewhere, are other mappings.
        memory
            .set(vec![region(0x10_0000, &other), region(0x20_0000, &ram)])
            .unwrap();
        let third = places(&memory);
        assert!(!third.iter().any(|place| second.contains(place)));
    }

    #[test]
    fn regions_come_and_go_one_by_one() {
        let mut memory = GuestMemory::new(None);
        let (ram, dimm) = (file(), file());
        memory.add(region(0x10_0000, &dimm)).unwrap();
        memory.add(region(0, &ram)).unwrap();
        let there = |memory: &GuestMemory, vmm| memory.guest_address(vmm).is_some();
        assert!(there(&memory, 0x7000_0000) && there(&memory, 0x7010_0000));
        // No region matches exactly, so none is removed.
        memory.remove(0x10_0000, 0x1000, 0x7010_0000).unwrap();
        memory.remove(0x10_0000, 0x2000, 0x7000_0000).unwrap();
        assert!(there(&memory, 0x7010_0000));
        memory.remove(0x10_0000, 0x2000, 0x7010_0000).unwrap();
        assert!(there(&memory, 0x7000_0000) && !there(&memory, 0x7010_0000));
        assert!(memory.add(region(0x1000, &dimm)).is_err(), "it overlaps");
        assert!(there(&memory, 0x7000_0000));
    }

    #[test]
    fn overlapping_memory_is_refused_and_the_former_table_stays() {
        let mut memory = GuestMemory::new(None);
        let ram = file();
        memory.set(vec![region(0, &ram)]).unwrap();
        assert!(
            memory
                .set(vec![region(0x1000, &ram), region(0, &ram)])
                .is_err()
        );
        assert_eq!(memory.guest_address(0x7000_1fff).unwrap(), 0x1fff);
        assert!(memory.guest_address(0x7000_2000).is_none());
        assert!(memory.guest_address(0).is_none());
    }
}
