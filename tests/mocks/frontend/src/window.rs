//! The host-visible window of a VMM. It makes every mapping that Hesper asks for, and the tests
//! read and write there.
//!
//! A VMM on a Mac maps whole pages of 16 KiB. There, QEMU accepts any length except for a range to
//! unmap, and crashes on other requests ([`Window::with_pages`]).

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;

use vhost::vhost_user::message::{VhostUserMMap, VhostUserSharedMsg};
use vhost::vhost_user::{HandlerResult, VhostUserFrontendReqHandlerMut};
use vm_memory::{Bytes, FileOffset, MmapRegion, VolatileMemory};

/// The window and its mappings.
pub struct Window {
    /// Bytes in a page.
    page: u64,
    mappings: BTreeMap<u64, MmapRegion<()>>,
    barriers: u64,
    /// Requests that were answered with a refusal.
    refused: Vec<String>,
}

impl Window {
    /// An empty window whose VMM maps pages of this size.
    pub fn with_pages(page: u64) -> Self {
        Self {
            page,
            mappings: BTreeMap::new(),
            barriers: 0,
            refused: Vec::new(),
        }
    }

    /// Bytes in a page.
    pub fn page(&self) -> u64 {
        self.page
    }

    /// Requests that were answered with a refusal.
    pub fn refused(&self) -> &[String] {
        &self.refused
    }

    /// Panics on what would crash the VMM, as an assertion in QEMU does.
    fn survives(&self, what: &str, request: &VhostUserMMap) {
        for (name, value) in [
            ("window offset", request.shm_offset),
            ("file offset", request.fd_offset),
        ] {
            assert!(
                value.is_multiple_of(self.page),
                "Hesper asks to {what} at {name} {value:#x}, in the middle of a page"
            );
        }
    }

    /// Number of live mappings.
    pub fn mappings(&self) -> usize {
        self.mappings.len()
    }

    /// How often Hesper waited until its mappings were in place.
    pub fn barriers(&self) -> u64 {
        self.barriers
    }

    /// The mapping at `offset`, and the offset inside it.
    fn find(&self, offset: u64) -> (&MmapRegion<()>, usize) {
        let (start, region) = self.mappings.range(..=offset).next_back().unwrap();
        let inside = (offset - start) as usize;
        assert!(
            inside < region.size(),
            "nothing is mapped at {offset:#x} of the window"
        );
        (region, inside)
    }

    /// Reads what is mapped.
    pub fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let (region, inside) = self.find(offset);
        let mut bytes = vec![0; length];
        let slice = region.get_slice(inside, length).unwrap();
        slice.copy_to(&mut bytes);
        bytes
    }

    /// Writes what is mapped.
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

    /// Writes such a word.
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
        // As QEMU does, because it has no such object.
        self.barriers += 1;
        Ok(1)
    }

    fn shmem_map(&mut self, request: &VhostUserMMap, fd: &dyn AsRawFd) -> HandlerResult<u64> {
        self.survives("map", request);
        // A descriptor of our own: the crate closes this one afterwards.
        let file = File::options()
            .read(true)
            .write(true)
            .open(format!("/proc/self/fd/{}", fd.as_raw_fd()))?;
        let length = file.metadata()?.len();
        // As QEMU does, because it maps no part of a page.
        let is_inside = request.fd_offset + request.len <= length;
        if !is_inside || request.len == 0 || !request.len.is_multiple_of(self.page) {
            self.refused
                .push(format!("map {request:?} of {length:#x} bytes"));
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
        self.survives("unmap", request);
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
