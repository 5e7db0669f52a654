//! The host-visible window, as a VMM keeps it: every mapping that Hesper asks for is made, and can be read and written.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

use vhost::vhost_user::message::{VhostUserMMap, VhostUserSharedMsg};
use vhost::vhost_user::{HandlerResult, VhostUserFrontendReqHandlerMut};
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};

/// What is mapped where.
#[derive(Default)]
pub struct Window {
    mappings: BTreeMap<u64, MmapRegion<()>>,
    barriers: u64,
}

impl Window {
    /// Number of live mappings.
    pub fn mappings(&self) -> usize {
        self.mappings.len()
    }

    /// How often Hesper made sure that its mappings are in place.
    pub fn barriers(&self) -> u64 {
        self.barriers
    }

    /// The mapping that has `offset`, and the place inside it.
    fn find(&self, offset: u64) -> (&MmapRegion<()>, usize) {
        let (start, region) = self.mappings.range(..=offset).next_back().unwrap();
        let inside = (offset - start) as usize;
        assert!(
            inside < region.size(),
            "nothing is mapped at {offset:#x} of the window"
        );
        (region, inside)
    }

    pub fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let (region, inside) = self.find(offset);
        let mut bytes = vec![0; length];
        let slice = region.get_slice(inside, length).unwrap();
        slice.copy_to(&mut bytes);
        bytes
    }

    pub fn write(&self, offset: u64, bytes: &[u8]) {
        let (region, inside) = self.find(offset);
        let slice = region.get_slice(inside, bytes.len()).unwrap();
        slice.copy_from(bytes);
    }

    /// A word that both sides use as a signal.
    pub fn word(&self, offset: u64) -> u32 {
        let (region, inside) = self.find(offset);
        let slice = region.get_slice(inside, 4).unwrap();
        slice.load(0, Ordering::SeqCst).unwrap()
    }

    pub fn set_word(&self, offset: u64, word: u32) {
        let (region, inside) = self.find(offset);
        let slice = region.get_slice(inside, 4).unwrap();
        slice.store(word, 0, Ordering::SeqCst).unwrap();
    }
}

impl VhostUserFrontendReqHandlerMut for Window {
    fn handle_config_change(&mut self) -> HandlerResult<u64> {
        Ok(0)
    }

    fn shared_object_remove(&mut self, _: &VhostUserSharedMsg) -> HandlerResult<u64> {
        // As QEMU does, which has no such object.
        self.barriers += 1;
        Ok(1)
    }

    fn shmem_map(&mut self, request: &VhostUserMMap, fd: &dyn AsRawFd) -> HandlerResult<u64> {
        // A descriptor of one's own: the crate closes this one afterwards.
        let file = File::options()
            .read(true)
            .write(true)
            .open(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
        if file.metadata()?.len() < request.fd_offset + request.len {
            // As QEMU does, which maps no part of a page.
            return Ok(1);
        }
        let place = FileOffset::new(file, request.fd_offset);
        let region = MmapRegion::from_file(place, request.len as usize).unwrap();
        let (offset, length) = (request.shm_offset, request.len);
        let last = self.mappings.range(..offset + length).next_back();
        if let Some((start, before)) = last {
            assert!(
                start + before.size() as u64 <= offset,
                "Hesper maps over a live mapping at {offset:#x}"
            );
        }
        self.mappings.insert(offset, region);
        Ok(0)
    }

    fn shmem_unmap(&mut self, request: &VhostUserMMap) -> HandlerResult<u64> {
        let (offset, length) = (request.shm_offset, request.len);
        let gone = self.mappings.remove(&offset);
        assert_eq!(
            gone.map(|region| region.size() as u64),
            Some(length),
            "Hesper unmaps what is not mapped at {offset:#x}"
        );
        Ok(0)
    }
}
