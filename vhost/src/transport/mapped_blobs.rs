//! The blobs of this process that are mapped into a VM.
//!
//! QEMU offers every vhost-user device all memory that the guest can reach. So it also offers the
//! blobs of Hesper's own window, to the GPU and to the input devices. No device needs them, since
//! it reads and writes guest RAM. Each connection therefore asks here whether a region is such a
//! blob. `connection` says what happens to it then.
//!
//! There is one list for the whole process, since the connections of one VM do not know each other.

use std::fs::File;
use std::os::fd::BorrowedFd;
use std::sync::{Mutex, MutexGuard};

use hesper_system::sync::Lock;

use super::memory::Region;
use crate::system::{Identity, identity};

/// A mapped part of some memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Part {
    memory: Identity,
    offset: u64,
    len: u64,
}

impl Part {
    /// Whether `region` shows this part. Where the system does not identify memory, only the size
    /// and the offset can be compared.
    fn is_shown_by(&self, region: &Part) -> bool {
        match (self.memory, region.memory) {
            (Identity::File(..), Identity::File(..)) => self.memory == region.memory,
            (Identity::File(..), _) | (_, Identity::File(..)) => false,
            _ => (self.offset, self.len) == (region.offset, region.len),
        }
    }
}

static PARTS: Mutex<Vec<Part>> = Mutex::new(Vec::new());

fn parts() -> MutexGuard<'static, Vec<Part>> {
    PARTS.locked()
}

/// A blob on the list. It is removed on drop.
#[derive(Debug)]
pub(super) struct MappedBlob(Part);

impl MappedBlob {
    /// Adds `len` bytes at `offset` of the memory behind `fd` to the list.
    pub(super) fn new(fd: BorrowedFd<'_>, offset: u64, len: u64) -> std::io::Result<Self> {
        let memory = identity(&File::from(fd.try_clone_to_owned()?).metadata()?);
        let part = Part {
            memory,
            offset,
            len,
        };
        parts().push(part);
        Ok(Self(part))
    }
}

impl Drop for MappedBlob {
    fn drop(&mut self) {
        let mut parts = parts();
        if let Some(index) = parts.iter().position(|part| *part == self.0) {
            parts.swap_remove(index);
        }
    }
}

/// Whether a region that the VMM offers is a blob that this process has mapped into a VM.
pub(super) fn is_blob(region: &Region) -> bool {
    let wanted = Part {
        memory: identity(&region.metadata),
        offset: region.offset,
        len: region.size,
    };
    parts().iter().any(|part| part.is_shown_by(&wanted))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    fn region(file: &File, offset: u64, size: u64) -> Region {
        Region {
            guest: 0,
            size,
            vmm: 0,
            offset,
            file: file.try_clone().unwrap(),
            metadata: file.metadata().unwrap(),
        }
    }

    #[test]
    fn a_blob_is_known_while_it_is_mapped_and_ram_never_is() {
        let (blob, ram) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let is = |file, offset, size| is_blob(&region(file, offset, size));
        let mapped = MappedBlob::new(blob.as_fd(), 0, 0x12_3000).unwrap();
        let twice = MappedBlob::new(blob.as_fd(), 0, 0x12_3000).unwrap();
        assert!(is(&blob, 0, 0x12_3000));
        assert!(!is(&ram, 0, 0x12_4000), "another size");
        drop(mapped);
        assert!(is(&blob, 0, 0x12_3000), "mapped elsewhere, too");
        drop(twice);
        assert!(!is(&blob, 0, 0x12_3000));
    }

    #[test]
    fn memory_without_a_name_is_known_by_its_size_and_offset() {
        let part = |memory, offset, len| Part {
            memory,
            offset,
            len,
        };
        let mapped = part(Identity::Nameless, 0, 0x4000);
        assert!(mapped.is_shown_by(&part(Identity::Nameless, 0, 0x4000)));
        assert!(!mapped.is_shown_by(&part(Identity::Nameless, 0, 0x8000)));
        assert!(!mapped.is_shown_by(&part(Identity::Nameless, 0x4000, 0x4000)));
        assert!(!mapped.is_shown_by(&part(Identity::File(1, 2), 0, 0x4000)));
        let named = part(Identity::File(1, 2), 0, 0x4000);
        assert!(named.is_shown_by(&part(Identity::File(1, 2), 0x1000, 0x1000)));
        assert!(!named.is_shown_by(&part(Identity::File(1, 3), 0, 0x4000)));
    }
}
